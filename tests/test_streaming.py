"""Oracles: the model on the whole utterance, and `transcribe`."""

import itertools
import math
import pathlib
import resource

import keras
import numpy as np
import pytest
import tensorflow as tf
from models import padded, scramble

import keras_ds2
from keras_ds2.decoding.alignment import character_log_probs, time_text
from keras_ds2.layers.symbol_logits import SymbolLogits
from keras_ds2.models.parts import log_mel_frames
from keras_ds2.models.speech_recognizer import SpeechRecognizer

DATA = pathlib.Path(__file__).parent / "data"

# Of the largest logit: another order of summation (measured 4e-7).
ROUNDING = 1e-5

SMALL = {
    "num_mel_bins": 20,
    "conv_filters": (3, 3),
    "conv_kernel_sizes": ((11, 9), (7, 5)),
    "num_rnn_layers": 2,
    "rnn_units": 8,
    "dense_units": 8,
}
ONE_CONVOLUTION = {
    "conv_filters": (4,),
    "conv_kernel_sizes": ((5, 9),),
    "conv_strides": ((3, 2),),
}
THREE_CONVOLUTIONS = {
    "conv_filters": (3, 3, 3),
    "conv_kernel_sizes": ((11, 9), (5, 5), (3, 3)),
    "conv_strides": ((2, 2), (2, 2), (1, 2)),
}
OTHER_WINDOWS = {
    "window": "hamming",
    "sequence_length": 320,
    "sequence_stride": 100,
}
SPELLING = {
    "num_spelling_layers": 2,
    "spelling_units": 8,
    "spelling_context": 2,
    "spelling_row_conv_width": 3,
}
# Each option by itself, and then all of them, a few at a time.
ONE_BY_ONE = {
    "lstm": {},
    "gru": {"rnn_type": "gru"},
    "simple": {"rnn_type": "simple"},
    "without batch normalization": {"batch_normalization": False},
    "normalized projection": {"normalize_projection": True},
    "moving means": {"mean_momentum": 0.9},
    "spelling": SPELLING,
    "without row convolution": {"row_conv_width": 0},
    "row convolution of one frame": {"row_conv_width": 1},
    "strides of 2": {"conv_strides": ((2, 2), (2, 2))},
    "one convolution": ONE_CONVOLUTION,
    "three convolutions": THREE_CONVOLUTIONS,
    "other windows": OTHER_WINDOWS,
    "without normalization": {"normalize": False},
    "augmented in training": {"spec_augment": True},
}
TOGETHER = {
    "gru, strides of 2, other windows": {
        "rnn_type": "gru",
        "conv_strides": ((2, 2), (2, 2)),
        "batch_normalization": False,
        "row_conv_width": 1,
        **OTHER_WINDOWS,
    },
    "simple, three convolutions": {
        "rnn_type": "simple",
        "normalize_projection": True,
        "mean_momentum": 0.99,
        "row_conv_width": 0,
        "normalize": False,
        **THREE_CONVOLUTIONS,
    },
    "lstm, one convolution": {"spec_augment": True, **ONE_CONVOLUTION},
    "gru, spelling in threes": {
        "rnn_type": "gru",
        "normalize_projection": True,
        **SPELLING,
        "spelling_stride": 3,
    },
}


class OneDirection(SpeechRecognizer):
    """The first paper's network, but for its backward direction."""

    def __init__(self, dtype=None):
        audio = keras.Input((None,), dtype="float32", name="audio")
        audio_length = keras.Input((), dtype="int32", name="audio_length")
        x, num_frames = log_mel_frames(
            audio, audio_length, False, 0, 0, dtype,
            sequence_length=400, sequence_stride=160, num_mel_bins=20,
        )  # fmt: skip
        x = keras_ds2.ContextWindow(4, 2)(x, num_frames)
        num_frames = keras_ds2.OutputLength(9, 2, padding=8)(num_frames)
        x = keras.layers.Dense(8, activation=keras_ds2.clipped_relu)(x)
        mask = keras_ds2.SequenceMask()(x, num_frames)
        x = keras_ds2.SimpleRNN(
            8, activation=keras_ds2.clipped_relu, return_sequences=True
        )(x, mask=mask)
        super().__init__(
            inputs={"audio": audio, "audio_length": audio_length},
            outputs={"logits": SymbolLogits(31)(x), "logit_length": num_frames},
            dtype=dtype,
            name="one_direction",
        )
        self.alphabet = keras_ds2.text.DEFAULT_ALPHABET


