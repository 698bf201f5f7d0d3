"""Oracle: logits whose best weights are known from a sum of logarithms."""

import pathlib

import keras
import numpy as np
import pytest

import keras_ds2
from keras_ds2 import BeamSearchDecoder, tune_decoder
from keras_ds2.data import SpeechDataset
from keras_ds2.training.decoder_tuning import DecoderTrial, DecoderTuning

DATA = pathlib.Path(__file__).parent / "data"
ALPHABET = " ab"
BLANK, SPACE, A, B = range(4)


@pytest.fixture(scope="module")
def rows(tmp_path_factory):
    rows = keras_ds2.data.read_librispeech(DATA / "LibriSpeech", ["dev-clips"])
    rows, _ = keras_ds2.data.add_durations(
        rows, cache_dir=tmp_path_factory.mktemp("cache"), progress=False
    )
    return rows


@pytest.fixture(scope="module")
def model():
    keras.utils.set_random_seed(0)
    return keras_ds2.DeepSpeech2(
        alphabet=ALPHABET, num_rnn_layers=1, rnn_units=2, dense_units=2
    )


def make_frames(*frames):
    """Logits from a dictionary, symbol to log odds, for each frame."""
    logits = np.full((len(frames), 6), -30.0, "float32")
    for row, odds in zip(logits, frames, strict=True):
        for symbol, value in odds.items():
            row[symbol] = value
    return logits


def make_case(model, rows, monkeypatch, cases):
    """A data set of texts that the model hears as the logits say.

    `cases` are two pairs of text and logits of equal shape. Returns the data
    set, and a list that grows with every prediction.
    """
    dataset = SpeechDataset(
        [
            row._replace(text=text)
            for row, (text, _) in zip(rows, cases, strict=True)
        ],
        batch_size=1,
        alphabet=ALPHABET,
    )
    heard = dict(cases)
    calls = []

    def predict_logits(inputs):
        [row] = dataset.batches[len(calls)]
        calls.append(row.text)
        logits = heard[row.text]
        return logits[None], np.array([len(logits)])

    monkeypatch.setattr(model, "predict_logits", predict_logits)
    return dataset, calls


@pytest.fixture
def weight_case(model, rows, monkeypatch):
    """Right at `lm_weight` above 1 / 2.763 = 0.36 and below 3 / 2.763 = 1.09.

    By `words.kenlm`, "ab" is 10 ** 1.2, or exp(2.763), times as probable as
    "a": -0.2 - 0.3 against -0.5 - 0.05 - 0.25 - 0.9. The network prefers "a"
    by exp(1) where "ab" was said, and by exp(3) where "a" was said.
    """
    cases = [
        ("ab", make_frames({A: 0.0}, {BLANK: 1.0, B: 0.0})),
        ("a", make_frames({A: 0.0}, {BLANK: 3.0, B: 0.0})),
    ]
    return make_case(model, rows, monkeypatch, cases)


@pytest.fixture
def score_case(model, rows, monkeypatch):
    """Right at `word_score` above 2 and below 4.

    The network prefers one word by exp(2) where two were said, and by exp(4)
    where one was.
    """
    cases = [
        ("a b", make_frames({A: 0.0}, {BLANK: 2.0, SPACE: 0.0}, {B: 0.0})),
        ("ab", make_frames({A: 0.0}, {BLANK: 4.0, SPACE: 0.0}, {B: 0.0})),
    ]
    return make_case(model, rows, monkeypatch, cases)


@pytest.fixture(scope="module")
def lm_decoder():
    return BeamSearchDecoder(ALPHABET, DATA / "words.kenlm")


@pytest.fixture(scope="module")
def lexicon_decoder():
    return BeamSearchDecoder(ALPHABET, lexicon=["a", "b", "ab"])


def test_finds_the_known_weight(model, weight_case, lm_decoder):
    dataset, calls = weight_case
    tuning = tune_decoder(
        model,
        dataset,
        lm_decoder,
        lm_weights=[1.5, 0.75, 0.25],
        word_scores=[0],
    )
    assert tuning.table == [
        DecoderTrial(64, 0.0, 0.25, 0, 0.5),
        DecoderTrial(64, 0.0, 0.75, 0, 0.0),
        DecoderTrial(64, 0.0, 1.5, 0, 0.5),
    ]
    assert tuning.best == tuning.table[1]
    assert tuning.greedy_wer == 0.5  # hears "a" twice
    assert tuning.on_border == ()
    assert tuning.warning == ""
    # Each utterance through the network once, whatever is tried.
    assert sorted(calls) == ["a", "ab"]
    assert tuning.decoder.lm_weight == 0.75
    assert lm_decoder.lm_weight == 0.5  # as it was


