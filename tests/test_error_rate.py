"""Oracles: cases counted by hand, jiwer, and keras_nlp's EditDistance."""

import jiwer
import keras
import keras_nlp
import numpy as np
import pytest
import tensorflow as tf

from keras_ds2 import CharacterErrorRate, WordErrorRate

# Reference, hypothesis, edits and units: words, then characters.
CASES = [
    ("hello", "hello", (0, 1), (0, 5)),
    ("hello world", "hello word", (1, 2), (1, 11)),
    ("hello world", "world hello", (2, 2), (8, 11)),
    ("a b c", "a c", (1, 3), (2, 5)),
    ("a c", "a b c", (1, 2), (2, 3)),
    ("kitten", "sitting", (1, 1), (3, 6)),
    ("a", "", (1, 1), (1, 1)),
    ("", "", (0, 0), (0, 0)),
    ("", "a b", (2, 0), (3, 0)),
    ("i", "you and me", (3, 1), (10, 1)),
    ("der bär", "der bar", (1, 2), (1, 7)),
]


@pytest.mark.parametrize(
    ("metric", "column"), [(WordErrorRate, 2), (CharacterErrorRate, 3)]
)
@pytest.mark.parametrize("case", CASES)
def test_counted_by_hand(metric, column, case):
    edits, units = case[column]
    metric = metric()
    metric.update_state([case[0]], [case[1]])
    assert float(metric.edits) == edits
    assert float(metric.units) == units
    # Without a single unit to divide by, the edits themselves.
    assert float(metric.result()) == pytest.approx(edits / max(units, 1))


@pytest.mark.parametrize("metric", [WordErrorRate, CharacterErrorRate])
def test_edits_are_summed_before_dividing(metric):
    together, apart = metric(), metric()
    references, hypotheses, *_ = zip(*CASES, strict=True)
    together.update_state(tf.constant(references), tf.constant(hypotheses))
    for reference, hypothesis in zip(references, hypotheses, strict=True):
        apart.update_state([reference], [hypothesis])
    column = 2 if metric is WordErrorRate else 3
    edits, units = np.sum([case[column] for case in CASES], axis=0)
    assert float(together.result()) == pytest.approx(edits / units)
    assert float(apart.result()) == pytest.approx(edits / units)


def sentences(seed, count=12):
    generator = np.random.default_rng(seed)
    words = ["a", "ab", "bad", "cab", "it's", "dab"]
    return [
        " ".join(generator.choice(words, generator.integers(1, 9)))
        for _ in range(count)
    ]


@pytest.mark.parametrize(
    ("metric", "oracle"),
    [(WordErrorRate, jiwer.wer), (CharacterErrorRate, jiwer.cer)],
)
def test_equals_jiwer_over_batches(metric, oracle):
    metric = metric()
    references, hypotheses = [], []
    for seed in range(5):
        batch = sentences(seed), sentences(100 + seed)
        metric.update_state(*map(tf.constant, batch))
        references += batch[0]
        hypotheses += batch[1]
        expected = oracle(references, hypotheses)
        assert float(metric.result()) == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize(
    ("metric", "split"),
    [(WordErrorRate, str.split), (CharacterErrorRate, list)],
)
def test_equals_keras_nlp(metric, split):
    metric = metric()
    # A mean of ratios of one batch is a corpus rate if it holds one sentence.
    for reference, hypothesis in zip(
        sentences(0, 5), sentences(1, 5), strict=True
    ):
        oracle = keras_nlp.metrics.EditDistance(normalize=False)
        oracle.update_state([split(reference)], [split(hypothesis)])
        metric.reset_state()
        metric.update_state([reference], [hypothesis])
        assert float(metric.edits) == float(oracle.result())
        assert float(metric.units) == len(split(reference))


@pytest.mark.parametrize("metric", [WordErrorRate, CharacterErrorRate])
def test_in_a_graph(metric):
    eager, compiled = metric(), metric()
    signature = [tf.TensorSpec((None,), tf.string)] * 2
    update = tf.function(compiled.update_state, input_signature=signature)
    for seed in range(3):
        batch = sentences(seed, 3 + seed), sentences(9 + seed, 3 + seed)
        update(*map(tf.constant, batch))
        eager.update_state(*map(tf.constant, batch))
    assert float(eager.result()) > 0
    assert float(compiled.result()) == float(eager.result())


@pytest.mark.parametrize("metric", [WordErrorRate, CharacterErrorRate])
def test_reset(metric):
    metric = metric()
    assert float(metric.result()) == 0
    metric.update_state(["a b"], ["c"])
    assert float(metric.result()) > 0
    metric.reset_state()
    assert float(metric.result()) == 0
    metric.update_state(["a b"], ["a b"])
    assert float(metric.result()) == 0


@pytest.mark.parametrize("metric", [WordErrorRate, CharacterErrorRate])
def test_config(metric):
    config = keras.saving.serialize_keras_object(metric(name="rate"))
    revived = keras.saving.deserialize_keras_object(config)
    assert type(revived) is metric
    assert revived.name == "rate"
