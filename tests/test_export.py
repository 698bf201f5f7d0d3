"""Oracles: the model and `StreamingStep` themselves, ONNX Runtime, and
processes that have no Keras."""

import importlib.util
import json
import os
import pathlib
import subprocess
import sys
import types
import venv

import keras
import numpy as np
import onnxruntime
import pytest
import tensorflow as tf
from models import padded, scramble
from test_streaming import (
    DATA,
    ONE_BY_ONE,
    SMALL,
    TOGETHER,
    OneDirection,
    eagerly,  # noqa: F401  (a fixture)
    make_model,
    stream_logits,
)

import keras_ds2
from keras_ds2.cli.main import main
from keras_ds2.layers.symbol_logits import SymbolLogits
from keras_ds2.models.parts import log_mel_frames
from keras_ds2.models.speech_recognizer import SpeechRecognizer

ROOT = pathlib.Path(__file__).parent.parent

# Of the largest logit: sums in another order (measured 3e-6 where a clipped
# ReLU adds up, 2e-7 elsewhere).
ROUNDING = 1e-5

SMALL_DEEP_SPEECH = {
    "num_mel_bins": 20,
    "context": 4,
    "dense_units": 16,
    "rnn_units": 8,
}
BIDIRECTIONAL = {
    "lstm, both ways": {"bidirectional": True},
    "gru, both ways": {
        "rnn_type": "gru",
        "bidirectional": True,
        "merge_mode": "concat",
        "normalize_projection": True,
        "mean_momentum": 0.9,
    },
}
DEEP_SPEECH = {
    f"deep speech, {rnn_type}": {"rnn_type": rnn_type}
    for rnn_type in ("simple", "lstm", "gru")
}


class OnnxStep:
    """A file that was exported with `streaming=True`, as `StreamingStep`."""

    def __init__(self, path, model):
        self.model = model
        session = onnxruntime.InferenceSession(path)
        metadata = session.get_modelmeta().custom_metadata_map
        names = [output.name for output in session.get_outputs()]
        self._run = lambda **inputs: dict(
            zip(names, session.run(names, inputs), strict=True)
        )
        self.chunk_size = int(metadata["chunk_size"])
        self._state = json.loads(metadata["state"])

    def initial_state(self, batch_size):
        return {
            name: np.zeros((batch_size, *value["shape"]), value["dtype"])
            for name, value in self._state.items()
        }

    def __call__(self, state, samples, num_samples):
        num_samples = np.array(num_samples, "int32")
        outputs = self._run(samples=samples, num_samples=num_samples, **state)
        state = {name: outputs[f"next_{name}"] for name in state}
        logits, is_real = outputs["logits"], outputs["is_real"]
        return keras.ops.convert_to_tensor(logits), _Array(is_real), state


class _Array(np.ndarray):
    def __new__(cls, array):
        return array.view(cls)

    def numpy(self):
        return np.asarray(self)


@pytest.fixture
def clips(dev_clips):
    """Of different lengths, one too short for a single frame."""
    return [dev_clips[0][10000:32000], dev_clips[1][:17777], dev_clips[0][:300]]


def assert_close(actual, expected, tolerance=ROUNDING):
    scale = np.abs(expected[:, :-2]).max()
    assert scale > 0.05
    assert actual.shape == expected.shape
    np.testing.assert_allclose(actual, expected, rtol=0, atol=tolerance * scale)


def assert_same_as_model(path, model, clips):
    """Each clip alone in the model, and in a batch padded with NaN."""
    session = onnxruntime.InferenceSession(path)
    inputs = padded(clips, 1234, np.nan)
    logits, logit_length = session.run(["logits", "logit_length"], inputs)
    for i, clip in enumerate(clips):
        length = model.logit_length(len(clip))
        assert logit_length[i] == length
        if length:
            expected = model(padded([clip]))["logits"][0].numpy()
            assert_close(logits[i, :length], expected)


