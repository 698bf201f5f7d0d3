"""A corpus on disk and a model in, batches that fit the model out."""

import os
import sys
from collections.abc import Iterator, Sequence

from keras_ds2.data.checks import check_utterances, describe_rejected
from keras_ds2.data.corpus import (
    CorpusError,
    Utterance,
    read_librispeech,
    read_manifest,
)
from keras_ds2.data.dataset import SpeechDataset
from keras_ds2.data.durations import add_durations

_MANIFESTS = (".jsonl", ".json")


def prepare_dataset(
    root: str | os.PathLike[str],
    names: Sequence[str],
    model,
    batch_size: int,
    seed: int = 0,
    max_duration: float | None = None,
    on_invalid: str = "error",
) -> SpeechDataset:
    """Reads, checks and batches speech for a model.

    Every fault that can be known before training is found here: folders,
    transcripts, file headers, characters that the model lacks, transcripts
    that are too long for their recordings. What was found is told on standard
    error.

    Args:
        root: Folder that holds the subsets or manifests.
        names: List of subsets of LibriSpeech and of manifests, which end in
            `.jsonl` or `.json`.
        model: A `DeepSpeech2`; gives alphabet,
            sampling rate and frame counts.
        batch_size: Integer. Utterances in a batch.
        seed: Integer, for the order of batches. Defaults to `0`.
        max_duration: Float, seconds. Longer utterances are invalid. Defaults
            to `None`, for no limit.
        on_invalid: `"error"`, or `"skip"` to leave out what cannot be used.
            Defaults to `"error"`.

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
    rows, unreadable = add_durations(_read(root, names), on_invalid)
    rows, unusable = check_utterances(
        rows,
        model.logit_length,
        model.alphabet,
        model.sampling_rate,
        min_duration=model.sequence_length / model.sampling_rate,
        max_duration=max_duration,
        on_invalid=on_invalid,
    )
    if unreadable or unusable:
        print(describe_rejected(unreadable + unusable), file=sys.stderr)
    if not rows:
        raise CorpusError(
            f"No utterance of {', '.join(names)} in '{root}' can be used."
        )
    dataset = SpeechDataset(
        rows, batch_size, model.sampling_rate, model.alphabet, seed
    )
    print(
        f"{', '.join(names)}: {len(rows):,} utterances, "
        f"{dataset.duration / 3600:.2f} h, {len(dataset):,} batches, "
        f"{dataset.padding_efficiency:.0%} speech",
        file=sys.stderr,
    )
    return dataset


def _read(
    root: str | os.PathLike[str], names: Sequence[str]
) -> Iterator[Utterance]:
    if isinstance(names, str) or len(set(names)) < len(names):
        raise CorpusError(
            "Subsets and manifests must be a list without repeats. Received: "
            f"{names!r}"
        )
    subsets = [name for name in names if not name.endswith(_MANIFESTS)]
    if subsets:
        yield from read_librispeech(root, subsets)
    for name in names:
        if name.endswith(_MANIFESTS):
            yield from read_manifest(os.path.join(root, name))
