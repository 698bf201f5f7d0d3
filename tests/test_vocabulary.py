"""Oracles: the logits of the old model, column by column and bit by bit, on
real clips; the mean of columns, by hand."""

import math

import keras
import numpy as np
import pytest
from models import padded

import keras_ds2

AN4 = "tests/data/an4"
SMALL = dict(
    conv_filters=(4, 4),
    num_rnn_layers=2,
    rnn_units=8,
    dense_units=8,
    dropout=0.0,
)


@pytest.fixture(scope="module")
def an4():
    return keras_ds2.load_pretrained("an4")


@pytest.fixture(scope="module")
def rows():
    return list(keras_ds2.data.read_an4(AN4))[:3]


@pytest.fixture(scope="module")
def batch(rows):
    return padded([keras_ds2.load_audio(row.audio) for row in rows])


@pytest.fixture(scope="module")
def old_logits(an4, batch):
    return an4(batch)["logits"].numpy()


def test_what_is_heard_stays_what_is_spelled_may_change(batch):
    keras.utils.set_random_seed(1)
    old = keras_ds2.DeepSpeech2(
        **SMALL, num_spelling_layers=1, spelling_units=8
    )
    new = old.with_vocabulary("é" + old.alphabet[::-1])
    assert new.heard_alphabet == old.alphabet
    logits = old(batch)["logits"].numpy()
    assert_shared_logits_are_equal(old, new, logits, batch)
    again = new.with_vocabulary(new.alphabet + "ß")
    assert again.heard_alphabet == old.alphabet
    # Where there is no second network, nothing is kept.
    alone = keras_ds2.DeepSpeech2(**SMALL).with_vocabulary("abc")
    assert alone.heard_alphabet is None
    logits = new(batch)["logits"].numpy()
    assert_shared_logits_are_equal(new, again, logits, batch)


def assert_shared_logits_are_equal(old, new, logits, inputs):
    """The blank's, and of each character that both have."""
    received = new(inputs)["logits"].numpy()
    assert received.shape[-1] == len(new.alphabet) + 3
    shared = [(0, 0)] + [
        (1 + old.alphabet.index(character), 1 + i)
        for i, character in enumerate(new.alphabet)
        if character in old.alphabet
    ]
    before, after = map(list, zip(*shared, strict=True))
    np.testing.assert_array_equal(received[..., after], logits[..., before])
    return received


@pytest.mark.parametrize(
    "change",
    [
        lambda a: a[::-1] + "é",
        lambda a: "áñ" + a[10:] + "ß" + a[:10],
        lambda a: a.replace("'", "").replace(" ", ""),
        lambda a: "zя e",
    ],
    ids=["reversed", "mixed", "dropped", "few"],
)
def test_characters_of_both_keep_their_logits(change, an4, batch, old_logits):
    before = [weight.numpy() for weight in an4.weights]
    alphabet = change(an4.alphabet)
    model = an4.with_vocabulary(alphabet)
    assert model.alphabet == alphabet and not model.compiled
    received = assert_shared_logits_are_equal(an4, model, old_logits, batch)
    # A new one is below the mean of the old ones, by how many are new.
    new = [i for i, c in enumerate(alphabet, 1) if c not in an4.alphabet]
    expected = old_logits[..., 1:29].mean(-1) - math.log(1 + len(new))
    for i in new:
        np.testing.assert_allclose(received[..., i], expected, atol=1e-4)
    # The old model is as it was, and shares nothing.
    model.get_layer("logits").bias.assign_add(np.ones(len(alphabet) + 3))
    for weight, values in zip(an4.weights, before, strict=True):
        np.testing.assert_array_equal(weight.numpy(), values)


def test_no_text_changes_before_training(an4, rows, batch):
    added = "0123456789.,?!-éèêëàâùûôöïîçœæ"
    model = an4.with_vocabulary(added + an4.alphabet)
    logits = model(batch)["logits"]
    length = an4.logit_length(batch["audio_length"])
    assert model.decode(logits, length) == [row.text for row in rows]
    # Not of noise either, in any frame.
    noise = np.random.default_rng(0).normal(0, 0.1, (3, 16000))
    noise *= [[1.0], [1e-2], [1e-5]]
    logits = model(padded(noise.astype("float32")))["logits"].numpy()
    best = logits.argmax(-1)
    assert not np.any((best > 0) & (best <= len(added)))


