"""Batches of utterances in, samples out; bad files are met here."""

import hashlib
import json
import os
import sys
import threading
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from keras_ds2.audio import (
    AudioError,
    audio_duration,
    load_audio,
    pad_samples,
)
from keras_ds2.data.augment import Augmentation
from keras_ds2.data.checks import Rejected, describe_rejected
from keras_ds2.data.corpus import CorpusError, Utterance


class Recording(NamedTuple):
    """An utterance and its samples, `(num_samples,)` float32."""

    utterance: Utterance
    samples: np.ndarray


class BatchReader:
    """Decodes batches, augments them, and deals with files that fail.

    Safe to call from several threads; what it returns depends on the batch,
    the pass and the files alone.

    Args:
        batches: List of lists of `Utterance`.
        sampling_rate: Integer, Hz.
        seed: Integer, of augmentation.
        min_duration: Float, seconds. Shorter recordings are bad, and no
            speed makes one shorter.
        augmentation: `Augmentation` or `None`.
        on_bad_audio: `"error"` or `"skip"`.
        report: Path of the JSON lines that name bad files, or `None`.
    """

    def __init__(
        self,
        batches: Sequence[Sequence[Utterance]],
        sampling_rate: int,
        seed: int,
        min_duration: float,
        augmentation: Augmentation | None,
        on_bad_audio: str,
        report: str | os.PathLike[str] | None,
    ) -> None:
        self.batches = batches
        self.sampling_rate = sampling_rate
        self.seed = seed
        self.min_samples = round(min_duration * sampling_rate)
        self.augmentation = augmentation
        self.on_bad_audio = on_bad_audio
        self.report = report
        if report is not None:
            os.makedirs(os.path.dirname(report) or ".", exist_ok=True)
        self.bad_audio: dict[Utterance, Rejected] = {}
        self._num_utterances = sum(map(len, batches))
        self._lock = threading.Lock()

    def usable(self, index: int) -> list[Recording]:
        """Reads what is good of a batch, unaltered; perhaps nothing."""
        found = [self._read(row) for row in self.batches[index]]
        return [recording for recording in found if recording]

    def full(
        self, index: int, pass_index: int, speed: float | None = None
    ) -> list[Recording]:
        """Reads a batch for training, with as many rows as it has on paper.

        The place of a bad file is taken by the next good row of the batch,
        cyclically; that of a whole bad batch by the rows of the next one. So
        every replica keeps its share, and a step its place.

        Args:
            index: Integer. Number of the batch.
            pass_index: Integer. Decides, with the seed, the augmentation.
            speed: Float. For all rows, in place of the augmentation.
                Defaults to `None`.
        """
        size = len(self.batches[index])
        for offset in range(len(self.batches)):
            batch = self.batches[(index + offset) % len(self.batches)]
            found = [self._read(row) for row in batch]
            good = {
                place: self._augment(recording, pass_index, speed)
                for place, recording in enumerate(found)
                if recording
            }
            if good:
                break
        return [
            good[min(good, key=lambda i: (i - place) % len(batch))]
            for place in range(size)
        ]

    def _read(self, utterance: Utterance) -> Recording | None:
        try:
            return Recording(utterance, self._decode(utterance))
        except AudioError as error:
            self._note(Rejected(utterance, error.reason, str(error)))
            if self.on_bad_audio == "skip":
                return None
            origin = (
                f" Its transcript stands at {utterance.source}."
                if utterance.source
                else ""
            )
            raise AudioError(
                error.path,
                error.reason,
                f"{error.detail}{origin} Or pass `on_bad_audio='skip'` to go "
                "on without such files.",
            ) from error

    def _decode(self, utterance: Utterance) -> np.ndarray:
        path, stated = utterance.audio, utterance.duration
        # Before decoding: what is stated decided about the batch's size, and
        # an hour in the place of a second could exhaust the memory.
        _check_duration(path, stated, audio_duration(path))
        samples = load_audio(path, self.sampling_rate)
        if len(samples) < self.min_samples:
            raise AudioError(
                path,
                "too_short",
                f"gives {len(samples)} samples at {self.sampling_rate} Hz, "
                f"less than a window of {self.min_samples}. Leave it out.",
            )
        return samples

    def _augment(
        self, recording: Recording, pass_index: int, speed: float | None
    ) -> Recording:
        if self.augmentation is None:
            return recording
        utterance, samples = recording
        if speed is not None:
            samples = self.augmentation.change_speed(
                samples, self.sampling_rate, speed, self.min_samples
            )
        else:
            # By the utterance, not by its place: neither the composition of
            # batches nor the order of threads changes what is drawn.
            key = (self.seed, _digest(utterance), pass_index)
            samples = self.augmentation(
                samples,
                self.sampling_rate,
                np.random.default_rng(key),
                self.min_samples,
            )
        return Recording(utterance, samples)

    def _note(self, rejected: Rejected) -> None:
        """Counts a bad file, tells it once, and ends where all are bad."""
        with self._lock:
            utterance = rejected.utterance
            if utterance not in self.bad_audio:
                self.bad_audio[utterance] = rejected
                if self.report is not None:
                    with open(self.report, "a", encoding="utf-8") as file:
                        print(_as_json(rejected), file=file)
                if self.on_bad_audio == "skip":
                    print(f"\nLeft out: {rejected.detail}", file=sys.stderr)
            if (
                self.on_bad_audio == "skip"
                and len(self.bad_audio) == self._num_utterances
            ):
                raise CorpusError(
                    "Every file of the data set failed. "
                    + describe_rejected(list(self.bad_audio.values()))
                )


def pad_recordings(
    recordings: Sequence[Recording],
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Returns padded samples, their lengths, and transcripts; even of none."""
    texts = [row.utterance.text.encode() for row in recordings]
    if not recordings:
        empty = np.zeros((0, 0), "float32"), np.zeros(0, "int32")
        return *empty, np.array([], dtype=object)
    inputs = pad_samples([row.samples for row in recordings])
    return inputs["audio"], inputs["audio_length"], np.array(texts, object)


def _check_duration(path: str, stated: float, actual: float) -> None:
    # Rounding to a tenth of a second is no lie.
    if abs(actual - stated) <= max(0.0501, 0.05 * stated):
        return
    raise AudioError(
        path,
        "wrong_duration",
        f"lasts {actual:.3f} s, but its duration is stated as {stated:.3f} s. "
        "Correct `duration` in the manifest or remove it there; if that is "
        "right, the file was cut off, damaged or changed: fetch it again.",
    )


def _digest(utterance: Utterance) -> int:
    name = os.path.basename(utterance.audio)
    text = f"{name}\0{utterance.text}".encode(errors="surrogateescape")
    return int.from_bytes(hashlib.sha256(text).digest()[:8], "big")


def _as_json(rejected: Rejected) -> str:
    return json.dumps(
        {
            "audio": rejected.utterance.audio,
            "source": rejected.utterance.source,
            "reason": rejected.reason,
            "detail": rejected.detail,
        }
    )
