"""Oracles: the reference hyper-parameters, and what a person sees who runs
the examples: their files, their messages, and a falling loss."""

import contextlib
import csv
import importlib.util
import inspect
import io
import json
import pathlib
import runpy
import shutil
import subprocess
import sys

import keras
import numpy as np
import pytest
import soundfile
import tensorflow as tf
from models import padded

import keras_ds2

ROOT = pathlib.Path(__file__).parent.parent
CLIPS = str(ROOT / "tests" / "data" / "LibriSpeech")
SMALL = [
    "--conv-filters=(4, 4)",
    "--conv-kernel-sizes=((5, 9), (5, 5))",
    "--conv-strides=((2, 2), (2, 2))",
    "--num-rnn-layers=1",
    "--rnn-units=8",
    "--dense-units=8",
]
TRAIN = ["--train=train-clips", "--validation=dev-clips", *SMALL]


def load(name):
    path = ROOT / "examples" / f"{name}.py"
    spec = importlib.util.spec_from_file_location(name, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def example():
    return load("train_librispeech")


@pytest.fixture(autouse=True)
def durations_elsewhere(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def read_log(run):
    with open(run / "log.csv", newline="") as file:
        return list(csv.DictReader(file))


def test_reference_hyper_parameters_are_the_defaults(example):
    args = vars(example.parse_arguments(["--data", "corpus"]))
    expected = {
        "batch_size": 2,
        "epochs": 120,
        "warmup_steps": 10_000,
        "warmup_dim": 256,
        "lr_scale": 1.0,
        "max_lr": None,
        "beta_1": 0.9,
        "beta_2": 0.98,
        "epsilon": 1e-9,
        "clipnorm": 400.0,
        "train": "train-clean-100",
        "validation": "dev-clean",
        "device": "auto",
        "mixed_precision": "auto",
        "on_invalid": "error",
        "on_bad_audio": "error",
        "strategy": "none",
        "speed_perturbation": None,
        "noise": None,
        "max_frames_per_batch": None,
    }
    assert {name: args[name] for name in expected} == expected
    # None given: the model's own defaults.
    assert args["model"] == {}


def test_every_argument_of_the_model_is_a_flag(example):
    values = {
        bool: ["--no-{}", False],
        int: ["--{}=7", 7],
        float: ["--{}=0.7", 0.7],
        str: ["--{}=x", "x"],
        tuple: ["--{}=((1, 2), 3)", ((1, 2), 3)],
        type(None): ["--{}=0.7", 0.7],  # a number, if there is to be any
    }
    for name, row in inspect.signature(
        keras_ds2.DeepSpeech2
    ).parameters.items():
        if name not in ("dtype", "name"):
            flag, value = values[type(row.default)]
            flag = flag.format(name.replace("_", "-"))
            args = example.parse_arguments(["--data", "corpus", flag])
            assert args.model == {name: value}


@pytest.mark.parametrize("name", ["train_librispeech", "evaluate_librispeech"])
def test_help_tells_how_to_run_it(name, capsys):
    with pytest.raises(SystemExit) as stop:
        load(name).main(["--help"])
    assert stop.value.code == 0
    text = capsys.readouterr().out
    assert f"python examples/{name}.py" in text
    assert "--batch-size" in text and "--device" in text


@pytest.mark.parametrize(
    "flags, message",
    [
        (["--train=train-clean-999"], "subset 'train-clean-999' does not ex"),
        (["--train=absent.jsonl"], "Manifest .*absent.jsonl' does not exist"),
        (["--data=/absent"], "folder '/absent' does not exist"),
        (["--device=cuda:99"], "There is no device 'cuda:99'"),
        (["--mixed-precision=float12"], "float12"),
        (["--max-duration=3.5"], "2803-161169.*more than max_duration=3.5"),
    ],
)
def test_errors_come_before_training(
    flags, message, example, tmp_path, monkeypatch
):
    def fit(*args, **kwargs):
        raise AssertionError("training began")

    monkeypatch.setattr(keras_ds2.DeepSpeech2, "fit", fit)
    run = tmp_path / "run"
    argv = ["--data", CLIPS, "--run", str(run), *TRAIN, *flags]
    with pytest.raises((ValueError, SystemExit), match=f"(?s){message}"):
        example.main(argv)
    assert not list(run.glob("*"))  # nothing that another try stumbles over


@pytest.fixture(scope="module")
def finished(example, tmp_path_factory):
    """A run that trained for a pass: arguments, folder, result, last words.

    One of the files for training and for validation holds no numbers.
    """
    folder = tmp_path_factory.mktemp("finished")
    run, broken = folder / "run", folder / "broken.wav"
    samples = np.full(40000, np.nan, "float32")
    soundfile.write(broken, samples, 16000, subtype="FLOAT")
    manifest = folder / "a.jsonl"
    manifest.write_text(json.dumps({"audio": broken.name, "text": "no"}))
    argv = ["--data", CLIPS, *SMALL, "--batch-size=3", "--device=cpu"]
    argv += [f"--train=train-clips,{manifest}", "--on-bad-audio=skip"]
    argv += [f"--validation=dev-clips,{manifest}"]
    told = io.StringIO()
    with contextlib.redirect_stdout(told):
        result = example.main([*argv, "--run", str(run), "--epochs=1"])
    return argv, run, result, told.getvalue()


def test_trains_evaluates_and_draws(finished):
    _, run, result, printed = finished
    # Seven clips, by threes.
    assert "3 steps for 1 passes" in printed
    assert f"WER {100 * result.wer:.2f} %" in printed
    [row] = read_log(run)
    assert set(row) >= {"epoch", "loss", "wer", "cer", "val_loss", "val_wer"}
    assert float(row["val_wer"]) == pytest.approx(result.wer, rel=1e-5)
    for name in ("curves.png", "utterance.png"):
        assert (run / name).stat().st_size > 10_000
    events = [str(path) for path in run.rglob("events.out.tfevents*")]
    tags = {
        value.tag
        for path in events
        for event in tf.compat.v1.train.summary_iterator(path)
        for value in event.summary.value
    }
    assert {"epoch_loss", "epoch_wer"} <= tags
    files = sorted(pathlib.Path(CLIPS).glob("dev-clips/*/*/*.opus"))
    for name in ("best.keras", "model.keras"):
        model = keras.models.load_model(run / name)
        assert model.rnn_units == 8
        assert len(model.transcribe(files)) == 2
    # And what was trained can be scored.
    scored = load("evaluate_librispeech").main(
        [str(run / "best.keras"), "--data", CLIPS, "--test=dev-clips"]
    )
    assert scored.wer == result.wer


def test_goes_on_without_audio_that_is_bad(finished):
    _, run, result, printed = finished
    assert len(result.utterances) == 2
    assert "1 non_finite" in printed
    report = (run / "bad_audio.jsonl").read_text().splitlines()
    broken = str(run.parent / "broken.wav")
    assert {json.loads(line)["audio"] for line in report} == {broken}


def test_goes_on_where_it_was_stopped(
    finished, example, tmp_path, capsys, monkeypatch
):
    argv, run, result, printed = finished
    assert "Goes on" not in printed
    copy = shutil.copytree(run, tmp_path / "run")
    argv = [*argv, "--run", str(copy)]
    # A finished run is not trained again, nor written over.
    before = (copy / "log.csv").read_bytes()
    with monkeypatch.context() as patch:
        patch.setattr(keras_ds2, "dry_run", lambda *args: "")
        assert example.main([*argv, "--epochs=1"]).wer == result.wer
    assert "Nothing is left to do after epoch 1" in capsys.readouterr().out
    assert (copy / "log.csv").read_bytes() == before
    example.main([*argv, "--epochs=2"])
    assert "Goes on after epoch 1: step 3, pass 2." in capsys.readouterr().out
    assert [row["epoch"] for row in read_log(copy)] == ["0", "1"]


def test_self_test_trains(example, tmp_path, capsys):
    run = tmp_path / "run"
    # A pass is one step; a smaller model, and two epochs of 20 steps,
    # which bring it to the plateau of blanks; README's line goes all the way.
    argv = ["--run", str(run), "--epochs=40", "--steps-per-epoch=20", *SMALL]
    argv += ["--rnn-units=48", "--dense-units=48", "--device=cpu"]
    argv += ["--max-lr=0.01", "--mixed-precision=float32"]
    example.main(argv)
    printed = capsys.readouterr().out
    assert "self-test on clips learned by heart, not a result" in printed
    assert "s of speech per second" in printed
    first, last = read_log(run)
    assert float(last["loss"]) < 0.8 * float(first["loss"])


def test_overfits_one_batch(example, tmp_path, capsys):
    argv = ["--data", CLIPS, "--run", str(tmp_path / "run"), *TRAIN]
    argv += ["--batch-size=2", "--overfit-one-batch", "--device=cpu"]
    argv += ["--epochs=26", "--steps-per-epoch=13", "--rnn-units=32"]
    argv += ["--max-lr=0.01", "--warmup-steps=20", "--speed-perturbation"]
    example.main(argv)
    printed = capsys.readouterr().out
    assert "26 steps for 26 passes" in printed
    assert "2 utterances; " in printed
    first, last = read_log(tmp_path / "run")
    assert float(last["loss"]) < 0.8 * float(first["loss"])
    assert float(last["pass"]) == 26


def test_an4_trains_and_is_scored(tmp_path, capsys, monkeypatch):
    example = load("train_an4")
    example.DEEP_SPEECH_2.update(
        conv_filters=(4, 4), num_rnn_layers=1, rnn_units=8
    )
    example.DEEP_SPEECH.update(dense_units=8, rnn_units=8)
    monkeypatch.setattr(example, "BATCH_SIZE", 4)
    monkeypatch.setattr(example, "WARMUP_EPOCHS", 1)
    data, run = str(ROOT / "tests" / "data" / "an4"), tmp_path / "run"
    argv = ["--data", data, "--run", str(run), "--mixed-precision=float32"]
    with pytest.raises(SystemExit):
        example.main([*argv, "--epochs=1"])
    assert "--epochs must be more than 1 " in capsys.readouterr().err
    argv += ["--device=cpu", "--epochs"]
    result = example.main([*argv, str(2 * example.EPOCHS_PER_ROUND)])
    told = capsys.readouterr()
    # Two clips of the speaker who is for training, five of the others.
    assert "an4_train: 2 utterances" in told.err
    assert "an4_train: 5 utterances" in told.err
    assert f"WER {100 * result.wer:.2f} %" in told.out
    first, last = read_log(run)
    assert float(last["loss"]) < float(first["loss"])
    assert float(last["val_wer"]) == pytest.approx(result.wer, rel=1e-5)
    assert float(last["learning_rate"]) < 1e-3 * example.LEARNING_RATE
    assert (run / "curves.png").stat().st_size > 10_000
    argv += [str(example.EPOCHS_PER_ROUND), "--all-speakers"]
    argv += ["--model=deepspeech", "--run", str(tmp_path / "all")]
    example.main(argv)
    told = capsys.readouterr()
    assert "an4_train: 7 utterances" in told.err
    assert "it is no result" in told.out
    scored = load("evaluate_an4").main(
        [data, "--split=train", "--model", str(run / "model.keras")]
    )
    assert len(scored.utterances) == 7
    assert f"WER {100 * scored.wer:.2f} %" in capsys.readouterr().out


def test_what_is_heard_twice_differs_and_shares_are_of_corpora(
    tmp_path, monkeypatch
):
    example = load("train_spelling")
    seen = {}

    class Stop(Exception):
        pass

    def stop(spelling, *args, **kwargs):
        layers = spelling.layers[-1].layers
        kind = keras.layers.Dropout
        seen["rates"] = {x.rate for x in layers if isinstance(x, kind)}
        raise Stop

    class Recorder(keras_ds2.ImaginedSpeech):
        def __init__(self, heard, *args, **kwargs):
            super().__init__(heard, *args, **kwargs)
            seen["heard"], seen["shares"] = heard, self.shares.tolist()

    example.SPELLING.update(spelling_units=8, dropout=0.5)
    monkeypatch.setattr(keras_ds2, "ImaginedSpeech", Recorder)
    monkeypatch.setattr(keras_ds2.SpellingModel, "fit", stop)
    data = ROOT / "tests" / "data"
    sentences = tmp_path / "sentences.txt"
    sentences.write_text("he would not send it\n")
    clips = str(data / "LibriSpeech" / "train-clips")
    argv = ["--model", str(data / "tiny.keras"), "--text", str(sentences)]
    argv += ["--train", clips, clips, "--validation", clips, "--device=cpu"]
    argv += ["--shares", "3", "1", "--mixed-precision=float32"]
    argv += ["--run", str(tmp_path), "--no-dropout"]
    with pytest.raises(Stop):
        example.main(argv)
    assert seen["shares"] == [0.375, 0.375, 0.125, 0.125]
    assert seen["rates"] == {0.0}
    # As they are, once and again: at other speeds.
    first, again = (
        dict(zip(heard.texts, heard.log_probs, strict=True))
        for heard in seen["heard"][1::2]
    )
    assert first.keys() == again.keys()
    assert any(len(first[text]) != len(again[text]) for text in first)


def test_spelling_is_taught_and_goes_on(tmp_path, monkeypatch, capsys):
    example = load("train_spelling")
    example.SPELLING.update(spelling_units=8)
    monkeypatch.setattr(example, "STEPS_PER_ROUND", 2)
    monkeypatch.setattr(example, "WARMUP_STEPS", 1)
    data, run = ROOT / "tests" / "data", tmp_path / "run"
    sentences = tmp_path / "sentences.txt"
    sentences.write_text("the letter came back\n\nhe would not send it\n")
    clips = str(data / "LibriSpeech" / "train-clips")
    argv = ["--model", str(data / "tiny.keras"), "--text", str(sentences)]
    argv += ["--train", clips, "--validation", clips, "--run", str(run)]
    argv += ["--batch-size=2", "--device=cpu", "--mixed-precision=float32"]
    with pytest.raises(SystemExit):
        example.main([*argv, "--shares", "2", "1"])
    assert "as many numbers as --train has" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        example.main([*argv, "--shares=0"])
    assert "--shares must be above 0" in capsys.readouterr().err
    result = example.main([*argv, "--rounds=1"])
    assert f"WER {100 * result.wer:.2f} %" in capsys.readouterr().out
    # What is heard is what was written.
    before = keras.models.load_model(data / "tiny.keras")
    model = keras.models.load_model(run / "model.keras")
    clip = keras_ds2.load_audio(sorted(pathlib.Path(clips).rglob("*.opus"))[0])
    inputs = padded([clip])
    heard = keras.Model(model.input, model.get_layer("heard_logits").output)
    np.testing.assert_array_equal(heard(inputs), before(inputs)["logits"])
    model = keras_ds2.add_spelling(before, spelling_units=8, dropout=0.5)
    dropout = model.get_layer("spelling_dense_dropout")
    assert dropout.rate == 0.5
    example.leave_out_dropout(keras_ds2.SpellingModel(model))
    assert dropout.rate == 0 and model.get_layer("dense_dropout").rate == 0.5
    # Another number of rounds would have another rate.
    with pytest.raises(ValueError, match="of another training"):
        example.main([*argv, "--rounds=2"])
    capsys.readouterr()
    example.main([*argv, "--rounds=1"])
    assert "Nothing is left to do after epoch 1" in capsys.readouterr().out
    sentences.write_text("so?")
    with pytest.raises(ValueError, match="line 1: the model lacks '\\?'"):
        example.main(argv)


@pytest.fixture
def english(tmp_path, monkeypatch):
    """The example with a tiny model, and its command line for seven clips."""
    example = load("train_english")
    example.MODEL.update(
        conv_filters=(4, 4), num_rnn_layers=1, rnn_units=8, dense_units=8
    )
    for name, value in {
        "BATCH_SIZE": 4,
        "STEPS_PER_ROUND": 2,
    }.items():
        monkeypatch.setattr(example, name, value)
    data = ROOT / "tests" / "data"
    manifest = tmp_path / "manifest.jsonl"
    clips = sorted((data / "an4" / "wav" / "an4_clstk" / "ffmm").iterdir())
    manifest.write_text(
        "".join(
            json.dumps({"audio": str(clip), "text": "six"}) + "\n"
            for clip in clips
        )
    )
    real = str(data / "LibriSpeech" / "train-clips")
    argv = ["--train", real, str(manifest), "--validation", real]
    argv += ["--run", str(tmp_path / "run")]
    argv += ["--mixed-precision=float32", "--device=cpu"]
    return example, argv


def test_english_trains_and_goes_on(english, tmp_path, capsys):
    (example, argv), run = english, tmp_path / "run"
    with pytest.raises(SystemExit):
        example.main([*argv, "--rounds=3", "--decay-rounds=2"])
    assert "as many as both together" in capsys.readouterr().err
    example.main([*argv, "--rounds=4", "--decay-rounds=1"])
    # It was level when it ended, so it may go on.
    result = example.main([*argv, "--rounds=6", "--decay-rounds=2"])
    told = capsys.readouterr()
    assert "jsonl: 7 utterances" in told.err
    assert "Goes on after epoch 4: step 8" in told.out
    assert f"WER {100 * result.wer:.2f} %" in told.out
    log = read_log(run)
    rates = [float(row["learning_rate"]) / 1e-3 for row in log]
    np.testing.assert_allclose(rates, [0.5, 1, 1, 1, 1, 0.5])
    assert float(log[-1]["val_loss"]) < float(log[0]["val_loss"])
    assert (run / "curves.png").stat().st_size > 10_000


@pytest.mark.slow
def test_english_begins_anew_from_weights(english, tmp_path):
    example, argv = english
    example.main([*argv, "--rounds=3", "--decay-rounds=1"])
    argv[2:3] = []  # other data is another training
    argv += ["--weights", str(tmp_path / "run" / "model.keras")]
    argv += ["--learning-rate=0", "--no-spec-augment"]
    argv += ["--run", str(tmp_path / "anew")]
    example.main([*argv, "--rounds=3", "--decay-rounds=1"])
    before, after = (
        keras.models.load_model(tmp_path / name / "model.keras")
        for name in ("run", "anew")
    )
    for old, new in zip(
        before.trainable_weights, after.trainable_weights, strict=True
    ):
        np.testing.assert_array_equal(new, old)


def test_command_line_tells_a_fault_in_one_line(tmp_path, monkeypatch):
    broken = tmp_path / "broken.wav"
    samples = np.zeros(16000, "float32")
    samples[100] = np.nan  # found only when it is decoded
    soundfile.write(broken, samples, 16000, subtype="FLOAT")
    (tmp_path / "a.jsonl").write_text(
        json.dumps({"audio": "broken.wav", "text": "go"})
    )

    def command(names):
        return [
            str(ROOT / "examples" / "train_librispeech.py"),
            f"--data={tmp_path}",
            f"--train={names}",
            f"--validation={names}",
            f"--run={tmp_path / 'run'}",
            "--device=cpu",
            *SMALL,
        ]

    result = subprocess.run(
        [sys.executable, *command("a.jsonl")],
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert result.returncode == 1
    assert "Traceback" not in result.stderr
    fault = f"Audio file '{broken}' holds 1 NaN"
    assert result.stderr.splitlines()[-1].startswith(fault)
    # And what Python would print of another fault.
    monkeypatch.setattr(sys, "argv", command("b.jsonl"))
    with pytest.raises(SystemExit) as stop:
        runpy.run_path(sys.argv[0], run_name="__main__")
    fault = f"Manifest '{tmp_path / 'b.jsonl'}' does not exist"
    assert stop.value.code.startswith(fault)
