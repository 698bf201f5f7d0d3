"""Oracles: hand-written tables, and the alphabet's own order for the ids."""

import subprocess
import sys
import unicodedata

import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_ds2.text import (
    DEFAULT_ALPHABET,
    normalize_transcript,
    unknown_characters,
)
from keras_ds2.tokenizer import CharacterTokenizer


def test_default_alphabet():
    assert len(DEFAULT_ALPHABET) == 28
    assert list(DEFAULT_ALPHABET) == sorted(set(DEFAULT_ALPHABET))


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        ("HE SAID GO", "he said go"),
        ("  two \t words\r\n", "two words"),
        ("no\u00a0break", "no break"),
        ("It\u2019s \u2018em \u02bctis", "it's 'em 'tis"),
        ("CAFE\u0301", "caf\u00e9"),
        ("\u0130", unicodedata.normalize("NFC", "i\u0307")),
        ("Room 12, (left)!", "room 12, (left)!"),
        ('"quoted" \u201ctoo\u201d', '"quoted" \u201ctoo\u201d'),
        ("", ""),
        (" \n", ""),
    ],
)
def test_normalize_transcript(written, expected):
    assert normalize_transcript(written) == expected
    assert normalize_transcript(expected) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [("", ""), ("it's", ""), ("b-a 9 a-b", "-9"), ("\u00e9A\n", "\nA\u00e9")],
)
def test_unknown_characters(text, expected):
    assert unknown_characters(text) == expected


def test_unknown_characters_of_another_alphabet():
    assert unknown_characters("abc", alphabet="a") == "bc"


