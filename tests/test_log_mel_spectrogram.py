"""Oracles: the formula in float64 NumPy, librosa, and pure tones."""

import json
from pathlib import Path

import helpers
import keras
import librosa
import numpy as np
import pytest
import tensorflow as tf

from keras_ds2 import LogMelSpectrogram

DATA = Path(__file__).parent / "data"

# Float32 against float64 (or librosa's own float32), in the logarithm.
LOG_TOLERANCE = 1e-5
# A Fourier transform in float32 rounds all bins as the loudest amplitude.
AMPLITUDE_TOLERANCE = 1e-6
# Statistics of float32 frames, kept in float32.
STATISTICS_TOLERANCE = 1e-5

AROUND_ONE_FRAME = (0, 399, 400, 401, 559, 560, 561)


def frame_count(num_samples):
    """Starts of whole windows, counted."""
    return len(range(0, num_samples - 400 + 1, 160))


def mel_to_hertz(mel):
    return 200 * mel / 3 if mel < 15 else 1000 * 6.4 ** ((mel - 15) / 27)


def hertz_to_mel(hertz):
    if hertz < 1000:
        return 3 * hertz / 200
    return 15 + 27 * np.log(hertz / 1000) / np.log(6.4)


def slaney_filter(k, num_bins, frequencies, low, high):
    """One triangle of unit area, point by point."""
    step = (hertz_to_mel(high) - hertz_to_mel(low)) / (num_bins + 1)
    left, top, right = (
        mel_to_hertz(hertz_to_mel(low) + step * (k + i)) for i in range(3)
    )
    peak = 2 / (right - left)
    return np.interp(
        frequencies, [left, top, right], [0, peak, 0], left=0, right=0
    )


def reference(
    samples, num_bins=80, low=0.0, high=8000.0, floor=1e-10, hamming=False
):
    n = np.arange(400)
    cosine = np.cos(2 * np.pi * n / 400)
    window = 0.54 - 0.46 * cosine if hamming else 0.5 - 0.5 * cosine
    frequencies = np.arange(257) * 16000 / 512
    filters = np.stack(
        [
            slaney_filter(k, num_bins, frequencies, low, high)
            for k in range(num_bins)
        ]
    )
    transform = np.exp(-2j * np.pi * np.outer(n, np.arange(257)) / 512)
    rows = []
    for i in range(frame_count(len(samples))):
        frame = samples[160 * i : 160 * i + 400].astype("float64") * window
        power = np.abs(frame @ transform) ** 2
        rows.append(np.log(np.maximum(filters @ power, floor)))
    return np.array(rows)


@pytest.fixture(scope="module")
def layer():
    return LogMelSpectrogram(normalize=False)


@pytest.fixture
def noise():
    return np.random.default_rng(0).normal(0, 0.1, (2, 1200)).astype("float32")


def test_basics(noise):
    arguments = {
        "num_mel_bins": 16,
        "sampling_rate": 8000,
        "sequence_length": 200,
        "sequence_stride": 80,
        "fft_length": 256,
        "window": "hamming",
        "min_freq": 20.0,
        "max_freq": 3800.0,
        "min_power": 1e-8,
    }
    inputs = (noise, np.array([1200, 500], "int32"))
    helpers.check_layer(
        LogMelSpectrogram,
        arguments,
        inputs,
        (2, 13, 16),
        num_non_trainable_weights=3,
    )
    helpers.check_layer(
        LogMelSpectrogram,
        {**arguments, "normalize": False},
        inputs,
        (2, 13, 16),
        fit=False,
    )


def test_formula_on_real_speech(layer, dev_clips):
    clip = dev_clips[1]
    expected = reference(clip)
    amplitude = np.exp(expected / 2)
    rounding = amplitude.max(axis=1, keepdims=True) / amplitude
    error = np.abs(np.array(layer(clip[None]))[0] - expected)
    assert np.all(error < LOG_TOLERANCE + AMPLITUDE_TOLERANCE * rounding)
    assert np.median(error) < LOG_TOLERANCE / 2


def test_formula_of_other_arguments(noise):
    layer = LogMelSpectrogram(
        20,
        window="hamming",
        min_freq=100,
        max_freq=4000,
        min_power=0.1,
        normalize=False,
    )
    expected = reference(
        noise[0], 20, low=100, high=4000, floor=0.1, hamming=True
    )
    assert np.any(expected == np.log(0.1))
    assert np.any(expected > np.log(0.1))
    np.testing.assert_allclose(
        layer(noise)[0], expected, rtol=LOG_TOLERANCE, atol=LOG_TOLERANCE
    )


def librosa_log_mel(samples):
    """Slow where librosa's functions are not compiled yet."""
    # librosa centers its window of 400 in a frame of 512: 56 samples later.
    power = librosa.feature.melspectrogram(
        y=np.pad(samples, 56),
        sr=16000,
        n_fft=512,
        win_length=400,
        hop_length=160,
        n_mels=80,
        window="hann",
        center=False,
        htk=False,
        norm="slaney",
    )
    return np.log(np.maximum(power, 1e-10)).T


