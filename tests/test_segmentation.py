"""Oracles: real clips with silences between them whose places are known, and
levels drawn by hand."""

import numpy as np
import pytest
import soundfile
import soxr

from keras_ds2.audio import AudioError, load_audio
from keras_ds2.segmentation import find_spans, measure_levels, segment_audio

RATE = 16000


@pytest.fixture(scope="module")
def talk(train_clips):
    """Samples of twelve clips, and where each begins and ends."""
    generator = np.random.default_rng(0)
    pieces, places, position = [], [], 0
    for clip in [*train_clips, *train_clips[::-1]]:
        gap = np.zeros(int(RATE * generator.uniform(0.6, 2.0)), "float32")
        places.append((position, position + len(clip)))
        pieces += [clip, gap]
        position += len(clip) + len(gap)
    return np.concatenate(pieces), np.array(places) / RATE


def spans_of(samples, **options):
    blocks = np.split(samples, range(50_000, len(samples), 50_000))
    levels = measure_levels(blocks, RATE)
    return np.array(find_spans(levels, **options)) * 0.02


@pytest.mark.parametrize("hum", [0.0, 0.3])
@pytest.mark.parametrize("gain", [1.0, 1e-3, 30.0])
@pytest.mark.parametrize("noise", [0.0, 1e-4, 1e-3])
def test_clips_are_found_at_any_level_above_any_floor(talk, gain, noise, hum):
    samples, places = talk
    time = np.arange(len(samples)) / RATE
    noises = np.random.default_rng(1).normal(size=len(samples))
    # The hum is louder than the speech; below it stands a constant.
    disturbed = samples + noise * noises + hum * np.sin(314 * time) + hum
    spans = spans_of((gain * disturbed).astype("float32"))
    # One clip, there twice, has a silence of half a second of its own.
    assert len(places) <= len(spans) <= len(places) + 3
    for start, end in places:
        own = spans[(spans[:, 0] < end) & (spans[:, 1] > start)]
        # What is silent at a clip's ends may count as such.
        assert abs(own[0, 0] - start) < 0.6
        assert abs(own[-1, 1] - end) < 0.6


def test_noise_buries_quiet_words_last(talk):
    samples, places = talk
    noise = np.random.default_rng(1).normal(size=len(samples))
    buried = samples + 0.3 * samples.std() * noise  # 10 dB
    spans = spans_of(buried)
    for start, end in places:
        found = np.minimum(spans[:, 1], end) - np.maximum(spans[:, 0], start)
        assert np.maximum(found, 0).sum() > 0.75 * (end - start)
    # No silence is left that is longer than what stands around speech.
    assert np.diff(spans).sum() < np.diff(places).sum() + len(spans) * 0.5


@pytest.mark.parametrize("kind", ["zeros", "noise"])
def test_where_nobody_speaks_there_is_nothing(kind):
    samples = np.random.default_rng(0).normal(size=60 * RATE)
    samples *= {"zeros": 0.0, "noise": 0.01}[kind]
    assert len(spans_of(samples)) == 0
    assert find_spans(np.zeros(0)) == []


def test_a_click_is_no_speech(talk):
    samples = 1e-4 * np.random.default_rng(0).normal(size=40 * RATE)
    samples[20 * RATE : 20 * RATE + 300] = 0.5
    assert len(spans_of(samples)) == 0


SPEECH, PAUSE = -20.0, -60.0


@pytest.mark.parametrize(
    ("pause", "expected"),
    [
        (24, [(38, 286)]),
        # Half of it stays around speech, and never twice.
        (25, [(38, 162), (163, 287)]),
        (200, [(38, 162), (338, 462)]),
    ],
)
def test_silences_shorter_than_asked_for_stay(pause, expected):
    sizes = [50, 100, pause, 100, 50]
    levels = np.repeat([PAUSE, SPEECH, PAUSE, SPEECH, PAUSE], sizes)
    assert find_spans(levels, min_silence=0.5) == expected


def test_endless_speech_is_cut_where_it_is_quietest():
    generator = np.random.default_rng(0)
    levels = generator.uniform(-25, -15, size=4000)
    for closure in range(4):
        levels[closure::15] = -45
    levels[900] = -70  # quieter, but no place
    levels[200:215] = -60  # quieter, but too early
    levels[700:715] = -58
    levels[1500:1515] = -58
    levels = np.concatenate([[-60.0] * 500, levels, [-60.0] * 500])
    spans = find_spans(levels, max_segment=20.0)
    cuts = [end - 500 for _, end in spans[:-1]]
    assert cuts[0] == 707 and cuts[1] == 1507
    # Without gaps, and neither too long nor splinters.
    assert [end for _, end in spans[:-1]] == [start for start, _ in spans[1:]]
    assert all(250 <= end - start <= 1000 for start, end in spans)


def test_samples_are_those_of_the_file(talk, tmp_path):
    samples, places = talk
    path = tmp_path / "talk.flac"
    soundfile.write(path, samples, RATE)
    whole = load_audio(path)
    pieces = list(segment_audio(path))
    assert len(pieces) >= len(places)
    for start, piece in pieces:
        begin = round(start * RATE)
        np.testing.assert_array_equal(piece, whole[begin : begin + len(piece)])
    soundfile.write(path, soxr.resample(samples, RATE, 11025), 11025)
    resampled = list(segment_audio(path))
    assert len(resampled) == len(pieces)
    for (start, piece), (expected, _) in zip(resampled, pieces, strict=True):
        assert start == pytest.approx(expected, abs=0.05)
        begin = round(start * RATE)
        original = whole[begin : begin + len(piece)]
        assert np.corrcoef(piece[: len(original)], original)[0, 1] > 0.9


def test_faults_come_before_the_first_piece(talk, tmp_path):
    samples = talk[0].copy()
    samples[-5] = np.inf
    soundfile.write(tmp_path / "a.wav", samples, RATE, subtype="FLOAT")
    with pytest.raises(AudioError, match="infinite samples"):
        next(segment_audio(tmp_path / "a.wav"))
    for options in ({"min_silence": 0.05}, {"max_segment": 1.9}):
        with pytest.raises(ValueError, match="at least four times"):
            next(segment_audio(tmp_path / "a.wav", **options))
