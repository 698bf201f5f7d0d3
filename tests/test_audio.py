"""Oracles: the written samples (exact), a tone's formula (resampling), and
for broken files the fault that was put in."""

import os
import pickle
import re
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import soundfile

from keras_ds2.audio import (
    AudioError,
    audio_duration,
    load_audio,
    read_blocks,
)


def tone(sampling_rate, seconds=0.5, frequency=440.0):
    time = np.arange(round(sampling_rate * seconds)) / sampling_rate
    return 0.5 * np.sin(2 * np.pi * frequency * time)


def refusal(function, path, **kwargs):
    with pytest.raises(AudioError) as caught:
        function(path, **kwargs)
    assert caught.value.path == str(path)
    assert str(path) in str(caught.value)
    return caught.value


@pytest.mark.parametrize("suffix", ["wav", "flac"])
def test_16_bit_samples_are_exact(tmp_path, suffix):
    integers = np.array([-32768, -1, 0, 1, 32767], "int16")
    path = tmp_path / f"clip.{suffix}"
    soundfile.write(path, integers, 16000)

    samples = load_audio(path)

    assert samples.dtype == np.float32
    np.testing.assert_array_equal(samples, integers / 32768)


def test_float_samples_are_exact_and_not_clipped(tmp_path):
    written = np.array([0.25, -1.75, 3.0], "float32")
    soundfile.write(tmp_path / "clip.wav", written, 16000, subtype="FLOAT")
    np.testing.assert_array_equal(load_audio(tmp_path / "clip.wav"), written)


def test_ogg_opus_resembles_what_was_written(tmp_path):
    path = tmp_path / "clip.opus"
    written = tone(16000)
    soundfile.write(path, written, 16000, format="OGG", subtype="OPUS")

    samples = load_audio(path)

    assert samples.shape == written.shape
    # Lossy: measured 0.99.
    assert np.corrcoef(samples, written)[0, 1] > 0.95


@pytest.mark.parametrize("file_rate", [8000, 11025, 16000, 22050, 44100, 48000])
def test_any_rate_becomes_the_rate_asked_for(tmp_path, file_rate):
    path = tmp_path / "clip.wav"
    soundfile.write(path, tone(file_rate), file_rate, subtype="FLOAT")

    samples = load_audio(path, sampling_rate=16000)

    expected = tone(16000)
    assert samples.dtype == np.float32
    assert abs(len(samples) - len(expected)) <= 1
    # The ends ring; between them the resampler is good to 16 bits.
    inner = slice(1000, 7000)
    np.testing.assert_allclose(samples[inner], expected[inner], atol=1e-4)


def test_sampling_rate_is_heeded(tmp_path):
    soundfile.write(tmp_path / "clip.wav", tone(16000), 16000)
    assert load_audio(tmp_path / "clip.wav", 8000).shape == (4000,)


def test_channels_are_averaged(tmp_path):
    left = tone(16000).astype("float32") / 4
    stereo = np.stack([left, 3 * left], axis=1)
    soundfile.write(tmp_path / "clip.wav", stereo, 16000, subtype="FLOAT")
    samples = load_audio(tmp_path / "clip.wav")
    assert samples.shape == left.shape
    np.testing.assert_allclose(samples, 2 * left, atol=1e-7)


@pytest.mark.parametrize("suffix", ["wav", "flac", "ogg"])
def test_duration_needs_no_body(tmp_path, suffix):
    path = tmp_path / f"clip.{suffix}"
    soundfile.write(path, tone(8000, seconds=1.5), 8000)
    assert audio_duration(path) == 1.5
    if suffix == "flac":
        path.write_bytes(path.read_bytes()[:200])
        assert audio_duration(path) == 1.5


@pytest.mark.parametrize("function", [audio_duration, load_audio])
def test_missing_file(tmp_path, function):
    error = refusal(function, tmp_path / "clip.flac")
    assert error.reason == "missing"
    assert "does not exist" in str(error)


@pytest.mark.parametrize("function", [audio_duration, load_audio])
def test_folder(tmp_path, function):
    error = refusal(function, tmp_path)
    assert error.reason == "unreadable"
    assert "is a folder" in str(error)


@pytest.mark.parametrize("function", [audio_duration, load_audio])
@pytest.mark.parametrize("kind", ["pipe", "device"])
def test_what_is_no_regular_file(tmp_path, function, kind):
    path = "/dev/null"
    if kind == "pipe":
        path = tmp_path / "clip.wav"
        os.mkfifo(path)
    # To open a pipe that nobody writes into would never return.
    with ThreadPoolExecutor() as pool:
        future = pool.submit(refusal, function, path)
        try:
            error = future.result(timeout=10)
        except TimeoutError:
            os.close(os.open(path, os.O_WRONLY))  # lets the thread end
            raise
    assert error.reason == "unreadable"
    assert "is a pipe or a device. Pass the path of a regular" in str(error)


