"""Oracles: the decoders on whole utterances, and `greedy_decode`."""

import itertools

import numpy as np
import pytest
from test_beam_search import peaked_logits, write_arpa

from keras_ds2 import BeamSearchDecoder, greedy_decode
from keras_ds2.decoding import beam_search_stream, streamed_search
from keras_ds2.decoding.alignment import character_log_probs, time_text
from keras_ds2.decoding.greedy import GreedyStream

ALPHABET = " 'abcdefghijklmnopqrstuvwxyz"
WORDS = ["it's", "ten", "to", "two", "a", "at", "tent", "hello", "book", "boo"]
SENTENCE = "it's ten to two hello book a tent "


@pytest.fixture(params=["lexicon", "words", "characters"])
def decoder(request, tmp_path):
    units = {"words": WORDS, "characters": [*"|'abcdefghijklmnopqrstuvwxyz"]}
    model = None
    if request.param in units:
        items = ("<unk>", "<s>", "</s>", *units[request.param])
        ngrams = {
            (unit,): (-1.0 - 0.01 * i, -0.1) for i, unit in enumerate(items)
        }
        ngrams["<s>", "a"] = (-1.0, 0.0)
        ngrams["t", "e"] = (-0.5, 0.0)
        if request.param == "words":
            del ngrams["t", "e"]
            ngrams["ten", "to"] = (-0.5, 0.0)
        model = write_arpa(tmp_path / "any.arpa", ngrams)
    prior = np.linspace(0.01, 0.1, 29)
    if request.param == "characters":
        prior = None
    return BeamSearchDecoder(
        language_model=model,
        lexicon=None if request.param == "characters" else WORDS,
        beam_width=24,
        hot_words={"boo": 0.3} if request.param == "words" else None,
        prior=prior,
        prior_weight=0.0 if prior is None else 0.3,
    )


def noisy_logits(text, noise=4.0, seed=0):
    [logits] = peaked_logits([text], num_frames=3 * len(text) + 5, peak=9.0)
    generator = np.random.default_rng(seed)
    return logits + noise * generator.normal(size=logits.shape)


def decode_stream(stream, logits, sizes):
    """The hypothesis; on the way every reading is checked."""
    log_probs = character_log_probs(logits, ALPHABET)
    ends = itertools.accumulate(itertools.cycle(sizes))
    begin, readings = 0, [stream.read()]
    assert readings == [("", "")]
    for end in ends:
        stream.step(log_probs[begin:end])
        readings.append(stream.read())
        begin = end
        if end >= len(logits):
            break
    hypothesis = stream.end()
    readings.append((hypothesis.text, hypothesis.text))
    for (text, certain), (later, more_certain) in itertools.pairwise(readings):
        assert text.startswith(certain)
        assert later.startswith(certain)
        assert more_certain.startswith(certain)
    return hypothesis, readings


def assert_same_hypothesis(actual, expected, tolerance=1e-6):
    assert actual.text == expected.text
    for name in ("score", "acoustic_score", "lm_score"):
        assert getattr(actual, name) == pytest.approx(
            getattr(expected, name), rel=tolerance, abs=tolerance
        )
    for name in ("words", "characters"):
        assert getattr(actual, name) == getattr(expected, name)


@pytest.mark.parametrize("sizes", [[5], [1], [10**6], [0, 7, 3]])
def test_beam_search_of_a_stream(decoder, sizes):
    for seed in range(3):
        logits = noisy_logits(SENTENCE, seed=seed)
        [[expected]] = decoder(logits[None], [len(logits)], 0.02)
        assert len(expected.text) > 20
        hypothesis, _ = decode_stream(decoder.stream(0.02), logits, sizes)
        assert_same_hypothesis(hypothesis, expected)


def test_streams_of_one_decoder_do_not_meet(decoder):
    logits = [noisy_logits(SENTENCE, seed=seed) for seed in (0, 1)]
    streams = [decoder.stream(0.02) for _ in logits]
    for begin in range(0, len(logits[0]), 5):
        for stream, rows in zip(streams, logits, strict=True):
            log_probs = character_log_probs(rows[begin : begin + 5], ALPHABET)
            stream.step(log_probs)
            stream.read()
    for stream, rows in zip(streams, logits, strict=True):
        [[expected]] = decoder(rows[None], [len(rows)], 0.02)
        assert_same_hypothesis(stream.end(), expected)


