"""Oracle: the formula as a loop over frames, in float64."""

import helpers
import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_ds2 import MovingMeanNormalization

# Within one block of frames, exactly one, and several.
FRAMES = [1, 9, 32, 33, 150]


def frames_of(num_frames, seed=0):
    generator = np.random.default_rng(seed)
    return generator.normal(3, 2, (3, num_frames, 4)).astype("float32")


def layer_with(initial_mean, **kwargs):
    layer = MovingMeanNormalization(**kwargs)
    layer.build((None, None, len(initial_mean)))
    layer.set_weights([np.asarray(initial_mean)])
    return layer


def reference(frames, num_frames, momentum, initial_mean):
    outputs = np.zeros(frames.shape)
    for row, length in enumerate(num_frames):
        mean = np.array(initial_mean, "float64")
        for t in range(length):
            mean = momentum * mean + (1 - momentum) * frames[row, t]
            outputs[row, t] = frames[row, t] - mean
    return outputs


def test_basics():
    helpers.check_layer(
        MovingMeanNormalization,
        {"momentum": 0.9},
        (frames_of(9), np.array([9, 5, 0], "int32")),
        (3, 9, 4),
        num_trainable_weights=1,
    )


@pytest.mark.parametrize("frames", FRAMES)
@pytest.mark.parametrize("momentum", [0.01, 0.5, 0.998])
def test_formula(frames, momentum):
    inputs = frames_of(frames)
    num_frames = np.array([frames, frames // 2, 0])
    initial_mean = [1.0, -2, 0.5, 0]
    np.testing.assert_allclose(
        layer_with(initial_mean, momentum=momentum)(inputs, num_frames),
        reference(inputs, num_frames, momentum, initial_mean),
        atol=helpers.ROUNDING,
    )


@pytest.mark.parametrize("momentum", [0.998, 0.9999])
def test_long_inputs_and_long_memories(momentum):
    """float32 rounds 0.9999, which in its powers would grow."""
    inputs = frames_of(5000)[:1] + np.float32(20)
    layer = layer_with([20.0, 21, 22, 23], momentum=momentum)
    expected = reference(inputs, [5000], momentum, layer.get_weights()[0])
    outputs = np.array(layer(inputs))
    np.testing.assert_allclose(outputs, expected, atol=2e-5)
    state, chunks = layer.initial_state((4,), 0, 1), []
    for chunk in np.split(inputs, 1000, axis=1):
        is_real = np.ones((1, 5), bool)
        output, state = layer.stream(chunk, is_real, state)
        chunks.append(output)
    streamed = np.concatenate(chunks, axis=1)
    np.testing.assert_allclose(streamed, expected, atol=5e-5)


def test_gradient():
    """A frame is in its own output, and in the means of all that follow."""
    layer = layer_with(np.zeros(4), momentum=0.9)
    inputs = tf.constant(frames_of(40))
    d_outputs = frames_of(40, seed=1)
    with tf.GradientTape() as tape:
        tape.watch(inputs)
        outputs = layer(inputs)
    gradient = tape.gradient(outputs, inputs, d_outputs)
    age = np.subtract.outer(np.arange(40), np.arange(40))
    weights = np.eye(40) - np.where(age < 0, 0, 0.1 * 0.9 ** np.abs(age))
    expected = np.einsum("ts,btf->bsf", weights, d_outputs)
    np.testing.assert_allclose(gradient, expected, atol=1e-5)


def test_what_stays_the_same_vanishes():
    inputs = frames_of(20_000)[:1]
    layer = MovingMeanNormalization(0.99)
    change = layer(inputs + np.float32(100)) - layer(inputs)
    start = np.array(change[0, :100])
    np.testing.assert_allclose(
        start[:, 0], 100 * 0.99 ** np.arange(1, 101), rtol=1e-4
    )
    assert np.abs(change[0, 3000:]).max() < 1e-3
    assert abs(np.mean(layer(inputs)[0, 1000:])) < 0.01


@pytest.mark.parametrize("shape", [(2, 0, 4), (0, 3, 4), (0, 0, 4)])
def test_nothing_in_nothing_out(shape):
    layer = MovingMeanNormalization()
    inputs = np.zeros(shape, "float32")
    assert layer(inputs).shape == shape
    assert layer(inputs, np.zeros(shape[0], "int32")).shape == shape
    model = keras.Sequential([keras.Input((None, 4)), layer])
    assert model(inputs).shape == shape


@pytest.mark.parametrize("garbage", helpers.ANY_GARBAGE)
@pytest.mark.parametrize("amount", helpers.PAD_AMOUNTS)
def test_padding_changes_nothing(amount, garbage):
    layer = layer_with([1.0, -2, 0.5, 0], momentum=0.9)
    arguments = (layer, frames_of(40), np.array([40, 6, 1]), amount, garbage)
    helpers.assert_padding_invariant(*arguments)
    helpers.assert_training_padding_invariant(*arguments)


def test_keras_mask_stands_for_lengths():
    frames = frames_of(9)
    frames[1, 6:] = 0
    frames[2, 2:] = 0
    layer = MovingMeanNormalization(0.9)
    inputs = keras.Input((None, 4))
    outputs = layer(keras.layers.Masking()(inputs))
    assert outputs._keras_mask is not None
    np.testing.assert_array_equal(
        keras.Model(inputs, outputs)(frames),
        layer(frames, np.array([9, 6, 2])),
    )


def test_the_mean_is_kept_in_float32():
    """Near 100, bfloat16 has steps of a half."""
    inputs = np.full((1, 3000, 1), 100, "float32")
    layer = MovingMeanNormalization(0.99, dtype="mixed_bfloat16")
    assert layer.compute_dtype == "bfloat16"
    outputs = np.array(layer(inputs), "float32")
    assert np.abs(outputs[0, 2000:]).max() < 1e-3


@pytest.mark.parametrize("momentum", [-0.1, 0, False, 1, 1.5, float("nan")])
def test_refuses_a_momentum_out_of_range(momentum):
    with pytest.raises(ValueError, match="`momentum` must be greater than 0"):
        MovingMeanNormalization(momentum)


@pytest.mark.parametrize("kind", [np.float32, np.float64])
def test_a_momentum_of_numpy_is_a_float(kind):
    layer = MovingMeanNormalization(kind(0.5))
    assert type(layer.get_config()["momentum"]) is float
    layer(frames_of(9))


def test_refuses_frames_that_are_no_vectors():
    with pytest.raises(ValueError, match="expected ndim=3, found ndim=4"):
        MovingMeanNormalization()(keras.Input((10, 3, 4)))
