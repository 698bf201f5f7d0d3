"""A recording of any length in, pieces that were cut at silences out.

Two passes over the file: the first measures how loud it is, fifty times a
second; the second reads the pieces. Only the figures, and a piece at a time,
are held in memory.
"""

import os
from collections.abc import Iterable, Iterator

import numpy as np

from keras_ds2.audio import read_blocks

# Short enough to find the gap between two words.
_FRAME_DURATION = 0.02
# Speech without the hum below and the hiss above, Hz.
_BAND = (200, 4000)
# What is quiet is decided among the frames of this many seconds and of as
# many before and after.
_HORIZON = 10.0
# Speech is what stands out of the noise by a quarter of what the loudest
# speech does, and by so many dB at least: noise itself moves by 2.
_MIN_CONTRAST = 4.0
# So many dB below the loudest frame is no noise but the absence of a signal.
_NO_SIGNAL = 80.0
# Seconds. Clicks are shorter, the quietest place of fluent speech is longer.
_CLICK = 0.05
_GAP = 0.2


def segment_audio(
    path: str | os.PathLike[str],
    sampling_rate: int = 16000,
    min_silence: float = 0.5,
    max_segment: float = 20.0,
) -> Iterator[tuple[float, np.ndarray]]:
    """Cuts a recording at its silences.

    What counts as silence is decided by the surrounding half minute: neither
    the level of the recording nor steady noise matters. Where speech goes on
    for longer than `max_segment`, it is cut in the middle of its quietest
    place. Silence is left out but for `min_silence / 2` around speech.

    Args:
        path: As of `load_audio`.
        sampling_rate: Integer. The rate of the samples in Hz. Defaults to
            `16000`.
        min_silence: Float. The shortest silence to cut at, in seconds.
            Defaults to `0.5`.
        max_segment: Float. The longest piece, in seconds. Defaults to `20.0`.

    Yields:
        Pairs of the second where a piece begins and its float32 samples; none
        if there is no speech.

    Raises:
        AudioError: As `load_audio` does, before anything is yielded.
        ValueError: If `min_silence` is below 0.1, or `max_segment` less than
            four times as long.

    Example:

    >>> import os, tempfile
    >>> import numpy as np
    >>> import soundfile
    >>> from keras_ds2.segmentation import segment_audio
    >>> noise = np.random.default_rng(0).normal(size=48000) / 10
    >>> noise[16000:32000] /= 100
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = os.path.join(folder, "two.wav")
    ...     soundfile.write(path, noise, samplerate=16000)
    ...     for start, samples in segment_audio(path):
    ...         print(round(start, 2), len(samples))
    0.0 19840
    1.76 19840
    """
    _validate(min_silence, max_segment)
    levels = measure_levels(read_blocks(path, sampling_rate), sampling_rate)
    spans = find_spans(levels, min_silence, max_segment)
    frame = _frame_size(sampling_rate)
    blocks = read_blocks(path, sampling_rate)
    buffer, offset = np.zeros(0, "float32"), 0
    for first, last in spans:
        start, end = first * frame, last * frame
        while offset + len(buffer) < end:
            block = next(blocks, None)
            if block is None:  # the last frame need not be a whole one
                break
            num_done = min(max(start - offset, 0), len(buffer))
            buffer = np.concatenate([buffer[num_done:], block])
            offset += num_done
        yield (
            start / sampling_rate,
            buffer[max(start - offset, 0) : end - offset],
        )


def measure_levels(
    blocks: Iterable[np.ndarray], sampling_rate: int
) -> np.ndarray:
    """Measures the level of each 20 ms, between 200 and 4000 Hz.

    Args:
        blocks: Pieces of samples, as of `read_blocks`.
        sampling_rate: Integer, Hz.

    Returns:
        Float array of shape `(frames,)`, in dB.

    Example:

    >>> import numpy as np
    >>> from keras_ds2.segmentation import measure_levels
    >>> tone = np.sin(2 * np.pi * 1000 * np.arange(1600) / 16000)
    >>> measure_levels([tone, 0.1 * tone], 16000).round()[[0, 9]]
    array([40., 20.])
    """
    size = _frame_size(sampling_rate)
    window = np.hanning(size + 1)[:size]
    frequencies = np.fft.rfftfreq(size, 1 / sampling_rate)
    band = (frequencies >= _BAND[0]) & (frequencies <= _BAND[1])
    levels = []
    rest = np.zeros(0, "float32")

    def measure(samples):
        spectrum = np.fft.rfft(samples.reshape(-1, size) * window)
        power = np.square(np.abs(spectrum[:, band])).sum(axis=1)
        levels.append(10 * np.log10(power + 1e-30))

    for block in blocks:
        samples = np.concatenate([rest, block])
        num_whole = len(samples) // size * size
        measure(samples[:num_whole])
        rest = samples[num_whole:]
    if len(rest):
        measure(np.pad(rest, (0, size - len(rest))))
    return np.concatenate(levels)


