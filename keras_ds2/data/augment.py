"""Samples in, other samples of the same words out: speed, noise, loudness."""

import functools
import hashlib
import math
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import soxr

from keras_ds2.audio import AudioError, load_audio

_SUFFIXES = (".wav", ".flac", ".opus", ".ogg", ".mp3")

# Decoded noise files that are kept: 64 of 10 s at 16 kHz are 40 MB.
_NUM_CACHED = 64

# What is beyond is no loudness, and could overflow float32.
_MAX_DECIBELS = 100.0


class Augmentation:
    """Alters recordings for training: speed, noise, loudness.

    All are off by default. What is drawn is a pure function of the data
    set's seed, the utterance and the pass, so that training that goes on
    where it stopped hears the same.

    - Speed is changed by resampling, tempo and pitch together: a tone of f Hz
      becomes one of `f * speed`, n samples become `n / speed`. An utterance
      that would fall below one window keeps its speed. One that becomes too
      short for its transcript at a fast speed is masked and counted by the
      loss (`infeasible`), in that pass.
    - Noise is a random stretch of a random file of a folder, repeated where
      it is too short, at a signal-to-noise ratio drawn from a range: powers
      over the whole utterance. Silence gets no noise, and silent noise adds
      nothing.
    - Loudness is changed last, by a gain drawn from a range.

    Args:
        speeds: Sequence of floats, from 0.5 to 2, drawn with equal chance;
            `(0.9, 1.0, 1.1)` is usual. Defaults to `(1.0,)`.
        noise_folder: Path of a folder of audio files, searched with its
            subfolders. All are decoded at once, to find bad ones. Defaults to
            `None`: no noise.
        noise_snr: Pair of floats, lowest and highest ratio in dB, from -100
            to 100. Defaults to `(10.0, 30.0)`.
        noise_probability: Float, the share of utterances that get noise; the
            paper's is 0.4. Defaults to `1.0`.
        gain: Pair of floats, lowest and highest gain in dB, from -100 to
            100. Defaults to `(0.0, 0.0)`.

    Call arguments:
        samples: Float32 array of shape `(num_samples,)`.
        sampling_rate: Integer, Hz.
        generator: `np.random.Generator`, decides about everything.
        min_samples: Integer. No speed gives less. Defaults to `1`.

    Returns:
        Float32 array of shape `(num_samples / speed,)`.

    Raises:
        ValueError: If a range is not one, or the folder holds no audio.
        AudioError: If a noise file cannot be used, naming it.

    Reference:
        Ko et al., 2015, "Audio augmentation for speech recognition" (speed);
        Amodei et al., 2016 (arXiv:1512.02595), section 5.2 (noise).

    Example:

    >>> import numpy as np
    >>> import keras_ds2
    >>> augmentation = keras_ds2.data.Augmentation(speeds=(0.8,), gain=(-6, 6))
    >>> samples = np.ones(16000, "float32")
    >>> augmentation(samples, 16000, np.random.default_rng(0)).shape
    (20000,)
    """

    def __init__(
        self,
        speeds: Sequence[float] = (1.0,),
        noise_folder: str | os.PathLike[str] | None = None,
        noise_snr: tuple[float, float] = (10.0, 30.0),
        noise_probability: float = 1.0,
        gain: tuple[float, float] = (0.0, 0.0),
    ) -> None:
        speeds = tuple(float(speed) for speed in speeds)
        if not speeds or not all(0.5 <= speed <= 2 for speed in speeds):
            raise ValueError(
                "`speeds` must be factors from 0.5 to 2, at least one. "
                f"Received: speeds={speeds}"
            )
        if not 0 <= noise_probability <= 1:
            raise ValueError(
                "`noise_probability` must be from 0 to 1. Received: "
                f"noise_probability={noise_probability}"
            )
        self.speeds = speeds
        self.noise_folder = noise_folder
        self.noise_snr = _range("noise_snr", noise_snr)
        self.noise_probability = float(noise_probability)
        self.gain = _range("gain", gain)
        # An instance's own cache, which goes when the instance goes.
        self._load = functools.lru_cache(maxsize=_NUM_CACHED)(_load_noise)
        self._noises = [] if noise_folder is None else _find(noise_folder)
        for path in self._noises:
            self._load(path, 16000)
        # Now, as they were decoded: the folder may change later.
        self._noise_digest = _digest(noise_folder, self._noises)

    @property
    def slowest_speed(self) -> float:
        """The speed that makes the longest recordings, at most 1."""
        # At most: what is too short to go faster stays as it is.
        return min(*self.speeds, 1.0)

    def __call__(
        self,
        samples: np.ndarray,
        sampling_rate: int,
        generator: np.random.Generator,
        min_samples: int = 1,
    ) -> np.ndarray:
        # Everything is drawn, in this order, whether it is used or not: to
        # switch one part on leaves the others as they were.
        speed = self.speeds[generator.integers(len(self.speeds))]
        is_noisy = generator.random() < self.noise_probability
        which, where = generator.random(2)
        snr = generator.uniform(*self.noise_snr)
        gain = generator.uniform(*self.gain)

        samples = self.change_speed(samples, sampling_rate, speed, min_samples)
        if self._noises and is_noisy:
            path = self._noises[int(which * len(self._noises))]
            noise = self._load(path, sampling_rate)
            start = int(where * len(noise))
            # Tiled from a random start, cut to the utterance.
            places = np.arange(start, start + len(samples))
            samples = _mix(samples, noise.take(places, mode="wrap"), snr)
        if gain:
            samples = samples * np.float32(10 ** (gain / 20))
        return samples

    def change_speed(
        self,
        samples: np.ndarray,
        sampling_rate: int,
        speed: float,
        min_samples: int = 1,
    ) -> np.ndarray:
        """Resamples so that the recording is heard at another speed.

        Args:
            samples: Float32 array of shape `(num_samples,)`.
            sampling_rate: Integer, Hz.
            speed: Float; above 1 is faster and shorter.
            min_samples: Integer. Where the result would be shorter, the
                samples stay as they are. Defaults to `1`.

        Returns:
            Float32 array of shape `(num_samples / speed,)`.
        """
        if speed == 1:
            return samples
        changed = soxr.resample(samples, sampling_rate * speed, sampling_rate)
        return changed if len(changed) >= min_samples else samples

    def get_config(self) -> dict[str, Any]:
        """Describes it in plain JSON, wherever the folder of noise stands.

        `noise_digest` is the SHA-256 of the names and sizes of its files.
        """
        return {
            "speeds": list(self.speeds),
            "noise_files": len(self._noises),
            "noise_digest": self._noise_digest,
            "noise_snr": list(self.noise_snr),
            "noise_probability": self.noise_probability,
            "gain": list(self.gain),
        }


