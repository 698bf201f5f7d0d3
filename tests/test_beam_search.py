"""Oracles: all alignments of tiny logits, one by one; n-grams looked up in a
dictionary of this file; greedy decoding where the logits are certain."""

import collections
import gzip
import itertools
import math
import pathlib
import sys

import keras
import numpy as np
import pytest
from helpers import spoil

from keras_ds2 import BeamSearchDecoder, DeepSpeech2, greedy_decode
from keras_ds2.audio import pad_samples

ALPHABET = " ab"
EVERYTHING = {"beam_width": 5000, "beam_threshold": 1e6, "top_paths": 4000}

# Decimal logarithms, as in ARPA files: (log p, log backoff).
WORDS = {
    ("<unk>",): (-2.0, 0.0),
    ("<s>",): (-99.0, -0.3),
    ("</s>",): (-0.9, 0.0),
    ("a",): (-0.6, -0.25),
    ("ab",): (-0.7, -0.2),
    ("ba",): (-0.8, -0.1),
    ("<s>", "a"): (-0.5, -0.05),
    ("<s>", "ab"): (-0.2, 0.0),
    ("a", "ba"): (-0.1, 0.0),
    ("ab", "</s>"): (-0.3, 0.0),
    ("<s>", "a", "ba"): (-0.05, 0.0),
    ("a", "ba", "</s>"): (-0.4, 0.0),
}
CHARACTERS = {
    ("<unk>",): (-2.0, 0.0),
    ("<s>",): (-99.0, -0.2),
    ("</s>",): (-0.9, 0.0),
    ("|",): (-0.8, -0.3),
    ("a",): (-0.4, -0.1),
    ("b",): (-0.9, -0.2),
    ("<s>", "b"): (-0.2, 0.0),
    ("a", "b"): (-0.3, 0.0),
    ("b", "|"): (-0.5, 0.0),
}


def write_arpa(path, ngrams):
    orders = range(1, max(len(words) for words in ngrams) + 1)
    lines = ["\\data\\"]
    lines += [f"ngram {n}={sum(len(w) == n for w in ngrams)}" for n in orders]
    for n in orders:
        lines += ["", f"\\{n}-grams:"]
        lines += [
            f"{p}\t{' '.join(words)}"
            + (f"\t{backoff}" if n < max(orders) else "")
            for words, (p, backoff) in ngrams.items()
            if len(words) == n
        ]
    path.write_text("\n".join([*lines, "", "\\end\\", ""]))
    return path


@pytest.fixture
def words_arpa(tmp_path):
    return write_arpa(tmp_path / "words.arpa", WORDS)


@pytest.fixture
def characters_arpa(tmp_path):
    return write_arpa(tmp_path / "characters.arpa", CHARACTERS)


def log_p_lm(items, ngrams):
    """Katz's back-off by the book, in natural logarithms."""

    def decimal(history, item):
        if (*history, item) in ngrams:
            return ngrams[(*history, item)][0]
        if not history:
            return ngrams[("<unk>",)][0]
        backoff = ngrams.get(history, (0.0, 0.0))[1]
        return backoff + decimal(history[1:], item)

    known = [i if (i,) in ngrams else "<unk>" for i in items]
    sequence = ["<s>", *known, "</s>"]
    return math.log(10) * sum(
        decimal(tuple(sequence[max(0, i - 2) : i]), sequence[i])
        for i in range(1, len(sequence))
    )


def log_softmax(logits):
    logits = np.asarray(logits, "float64")
    return logits - np.log(np.exp(logits).sum(axis=-1, keepdims=True))


def log_p_ctc(logits, blank, normalize=True):
    """Text to log probability, summed over all alignments."""
    log_probs = log_softmax(logits)
    characters = list(ALPHABET)
    characters.insert(blank, "")
    totals = collections.defaultdict(float)
    symbols = range(len(characters))
    for path in itertools.product(symbols, repeat=len(logits)):
        text = "".join(characters[s] for s, _ in itertools.groupby(path))
        if normalize:
            text = " ".join(text.split())
        totals[text] += math.exp(log_probs[range(len(path)), path].sum())
    return {text: math.log(p) for text, p in totals.items()}


def random_logits(num_frames, seed=0, batch=1):
    generator = np.random.default_rng(seed)
    return 2 * generator.normal(size=(batch, num_frames, 4)).astype("float32")


def assert_scores(hypotheses, expected):
    """Exactly the expected texts and scores, best first."""
    scores = {hypothesis.text: hypothesis.score for hypothesis in hypotheses}
    assert scores == pytest.approx(expected, abs=1e-4)
    ordered = [hypothesis.score for hypothesis in hypotheses]
    assert ordered == sorted(ordered, reverse=True)
    assert len(scores) == len(hypotheses)


# === Everything in the beam: the sums are exact ===