@pytest.fixture
def eagerly():
    """Tracing takes longer than the few chunks of these tests."""
    tf.config.run_functions_eagerly(True)
    yield
    tf.config.run_functions_eagerly(False)


def make_model(options, clips):
    if options is OneDirection:
        model = scramble(OneDirection())
    else:
        model = scramble(keras_ds2.DeepSpeech2(**{**SMALL, **options}))
    if model.get_layer("log_mel").normalize:
        model.adapt([padded(clips)])
    return model


def stream_logits(step, clips):
    """Logits of each clip; all run side by side, each to its end."""
    state = step.initial_state(len(clips))
    parts = [[np.zeros((0, 31), "float32")] for _ in clips]
    num_frames = [step.model.logit_length(len(clip)) for clip in clips]
    for begin in itertools.count(0, step.chunk_size):
        chunks = [clip[begin : begin + step.chunk_size] for clip in clips]
        # Beyond the end stands anything.
        samples = np.full((len(clips), step.chunk_size), np.nan, "float32")
        for row, chunk in zip(samples, chunks, strict=True):
            row[: len(chunk)] = chunk
        logits, is_real, state = step(state, samples, [len(c) for c in chunks])
        assert logits.shape[1:] == (is_real.shape[1], 31)
        for i, row in enumerate(parts):
            row.append(logits.numpy()[i, is_real.numpy()[i]])
        if all(
            sum(map(len, row)) >= count
            for row, count in zip(parts, num_frames, strict=True)
        ):
            return [np.concatenate(row) for row in parts]


def assert_same_logits(actual, model, clips, tolerance=ROUNDING):
    for logits, clip in zip(actual, clips, strict=True):
        if not model.logit_length(len(clip)):
            assert not len(logits)
            continue
        expected = model.predict_on_batch(padded([clip]))["logits"][0]
        assert logits.shape == expected.shape
        scale = np.abs(expected[:, :29]).max()
        np.testing.assert_allclose(
            logits, expected, rtol=0, atol=tolerance * scale
        )


def assert_streams_as_the_whole(options, clips):
    model = make_model(options, clips)
    frame = model.frame_duration
    step = keras_ds2.StreamingStep(
        model, chunk_duration=round(0.5 / frame / 6) * 6 * frame
    )
    assert_same_logits(stream_logits(step, clips), model, clips)


@pytest.mark.parametrize(
    "options", [*TOGETHER.values(), OneDirection], ids=[*TOGETHER, "context"]
)
def test_logits_are_those_of_the_whole(options, dev_clips, eagerly):
    clips = [dev_clips[0][:40100], dev_clips[1][:17777], dev_clips[0][:300]]
    assert_streams_as_the_whole(options, clips)


@pytest.mark.slow
@pytest.mark.parametrize("options", ONE_BY_ONE.values(), ids=ONE_BY_ONE)
def test_each_option_by_itself(options, dev_clips, train_clips, eagerly):
    assert_streams_as_the_whole(options, [*dev_clips, train_clips[1]])


# The largest logit is about 1: of 8 and 11 bits half a unit of the last is
# 4e-3 and 5e-4, and the kernels that are chosen depend on the shape.
@pytest.mark.parametrize(
    "policy, tolerance", [("mixed_bfloat16", 3e-2), ("mixed_float16", 3e-3)]
)
def test_mixed_precision(policy, tolerance, dev_clips, eagerly):
    clips = [dev_clips[0][:30000], dev_clips[1][:17777]]
    model = make_model({"dtype": policy}, clips)
    step = keras_ds2.StreamingStep(model, chunk_duration=0.5)
    state = step.initial_state()
    assert {value.dtype.name for value in state.values()} <= {
        "float32",
        "int32",
    }
    assert_same_logits(stream_logits(step, clips), model, clips, tolerance)


# === One trained model, traced once ===


@pytest.fixture(scope="module")
def step():
    return keras_ds2.StreamingStep(
        keras.models.load_model(DATA / "tiny.keras"), chunk_duration=0.1
    )


