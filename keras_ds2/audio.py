"""Audio files in, samples out; knows nothing of frames or text."""

import os
from collections.abc import Iterator, Sequence

import numpy as np
import soundfile
import soxr

from keras_ds2.audio_error import AudioError

# What libsndfile answers when a stream was written without its length.
_UNKNOWN_NUM_SAMPLES = 2**63 - 1

# A header that lies must not decide how much memory is asked for. No codec
# packs more samples into a byte (a FLAC frame of 65,535 zeros takes 11), and
# no recording of speech has another rate or more channels.
_MAX_SAMPLES_PER_BYTE = 6000
_SAMPLING_RATES = (1000, 768_000)
_MOST_CHANNELS = 32
_MOST_SAMPLES = 2**24  # of all channels, decoded at a time: 64 MB

# Full scale is 1. Integers stored as floats pass, noise read as floats does
# not: its squares would be infinite in float32.
MAX_AMPLITUDE = 2.0**31


def audio_duration(path: str | os.PathLike[str]) -> float:
    """Reads the duration of an audio file from its header.

    No sample is decoded: a damaged body is found by `load_audio` only. Ogg
    has no such header, and its pages are looked at: a file whose first or
    last page of audio is damaged passes for a shorter one.

    Args:
        path: An audio file in any format that libsndfile reads (WAV, FLAC,
            Ogg/Opus, Ogg/Vorbis, MP3, NIST SPHERE and others).

    Returns:
        The duration in seconds, above 0.

    Raises:
        AudioError: If the file is missing, unreadable or empty.

    Example:

    >>> import os, tempfile
    >>> import numpy as np
    >>> import soundfile
    >>> from keras_ds2.audio import audio_duration
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = os.path.join(folder, "silence.wav")
    ...     soundfile.write(path, np.zeros(4000), samplerate=8000)
    ...     audio_duration(path)
    0.5
    """
    if not os.path.exists(path):
        raise AudioError(
            path, "missing", "does not exist. Check the path or the corpus."
        )
    if os.path.isdir(path):
        raise AudioError(
            path, "unreadable", "is a folder. Pass the path of a file."
        )
    # To open a pipe would wait for whoever writes into it, perhaps for ever.
    if not os.path.isfile(path):
        raise AudioError(
            path,
            "unreadable",
            "is a pipe or a device. Pass the path of a regular file.",
        )
    try:
        # As bytes: soundfile refuses names that are not UTF-8.
        with soundfile.SoundFile(os.fsencode(path)) as header:
            num_samples, file_rate = header.frames, header.samplerate
        size = os.path.getsize(path)
    # Headerless formats raise a TypeError: the rate has to be given.
    except (soundfile.SoundFileError, TypeError, OSError) as error:
        raise _unreadable(path, str(error)) from error
    if num_samples == _UNKNOWN_NUM_SAMPLES:
        raise _unreadable(path, "its header does not state the length")
    if num_samples > size * _MAX_SAMPLES_PER_BYTE:
        raise _unreadable(
            path, f"its header states {num_samples} samples in {size} bytes"
        )
    if not _SAMPLING_RATES[0] <= file_rate <= _SAMPLING_RATES[1]:
        raise _unreadable(path, f"its header states a rate of {file_rate} Hz")
    if header.channels > _MOST_CHANNELS:
        raise _unreadable(path, f"its header states {header.channels} channels")
    if num_samples <= 0:
        raise _empty(path)
    return num_samples / file_rate


def load_audio(
    path: str | os.PathLike[str],
    sampling_rate: int = 16000,
    min_duration: float = 0.0,
    max_duration: float | None = None,
) -> np.ndarray:
    """Loads an audio file as mono samples at a given rate.

    Channels are averaged. Another rate is converted with soxr; a file that
    has the rate already is passed on sample for sample (16-bit integers as
    `integer / 32768`).

    A FLAC file that was cut off is refused. WAV and Ogg files that were cut
    off are indistinguishable from shorter ones and give what they hold, and
    so does an Ogg file (Opus, Vorbis) whose first or last page is damaged. A
    `duration` in the manifest finds both: the utterance is refused as
    `"wrong_duration"` when it is decoded.

    Args:
        path: An audio file in any format that libsndfile reads (WAV, FLAC,
            Ogg/Opus, Ogg/Vorbis, MP3, NIST SPHERE and others).
        sampling_rate: Integer. The rate of the result in Hz. Defaults to
            `16000`.
        min_duration: Float. Shorter files are refused, in seconds. Defaults
            to `0.0`.
        max_duration: Float or `None`. Longer files are refused before they
            are decoded, in seconds. Defaults to `None`: no limit.

    Returns:
        A float32 array of shape `(num_samples,)`, finite and not empty.

    Raises:
        AudioError: If the file is missing, unreadable, empty, shorter or
            longer than allowed, or holds NaN, infinite or absurdly large
            samples.

    Example:

    >>> import os, tempfile
    >>> import numpy as np
    >>> import soundfile
    >>> from keras_ds2.audio import load_audio
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = os.path.join(folder, "stereo.wav")
    ...     soundfile.write(path, np.zeros((4000, 2)), samplerate=8000)
    ...     load_audio(path).shape
    (8000,)
    """
    duration = audio_duration(path)
    if duration < min_duration:
        raise AudioError(
            path,
            "too_short",
            f"lasts {duration:.3f} s, less than min_duration={min_duration} s."
            " Leave it out or lower `min_duration`.",
        )
    if max_duration is not None and duration > max_duration:
        raise AudioError(
            path,
            "too_long",
            f"lasts {duration:.3f} s, more than max_duration={max_duration} s."
            " Split it or raise `max_duration`.",
        )
    (file_rate, *_), blocks, _ = zip(*_decode(path, duration), strict=True)
    samples = blocks[0] if len(blocks) == 1 else np.concatenate(blocks)
    if file_rate != sampling_rate:
        samples = soxr.resample(samples, file_rate, sampling_rate)
    if not len(samples):  # One or two samples at a higher rate.
        raise _empty(path)
    return samples