def stored_frames():
    """What `librosa_log_mel` of librosa 0.11 made of noise of ten frames."""
    noise = np.random.default_rng(0).normal(0, 0.1, 1840).astype("float32")
    return noise, json.loads((DATA / "librosa.json").read_text())


def test_librosa_on_noise(layer):
    noise, expected = stored_frames()
    np.testing.assert_allclose(
        layer(noise[None])[0], expected, rtol=LOG_TOLERANCE, atol=LOG_TOLERANCE
    )


@pytest.mark.slow
def test_librosa_on_real_speech(layer, train_clips):
    noise, stored = stored_frames()
    np.testing.assert_allclose(librosa_log_mel(noise), stored, atol=2e-6)
    clip = train_clips[0]
    np.testing.assert_allclose(
        layer(clip[None])[0],
        librosa_log_mel(clip),
        rtol=LOG_TOLERANCE,
        atol=LOG_TOLERANCE,
    )


@pytest.mark.parametrize("frequency", [250.0, 1000.0, 2500.0, 6000.0])
def test_a_tone_peaks_in_its_bin(layer, frequency):
    tone = np.sin(2 * np.pi * frequency * np.arange(1600) / 16000)
    step = hertz_to_mel(8000) / 81
    centers = np.array([mel_to_hertz(step * (k + 1)) for k in range(80)])
    frames = np.array(layer(tone[None].astype("float32")))[0]
    peak = frames.argmax(axis=1)
    # The neighbor may win: a filter's height falls with its width.
    assert np.all(np.abs(peak - np.abs(centers - frequency).argmin()) <= 1)


@pytest.mark.parametrize("num_samples", AROUND_ONE_FRAME)
def test_lengths_around_one_frame(layer, num_samples):
    audio = np.ones((2, num_samples), "float32")
    expected = (2, frame_count(num_samples), 80)
    length = np.array([num_samples, num_samples])
    assert layer(audio, length).shape == expected
    assert layer.compute_output_shape(audio.shape) == expected
    assert layer.compute_length(num_samples) == expected[1]
    graph = tf.function(layer, input_signature=[tf.TensorSpec((None, None))])
    assert graph(audio).shape == expected


def test_a_quiet_clip_is_unchanged_beside_a_loud_one(layer, dev_clips):
    quiet = dev_clips[0][16000:24000] * 1e-2
    loud = dev_clips[1][16000:24000]
    beside_loud = layer(np.stack([quiet, loud]))[0]
    beside_itself = layer(np.stack([quiet, quiet]))[0]
    np.testing.assert_array_equal(beside_loud, beside_itself)
    assert np.mean(beside_loud > np.log(2e-10)) > 0.7
    np.testing.assert_allclose(
        beside_loud, layer(quiet[None])[0], atol=LOG_TOLERANCE
    )


@pytest.mark.parametrize("garbage", helpers.ANY_GARBAGE)
@pytest.mark.parametrize("amount", helpers.PAD_AMOUNTS)
def test_padding_changes_nothing(noise, amount, garbage):
    layer = LogMelSpectrogram(8)
    layer.adapt([{"audio": noise, "audio_length": np.array([1200, 1200])}])
    length = np.array([1200, 570])
    helpers.assert_padding_invariant(
        layer,
        noise,
        length,
        amount,
        garbage,
        output_length=np.array([6, 2]),
        tolerance=LOG_TOLERANCE,
    )


@pytest.mark.parametrize("policy", helpers.POLICIES)
def test_float32_inside_of_mixed_policies(layer, dev_clips, policy):
    audio = dev_clips[0][None, 16000:24000] * 1e-2
    mixed = LogMelSpectrogram(normalize=False, dtype=policy)(audio)
    expected = tf.cast(layer(audio), policy.removeprefix("mixed_"))
    np.testing.assert_array_equal(mixed, expected)
    adapted = LogMelSpectrogram(dtype=policy)
    adapted.build((None, None))
    assert adapted.mean.dtype == "float32"
    assert adapted.variance.dtype == "float32"


# === Statistics of the corpus ===


def batch_of(clips, amount=0, garbage="zeros"):
    length = np.array([len(clip) for clip in clips])
    audio = np.zeros((len(clips), max(length)), "float32")
    for row, clip in zip(audio, clips, strict=True):
        row[: len(clip)] = clip
    return {
        "audio": helpers.spoil(audio, length, amount, garbage),
        "audio_length": length,
    }


def adapted(data, steps=None):
    layer = LogMelSpectrogram()
    assert not layer.is_adapted
    layer.adapt(data, steps)
    assert layer.is_adapted
    return layer


@pytest.fixture(scope="module")
def frames(layer, train_clips):
    """All real frames of the training clips, one below the other."""
    return np.concatenate(
        [np.array(layer(clip[None]))[0] for clip in train_clips]
    ).astype("float64")