@pytest.mark.parametrize("num_frames", [1, 2, 5])
@pytest.mark.parametrize("blank", [0, 1, 3])
def test_without_a_model_scores_are_sums_over_alignments(num_frames, blank):
    logits = random_logits(num_frames)
    decoder = BeamSearchDecoder(
        ALPHABET.replace(" ", "c"), blank_index=blank, beam_width=5000
    )
    [[best]] = decoder(logits, [num_frames])
    expected = log_p_ctc(logits[0], blank, normalize=False)
    text = max(expected, key=expected.get)
    assert best.text == text.replace(" ", "c")
    assert best.score == pytest.approx(expected[text], abs=1e-4)
    assert best.acoustic_score == best.score
    assert best.lm_score == 0


@pytest.mark.parametrize("num_frames", [0, 1, 2, 5])
@pytest.mark.parametrize("blank", [0, 3])
@pytest.mark.parametrize("lm_weight, word_score", [(1.0, 0.0), (0.4, -0.7)])
def test_words_and_their_model(
    words_arpa, num_frames, blank, lm_weight, word_score
):
    logits = random_logits(num_frames, seed=num_frames)
    decoder = BeamSearchDecoder(
        ALPHABET,
        words_arpa,
        lm_weight=lm_weight,
        word_score=word_score,
        blank_index=blank,
        **EVERYTHING,
    )
    [hypotheses] = decoder(logits, [num_frames])
    acoustic = {
        text: score
        for text, score in log_p_ctc(logits[0], blank).items()
        if set(text.split()) <= {"a", "ab", "ba"}
    }
    assert_scores(
        hypotheses,
        {
            text: score
            + lm_weight * log_p_lm(text.split(), WORDS)
            + word_score * len(text.split())
            for text, score in acoustic.items()
        },
    )
    for hypothesis in hypotheses:
        assert hypothesis.acoustic_score == pytest.approx(
            acoustic[hypothesis.text], abs=1e-4
        )
        assert hypothesis.lm_score == pytest.approx(
            log_p_lm(hypothesis.text.split(), WORDS), abs=1e-4
        )


def test_a_lexicon_without_a_model(tmp_path):
    path = tmp_path / "words.txt"
    path.write_text("\ufeffb\taccents and the like\n\nAA\n", "utf-8")
    logits = random_logits(5)
    expected = {
        text: score + 0.5 * len(text.split())
        for text, score in log_p_ctc(logits[0], 0).items()
        if set(text.split()) <= {"b", "aa"}
    }
    for lexicon in (path, str(path), ["b", "aa"], {"b": 1, "aa": 2}):
        decoder = BeamSearchDecoder(
            ALPHABET, lexicon=lexicon, word_score=0.5, **EVERYTHING
        )
        [hypotheses] = decoder(logits, [5])
        assert_scores(hypotheses, expected)


def test_a_lexicon_restricts_and_extends_the_model(words_arpa):
    logits = random_logits(5, seed=3)
    decoder = BeamSearchDecoder(
        ALPHABET, words_arpa, ["ab", "b"], lm_weight=1.0, **EVERYTHING
    )
    [hypotheses] = decoder(logits, [5])
    assert_scores(
        hypotheses,
        {
            text: score + log_p_lm(text.split(), WORDS)  # b is unknown
            for text, score in log_p_ctc(logits[0], 0).items()
            if set(text.split()) <= {"ab", "b"}
        },
    )


@pytest.mark.parametrize("with_model", [False, True])
def test_hot_words_add_their_boost_each_time(words_arpa, with_model):
    logits = random_logits(5, seed=1)
    decoder = BeamSearchDecoder(
        ALPHABET,
        words_arpa if with_model else None,
        lexicon=["a", "ab"],
        lm_weight=0.8,
        hot_words={"AB": 1.5, "b": 0.7},  # b is not in the lexicon
        **EVERYTHING,
    )
    [hypotheses] = decoder(logits, [5])
    acoustic = {
        text: score
        for text, score in log_p_ctc(logits[0], 0).items()
        if set(text.split()) <= {"a", "ab", "b"}
    }
    expected = {
        text: score
        + 0.8 * with_model * log_p_lm(text.split(), WORDS)
        + 1.5 * text.split().count("ab")
        + 0.7 * text.split().count("b")
        for text, score in acoustic.items()
    }
    assert_scores(hypotheses, expected)
    for hypothesis in hypotheses:
        assert hypothesis.acoustic_score == pytest.approx(
            acoustic[hypothesis.text], abs=1e-4
        )