def read_blocks(
    path: str | os.PathLike[str],
    sampling_rate: int = 16000,
    block_duration: float = 10.0,
) -> Iterator[np.ndarray]:
    """Reads an audio file piece by piece, for files of any length.

    The pieces together are what `load_audio` gives, to rounding where the
    rate is converted. No more than a piece is held in memory.

    Args:
        path: As of `load_audio`.
        sampling_rate: Integer. The rate of the result in Hz. Defaults to
            `16000`.
        block_duration: Float. Seconds of a piece, more or less. Defaults to
            `10.0`.

    Yields:
        Float32 arrays of shape `(num_samples,)`, finite, not empty.

    Raises:
        AudioError: As `load_audio` does, when the fault is reached.

    Example:

    >>> import os, tempfile
    >>> import numpy as np
    >>> import soundfile
    >>> from keras_ds2.audio import read_blocks
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = os.path.join(folder, "long.wav")
    ...     soundfile.write(path, np.zeros(5000), samplerate=16000)
    ...     [len(block) for block in read_blocks(path, block_duration=0.25)]
    [4000, 1000]
    """
    stream, is_empty = None, True
    for file_rate, samples, is_last in _decode(
        path, audio_duration(path), block_duration
    ):
        if file_rate != sampling_rate:
            if stream is None:
                stream = soxr.ResampleStream(file_rate, sampling_rate, 1)
            samples = stream.resample_chunk(samples, is_last)
        if len(samples):
            is_empty = False
            yield samples
    if is_empty:
        raise _empty(path)


def _decode(
    path: str | os.PathLike[str],
    duration: float,
    block_duration: float = np.inf,
) -> Iterator[tuple[int, np.ndarray, bool]]:
    """Yields rate and mono samples of each block, and whether it is last."""
    found, is_last = 0, False
    try:
        with soundfile.SoundFile(os.fsencode(path)) as file:
            rate = file.samplerate
            size = _MOST_SAMPLES // file.channels
            size = max(round(min(block_duration * rate, size)), 1)
            while not is_last:
                samples = file.read(size, dtype="float32", always_2d=True)
                samples = samples.mean(axis=1)  # (num_samples,)
                found += len(samples)
                is_last = len(samples) < size
                # MP3 headers estimate; by more nothing honest is off.
                if is_last and found / rate < 0.95 * duration - 0.05:
                    raise _unreadable(
                        path,
                        f"it ends after {found / rate:.3f} s of the "
                        f"{duration:.3f} s that its header states",
                    )
                _check_samples(path, samples)
                yield rate, samples, is_last
    except (soundfile.SoundFileError, OSError) as error:
        raise _unreadable(path, str(error)) from error


def _check_samples(path: str | os.PathLike[str], samples: np.ndarray) -> None:
    if num_bad := np.count_nonzero(~np.isfinite(samples)):
        raise AudioError(
            path,
            "non_finite",
            f"holds {num_bad} NaN or infinite samples out of {len(samples)}."
            " Repair it or leave it out.",
        )
    if (peak := np.abs(samples).max(initial=0.0)) > MAX_AMPLITUDE:
        raise AudioError(
            path,
            "out_of_range",
            f"holds samples up to {peak:.1g}, where full scale is 1. Convert "
            "it again or leave it out.",
        )


def _unreadable(path: str | os.PathLike[str], cause: str) -> AudioError:
    return AudioError(
        path,
        "unreadable",
        f"cannot be read: {cause.rstrip('.')}. Fetch it again, or convert it"
        " to WAV or FLAC.",
    )


def _empty(path: str | os.PathLike[str]) -> AudioError:
    return AudioError(
        path, "empty", "holds no samples. Record it again or leave it out."
    )


def pad_samples(samples: Sequence[np.ndarray]) -> dict[str, np.ndarray]:
    """Pads recordings to the inputs of a model.

    Args:
        samples: 1-D float32 arrays, at least one.

    Returns:
        Dictionary of `audio`, `(batch, samples)` float32, zero beyond each
        recording's end, and `audio_length`, `(batch,)` int32.

    Example:

    >>> from keras_ds2.audio import pad_samples
    >>> batch = pad_samples([np.ones(3), np.ones(1)])
    >>> batch["audio"].shape, batch["audio_length"].tolist()
    ((2, 3), [3, 1])
    """
    audio_length = np.array([len(item) for item in samples], dtype="int32")
    audio = np.zeros((len(samples), audio_length.max()), dtype="float32")
    for row, item in zip(audio, samples, strict=True):
        row[: len(item)] = item
    return {"audio": audio, "audio_length": audio_length}
