"""Oracles: the documented list of names, the package's own syntax trees, and
a fresh interpreter."""

import ast
import inspect
import pathlib
import subprocess
import sys

import keras
import pytest

import keras_ds2

PACKAGE = pathlib.Path(keras_ds2.__file__).parent

NAMES = [
    "AudioError",
    "BackupAndRestore",
    "BeamSearchDecoder",
    "BidirectionalSimpleRNN",
    "CTCLayer",
    "CharacterErrorRate",
    "CharacterTokenizer",
    "ContextWindow",
    "DeepSpeech",
    "DeepSpeech2",
    "GRU",
    "HeardSpeech",
    "Hypothesis",
    "ImaginedSpeech",
    "LSTM",
    "LogMelSpectrogram",
    "MovingMeanNormalization",
    "OutputLength",
    "PartialTranscript",
    "RowConvolution",
    "Segment",
    "SequenceBatchNormalization",
    "SequenceConv2D",
    "SequenceMask",
    "SimpleRNN",
    "SpecAugment",
    "SpellingModel",
    "SplitFrames",
    "StreamingRecognizer",
    "StreamingStep",
    "SymbolLogits",
    "TimedText",
    "TrainingMonitor",
    "WarmupSchedule",
    "WordErrorRate",
    "add_spelling",
    "align",
    "clipped_relu",
    "data",
    "dry_run",
    "evaluate",
    "export_model",
    "greedy_decode",
    "load_audio",
    "load_decoder",
    "load_pretrained",
    "plot_learning_curves",
    "plot_transcription",
    "pretrained_weights",
    "save_decoder",
    "save_pretrained",
    "transcribe_file",
    "tune_decoder",
    "use_device",
    "use_mixed_precision",
    "use_strategy",
    "write_report",
]
DATA_NAMES = [
    "Augmentation",
    "CorpusError",
    "Rejected",
    "SpeechDataset",
    "Utterance",
    "add_durations",
    "check_utterances",
    "describe_rejected",
    "prepare_dataset",
    "read_an4",
    "read_librispeech",
    "read_manifest",
]

# A file imports from its own folder and from what stands to the right only.
ALLOWED = {
    "cli": {
        "__version__",
        "pretrained",
        "report",
        "serving",
        "transcript",
        "transcription",
        "training",
        "export",
        "streaming",
        "models",
        "data",
        "decoding",
        "audio",
    },
    "export": {"streaming", "models", "layers"},
    "serving": {
        "streaming",
        "transcript",
        "transcription",
        "subtitles",
        "decoding",
        "audio",
    },
    "pretrained": {"models"},
    "transcript": {"transcription", "subtitles", "decoding"},
    "transcription": {"segmentation", "models", "decoding", "audio"},
    "report": {"training", "scoring", "audio"},
    "training": {
        "models",
        "data",
        "decoding",
        "audio",
        "error_rate",
        "lengths",
        "scoring",
        "text",
    },
    "streaming": {"models", "decoding", "layers", "audio"},
    "models": {
        "replicas",
        "decoding",
        "layers",
        "audio",
        "error_rate",
        "lengths",
        "text",
        "tokenizer",
    },
    "data": {"audio", "lengths", "text", "tokenizer"},
    "decoding": {"lengths", "text"},
    "layers": {"lengths", "replicas"},
    "replicas": set(),
    "tokenizer": {"text"},
    "segmentation": {"audio"},
    "subtitles": {"decoding"},
    "audio": {"audio_error"},
    "audio_error": set(),
    "error_rate": set(),
    "lengths": set(),
    "scoring": set(),
    "text": set(),
}


def test_public_names_are_the_documented_ones():
    for module, names in ((keras_ds2, NAMES), (keras_ds2.data, DATA_NAMES)):
        assert module.__all__ == names == sorted(names)
        assert all(getattr(module, name) is not None for name in names)
    with pytest.raises(AttributeError, match="no attribute 'Absent'"):
        _ = keras_ds2.Absent


def imported_parts(path):
    """First components, within the package, of all that a file imports."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            modules = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            modules = [node.module]
            if node.module == "keras_ds2":
                modules = [f"keras_ds2.{alias.name}" for alias in node.names]
        else:
            continue
        for module in modules:
            if module.split(".")[0] == "keras_ds2":
                yield module.split(".")[1]


@pytest.mark.parametrize(
    "path",
    [path for path in PACKAGE.rglob("*.py") if path.parent != PACKAGE]
    + [path for path in PACKAGE.glob("*.py") if path.stem != "__init__"],
    ids=lambda path: str(path.relative_to(PACKAGE)),
)
def test_imports_point_downward(path):
    part = path.relative_to(PACKAGE).parts[0].removesuffix(".py")
    wrong = set(imported_parts(path)) - ALLOWED[part] - {part}
    assert not wrong, f"{part} must not import {sorted(wrong)}"


def test_no_file_is_long():
    for path in PACKAGE.rglob("*.py"):
        count = len(path.read_text(encoding="utf-8").splitlines())
        assert count <= 300, f"{path.name}: {count} lines"


PUBLIC = [getattr(keras_ds2, name) for name in NAMES if name != "data"] + [
    getattr(keras_ds2.data, name) for name in DATA_NAMES
]


@pytest.mark.parametrize("public", PUBLIC, ids=lambda item: item.__name__)
def test_docstrings_show_an_example(public):
    if inspect.isclass(public) and issubclass(public, ValueError):
        assert len(public.__doc__) > 20
    else:
        assert "Example:" in inspect.getdoc(public)
    if inspect.isfunction(public):
        for parameter in inspect.signature(public).parameters.values():
            name = str(parameter.replace(annotation=parameter.empty))
            name = name.partition("=")[0]  # with its stars
            assert f"    {name}: " in inspect.getdoc(public), name


def test_everything_that_keras_saves_is_registered():
    saved = (
        keras.layers.Layer,
        keras.metrics.Metric,
        keras.optimizers.schedules.LearningRateSchedule,
    )
    names = {
        item.__name__: keras.saving.get_registered_name(item)
        for item in PUBLIC
        if item is keras_ds2.clipped_relu
        or (inspect.isclass(item) and issubclass(item, saved))
        and item is not keras_ds2.SpellingModel  # saved as part of another
    }
    assert len(names) == 23
    assert names == {name: f"keras_ds2>{name}" for name in names}


def test_import_is_clean_and_light():
    blocked = ("jiwer", "keras_nlp", "keras_hub", "matplotlib")
    code = (
        "import sys, keras, tensorflow\n"
        f"for name in {blocked}:\n"
        "    for module in [m for m in sys.modules if m.split('.')[0] == name]:"
        "\n        del sys.modules[module]\n"
        "    sys.modules[name] = None\n"
        "import warnings\n"
        "warnings.simplefilter('error')\n"
        "import keras_ds2\n"
        "print(keras_ds2.DeepSpeech2.__name__)"
    )
    result = subprocess.run(
        [sys.executable, "-c", code],
        cwd=PACKAGE.parent,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert result.returncode == 0, result.stderr
    assert result.stdout.strip() == "DeepSpeech2"


def test_types_are_shipped():
    assert (PACKAGE / "py.typed").exists()