@pytest.mark.parametrize("num_frames", [0, 1, 4])
def test_characters_and_their_model(characters_arpa, num_frames):
    logits = random_logits(num_frames, seed=7)
    decoder = BeamSearchDecoder(
        ALPHABET, characters_arpa, lm_weight=0.6, **EVERYTHING
    )
    [hypotheses] = decoder(logits, [num_frames])
    expected = {}
    for text, score in log_p_ctc(logits[0], 0, normalize=False).items():
        items = text.replace(" ", "|")
        score += 0.6 * log_p_lm(items, CHARACTERS)
        text = " ".join(text.split())  # the best of several stands
        expected[text] = max(score, expected.get(text, -np.inf))
    assert_scores(hypotheses, expected)


def test_weight_0_is_no_model(words_arpa):
    logits = random_logits(5)
    decoders = [
        BeamSearchDecoder(ALPHABET, words_arpa, lm_weight=0.0, **EVERYTHING),
        BeamSearchDecoder(ALPHABET, lexicon=["a", "ab", "ba"], **EVERYTHING),
    ]
    ours, plain = [decoder(logits, [5])[0] for decoder in decoders]
    assert_scores(ours, {h.text: h.score for h in plain})


@pytest.mark.parametrize("what", ["words", "lexicon", "characters", "nothing"])
def test_a_prior_is_a_bias_of_the_logits(what, words_arpa, characters_arpa):
    arguments = {
        "words": {"language_model": words_arpa},
        "lexicon": {"lexicon": ["a", "ab", "ba"]},
        "characters": {"language_model": characters_arpa},
        "nothing": {},
    }[what]
    logits = random_logits(5)
    prior = np.linspace(0.1, 0.7, 1 + len(ALPHABET))
    plain = BeamSearchDecoder(ALPHABET, **arguments, **EVERYTHING)
    weighed = BeamSearchDecoder(
        ALPHABET, **arguments, prior=prior, prior_weight=0.7, **EVERYTHING
    )
    assert weighed.with_weights(0.5, 0.0, prior_weight=0.0)(
        logits, [5]
    ) == plain.with_weights(0.5, 0.0)(logits, [5])
    biased = logits.copy()
    biased[..., : len(prior)] -= 0.7 * np.log(prior)
    ours, expected = [
        decoder(array, [5])[0]
        for decoder, array in ((weighed, logits), (plain, biased))
    ]
    assert_scores(ours, {h.text: h.score for h in expected})
    assert [h.text for h in ours] != [h.text for h in plain(logits, [5])[0]]


def test_a_prior_begins_with_the_blank_wherever_it_is():
    logits = random_logits(5)
    prior = np.linspace(0.1, 0.7, 1 + len(ALPHABET))
    order = [*range(1, len(prior)), 0, *range(len(prior), logits.shape[-1])]
    first, last = [
        BeamSearchDecoder(
            ALPHABET,
            lexicon=["a", "ab", "ba"],
            blank_index=blank_index,
            prior=prior,
            prior_weight=0.7,
            **EVERYTHING,
        )
        for blank_index in (0, len(ALPHABET))
    ]
    [ours], [expected] = last(logits[..., order], [5]), first(logits, [5])
    assert_scores(ours, {h.text: h.score for h in expected})


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"prior_weight": 0.5}, "`prior_weight` needs a `prior`, which"),
        ({"prior": [0.5, 0.5]}, "must be 4 positive numbers: of the blank"),
        ({"prior": [0.5, 0.5, 0.0, 0.1]}, "must be 4 positive numbers"),
        ({"prior": "blank"}, "must be 4 positive numbers"),
        ({"prior": [10**400] * 4}, "must be 4 .* Received: prior=.1000+\\.$"),
        (
            {"prior": [0.1] * 4, "prior_weight": -1.0},
            "`prior_weight` must not be negative",
        ),
        ({"prior_weight": np.nan}, "`prior_weight` must be a finite number"),
    ],
)
def test_priors_that_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        BeamSearchDecoder(" ab", **arguments)


def test_with_weights_is_a_new_decoder(words_arpa):
    logits = random_logits(5)
    first = BeamSearchDecoder(ALPHABET, words_arpa, **EVERYTHING)
    before = first(logits, [5])
    second = first.with_weights(lm_weight=0.3, word_score=1.2)
    fresh = BeamSearchDecoder(
        ALPHABET, words_arpa, lm_weight=0.3, word_score=1.2, **EVERYTHING
    )
    assert second(logits, [5]) == fresh(logits, [5]) != before
    assert first(logits, [5]) == before


@pytest.mark.parametrize("num_frames, expected", [(0, 1), (1, 4), (2, 10)])
def test_no_more_texts_than_there_are(num_frames, expected):
    decoder = BeamSearchDecoder("cab", beam_width=100, top_paths=100)
    logits = random_logits(3)
    [hypotheses] = decoder(logits, [num_frames])
    assert len(hypotheses) == expected
    assert_scores(
        hypotheses,
        {
            text.replace(" ", "c"): score
            for text, score in log_p_ctc(
                logits[0, :num_frames], 0, normalize=False
            ).items()
        },
    )


