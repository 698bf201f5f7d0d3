"""Oracles: `model.transcribe` on the same clips, and what a person sees of a
pseudo-terminal."""

import io
import itertools
import json
import os
import pathlib
import pty
import re
import signal
import subprocess
import sys
import types

import keras
import numpy as np
import pytest
import soxr

import keras_ds2
from keras_ds2.cli import listening, live_text, shared, sound_sources
from keras_ds2.cli.main import main

ROOT = pathlib.Path(__file__).parent.parent
TINY = str(ROOT / "tests/data/tiny.keras")
FOLDER = ROOT / "tests/data/LibriSpeech/train-clips"
CLIPS = [
    FOLDER / "2412/153948/2412-153948-0005.opus",
    FOLDER / "251/137823/251-137823-0000.opus",
]


@pytest.fixture(scope="module")
def step():
    """One tracing for all tests."""
    return keras_ds2.StreamingStep(keras.models.load_model(TINY))


def speech(rate=16000):
    """Both clips, and a second of silence after each."""
    silence = np.zeros(rate, "float32")
    parts = [(keras_ds2.load_audio(clip, rate), silence) for clip in CLIPS]
    return np.concatenate(list(itertools.chain(*parts)))


def as_integers(samples):
    return np.clip(np.round(samples * 32768), -32768, 32767).astype("<i2")


def utterances(step, samples):
    """Where each begins, and what `transcribe` would say of it, with times."""
    recognizer = keras_ds2.StreamingRecognizer(step, endpoint_silence=0.8)
    starts = [0]
    for end in range(1600, len(samples), 1600):
        if recognizer.accept(samples[end - 1600 : end]).endpoint:
            starts.append(end)
            recognizer.reset()
    pieces = np.split(samples, starts[1:])
    hypotheses = step.model.recognize(pieces)
    return [
        (start / 16000, hypothesis)
        for start, hypothesis in zip(starts, hypotheses, strict=True)
        if hypothesis.text
    ]


@pytest.fixture(scope="module")
def expected(step):
    found = utterances(step, as_integers(speech()) / np.float32(32768))
    assert len(found) > 1 and found[0][1].text.startswith("i was delighted")
    return found


@pytest.fixture(scope="module")
def texts(expected):
    return [hypothesis.text for _, hypothesis in expected]


@pytest.fixture(autouse=True)
def loaded(step, monkeypatch):
    monkeypatch.setattr(keras_ds2.training.device, "use_device", str)
    monkeypatch.setattr(keras.models, "load_model", lambda *_, **__: step.model)
    monkeypatch.setattr(listening, "StreamingStep", lambda _: step)


class Pipe(io.RawIOBase):
    """Standard input of which `read1` gives any number of bytes."""

    def __init__(self, samples, sizes=(2**20,), at_end=bytes):
        self._data = io.BytesIO(samples.tobytes())
        self._sizes = itertools.cycle(sizes)
        self._at_end = at_end
        self.buffer = self

    def read1(self, size):
        return self._data.read(min(size, next(self._sizes))) or self._at_end()


@pytest.fixture
def run(capsys, monkeypatch):
    def run(*argv, stdin=None):
        monkeypatch.setattr(sys, "stdin", stdin)
        status = main(["stream", "--model", TINY, *map(str, argv)])
        return status, *capsys.readouterr()

    return run


# === Standard input ===


@pytest.mark.parametrize("sizes", [(2**20,), (1, 2, 333, 4000)])
def test_utterances_are_lines_however_they_come(run, texts, sizes):
    stdin = Pipe(as_integers(speech()), sizes)
    assert run("-", stdin=stdin) == (0, "".join(f"{t}\n" for t in texts), "")


def test_text_of_a_clip(run, step):
    for clip in CLIPS:
        [text] = step.model.transcribe([clip])
        stdin = Pipe(as_integers(keras_ds2.load_audio(clip)))
        assert run("-", stdin=stdin) == (0, text + "\n", "")


def test_another_rate(run, step):
    samples = as_integers(speech(44100))
    resampled = soxr.resample(samples / np.float32(32768), 44100, 16000)
    stdin = Pipe(samples)
    _, out, _ = run("--sampling-rate", 44100, "-", stdin=stdin)
    assert out.splitlines() == [
        hypothesis.text for _, hypothesis in utterances(step, resampled)
    ]