def test_most_of_the_text_is_certain_before_the_end(decoder):
    logits = noisy_logits(SENTENCE, noise=1.0)
    hypothesis, readings = decode_stream(decoder.stream(0.02), logits, [5])
    assert hypothesis.text == SENTENCE.strip()
    _, certain = readings[-2]
    assert SENTENCE.startswith(certain) and len(certain) > len(SENTENCE) / 2
    # A word that is not complete can be seen, where the decoder knows it.
    assert any(text == "it's te" for text, _ in readings)


def test_an_utterance_without_frames(decoder):
    hypothesis = decoder.stream(0.02).end()
    [[expected]] = decoder(np.zeros((1, 0, 31)), [0], 0.02)
    assert_same_hypothesis(hypothesis, expected)


@pytest.fixture
def short_memory(monkeypatch):
    monkeypatch.setattr(streamed_search, "_KEPT_FRAMES", 30)
    monkeypatch.setattr(beam_search_stream, "_MOST_FRAMES", 120)
    monkeypatch.setattr(beam_search_stream, "_RECENT_FRAMES", 60)


def long_logits(noise):
    """Sentences, with silence before and between."""
    silence = np.zeros((250, 31), "float32")
    silence[:, 0] = 12.0
    parts = [silence]
    for seed in range(4):
        parts += [noisy_logits(SENTENCE, noise, seed), silence]
    return np.concatenate(parts)


def kept(stream):
    """Frames that the search and the times still hold."""
    results = stream._search._decoder.get_all_final_hypothesis()
    return max(len(results[0].tokens), len(stream._log_probs))


def test_what_is_decided_is_forgotten(decoder, short_memory):
    logits = long_logits(noise=4.0)
    [[expected]] = decoder(logits[None], [len(logits)], 0.02)
    stream = decoder.stream(0.02)
    hypothesis, _ = decode_stream(stream, logits, [5])
    assert hypothesis.text == expected.text
    # flashlight's beam depends on addresses where scores are the same.
    assert hypothesis.score == pytest.approx(expected.score, abs=0.1)
    # Told by pieces, times may move by a frame.
    for actual, best in zip(hypothesis.words, expected.words, strict=True):
        assert abs(actual.start - best.start) < 0.021
        assert abs(actual.end - best.end) < 0.021
    stream = decoder.stream(0.02)
    most = 0
    for begin in range(0, len(logits), 5):
        log_probs = character_log_probs(logits[begin : begin + 5], ALPHABET)
        stream.step(log_probs)
        stream.read()
        most = max(most, kept(stream))
    assert most < 350 < len(logits) / 4


@pytest.mark.parametrize("decoder", ["lexicon", "words"], indirect=True)
def test_a_stream_that_breaks_off_within_a_word(decoder, short_memory):
    """The word is not counted, though its beginning is forgotten."""
    [logits] = peaked_logits([SENTENCE + "hel"], num_frames=116, peak=15.0)
    said = np.flatnonzero(logits.argmax(axis=1) == 1 + ALPHABET.index("h"))
    silence = np.zeros((250, 31), "float32")
    silence[:, 0] = 40.0
    logits = np.concatenate([logits, silence])
    [[expected]] = decoder(logits[None], [len(logits)])
    stream = decoder.stream(0.02)
    hypothesis, _ = decode_stream(stream, logits, [5])
    assert stream._search.num_forgotten_frames > said[-1]
    assert hypothesis.text == expected.text == SENTENCE.strip()
    for name in ("score", "acoustic_score", "lm_score"):
        assert getattr(hypothesis, name) == pytest.approx(
            getattr(expected, name), abs=1e-3
        )


def test_whole_utterances_are_not_forgotten(decoder, short_memory, monkeypatch):
    decoder.top_paths = 5
    logits = noisy_logits(SENTENCE)
    expected = decoder(logits[None], [len(logits)])
    monkeypatch.setattr(streamed_search, "_KEPT_FRAMES", 10**6)
    assert decoder(logits[None], [len(logits)]) == expected
    assert len({hypothesis.text for hypothesis in expected[0]}) == 5