def find_spans(
    levels: np.ndarray, min_silence: float = 0.5, max_segment: float = 20.0
) -> list[tuple[int, int]]:
    """Finds the pieces of a recording by its levels.

    Args:
        levels: Array of shape `(frames,)`, as of `measure_levels`.
        min_silence: Float, as of `segment_audio`. Defaults to `0.5`.
        max_segment: Float, as of `segment_audio`. Defaults to `20.0`.

    Returns:
        List of pairs: the first frame of a piece, and the one after its last.

    Raises:
        ValueError: As `segment_audio` does.

    Example:

    >>> import numpy as np
    >>> from keras_ds2.segmentation import find_spans
    >>> find_spans(np.repeat([-60.0, -20, -60, -20, -60], 50), 0.4)
    [(40, 110), (140, 210)]
    """
    _validate(min_silence, max_segment)
    margin = round(min_silence / 2 / _FRAME_DURATION)
    longest = int(max_segment / _FRAME_DURATION)
    spans: list[tuple[int, int]] = []
    for start, end in _runs(_is_speech(levels)):
        start, end = max(start - margin, 0), min(end + margin, len(levels))
        if spans and start <= spans[-1][1]:
            start = spans.pop()[0]
        spans.append((start, end))
    return [
        part
        for start, end in spans
        for part in _cut(levels, start, end, longest)
    ]


def _validate(min_silence: float, max_segment: float) -> None:
    if not min_silence >= 0.1 or not max_segment >= 4 * min_silence:
        raise ValueError(
            "`min_silence` must be at least 0.1 s and `max_segment` at least "
            f"four times as long. Received: min_silence={min_silence}, "
            f"max_segment={max_segment}."
        )


def _frame_size(sampling_rate: int) -> int:
    return round(_FRAME_DURATION * sampling_rate)


def _is_speech(levels: np.ndarray) -> np.ndarray:
    """Marks the frames that stand out of the noise around them."""
    width = 2 * round(_CLICK / _FRAME_DURATION) + 1
    levels = np.median(_windows(levels, width), axis=1)
    has_signal = levels > levels.max(initial=-np.inf) - _NO_SIGNAL
    is_speech = np.zeros(len(levels), bool)
    step = round(_HORIZON / _FRAME_DURATION)
    for start in range(0, len(levels), step):
        around = slice(max(start - step, 0), start + 2 * step)
        signal = levels[around][has_signal[around]]
        if not len(signal):
            continue
        noise, speech = np.percentile(signal, [10, 95])
        threshold = noise + max(_MIN_CONTRAST, (speech - noise) / 4)
        here = slice(start, start + step)
        is_speech[here] = has_signal[here] & (levels[here] > threshold)
    return is_speech


def _cut(
    levels: np.ndarray, start: int, end: int, longest: int
) -> Iterator[tuple[int, int]]:
    """Cuts what is too long at its quietest places."""
    width = 2 * round(_GAP / _FRAME_DURATION / 2) + 1
    while end - start > longest:
        # Neither piece becomes a splinter.
        first = start + longest // 2
        last = min(start + longest, end - longest // 4)
        loudness = _windows(levels[first:last], width).mean(axis=1)
        quietest = np.flatnonzero(loudness == loudness.min())
        cut = first + int(quietest[len(quietest) // 2])
        yield start, cut
        start = cut
    yield start, end


def _windows(levels: np.ndarray, width: int) -> np.ndarray:
    """The surroundings of each frame, `(frames, width)`."""
    if not len(levels):
        return np.zeros((0, width))
    padded = np.pad(levels, width // 2, mode="edge")
    return np.lib.stride_tricks.sliding_window_view(padded, width)


def _runs(mask: np.ndarray) -> list[tuple[int, int]]:
    """Begin and end of each run of true values."""
    edges = np.flatnonzero(np.diff(np.pad(mask.astype(int), 1)))
    return list(zip(edges[::2].tolist(), edges[1::2].tolist(), strict=True))