def test_events(run, expected):
    samples = speech()
    status, out, _ = run("--format=json", "-", stdin=Pipe(as_integers(samples)))
    assert status == 0
    events = [json.loads(line) for line in out.splitlines()]
    finals = [event for event in events if event["type"] == "final"]
    for event, (start, hypothesis) in zip(finals, expected, strict=True):
        assert event["text"] == hypothesis.text
        for word, same in zip(event["words"], hypothesis.words, strict=True):
            assert word["word"] == same.text
            for key, value in (
                ("start", start + same.start),
                ("end", start + same.end),
                ("confidence", same.confidence),
            ):
                assert word[key] == pytest.approx(value, abs=2e-3)
        assert event["start"] == event["words"][0]["start"]
        assert event["end"] == event["words"][-1]["end"]
    partials = [event for event in events if event["type"] == "partial"]
    assert len(partials) > 30
    times = [event["time"] for event in partials]
    assert times == sorted(set(times)) and times[-1] <= len(samples) / 16000
    assert all(event["text"] == event["stable"] for event in partials)
    order = [event["type"] for event in events]
    assert order[-1] == "final" and "partial" in order[order.index("final") :]


def test_silence_that_never_ends_an_utterance(run, step):
    samples = speech()
    [text] = step.model.transcribe([as_integers(samples) / 32768])
    stdin = Pipe(as_integers(samples))
    assert run("--endpoint-silence=inf", "-", stdin=stdin) == (
        0,
        text + "\n",
        "",
    )


def test_no_speech_is_no_line(run):
    for num_samples in (0, 100):
        stdin = Pipe(np.zeros(num_samples, "<i2"))
        assert run("--format=json", "-", stdin=stdin) == (0, "", "")


def test_decoder(run, texts, tmp_path):
    words = ["country", "manner", "of", "life", "the"]
    path = tmp_path / "decoder.json"
    path.write_text(json.dumps({"lexicon": words, "beam_width": 8}))
    stdin = Pipe(as_integers(keras_ds2.load_audio(CLIPS[0])))
    status, out, _ = run("--decoder", path, "-", stdin=stdin)
    assert status == 0 and set(out.split()) <= set(words)
    assert "country" in out


# === Ends ===


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("is_busy", [False, True])
def test_a_signal_ends_the_utterance(run, step, number, is_busy, monkeypatch):
    """Whether it comes while input is waited for, or while the model runs."""
    samples = speech()[:16000]
    [text] = step.model.transcribe([as_integers(samples) / 32768])
    assert text
    before = signal.getsignal(number)
    if is_busy:
        accept = keras_ds2.StreamingRecognizer.accept
        calls = itertools.count()

        def busy(self, chunk):
            if next(calls) == 9 + 1:  # the first is before all
                signal.raise_signal(number)
            return accept(self, chunk)

        monkeypatch.setattr(keras_ds2.StreamingRecognizer, "accept", busy)
        stdin = Pipe(as_integers(speech()))
    else:
        stdin = Pipe(
            as_integers(samples), at_end=lambda: signal.raise_signal(number)
        )
    assert run("-", stdin=stdin) == (128 + number, text + "\n", "")
    assert signal.getsignal(number) == before


def test_the_second_signal_ends_all(run, monkeypatch):
    def interrupt():
        signal.raise_signal(signal.SIGINT)

    monkeypatch.setattr(
        keras_ds2.StreamingRecognizer, "finish", lambda _: interrupt()
    )
    stdin = Pipe(as_integers(speech()[:8000]), at_end=interrupt)
    assert run("-", stdin=stdin) == (130, "", "\n")


def test_half_a_sample(run, step):
    [text] = step.model.transcribe(CLIPS[:1])
    samples = as_integers(keras_ds2.load_audio(CLIPS[0])).tobytes()
    stdin = Pipe(np.frombuffer(samples + b"x", "i1"))
    status, out, err = run("-", stdin=stdin)
    assert (status, out) == (1, text + "\n")
    assert "ended within a sample" in err and err.count("\n") == 1


