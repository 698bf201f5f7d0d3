"""Oracle: mean and variance of all real frames, one below the other."""

import helpers
import keras
import numpy as np
import pytest

from keras_ds2 import SequenceBatchNormalization

NUM_FRAMES = np.array([6, 4, 0])
# Keras adds 1e-7 to the number of frames.
TOLERANCE = 1e-5


def frames_of(shape, seed=0):
    return np.random.default_rng(seed).normal(2, 3, shape).astype("float32")


def real_frames(frames, num_frames=NUM_FRAMES):
    real = [row[:n] for row, n in zip(frames, num_frames, strict=True)]
    return np.concatenate(real).reshape(-1, frames.shape[-1]).astype("float64")


def reference(frames, num_frames, mean, variance, gamma, beta, epsilon):
    outputs = (frames - mean) / np.sqrt(variance + epsilon) * gamma + beta
    for row, n in zip(outputs, num_frames, strict=True):
        row[n:] = 0
    return outputs


def layer_for(frames, **kwargs):
    """A layer with weights that are nothing special."""
    layer = SequenceBatchNormalization(**kwargs)
    layer.build(frames.shape)
    size = frames.shape[-1]
    generator = np.random.default_rng(9)
    layer.set_weights([generator.uniform(0.5, 2, size) for _ in range(4)])
    return layer


@pytest.mark.parametrize("shape", [(3, 6, 5), (3, 6, 4, 2)])
def test_basics(shape):
    helpers.check_layer(
        SequenceBatchNormalization,
        {"momentum": 0.8, "epsilon": 0.01, "scale": True},
        (frames_of(shape), NUM_FRAMES.astype("int32")),
        shape,
        num_trainable_weights=2,
        num_non_trainable_weights=2,
    )


# One feature is a case of its own: Keras squeezes the statistics.
@pytest.mark.parametrize(
    "shape", [(3, 6, 5), (3, 6, 1), (3, 6, 4, 2), (3, 6, 4, 1), (3, 6, 1, 1)]
)
def test_training_uses_and_keeps_statistics_of_real_frames(shape):
    frames = frames_of(shape)
    layer = layer_for(frames, momentum=0.9, epsilon=0.01)
    gamma, beta, moving_mean, moving_variance = layer.get_weights()
    real = real_frames(frames)
    mean, variance = real.mean(axis=0), real.var(axis=0)
    outputs = layer(frames, NUM_FRAMES, training=True)
    np.testing.assert_allclose(
        outputs,
        reference(frames, NUM_FRAMES, mean, variance, gamma, beta, 0.01),
        atol=TOLERANCE,
    )
    for moving, old, new in (
        (layer.moving_mean, moving_mean, mean),
        (layer.moving_variance, moving_variance, variance),
    ):
        assert moving.shape == (shape[-1],)
        np.testing.assert_allclose(
            moving, 0.9 * old + 0.1 * new, rtol=TOLERANCE
        )


@pytest.mark.parametrize("shape", [(3, 6, 5), (3, 6, 4, 2)])
def test_inference_uses_the_moving_statistics(shape):
    frames = frames_of(shape)
    layer = layer_for(frames)
    gamma, beta, mean, variance = layer.get_weights()
    outputs = layer(frames, NUM_FRAMES, training=False)
    np.testing.assert_allclose(
        outputs,
        reference(frames, NUM_FRAMES, mean, variance, gamma, beta, 1e-3),
        atol=TOLERANCE,
    )
    np.testing.assert_array_equal(layer.moving_mean, mean)
    np.testing.assert_array_equal(layer.moving_variance, variance)


def test_without_lengths_all_frames_are_real():
    frames = frames_of((3, 6, 5))
    everything = np.array([6, 6, 6])
    np.testing.assert_allclose(
        layer_for(frames)(frames, training=True),
        layer_for(frames)(frames, everything, training=True),
        atol=TOLERANCE,
    )


@pytest.mark.parametrize("garbage", helpers.FINITE_GARBAGE)
@pytest.mark.parametrize("amount", helpers.PAD_AMOUNTS)
@pytest.mark.parametrize("shape", [(3, 6, 5), (3, 6, 4, 1)])
def test_padding_changes_nothing(shape, amount, garbage):
    frames = frames_of(shape)
    arguments = (layer_for(frames), frames, np.array([6, 4, 1]))
    helpers.assert_padding_invariant(*arguments, amount, garbage)
    helpers.assert_training_padding_invariant(*arguments, amount, garbage)


def test_an_empty_utterance_does_not_count():
    frames = frames_of((3, 6, 5))
    with_empty, without = layer_for(frames), layer_for(frames)
    with_empty(frames, NUM_FRAMES, training=True)
    without(frames[:2], NUM_FRAMES[:2], training=True)
    for actual, expected in zip(
        with_empty.weights, without.weights, strict=True
    ):
        np.testing.assert_allclose(actual, expected, rtol=TOLERANCE)


@pytest.mark.parametrize("policy", helpers.POLICIES)
def test_statistics_stay_float32(policy):
    # Added up in sixteen bits, 3000 ones would not exceed 256 or 2048, and
    # the squares of 300 would be infinite.
    frames = 300 + frames_of((2, 1500, 2))
    layer = SequenceBatchNormalization(momentum=0.0, dtype=policy)
    layer(frames, np.array([1500, 1500]), training=True)
    rounded = keras.ops.cast(frames, layer.compute_dtype)
    real = np.array(keras.ops.cast(rounded, "float32"), "float64")
    real = real.reshape(-1, 2)
    for weight in layer.weights:
        assert weight.dtype == "float32"
    np.testing.assert_allclose(layer.moving_mean, real.mean(0), rtol=1e-4)
    np.testing.assert_allclose(layer.moving_variance, real.var(0), rtol=1e-4)


def test_weights_interchange_with_keras():
    frames = frames_of((3, 6, 5))
    ours, theirs = layer_for(frames), keras.layers.BatchNormalization()
    theirs.build(frames.shape)
    assert [(w.name, w.shape, w.dtype) for w in ours.weights] == [
        (w.name, w.shape, w.dtype) for w in theirs.weights
    ]
    theirs.set_weights(ours.get_weights())
    np.testing.assert_allclose(ours(frames), theirs(frames), atol=TOLERANCE)
    theirs.set_weights([2 * w for w in theirs.get_weights()])
    ours.set_weights(theirs.get_weights())
    np.testing.assert_allclose(ours(frames), theirs(frames), atol=TOLERANCE)


def test_keras_mask_stands_for_lengths():
    frames = frames_of((2, 6, 5))
    layer = layer_for(frames)
    expected = layer(frames, np.array([6, 4]), training=True)
    statistics = np.array(layer.moving_mean)
    frames[1, 4:] = 99
    layer = layer_for(frames)
    actual = layer(keras.layers.Masking(99)(frames), training=True)
    np.testing.assert_allclose(actual, expected, atol=TOLERANCE)
    np.testing.assert_allclose(layer.moving_mean, statistics, rtol=TOLERANCE)


def test_other_axes_are_refused():
    with pytest.raises(ValueError, match="axis=-1"):
        SequenceBatchNormalization(axis=1)


def test_statistics_of_other_replicas_are_refused():
    with pytest.raises(ValueError, match="`synchronized=True` is not supp"):
        SequenceBatchNormalization(synchronized=True)
