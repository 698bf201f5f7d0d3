"""Utterances in, batches of similar length out: composed once, never read."""

import functools
import hashlib
import math
import os
from collections.abc import Sequence

import numpy as np

from keras_ds2.data.checks import Rejected, refuse
from keras_ds2.data.corpus import Utterance
from keras_ds2.lengths import output_length
from keras_ds2.text import unknown_characters


def num_frames(
    duration: np.ndarray, sampling_rate: int, slowest_speed: float = 1.0
) -> np.ndarray:
    """Counts frames of 25 ms each 10 ms, the unit of a batch's budget.

    The formula is that of `LogMelSpectrogram` with its defaults.

    Args:
        duration: Float or float array, seconds.
        sampling_rate: Integer, Hz.
        slowest_speed: Float. Speed perturbation makes an utterance longer by
            its inverse. Defaults to `1.0`.

    Returns:
        Integer or integer array of the same shape.
    """
    num_samples = np.rint(np.asarray(duration) * sampling_rate)
    num_samples = np.ceil(num_samples / slowest_speed).astype(np.int64)
    return output_length(
        num_samples, window=sampling_rate // 40, stride=sampling_rate // 100
    )


def find_over_budget(
    utterances: Sequence[Utterance],
    sampling_rate: int,
    max_frames_per_batch: int | None,
    num_replicas: int = 1,
    slowest_speed: float = 1.0,
) -> list[Rejected]:
    """Finds utterances too long for a batch that holds nothing else.

    Args:
        utterances: Sequence of `Utterance` with durations.
        sampling_rate: Integer, Hz.
        max_frames_per_batch: Integer or `None`: no limit.
        num_replicas: Integer. Every batch has at least so many utterances.
            Defaults to `1`.
        slowest_speed: Float, of speed perturbation. Defaults to `1.0`.

    Returns:
        List of `Rejected` with the reason `"too_long"`.
    """
    if max_frames_per_batch is None:
        return []
    frames = num_frames(
        np.array([row.duration for row in utterances]),
        sampling_rate,
        slowest_speed,
    )
    over = np.flatnonzero(frames * num_replicas > max_frames_per_batch)
    devices = f" on {num_replicas} replicas" if num_replicas > 1 else ""
    slowed = f" at speed {slowest_speed}" if slowest_speed < 1 else ""
    return [
        Rejected(
            utterances[i],
            "too_long",
            f"Lasts {utterances[i].duration:.3f} s, {frames[i]:,} frames of "
            f"10 ms{slowed}, more than max_frames_per_batch="
            f"{max_frames_per_batch} has room for{devices}. Split it or "
            f"raise `max_frames_per_batch` to {frames[i] * num_replicas}.",
        )
        for i in over.tolist()
    ]


def compose_batches(
    utterances: Sequence[Utterance],
    sampling_rate: int,
    batch_size: int,
    max_frames_per_batch: int | None = None,
    num_replicas: int = 1,
    slowest_speed: float = 1.0,
) -> tuple[list[list[Utterance]], list[Utterance]]:
    """Composes batches of similar length, from the shortest to the longest.

    A batch is closed by whichever limit comes first: `batch_size`
    utterances, or `max_frames_per_batch` frames, which are its rows times
    its longest row. Its size is a multiple of `num_replicas`.

    Args:
        utterances: Sequence of `Utterance` with durations.
        sampling_rate: Integer, Hz.
        batch_size: Integer, a multiple of `num_replicas`.
        max_frames_per_batch: Integer or `None`. Defaults to `None`: no
            limit.
        num_replicas: Integer. Defaults to `1`.
        slowest_speed: Float, of speed perturbation. Defaults to `1.0`.

    Returns:
        The batches, and the at most `num_replicas - 1` utterances left over:
        the longest.

    Raises:
        CorpusError: If there are utterances that `find_over_budget` finds.
    """
    too_long = find_over_budget(
        utterances,
        sampling_rate,
        max_frames_per_batch,
        num_replicas,
        slowest_speed,
    )
    if too_long:
        refuse(too_long)
    # Equal durations by name, not by folder: the same corpus gives the same
    # batches on every file system and wherever it is moved.
    ordered = sorted(
        utterances,
        key=lambda row: (row.duration, _base_name(row.audio), row[:2]),
    )
    frames = num_frames(
        np.array([row.duration for row in ordered]),
        sampling_rate,
        slowest_speed,
    ).tolist()
    budget = math.inf if max_frames_per_batch is None else max_frames_per_batch
    count = len(ordered) - len(ordered) % num_replicas
    batches = []
    start = 0
    while start < count:
        end = start + num_replicas
        limit = min(start + batch_size, count)
        # The last row is the longest.
        while (
            end < limit
            and (end + num_replicas - start) * frames[end + num_replicas - 1]
            <= budget
        ):
            end += num_replicas
        batches.append(ordered[start:end])
        start = end
    return batches, ordered[count:]


