"""Oracle: damaged files either give something valid, checked here, or an error
of ours that names the file. Batches run in an interpreter of their own, so
that a crash, a hang or a flood of memory names its seed, too.

One seed again, by itself: `python tests/test_fuzz.py FOLDER SEED 1`.
"""

import contextlib
import json
import math
import pathlib
import resource
import signal
import subprocess
import sys

import numpy as np
import pytest
import soundfile

DATA = pathlib.Path(__file__).parent / "data" / "LibriSpeech"
FORMATS = {
    "wav": {"subtype": "PCM_16"},
    "float.wav": {"format": "WAV", "subtype": "FLOAT"},
    "flac": {},
    "opus": {"format": "OGG", "subtype": "OPUS"},
}
LENGTHS = [0, 1, 2**15, 2**16 - 1, 2**31 - 1, 2**31, 2**32 - 2, 2**32 - 1]
VALUES = [
    *(None, True, False, 0, -1, 1, 1e-320, 1e300, -0.0, 10**4000, 16000),
    *(math.nan, math.inf, -math.inf, "", " ", "nan", "\0", "\ud800", "é"),
    *("go" * 5000, "..", "/", "clip.wav\0", [], ["go"], {}, {"text": "go"}),
]
# A row that has all keys, and one that has few.
KEYS = ["audio", "audio_filepath", "text", "duration", "speaker", "offset"]


# === Damage ===


def damage(content, draw):
    """Returns bytes with one to three faults."""
    content = bytearray(content)
    for _ in range(draw.integers(1, 4)):
        content = DAMAGES[draw.integers(len(DAMAGES))](content, draw)
    return bytes(content)


def flip_bits(content, draw):
    for place in draw.integers(len(content), size=draw.integers(1, 20)):
        content[place] ^= 1 << draw.integers(8)
    return content


def flip_header_bits(content, draw):
    content[:96] = flip_bits(content[:96], draw)
    return content


def set_length(content, draw):
    place = 4 * draw.integers(24)
    value = LENGTHS[draw.integers(len(LENGTHS))]
    order = ("little", "big")[draw.integers(2)]
    content[place : place + 4] = value.to_bytes(4, order)
    return content


def truncate(content, draw):
    return content[: draw.integers(len(content))] or bytearray(b"\0")


def stretch(content, draw):
    first, last = sorted(draw.integers(len(content), size=2))
    return first, last + 1


def remove(content, draw):
    first, last = stretch(content, draw)
    return content[:first] + content[last:] or bytearray(b"\0")


def repeat(content, draw):
    first, last = stretch(content, draw)
    return content[:last] + content[first:]


def overwrite(content, draw):
    first, last = stretch(content, draw)
    last = min(last, first + draw.integers(1, 500))
    content[first:last] = draw.bytes(last - first)
    return content


def append(content, draw):
    return content + draw.bytes(draw.integers(1, 500))


def forget(content, draw):
    return bytearray(draw.bytes(draw.integers(1, 1000)))


DAMAGES = [
    flip_bits,
    flip_header_bits,
    flip_header_bits,
    set_length,
    set_length,
    truncate,
    remove,
    repeat,
    overwrite,
    append,
    forget,
]


def damage_row(row, draw):
    """Returns a line of a manifest with one fault in its keys or values."""
    row = dict(row)
    key = KEYS[draw.integers(len(KEYS))]
    kind = draw.integers(4)
    if kind == 0:
        row.pop(key, None)
    else:
        row[key] = VALUES[draw.integers(len(VALUES))]
    line = json.dumps(row)
    if kind == 1:  # the key twice
        line = line[:-1] + f', "{key}": "go"}}'
    elif kind == 2 and draw.random() < 0.2:
        line = "[" * 100_000
    return line


# === Checks ===


def check_audio(path):
    from keras_ds2.audio import AudioError, audio_duration, load_audio

    try:
        duration = audio_duration(path)
        assert type(duration) is float and 0 < duration < math.inf
        samples = load_audio(path)
    except AudioError as error:
        assert path in str(error), error
        return error.reason
    assert samples.dtype == np.float32 and samples.ndim == 1
    assert len(samples) and np.all(np.isfinite(samples))
    # What the features square must stay finite, too.
    assert np.all(np.isfinite(np.square(samples) * 400 * 512))
    # Headers of MP3 files estimate.
    assert abs(len(samples) / 16000 - duration) <= 0.05 + 0.05 * duration
    return "valid"


