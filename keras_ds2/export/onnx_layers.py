"""Each layer as nodes of an ONNX graph, in float32, as in inference.

Inputs and outputs are as in Keras, `(batch, frames, ...)`. What stands beyond
the end of an utterance is the business of whoever calls these functions:
`zero_beyond` before a layer that sees more than one frame.
"""

import math

import keras
import numpy as np

from keras_ds2.layers.clipped_relu import MAX_VALUE, clipped_relu
from keras_ds2.layers.context_window import ContextWindow
from keras_ds2.layers.log_mel_spectrogram import LogMelSpectrogram
from keras_ds2.layers.log_probabilities import LOWEST, SCALE, log_probabilities
from keras_ds2.layers.row_convolution import RowConvolution
from keras_ds2.layers.sequence_batch_normalization import (
    SequenceBatchNormalization,
)
from keras_ds2.layers.sequence_conv2d import SequenceConv2D
from keras_ds2.layers.spec_augment import SpecAugment
from keras_ds2.layers.symbol_logits import NEVER, SymbolLogits


def array(weight):
    """A weight as NumPy's float32."""
    return keras.ops.convert_to_numpy(weight).astype("float32")


def axes(*numbers):
    """Axes, or sizes, as ONNX takes them."""
    return np.array(numbers, "int64")


def zero_beyond(graph, x, is_real, rank):
    """Sets the frames that are not real to zero; NaN vanishes too."""
    if rank > 2:
        is_real = graph("Unsqueeze", is_real, axes(*range(2, rank)))
    return graph("Where", is_real, x, np.float32(0))


def num_frames_of(graph, x):
    """The second size of a tensor, int32, of shape `(1,)`."""
    shape = graph("Shape", x, start=1, end=2)
    return graph("Cast", shape, to=6)  # INT32


def frames_up_to(graph, count):
    """The numbers from 0 to a count of shape `(1,)`."""
    count = graph("Squeeze", count, axes(0))
    return graph("Range", np.int32(0), count, np.int32(1))


def refuse(layer, reason):
    """Raises the error that names the layer."""
    raise ValueError(
        f"Layer '{layer.name}', a {type(layer).__name__}, cannot be exported "
        f"to ONNX: {reason}."
    )


# === Layers that see more than one frame: `(graph, layer, x, pad_time)` ===


def _log_mel(graph, layer, x, pad_time):
    window = layer.sequence_length
    if pad_time:  # one frame at least, which counts as none
        size = graph("Shape", x, start=1)
        missing = graph("Max", graph("Sub", axes(window), size), axes(0))
        pads = graph("Concat", axes(0, 0, 0), missing, axis=0)
        x = graph("Pad", x, pads)
    # Window and Fourier transform are one product, with the samples of every
    # frame: a convolution. Real parts first, then imaginary ones.
    num_bins = layer.fft_length // 2 + 1
    phase = np.arange(num_bins)[:, None] * np.arange(window)
    phase = 2 * np.pi / layer.fft_length * (phase % layer.fft_length)
    transform = np.concatenate([np.cos(phase), np.sin(phase)]) * layer.taper
    spectrum = graph(
        "Conv",
        graph("Unsqueeze", x, axes(1)),
        transform[:, None].astype("float32"),
        strides=[layer.sequence_stride],
    )
    power = graph("Mul", spectrum, spectrum)
    power = graph("Transpose", power, perm=[0, 2, 1])
    mel = graph("MatMul", power, np.concatenate([layer.filters] * 2))
    x = graph("Log", graph("Max", mel, np.float32(layer.min_power)))
    if layer.normalize:
        x = graph("Sub", x, array(layer.mean))
        x = graph("Div", x, array(layer.deviation()))
    return x


def _conv_2d(graph, layer, x, pad_time):
    time, frequency = (size // 2 for size in layer.kernel_size)
    time = time if pad_time else 0
    x = graph(
        "Conv",
        graph("Transpose", x, perm=[0, 3, 1, 2]),
        array(layer.kernel).transpose(3, 2, 0, 1),
        *([array(layer.bias)] if layer.use_bias else []),
        group=layer.groups,
        pads=[time, frequency, time, frequency],
        strides=list(layer.strides),
    )
    x = graph("Transpose", x, perm=[0, 2, 3, 1])
    return _activate(graph, layer, x)


def _row_convolution(graph, layer, x, pad_time):
    kernel = array(layer.kernel).T[:, None]
    x = graph(
        "Conv",
        graph("Transpose", x, perm=[0, 2, 1]),
        kernel,
        group=len(kernel),
        pads=[0, layer.width - 1 if pad_time else 0],
    )
    return graph("Transpose", x, perm=[0, 2, 1])


def _context_window(graph, layer, x, pad_time):
    if pad_time:
        context = layer.context
        x = graph("Pad", x, axes(0, context, 0, 0, context, 0))
    width = 2 * layer.context + 1
    last = graph("Sub", num_frames_of(graph, x), np.array([width - 1], "int32"))
    last = graph("Squeeze", last, axes(0))
    starts = graph("Range", np.int32(0), last, np.int32(layer.stride))
    starts = graph("Unsqueeze", starts, axes(1))
    windows = graph("Add", starts, np.arange(width, dtype="int32"))
    x = graph("Gather", x, windows, axis=1)
    return graph("Reshape", x, axes(0, 0, layer.output.shape[-1]))


WINDOWS = {
    LogMelSpectrogram: _log_mel,
    SequenceConv2D: _conv_2d,
    RowConvolution: _row_convolution,
    ContextWindow: _context_window,
}


# === Layers that see each frame by itself: `(graph, layer, x)` ===


def _nothing(graph, layer, x):
    return x


def _activate(graph, layer, x):
    if layer.activation is clipped_relu:
        return graph("Clip", x, np.float32(0), np.float32(MAX_VALUE))
    if layer.activation is log_probabilities:
        x = graph("Max", graph("LogSoftmax", x, axis=-1), np.float32(LOWEST))
        return graph("Add", graph("Div", x, np.float32(SCALE)), np.float32(1))
    if layer.activation is not keras.activations.linear:
        refuse(
            layer,
            "its activation must be `clipped_relu`, `log_probabilities` or "
            "none",
        )
    return x


def _batch_normalization(graph, layer, x):
    factor, offset = layer.factor_and_offset()
    return graph("Add", graph("Mul", x, array(factor)), array(offset))


def _dense(graph, layer, x):
    x = graph("MatMul", x, array(layer.kernel))
    if layer.use_bias:
        x = graph("Add", x, array(layer.bias))
    return _activate(graph, layer, x)


def _symbol_logits(graph, layer, x):
    x = _dense(graph, layer, x)
    is_reserved = np.arange(layer.units) >= layer.units - layer.num_reserved
    return graph("Where", is_reserved, np.float32(NEVER), x)


def _reshape(graph, layer, x):
    first, *features = layer.target_shape
    if first != -1 or math.prod(features) != math.prod(layer.input.shape[2:]):
        refuse(layer, "it must leave the frames as they are")
    return graph("Reshape", x, axes(0, 0, *features))


FRAME_BY_FRAME = {
    keras.layers.Activation: _activate,
    keras.layers.Dense: _dense,
    keras.layers.Dropout: _nothing,
    keras.layers.Reshape: _reshape,
    SequenceBatchNormalization: _batch_normalization,
    SpecAugment: _nothing,
    SymbolLogits: _symbol_logits,
}
