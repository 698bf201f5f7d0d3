"""Oracle: each layer's own `call` on the whole utterance."""

import keras
import numpy as np
import pytest

import keras_ds2

LENGTH = np.array([41, 40, 12, 1, 0])


def make_inputs(*features):
    generator = np.random.default_rng(0)
    return generator.normal(size=(5, 41, *features)).astype("float32")


def stream(layer, inputs, length, chunk, start):
    """Runs over chunks, the first of which begins at frame `start`."""
    num_outputs = np.array(layer.compute_length(length))
    state = layer.initial_state(inputs.shape[2:], start, len(inputs))
    assert all(tensor.shape[0] == len(inputs) for tensor in state)
    first = layer.first_output(start)
    outputs = []
    while first + sum(part.shape[1] for part in outputs) < num_outputs.max():
        index = np.arange(start, start + chunk)
        is_real = (index >= 0) & (index < length[:, None])
        x = inputs[:, np.clip(index, 0, inputs.shape[1] - 1)]
        shape = (*is_real.shape, *[1] * (inputs.ndim - 2))
        x = np.where(is_real.reshape(shape), x, np.float32(np.nan))
        shapes = [tensor.shape for tensor in state]
        if layer.autocast:
            x = keras.ops.cast(x, layer.compute_dtype)
        part, state = layer.stream(x, is_real, state)
        assert [tensor.shape for tensor in state] == shapes
        assert all(tensor.dtype == "float32" for tensor in state)
        outputs.append(np.array(part, "float32"))
        start += chunk
    return np.concatenate(outputs, axis=1)[:, -first:], num_outputs


def assert_streams(layer, inputs, chunk, start, length=LENGTH, tolerance=1e-5):
    actual, num_outputs = stream(layer, inputs, length, chunk, start)
    for row, x, before, after in zip(
        actual, inputs, length, num_outputs, strict=True
    ):
        if not before:  # not every layer takes an utterance of no frames
            continue
        expected = np.array(layer(x[None, :before]), "float32")[0]
        assert expected.shape[0] == after
        np.testing.assert_allclose(
            row[:after], expected, rtol=tolerance, atol=tolerance
        )


starts = pytest.mark.parametrize("start", [0, -1, -8])


@pytest.mark.parametrize("stride", [1, 2, 3])
@pytest.mark.parametrize("size", [1, 11])
@starts
def test_convolution(size, stride, start):
    layer = keras_ds2.SequenceConv2D(
        2, (size, 3), strides=(stride, 2), bias_initializer="ones"
    )
    assert_streams(layer, make_inputs(4, 1), 6, start)


@pytest.mark.parametrize("stride", [1, 2, 3])
@pytest.mark.parametrize("context", [0, 4])
@starts
def test_context_window(context, stride, start):
    layer = keras_ds2.ContextWindow(context, stride)
    assert_streams(layer, make_inputs(2), 6, start)


@pytest.mark.parametrize("width", [1, 5])
@pytest.mark.parametrize("chunk, start", [(2, 0), (5, -7)])
def test_row_convolution(width, chunk, start):
    layer = keras_ds2.RowConvolution(width)
    assert_streams(layer, make_inputs(2), chunk, start)


@pytest.mark.parametrize("chunk, start", [(1, 0), (3, -2), (40, -7)])
def test_moving_mean(chunk, start):
    layer = keras_ds2.MovingMeanNormalization(0.9)
    layer.build((None, None, 2))
    layer.initial_mean.assign([1.0, -2.0])
    assert_streams(layer, make_inputs(2), chunk, start)


@pytest.mark.parametrize(
    "window, stride, chunk",
    [(400, 160, 320), (400, 160, 1600), (512, 100, 300), (160, 160, 160)]
    + [(100, 160, 480)],  # which leaves samples out
)
@pytest.mark.parametrize("normalize", [True, False])
def test_log_mel(window, stride, chunk, normalize, dev_clips):
    layer = keras_ds2.LogMelSpectrogram(
        num_mel_bins=20,
        sequence_length=window,
        sequence_stride=stride,
        window="hamming",
        normalize=normalize,
    )
    inputs = np.stack([clip[8000:11000] for clip in dev_clips])
    length = np.array([3000, 2999])
    if normalize:
        layer.adapt([{"audio": inputs, "audio_length": length}])
    assert_streams(layer, inputs, chunk, 0, length)


RECURRENT = {
    "lstm": (keras_ds2.LSTM, {}),
    "gru": (keras_ds2.GRU, {}),
    "tanh": (keras_ds2.SimpleRNN, {}),
    "simple": (keras_ds2.SimpleRNN, {"activation": keras_ds2.clipped_relu}),
}


@pytest.mark.parametrize("name", RECURRENT)
@pytest.mark.parametrize("normalize_projection", [False, True])
@pytest.mark.parametrize("policy", ["float32", "mixed_bfloat16"])
def test_recurrent_layers(name, normalize_projection, policy):
    cls, options = RECURRENT[name]
    layer = cls(
        4,
        return_sequences=True,
        bias_initializer="random_normal",
        normalize_projection=normalize_projection,
        dtype=policy,
        **options,
    )
    layer.build((None, None, 3))
    if normalize_projection:  # 0 would normalize to 0
        layer.projection_norm.moving_mean.assign(np.linspace(-1, 1, 4 * 4)[
            : layer.cell.kernel.shape[1]
        ])  # fmt: skip
    # bfloat16 keeps 8 bits, and sums in an order that depends on the shape.
    tolerance = 1e-5 if policy == "float32" else 3e-2
    inputs = make_inputs(3)
    for chunk, start in ((3, -2), (5, -7)):
        assert_streams(layer, inputs, chunk, start, tolerance=tolerance)


@pytest.mark.parametrize(
    "layer",
    [
        keras_ds2.LSTM(4, dropout=0.1),
        keras_ds2.GRU(4, use_bias=False),
        keras_ds2.BidirectionalSimpleRNN(4),
    ],
)
def test_what_cannot_stream_says_why(layer):
    with pytest.raises(ValueError, match=f"'{layer.name}' cannot stream"):
        layer.initial_state((3,), 0, batch_size=1)


def test_without_padding_whole_windows_count():
    inputs = make_inputs(4, 1)
    conv = keras_ds2.SequenceConv2D(2, (5, 3))
    np.testing.assert_array_equal(
        conv(inputs, pad_time=False), conv(inputs)[:, 2:-2]
    )
    for layer, before, after in (
        (keras_ds2.ContextWindow(2), 2, 2),
        (keras_ds2.RowConvolution(3), 0, 2),
    ):
        np.testing.assert_allclose(
            layer(inputs[..., 0], pad_time=False),
            layer(inputs[..., 0])[:, before : 41 - after],
            rtol=1e-6,
        )
