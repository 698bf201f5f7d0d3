"""A corpus on disk and a model in, batches that fit the model out."""

import os
import sys
from collections.abc import Callable, Iterator, Sequence

from keras_ds2.data.an4 import read_an4
from keras_ds2.data.augment import Augmentation
from keras_ds2.data.checks import (
    check_utterances,
    describe_rejected,
    refuse,
)
from keras_ds2.data.composition import find_over_budget
from keras_ds2.data.corpus import CorpusError, Utterance
from keras_ds2.data.dataset import SpeechDataset
from keras_ds2.data.durations import add_durations
from keras_ds2.data.librispeech import read_librispeech
from keras_ds2.data.manifest import read_manifest

_AN4 = {"an4_train": "train", "an4_test": "test"}
_MANIFESTS = (".jsonl", ".json")


def prepare_dataset(
    root: str | os.PathLike[str],
    names: Sequence[str],
    model,
    batch_size: int,
    seed: int = 0,
    max_duration: float | None = None,
    on_invalid: str = "error",
    max_frames_per_batch: int | None = None,
    num_replicas: int = 1,
    augmentation: Augmentation | None = None,
    on_bad_audio: str = "error",
    bad_audio_report: str | os.PathLike[str] | None = None,
    select: Callable[[Utterance], bool] | None = None,
    sorted_first_pass: bool = True,
) -> SpeechDataset:
    """Reads, checks and batches speech for a model.

    Every fault that can be known before training is found here: folders,
    transcripts, file headers, characters that the model lacks, transcripts
    that are too long for their recordings, utterances that exceed the budget
    of a batch. What was found is told on standard error.

    Args:
        root: Folder that holds the subsets or manifests, or AN4's `etc` and
            `wav`.
        names: List of subsets of LibriSpeech, of `"an4_train"` or
            `"an4_test"`, and of manifests, which end in `.jsonl` or `.json`.
        model: A `DeepSpeech2` or `DeepSpeech`; gives alphabet, sampling rate
            and frame counts.
        batch_size: Integer. Most utterances in a batch.
        seed: Integer, for the order of batches. Defaults to `0`.
        max_duration: Float, seconds. Longer utterances are invalid. Defaults
            to `None`, for no limit.
        on_invalid: `"error"`, or `"skip"` to leave out what cannot be used.
            Defaults to `"error"`.
        max_frames_per_batch: Integer. Most frames of 10 ms in a batch,
            padding included. Defaults to `None`: no limit.
        num_replicas: Integer. Devices that share a batch. Defaults to `1`.
        augmentation: `Augmentation`, for training. Defaults to `None`.
        on_bad_audio: `"error"`, or `"skip"` to go on without files that fail
            when they are decoded. Defaults to `"error"`.
        bad_audio_report: Path of a file that names them. Defaults to `None`.
            These last five are explained in `SpeechDataset`.
        select: Function of an `Utterance`; what it is false for is left out
            before anything is checked. Defaults to `None`: all are used.
        sorted_first_pass: Boolean. Whether the first pass goes from the
            shortest utterances to the longest, as in `SpeechDataset`. Defaults
            to `True`.

    Returns:
        `SpeechDataset`.

    Raises:
        CorpusError: If the corpus or an utterance is faulty.
        AudioError: If the header of a file cannot be read.

    Example:

    >>> import keras_ds2
    >>> model = keras_ds2.DeepSpeech2(num_rnn_layers=1, rnn_units=8)
    >>> dataset = keras_ds2.data.prepare_dataset(
    ...     "tests/data/LibriSpeech", ["train-clips"], model, batch_size=4
    ... )
    >>> len(dataset)
    2
    """
    rows, unreadable = add_durations(
        filter(select, _read(root, names)), on_invalid
    )
    min_duration = model.sequence_length / model.sampling_rate
    rows, unusable = check_utterances(
        rows,
        model.logit_length,
        model.alphabet,
        model.sampling_rate,
        min_duration=min_duration,
        max_duration=max_duration,
        on_invalid=on_invalid,
    )
    over_budget = find_over_budget(
        rows,
        model.sampling_rate,
        max_frames_per_batch,
        num_replicas,
        augmentation.slowest_speed if augmentation else 1.0,
    )
    if over_budget and on_invalid == "error":
        refuse(over_budget)
    too_long = {item.utterance for item in over_budget}
    rows = [row for row in rows if row not in too_long]
    if rejected := unreadable + unusable + over_budget:
        print(describe_rejected(rejected), file=sys.stderr)
    if not rows:
        raise CorpusError(
            f"No utterance of {', '.join(names)} in '{root}' can be used"
            + (" or is selected." if select else ".")
        )
    dataset = SpeechDataset(
        rows,
        batch_size,
        model.sampling_rate,
        model.alphabet,
        seed,
        max_frames_per_batch,
        num_replicas,
        augmentation,
        on_bad_audio,
        bad_audio_report,
        min_duration,
        sorted_first_pass,
    )
    print(f"{', '.join(names)}: {_summary(dataset)}", file=sys.stderr)
    return dataset


def _summary(dataset: SpeechDataset) -> str:
    count = sum(map(len, dataset.batches))
    text = (
        f"{count:,} utterances, {dataset.duration / 3600:.2f} h, "
        f"{len(dataset):,} batches, {dataset.padding_efficiency:.0%} speech"
    )
    if dataset.left_over:
        text += (
            f"; dropped {len(dataset.left_over)} utterance(s) left over, so "
            f"that {dataset.num_replicas} replicas have equal shares"
        )
    return text


def _read(
    root: str | os.PathLike[str], names: Sequence[str]
) -> Iterator[Utterance]:
    if isinstance(names, str) or len(set(names)) < len(names):
        raise CorpusError(
            "Subsets and manifests must be a list without repeats. Received: "
            f"{names!r}"
        )
    subsets = [
        name
        for name in names
        if name not in _AN4 and not name.endswith(_MANIFESTS)
    ]
    if subsets:  # together, for an id in two of them is an error
        yield from read_librispeech(root, subsets)
    for name in names:
        if name in _AN4:
            yield from read_an4(root, _AN4[name])
        elif name.endswith(_MANIFESTS):
            yield from read_manifest(os.path.join(root, name))
