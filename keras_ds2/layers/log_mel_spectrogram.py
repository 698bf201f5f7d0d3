"""Samples in, frames out: the only place that knows of spectra."""

import itertools

import keras
import numpy as np
from keras import ops

from keras_ds2 import lengths
from keras_ds2.layers.mel_filters import mel_filters
from keras_ds2.layers.streaming import SlidingWindow

# offset - amplitude * cos: periodic windows, as a Fourier transform wants.
_WINDOWS = {"hann": (0.5, 0.5), "hamming": (0.54, 0.46)}

# A bin that the corpus never moved must not blow up what comes later: no
# deviation counts as less than 0.1 in the logarithm.
_MIN_VARIANCE = 1e-2


@keras.saving.register_keras_serializable(package="keras_ds2")
class LogMelSpectrogram(SlidingWindow, keras.layers.Layer):
    """Computes log-mel spectrograms of padded audio batches.

    Unlike `keras.layers.MelSpectrogram` it depends on nothing but the
    utterance itself (Keras clips every clip against the loudest of its
    batch), does not reach beyond the ends (no centering, so it can stream),
    returns time before frequency, takes lengths, and stays in float32 under
    every dtype policy. Each frame is
    `log(max(filters @ |rfft(window * samples)|^2, min_power))`, with Slaney's
    mel scale and filters of unit area.

    With `normalize=True` every bin is then shifted and scaled by its mean and
    variance over the training corpus, which `adapt` measures once and which
    are saved with the weights. There is no normalization per utterance: it
    would need the future.

    Args:
        num_mel_bins: Integer. Mel filters. Defaults to `80`.
        sampling_rate: Integer, Hz. Defaults to `16000`.
        sequence_length: Integer. Window in samples. Defaults to `400` (25 ms).
        sequence_stride: Integer. Hop in samples. Defaults to `160` (10 ms).
        fft_length: Integer, at least `sequence_length`. Defaults to `512`.
        window: String, `"hann"` or `"hamming"`. Defaults to `"hann"`.
        min_freq: Float, Hz. Lower edge of the lowest filter. Defaults to `0`.
        max_freq: Float, Hz. Upper edge of the highest. Defaults to half the
            sampling rate.
        min_power: Float. Floor under the power before the logarithm. Defaults
            to `1e-10`.
        normalize: Boolean. Whether to normalize by statistics of the corpus.
            Defaults to `True`.

    Call arguments:
        audio: Tensor of shape `(batch, samples)`, float32 in [-1, 1].
        audio_length: Optional integer tensor of shape `(batch,)`: real
            samples of each row. What stands beyond them changes nothing.

    Output shape:
        `(batch, frames, num_mel_bins)` in the layer's compute dtype, `frames
        = max(0, 1 + (samples - sequence_length) // sequence_stride)`; frames
        that are not made of real samples alone are zero.

    Raises:
        ValueError: If an argument is out of range.

    Reference:
        Amodei et al., 2016 (arXiv:1512.02595), section 3.1: spectrograms as
        input; the mel filters are the reference configuration's.

    Example:

    >>> import numpy as np
    >>> import keras_ds2
    >>> layer = keras_ds2.LogMelSpectrogram()
    >>> audio = np.random.default_rng(0).normal(size=(2, 16000)) * 0.1
    >>> layer.adapt([{"audio": audio, "audio_length": np.array([16000, 800])}])
    >>> layer(audio, np.array([16000, 800])).shape
    TensorShape([2, 98, 80])
    """

    built: bool

    def __init__(
        self,
        num_mel_bins=80,
        sampling_rate=16000,
        sequence_length=400,
        sequence_stride=160,
        fft_length=512,
        window="hann",
        min_freq=0.0,
        max_freq=None,
        min_power=1e-10,
        normalize=True,
        **kwargs,
    ):
        # Samples must not be cast to 16 bits on the way in.
        super().__init__(autocast=False, **kwargs)
        max_freq = sampling_rate / 2 if max_freq is None else max_freq
        if not 0 < sequence_length <= fft_length:
            raise ValueError(
                "`sequence_length` must be positive and at most `fft_length`. "
                f"Received: sequence_length={sequence_length}, "
                f"fft_length={fft_length}."
            )
        if not 0 <= min_freq < max_freq <= sampling_rate / 2:
            raise ValueError(
                "`min_freq` must be below `max_freq`, and that at most half "
                f"the sampling rate. Received: min_freq={min_freq}, "
                f"max_freq={max_freq}, sampling_rate={sampling_rate}."
            )
        if min(num_mel_bins, sequence_stride) < 1 or min_power <= 0:
            raise ValueError(
                "`num_mel_bins`, `sequence_stride` and `min_power` must be "
                f"positive. Received: num_mel_bins={num_mel_bins}, "
                f"sequence_stride={sequence_stride}, min_power={min_power}."
            )
        if window not in _WINDOWS:
            raise ValueError(
                "`window` must be 'hann' or 'hamming'. Received: "
                f"window={window!r}."
            )
        self.num_mel_bins = num_mel_bins
        self.sampling_rate = sampling_rate
        self.sequence_length = sequence_length
        self.sequence_stride = sequence_stride
        self.fft_length = fft_length
        self.window = window
        self.min_freq = min_freq
        self.max_freq = max_freq
        self.min_power = min_power
        self.normalize = normalize
        self.filters = mel_filters(
            num_mel_bins, fft_length, sampling_rate, min_freq, max_freq
        )
        offset, amplitude = _WINDOWS[window]
        phase = 2 * np.pi * np.arange(sequence_length) / sequence_length
        self.taper = (offset - amplitude * np.cos(phase)).astype("float32")

    def build(self, input_shape):
        if self.normalize:
            bins = (self.num_mel_bins,)
            self.mean = self._add_statistic("mean", bins, "zeros")
            self.variance = self._add_statistic("variance", bins, "ones")
            self.count = self._add_statistic("count", (), "zeros", "int32")

    def _add_statistic(self, name, shape, initializer, dtype="float32"):
        return self.add_weight(
            name=name,
            shape=shape,
            initializer=initializer,
            dtype=dtype,
            trainable=False,
            autocast=False,
        )

    def call(self, audio, audio_length=None):
        frames = self._log_mel(ops.cast(audio, "float32"))
        if self.normalize:
            frames = (frames - self.mean) / self.deviation()
        if audio_length is not None:
            frames = lengths.zero_padding(
                frames, self.compute_length(audio_length)
            )
        return ops.cast(frames, self.compute_dtype)

    def deviation(self):
        """What `normalize=True` divides every bin by."""
        return ops.sqrt(ops.maximum(self.variance, _MIN_VARIANCE))

    def _log_mel(self, audio):
        frames = ops.extract_sequences(
            audio, self.sequence_length, self.sequence_stride
        )  # (batch, frames, sequence_length)
        # `rfft` would do this itself, but not where there is no frame at all.
        zeros = self.fft_length - self.sequence_length
        frames = ops.pad(frames * self.taper, [[0, 0], [0, 0], [0, zeros]])
        real, imaginary = ops.rfft(frames, self.fft_length)
        power = ops.square(real) + ops.square(imaginary)
        mel = ops.matmul(power, self.filters)
        return ops.log(ops.maximum(mel, self.min_power))

    def _over_whole_windows(self, inputs):
        return self(inputs)  # it never pads

    def reach(self):
        return 0, self.sequence_length - 1, self.sequence_stride

    def compute_length(self, audio_length):
        """Counts the frames of `audio_length` samples (integers or tensors)."""
        return lengths.output_length(
            audio_length, self.sequence_length, self.sequence_stride
        )

    @property
    def is_adapted(self):
        """Whether the statistics of a corpus are known (or not wanted)."""
        return not self.normalize or (
            self.built and bool(ops.convert_to_numpy(self.count) > 0)
        )

    def adapt(self, data, steps=None):
        """Measures mean and variance of every bin over a corpus.

        One pass over a stream; nothing is kept but two sums, so that the size
        of the corpus does not matter. An hour of speech is plenty.

        Args:
            data: Iterable of batches, `tf.data.Dataset` for one, each a
                dictionary with `audio` and `audio_length`, or a tuple that
                starts with one.
            steps: Integer. Batches to use. Defaults to all.

        Raises:
            ValueError: If the layer does not normalize, or `data` holds less
                than two frames or values that are not finite.
        """
        if not self.normalize:
            raise ValueError("`adapt` needs a layer with `normalize=True`.")
        count, mean, sum_of_squares = 0, 0.0, 0.0
        for batch in itertools.islice(data, steps):
            features = batch[0] if isinstance(batch, tuple) else batch
            audio = ops.convert_to_tensor(features["audio"], "float32")
            num_frames = self.compute_length(
                ops.convert_to_tensor(features["audio_length"])
            )
            frames = self._log_mel(audio)
            mask = lengths.sequence_mask(num_frames, ops.shape(frames)[1])
            real = ops.convert_to_numpy(frames)[ops.convert_to_numpy(mask)]
            if not len(real):
                continue
            # Chan et al., 1979: merging two sets loses no precision.
            real = real.astype("float64")
            total = count + len(real)
            shift = real.mean(axis=0) - mean
            sum_of_squares += real.var(axis=0) * len(real)
            sum_of_squares += shift**2 * count * len(real) / total
            mean += shift * len(real) / total
            count = total
        if count < 2 or not np.all(np.isfinite(sum_of_squares)):
            raise ValueError(
                "`adapt` needs at least two frames of finite samples. "
                f"Received: {count} frames. Is the data set empty, or an "
                "iterator already used up?"
            )
        if not self.built:
            self.build(None)
            self.built = True
        self.mean.assign(mean)
        self.variance.assign(sum_of_squares / count)
        self.count.assign(min(count, np.iinfo("int32").max))

    def compute_output_shape(self, audio_shape, audio_length_shape=None):
        batch, samples = audio_shape
        frames = None if samples is None else self.compute_length(samples)
        return (batch, frames, self.num_mel_bins)

    def get_config(self):
        config = super().get_config()
        config.update(
            num_mel_bins=self.num_mel_bins,
            sampling_rate=self.sampling_rate,
            sequence_length=self.sequence_length,
            sequence_stride=self.sequence_stride,
            fft_length=self.fft_length,
            window=self.window,
            min_freq=self.min_freq,
            max_freq=self.max_freq,
            min_power=self.min_power,
            normalize=self.normalize,
        )
        return config
