"""Measures how the first Deep Speech begins, and learns, by its initializers.

    python benchmarks/initializers.py [--units N] [--steps N]

The whole network on the six bundled clips, with the kernels of all dense layers
and the input kernel of the recurrent layer drawn by one initializer and its
recurrent matrices by another. Printed are, before training, the root mean
square of the outputs of the third dense layer and of the recurrent layer over
real frames, the share of states within 1 % of the sum of both clips, and the
norm of the gradient; after `--steps` steps of Adam, loss and CER.
"""

import argparse
import pathlib

CLIPS = pathlib.Path(__file__).resolve().parents[1] / "tests/data/LibriSpeech"
# The package's own first.
VARIANTS = (
    ("he_normal", "orthogonal", 1.0),
    ("glorot_uniform", "orthogonal", 1.0),
    ("he_normal", "orthogonal", 2**0.5),
    ("he_normal", "identity", 1.0),
)


def draw(model, dense, recurrent, gain):
    """Gives the layers new weights."""
    import keras

    keras.utils.set_random_seed(0)
    for weight in model.trainable_weights:
        name = weight.path.split("/")[-1]
        if name == "bias" or weight.path.startswith("logits"):
            continue
        initializer = recurrent if "recurrent" in name else dense
        # Another object each time: one alone would repeat its numbers.
        values = keras.initializers.get(initializer)(weight.shape)
        weight.assign(values * gain if initializer == recurrent else values)


def begin(model, batch):
    """Returns what is printed before training."""
    import keras
    import numpy as np
    import tensorflow as tf

    inputs, targets = batch
    names = "dense_3", "rnn_4"
    parts = keras.Model(
        model.inputs,
        [
            *(model.get_layer(name).output for name in names),
            model.output["logit_length"],
        ],
    )
    *outputs, length = map(np.array, parts(inputs))
    real = np.arange(outputs[0].shape[1]) < length[:, None]
    sizes = [float(np.sqrt(np.mean(x[real] ** 2))) for x in outputs]
    clipped = float(np.mean(outputs[-1][real] > 0.99 * 40))
    with tf.GradientTape() as tape:
        loss = model.compute_loss(y=targets, y_pred=model(inputs))
    gradients = tape.gradient(loss, model.trainable_weights)
    return *sizes, clipped, float(tf.linalg.global_norm(gradients))


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--units", type=int, default=2048, help="of each layer")
    parser.add_argument("--steps", type=int, default=40)
    options = parser.parse_args()

    import keras

    import keras_ds2

    print(
        f"{'dense':16}{'recurrent':18}{'dense_3':>8}{'rnn_4':>8}"
        f"{'at clip':>8}{'gradient':>10}{'loss':>8}{'cer':>6}"
    )
    for dense, recurrent, gain in VARIANTS:
        model = keras_ds2.DeepSpeech(
            dense_units=options.units, rnn_units=options.units
        )
        dataset = keras_ds2.data.prepare_dataset(
            CLIPS, ["train-clips"], model, batch_size=6
        )
        model.adapt(dataset.one_pass())
        draw(model, dense, recurrent, gain)
        *sizes, clipped, norm = begin(model, next(iter(dataset.one_pass())))
        model.compile(keras.optimizers.Adam(1e-4, global_clipnorm=400.0))
        model.fit(dataset.stream(), steps_per_epoch=options.steps, verbose=0)
        result = model.evaluate(dataset.one_pass(), verbose=0, return_dict=True)
        print(
            f"{dense:16}{recurrent + f' x {gain:.2f}':18}"
            f"{sizes[0]:8.2f}{sizes[1]:8.2f}{clipped:8.3f}{norm:10.0f}"
            f"{result['loss']:8.1f}{result['cer']:6.2f}",
            flush=True,
        )


if __name__ == "__main__":
    main()
