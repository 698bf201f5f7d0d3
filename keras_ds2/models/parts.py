"""What the networks of both papers are built of."""

import functools
import math
from collections.abc import Callable

import keras

from keras_ds2.layers.clipped_relu import clipped_relu
from keras_ds2.layers.gru import GRU
from keras_ds2.layers.log_mel_spectrogram import LogMelSpectrogram
from keras_ds2.layers.lstm import LSTM
from keras_ds2.layers.output_length import OutputLength
from keras_ds2.layers.sequence_batch_normalization import (
    SequenceBatchNormalization,
)
from keras_ds2.layers.sequence_conv2d import SequenceConv2D
from keras_ds2.layers.simple_rnn import SimpleRNN
from keras_ds2.layers.spec_augment import SpecAugment


def log_mel_frames(
    audio,
    audio_length,
    spec_augment,
    max_freq_width,
    max_time_width,
    dtype,
    **options,
):
    """Begins every network: samples in, features and their lengths out.

    `options` are those of `LogMelSpectrogram`.
    """
    x = LogMelSpectrogram(**options, dtype=dtype, name="log_mel")(
        audio, audio_length
    )  # (batch, frames, bins)
    num_frames = OutputLength(
        options["sequence_length"],
        options["sequence_stride"],
        name="num_frames",
    )(audio_length)
    if spec_augment:
        x = SpecAugment(
            max_freq_width=max_freq_width,
            max_time_width=max_time_width,
            dtype=dtype,
            name="spec_augment",
        )(x, num_frames)
    return x, num_frames


def convolutions(
    x,
    num_frames,
    filters,
    kernel_sizes,
    strides,
    batch_normalization,
    dtype,
):
    """Frames and their number in, fewer frames and their number out."""
    if not len(filters) == len(kernel_sizes) == len(strides):
        raise ValueError(
            "`conv_filters`, `conv_kernel_sizes` and `conv_strides` must "
            "have one entry for each convolution. Received: "
            f"conv_filters={filters}, conv_kernel_sizes="
            f"{kernel_sizes}, conv_strides={strides}."
        )
    x = keras.layers.Reshape((-1, x.shape[2], 1), name="channel")(x)
    for i, (channels, kernel_size, stride) in enumerate(
        zip(filters, kernel_sizes, strides, strict=True), 1
    ):
        x = SequenceConv2D(
            channels,
            kernel_size,
            strides=stride,
            use_bias=not batch_normalization,
            dtype=dtype,
            name=f"conv_{i}",
        )(x, num_frames)  # (batch, frames, frequencies, channels)
        num_frames = OutputLength(
            kernel_size[0],
            stride[0],
            padding=kernel_size[0] - 1,
            name=f"conv_{i}_num_frames",
        )(num_frames)
        if batch_normalization:
            x = SequenceBatchNormalization(dtype=dtype, name=f"conv_{i}_norm")(
                x, num_frames
            )
        x = keras.layers.Activation(
            clipped_relu, dtype=dtype, name=f"conv_{i}_relu"
        )(x)
    features = math.prod(x.shape[2:])
    x = keras.layers.Reshape((-1, features), name="features")(x)
    return x, num_frames


def recurrent_layer(
    rnn_type, units, bidirectional, merge_mode, dtype, name, **kwargs
):
    """Makes a layer, of one direction or of two with weights of their own."""
    layers: dict[str, Callable[..., keras.layers.Layer]] = {
        "lstm": LSTM,
        "gru": GRU,
        "simple": functools.partial(SimpleRNN, activation=clipped_relu),
    }
    if rnn_type not in list(layers):  # a list: it may be unhashable
        raise ValueError(
            f"`rnn_type` must be one of {list(layers)}. Received: "
            f"rnn_type={rnn_type!r}."
        )
    if merge_mode not in ("sum", "concat"):
        raise ValueError(
            "`merge_mode` must be 'sum' or 'concat'. Received: "
            f"merge_mode={merge_mode!r}."
        )
    layer = layers[rnn_type](
        units, return_sequences=True, dtype=dtype, name=name, **kwargs
    )
    if not bidirectional:
        return layer
    both = keras.layers.Bidirectional(
        layer, merge_mode=merge_mode, dtype=dtype, name=name
    )
    # Keras makes copies of the layer, and while a model is loaded it knows
    # objects by their address: had the next layer that of this one, it would
    # be taken for it. So the layer lives on, unseen by Keras.
    object.__setattr__(both, "_copied_layer", layer)
    return both
