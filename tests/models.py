"""What tests of whole models share: batches of real speech, and promises."""

import itertools

import keras
import numpy as np
import pytest
import tensorflow as tf

import keras_ds2
from keras_ds2.audio import pad_samples


def scramble(model):
    """Biases and batch norm begin at 0 and 1, which hides errors."""
    generator = np.random.default_rng(1)
    for weight in model.weights:
        name = weight.path.split("/")[-1]
        if name in ("gamma", "moving_variance"):
            weight.assign(generator.uniform(0.5, 2.0, weight.shape))
        elif name in ("beta", "moving_mean", "initial_mean", "bias"):
            weight.assign(generator.normal(0.0, 0.3, weight.shape))
    return model


def padded(clips, num_samples=0, fill=0.0):
    """Pads by `num_samples` more than needed, with noise of scale `fill`."""
    longest = max(len(clip) for clip in clips) + num_samples
    batch = pad_samples([*clips, np.zeros(longest, "float32")])
    audio, audio_length = batch["audio"][:-1], batch["audio_length"][:-1]
    generator = np.random.default_rng(2)
    for row, length in zip(audio, audio_length, strict=True):
        row[length:] = fill * generator.normal(size=longest - length)
    return {"audio": audio, "audio_length": audio_length}


def labels_of(texts, alphabet=None, num_columns=0):
    tokenizer = keras_ds2.CharacterTokenizer(
        *() if alphabet is None else (alphabet,)
    )
    labels = tokenizer.tokenize(texts)
    width = int(labels.bounding_shape()[1]) + num_columns
    return {
        "labels": labels.to_tensor(
            tokenizer.padding_id, shape=(None, width)
        ).numpy(),
        "label_length": labels.row_lengths().numpy().astype("int32"),
    }


def assert_trains_and_round_trips(model, options, clips):
    """A step of training moves every weight; a copy computes the same."""
    inputs = padded([clip[:4800] for clip in clips])
    if model.normalize:
        model.adapt([inputs])
    model.compile("sgd", run_eagerly=True)
    before = [w.numpy() for w in model.trainable_weights]
    targets = labels_of(["abc a", "cab", "b"], model.alphabet)
    history = model.fit(inputs, targets, batch_size=3, verbose=0).history
    assert np.isfinite(history["loss"][0]) and history["loss"][0] > 0
    for weight, old in zip(model.trainable_weights, before, strict=True):
        assert np.any(weight.numpy() != old), weight.path
    copy = type(model).from_config(model.get_config())
    assert copy.get_config() == model.get_config()
    assert all(copy.get_config()[name] == options[name] for name in options)
    copy.set_weights(model.get_weights())
    np.testing.assert_array_equal(
        copy(inputs)["logits"], model(inputs)["logits"]
    )


def assert_company_and_padding_change_no_logit(model, clips, tolerance):
    """`tolerance` is absolute."""
    model.adapt([padded(clips)])
    alone = [model.predict_on_batch(padded([clip])) for clip in clips]
    assert max(np.abs(row["logits"][:, :, :29]).max() for row in alone) > 0.3
    for frames, fill in itertools.product((1, 7, 64, 300), (0.0, 1.0, np.nan)):
        outputs = model.predict_on_batch(padded(clips, 160 * frames, fill))
        for i, row in enumerate(alone):
            length = row["logits"].shape[1]
            assert outputs["logit_length"][i] == length
            np.testing.assert_allclose(
                outputs["logits"][i, :length],
                row["logits"][0],
                rtol=0,
                atol=tolerance,
                err_msg=f"clip {i}, {frames} frames of {fill}",
            )


def assert_padding_changes_nothing_in_training(model, clips):
    clips = [clip[: len(clip) // 2] for clip in clips]
    model.adapt([padded(clips)])
    initial = model.get_weights()
    texts = ["go do you", "see", "it's"]

    def step(num_samples, fill, num_columns):
        model.set_weights(initial)
        y = labels_of(texts, num_columns=num_columns)
        with tf.GradientTape() as tape:
            outputs = model(padded(clips, num_samples, fill), training=True)
            loss = model.compute_loss(y=y, y_pred=outputs)
        gradients = tape.gradient(loss, model.trainable_weights)
        moving = model.non_trainable_weights
        return [loss, *gradients], [weight.numpy() for weight in moving]

    expected, expected_moving = step(0, 0.0, 0)
    assert all(np.any(gradient) for gradient in expected)
    for frames in (7, 60):
        results, moving = step(160 * frames, 0.0, num_columns=frames)
        garbage, _ = step(160 * frames, np.nan, num_columns=1)
        # What stands in the padding changes not a bit, its amount the order
        # of sums: 2e-7 of the loss and of each logit. CTC adds logarithms,
        # the size of the loss (105), so that probabilities and gradients
        # move by up to 2e-5 (measured).
        assert float(results[0]) == pytest.approx(float(expected[0]), rel=1e-6)
        for result, other, reference in zip(
            results, garbage, expected, strict=True
        ):
            np.testing.assert_array_equal(result, other)
            np.testing.assert_allclose(
                result, reference, rtol=0, atol=5e-5 * np.abs(reference).max()
            )
        for result, reference in zip(moving, expected_moving, strict=True):
            np.testing.assert_allclose(result, reference, rtol=1e-6, atol=1e-6)


def assert_loss_scaling(model):
    """Only float16 needs it."""
    model.compile("adam")
    is_scaled = isinstance(model.optimizer, keras.optimizers.LossScaleOptimizer)
    assert is_scaled == (model.dtype_policy.name == "mixed_float16")
    assert model.jit_compile is False