def cut(clip, sizes):
    """Pieces of the sizes, over and over."""
    ends = itertools.accumulate(itertools.cycle(sizes))
    begin = 0
    for end in ends:
        yield clip[begin:end]
        begin = end
        if end >= len(clip):
            return


def recognize(recognizer, pieces):
    """The hypothesis; on the way every partial transcript is checked."""
    recognizer.reset()
    partials = [recognizer.accept(piece) for piece in pieces]
    hypothesis = recognizer.finish()
    for before, after in itertools.pairwise([*partials, hypothesis]):
        assert before.text.startswith(before.stable)
        assert after.text.startswith(before.stable)
        if isinstance(after, keras_ds2.PartialTranscript):
            assert after.stable.startswith(before.stable)
    return hypothesis


def test_text_is_that_of_the_whole_however_it_is_cut(
    step, train_clips, dev_clips
):
    recognizer = keras_ds2.StreamingRecognizer(step)
    generator = np.random.default_rng(0)
    some = [160], generator.integers(0, 4000, 500), [1600]
    for clip, cuts in (
        (train_clips[2], some[:2]),
        (dev_clips[0][10000:40000], some[2:]),
    ):
        whole = recognize(recognizer, [clip])
        assert [whole.text] == step.model.transcribe([clip])
        for sizes in cuts:
            assert recognize(recognizer, cut(clip, sizes)) == whole
    clip = clip[:9000]
    whole = recognize(recognizer, [clip])
    assert [whole.text] == step.model.transcribe([clip])
    assert recognize(recognizer, cut(clip, [1])) == whole


@pytest.mark.slow
def test_text_of_every_clip_however_it_is_cut(step, train_clips, dev_clips):
    recognizer = keras_ds2.StreamingRecognizer(step)
    generator = np.random.default_rng(1)
    for clip in (*train_clips, *dev_clips):
        whole = recognize(recognizer, [clip])
        assert [whole.text] == step.model.transcribe([clip])
        for sizes in ([160], [1600], *generator.integers(0, 4000, (3, 500))):
            assert recognize(recognizer, cut(clip, sizes)) == whole
        clip = clip[8000:23000]
        whole = recognize(recognizer, [clip])
        assert recognize(recognizer, cut(clip, [1])) == whole


def test_logits_of_the_trained_model(step, train_clips, dev_clips):
    clips = [train_clips[2], dev_clips[1], train_clips[0][:5000]]
    assert_same_logits(stream_logits(step, clips), step.model, clips)


def test_times_are_those_of_the_best_alignment(step, train_clips):
    model = step.model
    clip = train_clips[2]
    hypothesis = recognize(keras_ds2.StreamingRecognizer(step), [clip])
    assert len(hypothesis.text) > 40
    logits = model.predict_on_batch(padded([clip]))["logits"][0]
    words, characters = time_text(
        hypothesis.text,
        model.alphabet,
        character_log_probs(logits, model.alphabet),
        model.frame_duration,
    )
    for actual, expected in (
        (hypothesis.words, words),
        (hypothesis.characters, characters),
    ):
        assert [(t.text, t.start, t.end) for t in actual] == [
            (t.text, t.start, t.end) for t in expected
        ]
        np.testing.assert_allclose(
            [t.confidence for t in actual],
            [t.confidence for t in expected],
            rtol=1e-4,
        )
    best = character_log_probs(logits, model.alphabet).max(axis=1).sum()
    assert hypothesis.score == pytest.approx(best, rel=1e-4)
    assert hypothesis.acoustic_score == hypothesis.score


@pytest.mark.parametrize("num_samples", [0, 1, 399, 400, 719, 720, 1600, 3300])
def test_short_clips(step, num_samples, train_clips):
    clip = train_clips[2][10000 : 10000 + num_samples]
    recognizer = keras_ds2.StreamingRecognizer(step)
    text = recognize(recognizer, [clip]).text
    expected = step.model.transcribe([clip])[0] if num_samples >= 400 else ""
    assert text == expected
    assert recognizer._utterance.num_frames == step.model.logit_length(
        num_samples
    )


