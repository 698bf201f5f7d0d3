"""Deep Speech 2: convolutions, recurrent layers, a look ahead."""

import keras

from keras_ds2.layers.clipped_relu import clipped_relu
from keras_ds2.layers.moving_mean_normalization import (
    MovingMeanNormalization,
)
from keras_ds2.layers.row_convolution import RowConvolution
from keras_ds2.layers.sequence_batch_normalization import (
    SequenceBatchNormalization,
)
from keras_ds2.layers.sequence_mask import SequenceMask
from keras_ds2.layers.symbol_logits import SymbolLogits
from keras_ds2.models.parts import (
    convolutions,
    log_mel_frames,
    recurrent_layer,
)
from keras_ds2.models.speech_recognizer import SpeechRecognizer
from keras_ds2.models.spelling import spelling, validate_spelling
from keras_ds2.text import (
    DEFAULT_ALPHABET,
    NUM_RESERVED,
    validate_alphabet,
)


@keras.saving.register_keras_serializable(package="keras_ds2")
class DeepSpeech2(SpeechRecognizer):
    """Builds Deep Speech 2, from samples to logits of characters.

    Log-mel spectrogram, strided convolutions over time and frequency,
    recurrent layers, a row convolution that looks a few frames ahead, a dense
    layer, logits. The defaults are the reference configuration: 16 kHz, 11.6
    million parameters, one output frame every 20 ms, unidirectional, so that
    it can stream.

    It is one `keras.Model`: `adapt` it to the corpus, `compile` it with an
    optimizer alone, `fit` it on batches `({"audio", "audio_length"},
    {"labels", "label_length"})` (the CTC loss, WER and CER are its own),
    `transcribe` files, `save` it. An utterance has the same logits alone,
    padded by any amount, or beside any neighbor.

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
        conv_filters: Tuple of integers, channels of each convolution.
            Defaults to `(32, 32)`.
        conv_kernel_sizes: Tuple of pairs of odd integers, (time, frequency).
            Defaults to `((11, 41), (11, 21))`.
        conv_strides: Tuple of pairs, (time, frequency). Defaults to
            `((2, 2), (1, 2))`.
        rnn_type: `"lstm"`, `"gru"` or `"simple"` (clipped ReLU). Defaults to
            `"lstm"`.
        num_rnn_layers: Integer. Defaults to `5`.
        rnn_units: Integer. Defaults to `512`.
        bidirectional: Boolean. Whether layers also run from the end, which
            rules out streaming. Defaults to `False`.
        merge_mode: `"sum"` (the paper) or `"concat"`: what becomes of two
            directions. Defaults to `"sum"`.
        batch_normalization: Boolean. Whether each convolution's output and
            each further recurrent layer's input is normalized by
            `SequenceBatchNormalization`. Defaults to `True`.
        normalize_projection: Boolean. Whether recurrent layers, the first
            included, normalize their projected input, as the paper does,
            instead of their input; rules out cuDNN. Defaults to `False`.
        mean_momentum: Float between 0 and 1, as `0.998`. Momentum of a
            `MovingMeanNormalization` before each recurrent layer. Defaults to
            `None`: there is none.
        row_conv_width: Integer. The current frame and the future ones that
            `RowConvolution` sees; 0 for none. Defaults to `5`.
        dense_units: Integer. Defaults to `1024`.
        dropout: Float. After each recurrent layer and the dense one. Defaults
            to `0.1`.
        num_spelling_layers: Integer. Recurrent layers of a second network
            that reads what the first one hears, and may learn from text alone
            how words are spelled; it looks ahead much further. Of the options
            above it has `rnn_type`, `normalize_projection` and `dropout`.
            Defaults to `0`: there is none.
        spelling_units: Integer. Its size. Defaults to `512`.
        spelling_context: Integer. Output frames on both sides that it sees at
            once. Defaults to `7`.
        spelling_stride: Integer. Output frames that it treats as one, and
            writes one by one in the end. Defaults to `2`.
        spelling_row_conv_width: Integer. `row_conv_width` after each of its
            recurrent layers, in frames of `spelling_stride`. Defaults to `8`.
        alphabet: String of the characters of transcripts, each once. The
            symbols are the blank, these, and two reserved. Defaults to
            space, apostrophe and a to z: 31 symbols.
        heard_alphabet: String. What the first network hears, where there are
            two. Defaults to `None`: as `alphabet`.
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
        Amodei et al., 2016 (arXiv:1512.02595), section 3. It differs from the
        paper in the reference configuration's LSTM, log-mel features and
        dropout; recurrent layers normalize their input, which is what cuDNN
        can run, unless `normalize_projection=True`; the two directions of a
        layer do not share input weights; a GRU's candidate is a tanh.

    Example:

    >>> import numpy as np
    >>> import keras_ds2
    >>> model = keras_ds2.DeepSpeech2()
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
        conv_filters=(32, 32),
        conv_kernel_sizes=((11, 41), (11, 21)),
        conv_strides=((2, 2), (1, 2)),
        rnn_type="lstm",
        num_rnn_layers=5,
        rnn_units=512,
        bidirectional=False,
        merge_mode="sum",
        batch_normalization=True,
        normalize_projection=False,
        mean_momentum=None,
        row_conv_width=5,
        dense_units=1024,
        dropout=0.1,
        num_spelling_layers=0,
        spelling_units=512,
        spelling_context=7,
        spelling_stride=2,
        spelling_row_conv_width=8,
        alphabet=DEFAULT_ALPHABET,
        heard_alphabet=None,
        dtype=None,
        name="deep_speech_2",
    ):
        validate_alphabet(alphabet)
        validate_spelling(num_spelling_layers, heard_alphabet)
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
        x, num_frames = convolutions(
            x,
            num_frames,
            conv_filters,
            conv_kernel_sizes,
            conv_strides,
            batch_normalization,
            dtype,
        )  # (batch, frames, features)
        mask = SequenceMask(name="mask")(x, num_frames)
        for i in range(1, num_rnn_layers + 1):
            if mean_momentum is not None:
                x = MovingMeanNormalization(
                    mean_momentum, dtype=dtype, name=f"rnn_{i}_mean"
                )(x, num_frames)
            if batch_normalization and not normalize_projection and i > 1:
                x = SequenceBatchNormalization(
                    dtype=dtype, name=f"rnn_{i}_norm"
                )(x, num_frames)
            x = recurrent_layer(
                rnn_type,
                rnn_units,
                bidirectional,
                merge_mode,
                normalize_projection=normalize_projection,
                dtype=dtype,
                name=f"rnn_{i}",
            )(x, mask=mask)
            x = keras.layers.Dropout(
                dropout, dtype=dtype, name=f"rnn_{i}_dropout"
            )(x)
        if row_conv_width:
            x = RowConvolution(row_conv_width, dtype=dtype, name="row_conv")(
                x, num_frames
            )
        x = keras.layers.Dense(
            dense_units, activation=clipped_relu, dtype=dtype, name="dense"
        )(x)
        x = keras.layers.Dropout(dropout, dtype=dtype, name="dense_dropout")(x)
        if num_spelling_layers:
            heard = SymbolLogits(
                1 + len(heard_alphabet or alphabet) + NUM_RESERVED,
                NUM_RESERVED,
                name="heard_logits",
            )(x)
            x, num_frames = spelling(
                heard,
                num_frames,
                num_spelling_layers,
                spelling_units,
                spelling_context,
                spelling_stride,
                spelling_row_conv_width,
                dropout,
                rnn_type=rnn_type,
                normalize_projection=normalize_projection,
                dtype=dtype,
            )
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
        self.conv_filters = tuple(conv_filters)
        self.conv_kernel_sizes = tuple(map(tuple, conv_kernel_sizes))
        self.conv_strides = tuple(map(tuple, conv_strides))
        self.rnn_type = rnn_type
        self.num_rnn_layers = num_rnn_layers
        self.rnn_units = rnn_units
        self.bidirectional = bidirectional
        self.merge_mode = merge_mode
        self.batch_normalization = batch_normalization
        self.normalize_projection = normalize_projection
        self.mean_momentum = mean_momentum
        self.row_conv_width = row_conv_width
        self.dense_units = dense_units
        self.dropout = dropout
        self.num_spelling_layers = num_spelling_layers
        self.spelling_units = spelling_units
        self.spelling_context = spelling_context
        self.spelling_stride = spelling_stride
        self.spelling_row_conv_width = spelling_row_conv_width
        self.alphabet = alphabet
        self.heard_alphabet = heard_alphabet