def test_text_does_not_import_keras_nlp():
    code = (
        "import sys, keras_ds2.text, keras_ds2.data.corpus; "
        "sys.exit(bool({'keras_nlp', 'keras_hub'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


def test_ids_follow_the_alphabet():
    tokenizer = CharacterTokenizer()
    assert tokenizer.vocabulary_size() == 31
    assert tokenizer.blank_id == 0
    assert tokenizer.padding_id == 29
    assert tokenizer.unknown_id == 30
    vocabulary = ["<blank>", *DEFAULT_ALPHABET, "<padding>", "<unknown>"]
    assert tokenizer.get_vocabulary() == vocabulary
    for index, token in enumerate(vocabulary):
        assert tokenizer.id_to_token(index) == token
        assert tokenizer.token_to_id(token) == index
    # Space 1, apostrophe 2, a 3 ... z 28.
    np.testing.assert_array_equal(tokenizer.tokenize(" 'az"), [1, 2, 3, 28])


def test_tokenize_one_string():
    ids = CharacterTokenizer().tokenize("aab")
    assert ids.dtype == tf.int32
    np.testing.assert_array_equal(ids, [3, 3, 4])
    assert CharacterTokenizer().tokenize("").shape == (0,)


@pytest.mark.parametrize("convert", [list, np.array, tf.constant])
def test_tokenize_batch(convert):
    ids = CharacterTokenizer().tokenize(convert(["ab", "", "c c"]))
    assert isinstance(ids, tf.RaggedTensor)
    assert ids.dtype == tf.int32
    assert ids.to_list() == [[3, 4], [], [5, 1, 5]]


def test_call_is_tokenize():
    tokenizer = CharacterTokenizer()
    np.testing.assert_array_equal(tokenizer("ab"), [3, 4])
    assert tokenizer(["ab", "c"]).to_list() == [[3, 4], [5]]


@pytest.mark.parametrize(
    "character", ["A", "1", "-", "\n", "\0", "\u00e9", "\U0001f600"]
)
def test_unknown_character_has_the_unknown_id(character):
    ids = CharacterTokenizer().tokenize(f"a{character}b")
    np.testing.assert_array_equal(ids, [3, 30, 4])


def test_invalid_utf8_has_the_unknown_id():
    ids = CharacterTokenizer().tokenize(tf.constant(b"a\xffb"))
    np.testing.assert_array_equal(ids, [3, 30, 4])


@pytest.mark.parametrize(
    ("ids", "expected"),
    [
        ([], ""),
        ([3, 3, 4], "aab"),
        ([0, 3, 0, 0, 4, 0], "ab"),
        ([3, -1, -4], "a"),
        ([3, 29, 30, 4, 29], "ab"),
        ([1, 3, 1, 0, 1, 4, 1], "a b"),
    ],
)
def test_detokenize(ids, expected):
    tokenizer = CharacterTokenizer()
    array = np.array(ids, "int32")
    assert tokenizer.detokenize(ids) == expected
    assert tokenizer.detokenize(array) == expected
    assert tokenizer.detokenize(array[None]) == [expected]
    assert tokenizer.detokenize(array.astype("int64")) == expected
    assert tokenizer.detokenize(keras.ops.convert_to_tensor(array)) == expected


def test_detokenize_batches():
    tokenizer = CharacterTokenizer()
    ragged = [[3, 4], [], [5]]
    dense = np.array([[3, 4], [-1, -1], [5, -1]])
    assert tokenizer.detokenize(ragged) == ["ab", "", "c"]
    assert tokenizer.detokenize(tf.ragged.constant(ragged)) == ["ab", "", "c"]
    assert tokenizer.detokenize(dense) == ["ab", "", "c"]
    assert tokenizer.detokenize(np.zeros((0, 3), "int32")) == []


def test_detokenize_refuses_ids_beyond_the_vocabulary():
    with pytest.raises(tf.errors.InvalidArgumentError, match="31"):
        CharacterTokenizer().detokenize([3, 31])


@pytest.mark.parametrize(
    "alphabet", [DEFAULT_ALPHABET, "zya ", "a\u00e9\u00df\u0436\U0001f600"]
)
def test_round_trip_over_the_alphabet(alphabet):
    tokenizer = CharacterTokenizer(alphabet)
    text = "".join(character * 2 for character in alphabet.strip())
    ids = tokenizer.tokenize([text])
    assert tokenizer.unknown_id not in ids.to_list()[0]
    assert tokenizer.detokenize(ids) == [text]


def test_inside_tf_data():
    tokenizer = CharacterTokenizer()
    texts = tf.data.Dataset.from_tensor_slices(["a b", "it's", "\u00e9"])

    single = [ids.tolist() for ids in texts.map(tokenizer).as_numpy_iterator()]
    batch = next(iter(texts.batch(3).map(tokenizer.tokenize)))
    back = texts.batch(3).map(tokenizer.tokenize).map(tokenizer.detokenize)
    padded = texts.map(tokenizer).padded_batch(3, padding_values=-1)

    assert single == batch.to_list() == [[3, 1, 4], [11, 22, 2, 21], [30]]
    expected = [b"a b", b"it's", b""]
    assert next(back.as_numpy_iterator()).tolist() == expected
    padded = padded.map(tokenizer.detokenize)
    assert next(padded.as_numpy_iterator()).tolist() == expected


def test_config_round_trip():
    tokenizer = CharacterTokenizer("abc", dtype="int64", name="letters")
    config = keras.saving.serialize_keras_object(tokenizer)
    assert config["registered_name"] == "keras_ds2>CharacterTokenizer"
    copy = keras.saving.deserialize_keras_object(config)
    assert copy.get_config() == tokenizer.get_config()
    assert copy.alphabet == "abc" and copy.name == "letters"
    assert copy.tokenize("cab").dtype == tf.int64


@pytest.mark.parametrize(
    ("alphabet", "message"),
    [
        ("", "at least one character"),
        (None, "must be a string"),
        (["a", "b"], "must be a string"),
        ("abcab", "duplicates of 'ab'"),
    ],
)
def test_invalid_alphabet(alphabet, message):
    with pytest.raises(ValueError, match=message):
        CharacterTokenizer(alphabet)


def test_invalid_dtype():
    with pytest.raises(ValueError, match="`dtype` must be"):
        CharacterTokenizer(dtype="float32")


@pytest.mark.parametrize("index", [-1, 31])
def test_invalid_id(index):
    with pytest.raises(ValueError, match="from 0 to 30"):
        CharacterTokenizer().id_to_token(index)


def test_invalid_token():
    with pytest.raises(ValueError, match="Received: token='A'"):
        CharacterTokenizer().token_to_id("A")