def test_there_and_back_again(an4, batch, old_logits):
    model = an4.with_vocabulary("é" + an4.alphabet[::-1])
    back = model.with_vocabulary(an4.alphabet)
    assert back.get_config() == an4.get_config()
    for weight, other in zip(back.weights, an4.weights, strict=True):
        np.testing.assert_array_equal(weight.numpy(), other.numpy())


def test_saved_and_loaded(an4, batch, tmp_path):
    model = an4.with_vocabulary(an4.alphabet + "é")
    expected = model(batch)["logits"].numpy()
    path = tmp_path / "model.keras"
    model.save(path)
    loaded = keras.models.load_model(path)
    assert loaded.get_config() == model.get_config()
    np.testing.assert_array_equal(loaded(batch)["logits"], expected)
    # And from a file to the next alphabet.
    further = loaded.with_vocabulary("ü" + loaded.alphabet)
    assert_shared_logits_are_equal(loaded, further, expected, batch)
    card = tmp_path / "mine.json"
    keras_ds2.save_pretrained(model, card)
    assert keras_ds2.load_pretrained(card).alphabet == model.alphabet


def test_statistics_are_kept_and_training_goes_on(train_clips):
    old = keras_ds2.DeepSpeech2(**SMALL, alphabet="ab c")
    inputs = padded([clip[:8000] for clip in train_clips[:2]])
    old.adapt([inputs])
    model = old.with_vocabulary("abéd ")
    features = [m.get_layer("log_mel").get_weights() for m in (old, model)]
    for before, after in zip(*features, strict=True):
        np.testing.assert_array_equal(before, after)
    model.compile("sgd", run_eagerly=True)
    kernel = model.get_layer("logits").kernel
    before = kernel.numpy()
    np.testing.assert_array_equal(before[:, 3], before[:, 4])
    targets = {
        "labels": np.array([[3, 5, 4], [3, 1, 1]]),
        "label_length": np.array([3, 1]),
    }
    model.fit(inputs, targets, batch_size=2, verbose=0)
    # Alike at the beginning, new ones go their own ways.
    assert np.all(np.any(kernel.numpy() != before, axis=0)[:6])
    assert np.any(kernel.numpy()[:, 3] != kernel.numpy()[:, 4])


def test_the_first_network_too(dev_clips):
    old = keras_ds2.DeepSpeech(
        context=2, dense_units=8, rnn_units=8, normalize=False
    )
    inputs = padded([clip[:16000] for clip in dev_clips])
    logits = old(inputs)["logits"].numpy()
    model = old.with_vocabulary("é" + old.alphabet[::-1])
    assert isinstance(model, keras_ds2.DeepSpeech)
    assert_shared_logits_are_equal(old, model, logits, inputs)


def test_dtype_policy_is_kept():
    old = keras_ds2.DeepSpeech2(**SMALL, dtype="mixed_bfloat16")
    model = old.with_vocabulary("ab")
    assert model.dtype_policy.name == "mixed_bfloat16"
    assert model.get_layer("dense").dtype_policy.name == "mixed_bfloat16"
    assert model.get_layer("logits").dtype_policy.name == "float32"


@pytest.mark.parametrize(
    ("alphabet", "message"),
    [
        ("", "at least one character"),
        (["a", "bc"], "must be a string"),
        ("abca", "duplicates of 'a'"),
    ],
)
def test_alphabets_that_are_none(alphabet, message):
    old = keras_ds2.DeepSpeech2(**SMALL)
    for build in (
        old.with_vocabulary,
        lambda alphabet: keras_ds2.DeepSpeech2(alphabet=alphabet),
        lambda alphabet: keras_ds2.DeepSpeech(alphabet=alphabet),
    ):
        with pytest.raises(ValueError, match=message):
            build(alphabet)
