"""Oracles: the decoder that was saved, and files with one fault each."""

import json
import pathlib
import shutil

import numpy as np
import pytest

import keras_ds2

WORDS = pathlib.Path(__file__).parent / "data" / "words.kenlm"
ARGUMENTS = {
    "lexicon": ["ab", "a"],
    "beam_width": 7,
    "beam_threshold": 9.5,
    "lm_weight": 1.25,
    "word_score": -0.5,
    "prior": [0.4, 0.3, 0.2, 0.1],
    "prior_weight": 0.6,
    "hot_words": {"ba": 2.0},
}


def test_round_trip(tmp_path):
    folder = tmp_path / "here"
    (folder / "below").mkdir(parents=True)
    model = shutil.copy(WORDS, folder / "below")
    decoder = keras_ds2.BeamSearchDecoder(
        " ab", language_model=model, blank_index=2, **ARGUMENTS
    )
    keras_ds2.save_decoder(folder / "decoder.json", decoder)
    written = json.loads((folder / "decoder.json").read_text())
    assert written == {"language_model": "below/words.kenlm", **ARGUMENTS}
    # The folder can be moved as a whole.
    folder = folder.rename(tmp_path / "there")
    loaded = keras_ds2.load_decoder(folder / "decoder.json", " ab", 2)
    assert loaded.language_model == str(folder / "below/words.kenlm")
    assert loaded.alphabet == " ab" and loaded.blank_index == 2
    for key, value in ARGUMENTS.items():
        assert getattr(loaded, key) == value
    logits = np.random.default_rng(0).normal(size=(1, 20, 4))
    assert loaded(logits, [20]) == decoder(logits, [20])


def test_a_prior_may_be_an_array(tmp_path):
    path = tmp_path / "decoder.json"
    prior = np.full(4, 0.25, "float32")
    decoder = keras_ds2.BeamSearchDecoder(
        " ab", prior=prior, prior_weight=np.float32(0.5)
    )
    prior[0] = 0.0  # the decoder has its own
    keras_ds2.save_decoder(path, decoder)
    loaded = keras_ds2.load_decoder(path, " ab")
    assert (loaded.prior, loaded.prior_weight) == ([0.25] * 4, 0.5)


def test_what_lies_elsewhere_has_an_absolute_path(tmp_path, monkeypatch):
    (tmp_path / "words.txt").write_text("ab\nba\n")
    (tmp_path / "decoders").mkdir()
    monkeypatch.chdir(tmp_path)
    decoder = keras_ds2.BeamSearchDecoder(" ab", lexicon="words.txt")
    keras_ds2.save_decoder("decoders/a.json", decoder)
    monkeypatch.chdir("/")
    loaded = keras_ds2.load_decoder(tmp_path / "decoders/a.json", " ab")
    assert loaded.lexicon == str(tmp_path / "words.txt")


def test_what_is_absent_or_null_has_its_default(tmp_path):
    path = tmp_path / "decoder.json"
    path.write_text('{"beam_width": null, "lexicon": null}')
    loaded = keras_ds2.load_decoder(path)
    assert vars(loaded).keys() == vars(keras_ds2.BeamSearchDecoder()).keys()
    assert loaded.beam_width == 64 and loaded.lexicon is None


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "is not JSON"),
        ("[1]", r"must hold one JSON object. Received: \[1\]"),
        ('{"beam": 3, "alpha": 1}', "has unknown keys: alpha, beam. Known are"),
        ('{"alphabet": "ab"}', "has unknown keys: alphabet"),
        ('{"beam_width": 3.0}', "`beam_width` must be an integer. Rec.*: 3.0"),
        ('{"beam_width": true}', "`beam_width` must be an integer"),
        ('{"lm_weight": "1"}', "`lm_weight` must be a number"),
        ('{"language_model": 1}', "`language_model` must be a path"),
        ('{"lexicon": [1]}', "`lexicon` must be a path or a list of words"),
        ('{"hot_words": ["a"]}', "`hot_words` must be an object from word"),
        ('{"hot_words": {"a": "2"}}', "`hot_words` must be an object"),
        ('{"lm_weight": -1}', "decoder.json': `lm_weight` must not be neg"),
        ('{"language_model": "no.arpa"}', "no.arpa' does not exist"),
        ('{"word_score": 1}', "decoder.json': `hot_words` and `word_score`"),
    ],
)
def test_files_that_are_wrong(tmp_path, text, message):
    path = tmp_path / "decoder.json"
    path.write_text(text)
    with pytest.raises(ValueError, match=message) as caught:
        keras_ds2.load_decoder(path)
    assert str(path) in str(caught.value)
    path.unlink()
    with pytest.raises(ValueError, match="decoder.json' does not exist"):
        keras_ds2.load_decoder(path)
