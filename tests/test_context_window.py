"""Oracles: frames counted by their position, and the window as a loop."""

import helpers
import keras
import numpy as np
import pytest
import tensorflow as tf

import keras_ds2
from keras_ds2 import ContextWindow


@pytest.fixture
def frames():
    return np.random.default_rng(0).normal(size=(3, 9, 4)).astype("float32")


def reference(frames, context, stride, num_frames):
    count = -(-frames.shape[1] // stride)
    outputs = np.zeros((len(frames), count, 2 * context + 1, frames.shape[2]))
    for row, length in enumerate(num_frames):
        for t in range(-(-length // stride)):
            for j in range(-context, context + 1):
                if 0 <= t * stride + j < length:
                    outputs[row, t, context + j] = frames[row, t * stride + j]
    return outputs.reshape(*outputs.shape[:2], -1)


def test_basics(frames):
    helpers.check_layer(
        ContextWindow,
        {"context": 2, "stride": 3},
        (frames, np.array([9, 5, 1], "int32")),
        (3, 3, 5 * 4),
    )


def test_both_ends():
    # Frame t is the number t + 1, so that 0 means nothing.
    frames = np.arange(1.0, 8.0).reshape(1, 7, 1)
    outputs = np.array(ContextWindow(context=2)(frames, np.array([5])))[0]
    np.testing.assert_array_equal(
        outputs,
        [
            [0, 0, 1, 2, 3],
            [0, 1, 2, 3, 4],
            [1, 2, 3, 4, 5],
            [2, 3, 4, 5, 0],
            [3, 4, 5, 0, 0],
            [0, 0, 0, 0, 0],
            [0, 0, 0, 0, 0],
        ],
    )
    outputs = np.array(ContextWindow(2, stride=2)(frames, np.array([5])))[0]
    np.testing.assert_array_equal(
        outputs,
        [[0, 0, 1, 2, 3], [1, 2, 3, 4, 5], [3, 4, 5, 0, 0], [0, 0, 0, 0, 0]],
    )


# Context 12 is longer than every utterance.
@pytest.mark.parametrize("context", [0, 1, 5, 12])
@pytest.mark.parametrize("stride", [1, 2, 3])
@pytest.mark.parametrize("num_frames", [(9, 4, 0), (8, 7, 1)])
def test_formula(frames, context, stride, num_frames):
    layer = ContextWindow(context, stride)
    expected = reference(frames, context, stride, num_frames)
    outputs = layer(frames, np.array(num_frames))
    np.testing.assert_array_equal(outputs, expected.astype("float32"))
    length = keras_ds2.OutputLength(
        2 * context + 1, stride, padding=2 * context
    )
    counts = length(np.array(num_frames)).numpy().tolist()
    assert counts == [-(-n // stride) for n in num_frames]
    assert layer.compute_length(np.array(num_frames)).tolist() == counts
    # Without lengths all frames are real.
    np.testing.assert_array_equal(
        layer(frames),
        reference(frames, context, stride, [9] * 3).astype("float32"),
    )


@pytest.mark.parametrize("stride", [1, 2])
def test_gradient(frames, stride):
    """It is linear: the gradient is its transpose, by a finite difference."""
    layer = ContextWindow(2, stride)
    num_frames = np.array([9, 5, 1])
    inputs = tf.constant(frames)
    with tf.GradientTape() as tape:
        tape.watch(inputs)
        outputs = layer(inputs, num_frames)
        weighting = np.random.default_rng(1).normal(size=outputs.shape)
        loss = tf.reduce_sum(outputs * weighting)
    gradient = tape.gradient(loss, inputs)
    expected = np.zeros(frames.shape)
    for index in np.ndindex(*frames.shape):
        impulse = np.zeros(frames.shape)
        impulse[index] = 1
        expected[index] = np.sum(
            weighting * reference(impulse, 2, stride, num_frames)
        )
    np.testing.assert_allclose(gradient, expected, atol=helpers.ROUNDING)


@pytest.mark.parametrize("shape", [(2, 0, 4), (0, 3, 4), (0, 0, 4)])
@pytest.mark.parametrize("stride", [1, 2])
def test_nothing_in_nothing_out(shape, stride):
    layer = ContextWindow(3, stride)
    inputs = np.zeros(shape, "float32")
    expected = (shape[0], -(-shape[1] // stride), 28)
    assert layer(inputs).shape == expected
    assert layer(inputs, np.zeros(shape[0], "int32")).shape == expected
    model = keras.Sequential([keras.Input((None, 4)), layer])
    assert model(inputs).shape == expected


@pytest.mark.parametrize("garbage", helpers.ANY_GARBAGE)
@pytest.mark.parametrize("amount", helpers.PAD_AMOUNTS)
@pytest.mark.parametrize("stride", [1, 2])
def test_padding_changes_nothing(frames, stride, amount, garbage):
    layer = ContextWindow(3, stride)
    num_frames = np.array([9, 6, 1])
    arguments = (layer, frames, num_frames, amount, garbage)
    after = -(-num_frames // stride)
    helpers.assert_padding_invariant(*arguments, output_length=after)
    helpers.assert_training_padding_invariant(*arguments, output_length=after)


@pytest.mark.parametrize("stride", [1, 2])
def test_keras_mask_stands_for_lengths(frames, stride):
    frames[1, 6:] = 0
    frames[2, 1:] = 0
    # `Masking` zeroes what it masks; the bias fills it again.
    dense = keras.layers.Dense(4, bias_initializer="ones")
    layer = ContextWindow(3, stride)
    inputs = keras.Input((None, 4))
    outputs = layer(dense(keras.layers.Masking()(inputs)))
    mask = outputs._keras_mask
    model = keras.Model(inputs, [outputs, mask])
    actual, mask = model(frames)
    np.testing.assert_allclose(
        actual,
        layer(dense(frames), np.array([9, 6, 1])),
        atol=helpers.SAME,
    )
    # Strided as the frames are.
    num_frames = np.array(mask).sum(axis=1).tolist()
    assert num_frames == [-(-n // stride) for n in (9, 6, 1)]


def test_with_a_dense_layer_it_is_a_convolution(frames):
    dense = keras.layers.Dense(6, use_bias=False)
    outputs = dense(ContextWindow(2, stride=2)(frames))
    kernel = np.reshape(dense.kernel, (5, 4, 6))
    padded = np.pad(frames, [(0, 0), (2, 2), (0, 0)])
    np.testing.assert_allclose(
        outputs,
        keras.ops.conv(padded, kernel, strides=2, padding="valid"),
        atol=helpers.ROUNDING,
    )


@pytest.mark.parametrize(
    "options, received",
    [
        ({"context": -1}, "Received: context=-1, stride=1"),
        ({"stride": 0}, "Received: context=9, stride=0"),
    ],
)
def test_invalid_options(options, received):
    with pytest.raises(ValueError, match=received):
        ContextWindow(**options)