def test_streams_share_a_step_and_do_not_meet(step, train_clips, dev_clips):
    clips = [train_clips[2][:8000], dev_clips[0][:8000], train_clips[4][:8000]]
    alone = [stream_logits(step, [clip])[0] for clip in clips]
    chunks = np.stack(clips).reshape(3, 5, 1600)
    logits = [[], [], []]
    states = [step.initial_state() for _ in clips]
    numbers = [0, 0, 0]
    generator = np.random.default_rng(0)
    while min(numbers) < 9:
        # Some of them, in any order; between chunks states are arrays.
        rows = generator.permutation(3)[: generator.integers(1, 4)]
        state = {
            name: np.concatenate([states[row][name] for row in rows])
            for name in states[0]
        }
        samples = [chunks[row, numbers[row] % 5] for row in rows]
        sizes = [1600 * (numbers[row] < 5) for row in rows]
        results, is_real, state = step(state, np.stack(samples), sizes)
        for i, row in enumerate(rows):
            numbers[row] += 1
            logits[row].append(results.numpy()[i, is_real.numpy()[i]])
            states[row] = {
                name: value.numpy()[i : i + 1] for name, value in state.items()
            }
    for actual, expected in zip(logits, alone, strict=True):
        actual = np.concatenate(actual)
        assert actual.shape == expected.shape
        scale = np.abs(expected[:, :29]).max()
        np.testing.assert_allclose(
            actual, expected, rtol=0, atol=ROUNDING * scale
        )
    assert step._function.experimental_get_tracing_count() == 1


def test_what_comes_after_the_end_changes_nothing(step, train_clips):
    chunk = train_clips[2][None, 8000:9600]
    state = step.initial_state()
    _, _, state = step(state, chunk, [1600])
    _, _, state = step(state, chunk, [700])
    silent, _, _ = step(state, np.zeros_like(chunk), [0])
    loud, is_real, after = step(state, chunk, [1600])
    np.testing.assert_array_equal(silent, loud)
    assert np.any(is_real)
    while np.any(is_real):
        _, is_real, after = step(after, chunk, [1600])
    # Not even an hour later.
    for _ in range(50):
        _, is_real, after = step(after, chunk, [1600])
        assert not np.any(is_real)
    assert after["length"].numpy() == [0]  # and counts down no further


def test_state_is_small_and_does_not_grow(step, train_clips):
    def sizes(state):
        return {name: value.shape for name, value in state.items()}

    recognizer = keras_ds2.StreamingRecognizer(step)
    before = sizes(recognizer._state)
    assert sum(np.prod(shape) for shape in before.values()) < 3000
    recognizer.accept(train_clips[2])
    assert sizes(recognizer._state) == before
    # Counted from not long ago: numbers do not grow either.
    assert recognizer._state["position"].numpy() <= 4800
    assert recognizer._state["length"].numpy() <= 4800
    assert step._function.experimental_get_tracing_count() == 1


