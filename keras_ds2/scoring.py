"""References and hypotheses in, aligned units, edits and intervals out."""

import math
import statistics
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np

_NUM_RESAMPLES = 2000
_BLOCK_SIZE = 1_000_000  # Draws at a time, so that memory stays small.


class Pair(NamedTuple):
    """One step of an alignment; the side that has no unit is empty.

    Args:
        kind: `"equal"`, `"substitute"`, `"delete"` or `"insert"`.
        reference: The word or character that was said.
        hypothesis: The word or character that was heard.
    """

    kind: str
    reference: str
    hypothesis: str


def align_words(
    references: Sequence[str], hypotheses: Sequence[str]
) -> list[list[Pair]]:
    """Aligns the words of each hypothesis with its reference, by jiwer.

    Args:
        references: What was said, one text for each utterance.
        hypotheses: What was heard, in the same order.

    Returns:
        A list of `Pair`s for each utterance, with as few edits as possible.

    Example:

    >>> from keras_ds2.scoring import align_words
    >>> [pairs] = align_words(["go on then"], ["no on"])
    >>> [(pair.kind, pair.reference) for pair in pairs]
    [('substitute', 'go'), ('equal', 'on'), ('delete', 'then')]
    """
    # Here and below, for it takes a while to import.
    import jiwer

    return _pairs(jiwer.process_words(list(references), list(hypotheses)))


def align_characters(
    references: Sequence[str], hypotheses: Sequence[str]
) -> list[list[Pair]]:
    """As `align_words`, for characters, spaces included.

    Example:

    >>> from keras_ds2.scoring import align_characters
    >>> [pairs] = align_characters(["cab"], ["cabs"])
    >>> [pair.kind for pair in pairs]
    ['equal', 'equal', 'equal', 'insert']
    """
    import jiwer

    return _pairs(jiwer.process_characters(list(references), list(hypotheses)))


def _pairs(output) -> list[list[Pair]]:
    utterances = []
    for chunks, reference, hypothesis in zip(
        output.alignments, output.references, output.hypotheses, strict=True
    ):
        pairs = []
        for chunk in chunks:
            said = reference[chunk.ref_start_idx : chunk.ref_end_idx]
            heard = hypothesis[chunk.hyp_start_idx : chunk.hyp_end_idx]
            # Both are as long as each other, or one is empty.
            num_pairs = max(len(said), len(heard))
            said = said or [""] * num_pairs
            heard = heard or [""] * num_pairs
            pairs += [
                Pair(chunk.type, *units)
                for units in zip(said, heard, strict=True)
            ]
        utterances.append(pairs)
    return utterances


class Edits(NamedTuple):
    """What turns references into hypotheses, and how long the references are.

    Example:

    >>> from keras_ds2.scoring import Edits
    >>> Edits(substitutions=1, deletions=0, insertions=1, units=8).rate
    0.25
    """

    substitutions: int
    deletions: int
    insertions: int
    units: int

    @property
    def total(self) -> int:
        """All edits together."""
        return self.substitutions + self.deletions + self.insertions

    @property
    def rate(self) -> float:
        """Edits per unit of the references; NaN if there is none."""
        return self.total / self.units if self.units else math.nan


def count_edits(pairs: Iterable[Pair]) -> Edits:
    """Counts the edits of one alignment.

    Example:

    >>> from keras_ds2.scoring import align_words, count_edits
    >>> count_edits(align_words(["a cab"], ["a cab up"])[0])
    Edits(substitutions=0, deletions=0, insertions=1, units=2)
    """
    kinds = [pair.kind for pair in pairs]
    return Edits(
        kinds.count("substitute"),
        kinds.count("delete"),
        kinds.count("insert"),
        len(kinds) - kinds.count("insert"),
    )


class ErrorRate(NamedTuple):
    """An error rate and how sure of it one can be.

    Args:
        edits: `Edits` of all utterances.
        low: Lower end of the 95 % interval, or NaN.
        high: Upper end.
        resampled: What was drawn to find it, such as `"8 speakers"`.
    """

    edits: Edits
    low: float
    high: float
    resampled: str