# === A narrow beam ===

SENTENCES = ["it's ten to two", "a", "", "hello  book"]


def peaked_logits(texts, num_frames=40, symbols=31, peak=20.0):
    """Each character two frames long, and a blank between any two."""
    alphabet = " 'abcdefghijklmnopqrstuvwxyz"
    labels = np.zeros((len(texts), num_frames), int)
    for row, text in zip(labels, texts, strict=True):
        path = [s for c in text for s in (alphabet.index(c) + 1,) * 2 + (0,)]
        row[: len(path[:num_frames])] = path[:num_frames]
    logits = peak * np.eye(symbols, dtype="float32")[labels]
    noise = np.random.default_rng(0).normal(size=logits.shape)
    return logits + noise.astype("float32")


@pytest.fixture(params=["tensorflow", "lexicon", "words", "characters"])
def any_decoder(request, tmp_path):
    """Every search, over the whole alphabet."""
    names = {"lexicon": ["it's", "ten", "to", "two", "a", "hello", "book"]}
    units = {
        "words": names["lexicon"],
        "characters": [*"|'abcdefghijklmnopqrstuvwxyz"],
    }.get(request.param)
    model = None
    if units is not None:
        ngrams = {(u,): (-1.0, 0.0) for u in ("<unk>", "<s>", "</s>", *units)}
        ngrams["<s>", "a"] = (-1.0, 0.0)
        model = write_arpa(tmp_path / "any.arpa", ngrams)
    return BeamSearchDecoder(
        language_model=model,
        lexicon=names.get(request.param),
        beam_width=16,
        top_paths=3,
        lm_weight=0.5,
    )


def texts_of(batch):
    return [hypotheses[0].text for hypotheses in batch]


def test_equals_greedy_where_the_network_is_certain(any_decoder):
    logits = peaked_logits(SENTENCES, num_frames=60)
    length = np.array([60, 3, 0, 60])
    labels = np.array(greedy_decode(logits, length))
    alphabet = any_decoder.alphabet
    greedy = [
        "".join(alphabet[label - 1] for label in row if label > 0)
        for row in labels
    ]
    expected = [" ".join(text.split()) for text in greedy]
    assert expected == ["it's ten to two", "a", "", "hello book"]
    assert texts_of(any_decoder(logits, length)) == expected


@pytest.mark.parametrize("garbage", ["noise", "nan", "inf"])
def test_frames_beyond_the_end_do_not_count(any_decoder, garbage):
    logits = random_symbols(batch=3, num_frames=12)
    length = np.array([12, 5, 0])
    spoiled = spoil(logits, length, amount=7, garbage=garbage)
    expected = any_decoder(logits, length, frame_duration=0.02)
    assert any_decoder(spoiled, length, frame_duration=0.02) == expected
    alone = [
        any_decoder(logits[i : i + 1, :n], [n], frame_duration=0.02)[0]
        for i, n in enumerate(length)
    ]
    assert alone == expected


def random_symbols(batch, num_frames):
    generator = np.random.default_rng(5)
    logits = 3 * generator.normal(size=(batch, num_frames, 31))
    return logits.astype("float32")


def test_the_best_come_first_and_differ(any_decoder):
    [hypotheses] = any_decoder(random_symbols(1, 12), [12])
    assert 1 <= len(hypotheses) <= 3
    scores = [hypothesis.score for hypothesis in hypotheses]
    assert scores == sorted(scores, reverse=True)
    assert len({hypothesis.text for hypothesis in hypotheses}) == len(scores)


def test_reserved_symbols_never_come_out(any_decoder):
    logits = peaked_logits(["a a"], num_frames=9)
    expected = any_decoder(logits, [9])
    logits[..., -2:] = 100.0
    assert any_decoder(logits, [9]) == expected
    assert texts_of(expected) == ["a a"]


def test_a_recording_that_breaks_off_within_a_word():
    decoder = BeamSearchDecoder(lexicon=["to", "twenty"], beam_width=1)
    [[best]] = decoder(peaked_logits(["to twe"], num_frames=18), [18])
    assert best.text == "to"
    assert -100 < best.score < 0


@pytest.mark.parametrize("num_frames", [17, 18])  # twe, and a blank
def test_a_fragment_is_heard_and_not_read(num_frames, tmp_path):
    logits = peaked_logits(["to twe"], num_frames)
    units = ("<unk>", "<s>", "</s>", "to", "twenty", "twelve")
    ngrams = {(u,): (-1.0, 0.0) for u in units}
    ngrams["<s>", "twelve"] = (-0.5, 0.0)
    decoder = BeamSearchDecoder(
        language_model=write_arpa(tmp_path / "model.arpa", ngrams),
        hot_words={"twenty": 5.0},
        word_score=0.25,
        lm_weight=0.5,
        top_paths=2,
    )
    [[best, *_]] = decoder(logits, [num_frames])
    assert best.text == "to"
    assert best.acoustic_score == pytest.approx(0.0, abs=1e-4)  # certain
    lm_score = -2 * math.log(10)  # of to, </s>
    assert best.lm_score == pytest.approx(lm_score)
    assert best.score == pytest.approx(0.5 * lm_score + 0.25, abs=1e-4)


