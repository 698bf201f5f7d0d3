"""Transcribed utterances in, errors by group and by kind out; no HTML."""

import collections
import math
from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

from keras_ds2.scoring import (
    Edits,
    ErrorRate,
    Pair,
    align_characters,
    align_words,
    count_edits,
    estimate,
)
from keras_ds2.training.evaluate import TranscribedUtterance

# Seconds; an utterance of exactly 2 s counts as 2 to 3 s.
_LENGTHS = (0, 1, 2, 3, 5, 10, 15, 20, 30)


class ScoredUtterance(NamedTuple):
    """An utterance with its alignments and the edits in them."""

    item: TranscribedUtterance
    words: list[Pair]
    characters: list[Pair]
    word_edits: Edits
    character_edits: Edits


class Group(NamedTuple):
    """Error rates of some of the utterances."""

    name: str
    num_utterances: int
    seconds: float
    words: ErrorRate
    characters: ErrorRate


class Confusion(NamedTuple):
    """One kind of edit, how often it was made and could have been made."""

    reference: str
    hypothesis: str
    times: int
    num_said: int


def score(utterances: Sequence[TranscribedUtterance]) -> list[ScoredUtterance]:
    """Aligns each utterance by words and by characters."""
    references = [item.reference for item in utterances]
    hypotheses = [item.hypothesis for item in utterances]
    return [
        ScoredUtterance(
            item, words, characters, count_edits(words), count_edits(characters)
        )
        for item, words, characters in zip(
            utterances,
            align_words(references, hypotheses),
            align_characters(references, hypotheses),
            strict=True,
        )
    ]


def summarize(name: str, scored: Sequence[ScoredUtterance]) -> Group:
    """Sums up utterances, at least one."""
    speakers = [_speaker(one.item) for one in scored]
    return Group(
        name,
        len(scored),
        math.fsum(one.item.duration for one in scored),
        estimate([one.word_edits for one in scored], speakers),
        estimate([one.character_edits for one in scored], speakers),
    )


def by_corpus(scored: Iterable[ScoredUtterance]) -> list[Group]:
    """Groups by corpus, in the order of their names."""
    return _group(scored, lambda item: item.corpus or "unknown")


def by_speaker(scored: Iterable[ScoredUtterance]) -> list[Group]:
    """Groups by speaker, the one with most errors per word first."""
    groups = _group(scored, lambda item: _speaker(item) or "unknown")
    # Speakers without a word have no rate, and come last.
    return sorted(
        groups,
        key=lambda group: (
            -group.words.edits.rate if group.words.edits.units else math.inf
        ),
    )


def by_length(scored: Iterable[ScoredUtterance]) -> list[Group]:
    """Groups by duration, from short to long."""
    scored = list(scored)
    groups = []
    for low, high in zip(_LENGTHS, (*_LENGTHS[1:], math.inf), strict=True):
        members = [one for one in scored if low <= one.item.duration < high]
        name = f"{low} to {high} s" if high < math.inf else f"{low} s and more"
        if members:
            groups.append(summarize(name, members))
    unknown = [one for one in scored if math.isnan(one.item.duration)]
    return groups + ([summarize("unknown", unknown)] if unknown else [])


def confusions(
    alignments: Iterable[list[Pair]], kind: str, num_most: int
) -> tuple[list[Confusion], int]:
    """Counts edits of one kind over a corpus.

    Args:
        alignments: A list of `Pair`s for each utterance.
        kind: `"substitute"`, `"delete"` or `"insert"`.
        num_most: How many to return.

    Returns:
        The most frequent ones, and how many different ones there are.
    """
    pairs = [pair for utterance in alignments for pair in utterance]
    said = collections.Counter(pair.reference for pair in pairs)
    counts = collections.Counter(pair for pair in pairs if pair.kind == kind)
    # By name where as frequent, so that the order of a corpus is no matter.
    most = sorted(counts.items(), key=lambda entry: (-entry[1], entry[0]))
    return [
        Confusion(pair.reference, pair.hypothesis, count, said[pair.reference])
        for pair, count in most[:num_most]
    ], len(most)


def _speaker(item: TranscribedUtterance) -> str:
    # Two corpora may use one name for two people, unless it names the corpus.
    if not item.speaker or item.speaker.startswith(item.corpus):
        return item.speaker
    return f"{item.corpus}: {item.speaker}"


def _group(
    scored: Iterable[ScoredUtterance],
    name_of: Callable[[TranscribedUtterance], str],
) -> list[Group]:
    members = collections.defaultdict(list)
    for one in scored:
        members[name_of(one.item)].append(one)
    return [summarize(name, members[name]) for name in sorted(members)]
