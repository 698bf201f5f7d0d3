"""Oracles: counting by hand, and what a person sees who runs a benchmark."""

import collections
import importlib.util
import itertools
import json
import math
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


@pytest.fixture
def decode(monkeypatch):
    return load("decode", monkeypatch)


@pytest.mark.parametrize("num_frames", [1, 2, 5])
def test_score_of_a_text_sums_all_alignments(decode, num_frames):
    logits = np.random.default_rng(3).normal(size=(num_frames, 4))
    log_probs = logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))
    expected = collections.defaultdict(float)
    for path in itertools.product(range(4), repeat=num_frames):
        text = "".join(" ab"[s - 1] for s, _ in itertools.groupby(path) if s)
        probability = math.exp(log_probs[range(num_frames), path].sum())
        expected[" ".join(text.split())] += probability
    assert len(expected) > num_frames
    for text, probability in expected.items():
        score = decode.log_p_ctc(log_probs, text, " ab")
        assert score == pytest.approx(math.log(probability), abs=1e-9)


def test_texts_are_compared_by_our_score(decode):
    def answers(*texts):
        return {
            "texts": texts,
            "lm_scores": [{"b": -1.0}.get(t, -9.0) for t in texts],
        }

    log_probs = np.log([[0.1, 0.1, 0.5, 0.3]])  # blank, space, a, b
    args = decode.parse_arguments(["--logits=x.npz", "--lm-weight=0.5"])
    counts = decode.compare(
        answers("a", "a", "b", "a"),
        answers("a", "b", "a", "c"),
        [log_probs] * 4,
        " ab",
        {"a", "b"},
        args,
    )
    assert counts == {"same": 1, "better": 1, "worse": 1, "outside": 1}
    # Without a language model "a" is more probable.
    counts = decode.compare(
        answers("a"), answers("b"), [log_probs], " ab", None, args
    )
    assert counts == {"same": 0, "better": 0, "worse": 1, "outside": 0}


def test_decoders_on_few_logits_and_a_peer_that_is_missing(
    decode, tmp_path, monkeypatch, capsys
):
    generator = np.random.default_rng(0)
    path = tmp_path / "logits.npz"
    np.savez(
        path,
        log_probs=generator.normal(size=(20, 4)).astype("float32"),
        frames=[12, 8],
        texts=["a ba", "ab"],
        alphabet=" ab",
    )
    (tmp_path / "kenlm.py").write_text("raise ImportError('no kenlm here')")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    decode.main(
        [f"--logits={path}", "--beam-widths", "4", "16", "--repeats=1"]
        + [f"--language-model={ROOT}/tests/data/words.kenlm", "--json"]
    )
    *printed, last = capsys.readouterr().out.splitlines()
    assert "pyctcdecode is missing: no kenlm here." in printed
    figures = json.loads(last)
    assert figures["missing"] in printed
    assert (figures["utterances"], figures["frames"]) == (2, 20)
    assert [(row["decoder"], row["beam_width"]) for row in figures["rows"]] == [
        (name, width)
        for name in ("ours, any text", "ours, words", "TensorFlow, any text")
        for width in (4, 16)
    ]
    for row in figures["rows"]:
        assert row["frames_per_second"] > 0
        if row["decoder"].startswith("TensorFlow"):  # ours is the same search
            assert row["texts_compared"]["same"] == 2


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
def test_devices_of_a_cpu_are_timed():
    printed = run("benchmarks/cpu_devices.py", "--repeats=1", "--json")
    result = json.loads(printed[-1])
    one, several, large = result["speech_per_second"]
    assert result["ratio"] == several / max(one, large) > 0


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