def test_texts_without_their_fragments_come_best_first():
    never = math.exp(-60)
    probabilities = np.full((3, 4), never)
    probabilities[0, 2] = probabilities[2, 3] = 1.0  # a, and b in the end
    probabilities[1, :2] = 0.4, 0.6  # a blank, or a space
    decoder = BeamSearchDecoder(
        ALPHABET,
        lexicon=["a", "baa", "abba"],
        hot_words={"abba": 3.0},
        top_paths=2,
    )
    [hypotheses] = decoder(np.log([probabilities]), [3])
    assert [h.text for h in hypotheses] == ["a", ""]  # a b, ab
    assert_scores(hypotheses, {"a": math.log(0.6), "": math.log(0.4)})


@pytest.mark.parametrize("kind", ["words", "characters"])
def test_texts_far_below_the_best_are_dropped(kind, request):
    model = request.getfixturevalue(f"{kind}_arpa")
    logits = random_logits(4, seed=4)
    every, near = [
        BeamSearchDecoder(
            ALPHABET, model, **{**EVERYTHING, "beam_threshold": threshold}
        )(logits, [4])[0]
        for threshold in (1e6, 4.0)
    ]
    assert len(near) < len(every)
    assert near[0].text == every[0].text


@pytest.mark.parametrize("kind", [None, "words", "characters"])
def test_a_beam_of_one_forgets_what_would_have_become_best(kind, request):
    # Two blanks are the best path, and a the best text: 0.4 + 0.6 * 0.4.
    logits = np.log([[[0.6, 1e-9, 0.4, 1e-9]] * 2])
    model = request.getfixturevalue(f"{kind}_arpa") if kind else None
    for width, text in ((1, ""), (64, "a")):
        decoder = BeamSearchDecoder(
            ALPHABET, model, beam_width=width, lm_weight=0.0
        )
        assert texts_of(decoder(logits, [2])) == [text]


def test_what_is_all_but_impossible_has_a_score():
    logits = np.zeros((1, 2, 4))
    logits[0, 0, 2] = logits[0, 1, 1] = 1e30  # a, and a space
    decoder = BeamSearchDecoder(ALPHABET, lexicon=["ab"])
    [[best]] = decoder(logits, [2])
    assert best.text == "ab"
    assert best.score == pytest.approx(-1e4)


def test_several_texts_of_any_characters_differ_in_more_than_spaces():
    logits = random_logits(5)
    decoder = BeamSearchDecoder(ALPHABET, beam_width=500, top_paths=12)
    [hypotheses] = decoder(logits, [5])
    texts = log_p_ctc(logits[0], 0, normalize=False)
    expected = collections.defaultdict(lambda: -np.inf)
    for text, score in texts.items():
        text = " ".join(text.split())
        expected[text] = max(score, expected[text])
    best = sorted(expected, key=expected.get, reverse=True)[:12]
    assert_scores(hypotheses, {text: expected[text] for text in best})


def test_a_model_decides_between_words_that_sound_alike(tmp_path):
    logits = np.log(peaked_logits(["two t"], 20, peak=1.0) * 0 + 1e-3)
    alphabet = " 'abcdefghijklmnopqrstuvwxyz"
    for frame, choices in enumerate(["t", "wo", "o ", " ", "t", "e", "n"]):
        for character in choices:
            logits[0, frame, alphabet.index(character) + 1] = 0.0
    ngrams = {(w,): (-1.0, 0.0) for w in ("<unk>", "<s>", "</s>", "ten")}
    ngrams["ten", "ten"] = (-3.0, 0.0)
    likes_to = {**ngrams, ("to",): (-0.5, 0.0), ("two",): (-2.0, 0.0)}
    likes_two = {**ngrams, ("to",): (-2.0, 0.0), ("two",): (-0.5, 0.0)}
    for model, text in ((likes_to, "to ten"), (likes_two, "two ten")):
        path = write_arpa(tmp_path / "model.arpa", model)
        decoder = BeamSearchDecoder(language_model=path)
        assert texts_of(decoder(logits, [7])) == [text]


