"""Oracles: a tone's frequency and length, powers measured apart, and equality
of what is drawn twice."""

import numpy as np
import pytest
import soundfile

import keras_ds2
from keras_ds2.data import Augmentation

RATE = 16000


def tone(frequency, seconds=1.0):
    time = np.arange(round(RATE * seconds)) / RATE
    return (0.5 * np.sin(2 * np.pi * frequency * time)).astype("float32")


def generator(seed=0):
    return np.random.default_rng(seed)


@pytest.fixture
def noises(tmp_path):
    """A folder of two noises, of 0.3 s and of 5 s, and of what is no audio."""
    folder = tmp_path / "noises"
    (folder / "street").mkdir(parents=True)
    for name, seconds in (("a.wav", 0.3), ("street/b.flac", 5)):
        noise = 0.1 * generator(7).normal(size=round(RATE * seconds))
        soundfile.write(folder / name, noise, RATE)
    (folder / "README.txt").write_text("not audio")
    (folder / "._a.wav").write_text("left by macOS")
    return folder


def test_off_by_default(train_clips):
    for clip in train_clips:
        altered = Augmentation()(clip, RATE, generator())
        np.testing.assert_array_equal(altered, clip)


@pytest.mark.parametrize("speed", [0.5, 0.9, 0.93, 1.1, 2.0])
def test_speed_moves_a_tone(speed):
    samples = Augmentation((speed,))(tone(1000), RATE, generator())
    assert samples.dtype == np.float32
    assert abs(len(samples) - RATE / speed) <= 1
    spectrum = np.abs(np.fft.rfft(samples * np.hanning(len(samples))))
    peak = np.argmax(spectrum) * RATE / len(samples)
    assert peak == pytest.approx(1000 * speed, abs=RATE / len(samples))
    # Heard as loud as before.
    assert samples.std() == pytest.approx(tone(1000).std(), rel=0.01)


def test_speeds_have_equal_chances():
    augmentation = Augmentation((0.8, 1.0, 1.25))
    draw = generator()
    lengths = [
        len(augmentation(np.ones(400, "float32"), RATE, draw))
        for _ in range(600)
    ]
    values, counts = np.unique(lengths, return_counts=True)
    assert values.tolist() == [320, 400, 500]
    assert counts.min() > 150  # 200 are expected; 150 are 4 deviations off.
    assert augmentation.slowest_speed == 0.8
    assert Augmentation((1.1,)).slowest_speed == 1.0


def test_no_speed_leaves_less_than_a_window():
    fast = Augmentation((1.1,))
    for length in (400, 439, 440, 441, 500):
        samples = fast(np.ones(length, "float32"), RATE, generator(), 400)
        assert len(samples) in (length, round(length / 1.1))
        assert len(samples) >= 400


@pytest.mark.parametrize("snr", [-5.0, 0.0, 12.5, 30.0])
@pytest.mark.parametrize("seed", range(4))
def test_noise_has_the_ratio_asked_for(snr, seed, noises, train_clips):
    clip = train_clips[seed]
    augmentation = Augmentation(noise_folder=noises, noise_snr=(snr, snr))
    noise = augmentation(clip, RATE, generator(seed)) - clip
    ratio = 10 * np.log10(np.mean(clip**2) / np.mean(noise**2))
    assert ratio == pytest.approx(snr, abs=0.1)
    # All along the utterance, also where the file is shorter.
    quarters = np.array_split(noise, 4)
    assert min(part.std() for part in quarters) > 0.5 * noise.std()


def test_snr_is_drawn_from_the_range(noises, train_clips):
    clip = train_clips[0]
    augmentation = Augmentation(noise_folder=noises, noise_snr=(10, 20))
    ratios = [
        10 * np.log10(np.mean(clip**2) / np.mean((noisy - clip) ** 2))
        for noisy in (
            augmentation(clip, RATE, generator(seed)) for seed in range(40)
        )
    ]
    assert 9.9 < min(ratios) < 12 and 18 < max(ratios) < 20.1
    augmentation = Augmentation(noise_folder=noises, noise_probability=0.4)
    num_noisy = sum(
        np.any(augmentation(clip, RATE, generator(seed)) != clip)
        for seed in range(100)
    )
    assert 25 < num_noisy < 55  # 40 are expected; 3 deviations


def test_noise_starts_anywhere(noises):
    (noises / "a.wav").unlink()
    # One file at one ratio: only the place in it is left to chance.
    augmentation = Augmentation(noise_folder=noises, noise_snr=(10, 10))
    clip = tone(500, 0.05)
    stretches = {
        augmentation(clip, RATE, generator(seed)).tobytes() for seed in range(9)
    }
    assert len(stretches) == 9


def peak(samples, rate):
    """The strongest frequency, in Hz."""
    spectrum = np.abs(np.fft.rfft(samples * np.hanning(len(samples))))
    return np.argmax(spectrum) * rate / len(samples)