def estimate(edits: Sequence[Edits], speakers: Sequence[str]) -> ErrorRate:
    """Sums up utterances, and finds how far chance may have moved the rate.

    Utterances of one speaker resemble each other, so whole speakers are drawn
    where each utterance names its speaker and there are two at least. Where
    they do not, utterances are drawn, and the interval holds for these
    speakers only.

    Args:
        edits: `Edits` of each utterance, at least one.
        speakers: The speaker of each, empty if unknown.

    Returns:
        `ErrorRate`. Its ends are NaN where only one utterance could be drawn,
        or where there are no errors: other draws of none show none.

    Example:

    >>> from keras_ds2.scoring import Edits, estimate
    >>> rate = estimate(
    ...     [Edits(0, 0, 0, 9), Edits(1, 0, 0, 5), Edits(2, 1, 0, 6)],
    ...     ["ann", "ann", "bob"],
    ... )
    >>> rate.edits.rate, rate.resampled
    (0.2, '2 speakers')
    """
    counts = np.array([(item.total, item.units) for item in edits])
    names = set(speakers)
    kind = "speakers" if "" not in names and len(names) > 1 else "utterances"
    if kind == "speakers":
        _, members = np.unique(list(speakers), return_inverse=True)
        by_speaker = np.zeros((len(names), 2), counts.dtype)
        np.add.at(by_speaker, members, counts)
        counts = by_speaker
    low, high = bootstrap_interval(counts[:, 0], counts[:, 1])
    total = Edits(*np.sum(edits, axis=0).tolist())
    return ErrorRate(total, low, high, f"{len(counts)} {kind}")


def bootstrap_interval(
    edits: np.ndarray, units: np.ndarray, seed: int = 0
) -> tuple[float, float]:
    """Finds a 95 % interval of `edits / units` by drawing items anew.

    The ends are percentiles of the rates of 2000 corpora, each of as many
    items as there are, drawn with replacement. Of few items such percentiles
    lie too close together; they are moved apart so that for symmetric data
    the interval is that of Student's t.

    Args:
        edits: Integer array of shape `(items,)`.
        units: Integer array of shape `(items,)`.
        seed: Integer, of the draws. Defaults to `0`.

    Returns:
        Lower and upper end, NaN where there are no errors or no second item.

    Reference:
        Efron, 1979, for the bootstrap; Hesterberg, 2014 (arXiv:1411.5279),
        for the expanded percentiles; Bisani and Ney, 2004, for error rates.

    Example:

    >>> import numpy as np
    >>> from keras_ds2.scoring import bootstrap_interval
    >>> edits = np.array([0, 1, 2, 0, 1, 1, 0, 3, 0, 1])
    >>> low, high = bootstrap_interval(edits, np.full(10, 10))
    >>> bool(low < 0.09 < high)
    True
    """
    num_items = len(edits)
    if num_items < 2 or not np.any(edits):
        return math.nan, math.nan
    rng = np.random.default_rng(seed)
    totals = np.stack([edits, units])
    sums = []
    block = max(1, _BLOCK_SIZE // num_items)
    for start in range(0, _NUM_RESAMPLES, block):
        num_draws = min(block, _NUM_RESAMPLES - start)
        drawn = rng.integers(num_items, size=(num_draws, num_items))
        sums.append(totals[:, drawn].sum(axis=2))
    drawn_edits, drawn_units = np.concatenate(sums, axis=1)
    # Corpora of empty references only have no rate.
    rated = drawn_units > 0
    if not np.any(rated):
        return math.nan, math.nan
    tail = _expanded_tail(num_items)
    low, high = np.quantile(
        drawn_edits[rated] / drawn_units[rated], [tail, 1 - tail]
    )
    return float(low), float(high)


def _expanded_tail(num_items: int) -> float:
    """Share of draws beyond each end, 0.025 for infinitely many items."""
    normal = statistics.NormalDist()
    z = normal.inv_cdf(0.975)
    n = num_items - 1
    # Student's quantile after Cornish and Fisher; exact to 3 % from 2 on.
    student = (
        z
        + (z**3 + z) / (4 * n)
        + (5 * z**5 + 16 * z**3 + 3 * z) / (96 * n**2)
        + (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / (384 * n**3)
    )
    return normal.cdf(-student * math.sqrt(num_items / n))