@pytest.mark.parametrize("function", [audio_duration, load_audio])
@pytest.mark.parametrize("name", ["clip.flac", "clip.wav", "clip.raw"])
def test_text_under_the_name_of_audio(tmp_path, function, name):
    path = tmp_path / name
    path.write_text("not audio at all")
    assert refusal(function, path).reason == "unreadable"


@pytest.mark.parametrize("kept", [0.3, 0.6, 0.99])
def test_truncated_flac(tmp_path, kept):
    path = tmp_path / "clip.flac"
    noise = np.random.default_rng(0).normal(scale=0.1, size=16000)
    soundfile.write(path, noise, 16000)
    content = path.read_bytes()
    path.write_bytes(content[: int(kept * len(content))])
    assert refusal(load_audio, path).reason == "unreadable"


@pytest.mark.parametrize("function", [audio_duration, load_audio])
def test_flac_without_length(tmp_path, function):
    path = tmp_path / "clip.flac"
    soundfile.write(path, tone(16000), 16000)
    content = bytearray(path.read_bytes())
    # STREAMINFO: the total number of samples is the 36 bits from byte 21.5.
    content[21] &= 0xF0
    content[22:26] = bytes(4)
    path.write_bytes(content)
    error = refusal(function, path)
    assert error.reason == "unreadable"
    assert "does not state the length" in str(error)


def set_num_samples(path, count):
    """Writes the length into a FLAC header: 36 bits from byte 21.5."""
    content = bytearray(path.read_bytes())
    content[21] = content[21] & 0xF0 | count >> 32
    content[22:26] = (count & 0xFFFFFFFF).to_bytes(4, "big")
    path.write_bytes(content)


@pytest.mark.parametrize("function", [audio_duration, load_audio])
def test_a_length_that_no_file_of_its_size_can_have(tmp_path, function):
    path = tmp_path / "clip.flac"
    soundfile.write(path, tone(16000), 16000)
    set_num_samples(path, 2**36 - 1)  # 256 GiB, were it believed
    error = refusal(function, path)
    assert error.reason == "unreadable"
    assert "states 68719476735 samples in" in str(error)
    # A long silence packs tightest, and is believed.
    soundfile.write(path, np.zeros(16000 * 600), 16000)
    assert function(path) is not None


@pytest.mark.parametrize("function", [audio_duration, load_audio])
@pytest.mark.parametrize("rate", [1, 999, 2**31 - 1])
def test_rates_that_no_recording_has(tmp_path, function, rate):
    soundfile.write(tmp_path / "clip.wav", tone(16000), rate)
    error = refusal(function, tmp_path / "clip.wav")
    assert error.reason == "unreadable"
    assert f"states a rate of {rate} Hz" in str(error)


def test_many_channels_take_little_memory(tmp_path, monkeypatch):
    path = tmp_path / "three.flac"
    soundfile.write(path, np.random.default_rng(0).normal(size=(999, 3)), 8000)
    expected = load_audio(path, 8000)
    reads = []
    read = soundfile.SoundFile.read

    def note(file, *arguments, **options):
        reads.append(read(file, *arguments, **options))
        return reads[-1]

    monkeypatch.setattr(soundfile.SoundFile, "read", note)
    monkeypatch.setattr("keras_ds2.audio._MOST_SAMPLES", 300)
    np.testing.assert_array_equal(load_audio(path, 8000), expected)
    [*_] = read_blocks(path, 8000)
    assert max(block.size for block in reads) == 300


@pytest.mark.parametrize("function", [audio_duration, load_audio])
def test_channels_that_no_recording_has(tmp_path, function):
    path = tmp_path / "many.wav"
    soundfile.write(path, np.zeros((99, 33)), 8000)
    with pytest.raises(AudioError, match="33 channels"):
        function(path)


def test_names_that_are_not_utf8(tmp_path):
    path = os.fsdecode(os.fsencode(tmp_path) + b"/caf\xe9.wav")
    soundfile.write(os.fsencode(path), tone(16000), 16000)
    assert audio_duration(path) == 0.5
    assert len(load_audio(path)) == 8000


@pytest.mark.parametrize("page", [2, -1])  # the first two are headers
def test_ogg_with_a_damaged_end_is_a_shorter_one(tmp_path, page):
    # As the docstrings say; a stated duration is what finds it.
    path = tmp_path / "clip.opus"
    noise = np.random.default_rng(0).normal(scale=0.1, size=8 * 16000)
    soundfile.write(path, noise, 16000, format="OGG", subtype="OPUS")
    assert audio_duration(path) == 8
    content = bytearray(path.read_bytes())
    pages = [m.start() for m in re.finditer(b"OggS", content)]
    content[pages[page] + 60] ^= 0xFF
    path.write_bytes(content)
    assert 6 < audio_duration(path) < 7.1
    assert len(load_audio(path)) == round(16000 * audio_duration(path))


