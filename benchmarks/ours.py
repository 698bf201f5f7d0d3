"""Our reference network and its batch, which all benchmarks share."""

import os
import pathlib

import numpy as np

RATE, SYMBOLS = 16000, 31


def make_batch(
    num_clips: int, seconds: float, shortest: float = 0.9
) -> dict[str, np.ndarray]:
    """Noise of 90 to 100 % of the length, with 12 to 14 letters a second."""
    generator = np.random.default_rng(0)
    samples = int(seconds * RATE)
    audio_length = generator.integers(
        int(shortest * samples), samples + 1, num_clips
    )
    audio_length[0] = samples
    label_length = (audio_length / RATE * generator.uniform(12, 14)).astype(int)
    audio = generator.normal(0, 0.1, (num_clips, samples))
    audio[np.arange(samples) >= audio_length[:, None]] = 0
    return {
        "audio": audio.astype("float32"),
        "audio_length": audio_length.astype("int32"),
        "labels": generator.integers(
            1, SYMBOLS - 2, (num_clips, label_length.max())
        ).astype("int32"),
        "label_length": label_length.astype("int32"),
    }


def make_step(batch, policy):
    """Our model's own training function, as `fit` calls it."""
    import keras
    import tensorflow as tf

    import keras_ds2

    keras.utils.set_random_seed(0)
    model = keras_ds2.DeepSpeech2(normalize=False, dtype=policy)
    model.compile(keras.optimizers.Adam(1e-3), jit_compile=False)
    inputs = {name: batch[name] for name in ("audio", "audio_length")}
    targets = {name: batch[name] for name in ("labels", "label_length")}
    batches = iter(tf.data.Dataset.from_tensors((inputs, targets)).repeat())
    model.make_train_function()
    losses = []

    def step():
        losses.append(float(model.train_function(batches)["loss"]))
        model.reset_metrics()
        return losses[-1]

    return step, sum(np.prod(w.shape) for w in model.trainable_weights)


def environment(**variables):
    """That of another program of this checkout."""
    root = str(pathlib.Path(__file__).resolve().parents[1])
    path = os.pathsep.join([root, os.environ.get("PYTHONPATH", "")])
    return dict(
        os.environ, PYTHONPATH=path, TF_CPP_MIN_LOG_LEVEL="3", **variables
    )