def assert_streams(path, model, clips):
    streamed = stream_logits(OnnxStep(path, model), clips)
    for logits, clip in zip(streamed, clips, strict=True):
        if not model.logit_length(len(clip)):
            assert not len(logits)
            continue
        assert_close(logits, model(padded([clip]))["logits"][0].numpy())


def assert_exports(options, clips, folder):
    path = folder / "model.onnx"
    model = make_model(options, clips[:2])
    keras_ds2.export_model(model, path)
    assert_same_as_model(path, model, clips)
    if isinstance(options, dict) and options.get("bidirectional"):
        return
    # Chunks shorter than the delay, so that the first have no real frame.
    chunk = keras_ds2.StreamingStep(model).chunk_size / 16000
    keras_ds2.export_model(
        model, path, streaming=True, chunk_duration=2 * chunk
    )
    assert_streams(path, model, clips)


@pytest.mark.parametrize(
    "options",
    [*TOGETHER.values(), *BIDIRECTIONAL.values(), OneDirection],
    ids=[*TOGETHER, *BIDIRECTIONAL, "context"],
)
def test_onnx_has_the_logits_of_the_model(
    options,
    clips,
    tmp_path,
    eagerly,  # noqa: F811
):
    assert_exports(options, clips, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("options", ONE_BY_ONE.values(), ids=ONE_BY_ONE)
def test_each_option_by_itself(
    options,
    clips,
    train_clips,
    tmp_path,
    eagerly,  # noqa: F811
):
    assert_exports(options, [*clips, train_clips[0]], tmp_path)


@pytest.mark.parametrize("options", DEEP_SPEECH.values(), ids=DEEP_SPEECH)
def test_onnx_of_the_first_paper(
    options,
    clips,
    tmp_path,
    eagerly,  # noqa: F811
):
    model = scramble(keras_ds2.DeepSpeech(**SMALL_DEEP_SPEECH, **options))
    model.adapt([padded(clips[:2])])
    if options["rnn_type"] == "simple":  # up to the clip
        rnn = model.get_layer("rnn_4")
        rnn.cell.kernel.assign(30 * rnn.cell.kernel)
        inner = keras.Model(model.inputs, rnn.output)
        assert np.max(inner(list(padded(clips[:2]).values()))) == 40  # 2 x 20
    keras_ds2.export_model(model, tmp_path / "model.onnx")
    assert_same_as_model(tmp_path / "model.onnx", model, clips)


# === One trained model ===

TINY_CLIP = "train-clips/2412/153948/2412-153948-0005.opus"
TINY_TEXT = "i was delighted with the country and the manner of life"


@pytest.fixture(scope="module")
def tiny():
    return keras.models.load_model(DATA / "tiny.keras")


@pytest.fixture(scope="module")
def files(tiny, tmp_path_factory):
    """The trained model, exported in all ways."""
    folder = tmp_path_factory.mktemp("exported")
    for name, options in {
        "offline.onnx": {},
        "stream.onnx": {"streaming": True},
        "int8.onnx": {"int8": True},
        "offline": {"format": "savedmodel"},
        "stream": {"format": "savedmodel", "streaming": True},
    }.items():
        keras_ds2.export_model(tiny, folder / name, **options)
    return folder


@pytest.fixture(scope="module")
def clip():
    return keras_ds2.load_audio(DATA / "LibriSpeech" / TINY_CLIP)


def test_metadata_says_all_that_a_program_needs(files, tiny):
    expected = {
        "alphabet": tiny.alphabet,
        "blank_index": "0",
        "frame_duration": "0.02",
        "min_samples": "400",
        "sampling_rate": "16000",
    }
    step = keras_ds2.StreamingStep(tiny)
    more = {"chunk_size": "1600", "delay": str(step.delay)}
    shapes = {
        name.replace(".", "_"): list(value.shape[1:])
        for name, value in step.initial_state().items()
    }
    for name, rest in (("offline", {}), ("int8", {}), ("stream", more)):
        session = onnxruntime.InferenceSession(files / f"{name}.onnx")
        metadata = session.get_modelmeta().custom_metadata_map
        state = json.loads(metadata.pop("state", "{}"))
        metadata = {k: v for k, v in metadata.items() if k in expected | rest}
        assert metadata == expected | rest
        if rest:
            assert shapes == {k: v["shape"] for k, v in state.items()}
        if name != "int8":
            path = files / name / "assets.extra" / "metadata.json"
            stored = json.loads(path.read_text())
            assert json.loads(stored.pop("state", "{}")) == state
            assert stored == metadata


def test_less_than_a_window_is_no_frame(tmp_path):
    # A stride of 2 would hide a number of frames below zero.
    model = keras_ds2.DeepSpeech(**SMALL_DEEP_SPEECH, stride=1)
    keras_ds2.export_model(model, tmp_path / "model.onnx")
    session = onnxruntime.InferenceSession(tmp_path / "model.onnx")
    for size in (0, 300):
        _, logit_length = session.run(
            ["logits", "logit_length"],
            {
                "audio": np.zeros((2, size), "float32"),
                "audio_length": np.array([0, size], "int32"),
            },
        )
        assert logit_length.tolist() == [0, 0]


def test_8_bits_are_smaller_and_hear_the_same(files, tiny, clip):
    sizes = {
        name: os.path.getsize(files / f"{name}.onnx")
        for name in ("offline", "int8")
    }
    assert sizes["int8"] < 0.9 * sizes["offline"]  # half of it the transform
    session = onnxruntime.InferenceSession(files / "int8.onnx")
    logits, logit_length = session.run(None, padded([clip]))
    assert tiny.decode(logits, logit_length) == [TINY_TEXT]
    expected = tiny(padded([clip]))["logits"][0].numpy()
    assert_close(logits[0], expected, 0.1)
    with pytest.raises(AssertionError):  # else nothing was rounded
        assert_close(logits[0], expected, 1e-4)


WITHOUT_KERAS_DS2 = """
import sys
sys.modules["keras_ds2"] = sys.modules["keras"] = None
import json
import numpy as np
import tensorflow as tf

folder = sys.argv[1]
inputs = dict(np.load(f"{folder}/inputs.npz"))
offline = tf.saved_model.load(f"{folder}/offline").signatures["serve"](
    **{name: tf.constant(value) for name, value in inputs.items()}
)
stream = tf.saved_model.load(f"{folder}/stream").signatures["serve"]
metadata = json.load(open(f"{folder}/stream/assets.extra/metadata.json"))
state = {
    name: tf.zeros((1, *value["shape"]), value["dtype"])
    for name, value in json.loads(metadata["state"]).items()
}
size, audio = int(metadata["chunk_size"]), inputs["audio"][1]
parts = []
for begin in range(0, len(audio) + 10 * size, size):
    chunk = audio[begin : begin + size]
    outputs = stream(
        samples=tf.constant(np.pad(chunk, (0, size - len(chunk)))[None]),
        num_samples=tf.constant([len(chunk)]),
        **state,
    )
    state = {name: outputs[f"next_{name}"] for name in state}
    parts.append(outputs["logits"][outputs["is_real"]])
np.savez(
    f"{folder}/outputs.npz",
    logits=offline["logits"],
    logit_length=offline["logit_length"],
    streamed=np.concatenate(parts),
)
"""


def test_saved_model_needs_no_keras(files, tiny, clip):
    clips = [clip[:20000], clip[:35000]]
    inputs = padded(clips)
    np.savez(files / "inputs.npz", **inputs)
    result = subprocess.run(
        [sys.executable, "-c", WITHOUT_KERAS_DS2, str(files)],
        cwd=files,
        env=dict(os.environ, TF_CPP_MIN_LOG_LEVEL="3"),
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert result.returncode == 0, result.stderr
    outputs = np.load(files / "outputs.npz")
    expected = tiny(inputs)
    length = expected["logit_length"].numpy()
    np.testing.assert_array_equal(outputs["logit_length"], length)
    for i, count in enumerate(length):
        logits = expected["logits"][i, :count].numpy()
        assert_close(outputs["logits"][i, :count], logits)
    assert_close(outputs["streamed"], logits)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.*tf.lite.Interpreter is deprecated")
def test_litert_takes_the_step_of_a_stream_alone(files, tiny, clip, dev_clips):
    def convert(name):
        path = str(files / name)
        return tf.lite.TFLiteConverter.from_saved_model(path).convert()

    with pytest.raises(Exception, match="TensorListReserve"):
        convert("offline")
    interpreter = tf.lite.Interpreter(model_content=convert("stream"))
    step = OnnxStep(files / "stream.onnx", tiny)  # for the metadata
    step._run = interpreter.get_signature_runner()
    clips = [clip, dev_clips[0][:30000]]
    for logits, clip in zip(stream_logits(step, clips), clips, strict=True):
        assert_close(logits, tiny(padded([clip]))["logits"][0].numpy())


def load_example():
    path = ROOT / "examples" / "transcribe_onnx.py"
    spec = importlib.util.spec_from_file_location("transcribe_onnx", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_example(files, capsys, tmp_path):
    main = load_example().main  # not the command's
    path = str(DATA / "LibriSpeech" / TINY_CLIP)
    main([str(files / "offline.onnx"), path])
    assert capsys.readouterr().out == TINY_TEXT + "\n"
    main([str(files / "stream.onnx"), path, "--stream"])
    texts = capsys.readouterr().out.split("\r")
    assert texts[-1] == TINY_TEXT + "\n" and texts[0] == ""
    assert texts[len(texts) // 2] in TINY_TEXT and texts[len(texts) // 2]
    with pytest.raises(SystemExit, match="--streaming"):
        main([str(files / "offline.onnx"), path, "--stream"])


def test_text_of_the_example_has_spaces_as_that_of_transcribe(tiny):
    logits = np.eye(31, dtype="float32")[[[1, 0, 1, 3, 1, 0, 1, 3, 3, 1]]]
    session = types.SimpleNamespace(run=lambda *_: (logits, np.array([10])))
    metadata = {"blank_index": "0", "alphabet": tiny.alphabet}
    text = load_example().transcribe(session, metadata, np.zeros(1600))
    assert [text] == tiny.decode(logits, [10]) == ["a a"]


@pytest.mark.slow
def test_example_in_an_environment_without_tensorflow(files, tmp_path):
    venv.create(tmp_path / "venv", with_pip=True)
    python = str(tmp_path / "venv" / "bin" / "python")
    packages = ["numpy", "onnxruntime", "soundfile"]
    subprocess.run(
        [python, "-m", "pip", "install", "--quiet", *packages], check=True
    )
    absent = subprocess.run([python, "-c", "import tensorflow"], check=False)
    assert absent.returncode
    for name, options in (("offline", []), ("stream", ["--stream"])):
        output = subprocess.run(
            [python, str(ROOT / "examples" / "transcribe_onnx.py")]
            + [str(files / f"{name}.onnx")]
            + [str(DATA / "LibriSpeech" / TINY_CLIP), *options],
            capture_output=True,
            check=True,
        )
        lines = output.stdout.decode().replace("\r", "\n").split("\n")
        assert lines[-2] == TINY_TEXT


# === What is refused ===


def small(**options):
    return keras_ds2.DeepSpeech2(**{**SMALL, "num_rnn_layers": 1, **options})


def other_activation():
    model = small()
    model.get_layer("dense").activation = keras.activations.gelu
    return model


def headless(body):
    """A model of a spectrogram, something of 20 units, and logits."""
    audio = keras.Input((None,), dtype="float32", name="audio")
    audio_length = keras.Input((), dtype="int32", name="audio_length")
    x, num_frames = log_mel_frames(
        audio, audio_length, False, 0, 0, None,
        sequence_length=400, sequence_stride=160, num_mel_bins=20,
    )  # fmt: skip
    return SpeechRecognizer(
        {"audio": audio, "audio_length": audio_length},
        {"logits": body(x), "logit_length": num_frames},
        dtype=None,
        name="other",
    )


def branch():
    def body(x):
        x = keras.layers.Add()([x, keras.layers.Dense(20)(x)])
        return SymbolLogits(31)(x)

    return headless(body)


def one_layer_twice():
    def body(x):
        dense = keras.layers.Dense(20, name="shared")
        return SymbolLogits(31)(dense(dense(x)))

    return headless(body)


def one_layer_twice_at_the_end():
    dense = keras.layers.Dense(20, name="shared")
    return headless(lambda x: dense(dense(x)))


@pytest.mark.parametrize(
    "make, options, message",
    [
        (small, {"format": "tflite"}, r"`format` must be one of \['onnx'"),
        (small, {"format": "savedmodel", "int8": True}, "is for ONNX"),
        (small, {"streaming": True, "chunk_duration": 0.03}, "a multiple of"),
        (
            lambda: small(bidirectional=True),
            {"streaming": True},
            "Layer 'rnn_1' also runs from the end",
        ),
        (
            lambda: small(bidirectional=True),
            {"streaming": True, "chunk_duration": 0.03, "format": "savedmodel"},
            "Layer 'rnn_1' also runs from the end",
        ),
        (lambda: "an4", {}, "`model` must be a SpeechRecognizer. Received: 'a"),
        (lambda: small(rnn_type="gru"), {"int8": True}, "'rnn_1', a GRU"),
        (other_activation, {}, "'dense', a Dense, .* its activation"),
        (branch, {}, "'add.*', a Add, .* no rule"),
        (one_layer_twice, {}, "'symbol.*', .* the layer before it"),
        (one_layer_twice_at_the_end, {}, "'shared', .* not the logits"),
    ],
)
def test_what_cannot_be_exported_is_named(make, options, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        keras_ds2.export_model(make(), tmp_path / "out", **options)
    assert not os.listdir(tmp_path)


# === Where it is written ===


def write_half(model, path, *_):
    """As the disk becomes full, or somebody presses Ctrl-C."""
    os.makedirs(path)
    (pathlib.Path(path) / "saved_model.pb").touch()
    raise KeyboardInterrupt


@pytest.fixture
def saved_model(monkeypatch, tmp_path):
    """Where a SavedModel lies, and how another is written in no time."""

    def write(model, path, step):
        os.makedirs(os.path.join(path, "assets"))
        (pathlib.Path(path) / "saved_model.pb").write_text("new")

    monkeypatch.setattr(EXPORT_SAVED_MODEL, write)
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "saved_model.pb").write_text("old")
    (tmp_path / "out" / "fingerprint.pb").touch()
    return tmp_path / "out"


EXPORT_SAVED_MODEL = "keras_ds2.export.export_model.export_saved_model"


def test_an_interrupted_export_leaves_what_was_there(
    saved_model, tiny, monkeypatch
):
    monkeypatch.setattr(EXPORT_SAVED_MODEL, write_half)
    with pytest.raises(KeyboardInterrupt):
        keras_ds2.export_model(tiny, saved_model, "savedmodel")
    assert (saved_model / "saved_model.pb").read_text() == "old"
    assert os.listdir(saved_model.parent) == ["out"]
    path = saved_model.parent / "model.onnx"
    path.touch()
    monkeypatch.setattr("onnx.save", write_half)
    with pytest.raises(KeyboardInterrupt):
        keras_ds2.export_model(tiny, path)
    assert sorted(os.listdir(path.parent)) == ["model.onnx", "out"]
    assert not path.read_bytes()


def test_a_saved_model_replaces_another_whole(saved_model, tiny):
    keras_ds2.export_model(tiny, saved_model, "savedmodel")
    assert sorted(os.listdir(saved_model)) == ["assets", "saved_model.pb"]
    assert (saved_model / "saved_model.pb").read_text() == "new"
    assert os.listdir(saved_model.parent) == ["out"]


def test_other_files_are_not_written_over(saved_model, tiny):
    notes = saved_model / "notes.txt"
    notes.write_text("precious")
    for path, format, message in (
        (saved_model, "savedmodel", "the folder holds 'notes.txt'. Pass"),
        (notes, "savedmodel", "it is a file. Pass a folder"),
        (saved_model, "onnx", "it is a folder. Pass a file"),
        (notes, "onnx", "it is there, and not named .onnx. Pass another"),
        (saved_model / "absent" / "x", "onnx", "there is no folder '.*absent'"),
        (saved_model / "absent" / "x", "savedmodel", "there is no folder"),
    ):
        with pytest.raises(ValueError, match=f"cannot be written: {message}"):
            keras_ds2.export_model(tiny, path, format)
    assert notes.read_text() == "precious"
    assert (saved_model / "saved_model.pb").read_text() == "old"
    assert len(os.listdir(saved_model)) == 3


def test_missing_packages_are_named(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "onnx", None)
    with pytest.raises(ImportError, match=r"pip install 'keras_ds2\[onnx\]'"):
        keras_ds2.export_model(small(), tmp_path / "model.onnx")
    assert not os.listdir(tmp_path)


# === The command ===


@pytest.fixture
def command(tiny, monkeypatch, tmp_path, capsys):
    """Runs in an empty folder, with a model that is loaded already."""
    devices = []
    monkeypatch.setattr(keras_ds2.training.device, "use_device", devices.append)
    monkeypatch.setattr(keras.models, "load_model", lambda *_, **__: tiny)
    monkeypatch.chdir(tmp_path)

    def run(*argv):
        status = main(["export", *argv, str(DATA / "tiny.keras")])
        assert set(devices) <= {"cpu"}  # so that the file runs anywhere
        return status, *capsys.readouterr()

    return run


def test_command(command, tiny, clip, caplog):
    status, out, _ = command()
    size = os.path.getsize("tiny.onnx") / 1e6
    assert (status, out) == (0, f"tiny.onnx: {size:.1f} MB\n")
    assert_same_as_model("tiny.onnx", tiny, [clip[:20000]])
    status, *_ = command("--streaming", "--chunk-duration", "0.2", "--int8")
    assert not status and os.path.getsize("tiny.onnx") / 1e6 < size
    assert not caplog.records  # by ONNX Runtime
    session = onnxruntime.InferenceSession("tiny.onnx")
    assert session.get_modelmeta().custom_metadata_map["chunk_size"] == "3200"
    assert os.listdir() == ["tiny.onnx"]
    command("--streaming")
    session = onnxruntime.InferenceSession("tiny.onnx")
    assert session.get_modelmeta().custom_metadata_map["chunk_size"] == "1600"
    status, _, err = command("--streaming", "--chunk-duration", "0")
    assert status == 2 and "Received: chunk_duration=0.0" in err


def test_a_chunk_is_by_default_that_of_the_step(tmp_path):
    # 40 ms a frame, which 0.1 s is no multiple of.
    model = small(conv_strides=((2, 2), (2, 2)))
    path = tmp_path / "model.onnx"
    keras_ds2.export_model(model, path, streaming=True)
    metadata = onnxruntime.InferenceSession(path).get_modelmeta()
    size = keras_ds2.StreamingStep(model).chunk_size
    assert metadata.custom_metadata_map["chunk_size"] == str(size) == "1280"


@pytest.mark.parametrize(
    "argv, message",
    [
        (["--chunk-duration", "0.2"], "--chunk-duration is for --streaming."),
        (["--output", "."], "it is a folder. Pass a file."),
        (["--output", "absent/x.onnx"], "/absent'. Make it first."),
        (
            ["--format", "savedmodel", "--output", "file"],
            "it is a file. Pass a folder.",
        ),
        (["--format", "savedmodel", "--int8"], "`int8=True` is for ONNX."),
    ],
)
def test_command_with_wrong_arguments(command, argv, message):
    pathlib.Path("file").touch()
    status, out, err = command(*argv)
    assert (status, out) == (2, "")
    assert err.startswith("keras-ds2: ") and message in err
    assert os.listdir() == ["file"]