def test_doubt_ends(decoder, short_memory, monkeypatch):
    """Two readings that nothing ever tells apart: the better one counts."""
    monkeypatch.setattr(streamed_search, "_LONGEST_DOUBT", 100)
    logits = np.full((1500, 31), -30.0, "float32")
    logits[:, 0] = 5.0
    for frame, characters in enumerate(["t", "oe", "n ", " "]):
        logits[frame, 0] = -30.0
        for character in characters:
            logit = 5.0 - 0.1 * (character == "o")
            logits[frame, ALPHABET.index(character) + 1] = logit
    stream = decoder.stream(0.02)
    hypothesis, _ = decode_stream(stream, logits, [5])
    [[expected]] = decoder(logits[None], [len(logits)], 0.02)
    assert hypothesis.text == expected.text
    stream = decoder.stream(0.02)
    for _ in range(100):
        stream.step(character_log_probs(logits[:5], ALPHABET))
        stream.step(character_log_probs(logits[500:520], ALPHABET))
        stream.read()
    assert kept(stream) < 300


def sure_logits(frames):
    """Each frame is a dictionary of characters (`_` the blank) to logits."""
    logits = np.full((len(frames), 31), -30.0, "float32")
    for row, characters in zip(logits, frames, strict=True):
        for character, logit in characters.items():
            row[f"_{ALPHABET}".index(character)] = logit
    return logits


def test_the_same_letters_with_another_last_symbol_are_no_twins():
    """After "l" and a blank comes another "l", after "l" the same one."""
    decoder = BeamSearchDecoder(lexicon=["a", "at", "le", "llo"], beam_width=24)
    frames = [{"a": 5.0}, {"t": 5.0, " ": 4.5}, {" ": 5.0, "l": 4.5}]
    frames += [{"l": 5.0, "_": 4.5}, *({c: 5.0} for c in "lo ")]
    logits = sure_logits(frames)
    [[expected]] = decoder(logits[None], [len(logits)], 0.02)
    hypothesis, readings = decode_stream(decoder.stream(0.02), logits, [1])
    assert readings[4][0] == "at l"  # the better one, until the next "l"
    assert hypothesis.text == expected.text == "a llo"


@pytest.mark.parametrize("decoder", ["characters"], indirect=True)
def test_a_letter_that_lasts_is_timed_when_it_has_ended(decoder, short_memory):
    spoken = "t" + 89 * "_" + 60 * "o" + 40 * "_"
    logits = sure_logits([{character: 5.0} for character in spoken])
    [[expected]] = decoder(logits[None], [len(logits)], 0.02)
    assert expected.characters[-1].end == pytest.approx(150 * 0.02)
    hypothesis, _ = decode_stream(decoder.stream(0.02), logits, [5])
    assert hypothesis.characters == expected.characters


# === Greedily ===


def test_greedy_stream():
    generator = np.random.default_rng(0)
    symbols = generator.choice(31, size=(6, 80), p=[0.3, 0.3, *[0.4 / 29] * 29])
    symbols = np.repeat(symbols, 2, axis=1)
    symbols[symbols > 28] = 0
    logits = 6.0 * np.eye(31)[symbols] + generator.normal(size=(6, 160, 31))
    logits[..., 29:] = -1e4
    labels = np.array(greedy_decode(logits.astype("float32"), np.full(6, 160)))
    for row, expected in zip(logits, labels, strict=True):
        text = "".join(ALPHABET[label - 1] for label in expected if label > 0)
        text = " ".join(text.split())
        assert len(text) > 20
        log_probs = character_log_probs(row, ALPHABET)
        words, characters = time_text(text, ALPHABET, log_probs, 0.02)
        for sizes in ([1], [7], [160]):
            hypothesis, readings = decode_stream(
                GreedyStream(ALPHABET, 0.02), row, sizes
            )
            assert all(text == certain for text, certain in readings)
            assert hypothesis.text == text
            assert hypothesis.words == words
            assert hypothesis.characters == characters
            assert hypothesis.score == pytest.approx(
                log_probs.max(axis=1).sum()
            )


def test_alphabet_without_a_space():
    stream = GreedyStream("ab", 0.5)
    for symbol in (1, 1, 0, 2):
        stream.step(np.log(0.9 * np.eye(3)[[symbol]] + 0.05))
    hypothesis = stream.end()
    assert hypothesis.text == "ab"
    assert [(t.text, t.start, t.end) for t in hypothesis.characters] == [
        ("a", 0.0, 1.0),
        ("b", 1.5, 2.0),
    ]


def test_symbols_in_order_whatever_the_blank():
    logits = np.log(np.array([[0.1, 0.2, 0.3, 0.4]]))
    for blank, expected in ((0, [1, 2, 3]), (2, [3, 1, 2])):
        np.testing.assert_allclose(
            np.exp(character_log_probs(logits, "ab", blank)),
            [np.array(expected) / 6],
        )