def check_manifest(path, folder):
    from keras_ds2.audio import AudioError
    from keras_ds2.data import (
        CorpusError,
        add_durations,
        check_utterances,
        read_manifest,
    )

    try:
        rows, _ = add_durations(
            read_manifest(path), cache_dir=f"{folder}/cache", progress=False
        )
        rows, _ = check_utterances(rows, lambda n: n // 320)
    except CorpusError as error:
        assert f"{path}:" in str(error) or f"'{path}' is empty" in str(error)
        return "refused"
    except AudioError as error:
        assert error.path in str(error)
        return error.reason
    assert rows
    for row in rows:
        assert pathlib.Path(row.audio).is_file()
        assert set(row.text) <= set(" 'abcdefghijklmnopqrstuvwxyz")
        assert type(row.duration) is float and 0 < row.duration <= 1e6
        assert type(row.speaker) is str and row.source.startswith(f"{path}:")
        row.speaker.encode()
    return "valid"


def check_one(seed, folder):
    draw = np.random.default_rng(seed)
    if seed % 4 == 3:
        path = f"{folder}/{seed}.jsonl"
        rows = [
            {
                "audio": "clip.flac",
                "text": "Go on",
                "duration": 0.4,
                "offset": 0,
            },
            {"audio_filepath": "clip.wav", "text": "", "speaker": 7},
        ]
        lines = [json.dumps(row) for row in rows]
        place = draw.integers(2)
        if draw.random() < 0.7:
            lines[place] = damage_row(rows[place], draw)
            content = "\n".join(lines).encode()
        else:
            content = damage("\n".join(lines).encode(), draw)
        pathlib.Path(path).write_bytes(content)
        return check_manifest(path, folder)
    suffixes = list(FORMATS)
    suffix = suffixes[draw.integers(4)]
    content = damage(pathlib.Path(f"{folder}/clip.{suffix}").read_bytes(), draw)
    if draw.random() < 0.2:
        suffix = [*suffixes, "mp3", "raw", "txt"][draw.integers(7)]
    path = f"{folder}/{seed}.{suffix}"
    pathlib.Path(path).write_bytes(content)
    return check_audio(path)


# === Processes ===


def main(folder, first, count):
    """Writes a line per seed: before the check, and after it."""
    import keras_ds2  # noqa: F401, before memory is limited

    clip = next(DATA.glob("dev-clips/*/*/*.opus"))
    samples, rate = soundfile.read(clip, dtype="float32")
    for suffix, options in FORMATS.items():
        path = f"{folder}/clip.{suffix}"
        soundfile.write(path, samples[16000:22400], rate, **options)
        assert check_audio(path) == "valid"
    pages = int(pathlib.Path("/proc/self/statm").read_text().split()[0])
    limit = pages * resource.getpagesize() + 2**30
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    for seed in range(first, first + count):
        print(seed, end=" ", flush=True)
        signal.alarm(20)  # the end, if it hangs
        try:
            result = check_one(seed, folder)
        except Exception as error:
            result = f"FAILED {type(error).__name__}: {str(error)[:200]!r}"
        print(result, flush=True)
        for path in pathlib.Path(folder).glob(f"{seed}.*"):
            path.unlink()


def run(folder, first, count):
    result = subprocess.run(
        [sys.executable, __file__, folder, str(first), str(count)],
        cwd=pathlib.Path(__file__).parent.parent,
        capture_output=True,
        text=True,
        timeout=90 + count // 4,
    )
    lines = result.stdout.splitlines()
    assert result.returncode == 0, (
        f"seed {lines[-1] if lines else '?'} ended the process: "
        f"{result.returncode}\n{result.stderr[-2000:]}"
    )
    assert len(lines) == count
    assert not [line for line in lines if "FAILED" in line]
    return [line.split()[1] for line in lines]


def test_damaged_files(tmp_path):
    results = run(tmp_path, first=0, count=80)
    assert {"valid", "unreadable", "refused"} <= set(results)


@pytest.mark.slow
@pytest.mark.parametrize("first", range(1000, 3000, 500))
def test_many_damaged_files(first, tmp_path):
    run(tmp_path, first, count=500)


if __name__ == "__main__":
    with contextlib.suppress(BrokenPipeError):
        main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))