def test_a_narrow_beam_looks_ahead_to_the_best_word(tmp_path):
    ngrams = {(w,): (-1.0, 0.0) for w in ("<unk>", "<s>", "</s>")}
    ngrams |= {("ab",): (-2.0, 0.0), ("ba",): (-0.5, 0.0)}
    ngrams["<s>", "ba"] = (-0.5, 0.0)
    path = write_arpa(tmp_path / "model.arpa", ngrams)
    a_or_b, blank = [0.01, 0.01, 0.54, 0.44], [0.97, 0.01, 0.01, 0.01]
    probabilities = [a_or_b, blank, [0.01, 0.01, 0.44, 0.54]]
    logits = np.log([probabilities])
    for arguments, text in (
        ({"language_model": path}, "ba"),
        ({"lexicon": ["ab", "ba"], "hot_words": {"ba": 1.0}}, "ba"),
        ({"lexicon": ["ab", "ba"]}, "ab"),
    ):
        decoder = BeamSearchDecoder(ALPHABET, beam_width=1, **arguments)
        assert texts_of(decoder(logits, [3])) == [text]


# === Times ===


def test_times_of_words_and_characters(any_decoder):
    # Two frames for each character, one of blank after it.
    logits = peaked_logits(["a to"], num_frames=14)
    [[best, *_]] = any_decoder(logits, [14], frame_duration=0.5)
    assert [(word.text, word.start, word.end) for word in best.words] == [
        ("a", 0.0, 1.0),
        ("to", 3.0, 5.5),
    ]
    assert [(item.text, item.start, item.end) for item in best.characters] == [
        ("a", 0.0, 1.0),
        ("t", 3.0, 4.0),
        ("o", 4.5, 5.5),
    ]
    for item in (*best.words, *best.characters):
        assert 0.99 < item.confidence <= 1.0


def test_confidence_is_that_of_the_network(any_decoder):
    logits = np.full((1, 5, 31), -30.0)
    alphabet = " 'abcdefghijklmnopqrstuvwxyz"
    t, o, blank = alphabet.index("t") + 1, alphabet.index("o") + 1, 0
    probabilities = [
        {t: 0.95, blank: 0.05},
        {t: 0.6, blank: 0.4},
        {blank: 1.0},
        {o: 0.9, blank: 0.1},
        {blank: 1.0},
    ]
    for frame, choices in enumerate(probabilities):
        for symbol, probability in choices.items():
            logits[0, frame, symbol] = math.log(probability)
    [[best, *_]] = any_decoder(logits, [5], frame_duration=1.0)
    [word] = best.words
    assert (word.text, word.start, word.end) == ("to", 0.0, 4.0)
    assert word.confidence == pytest.approx(0.9, abs=1e-4)
    assert [c.confidence for c in best.characters] == pytest.approx(
        [0.95, 0.9], abs=1e-4
    )


def test_no_times_without_the_duration_of_a_frame(any_decoder):
    [[best, *_]] = any_decoder(peaked_logits(["a to"]), [14])
    assert best.text == "a to"
    assert best.words == best.characters == ()


# === Files ===


def test_all_formats_of_a_model_agree(words_arpa, tmp_path):
    compressed = tmp_path / "words.arpa.gz"
    compressed.write_bytes(gzip.compress(words_arpa.read_bytes()))
    windows = tmp_path / "windows.arpa"
    windows.write_bytes(words_arpa.read_bytes().replace(b"\n", b"\r\n"))
    padded = tmp_path / "padded.arpa"  # as IRSTLM writes it
    padded.write_bytes(words_arpa.read_bytes().replace(b" 1=", b"  1=    "))
    logits = random_logits(5, batch=3)
    first, *others = [
        BeamSearchDecoder(ALPHABET, path, **EVERYTHING)(logits, [5, 4, 2])
        for path in (
            words_arpa,
            str(words_arpa),
            compressed,
            BINARY,
            windows,
            padded,
        )
    ]
    assert all(other == first for other in others)


def test_of_two_spellings_the_one_of_transcripts_counts(words_arpa, tmp_path):
    both = {**WORDS, ("AB",): (-5.0, 0.0), ("Ba",): (-5.0, 0.0)}
    logits = random_logits(5)
    expected = BeamSearchDecoder(ALPHABET, words_arpa, **EVERYTHING)
    for ngrams in (both, dict(reversed(both.items()))):
        path = write_arpa(tmp_path / "both.arpa", ngrams)
        decoder = BeamSearchDecoder(ALPHABET, path, **EVERYTHING)
        assert_scores(
            decoder(logits, [5])[0],
            {h.text: h.score for h in expected(logits, [5])[0]},
        )


def test_a_model_of_characters_needs_a_mark_for_the_space(tmp_path):
    ngrams = {
        tuple("_" if unit == "|" else unit for unit in units): scores
        for units, scores in CHARACTERS.items()
    }
    path = write_arpa(tmp_path / "characters.arpa", ngrams)
    with pytest.raises(ValueError, match="none is the space"):
        BeamSearchDecoder(ALPHABET, path)
    # As words of one letter they are welcome.
    [[best]] = BeamSearchDecoder(ALPHABET, path, ["a"])(random_logits(3), [3])
    assert best.text in ("", "a")


