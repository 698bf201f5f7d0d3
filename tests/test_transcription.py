"""Oracles: `model.transcribe` of the clips that a long file was made of, and
the places where they stand in it."""

import json
import pathlib
import subprocess
import sys

import jiwer
import keras
import numpy as np
import pytest
import soundfile
import soxr

import keras_ds2
from keras_ds2.pretrained import pretrained_names

DATA = pathlib.Path(__file__).parent / "data"
LEARNED = [
    "LibriSpeech/train-clips/2412/153948/2412-153948-0005.opus",
    "LibriSpeech/train-clips/251/137823/251-137823-0000.opus",
]


@pytest.fixture(scope="module")
def model():
    """Knows two of the train-clips by heart."""
    return keras.models.load_model(DATA / "tiny.keras")


def write_long(path, clips, order, seed=0):
    """Joins clips by noise; returns where they begin, in seconds."""
    generator = np.random.default_rng(seed)
    starts, position = [], 0
    with soundfile.SoundFile(path, "w", 16000, 1) as file:
        for index in order:
            num_samples = int(16000 * generator.uniform(0.6, 2.0))
            noise = 1e-4 * generator.normal(size=num_samples)
            for samples in (clips[index], noise):
                file.write(samples)
            starts.append(position / 16000)
            position += len(clips[index]) + num_samples
    return starts


def texts(segments):
    return " ".join(segment.hypothesis.text for segment in segments)


def test_recognize_is_transcribe_with_times(model, dev_clips):
    files = [DATA / name for name in LEARNED]
    recordings = [*files, *dev_clips, np.zeros(4000, "float32")]
    hypotheses = model.recognize(recordings, batch_size=2)
    expected = model.transcribe(recordings)
    assert [hypothesis.text for hypothesis in hypotheses] == expected
    for hypothesis in hypotheses:
        assert [word.text for word in hypothesis.words] == (
            hypothesis.text.split()
        )
    # The clip lasts 3.14 s, and has silence at both ends.
    times = [(word.start, word.end) for word in hypotheses[0].words]
    assert 0 <= times[0][0] < 0.6 and 2.2 < times[-1][1] <= 3.14
    assert times == sorted(times)
    assert all(word.confidence > 0.5 for word in hypotheses[0].words)
    decoder = keras_ds2.BeamSearchDecoder(lexicon=["delighted", "manner"])
    [found] = model.recognize(files[:1], decoder=decoder)
    assert found.text == model.transcribe(files[:1], decoder=decoder)[0]
    assert [word.text for word in found.words] == found.text.split()
    with pytest.raises(ValueError, match="the model's `alphabet`"):
        model.recognize(files, decoder=keras_ds2.BeamSearchDecoder("ab"))


def test_short_files_are_recognized_whole(model):
    [segment] = keras_ds2.transcribe_file(model, DATA / LEARNED[0])
    [expected] = model.recognize([DATA / LEARNED[0]])
    assert segment.hypothesis == expected
    assert segment.start == 0 and segment.end == pytest.approx(3.14, abs=0.01)


def test_long_files_are_cut_and_their_times_are_the_files(model, tmp_path):
    clips = [keras_ds2.load_audio(DATA / name) for name in LEARNED]
    order = [0, 1, 1, 0, 1, 0, 0]
    starts = write_long(tmp_path / "long.flac", clips, order)
    segments = list(
        keras_ds2.transcribe_file(model, tmp_path / "long.flac", batch_size=2)
    )
    assert len(segments) == len(order)
    whole = keras_ds2.load_audio(tmp_path / "long.flac")
    for segment, start, index in zip(segments, starts, order, strict=True):
        assert abs(segment.start - start) < 0.6
        assert abs(segment.end - start - len(clips[index]) / 16000) < 0.6
        begin, end = round(segment.start * 16000), round(segment.end * 16000)
        [alone] = model.recognize([whole[begin:end]])
        assert segment.hypothesis.text == alone.text != ""
        for part in ("words", "characters"):
            for here, there in zip(
                getattr(segment.hypothesis, part),
                getattr(alone, part),
                strict=True,
            ):
                assert here.text == there.text
                assert here.start == pytest.approx(segment.start + there.start)
                assert here.end == pytest.approx(segment.start + there.end)


def test_a_decoder_hears_each_piece(model, tmp_path):
    clips = [keras_ds2.load_audio(DATA / name) for name in LEARNED]
    write_long(tmp_path / "long.wav", clips, [0, 1] * 3)
    decoder = keras_ds2.BeamSearchDecoder(lexicon=["country", "glad", "life"])
    segments = keras_ds2.transcribe_file(model, tmp_path / "long.wav", decoder)
    words = texts(segments).split()
    assert set(words) == {"country", "glad", "life"}
    assert words.count("glad") >= 3 and words.count("country") >= 3


def test_nobody_speaks(model, tmp_path):
    soundfile.write(tmp_path / "a.wav", np.zeros(30 * 16000), 16000)
    assert list(keras_ds2.transcribe_file(model, tmp_path / "a.wav")) == []


def test_what_is_too_short_or_missing_is_named(model, tmp_path):
    soundfile.write(tmp_path / "a.wav", np.zeros(399), 16000)
    for name, reason in (("a.wav", "less than min_d"), ("b.wav", "not exist")):
        with pytest.raises(keras_ds2.AudioError, match=f"{name}.*{reason}"):
            next(keras_ds2.transcribe_file(model, tmp_path / name))


# === An hour ===

PROGRAM = """
import json, resource, sys
import keras_ds2
if sys.argv[1] == "reference":
    model = keras_ds2.DeepSpeech2()
else:
    model = keras_ds2.load_pretrained(sys.argv[1])
segments = list(keras_ds2.transcribe_file(model, sys.argv[2]))
gigabytes = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
texts = [segment.hypothesis.text for segment in segments]
longest = max(segment.end - segment.start for segment in segments)
print(json.dumps([texts, longest, gigabytes]))
"""


def run(model, path):
    result = subprocess.run(
        [sys.executable, "-c", PROGRAM, model, path],
        check=True,
        capture_output=True,
        text=True,
    )
    return json.loads(result.stdout)


@pytest.mark.slow
@pytest.mark.skipif("an4" not in pretrained_names(), reason="is not shipped")
def test_an_hour_has_the_errors_of_its_clips(tmp_path):
    rows = list(keras_ds2.data.read_an4(DATA / "an4", "train"))
    clips = [keras_ds2.load_audio(row.audio) for row in rows]
    model = keras_ds2.load_pretrained("an4")
    alone = model.transcribe(clips)
    order = np.random.default_rng(0).integers(0, len(rows), size=1000)
    starts = write_long(tmp_path / "hour.flac", clips, order)
    assert starts[-1] > 3000
    texts, _, gigabytes = run("an4", tmp_path / "hour.flac")
    reference = " ".join(rows[index].text for index in order)
    own = jiwer.wer(reference, " ".join(alone[index] for index in order))
    assert jiwer.wer(reference, " ".join(texts)) < own + 0.01
    assert gigabytes < 2


@pytest.mark.slow
def test_an_hour_without_a_silence_takes_little_memory(train_clips, tmp_path):
    speech = np.concatenate(train_clips)
    with soundfile.SoundFile(tmp_path / "hour.flac", "w", 44100, 2) as file:
        for _ in range(3600 * 16000 // len(speech)):
            louder = soxr.resample(speech, 16000, 44100)
            file.write(np.stack([louder, louder], axis=1))
    texts, longest, gigabytes = run("reference", tmp_path / "hour.flac")
    assert len(texts) > 180
    assert longest <= 20
    assert gigabytes < 2