def assert_statistics(layer, frames):
    assert int(layer.count) == len(frames)
    for actual, expected in (
        (layer.mean, frames.mean(axis=0)),
        (layer.variance, frames.var(axis=0)),
    ):
        np.testing.assert_allclose(
            actual,
            expected,
            rtol=STATISTICS_TOLERANCE,
            atol=STATISTICS_TOLERANCE,
        )


def test_adapt_is_blind_to_batches_and_padding(train_clips, frames):
    together = [batch_of(train_clips, 500, "nan")]
    apart = [batch_of([clip]) for clip in train_clips[::-1]]
    uneven = [batch_of(train_clips[:1]), batch_of(train_clips[1:], 7, "noise")]
    for data in (together, apart, uneven):
        assert_statistics(adapted(data), frames)


def test_adapt_takes_datasets_and_tuples(train_clips, frames):
    batch = batch_of(train_clips)
    labels = {"labels": np.zeros((6, 1))}
    dataset = tf.data.Dataset.from_tensor_slices((batch, labels)).batch(4)
    assert_statistics(adapted(dataset), frames)
    assert_statistics(adapted([(batch, labels)]), frames)


def test_adapt_stops_after_steps(train_clips):
    data = [batch_of(train_clips[:1]), batch_of(train_clips[1:])]
    first = adapted(data[:1])
    assert int(adapted(data, steps=1).count) == int(first.count)


def test_adapt_forgets_the_statistics_before(train_clips, frames):
    layer = adapted([batch_of(train_clips[:1])])
    layer.adapt([batch_of(train_clips)])
    assert_statistics(layer, frames)


def test_adapted_speech_is_standardized(train_clips):
    batch = batch_of(train_clips, 100, "noise")
    layer = adapted([batch])
    outputs = np.array(layer(batch["audio"], batch["audio_length"]))
    real = np.concatenate(
        [
            row[: frame_count(len(clip))]
            for row, clip in zip(outputs, train_clips, strict=True)
        ]
    )
    np.testing.assert_allclose(real.mean(axis=0), 0, atol=1e-3)
    np.testing.assert_allclose(real.var(axis=0), 1, atol=1e-3)


def test_a_constant_bin_is_not_blown_up(noise):
    silence = {"audio": np.zeros_like(noise), "audio_length": [1200, 1200]}
    layer = adapted([silence])
    np.testing.assert_array_equal(layer(silence["audio"]), 0)
    # No deviation counts as less than 0.1.
    expected = (np.array(layer._log_mel(noise)) - np.log(1e-10)) / 0.1
    np.testing.assert_allclose(layer(noise), expected, rtol=1e-5)


def test_statistics_survive_saving(train_clips, tmp_path):
    layer = adapted([batch_of(train_clips[:2])])
    audio = keras.Input((None,))
    keras.Model(audio, layer(audio)).save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras").layers[-1]
    assert loaded.is_adapted
    for weight, expected in zip(loaded.weights, layer.weights, strict=True):
        np.testing.assert_array_equal(weight, expected)


def test_runs_in_a_dataset(layer, train_clips):
    clips = train_clips[:2]
    dataset = tf.data.Dataset.from_generator(
        lambda: iter(clips),
        output_signature=tf.TensorSpec((None,), "float32"),
    )
    dataset = dataset.map(lambda samples: layer(samples[None])[0])
    for clip, actual in zip(clips, dataset, strict=True):
        np.testing.assert_allclose(
            actual, layer(clip[None])[0], atol=LOG_TOLERANCE
        )


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"sequence_length": 513}, "`sequence_length` must be positive"),
        ({"sequence_length": 0}, "`sequence_length` must be positive"),
        ({"min_freq": -1.0}, "`min_freq` must be below `max_freq`"),
        ({"min_freq": 4e3, "max_freq": 4e3}, "`min_freq` must be below"),
        ({"max_freq": 8001.0}, "at most half the sampling rate"),
        ({"num_mel_bins": 0}, "must be positive. Received: num_mel_bins=0"),
        ({"sequence_stride": 0}, "sequence_stride=0"),
        ({"min_power": 0.0}, "min_power=0.0"),
        ({"window": "kaiser"}, "Received: window='kaiser'"),
    ],
)
def test_invalid_arguments(arguments, message):
    with pytest.raises(ValueError, match=message):
        LogMelSpectrogram(**arguments)


def test_invalid_adapt(layer, noise):
    with pytest.raises(ValueError, match="normalize=True"):
        layer.adapt([])
    with pytest.raises(ValueError, match="Received: 0 frames"):
        LogMelSpectrogram().adapt(iter([]))
    short = {"audio": noise, "audio_length": np.array([399, 0])}
    with pytest.raises(ValueError, match="Received: 0 frames"):
        LogMelSpectrogram().adapt([short])
    broken = {"audio": noise * np.nan, "audio_length": np.array([1200, 0])}
    with pytest.raises(ValueError, match="finite samples"):
        LogMelSpectrogram().adapt([broken])