def test_finds_the_known_score(model, score_case, lexicon_decoder):
    dataset, _ = score_case
    tuning = tune_decoder(
        model, dataset, lexicon_decoder, [0], word_scores=[1, 3, 5]
    )
    # One of three words for two, counted once as replaced and once as lost.
    assert [trial.wer for trial in tuning.table] == [2 / 3, 0, 2 / 3]
    assert tuning.best.word_score == 3
    assert tuning.on_border == ()


@pytest.mark.parametrize(
    "lm_weights, best",
    [
        ([0.25, 0.5, 0.75, 1.0, 1.5], 0.75),  # of three the middle
        ([0.25, 0.5, 1.0, 1.5], 0.5),  # of two the lower
        ([0.1, 0.5, 0.6, 0.7, 0.8, 0.9, 1.5], 0.7),
    ],
)
def test_of_equals_the_middle(model, weight_case, lm_decoder, lm_weights, best):
    dataset, _ = weight_case
    tuning = tune_decoder(model, dataset, lm_decoder, lm_weights, [0, 0.1, 0.2])
    assert (tuning.best.lm_weight, tuning.best.word_score) == (best, 0.1)
    assert tuning.on_border == ()


def test_of_equals_the_narrowest_beam(model, weight_case, lm_decoder):
    dataset, _ = weight_case
    tuning = tune_decoder(
        model, dataset, lm_decoder, [0.75], [0], beam_widths=[32, 8, 16]
    )
    assert [trial.beam_width for trial in tuning.table] == [8, 16, 32]
    assert {trial.wer for trial in tuning.table} == {0}
    assert tuning.decoder.beam_width == tuning.best.beam_width == 8
    assert tuning.on_border == ()  # a narrower one would not be better


@pytest.mark.parametrize(
    "lm_weights, warning",
    [
        ([0.25, 0.75], "The best lm_weight, 0.75, is the largest that was"),
        ([0.75, 1.5], "The best lm_weight, 0.75, is the smallest that was"),
        ([0.75], ""),  # nothing to choose from
        ([0, 0.1], ""),  # all wrong, and below 0 is nothing
    ],
)
def test_a_best_on_the_border_is_told(
    model, weight_case, lm_decoder, lm_weights, warning
):
    dataset, _ = weight_case
    tuning = tune_decoder(model, dataset, lm_decoder, lm_weights, [0])
    assert tuning.on_border == (("lm_weight",) if warning else ())
    assert tuning.warning.startswith(warning)
    assert bool(tuning.warning) == bool(warning)
    assert ("Warning: " in tuning.report()) == bool(warning)


def test_both_borders():
    table = [
        DecoderTrial(beam_width, 0.0, 0.5, score, wer)
        for beam_width, wers in ((8, (0.4, 0.5)), (16, (0.3, 0.4)))
        for score, wer in zip((3.0, 5.0), wers, strict=True)
    ]
    tuning = DecoderTuning(table, table[2], None, 0.6, num_utterances=2)
    assert tuning.on_border == ("beam_width", "word_score")
    assert tuning.warning == (
        "The best beam_width, 16, is the largest that was tried. Try larger "
        "ones too. The best word_score, 3, is the smallest that was tried. "
        "Try smaller ones too."
    )


def test_no_prior_is_no_border():
    table = [DecoderTrial(8, p, 0.5, 0.0, 0.3 + p) for p in (0.0, 0.5)]
    assert DecoderTuning(table, table[0], None, 0.6, 2).on_border == ()
    assert DecoderTuning(table, table[1], None, 0.6, 2).on_border == (
        "prior_weight",
    )


@pytest.mark.parametrize(
    "arguments, message",
    [
        ({"lm_weights": []}, "`lm_weights` must not be empty"),
        ({"lm_weights": [0.5]}, "Leave them out"),
        ({"beam_widths": []}, "`beam_widths` must not be empty"),
        ({"lm_weights": [0], "beam_widths": [0]}, "`beam_width` must be a"),
        ({"lm_weights": [-1]}, "`lm_weights?` "),
        ({"prior_weights": []}, "`prior_weights` must not be empty"),
        ({"lm_weights": [0], "prior_weights": [-1]}, "`prior_weight` must not"),
    ],
)
def test_errors_come_before_the_work(
    model, score_case, lexicon_decoder, arguments, message
):
    dataset, calls = score_case
    with pytest.raises(ValueError, match=message):
        tune_decoder(model, dataset, lexicon_decoder, **arguments)
    with pytest.raises(ValueError, match="need words"):
        tune_decoder(
            model, dataset, BeamSearchDecoder(ALPHABET), word_scores=[1]
        )
    with pytest.raises(ValueError, match="the model's `alphabet`"):
        tune_decoder(
            model, dataset, BeamSearchDecoder("abcdef"), prior_weights=[1]
        )
    assert not calls


