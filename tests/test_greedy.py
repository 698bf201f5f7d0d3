"""Oracle: `itertools.groupby` over the best symbol of each frame."""

import itertools

import numpy as np
import pytest
import tensorflow as tf

from keras_ds2 import greedy_decode
from keras_ds2.decoding.greedy import greedy_hypotheses

NUM_FRAMES = np.array([30, 17, 1, 0])


def logits_of(symbols=4, seed=0):
    generator = np.random.default_rng(seed)
    return generator.normal(size=(4, 30, symbols)).astype("float32")


def collapse(logits, blank):
    best = logits.argmax(axis=-1).tolist()
    return [s for s, _ in itertools.groupby(best) if s != blank]


def as_lists(labels):
    """The rows, each without its padding of -1."""
    rows = np.array(labels).tolist()
    for row in rows:
        num_labels = sum(label >= 0 for label in row)
        assert row[num_labels:] == [-1] * (len(row) - num_labels)
    return [[label for label in row if label >= 0] for row in rows]


@pytest.mark.parametrize("blank", [0, 1, 3])
@pytest.mark.parametrize("seed", range(3))
def test_equals_groupby(blank, seed):
    logits = logits_of(seed=seed)
    labels = greedy_decode(logits, NUM_FRAMES, blank)
    assert labels.shape == (4, 30)
    assert labels.dtype == tf.int32
    assert as_lists(labels) == [
        collapse(row[:length], blank)
        for row, length in zip(logits, NUM_FRAMES, strict=True)
    ]


def test_blank_is_0_by_default():
    logits = logits_of()
    expected = greedy_decode(logits, NUM_FRAMES, 0)
    np.testing.assert_array_equal(greedy_decode(logits, NUM_FRAMES), expected)
    assert not np.any(np.array(expected) == 0)


def test_a_blank_separates_equal_labels():
    best = [[2, 2, 0, 2, 1, 1, 0, 0, 1]]
    logits = np.eye(3, dtype="float32")[best]
    assert as_lists(greedy_decode(logits, np.array([9]))) == [[2, 2, 1, 1]]


@pytest.mark.parametrize("garbage", [1e9, np.nan, np.inf])
def test_frames_beyond_the_end_do_not_count(garbage):
    logits = logits_of()
    expected = np.array(greedy_decode(logits, NUM_FRAMES))
    for row, length in zip(logits, NUM_FRAMES, strict=True):
        row[length:, 2] = garbage
    np.testing.assert_array_equal(greedy_decode(logits, NUM_FRAMES), expected)


def test_in_a_graph():
    logits = logits_of()
    decode = tf.function(
        greedy_decode,
        input_signature=[
            tf.TensorSpec((None, None, 4)),
            tf.TensorSpec((None,), tf.int32),
        ],
    )
    np.testing.assert_array_equal(
        decode(logits, NUM_FRAMES.astype("int32")),
        greedy_decode(logits, NUM_FRAMES),
    )


@pytest.mark.parametrize("blank", [0, 2, 3])
@pytest.mark.parametrize("seed", range(3))
def test_hypotheses_are_the_best_path_with_its_times(blank, seed):
    alphabet = "a b"
    logits = logits_of(seed=seed)
    lengths = [30, 17, 1, 0]
    characters = [*alphabet[:blank], "", *alphabet[blank:]]
    for row, length, hypothesis in zip(
        logits,
        lengths,
        greedy_hypotheses(logits, lengths, alphabet, 0.5, blank),
        strict=True,
    ):
        frames = row[:length].argmax(axis=1).tolist()
        probabilities = np.exp(row) / np.exp(row).sum(axis=1, keepdims=True)
        text, spans, position = "", [], 0
        for symbol, run in itertools.groupby(frames):
            end = position + len(list(run))
            text += characters[symbol]
            if characters[symbol].strip():
                best = probabilities[position:end, symbol].max()
                spans.append((position * 0.5, end * 0.5, best))
            position = end
        assert hypothesis.text == " ".join(text.split())
        assert [word.text for word in hypothesis.words] == text.split()
        assert [
            (c.start, c.end, c.confidence) for c in hypothesis.characters
        ] == [pytest.approx(span) for span in spans]
        score = np.log(probabilities[:length].max(axis=1)).sum()
        assert hypothesis.score == pytest.approx(score, abs=1e-5)
