"""Checks that stock Keras's and PyTorch's networks compute what ours does.

    python benchmarks/same_networks.py keras torch [--device cuda:0]

With our weights, in inference and in float32, theirs must have our logits and
our loss on a batch without padding, to a relative `TOLERANCE`. (What they do
with padding is their own, see `stock_keras.py` and `stock_torch.py`.) Prints
the differences, and exits with 1 where one is larger.
"""

import argparse
import importlib

import keras
import numpy as np
import ours
import tensorflow as tf

import keras_ds2

# Of logits and losses, in units of the largest.
TOLERANCE = 1e-4


def reference(batch):
    """Our network without dropout, and its logits and loss of `batch`.

    The moving statistics are those of the batch, so that features stay within
    the range where the network is not flat.
    """
    keras.utils.set_random_seed(0)
    model = keras_ds2.DeepSpeech2(normalize=False, dropout=0.0)
    generator = np.random.default_rng(1)
    for weight in model.trainable_weights:
        if len(weight.shape) == 1:  # zeros and ones hide a wrong order
            weight.assign(weight + 0.1 * generator.normal(size=weight.shape))
    for layer in model.layers:
        if isinstance(layer, keras.layers.BatchNormalization):
            layer.momentum = 0.0
    inputs = {name: batch[name] for name in ("audio", "audio_length")}
    model(inputs, training=True)
    outputs = model(inputs, training=False)
    loss = model.compute_loss(y=batch, y_pred=outputs)
    return model, np.array(outputs["logits"]), float(loss)


def differences(library, model, batch, expected, expected_loss):
    """Of the logits that are learned, and of the loss."""
    stock = importlib.import_module(f"stock_{library}")
    logits, loss = stock.outputs_with(model, batch)
    learned = slice(ours.SYMBOLS - 2)  # those of reserved symbols are constants
    scale = np.abs(expected[..., learned]).max()
    error = np.abs(logits - expected)[..., learned].max() / scale
    return error, abs(loss - expected_loss) / expected_loss


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("libraries", nargs="+", choices=("keras", "torch"))
    parser.add_argument("--device", default="cpu", help="cpu or cuda:N")
    options = parser.parse_args()
    keras_ds2.use_device(options.device)
    tf.config.experimental.enable_tensor_float_32_execution(False)
    batch = ours.make_batch(2, 2.0, shortest=1.0)
    network = reference(batch)
    for library in options.libraries:
        logits, loss = differences(library, network[0], batch, *network[1:])
        print(
            f"{library} with our weights: logits differ by {logits:.1e}, the "
            f"loss by {loss:.1e}",
            flush=True,
        )
        if not max(logits, loss) < TOLERANCE:
            raise SystemExit(f"More than {TOLERANCE:.0e}: not the same network")


if __name__ == "__main__":
    main()