def _range(name: str, limits: tuple[float, float]) -> tuple[float, float]:
    try:
        low, high = (float(limit) for limit in limits)
    except (TypeError, ValueError):
        low = high = math.nan
    # NaN is in no range.
    if not -_MAX_DECIBELS <= low <= high <= _MAX_DECIBELS:
        raise ValueError(
            f"`{name}` must be the lowest and the highest value in dB, from "
            f"{-_MAX_DECIBELS:.0f} to {_MAX_DECIBELS:.0f}. Received: "
            f"{name}={limits}"
        )
    return low, high


def _find(folder: str | os.PathLike[str]) -> list[str]:
    paths = [
        str(path)
        for path in sorted(Path(folder).rglob("*"))
        # macOS leaves files such as "._rain.wav".
        if path.suffix.lower() in _SUFFIXES and not path.name.startswith(".")
    ]
    if not paths:
        raise ValueError(
            f"`noise_folder` must hold audio files ({', '.join(_SUFFIXES)}). "
            f"Received: noise_folder='{folder}', which holds none or does "
            "not exist."
        )
    return paths


def _digest(folder: str | os.PathLike[str] | None, paths: Sequence[str]) -> str:
    """Returns SHA-256 of names within the folder and of sizes."""
    result = hashlib.sha256()
    for path in paths:
        line = f"{os.path.relpath(path, folder)}\0{os.path.getsize(path)}\n"
        # File names may hold bytes that are not UTF-8.
        result.update(line.encode(errors="surrogateescape"))
    return result.hexdigest()


def _load_noise(path: str, sampling_rate: int) -> np.ndarray:
    noise = load_audio(path, sampling_rate)
    if not np.any(noise):
        raise AudioError(
            path,
            "silent",
            "holds only zeros and cannot serve as noise. Take it out of the "
            "folder.",
        )
    return noise


def _mix(speech: np.ndarray, noise: np.ndarray, snr: float) -> np.ndarray:
    powers = [np.mean(np.square(x, dtype="float64")) for x in (speech, noise)]
    if not all(powers):
        return speech
    factor = math.sqrt(powers[0] / powers[1] / 10 ** (snr / 10))
    return speech + np.float32(factor) * noise
