"""Oracle: the sum over the window, written out, between explicit zeros."""

import helpers
import numpy as np
import pytest
import tensorflow as tf

from keras_ds2 import SequenceConv2D
from keras_ds2.layers import sequence_conv2d

NUM_FRAMES = np.array([9, 6, 1])


@pytest.fixture
def frames():
    generator = np.random.default_rng(0)
    return generator.normal(size=(3, 9, 7, 2)).astype("float32")


def reference(frames, kernel, bias, strides):
    """One utterance, `(frames, frequencies, channels)`, without padding."""
    height, width, _, filters = kernel.shape
    above, left = (height - 1) // 2, (width - 1) // 2
    padded = np.pad(frames, ((above, above), (left, left), (0, 0)))
    times = range(0, len(frames), strides[0])
    frequencies = range(0, frames.shape[1], strides[1])
    outputs = np.zeros((len(times), len(frequencies), filters))
    for i, t in enumerate(times):
        for j, f in enumerate(frequencies):
            window = padded[t : t + height, f : f + width]
            outputs[i, j] = np.einsum("tfc,tfcn->n", window, kernel) + bias
    return outputs


def layer_for(kernel_size, strides):
    layer = SequenceConv2D(3, kernel_size, strides=strides)
    layer.build((None, None, 7, 2))
    generator = np.random.default_rng(1)
    layer.set_weights([generator.normal(size=w.shape) for w in layer.weights])
    return layer


def test_basics(frames):
    helpers.check_layer(
        SequenceConv2D,
        {"filters": 4, "kernel_size": (3, 5), "strides": (2, 3)},
        (frames, NUM_FRAMES.astype("int32")),
        (3, 5, 3, 4),
        num_trainable_weights=2,
    )


@pytest.mark.parametrize("kernel_size", [(1, 1), (3, 5), (5, 3), (11, 9)])
@pytest.mark.parametrize("strides", [(1, 1), (2, 1), (1, 2), (2, 3), (3, 2)])
def test_formula(frames, kernel_size, strides):
    layer = layer_for(kernel_size, strides)
    outputs = np.array(layer(frames, NUM_FRAMES))
    assert outputs.shape == layer.compute_output_shape(frames.shape)
    for output, row, length in zip(outputs, frames, NUM_FRAMES, strict=True):
        expected = reference(row[:length], *layer.get_weights(), strides)
        assert len(expected) == layer.compute_length(int(length))
        np.testing.assert_allclose(
            output[: len(expected)], expected, atol=helpers.ROUNDING
        )


def test_an_impulse_is_answered_around_it():
    layer = SequenceConv2D(1, (3, 3), kernel_initializer="ones")
    frames = np.zeros((1, 7, 7, 1), "float32")
    frames[0, 3, 2] = 1
    outputs = np.array(layer(frames))[0, :, :, 0]
    expected = np.zeros((7, 7))
    expected[2:5, 1:4] = 1
    np.testing.assert_array_equal(outputs, expected)