@pytest.mark.parametrize(
    "argv, message",
    [
        (["--endpoint-silence", "0", "-"], "must be more than 0"),
        (["--endpoint-silence", "nan", "-"], "must be more than 0"),
        (["--sampling-rate", "0", "-"], "from 1000 to 768000 Hz"),
        (["--sampling-rate", "1000000"], "from 1000 to 768000 Hz"),
        (["--microphone", "USB", "-"], "exclude each other"),
        (["-"], "Standard input is an audio file, not raw samples."),
    ],
)
def test_what_cannot_be_used(run, argv, message):
    stdin = Pipe(np.frombuffer(CLIPS[0].read_bytes(), "i1"))
    status, out, err = run(*argv, stdin=stdin)
    assert (status, out) == (2, "")
    assert err.count("\n") == 1 and message in err


def test_no_standard_input(run):
    leader, follower = pty.openpty()
    with open(follower) as terminal, os.fdopen(leader):
        for stdin in (None, terminal):
            status, _, err = run("-", stdin=stdin)
            assert status == 2 and "Standard input has no samples" in err


def test_a_model_that_cannot_stream(run, monkeypatch):
    model = keras_ds2.DeepSpeech2(
        num_rnn_layers=1, rnn_units=4, dense_units=4, bidirectional=True
    )
    monkeypatch.setattr(listening, "StreamingStep", keras_ds2.StreamingStep)
    monkeypatch.setattr(shared, "load_model", lambda *_: ("an4", model))
    status, _, err = run("-", stdin=Pipe(as_integers(speech())))
    assert status == 2 and err.count("\n") == 1
    assert "Model 'an4' cannot stream. Layer" in err
    assert "would have to wait for the last sample" in err


# === A microphone ===


class FakeSoundDevice(types.ModuleType):
    """What sounddevice 0.5.6 offers, and answers, that is used here."""

    class PortAudioError(Exception):
        pass

    def __init__(self, samples, rate=44100, overflows=0):
        super().__init__("sounddevice")
        self._samples, self._overflows = samples, overflows
        self._devices = [
            self._describe(0, "HDMI", 0, rate),
            self._describe(1, "USB Audio: é", 2, rate),
            self._describe(2, "other", 1, 8000),
        ]
        self.default = types.SimpleNamespace(device=[1, 0])
        self.opened = []
        module = self

        class InputStream:
            def __init__(self, *, samplerate, blocksize, device, channels,
                         dtype, callback):  # fmt: skip
                if samplerate not in (rate, 48000):
                    raise module.PortAudioError("Invalid sample rate")
                assert channels == 1 and dtype == "float32"
                module.opened.append((samplerate, device))
                self._blocksize, self._callback = blocksize, callback

            def start(self):
                size = self._blocksize
                for i, begin in enumerate(range(0, len(samples), size)):
                    # The buffer is PortAudio's own, and used again.
                    block = samples[begin : begin + size, None].copy()
                    status = types.SimpleNamespace(
                        input_overflow=i < module._overflows
                    )
                    self._callback(block, len(block), None, status)
                    block[:] = np.nan

            def close(self):
                module.opened.append("closed")

        self.InputStream = InputStream

    def _describe(self, index, name, channels, rate):
        return {
            "name": name,
            "index": index,
            "hostapi": 0,
            "max_input_channels": channels,
            "max_output_channels": 2,
            "default_samplerate": float(rate),
        }

    def query_devices(self, device=None, kind=None):
        if device is None and kind is None:
            return tuple(self._devices)
        if device is None:
            device = self.default.device[0]
        if isinstance(device, str):
            found = [d for d in self._devices if device in d["name"]]
            if not found:
                raise ValueError(f"No {kind} device matching {device!r}")
            [info] = found
        elif 0 <= device < len(self._devices):
            info = self._devices[device]
        else:
            raise self.PortAudioError(f"Error querying device {device}")
        if not info["max_input_channels"]:
            raise ValueError(f"Not an {kind} device: {info['name']!r}")
        return info


@pytest.fixture
def microphone(monkeypatch):
    def microphone(samples, **options):
        fake = FakeSoundDevice(samples, **options)
        monkeypatch.setitem(sys.modules, "sounddevice", fake)
        monkeypatch.setattr(sound_sources, "_PATIENCE", 0.01)
        return fake

    return microphone


