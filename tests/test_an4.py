"""Oracles: the bundled clips of AN4, whose words are known, and corpora spoiled
by the test with one fault each."""

import shutil
from pathlib import Path

import numpy as np
import pytest
import soundfile

import keras_ds2
from keras_ds2.audio import load_audio
from keras_ds2.data import CorpusError, read_an4

DATA = Path(__file__).parent / "data"
TEXTS = {
    "an251-fash-b": "yes",
    "cen2-fash-b": "a m y",
    "cen3-ffmm-b": "fifty six thirty two",
    "an243-mdcs-b": "repeat",
    "cen4-mdcs-b": "f o r w a r d",
    "an174-mjda-b": "enter five",
    "cen8-mjda-b": "january twelfth nineteen sixty six",
}


@pytest.fixture
def corpus(tmp_path):
    """A copy of the bundled clips that a test may spoil."""
    return Path(shutil.copytree(DATA / "an4", tmp_path / "an4"))


def read_error(corpus, **kwargs):
    with pytest.raises(CorpusError) as caught:
        list(read_an4(corpus, **kwargs))
    return str(caught.value)


def test_bundled_clips():
    rows = list(read_an4(DATA / "an4"))
    assert {Path(row.audio).stem: row.text for row in rows} == TEXTS
    assert [Path(row.audio).stem for row in rows] == list(TEXTS)
    for row in rows:
        assert Path(row.audio).stem.split("-")[1] == row.speaker
        assert 0.5 < soundfile.info(row.audio).duration < 5
    assert rows[2].source.endswith("an4_train.transcription:3")
    assert list(read_an4(DATA)) == rows  # the parent will do


def test_test_half_has_no_marks(corpus):
    etc = corpus / "etc"
    (etc / "an4_test.fileids").write_text("an4_clstk/fash/an251-fash-b\n")
    (etc / "an4_test.transcription").write_text("YES (an251-fash-b)\n")
    [row] = read_an4(corpus, "test")
    assert (row.text, row.speaker) == ("yes", "fash")


@pytest.mark.parametrize("suffix", [".sph", ".wav", ".flac", ".ogg"])
def test_other_encodings(corpus, suffix):
    [expected, *_] = read_an4(corpus)
    samples = load_audio(expected.audio, 16000)
    target = Path(expected.audio).with_suffix(suffix)
    options = (
        {"format": "NIST", "subtype": "PCM_16"} if suffix == ".sph" else {}
    )
    soundfile.write(target, samples, 16000, **options)
    Path(expected.audio).unlink()
    [row, *_] = read_an4(corpus)
    assert row == expected._replace(audio=str(target))
    decoded = load_audio(row.audio, 16000)
    tolerance = 0.05 if suffix == ".ogg" else 1e-4
    np.testing.assert_allclose(decoded, samples, atol=tolerance)


def test_dots_in_ids_empty_transcripts_and_two_encodings(corpus):
    folder = corpus / "wav" / "x.y"
    folder.mkdir()
    (corpus / "etc" / "an4_train.fileids").write_text("x.y/a.b\r\n\r\n")
    (corpus / "etc" / "an4_train.transcription").write_text("<s> </s> (a.b)\n")
    for suffix in (".opus", ".flac", ".sph"):
        (folder / f"a.b{suffix}").touch()
    [row] = read_an4(corpus)
    assert (row.text, row.speaker) == ("", "x.y")
    assert row.audio.endswith("wav/x.y/a.b.flac")
    with pytest.raises(CorpusError, match="`split` must be 'train' or 'test'"):
        next(read_an4(corpus, "dev"))


def test_missing_files(corpus, tmp_path):
    message = read_error(tmp_path / "absent")
    assert "an4_train.transcription' does not exist. Pass the fold" in message
    assert "an4_test.transcription' does not" in read_error(
        corpus, split="test"
    )
    listing = corpus / "etc" / "an4_train.fileids"
    listing.write_text("\n")
    assert f"'{listing}' is empty. Unpack" in read_error(corpus)
    listing.unlink()
    assert f"'{listing}' does not exist" in read_error(corpus)


def test_missing_audio(corpus):
    [first, *_] = read_an4(corpus)
    audio = Path(first.audio)
    audio.rename(audio.with_suffix(".opus.part"))
    message = read_error(corpus)
    assert "an4_train.fileids:1: no audio, expected " in message
    assert f"'{audio.with_suffix('')}' with one of the endings" in message
    assert "remove the line" in message
    audio.with_suffix(".raw").touch()
    assert "take the archive with NIST SPHERE" in read_error(corpus)


@pytest.mark.parametrize(
    ("name", "before", "after", "expected"),
    [
        ("transcription", "<s> YES </s> (an251-fash-b)\n", "",
         "fileids:1: id 'an251-fash-b' has no transcript in "),
        ("transcription", "(an251-fash-b)", "an251-fash-b",
         "transcription:1: malformed line. Write"),
        ("transcription", "<s> REPEAT", "<s> RE(PEAT",
         "transcription:4: malformed line"),
        ("transcription", "(cen3-ffmm-b)", "(an251-fash-b)",
         "transcription:3: id 'an251-fash-b' stands already at "),
        ("fileids", "an4_clstk/ffmm/cen3-ffmm-b", "other/an251-fash-b",
         "fileids:3: id 'an251-fash-b' stands already at "),
        ("fileids", "an4_clstk/ffmm/cen3-ffmm-b\n", "",
         "transcription:3: id 'cen3-ffmm-b' does not stand in "),
        ("fileids", "an4_clstk/ffmm/cen3-ffmm-b", "cen3-ffmm-b",
         "fileids:3: malformed line. Write 'folder/SPEAKER/ID'"),
        ("fileids", "an4_clstk/ffmm/cen3-ffmm-b", "../ffmm/cen3-ffmm-b",
         "fileids:3: malformed line."),
        ("fileids", "an4_clstk/ffmm/cen3-ffmm-b", "/ffmm/cen3-ffmm-b",
         "fileids:3: malformed line."),
        ("fileids", "ffmm/cen3-ffmm-b", "ffmm/cen3-ffmm-b.opus",
         "'cen3-ffmm-b.opus' has no transcript in "),
    ],
)  # fmt: skip
def test_faults_are_named(corpus, name, before, after, expected):
    path = corpus / "etc" / f"an4_train.{name}"
    text = path.read_text()
    assert before in text
    path.write_text(text.replace(before, after))
    assert expected in read_error(corpus)


def test_prepare_dataset_selects_speakers(capsys):
    model = keras_ds2.DeepSpeech2(num_rnn_layers=1, rnn_units=4)

    def prepare(root, names, select=None):
        dataset = keras_ds2.data.prepare_dataset(
            root, names, model, batch_size=8, select=select
        )
        return {row.text for batch in dataset.batches for row in batch}

    assert prepare(DATA / "an4", ["an4_train"]) == set(TEXTS.values())
    assert prepare(
        DATA / "an4", ["an4_train"], lambda row: row.speaker == "mjda"
    ) == {"enter five", "january twelfth nineteen sixty six"}
    # Beside a subset of LibriSpeech.
    both = prepare(DATA, ["train-clips", "an4_train"])
    assert len(both) == 13 and "yes" in both
    with pytest.raises(CorpusError, match="No utterance of an4_train"):
        prepare(DATA, ["an4_train"], lambda row: False)