@pytest.mark.parametrize("ngrams", [WORDS, CHARACTERS])
def test_upper_case_is_that_of_transcripts(ngrams, tmp_path):
    upper = {
        tuple(u.upper() if u[0] != "<" else u for u in units): scores
        for units, scores in ngrams.items()
    }
    paths = [tmp_path / "lower.arpa", tmp_path / "upper.arpa"]
    logits = random_logits(5)
    first, second = [
        BeamSearchDecoder(ALPHABET, write_arpa(path, model), **EVERYTHING)(
            logits, [5]
        )
        for path, model in zip(paths, (ngrams, upper), strict=True)
    ]
    assert first == second


ARPA = "\\data\\\nngram 1=3\n\n\\1-grams:\n-1\t<s>\n-1\t</s>\n-1\tab\n\n"


@pytest.mark.parametrize(
    "content, message",
    [
        (b"hello\n", "no line '.1-grams:'"),
        (b"", "no line '.1-grams:'"),
        (b"\xff\xfe\x00 not text", "no line '.1-grams:'"),
        (b"\x1f\x8b and then no gzip", "neither a well-formed ARPA file nor"),
        (
            gzip.compress(ARPA.encode(), mtime=0)[:30],
            "nor a KenLM binary: Compressed",
        ),
        (
            gzip.compress(ARPA.encode(), mtime=0)[:10] + b"\xff",
            "nor a KenLM binary: E",
        ),
        (b"\\1-grams:\n-1\tab\n", "cannot be loaded"),
        (ARPA.encode(), "cannot be loaded"),  # no end
        (ARPA.replace("=3", "=4").encode(), "cannot be loaded"),
        (ARPA.replace("\tab", "").encode(), "unigram b'-1.*' has no word"),
        (ARPA.replace("ab", "b\xe9").encode("latin-1"), "codec can't decode"),
        (ARPA.replace("ab", "10").encode() + b"\\end\\\n", "no word that"),
        (
            b"mmap lm http://kheafield.com/code format version 5\n\x00",
            "it ends within the header",
        ),
    ],
)
def test_invalid_language_models(tmp_path, content, message):
    path = tmp_path / "broken.arpa"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=message) as error:
        BeamSearchDecoder(language_model=path)
    assert str(path) in str(error.value)


def test_a_missing_language_model():
    with pytest.raises(ValueError, match="'no/such.arpa' does not exist"):
        BeamSearchDecoder(language_model="no/such.arpa")


BINARY = pathlib.Path(__file__).parent / "data" / "words.kenlm"


@pytest.mark.parametrize(
    "damage, message",
    [
        (lambda content: content[:200], "states 6 words and has 0"),
        (lambda content: content[:-3], "states 6 words and has 5"),
        (lambda content: content.replace(b"ba", b"\xe9a"), "can't decode"),
        (lambda c: c[:100] + b"\0" + c[101:200], "cannot be loaded"),
    ],
)
def test_damaged_binaries(tmp_path, damage, message):
    path = tmp_path / "broken.kenlm"
    path.write_bytes(damage(BINARY.read_bytes()))
    with pytest.raises(ValueError, match=f"broken.kenlm' .*{message}"):
        BeamSearchDecoder(language_model=path, lexicon=["ab"])


def test_a_binary_without_its_words_needs_a_lexicon(words_arpa, tmp_path):
    content = BINARY.read_bytes()
    path = tmp_path / "bare.kenlm"  # as by build_binary -v
    path.write_bytes(
        content[:100] + b"\0" + content[101 : content.rindex(b"<unk>\0")]
    )
    with pytest.raises(ValueError, match="it has none. Pass a `lexicon`"):
        BeamSearchDecoder(ALPHABET, path)
    logits = random_logits(5)
    bare = BeamSearchDecoder(ALPHABET, path, ["a", "ab", "ba"], **EVERYTHING)
    full = BeamSearchDecoder(ALPHABET, words_arpa, **EVERYTHING)
    assert_scores(
        bare(logits, [5])[0], {h.text: h.score for h in full(logits, [5])[0]}
    )


@pytest.mark.parametrize(
    "content, message",
    [
        (b"", "has no words"),
        (b"ten\n10\n2nd\n", "has 2 words that the alphabet .* as '10'"),
        (b"\xff\xfe", "cannot be read as a text file"),
    ],
)
def test_invalid_lexicons(tmp_path, content, message):
    path = tmp_path / "broken.txt"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=f"broken.txt' {message}"):
        BeamSearchDecoder(lexicon=path)


def test_a_missing_lexicon():
    with pytest.raises(ValueError, match="'no/such.txt' cannot be read"):
        BeamSearchDecoder(lexicon="no/such.txt")