def resident_megabytes():
    pages = int(pathlib.Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize() / 2**20


def stream_for(seconds, recognizer, clips):
    """Megabytes in use after one tenth of the time, and at the end."""
    before, passed = None, 0.0
    for clip in itertools.cycle(clips):
        partial = recognizer.accept(clip)
        passed += len(clip) / 16000
        if before is None and passed > seconds / 10:
            before = resident_megabytes()
        if passed > seconds:
            break
    assert recognizer.step._function.experimental_get_tracing_count() == 1
    sizes = [np.prod(x.shape) for x in recognizer._state.values()]
    assert sum(sizes) < 3000
    assert len(partial.stable) > 5 * seconds
    return before, resident_megabytes(), recognizer.finish()


@pytest.mark.slow
@pytest.mark.parametrize("with_words", [False, True])
def test_memory_does_not_grow_in_two_hours(step, train_clips, with_words):
    """But by the text, and some bytes for each of its letters."""
    decoder = None
    if with_words:
        words = "i was delighted with the country and manner of life i'll be"
        decoder = keras_ds2.BeamSearchDecoder(
            lexicon=f"{words} glad to try sir he replied".split(),
            beam_width=16,
        )
    step = keras_ds2.StreamingStep(step.model, chunk_duration=1.0)
    recognizer = keras_ds2.StreamingRecognizer(step, decoder)
    clips = [train_clips[2], np.zeros(16000, "float32"), train_clips[4]]
    before, after, hypothesis = stream_for(7200, recognizer, clips)
    assert after - before < 50
    assert hypothesis.words[-1].end > 7190


# === Looking ahead ===


@pytest.mark.parametrize(
    "options",
    [
        "lstm",
        "one convolution",
        "three convolutions",
        "other windows",
        "moving means",
        "spelling",
        "without row convolution",
    ],
)
def test_lookahead(options, dev_clips, eagerly):
    clip = dev_clips[0][:16000].copy()
    model = make_model(ONE_BY_ONE[options], [clip])
    step = keras_ds2.StreamingStep(
        model, chunk_duration=10 * model.frame_duration
    )
    frame_size = round(model.frame_duration * 16000)
    lookahead = round(step.lookahead * 16000)
    assert step.delay == (lookahead - 1) // frame_size
    frame = 8
    last = frame_size * frame + lookahead - 1  # the last sample that it sees

    def logits(position):
        spoiled = clip.copy()
        spoiled[position] += 1e4  # windows are narrow at their ends
        return model.predict_on_batch(padded([spoiled]))["logits"][0]

    expected = model.predict_on_batch(padded([clip]))["logits"][0]
    differs = np.any(logits(last) != expected, axis=1)
    assert differs[frame] and not np.any(differs[:frame])
    differs = np.any(logits(last + 1) != expected, axis=1)
    assert not np.any(differs[: frame + 1])


def test_reference_model_looks_a_quarter_of_a_second_ahead(step):
    # By hand: 25 ms of window, 5 frames of 10 ms, 5 and 4 of 20 ms.
    model = keras_ds2.DeepSpeech2(num_rnn_layers=0, dense_units=1)
    reference = keras_ds2.StreamingStep(model)
    assert reference.lookahead == pytest.approx(0.025 + 0.05 + 0.1 + 0.08)
    assert reference.delay == 12
    recognizer = keras_ds2.StreamingRecognizer(step)
    assert recognizer.lookahead == step.lookahead


# === Ends ===


def test_an_utterance_ends_once(step, train_clips):
    clip = train_clips[2]
    recognizer = keras_ds2.StreamingRecognizer(step)
    first = recognize(recognizer, [clip])
    for late in (recognizer.finish, lambda: recognizer.accept(clip)):
        with pytest.raises(RuntimeError, match=r"Call `reset\(\)`"):
            late()
    recognizer.reset()
    assert recognizer.accept(clip[:0]) == keras_ds2.PartialTranscript("", "")
    assert recognize(recognizer, [clip]) == first


def test_endpoint(step, train_clips):
    clip = train_clips[2]
    silence = np.zeros(16000, "float32")
    recognizer = keras_ds2.StreamingRecognizer(step, endpoint_silence=0.6)
    partials = [recognizer.accept(p) for p in cut(silence, [1600])]
    assert not any(partial.endpoint for partial in partials)  # nothing yet
    recognizer.reset()
    for piece in cut(clip[:-3000], [1600]):
        assert not recognizer.accept(piece).endpoint
    partials = [recognizer.accept(clip[-3000:])]
    partials += [recognizer.accept(p) for p in cut(silence, [1600])]
    ends = [partial.endpoint for partial in partials]
    assert ends == sorted(ends) and ends[-1] and not ends[0]
    # What was said until then is final.
    first = partials[ends.index(True)]
    assert recognizer.finish().text.startswith(first.stable)
    assert len(first.stable) > 40
    recognizer = keras_ds2.StreamingRecognizer(step)
    recognizer.accept(clip)
    assert not recognizer.accept(silence).endpoint


def test_an_endpoint_is_so_many_frames_of_blank_and_space(step, monkeypatch):
    """By hand: 5 frames of 20 ms in a chunk."""
    said = []

    def speak(self, state, *_):
        logits = 9.0 * np.eye(31, dtype="float32")[None, said.pop()]
        return tf.constant(logits), tf.ones((1, 5), bool), state

    monkeypatch.setattr(keras_ds2.StreamingStep, "__call__", speak)
    blank, space, letter = 0, 1, 3
    for silence, expected in ((0.06, True), (0.09, False), (0.08, True)):
        recognizer = keras_ds2.StreamingRecognizer(
            step, endpoint_silence=silence
        )
        for symbols, is_end in (
            ([blank, space, blank, blank, space], False),
            ([letter] * 5, False),
            ([letter, space, blank, space, blank], expected),
        ):
            said.append(symbols)
            partial = recognizer.accept(np.zeros(1600, "float32"))
            assert partial.endpoint == is_end
        recognizer.reset()  # forgets that something was said
        said.append([space] * 5)
        assert not recognizer.accept(np.zeros(1600, "float32")).endpoint


# === What is refused ===


@pytest.mark.parametrize(
    "samples",
    [
        np.zeros(1600, "int16"),
        np.zeros((1, 1600), "float32"),
        np.float32(0.0),
        np.array([0.0, np.nan]),
        np.array([0.0, np.inf], "float32"),
        np.array([-1e300]),  # infinite in float32, as is the square of
        np.array([1e20], "float32"),
        "clip.wav",
    ],
)
def test_samples_that_are_none(step, samples):
    recognizer = keras_ds2.StreamingRecognizer(step)
    with pytest.raises(ValueError, match="`samples` must be a 1-D array"):
        recognizer.accept(samples)
    assert recognizer.accept(np.zeros(10)).text == ""  # nothing was harmed


@pytest.mark.parametrize(
    "model",
    [
        lambda: keras_ds2.DeepSpeech2(**SMALL, bidirectional=True),
        lambda: keras_ds2.DeepSpeech(dense_units=4, rnn_units=4),
        lambda: keras_ds2.DeepSpeech(
            dense_units=4, rnn_units=4, rnn_type="lstm"
        ),
    ],
)
def test_bidirectional_models_cannot_stream(model):
    with pytest.raises(ValueError, match="would have to wait for the last"):
        keras_ds2.StreamingRecognizer(model())


def test_a_layer_that_goes_backwards(step):
    class Backwards(SpeechRecognizer):
        def __init__(self):
            base = step.model
            x = keras_ds2.LSTM(
                31, return_sequences=True, go_backwards=True, name="back"
            )(base.output["logits"])
            super().__init__(
                base.input, {**base.output, "logits": x}, None, "other"
            )

    with pytest.raises(ValueError, match="'back' also runs from the end"):
        keras_ds2.StreamingStep(Backwards())


def test_a_layer_that_is_not_known_to_stream(step):
    class Other(SpeechRecognizer):
        def __init__(self):
            base = step.model
            x = keras.layers.Softmax(axis=1, name="over_time")(
                base.output["logits"]
            )
            super().__init__(
                base.input, {**base.output, "logits": x}, None, "other"
            )

    with pytest.raises(ValueError, match="'over_time', a Softmax"):
        keras_ds2.StreamingStep(Other())


def test_a_layer_without_a_loop_of_its_own_is_refused_at_once():
    model = keras_ds2.DeepSpeech2(**SMALL, dtype="float64")
    with pytest.raises(ValueError, match="'rnn_1' cannot stream: .* float64"):
        keras_ds2.StreamingStep(model)


@pytest.mark.parametrize(
    "time_strides, chunk_size",
    [((2, 1), 1600), ((2, 2), 1280), ((5, 3), 2400)],  # 20, 40, 150 ms
)
def test_a_chunk_is_a_tenth_of_a_second_at_most(time_strides, chunk_size):
    model = keras_ds2.DeepSpeech2(
        **SMALL, conv_strides=[(stride, 2) for stride in time_strides]
    )
    assert keras_ds2.StreamingStep(model).chunk_size == chunk_size


@pytest.mark.parametrize(
    "chunk_duration", [0.0, -0.02, 0.01, 0.05, 0.101, math.nan, math.inf]
)
def test_chunks_are_of_whole_frames(step, chunk_duration):
    with pytest.raises(
        ValueError, match="multiple of the longest frame, 0.02 s"
    ):
        keras_ds2.StreamingStep(step.model, chunk_duration)


def test_other_arguments(step):
    for silence in (0.0, -1.0, float("nan")):
        with pytest.raises(ValueError, match="must be positive, or None"):
            keras_ds2.StreamingRecognizer(step, endpoint_silence=silence)
    with pytest.raises(ValueError, match="the model's `alphabet`"):
        decoder = keras_ds2.BeamSearchDecoder("ab ", lexicon=["ab"])
        keras_ds2.StreamingRecognizer(step, decoder)
    with pytest.raises(ValueError, match="without lexicon and language model"):
        keras_ds2.StreamingRecognizer(step, keras_ds2.BeamSearchDecoder())
