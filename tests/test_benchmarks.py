"""Oracles: counting by hand, and what a person sees who runs a benchmark."""

import importlib.util
import json
import os
import pathlib
import subprocess
import sys

import numpy as np
import pytest

ROOT = pathlib.Path(__file__).parent.parent
FOLDER = ROOT / "benchmarks"
NAMES = sorted(path.stem for path in FOLDER.glob("*.py"))


def load(name, monkeypatch):
    # They import each other by name, as when they are run.
    monkeypatch.syspath_prepend(FOLDER)
    spec = importlib.util.spec_from_file_location(name, FOLDER / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def run(*arguments):
    process = subprocess.run(
        [sys.executable, *arguments],
        cwd=ROOT,
        env=dict(os.environ, PYTHONPATH=str(ROOT), TF_CPP_MIN_LOG_LEVEL="3"),
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    return process.stdout.splitlines()


@pytest.mark.parametrize("name", NAMES)
def test_imports(name, monkeypatch):
    if name == "stock_torch":
        pytest.importorskip("torch")
    assert load(name, monkeypatch).__doc__


@pytest.fixture
def train_step(monkeypatch):
    return load("train_step", monkeypatch)


def test_ratios_are_theirs_over_ours(train_step):
    milliseconds = {
        "ours_float32": 200.0,
        "ours_mixed_bfloat16": 100.0,
        "keras_float32": 800.0,
        "keras_mixed_bfloat16": 700.0,
        "torch_float32": 600.0,
        "torch_float32_packed": 500.0,
        "torch_bfloat16": 300.0,
        "torch_bfloat16_packed": 400.0,
    }
    assert set(milliseconds) == set(train_step.VARIANTS)
    assert train_step.ratios(milliseconds) == {
        "ratio_to_keras": 8.0,
        "ratio_to_torch": 3.0,
        "ratio_to_keras_float32": 4.0,
        "ratio_to_keras_bfloat16": 7.0,
        "ratio_to_torch_float32": 2.5,
        "ratio_to_torch_bfloat16": 3.0,
    }
    for name in train_step.RATIOS:
        assert f"    {name} " in train_step.__doc__


def test_ratios_of_what_was_not_timed_are_left_out(train_step):
    milliseconds = {"ours_float32": 200.0, "keras_float32": 500.0}
    assert train_step.ratios(milliseconds) == {
        "ratio_to_keras": 2.5,
        "ratio_to_keras_float32": 2.5,
    }
    assert train_step.ratios({"torch_float32": 1.0}) == {}


def test_batch_is_padded_little_and_its_transcripts_fit(monkeypatch):
    ours = load("ours", monkeypatch)
    batch = ours.make_batch(8, 2.0)
    length = batch["audio_length"]
    assert batch["audio"].shape == (8, 32000)
    assert length.max() == 32000 and length.min() >= 28800
    for audio, samples in zip(batch["audio"], length, strict=True):
        assert np.all(audio[:samples]) and not np.any(audio[samples:])
    letters_per_second = batch["label_length"] / (length / 16000)
    assert np.all(letters_per_second > 11) and np.all(letters_per_second <= 14)
    # Neither the blank nor the two reserved symbols.
    assert batch["labels"].min() >= 1 and batch["labels"].max() <= 28
    full = ours.make_batch(8, 2.0, shortest=1.0)
    assert set(full["audio_length"]) == {32000}


@pytest.mark.slow
def test_step_of_ours_and_of_stock_keras():
    printed = run(
        *("benchmarks/train_step.py", "--quick", "--json", "--threads", "1"),
        *("--variants", "ours_float32", "keras_float32"),
    )
    assert printed[0].startswith("keras with our weights: logits differ by")
    figures = json.loads(printed[-1])
    assert figures["threads_of_top_level"] == 1
    times = figures["milliseconds"]
    ratio = times["keras_float32"] / times["ours_float32"]
    assert figures["ratio_to_keras"] == pytest.approx(ratio, abs=0.01)
    assert figures["threads"]["1"]["milliseconds"] == times


@pytest.mark.slow
def test_memory_of_a_step_is_above_that_of_imports():
    printed = run("benchmarks/memory.py", "--quick", "--json")
    imports, step = json.loads(printed[-1])["mebibytes"]
    assert imports["clips"] == 0 and step["clips"] == 1
    for policy in ("float32", "mixed_bfloat16"):
        assert 100 < imports[policy] < step[policy] < 10_000


@pytest.mark.slow
def test_costs_of_recurrent_layers():
    printed = run("benchmarks/deepspeech.py", "--quick", "--units=64", "--json")
    rows = json.loads(printed[-1])
    # W and b once, U twice; four of each, twice.
    expected = {"simple": 3 * 64 * 64 + 64, "lstm": 2 * 4 * (2 * 64 * 64 + 64)}
    for rnn_type, count in expected.items():
        row = rows[rnn_type]
        assert row["recurrent_parameters"] == count < row["parameters"]
        assert 10 < row["mebibytes"] < 10_000 and row["cpu_milliseconds"] > 0


@pytest.mark.slow
def test_initializers_begin_at_different_sizes():
    printed = run("benchmarks/initializers.py", "--units=64", "--steps=1")
    rows = [line.split() for line in printed if " x 1." in line]
    assert len(rows) == 4
    sizes = [float(row[5]) for row in rows]
    assert sizes[1] < sizes[0] < sizes[2] < sizes[3]


@pytest.mark.slow
def test_gpu_check_on_a_cpu():
    printed = run("benchmarks/gpu_check.py", "--device", "cpu", "--quick")
    assert printed[-1] == "all passed"
    assert sum("as a CPU" in line for line in printed) == 3


@pytest.mark.slow
def test_profile_names_layers():
    printed = run(
        "benchmarks/profile_step.py", "--clips=1", "--seconds=1", "--top=999"
    )
    text = "\n".join(printed)
    for part in ("rnn_1 loop", "gradient of conv_1", "conv_2", "row_conv"):
        assert part in text
    total = float(printed[-1].split()[0])
    parts = [float(line.split()[0]) for line in printed[:-1]]
    assert total == pytest.approx(sum(parts), rel=0.05)
