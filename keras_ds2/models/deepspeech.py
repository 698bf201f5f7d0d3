"""Deep Speech: dense layers around one bidirectional recurrent layer."""

import keras

from keras_ds2.layers.bidirectional_simple_rnn import BidirectionalSimpleRNN
from keras_ds2.layers.clipped_relu import clipped_relu
from keras_ds2.layers.context_window import ContextWindow
from keras_ds2.layers.output_length import OutputLength
from keras_ds2.layers.sequence_mask import SequenceMask
from keras_ds2.layers.symbol_logits import SymbolLogits
from keras_ds2.models.parts import log_mel_frames, recurrent_layer
from keras_ds2.models.speech_recognizer import SpeechRecognizer
from keras_ds2.text import (
    DEFAULT_ALPHABET,
    NUM_RESERVED,
    validate_alphabet,
)


@keras.saving.register_keras_serializable(package="keras_ds2")
class DeepSpeech(SpeechRecognizer):
    """Builds the first Deep Speech, from samples to logits of characters.

    Log-mel spectrogram, a window of neighboring frames, three dense layers,
    one bidirectional recurrent layer, a dense layer, logits; clipped ReLUs
    throughout. The defaults are the paper's sizes: 28 million parameters, one
    output frame every 20 ms. Every logit depends on the whole utterance, so it
    cannot stream; `DeepSpeech2` can.

    It is used as `DeepSpeech2` is: `adapt`, `compile` with an optimizer alone,
    `fit`, `transcribe`, `save`; an utterance has the same logits alone, padded
    by any amount, or beside any neighbor. No state goes from one batch to the
    next, and batches may have any size.

    Args:
        num_mel_bins: Integer. Mel filters. Defaults to `80`.
        sampling_rate: Integer, Hz. Defaults to `16000`.
        sequence_length: Integer. Window in samples. Defaults to `400` (25 ms).
        sequence_stride: Integer. Hop in samples. Defaults to `160` (10 ms).
        fft_length: Integer. Defaults to `512`.
        window: `"hann"` or `"hamming"`. Defaults to `"hann"`.
        normalize: Boolean. Whether features are normalized by statistics of
            the corpus; `fit` then asks for `adapt` first. Defaults to `True`.
        spec_augment: Boolean. Whether `SpecAugment` acts while training.
            Defaults to `False`.
        max_freq_width: Integer. Bins of its widest band. Defaults to `27`.
        max_time_width: Integer. Frames of its longest span; for utterances of
            few words, few. Defaults to `100`.
        context: Integer. Frames on each side that the first dense layer sees;
            5, 7 or 9 in the paper. Defaults to `9`.
        stride: Integer. Only every `stride`-th frame goes on. Defaults to
            `2`.
        dense_units: Integer. Of each of the four dense layers. Defaults to
            `2048`.
        rnn_type: `"simple"` (clipped ReLU, input weights shared by both
            directions, the paper's), `"lstm"` or `"gru"` (nothing shared).
            Defaults to `"simple"`.
        rnn_units: Integer. Defaults to `2048`.
        dropout: Float. After each of the first three dense layers. Defaults
            to `0.05`.
        alphabet: String of the characters of transcripts, each once. The
            symbols are the blank, these, and two reserved. Defaults to
            space, apostrophe and a to z: 31 symbols.
        dtype: Dtype policy, as `"mixed_bfloat16"`. Log-mel, statistics,
            logits and loss stay in float32. Defaults to Keras's global one.
        name: String.

    Inputs:
        `{"audio": (batch, samples) float32 in [-1, 1], "audio_length":
        (batch,) int32}`.

    Outputs:
        `{"logits": (batch, frames, symbols) float32, "logit_length": (batch,)
        int32}`; logits beyond `logit_length` mean nothing.

    Raises:
        ValueError: If an argument is out of range.

    Reference:
        Hannun et al., 2014 (arXiv:1412.5567), section 2 and 2.1. It differs
        from the paper in its features: normalized log-mel of 25 ms windows,
        as of `DeepSpeech2`, instead of 80 linear filter banks and an energy
        of 20 ms windows. Jitter, ensembles and a language model are not part
        of the network.

    Example:

    >>> import numpy as np
    >>> import keras_ds2
    >>> model = keras_ds2.DeepSpeech(dense_units=64, rnn_units=64)
    >>> outputs = model({
    ...     "audio": np.zeros((2, 16000), "float32"),
    ...     "audio_length": np.array([16000, 8000]),
    ... })
    >>> outputs["logits"].shape, outputs["logit_length"].numpy()
    (TensorShape([2, 49, 31]), array([49, 24], dtype=int32))
    """

    def __init__(
        self,
        num_mel_bins=80,
        sampling_rate=16000,
        sequence_length=400,
        sequence_stride=160,
        fft_length=512,
        window="hann",
        normalize=True,
        spec_augment=False,
        max_freq_width=27,
        max_time_width=100,
        context=9,
        stride=2,
        dense_units=2048,
        rnn_type="simple",
        rnn_units=2048,
        dropout=0.05,
        alphabet=DEFAULT_ALPHABET,
        dtype=None,
        name="deep_speech",
    ):
        validate_alphabet(alphabet)
        dtype = keras.dtype_policies.get(dtype)

        # === Functional Model ===
        audio = keras.Input((None,), dtype="float32", name="audio")
        audio_length = keras.Input((), dtype="int32", name="audio_length")
        x, num_frames = log_mel_frames(
            audio,
            audio_length,
            spec_augment,
            max_freq_width,
            max_time_width,
            num_mel_bins=num_mel_bins,
            sampling_rate=sampling_rate,
            sequence_length=sequence_length,
            sequence_stride=sequence_stride,
            fft_length=fft_length,
            window=window,
            normalize=normalize,
            dtype=dtype,
        )  # (batch, frames, bins)
        x = ContextWindow(context, stride, dtype=dtype, name="context")(
            x, num_frames
        )  # (batch, frames, (2 * context + 1) * bins)
        num_frames = OutputLength(
            2 * context + 1,
            stride,
            padding=2 * context,
            name="context_num_frames",
        )(num_frames)
        # The numbers are the paper's, which counts all layers.
        for i in (1, 2, 3):
            x = _dense_layer(dense_units, dtype, i)(x)
            x = keras.layers.Dropout(
                dropout, dtype=dtype, name=f"dense_{i}_dropout"
            )(x)
        mask = SequenceMask(name="mask")(x, num_frames)
        x = _bidirectional_layer(rnn_type, rnn_units, dtype)(x, mask=mask)
        x = _dense_layer(dense_units, dtype, 5)(x)
        logits = SymbolLogits(
            1 + len(alphabet) + NUM_RESERVED, NUM_RESERVED, name="logits"
        )(x)
        super().__init__(
            inputs={"audio": audio, "audio_length": audio_length},
            outputs={"logits": logits, "logit_length": num_frames},
            dtype=dtype,
            name=name,
        )

        # === Config ===
        self.num_mel_bins = num_mel_bins
        self.sampling_rate = sampling_rate
        self.sequence_length = sequence_length
        self.sequence_stride = sequence_stride
        self.fft_length = fft_length
        self.window = window
        self.normalize = normalize
        self.spec_augment = spec_augment
        self.max_freq_width = max_freq_width
        self.max_time_width = max_time_width
        self.context = context
        self.stride = stride
        self.dense_units = dense_units
        self.rnn_type = rnn_type
        self.rnn_units = rnn_units
        self.dropout = dropout
        self.alphabet = alphabet


# A ReLU halves the square of its input, which He's normal doubles: features
# keep their size through all dense layers. An orthogonal recurrent matrix,
# Keras's default, is halved likewise, so that the past fades, and the sum of
# both directions begins 2.5 times as large as the input, however long the
# utterance. Larger by the square root of 2, or the identity, it lets states
# pile up, in the end to the clip; Glorot's uniform shrinks features threefold,
# and learns later (`benchmarks/initializers.py`).


def _dense_layer(units, dtype, number):
    return keras.layers.Dense(
        units,
        activation=clipped_relu,
        kernel_initializer="he_normal",
        dtype=dtype,
        name=f"dense_{number}",
    )


def _bidirectional_layer(rnn_type, units, dtype):
    if rnn_type == "simple":
        return BidirectionalSimpleRNN(
            units,
            kernel_initializer="he_normal",
            dtype=dtype,
            name="rnn_4",
        )
    return recurrent_layer(
        rnn_type,
        units,
        bidirectional=True,
        merge_mode="sum",
        dtype=dtype,
        name="rnn_4",
    )