def test_what_is_tried_if_nothing_is_said(
    model, score_case, lexicon_decoder, lm_decoder
):
    dataset, calls = score_case
    for decoder, shape in (
        (BeamSearchDecoder(ALPHABET, beam_width=8), (1, 1)),
        (lexicon_decoder, (1, 5)),
        (lm_decoder, (6, 5)),
    ):
        tuning = tune_decoder(model, dataset, decoder)
        calls.clear()
        points = {(t.lm_weight, t.word_score) for t in tuning.table}
        assert len(tuning.table) == len(points) == shape[0] * shape[1]
        for count, values in zip(shape, zip(*points, strict=True), strict=True):
            assert len(set(values)) == count
            assert 0 in values
        assert {t.beam_width for t in tuning.table} == {decoder.beam_width}


@pytest.fixture
def prior_case(model, rows, monkeypatch):
    """Right with a prior that counts enough.

    The network hears "a" everywhere, by odds of exp(1) where "b" was said, and
    of exp(6) where "a" was.
    """
    b = make_frames({A: 1.0, B: 0.0})
    a = make_frames({A: 6.0, B: 0.0})
    return make_case(model, rows, monkeypatch, [("b", b), ("a", a)])


def test_finds_the_known_prior(model, prior_case, lexicon_decoder):
    dataset, calls = prior_case
    tuning = tune_decoder(
        model,
        dataset,
        lexicon_decoder,
        word_scores=[0],
        prior_weights=[0, 0.5, 1.0],
    )
    assert len(calls) == 2
    # Of a: (0.731 + 0.998) / 2; the odds of the two, 0.864 : 0.136, are less
    # than exp(1) at a weight of 0.5, and more at 1. Symbols that are never
    # told have their share.
    assert tuning.decoder.prior == pytest.approx(
        [1e-4, 1e-4, 0.864, 0.136], abs=1e-3
    )
    assert [trial.wer for trial in tuning.table] == [0.5, 0.5, 0.0]
    assert tuning.best.prior_weight == tuning.decoder.prior_weight == 1.0
    assert tuning.on_border == ("prior_weight",)
    assert "beam_width 64, prior_weight 0.5; lm_weight" in tuning.report()
    assert "beam_width 64, prior_weight 1; greedy" in tuning.report()
    assert lexicon_decoder.prior is None
    # A decoder that has a prior keeps it.
    calls.clear()
    given = tuning.decoder.with_weights(0.0, 0.0, prior_weight=0.25)
    given.prior = [1.0, 1.0, 1.0, 1.0]
    again = tune_decoder(model, dataset, given, word_scores=[0])
    assert again.decoder.prior == given.prior
    assert [trial.wer for trial in again.table] == [0.5]


def make_tuning():
    wers = [0.5, 0.4, 0.3, 0.25, 0.2, 0.35]
    table = [
        DecoderTrial(64, 0.0, weight, score, wers.pop(0))
        for weight in (0.0, 0.25, 0.5)
        for score in (-1.0, 1.0)
    ]
    return DecoderTuning(table, table[4], None, 0.625, 16)


def test_report():
    assert make_tuning().report() == (
        "WER in %, 16 utterances, beam_width 64; lm_weight down, word_score "
        "across\n"
        "              -1       1\n"
        "       0   50.00   40.00\n"
        "    0.25   30.00   25.00\n"
        "     0.5   20.00   35.00\n"
        "Best: 20.00 % at lm_weight 0.5, word_score -1, beam_width 64; greedy: "
        "62.50 %\n"
        "Warning: The best lm_weight, 0.5, is the largest that was tried. Try "
        "larger ones too. The best word_score, -1, is the smallest that was "
        "tried. Try smaller ones too."
    )


def test_heat_map(tmp_path, monkeypatch):
    from matplotlib import pyplot

    shown = []
    close = pyplot.close
    monkeypatch.setattr(
        pyplot, "close", lambda f: (shown.extend(f.axes), close(f))
    )
    path = tmp_path / "weights.png"
    make_tuning().plot(path)
    assert path.read_bytes().startswith(b"\x89PNG\r\n\x1a\n")
    grid = shown[0].images[0].get_array()
    np.testing.assert_allclose(grid, [[50, 40], [30, 25], [20, 35]])
    [mark] = shown[0].patches
    assert mark.get_xy() == (-0.5, 1.5)  # first column, last row
    assert not pyplot.get_fignums()