@pytest.fixture(scope="module")
def heard(step):
    """What comes out of a microphone that records at 44.1 kHz."""
    resampled = soxr.resample(speech(44100), 44100, 16000)
    return [hypothesis.text for _, hypothesis in utterances(step, resampled)]


def test_a_microphone_until_it_is_gone(run, heard, microphone, monkeypatch):
    fake = microphone(speech(44100))
    monkeypatch.setattr(shared, "is_terminal", lambda: True)
    for argv in ([], ["--microphone", "USB"], ["--microphone=1"]):
        status, out, err = run(*argv)
        assert (status, out) == (1, "".join(f"{text}\n" for text in heard))
        assert err == (
            "Listening to USB Audio: é; Ctrl-C ends\n"
            "keras-ds2: No more sound comes from 'USB Audio: é'.\n"
        )
        assert fake.opened == [(44100, 1), "closed"]
        fake.opened.clear()


def test_a_microphone_until_control_c(run, heard, microphone, monkeypatch):
    """A block of the second clip is the last that is heard."""
    microphone(speech(44100))
    get = sound_sources.queue.SimpleQueue.get
    calls = itertools.count()

    class Queue(sound_sources.queue.SimpleQueue):
        def get(self, timeout):
            if next(calls) == 300:
                signal.raise_signal(signal.SIGINT)
            return get(self, timeout=timeout)

    monkeypatch.setattr(sound_sources.queue, "SimpleQueue", Queue)
    status, out, err = run()
    assert (status, err) == (130, "")
    first, second = out.splitlines()
    assert first == heard[0] and 0 < len(second) < len(heard[1])


def test_lost_sound_is_counted(run, heard, microphone, monkeypatch):
    microphone(speech(44100), overflows=3)
    _, out, err = run()
    assert err.startswith("keras-ds2: Pieces of sound lost after 0.0 s: 3.")
    assert err.count("\n") == 2 and out.startswith(heard[0])
    # What cannot wait is lost: 20 ms blocks, 100 of them are kept.
    monkeypatch.setattr(sound_sources, "_MOST_BLOCKS", 100)
    samples = speech(44100)
    microphone(samples)
    _, out, err = run()
    num_blocks = -(-len(samples) // 882)
    assert f"lost after 0.0 s: {num_blocks - 100}." in err
    assert 0 < len(out) < len(heard[0])


def test_lists(run, microphone):
    fake = microphone(np.zeros(0))
    assert run("--list-microphones") == (
        0,
        "*   1  USB Audio: é, 44100 Hz\n    2  other, 8000 Hz\n",
        "",
    )
    fake._devices.clear()
    status, _, err = run("--list-microphones")
    assert (status, err) == (2, "keras-ds2: There is no microphone.\n")


@pytest.mark.parametrize(
    "argv, message",
    [
        (["--microphone=mine"], "'mine' (No input device matching 'mine')"),
        (["--microphone=7"], "microphone '7' (Error querying device 7)"),
        (["--microphone=HDMI"], "'HDMI' (Not an input device: 'HDMI')"),
        (["--sampling-rate=16000"], "at 16000 Hz: Invalid sample rate"),
    ],
)
def test_a_microphone_that_is_none(run, microphone, argv, message):
    microphone(np.zeros(0))
    status, out, err = run(*argv)
    assert (status, out) == (2, "")
    assert err.count("\n") == 1 and message in err


def test_no_default_microphone(run, microphone):
    microphone(np.zeros(0)).default.device = [-1, -1]
    status, _, err = run()
    assert status == 2 and "no microphone (Error querying device -1)" in err


def test_without_sounddevice_or_portaudio(run, monkeypatch, tmp_path):
    monkeypatch.setattr(shared, "load_model", None)  # told before it is loaded
    monkeypatch.setitem(sys.modules, "sounddevice", None)
    status, _, err = run()
    assert status == 2 and err.count("\n") == 1
    assert "pip install 'keras_ds2[mic]'" in err
    (tmp_path / "sounddevice.py").write_text(
        "raise OSError('PortAudio library not found')"
    )
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "sounddevice")
    status, _, err = run("--list-microphones")
    assert status == 2 and err.count("\n") == 1
    assert "(PortAudio library not found): apt-get install libporta" in err


# === A terminal ===