def validate_counts(
    num_utterances: int, batch_size: int, num_replicas: int, seed: int
) -> None:
    """Refuses arguments of `SpeechDataset` that are out of range."""
    if not num_utterances or batch_size < 1:
        raise ValueError(
            "A data set needs utterances and a positive `batch_size`. "
            f"Received: {num_utterances} utterances, batch_size={batch_size}."
        )
    if num_replicas < 1 or batch_size % num_replicas:
        raise ValueError(
            "`batch_size` must be a multiple of `num_replicas`, so that each "
            f"replica has an equal share. Received: batch_size={batch_size}, "
            f"num_replicas={num_replicas}"
        )
    if num_utterances < num_replicas:
        raise ValueError(
            "A data set needs an utterance for each replica. Received: "
            f"{num_utterances} utterances, num_replicas={num_replicas}"
        )
    if seed < 0:
        raise ValueError(f"`seed` must not be negative. Received: seed={seed}")


def validate_rows(
    utterances: Sequence[Utterance], alphabet: str, min_duration: float
) -> None:
    """Refuses what no model can use, where `check_utterances` was not asked.

    Args:
        utterances: Sequence of `Utterance`.
        alphabet: String.
        min_duration: Float, seconds.

    Raises:
        ValueError: Naming the first utterance that is faulty.
    """
    for row in utterances:
        name = row.source or row.audio
        if not 0 < row.duration < math.inf:
            raise ValueError(
                f"Utterance {name} has no duration. Pass the list through "
                "`keras_ds2.data.add_durations` first."
            )
        if row.duration < min_duration:
            raise ValueError(
                f"Utterance {name} lasts {row.duration:.3f} s, less than "
                f"min_duration={min_duration} s. Leave it out."
            )
        if unknown := unknown_characters(row.text, alphabet):
            raise ValueError(
                f"Utterance {name} has characters outside the alphabet: "
                f"{unknown!r}. Pass the list through "
                "`keras_ds2.data.check_utterances` first."
            )


@functools.lru_cache(maxsize=8)
def shuffled(seed: int, pass_index: int, num_batches: int) -> np.ndarray:
    """Returns the order of batches in a pass; a pure function."""
    order = np.random.default_rng((seed, pass_index)).permutation(num_batches)
    order.setflags(write=False)  # It is shared by all who ask.
    return order


def digest(batches: Sequence[Sequence[Utterance]]) -> str:
    """Returns SHA-256 of file names (without folders), texts and durations."""
    result = hashlib.sha256()
    for batch in batches:
        for row in batch:
            line = f"{_base_name(row.audio)}\0{row.text}\0{row.duration!r}\n"
            # File names may hold bytes that are not UTF-8.
            result.update(line.encode(errors="surrogateescape"))
    return result.hexdigest()


def _base_name(path: str) -> str:
    # `os.path.basename` takes three times as long, for every row of a corpus.
    return path.rpartition(os.sep)[2]
