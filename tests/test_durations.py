"""Oracles: the lengths that were written; for the cache, the number of
headers that are opened."""

import json
import os
import warnings

import numpy as np
import pytest
import soundfile

from keras_ds2.audio import AudioError, audio_duration
from keras_ds2.data import durations
from keras_ds2.data.corpus import Utterance
from keras_ds2.data.durations import add_durations


@pytest.fixture(autouse=True)
def opened(monkeypatch):
    """Counts the headers opened, by path."""
    paths = []

    def spy(path):
        paths.append(path)
        return audio_duration(path)

    monkeypatch.setattr(durations, "audio_duration", spy)
    return paths


@pytest.fixture
def rows(tmp_path):
    """Five clips of 0.1 to 0.5 s."""
    rows = []
    for tenths in range(1, 6):
        path = str(tmp_path / f"{tenths}.wav")
        soundfile.write(path, np.zeros(800 * tenths), 8000)
        rows.append(Utterance(path, "go"))
    return rows


def index(rows, tmp_path, **kwargs):
    kwargs = {"cache_dir": tmp_path / "cache", "progress": False, **kwargs}
    return add_durations(rows, **kwargs)


def seconds(rows):
    return [row.duration for row in rows]


EXPECTED = [0.1, 0.2, 0.3, 0.4, 0.5]


def test_durations_in_order(rows, tmp_path, monkeypatch):
    monkeypatch.setattr(durations, "_BLOCK_SIZE", 2)
    kept, rejected = index(iter(rows), tmp_path)
    assert rejected == []
    assert seconds(kept) == EXPECTED
    assert [row.audio for row in kept] == [row.audio for row in rows]


def test_known_durations_are_believed(rows, tmp_path, opened):
    kept, _ = index([rows[0]._replace(duration=9.0), rows[1]], tmp_path)
    assert seconds(kept) == [9.0, 0.2]
    assert opened == [rows[1].audio]


def test_cache_spares_the_headers(rows, tmp_path, opened, monkeypatch):
    index(rows[:3], tmp_path)
    opened.clear()
    monkeypatch.chdir(tmp_path)
    relative = [row._replace(audio=os.path.relpath(row.audio)) for row in rows]
    kept, _ = index(relative, tmp_path)
    assert seconds(kept) == EXPECTED
    assert sorted(opened) == ["4.wav", "5.wav"]
    assert os.listdir(tmp_path / "cache") == ["durations.json"]


def test_changed_file_is_read_again(rows, tmp_path):
    index(rows, tmp_path)
    path = rows[0].audio
    before = os.stat(path)
    soundfile.write(path, np.zeros(2400), 8000)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    kept, _ = index(rows[:1], tmp_path)
    assert seconds(kept) == [0.3]  # Another size, the same time.
    soundfile.write(path, np.zeros(2400), 4000)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns + 1))
    kept, _ = index(rows[:1], tmp_path)
    assert seconds(kept) == [0.6]  # The same size, another time.


@pytest.mark.parametrize(
    "content", [b"", b"{", b"\xff\xfe", b"[1]", b'{"a": "b"}']
)
def test_damaged_cache_is_replaced(rows, tmp_path, content):
    cache = tmp_path / "cache" / "durations.json"
    cache.parent.mkdir()
    cache.write_bytes(content)
    with pytest.warns(UserWarning, match="Cache of durations"):
        kept, _ = index(rows, tmp_path)
    assert seconds(kept) == EXPECTED
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        index(rows, tmp_path)
    assert sorted(json.loads(cache.read_bytes()).values()) == EXPECTED


def test_unwritable_cache_is_no_error(rows, tmp_path):
    (tmp_path / "file").touch()
    with pytest.warns(UserWarning, match="cannot be written"):
        kept, _ = index(rows, tmp_path, cache_dir=tmp_path / "file" / "cache")
    assert seconds(kept) == EXPECTED


def test_interrupted_write_keeps_the_old_cache(rows, tmp_path, monkeypatch):
    index(rows[:1], tmp_path)
    cache = tmp_path / "cache" / "durations.json"
    before = cache.read_bytes()

    def full_disk(*args):
        raise OSError("No space left on device")

    monkeypatch.setattr(os, "replace", full_disk)
    with pytest.warns(UserWarning, match="No space left"):
        index(rows, tmp_path)
    assert cache.read_bytes() == before
    assert os.listdir(cache.parent) == ["durations.json"]


@pytest.mark.parametrize("variable", ["XDG_CACHE_HOME", "HOME"])
def test_default_cache_dir(rows, tmp_path, monkeypatch, variable):
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setenv(variable, str(tmp_path))
    add_durations(rows, progress=False)
    folder = tmp_path if variable == "XDG_CACHE_HOME" else tmp_path / ".cache"
    assert (folder / "keras_ds2" / "durations.json").is_file()


def spoil(rows):
    os.remove(rows[1].audio)
    with open(rows[3].audio, "w") as file:
        file.write("not audio")


def test_unreadable_file_is_an_error(rows, tmp_path, opened):
    spoil(rows)
    with pytest.raises(AudioError, match="2.wav' does not exist"):
        index(rows, tmp_path)
    # What was read before the error is kept.
    opened.clear()
    index(rows[:1], tmp_path)
    assert opened == []


def test_unreadable_files_can_be_skipped(rows, tmp_path):
    spoil(rows)
    kept, rejected = index(rows, tmp_path, on_invalid="skip")
    assert seconds(kept) == [0.1, 0.3, 0.5]
    assert [row.utterance for row in rejected] == [rows[1], rows[3]]
    assert [row.reason for row in rejected] == ["missing", "unreadable"]
    assert rows[3].audio in rejected[1].detail


def test_report(rows, tmp_path, capsys):
    index(rows[:4], tmp_path)
    assert capsys.readouterr() == ("", "")
    known = Utterance("elsewhere.wav", "go", duration=1.0)
    index([*rows, known], tmp_path, progress=True)
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("Indexed 6 utterances (0.00 h) in ")
    assert err.endswith(" s, 4 from cache\n")


def test_invalid_on_invalid():
    with pytest.raises(ValueError, match="Received: on_invalid='drop'"):
        add_durations([], on_invalid="drop")
