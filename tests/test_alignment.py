"""Oracles: all alignments of tiny logits, the best of which is known; a
recording that begins later, and the decoder's own times."""

import itertools
import pathlib

import keras
import numpy as np
import pytest

import keras_ds2
from keras_ds2.decoding.alignment import align_labels, time_text


def random_log_probs(num_frames, symbols, seed):
    logits = np.random.default_rng(seed).normal(size=(num_frames, symbols))
    return np.log(np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True))


def best_path(log_probs, labels, blank, reads_as):
    """The most probable of all paths that read as the labels."""
    num_frames, symbols = log_probs.shape
    paths = [
        path
        for path in itertools.product(range(symbols), repeat=num_frames)
        if reads_as([s for s, _ in itertools.groupby(path) if s != blank])
        == labels
    ]
    return max(paths, key=lambda path: log_probs[range(num_frames), path].sum())


def spans_of(path, blank):
    spans = []
    frame = 0
    for symbol, run in itertools.groupby(path):
        length = len(list(run))
        if symbol != blank:
            spans.append((frame, frame + length))
        frame += length
    return spans


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("blank", [0, 2])
@pytest.mark.parametrize(
    "labels", [[], [1], [1, 1], [1, 3, 1], [3, 3, 1], [1, 3, 1, 3, 1, 3]]
)
def test_equals_the_best_of_all_paths(labels, blank, seed):
    log_probs = random_log_probs(6, symbols=4, seed=seed)
    path = best_path(log_probs, labels, blank, list)
    assert align_labels(log_probs, labels, blank) == spans_of(path, blank)


def strip_spaces(labels, space=1):
    words = "".join(" " if s == space else str(s) for s in labels).split()
    return [space if c == " " else int(c) for c in " ".join(words)]


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize("labels", [[], [2], [2, 1, 2], [2, 2, 1, 2]])
def test_runs_of_spaces_are_one(labels, seed):
    log_probs = random_log_probs(6, symbols=3, seed=seed)
    log_probs[:, 1] += 1.5  # spaces in plenty
    path = best_path(log_probs, labels, 0, strip_spaces)
    expected = [
        span
        for span in spans_of(path, 0)
        if path[span[0]] != 1  # which of several spaces is *the* one is moot
    ]
    spans = align_labels(log_probs, labels, space_index=1)
    assert [
        s for s, label in zip(spans, labels, strict=True) if label != 1
    ] == expected


def test_long_texts():
    labels = [1 + i % 2 for i in range(500)]
    path = [symbol for label in labels for symbol in (0, label)]
    log_probs = np.log(np.eye(3)[path] * 0.8 + 0.05)
    assert align_labels(log_probs, labels) == spans_of(path, 0)


@pytest.mark.parametrize("num_frames", [0, 2])
def test_too_few_frames(num_frames):
    log_probs = np.zeros((num_frames, 3))
    with pytest.raises(ValueError, match=f"{num_frames} frames cannot hold 2"):
        align_labels(log_probs, [1, 1])


@pytest.mark.parametrize("value", [-np.inf, np.nan])
def test_a_text_without_probability(value):
    log_probs = np.zeros((5, 3))
    log_probs[:, 2] = value
    with pytest.raises(ValueError, match="5 frames cannot hold 2 labels"):
        align_labels(log_probs, np.array([1, 2]))


def test_a_path_without_detours():
    # Nothing but the path is possible.
    log_probs = np.where(np.eye(3)[[0, 1, 1, 0, 1, 2]] > 0, 0.0, -np.inf)
    assert align_labels(log_probs, [1, 1, 2]) == [(1, 3), (4, 5), (5, 6)]


def test_times_of_words():
    path = [0, 2, 2, 0, 1, 0, 3, 0, 2]  # "a ba", a space is 1
    log_probs = np.log(np.eye(4)[path] * 0.8 + 0.05)
    words, characters = time_text("a ba", " ab", log_probs, 0.1)
    assert [w.text for w in words] == ["a", "ba"]
    times = [(w.start, w.end, w.confidence) for w in words]
    np.testing.assert_allclose(times, [(0.1, 0.3, 0.85), (0.6, 0.9, 0.85)])
    assert [c.text for c in characters] == ["a", "b", "a"]
    times = [(c.start, c.end) for c in characters]
    np.testing.assert_allclose(times, [(0.1, 0.3), (0.6, 0.7), (0.8, 0.9)])


def test_spaces_around_words_are_not_theirs():
    path = [1, 2, 1, 0, 1, 3, 1]  # " a  b "
    probabilities = np.eye(4)[path] * 0.8 + 0.05
    probabilities[probabilities[:, 0] < 0.1, 0] = 1e-4  # no blank elsewhere
    words, _ = time_text("a b", " ab", np.log(probabilities), 1.0)
    assert [(w.start, w.end) for w in words] == [(1.0, 2.0), (5.0, 6.0)]


def test_an_empty_text_has_no_times():
    assert time_text("", "ab", np.zeros((5, 3)), 0.1) == ((), ())
    assert time_text("", "ab", np.zeros((0, 3)), 0.1) == ((), ())


# === A model and a recording ===

DATA = pathlib.Path(__file__).parent / "data"
CLIP = DATA / "LibriSpeech/train-clips/251/118436/251-118436-0001.opus"


@pytest.fixture(scope="module")
def trained():
    """Knows two of the train-clips by heart."""
    return keras.models.load_model(DATA / "tiny.keras")


def test_text_in_any_case_and_the_decoder_agree(trained):
    [text] = trained.transcribe([CLIP])
    assert len(text) > 10
    words, characters = keras_ds2.align(trained, CLIP, f" {text.upper()}  ")
    samples = keras_ds2.load_audio(CLIP)
    logits, length = trained.predict_logits(
        {"audio": samples[None], "audio_length": np.array([len(samples)])}
    )
    [paths] = keras_ds2.BeamSearchDecoder(top_paths=20)(
        logits, length, trained.frame_duration
    )
    [best] = [path for path in paths if path.text == text]
    assert (words, characters) == (best.words, best.characters)
    assert keras_ds2.align(trained, samples, text) == (words, characters)


def test_what_is_said_later_has_later_times(trained):
    [text] = trained.transcribe([CLIP])
    samples = keras_ds2.load_audio(CLIP)
    later = np.pad(samples, (8000, 0))
    early, _ = keras_ds2.align(trained, samples, text)
    late, _ = keras_ds2.align(trained, later, text)
    assert [w.text for w in early] == [w.text for w in late] == text.split()
    difference = np.array([w.start for w in late]) - [w.start for w in early]
    # The model is one-directional and has heard no silence: a frame or two.
    np.testing.assert_allclose(difference, 0.5, atol=0.05)
    assert all(0 <= w.start < w.end <= len(samples) / 16000 for w in early)


def test_an_empty_text_in_a_recording(trained):
    assert keras_ds2.align(trained, CLIP, " ") == ((), ())


@pytest.mark.parametrize(
    "audio, text, message",
    [
        (CLIP, "10, ok", "outside the model's alphabet: ',01'.*text='10, ok'"),
        (
            np.zeros(4000),
            "she cried to all",
            "The 16 characters of `text` need 17 output frames, but the "
            r"recording's 0\.250 s give 12\. Check",
        ),
        (np.zeros(10), "a", "`audio` must be a 1-D array"),
        ("missing.wav", "a", "'missing.wav' does not exist"),
    ],
)
def test_texts_that_do_not_fit(trained, audio, text, message):
    with pytest.raises(ValueError, match=message):
        keras_ds2.align(trained, audio, text)