def test_every_file_is_used(tmp_path):
    for frequency in (1000, 2000, 3000):
        soundfile.write(tmp_path / f"{frequency}.wav", tone(frequency), RATE)
    augmentation = Augmentation(noise_folder=tmp_path, noise_snr=(0, 0))
    clip = tone(500)
    found = {
        round(peak(augmentation(clip, RATE, generator(seed)) - clip, RATE))
        for seed in range(30)
    }
    assert found == {1000, 2000, 3000}
    assert augmentation.get_config()["noise_files"] == 3


@pytest.mark.parametrize("rate", [8000, 22050])
def test_noise_is_resampled_to_the_models_rate(tmp_path, rate):
    soundfile.write(tmp_path / "a.wav", tone(1000, 3.0), RATE)
    augmentation = Augmentation(noise_folder=tmp_path, noise_snr=(0, 0))
    clip = np.full(rate, 0.5, "float32")
    noise = augmentation(clip, rate, generator()) - clip
    assert peak(noise, rate) == pytest.approx(1000, abs=2)


def test_a_silent_stretch_of_noise_adds_nothing(tmp_path):
    noise = np.zeros(60 * RATE)
    noise[-100:] = 0.5
    soundfile.write(tmp_path / "a.wav", noise, RATE)
    augmentation = Augmentation(noise_folder=tmp_path)
    clip = tone(500, 0.05)
    for seed in range(5):
        altered = augmentation(clip, RATE, generator(seed))
        np.testing.assert_array_equal(altered, clip)


def test_silence_stays_silence(noises, tmp_path):
    silence = np.zeros(8000, "float32")
    augmentation = Augmentation(noise_folder=noises)
    np.testing.assert_array_equal(
        augmentation(silence, RATE, generator()), silence
    )


def test_gain_in_decibels(train_clips):
    clip = train_clips[0]
    louder = Augmentation(gain=(6.0, 6.0))(clip, RATE, generator())
    np.testing.assert_allclose(louder, clip * 10**0.3, rtol=1e-5)
    assert louder.dtype == np.float32
    gains = [
        Augmentation(gain=(-6, 3))(clip, RATE, generator(seed)).std()
        / clip.std()
        for seed in range(40)
    ]
    assert 0.5 < min(gains) < 0.6 and 1.2 < max(gains) < 1.42


def test_the_generator_decides(noises, train_clips):
    augmentation = Augmentation((0.9, 1.0, 1.1), noises, gain=(-6, 6))
    clip = train_clips[0]
    first = augmentation(clip, RATE, generator(3))
    again = Augmentation((0.9, 1.0, 1.1), noises, gain=(-6, 6))
    np.testing.assert_array_equal(again(clip, RATE, generator(3)), first)
    assert augmentation(clip, RATE, generator(4)).tobytes() != first.tobytes()


def test_config_names_no_folder(noises, tmp_path):
    first = Augmentation((0.9, 1.0), noises, (5, 15), 0.4, (-3, 3))
    moved = noises.rename(tmp_path / "elsewhere")
    second = Augmentation((0.9, 1.0), moved, (5, 15), 0.4, (-3, 3))
    assert first.get_config() == second.get_config()
    config = first.get_config()
    (moved / "a.wav").rename(moved / "c.wav")
    third = Augmentation((0.9, 1.0), moved, (5, 15), 0.4, (-3, 3))
    assert third.get_config() != config
    # Another file under the old name; what was made before keeps its own.
    (moved / "c.wav").unlink()
    soundfile.write(moved / "a.wav", tone(500, 0.4), RATE)
    fourth = Augmentation((0.9, 1.0), moved, (5, 15), 0.4, (-3, 3))
    assert fourth.get_config() != config
    assert first.get_config() == config


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"speeds": ()}, r"`speeds` must be factors.*speeds=\(\)"),
        ({"speeds": (1.0, 0.0)}, "`speeds` must be"),
        ({"speeds": (float("nan"),)}, "`speeds` must be"),
        ({"noise_snr": (20, 10)}, r"`noise_snr` must.*noise_snr=\(20, 10\)"),
        ({"noise_snr": (0, float("inf"))}, "`noise_snr` must"),
        ({"noise_snr": 10}, "`noise_snr` must be the lowest and"),
        ({"noise_snr": (-200, 10)}, "`noise_snr` must.* from -100 to 100"),
        ({"gain": (3, -3)}, "`gain` must"),
        ({"gain": (float("nan"), 3)}, "`gain` must"),
        ({"gain": (0, 1e6)}, "`gain` must"),
        ({"gain": (0, 1, 2)}, "`gain` must"),
        ({"noise_probability": 1.5}, "`noise_probability` must be from 0"),
        ({"noise_folder": "/absent"}, "noise_folder='/absent', which holds no"),
    ],
)
def test_invalid_arguments(arguments, message):
    with pytest.raises(ValueError, match=message):
        Augmentation(**arguments)


def test_bad_noise_is_an_early_error(noises):
    (noises / "c.wav").write_bytes(b"no audio")
    with pytest.raises(keras_ds2.AudioError, match="c.wav' cannot be read"):
        Augmentation(noise_folder=noises)
    soundfile.write(noises / "c.wav", np.zeros(100), RATE)
    with pytest.raises(keras_ds2.AudioError, match="c.wav' holds only zeros"):
        Augmentation(noise_folder=noises)
