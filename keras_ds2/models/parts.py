"""What the networks of both papers are built of."""

import functools
from collections.abc import Callable

import keras

from keras_ds2.layers.clipped_relu import clipped_relu
from keras_ds2.layers.gru import GRU
from keras_ds2.layers.log_mel_spectrogram import LogMelSpectrogram
from keras_ds2.layers.lstm import LSTM
from keras_ds2.layers.output_length import OutputLength
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
