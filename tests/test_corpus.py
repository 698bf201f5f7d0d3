"""Oracles: the bundled clips' known content, and corpora written by the test
with one fault each."""

import json
import math
import shutil
from pathlib import Path

import pytest
import soundfile

from keras_ds2.audio import audio_duration, load_audio
from keras_ds2.data.checks import check_utterances
from keras_ds2.data.corpus import CorpusError, Utterance
from keras_ds2.data.durations import add_durations
from keras_ds2.data.librispeech import read_librispeech
from keras_ds2.data.manifest import read_manifest
from keras_ds2.text import unknown_characters

DATA = Path(__file__).parent / "data"


@pytest.fixture
def clips(tmp_path):
    """A copy of the bundled clips that a test may spoil."""
    return Path(shutil.copytree(DATA / "LibriSpeech", tmp_path / "clips"))


def read_error(iterator):
    with pytest.raises(CorpusError) as caught:
        list(iterator)
    return str(caught.value)


def write_manifest(folder, *rows):
    soundfile.write(folder / "a.wav", [0.0] * 100, 16000)
    lines = [row if isinstance(row, str) else json.dumps(row) for row in rows]
    path = folder / "train.jsonl"
    path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    return path


# LibriSpeech.


def test_bundled_clips_end_to_end(tmp_path):
    rows = list(read_librispeech(DATA, ["train-clips", "dev-clips"]))

    # Sorted as strings within a subset, subsets in the order asked for.
    names = [Path(row.audio).stem for row in rows]
    assert names == [
        "19-198-0037",
        "1988-24833-0012",
        "2412-153948-0005",
        "251-118436-0001",
        "251-137823-0000",
        "2803-161169-0011",
        "174-168635-0021",
        "2277-149897-0012",
    ]
    assert rows[4] == Utterance(
        audio=str(
            DATA / "LibriSpeech/train-clips/251/137823/251-137823-0000.opus"
        ),
        text="i'll be glad to try sir he replied",
        duration=rows[4].duration,
        speaker="251",
        source=str(
            DATA / "LibriSpeech/train-clips/251/137823/251-137823.trans.txt"
        )
        + ":1",
        corpus="train-clips",
    )
    assert all(math.isnan(row.duration) for row in rows)
    assert not any(unknown_characters(row.text) for row in rows)

    rows, rejected = add_durations(rows, cache_dir=tmp_path, progress=False)
    kept, _ = check_utterances(rows, lambda num_samples: num_samples // 320)

    assert not rejected and kept == rows
    assert sum(row.duration for row in rows[:6]) <= 38
    for row in rows:
        samples = load_audio(row.audio)
        assert len(samples) == round(16000 * row.duration)
        assert 3 < audio_duration(row.audio) < 7
        assert samples.std() > 0.01  # Speech, not silence.


def test_root_is_the_folder_of_the_subsets_or_its_parent():
    inner = list(read_librispeech(DATA / "LibriSpeech", "dev-clips"))
    assert len(inner) == 2
    assert [row.text for row in inner] == [
        row.text for row in read_librispeech(DATA, ["dev-clips"])
    ]


def test_flac_is_read_before_other_encodings(clips):
    chapter = clips / "dev-clips/174/168635"
    (chapter / "174-168635-0021.wav").touch()
    (chapter / "174-168635-0021.flac").touch()
    (chapter / "._174-168635-0021.flac").touch()  # Left by macOS.
    rows = list(read_librispeech(clips, "dev-clips"))
    assert rows[0].audio == str(chapter / "174-168635-0021.flac")


def test_transcript_may_be_empty(clips):
    path = clips / "dev-clips/174/168635/174-168635.trans.txt"
    path.write_text("174-168635-0021\n\n")
    assert next(read_librispeech(clips, "dev-clips")).text == ""


def test_missing_root(tmp_path):
    message = read_error(read_librispeech(tmp_path / "no", ["dev-clean"]))
    assert f"'{tmp_path / 'no'}' does not exist" in message


def test_wrong_subset_lists_those_that_exist(clips):
    (clips / "README.TXT").touch()
    message = read_error(read_librispeech(clips, ["dev-clean"]))
    assert "'dev-clean' does not exist" in message
    assert "which holds: dev-clips, train-clips." in message


def test_empty_subset(clips):
    (clips / "test-clips" / "84" / "121123").mkdir(parents=True)
    message = read_error(read_librispeech(clips, ["dev-clips", "test-clips"]))
    assert "test-clips' holds no transcripts" in message


def test_transcript_without_audio(clips):
    chapter = clips / "dev-clips/174/168635"
    (chapter / "174-168635-0021.opus").unlink()
    message = read_error(read_librispeech(clips, ["dev-clips"]))
    assert message.startswith(f"{chapter / '174-168635.trans.txt'}:1: ")
    assert f"'{chapter / '174-168635-0021.flac'}'" in message


def test_audio_without_line(clips):
    chapter = clips / "dev-clips/174/168635"
    (chapter / "174-168635-0022.flac").touch()
    message = read_error(read_librispeech(clips, ["dev-clips"]))
    assert "1 audio file(s) without transcript" in message
    assert f"'{chapter / '174-168635-0022.flac'}'" in message
    assert "'174-168635-0022 TRANSCRIPT'" in message


def test_audio_without_transcript_file(clips):
    chapter = clips / "dev-clips/174/168635"
    (chapter / "174-168635.trans.txt").unlink()
    message = read_error(read_librispeech(clips, ["dev-clips"]))
    assert message.startswith(f"{chapter / '174-168635.trans.txt'}: ")
    assert "1 audio file(s) without transcript" in message


def test_malformed_line(clips):
    path = clips / "dev-clips/174/168635/174-168635.trans.txt"
    path.write_text(path.read_text() + "NO ID HERE\n")
    message = read_error(read_librispeech(clips, ["dev-clips"]))
    assert message.startswith(f"{path}:2: malformed line")
    assert "'174-168635-NUMBER TRANSCRIPT'" in message


def test_duplicate_id(clips):
    path = clips / "dev-clips/174/168635/174-168635.trans.txt"
    path.write_text(path.read_text() * 2)
    message = read_error(read_librispeech(clips, ["dev-clips"]))
    assert message.startswith(f"{path}:2: id '174-168635-0021'")
    assert f"at {path}:1" in message


def test_subset_given_twice(clips):
    message = read_error(read_librispeech(clips, ["dev-clips", "dev-clips"]))
    assert "stands already at" in message


def test_not_utf8(clips):
    path = clips / "dev-clips/174/168635/174-168635.trans.txt"
    path.write_bytes(path.read_bytes() + b"174-168635-0022 CAF\xe9\n")
    message = read_error(read_librispeech(clips, ["dev-clips"]))
    assert message.startswith(f"{path}:2: byte 20 of the line is not UTF-8")


def test_reading_streams(clips):
    rows = read_librispeech(clips, ["train-clips"])
    shutil.rmtree(clips / "train-clips" / "2803")  # The last speaker.
    assert next(rows).speaker == "19"
    assert len(list(rows)) == 4


# Manifests.


def test_manifest(tmp_path):
    path = write_manifest(
        tmp_path,
        {"audio": "a.wav", "text": "It\u2019s  GO", "duration": 2},
        "",
        {
            "audio_filepath": str(tmp_path / "a.wav"),
            "text": "",
            "duration": None,
            "speaker": 7,
            "offset": 0,
            "corpus": "mine",
            "license": "ignored",
        },
    )

    first, second = read_manifest(path)

    audio = str(tmp_path / "a.wav")
    assert first == Utterance(
        audio, "it's go", 2.0, "", f"{path}:1", corpus=path.stem
    )
    assert second._replace(duration=0) == Utterance(
        audio, "", 0, "7", f"{path}:3", corpus="mine"
    )
    assert math.isnan(second.duration)


def test_manifest_with_byte_order_mark(tmp_path):
    path = write_manifest(tmp_path, {"audio": "a.wav", "text": "go"})
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes())
    assert next(read_manifest(path)).text == "go"


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ("{'audio': 1}", "not JSON"),
        ('["a.wav", "go"]', "must be a JSON object"),
        ({"text": "go"}, "key `audio` is missing"),
        ({"audio": "a.wav"}, "key `text` is missing"),
        ({"audio": 3, "text": "go"}, "`audio` must be a path. Received: 3"),
        ({"audio": "a.wav", "text": ["go"]}, "`text` must be a string"),
        (
            {"audio": "a.wav", "text": "go", "duration": -1},
            "`duration` must be positive seconds. Received: -1",
        ),
        ({"audio": "a.wav", "text": "go", "duration": 0}, "`duration` must"),
        ({"audio": "a.wav", "text": "go", "duration": True}, "`duration` must"),
        ({"audio": "a.wav", "text": "go", "duration": "1"}, "`duration` must"),
        (
            '{"audio": "a.wav", "text": "go", "duration": NaN}',
            "`duration` must",
        ),
        ({"audio": "a.wav", "text": "go", "speaker": []}, "`speaker` must be"),
        ({"audio": "a.wav", "text": "go", "offset": 1.5}, "`offset` must be"),
        ({"audio_filepath": "b.wav", "text": "go"}, "of key `audio_filepath`"),
        ('{"audio": "a.wav", "text": "a", "text": "b"}', "a key stands twice"),
        (
            {"audio": "a.wav", "audio_filepath": "b.wav", "text": "go"},
            "`audio_filepath` must be absent beside `audio`",
        ),
        ({"audio": math.nan, "text": "go"}, "`audio` must be a path"),
        ({"audio": "\ud800", "text": "go"}, "does not exist"),
        ({"audio": "a.wav\0", "text": "go"}, "does not exist"),
        ({"audio": "a.wav", "text": "\ud800"}, "`text` must be a string"),
        ({"audio": "a.wav", "text": "go", "duration": 1e300}, "`duration`"),
        ({"audio": "a.wav", "text": "go", "duration": 10**400}, "`duration`"),
        ({"audio": "a.wav", "text": "go", "speaker": True}, "`speaker` must"),
        ({"audio": "a.wav", "text": "go", "offset": ""}, "`offset` must be"),
        ('{"audio": "a.wav", "duration": 1' + 5000 * "0" + "}", "not JSON"),
        (100_000 * "[", "not JSON"),
        ({"audio": "", "text": "go"}, "does not exist"),
    ],
)
def test_manifest_faults_name_the_line(tmp_path, row, message):
    path = write_manifest(tmp_path, {"audio": "a.wav", "text": "go"}, row)
    error = read_error(read_manifest(path))
    assert error.startswith(f"{path}:2: ")
    assert message in error


def test_missing_audio_is_named_with_its_folder(tmp_path):
    path = write_manifest(tmp_path, {"audio": "sub/b.wav", "text": "go"})
    error = read_error(read_manifest(path))
    assert f"'{tmp_path / 'sub' / 'b.wav'}' of key `audio`" in error


@pytest.mark.parametrize("content", ["", "\n \n"])
def test_empty_manifest(tmp_path, content):
    path = tmp_path / "train.jsonl"
    path.write_text(content)
    assert "is empty" in read_error(read_manifest(path))


def test_missing_manifest(tmp_path):
    message = read_error(read_manifest(tmp_path / "no.jsonl"))
    assert "no.jsonl' does not exist" in message
    assert "not a file" in read_error(read_manifest(tmp_path))
