"""Oracles: impulses, and the formula as a loop over single numbers."""

import helpers
import keras
import numpy as np
import pytest

from keras_ds2 import RowConvolution


@pytest.fixture
def frames():
    return np.random.default_rng(0).normal(size=(3, 9, 4)).astype("float32")


def layer_with(kernel, **kwargs):
    """A layer of the given kernel, `(width, features)`."""
    kernel = np.asarray(kernel, "float32")
    layer = RowConvolution(len(kernel), **kwargs)
    layer.build((None, None, kernel.shape[1]))
    layer.set_weights([kernel])
    return layer


def reference(frames, kernel, num_frames):
    outputs = np.zeros(frames.shape)
    for row, length in enumerate(num_frames):
        for t in range(length):
            for j in range(len(kernel)):
                if t + j < length:
                    outputs[row, t] += kernel[j] * frames[row, t + j]
    return outputs


def test_basics(frames):
    helpers.check_layer(
        RowConvolution,
        {
            "width": 3,
            "kernel_initializer": keras.initializers.RandomNormal(seed=1),
            "kernel_regularizer": keras.regularizers.L2(0.1),
        },
        (frames, np.array([9, 5, 1], "int32")),
        (3, 9, 4),
        num_trainable_weights=1,
    )


@pytest.mark.parametrize("t", range(8))
def test_an_impulse_reaches_the_frames_before_it(t):
    width = 4
    kernel = np.array([[2.0, 20], [3, 30], [5, 50], [7, 70]])
    frames = np.zeros((1, 8, 2), "float32")
    frames[0, t] = 1
    outputs = np.array(layer_with(kernel)(frames))[0]
    for u in range(8):
        reached = t - width + 1 <= u <= t
        expected = kernel[t - u] if reached else [0, 0]
        np.testing.assert_array_equal(outputs[u], expected)


def test_features_do_not_mix():
    frames = np.zeros((1, 5, 3), "float32")
    frames[0, :, 1] = 1
    outputs = np.array(layer_with(np.ones((2, 3)))(frames))
    assert not np.any(outputs[..., [0, 2]])
    assert np.all(outputs[..., 1])


# Width 12 is longer than every utterance.
@pytest.mark.parametrize("width", [1, 2, 5, 9, 12])
def test_formula(frames, width):
    kernel = np.random.default_rng(1).normal(size=(width, 4))
    num_frames = np.array([9, 4, 0])
    np.testing.assert_allclose(
        layer_with(kernel)(frames, num_frames),
        reference(frames, kernel, num_frames),
        atol=helpers.ROUNDING,
    )


@pytest.mark.parametrize("shape", [(2, 0, 4), (0, 3, 4), (0, 0, 4)])
def test_nothing_in_nothing_out(shape):
    layer = layer_with(np.ones((5, 4)))
    inputs = np.zeros(shape, "float32")
    assert layer(inputs).shape == shape
    assert layer(inputs, np.zeros(shape[0], "int32")).shape == shape
    model = keras.Sequential([keras.Input((None, 4)), layer])
    assert model(inputs).shape == shape


def test_width_1_scales(frames):
    scale = np.array([[1.0, -2, 0.5, 0]])
    np.testing.assert_array_equal(layer_with(scale)(frames), frames * scale)


@pytest.mark.parametrize("garbage", helpers.ANY_GARBAGE)
@pytest.mark.parametrize("amount", helpers.PAD_AMOUNTS)
def test_padding_changes_nothing(frames, amount, garbage):
    layer = RowConvolution(5)
    arguments = (layer, frames, np.array([9, 6, 1]), amount, garbage)
    helpers.assert_padding_invariant(*arguments)
    helpers.assert_training_padding_invariant(*arguments)


def test_keras_mask_stands_for_lengths(frames):
    frames[1, 6:] = 0
    frames[2, 2:] = 0
    # `Masking` zeroes what it masks; the bias fills it again.
    dense = keras.layers.Dense(4, bias_initializer="ones")
    layer = RowConvolution(3)
    inputs = keras.Input((None, 4))
    outputs = layer(dense(keras.layers.Masking()(inputs)))
    assert outputs._keras_mask is not None
    np.testing.assert_allclose(
        keras.Model(inputs, outputs)(frames),
        layer(dense(frames), np.array([9, 6, 2])),
        atol=helpers.SAME,
    )


def test_regularizer_counts(frames):
    layer = layer_with(
        np.full((5, 4), 2.0), kernel_regularizer=keras.regularizers.L2(0.5)
    )
    layer(frames)
    assert float(sum(layer.losses)) == pytest.approx(0.5 * 4 * 20)


def test_invalid_width():
    with pytest.raises(ValueError, match="Received: width=0"):
        RowConvolution(0)
