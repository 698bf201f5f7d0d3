"""Oracle: what a person sees who runs the benchmark, and counting by hand."""

import importlib.util
import json
import pathlib

import pytest

ROOT = pathlib.Path(__file__).parent.parent


def test_benchmark_of_the_input_pipeline(capsys):
    path = ROOT / "benchmarks" / "input_pipeline.py"
    spec = importlib.util.spec_from_file_location("input_pipeline", path)
    benchmark = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(benchmark)
    argv = ["--seconds=0.2", "--steps=2", "--size=tiny", "--json"]
    figures = benchmark.main(argv)
    printed = capsys.readouterr().out.splitlines()
    assert json.loads(printed[-1]) == figures
    assert "flac, speeds" in figures["reading"]
    for speed in figures["reading"].values():
        # The clips last 3 to 7 s.
        ratio = speed["speech_per_second"] / speed["utterances_per_second"]
        assert 3 < ratio < 7
    rows = benchmark.bundled_rows()
    by_length = sorted(row.duration for row in rows)
    pairs = zip(by_length[::2], by_length[1::2], strict=True)
    padded = sum(2 * longer for _, longer in pairs)
    first = figures["padding"][0]
    assert first["efficiency"] == pytest.approx(sum(by_length) / padded)
    waiting = figures["waiting"]
    assert 0 < waiting["share_waiting"] < 1
    assert waiting["cached_step_ms"] > 0
    # The same steps take longer beside decoding, but for noise.
    assert waiting["overhead"] > -0.9