# === Arguments ===


@pytest.mark.parametrize(
    "arguments, message",
    [
        ({"beam_width": 0}, "`beam_width` must be a positive integer"),
        ({"beam_width": 2.5}, "`beam_width` must be a positive integer"),
        ({"top_paths": 0}, "`top_paths` must be a positive integer"),
        ({"top_paths": 65}, "`top_paths` must not exceed `beam_width`"),
        ({"lm_weight": -1.0}, "`lm_weight` must not be negative"),
        ({"lm_weight": math.nan}, "`lm_weight` must be a finite number"),
        ({"lm_weight": math.inf}, "`lm_weight` must be a finite number"),
        ({"word_score": math.inf}, "`word_score` must be a finite number"),
        (
            {"lexicon": ["ab"], "hot_words": {"ab": math.nan}},
            r"`hot_words\['ab'\]` must be a finite number",
        ),
        (
            {"lexicon": ["ab"], "hot_words": {"ab": "5"}},
            r"`hot_words\['ab'\]` must be a finite number",
        ),
        ({"beam_threshold": -1.0}, "`beam_threshold` must not be negative"),
        ({"blank_index": -1}, "`blank_index` must be from 0 to 28"),
        ({"blank_index": 29}, "`blank_index` must be from 0 to 28"),
        ({"alphabet": ""}, "`alphabet` must have characters"),
        ({"alphabet": "aba"}, "`alphabet` must have characters, each once"),
        ({"alphabet": "ab", "lexicon": ["ab"]}, "`alphabet` with a space"),
        ({"lexicon": []}, "`lexicon` has no words"),
        ({"lexicon": ["two words"]}, "`lexicon` has 1 words"),
        ({"word_score": 1.0}, "`hot_words` and `word_score` need words"),
        ({"hot_words": {"ab": 1.0}}, "need words: pass `lexicon`"),
        (
            {"lexicon": ["ab"], "hot_words": {"a b": 1.0}},
            "`hot_words` must be single words",
        ),
    ],
)
def test_invalid_arguments(arguments, message):
    with pytest.raises(ValueError, match=message):
        BeamSearchDecoder(**arguments)


def test_words_need_words_of_a_model_of_characters(characters_arpa):
    with pytest.raises(ValueError, match="need words"):
        BeamSearchDecoder(ALPHABET, characters_arpa, word_score=1.0)


@pytest.mark.parametrize("shape", [(5, 31), (1, 5, 28)])
def test_invalid_logits(shape):
    with pytest.raises(ValueError, match="`logits` must be of shape"):
        BeamSearchDecoder()(np.zeros(shape), [5])


@pytest.mark.parametrize("length", [5, [5], [5, 6], [5, -1], [5, 5, 5]])
def test_invalid_lengths(length):
    with pytest.raises(ValueError, match="`logit_length` must be 2 numbers"):
        BeamSearchDecoder()(np.zeros((2, 5, 31)), length)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_logits_that_are_not_finite(any_decoder, value):
    logits = random_symbols(2, 5)
    logits[1, 2, 3] = value
    with pytest.raises(ValueError, match="Those of utterance 1 of the batch"):
        any_decoder(logits, [5, 5])


def test_the_missing_extra_is_named(monkeypatch, words_arpa):
    monkeypatch.setitem(sys.modules, "flashlight.lib.text.decoder", None)
    for arguments in ({"language_model": words_arpa}, {"lexicon": ["ab"]}):
        with pytest.raises(ImportError, match=r'pip install "keras_ds2\[lm\]"'):
            BeamSearchDecoder(ALPHABET, **arguments)
    assert BeamSearchDecoder(ALPHABET)(random_logits(2), [2])


# === With a model ===


@pytest.fixture(scope="module")
def model():
    keras.utils.set_random_seed(20)
    return DeepSpeech2(num_rnn_layers=1, rnn_units=8, dense_units=8)


def test_transcribe_with_a_decoder(model, dev_clips):
    clips = [dev_clips[0][:size] for size in (9600, 3200, 6400)]
    decoder = BeamSearchDecoder(lexicon=["to", "ten"], beam_width=4)
    texts = model.transcribe(clips, decoder=decoder)
    outputs = model.predict_on_batch(pad_samples(clips))
    assert texts == texts_of(
        decoder(outputs["logits"], outputs["logit_length"])
    )
    assert len(set(texts)) > 1
    assert model.frame_duration == 0.02


@pytest.mark.parametrize("arguments", [{"alphabet": "ab"}, {"blank_index": 1}])
def test_a_decoder_of_other_symbols_is_refused(model, arguments):
    [name] = arguments
    with pytest.raises(ValueError, match=f"must have the model's `{name}`"):
        model.transcribe(
            ["missing.wav"], decoder=BeamSearchDecoder(**arguments)
        )
