"""Batches of utterances in, samples out; bad files are met here."""

import hashlib
import itertools
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
from keras_ds2.data.report import Report


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
        num_replicas: Integer. Devices that share a batch.

    Attributes:
        left_out: Dictionary from `Utterance` to `Rejected`, of the bad files
            and of good rows that `usable` had no share for.

    Raises:
        ValueError: If the report cannot be written.
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
        num_replicas: int,
    ) -> None:
        self.batches = batches
        self.sampling_rate = sampling_rate
        self.seed = seed
        self.min_samples = round(min_duration * sampling_rate)
        self.augmentation = augmentation
        self.on_bad_audio = on_bad_audio
        self.num_replicas = num_replicas
        self._report = None if report is None else Report(report)
        self.left_out: dict[Utterance, Rejected] = {}
        self._bad: set[Utterance] = set()
        # A list may hold an utterance twice, which can be bad only once.
        self._num_utterances = len({row for batch in batches for row in batch})
        self._lock = threading.Lock()

    def usable(self, index: int) -> list[Recording]:
        """Reads what is good of a batch, unaltered; perhaps nothing.

        What is good is cut to a multiple of `num_replicas`: replicas without
        equal shares end an evaluation, or weigh its rows wrong.
        """
        found = [self._read(row) for row in self.batches[index]]
        good = [recording for recording in found if recording]
        count = len(good) - len(good) % self.num_replicas
        for recording in good[count:]:
            self._note_no_share(recording.utterance)
        return good[:count]

    def full(
        self, index: int, pass_index: int, speed: float | None = None
    ) -> list[Recording]:
        """Reads a batch for training, with as many rows as it has on paper.

        The place of a bad file is taken by the next good row of the batch,
        cyclically; that of a whole bad batch by the rows of the nearest one
        before it, which are shorter and keep the budget. Only where none
        before has a good row, it is the nearest after it. So every replica
        keeps its share, and a step its place.

        Args:
            index: Integer. Number of the batch.
            pass_index: Integer. Decides, with the seed, the augmentation.
            speed: Float. For all rows, in place of the augmentation.
                Defaults to `None`.

        Raises:
            CorpusError: If no batch has a good row.
        """
        size = len(self.batches[index])
        before = range(index, -1, -1)
        after = range(index + 1, len(self.batches))
        for other in itertools.chain(before, after):
            batch = self.batches[other]
            found = [self._read(row) for row in batch]
            good = {
                place: self._augment(recording, pass_index, speed)
                for place, recording in enumerate(found)
                if recording
            }
            if good:
                return [
                    good[min(good, key=lambda i: (i - place) % len(batch))]
                    for place in range(size)
                ]
        raise self._nothing_left()

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
            if utterance not in self._bad:
                self._bad.add(utterance)
                self.left_out[utterance] = rejected
                if self._report is not None:
                    self._report.add(rejected)
                if self.on_bad_audio == "skip":
                    print(f"\nLeft out: {rejected.detail}", file=sys.stderr)
            if (
                self.on_bad_audio == "skip"
                and len(self._bad) == self._num_utterances
            ):
                raise self._nothing_left()

    def _note_no_share(self, utterance: Utterance) -> None:
        """Tells once that a good row was left out of a single pass."""
        detail = (
            f"Audio file '{utterance.audio}' is good, but what is left of its "
            f"batch is no multiple of {self.num_replicas} replicas; only "
            "`one_pass` is without it."
        )
        with self._lock:
            if utterance not in self.left_out:
                rejected = Rejected(utterance, "no_share", detail)
                self.left_out[utterance] = rejected
                print(f"\nLeft out: {detail}", file=sys.stderr)

    def _nothing_left(self) -> CorpusError:
        bad = [x for row, x in self.left_out.items() if row in self._bad]
        return CorpusError(
            f"Every file of the data set failed. {describe_rejected(bad)}"
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
    # With the folder's name, for there are corpora whose every recording is
    # called "audio.wav"; without what is above it, so that they can be moved.
    folder, name = os.path.split(os.path.abspath(utterance.audio))
    words = (os.path.basename(folder), name, utterance.text)
    text = "\0".join(words).encode(errors="surrogateescape")
    return int.from_bytes(hashlib.sha256(text).digest()[:8], "big")