@pytest.fixture
def terminal(monkeypatch):
    """What is written to a terminal of 30 columns."""
    leader, follower = pty.openpty()
    stdout = open(follower, "w", encoding="utf-8")
    monkeypatch.setenv("COLUMNS", "30")
    monkeypatch.setenv("TERM", "xterm")

    def read():
        os.set_blocking(leader, False)
        parts = []
        while True:
            try:
                parts.append(os.read(leader, 65536))
            except BlockingIOError:
                return b"".join(parts).decode().replace("\r\n", "\n")

    yield stdout, read
    stdout.close()
    os.close(leader)


def drawn(output):
    """All that stood in the last line, and the lines above it at the end."""
    plain = re.sub("\x1b\\[2?m", "", output)
    frames = plain.split("\r\x1b[K")
    assert frames[0] == "" and "\x1b" not in "".join(frames)
    return frames[1:], [f[:-1] for f in frames if f.endswith("\n")]


def test_what_a_person_sees(terminal, texts, monkeypatch):
    stdout, read = terminal
    monkeypatch.setattr(sys, "stdout", stdout)
    monkeypatch.setattr(sys, "stdin", Pipe(as_integers(speech())))
    assert main(["stream", "--model", TINY, "-"]) == 0
    frames, lines = drawn(read())
    assert lines == texts
    redrawn = [frame for frame in frames if not frame.endswith("\n")]
    assert len(redrawn) > 20
    for frame in redrawn:
        assert len(frame) <= 29 and "\n" not in frame
        assert any(frame.removeprefix("...") in text for text in texts)
    assert any(frame.startswith("...") for frame in redrawn)
    assert redrawn[0] == texts[0][: len(redrawn[0])]


def test_what_may_change_is_dim(terminal, monkeypatch):
    stdout, read = terminal
    monkeypatch.setattr(sys, "stdout", stdout)
    view = live_text.choose("text")
    for text, stable, expected in (
        ("", "", "\x1b[2m\x1b[m"),
        ("it is a b", "it is", "it is\x1b[2m a b\x1b[m"),
        ("x" * 29, "x", "x\x1b[2m" + "x" * 28 + "\x1b[m"),
        ("x" * 30, "x" * 28, "..." + "x" * 24 + "\x1b[2mxx\x1b[m"),
        ("x" * 60, "x", "\x1b[2m..." + "x" * 26 + "\x1b[m"),
        ("語" * 14, "語" * 13, "語" * 13 + "\x1b[2m語\x1b[m"),
        ("語" * 15, "語" * 15, "..." + "語" * 13 + "\x1b[2m\x1b[m"),
        ("e\u0301" * 29, "", "\x1b[2m" + "e\u0301" * 29 + "\x1b[m"),
    ):
        view.partial(keras_ds2.PartialTranscript(text, stable), 0.0)
        assert read() == f"\r\x1b[K{expected}"
    view.final(keras_ds2.Hypothesis("", 0.0, 0.0), 0.0)
    assert read() == "\r\x1b[K"


def test_a_dumb_terminal_and_json_are_not_redrawn(terminal, monkeypatch):
    monkeypatch.setattr(sys, "stdout", terminal[0])
    assert isinstance(live_text.choose("json"), live_text.Events)
    monkeypatch.setenv("TERM", "dumb")
    assert isinstance(live_text.choose("text"), live_text.Utterances)


# === A process of its own ===


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, None])
def test_a_process(texts, number, tmp_path):
    """Lines come at once; a signal, or a closed pipe, ends it quietly."""
    script = tmp_path / "keras-ds2"
    script.write_text(
        "import sys\nfrom keras_ds2.cli.main import main\nsys.exit(main())"
    )
    samples = as_integers(speech()).tobytes()
    with subprocess.Popen(
        [sys.executable, script, "stream", "--model", TINY, "-"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    ) as process:
        process.stdin.write(samples)
        process.stdin.flush()
        for text in texts[:-1]:  # the last may not have ended yet
            assert process.stdout.readline().decode() == text + "\n"
        if number is None:
            process.stdout.close()
            process.stdin.write(samples[:131072])  # one utterance
            process.stdin.close()
        else:
            process.send_signal(number)
            rest = process.stdout.read().decode()
            assert f"{texts[-1]}\n".startswith(rest[:-1])
        assert process.stderr.read() == b""
        assert process.wait(timeout=60) == (128 + number if number else 141)
