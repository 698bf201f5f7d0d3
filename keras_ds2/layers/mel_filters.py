"""The mel scale, and the filters that stand on it."""

import numpy as np

# The Slaney mel scale: linear below 1 kHz, logarithmic above.
_HERTZ_PER_MEL = 200.0 / 3.0
_BREAK_HERTZ = 1000.0
_BREAK_MEL = _BREAK_HERTZ / _HERTZ_PER_MEL
_LOG_STEP = np.log(6.4) / 27.0


def _hertz_to_mel(hertz):
    logarithmic = np.log(np.maximum(hertz, 1e-3) / _BREAK_HERTZ) / _LOG_STEP
    return np.where(
        hertz < _BREAK_HERTZ, hertz / _HERTZ_PER_MEL, _BREAK_MEL + logarithmic
    )


def _mel_to_hertz(mel):
    logarithmic = _BREAK_HERTZ * np.exp(_LOG_STEP * (mel - _BREAK_MEL))
    return np.where(mel < _BREAK_MEL, mel * _HERTZ_PER_MEL, logarithmic)


def mel_filters(num_mel_bins, fft_length, sampling_rate, min_freq, max_freq):
    """Triangles of unit area in hertz, `(fft_length // 2 + 1, num_mel_bins)`.

    Unlike HTK's scale, Slaney's leaves no filter without an FFT bin at 80
    bins of 512 points.
    """
    mels = np.linspace(
        _hertz_to_mel(min_freq), _hertz_to_mel(max_freq), num_mel_bins + 2
    )
    lower, center, upper = (
        _mel_to_hertz(mels)[i : i + num_mel_bins] for i in range(3)
    )
    bins = np.linspace(0.0, sampling_rate / 2, fft_length // 2 + 1)[:, None]
    rising = (bins - lower) / (center - lower)
    falling = (upper - bins) / (upper - center)
    triangles = np.maximum(0.0, np.minimum(rising, falling))
    return (triangles * 2.0 / (upper - lower)).astype("float32")
