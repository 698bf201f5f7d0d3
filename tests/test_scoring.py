"""Oracles: alignments by hand, jiwer's totals, Student's tables, and how often
intervals hold the truth in corpora that were drawn from one."""

import math
import statistics

import jiwer
import numpy as np
import pytest

from keras_ds2 import scoring
from keras_ds2.scoring import (
    Edits,
    align_characters,
    align_words,
    bootstrap_interval,
    count_edits,
    estimate,
)


def test_alignment_by_hand():
    empty, changed = align_words(
        ["", "see the sea now"], ["oh no", "the tea now then"]
    )
    assert empty == [("insert", "", "oh"), ("insert", "", "no")]
    assert changed == [
        ("delete", "see", ""),
        ("equal", "the", "the"),
        ("substitute", "sea", "tea"),
        ("equal", "now", "now"),
        ("insert", "", "then"),
    ]
    assert count_edits(empty) == Edits(0, 0, 2, units=0)
    assert count_edits(changed) == Edits(1, 1, 1, units=4)
    assert align_characters(["a b"], ["ab"]) == [
        [("equal", "a", "a"), ("delete", " ", ""), ("equal", "b", "b")]
    ]


@pytest.mark.parametrize(
    ("align", "process"),
    [
        (align_words, jiwer.process_words),
        (align_characters, jiwer.process_characters),
    ],
)
def test_counts_are_those_of_jiwer(align, process):
    rng = np.random.default_rng(1)
    texts = [
        " ".join(rng.choice(["a", "cab", "go"], size=rng.integers(1, 9)))
        for _ in range(40)
    ]
    references, hypotheses = texts[:20], texts[20:]
    expected = process(references, hypotheses)
    edits = [count_edits(pairs) for pairs in align(references, hypotheses)]
    total = estimate(edits, [""] * 20).edits
    assert total.substitutions == expected.substitutions
    assert total.deletions == expected.deletions
    assert total.insertions == expected.insertions
    rate = getattr(expected, "wer", None) or expected.cer
    assert total.rate == pytest.approx(rate)


def test_interval_of_two_items_by_hand():
    # Draws: both the first, both the second, one of each.
    low, high = bootstrap_interval(np.array([1, 6]), np.array([10, 20]))
    assert (low, high) == (pytest.approx(0.1), pytest.approx(0.3))


def test_interval_of_many_items_is_the_normal_one():
    rng = np.random.default_rng(2)
    edits = rng.binomial(20, 0.1, size=3000)
    low, high = bootstrap_interval(edits, np.full(3000, 20))
    rate = edits.mean() / 20
    half = 1.96 * edits.std() / 20 / math.sqrt(3000)
    assert low == pytest.approx(rate - half, abs=0.1 * half)
    assert high == pytest.approx(rate + half, abs=0.1 * half)


def test_interval_is_seeded_and_blocks_do_not_matter(monkeypatch):
    edits, units = np.arange(30) % 4, 9 + np.arange(30) % 7
    first = bootstrap_interval(edits, units)
    assert bootstrap_interval(edits, units) == first
    second = bootstrap_interval(edits, units, seed=1)
    assert second != first
    assert second == pytest.approx(first, rel=0.1)
    monkeypatch.setattr(scoring, "_BLOCK_SIZE", 700)
    assert bootstrap_interval(edits, units) == pytest.approx(first, rel=0.1)


@pytest.mark.parametrize(
    ("num_items", "student"), [(4, 3.182), (6, 2.571), (10, 2.262), (31, 2.042)]
)
def test_percentiles_are_moved_apart_as_students(num_items, student):
    normal = statistics.NormalDist()
    quantile = -normal.inv_cdf(scoring._expanded_tail(num_items))
    expected = student * math.sqrt(num_items / (num_items - 1))
    assert quantile == pytest.approx(expected, rel=0.01)


def test_coverage_of_corpora_drawn_from_one_truth():
    # Speakers differ in skill, so that their utterances are alike.
    rng = np.random.default_rng(3)
    truth, num_corpora, num_speakers = 0.1, 150, 12
    hits = {"speakers": 0, "utterances": 0}
    for _ in range(num_corpora):
        skill = rng.beta(4, 36, size=num_speakers)  # mean 0.1
        edits = rng.binomial(40, np.repeat(skill, 5))
        rows = [Edits(count, 0, 0, 40) for count in edits.tolist()]
        named = [str(number) for number in np.repeat(range(num_speakers), 5)]
        for kind, names in (("speakers", named), ("utterances", [""] * 60)):
            rate = estimate(rows, names)
            assert rate.resampled.endswith(kind)
            hits[kind] += rate.low <= truth <= rate.high
    # 0.95 and three deviations of 150 throws; utterances hide the speakers.
    assert 0.9 <= hits["speakers"] / num_corpora <= 1
    assert hits["utterances"] / num_corpora < 0.75


def test_what_is_drawn():
    rows = [Edits(1, 0, 0, 4), Edits(0, 0, 0, 4), Edits(0, 1, 0, 4)]
    assert estimate(rows, ["a", "b", "b"]).resampled == "2 speakers"
    assert estimate(rows, ["a", "", "b"]).resampled == "3 utterances"
    assert estimate(rows, ["a", "a", "a"]).resampled == "3 utterances"
    assert estimate(rows, ["", "", ""]).edits == Edits(1, 1, 0, 12)


@pytest.mark.parametrize(
    "rows",
    [
        [Edits(1, 0, 0, 4)],  # no second item
        [Edits(0, 0, 0, 4)] * 9,  # no errors
        [Edits(0, 0, 1, 0)] * 9,  # no words
    ],
)
def test_no_interval_where_none_can_be_known(rows):
    rate = estimate(rows, [""] * len(rows))
    assert math.isnan(rate.low) and math.isnan(rate.high)