def test_truncated_mp3(tmp_path):
    path = tmp_path / "clip.mp3"
    soundfile.write(path, tone(16000, seconds=5), 16000)
    load_audio(path)
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 3])
    assert audio_duration(path) == pytest.approx(5, abs=0.1)
    error = refusal(load_audio, path)
    assert error.reason == "unreadable"
    assert "it ends after 1." in str(error)
    assert "s that its header states" in str(error)


@pytest.mark.parametrize("function", [audio_duration, load_audio])
def test_no_samples(tmp_path, function):
    soundfile.write(tmp_path / "clip.wav", np.zeros(0), 16000)
    assert refusal(function, tmp_path / "clip.wav").reason == "empty"


def test_no_samples_after_resampling(tmp_path):
    soundfile.write(tmp_path / "clip.wav", np.zeros(1), 48000)
    assert refusal(load_audio, tmp_path / "clip.wav").reason == "empty"


@pytest.mark.parametrize("file_rate", [16000, 48000])
def test_samples_beyond_all_bounds(tmp_path, file_rate):
    path = tmp_path / "clip.wav"
    samples = tone(file_rate)
    samples[7] = -32768  # integers stored as floats
    soundfile.write(path, samples, file_rate, subtype="FLOAT")
    load_audio(path)
    samples[7] = -1e30
    soundfile.write(path, samples, file_rate, subtype="FLOAT")
    error = refusal(load_audio, path)
    assert error.reason == "out_of_range"
    assert "up to 1e+30, where full scale is 1" in str(error)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("file_rate", [16000, 48000])
def test_non_finite_samples(tmp_path, bad, file_rate):
    samples = tone(file_rate)
    samples[100:103] = bad
    path = tmp_path / "clip.wav"
    soundfile.write(path, samples, file_rate, subtype="FLOAT")
    error = refusal(load_audio, path)
    assert error.reason == "non_finite"
    assert f"3 NaN or infinite samples out of {len(samples)}" in str(error)


def test_limits_are_seconds_and_inclusive(tmp_path):
    path = tmp_path / "clip.wav"
    soundfile.write(path, tone(48000, seconds=0.5), 48000)

    load_audio(path, min_duration=0.5, max_duration=0.5)
    too_short = refusal(load_audio, path, min_duration=0.51)
    too_long = refusal(load_audio, path, max_duration=0.49)

    assert too_short.reason == "too_short"
    assert "0.500 s" in str(too_short) and "0.51" in str(too_short)
    assert too_long.reason == "too_long"
    assert "0.500 s" in str(too_long) and "0.49" in str(too_long)


def test_too_long_is_found_before_decoding(tmp_path):
    path = tmp_path / "clip.flac"
    soundfile.write(path, tone(16000), 16000)
    path.write_bytes(path.read_bytes()[:200])
    assert refusal(load_audio, path, max_duration=0.1).reason == "too_long"


def test_error_survives_pickling():
    error = AudioError("clip.wav", "empty", "holds no samples.")
    copy = pickle.loads(pickle.dumps(error))
    assert (copy.path, copy.reason) == ("clip.wav", "empty")
    assert str(copy) == "Audio file 'clip.wav' holds no samples."


# === Blocks ===


@pytest.mark.parametrize("block_duration", [0.01, 0.05, 0.5, 9.0])
def test_blocks_are_the_file(tmp_path, block_duration):
    path = tmp_path / "clip.wav"
    soundfile.write(
        path, np.stack([tone(16000), -tone(16000, 0.5, 7)], 1), 16000
    )
    blocks = list(read_blocks(path, 16000, block_duration))
    assert len(blocks) == max(round(0.5 / block_duration), 1)
    np.testing.assert_array_equal(np.concatenate(blocks), load_audio(path))


@pytest.mark.parametrize("file_rate", [8000, 11025, 44100, 48000])
def test_blocks_of_another_rate_join_without_a_seam(tmp_path, file_rate):
    path = tmp_path / "clip.wav"
    soundfile.write(path, tone(file_rate), file_rate, subtype="FLOAT")
    samples = np.concatenate(list(read_blocks(path, block_duration=0.037)))
    expected = load_audio(path)
    assert len(samples) == len(expected)
    np.testing.assert_allclose(samples, expected, atol=1e-4)


def test_faults_of_blocks_are_those_of_the_file(tmp_path):
    path = tmp_path / "clip.wav"
    samples = tone(16000)
    samples[7000] = np.nan
    soundfile.write(path, samples, 16000, subtype="FLOAT")
    blocks = read_blocks(path, block_duration=0.1)
    for _ in range(4):
        next(blocks)
    error = refusal(lambda _: next(blocks), path)
    assert error.reason == "non_finite"
    soundfile.write(path, np.zeros(0), 16000)
    assert refusal(lambda p: list(read_blocks(p)), path).reason == "empty"
    path = tmp_path / "clip.flac"
    soundfile.write(path, tone(16000, seconds=5.0), 16000)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    error = refusal(lambda p: list(read_blocks(p, block_duration=1.0)), path)
    assert error.reason == "unreadable"