# Both parities: TensorFlow's "same" moves the window with the padded length.
@pytest.mark.parametrize("amount", [*helpers.PAD_AMOUNTS, 2])
@pytest.mark.parametrize("garbage", helpers.ANY_GARBAGE)
@pytest.mark.parametrize("strides", [(2, 2), (1, 1)])
def test_padding_changes_nothing(frames, strides, amount, garbage):
    layer = layer_for((5, 3), strides)
    after = -(-NUM_FRAMES // strides[0])
    arguments = (layer, frames, NUM_FRAMES, amount, garbage, after)
    helpers.assert_padding_invariant(*arguments, zero_beyond=False)
    helpers.assert_training_padding_invariant(*arguments)


@pytest.mark.parametrize("kernel_size", [4, (4, 3), (3, 4)])
def test_even_kernels_have_no_middle(kernel_size):
    with pytest.raises(ValueError, match="`kernel_size` must be odd"):
        SequenceConv2D(1, kernel_size)


@pytest.mark.parametrize(
    "argument",
    [
        {"padding": "same"},
        {"dilation_rate": 2},
        {"data_format": "channels_first"},
    ],
    ids=str,
)
def test_what_would_break_lengths_is_refused(argument):
    with pytest.raises(ValueError, match="cannot be chosen"):
        SequenceConv2D(1, (3, 3), **argument)


@pytest.mark.parametrize("kernel_size", [(1, 1), (3, 5), (11, 9)])
@pytest.mark.parametrize("strides", [(1, 1), (1, 2), (2, 3), (3, 1), (4, 2)])
def test_gradients_are_tensorflows(frames, kernel_size, strides):
    layer = layer_for(kernel_size, strides)
    layer.bias.assign(np.zeros(3))
    top, left = (size // 2 for size in kernel_size)
    gradients = []
    for convolve in (
        layer,
        lambda inputs: tf.nn.conv2d(
            inputs,
            layer.kernel.value,
            strides,
            [[0, 0], [top, top], [left, left], [0, 0]],
        ),
    ):
        inputs = tf.constant(frames)
        with tf.GradientTape() as tape:
            tape.watch(inputs)
            loss = tf.reduce_sum(tf.sin(convolve(inputs)))
        gradients.append(tape.gradient(loss, [inputs, layer.kernel.value]))
    for actual, expected in zip(*gradients, strict=True):
        np.testing.assert_allclose(actual, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("dtype", ["mixed_bfloat16", "mixed_float16"])
@pytest.mark.parametrize("strides", [(1, 2), (2, 2)])
def test_gradients_in_16_bits(frames, strides, dtype):
    gradients = []
    for policy in (dtype, "float32"):
        layer = SequenceConv2D(3, (5, 3), strides=strides, dtype=policy)
        layer.build(frames.shape)
        layer.kernel.assign(
            np.linspace(-1, 1, layer.kernel.shape.num_elements()).reshape(
                layer.kernel.shape
            )
        )
        with tf.GradientTape() as tape:
            loss = tf.reduce_sum(tf.sin(tf.cast(layer(frames), "float32")))
        gradients.append(tape.gradient(loss, layer.kernel.value).numpy())
    scale = np.abs(gradients[1]).max()
    tolerance = {"mixed_bfloat16": 3e-2, "mixed_float16": 5e-3}[dtype]
    np.testing.assert_allclose(*gradients, atol=tolerance * scale)


def test_unknown_sizes_have_gradients(frames):
    layer = layer_for((3, 5), (2, 2))
    channels = frames.shape[-1]

    @tf.function(input_signature=[tf.TensorSpec((None, None, None, channels))])
    def gradient(inputs):
        loss = tf.reduce_sum(tf.sin(layer(inputs)))
        return tf.gradients(loss, layer.kernel.value)[0]

    with tf.GradientTape() as tape:
        loss = tf.reduce_sum(tf.sin(layer(frames)))
    np.testing.assert_allclose(
        gradient(frames),
        tape.gradient(loss, layer.kernel.value),
        rtol=1e-4,
        atol=1e-4,
    )


@pytest.mark.parametrize(
    ("strides", "groups", "on_gpu", "is_own"),
    [
        ((1, 1), 1, False, True),
        ((1, 2), 1, False, True),
        ((2, 1), 1, False, True),
        ((1, 1), 2, False, False),
        ((1, 1), 1, True, False),
    ],
)
def test_own_gradient_where_it_is_faster(
    strides, groups, on_gpu, is_own, frames, monkeypatch
):
    calls = []
    original = sequence_conv2d._kernel_gradient

    def spy(*args):
        calls.append(args)
        return original(*args)

    monkeypatch.setattr(sequence_conv2d, "_kernel_gradient", spy)
    if on_gpu:
        monkeypatch.setattr(
            tf.config, "get_visible_devices", lambda kind: [f"a {kind}"]
        )
    layer = SequenceConv2D(2, (3, 5), strides=strides, groups=groups)
    with tf.GradientTape() as tape:
        loss = tf.reduce_sum(layer(frames))
    gradient = tape.gradient(loss, layer.kernel.value)
    assert np.any(gradient)
    assert bool(calls) == is_own
