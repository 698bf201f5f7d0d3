"""Oracles: the library called by hand, webvtt-py, jiwer, and what a person or
a script sees: two streams and an exit status."""

import io
import json
import os
import pathlib
import re
import shlex
import shutil
import signal
import subprocess
import sys

import jiwer
import keras
import numpy as np
import pytest
import soundfile
import webvtt

import keras_ds2
from keras_ds2 import pretrained
from keras_ds2.cli import info, shared
from keras_ds2.cli.main import COMMANDS, main
from keras_ds2.serving import server

ROOT = pathlib.Path(__file__).parent.parent
DATA = ROOT / "tests" / "data"
TINY = str(DATA / "tiny.keras")
CLIPS = [
    str(DATA / "LibriSpeech/train-clips/2412/153948/2412-153948-0005.opus"),
    str(DATA / "LibriSpeech/train-clips/251/137823/251-137823-0000.opus"),
]
TEXTS = [
    "i was delighted with the country and the manner of life",
    "i'll be glad to try sir he replied",
]


@pytest.fixture(scope="module")
def model():
    """Knows two of the train-clips by heart."""
    return keras.models.load_model(TINY)


@pytest.fixture(autouse=True)
def loaded(model, monkeypatch):
    """Loads the model once, and leaves the device to the other tests."""
    monkeypatch.setattr(keras_ds2.training.device, "use_device", str)
    load = keras.models.load_model
    monkeypatch.setattr(
        keras.models,
        "load_model",
        lambda path, **options: model if path == TINY else load(path),
    )


@pytest.fixture
def card(model, tmp_path):
    path = tmp_path / "mine.json"
    keras_ds2.save_pretrained(
        model, path, license="CC BY 4.0", metrics={"wer": 0.125}
    )
    return path


@pytest.fixture
def terminal(monkeypatch):
    monkeypatch.setattr(shared, "is_terminal", lambda: True)


def run(capsys, *argv):
    status = main([str(word) for word in argv])
    return status, *capsys.readouterr()


# === transcribe ===


def test_text_of_one_file_and_of_several(capsys):
    assert run(capsys, "transcribe", "--model", TINY, CLIPS[0]) == (
        0,
        TEXTS[0] + "\n",
        "",
    )
    status, out, err = run(capsys, "transcribe", *CLIPS, "--model", TINY)
    assert (status, err) == (0, "")
    assert out == "".join(
        f"{clip}\t{text}\n" for clip, text in zip(CLIPS, TEXTS, strict=True)
    )


def test_json_has_words_with_times(capsys, model):
    status, out, err = run(
        capsys, "transcribe", "--format=json", "--model", TINY, *CLIPS
    )
    assert (status, err) == (0, "")
    rows = [json.loads(line) for line in out.splitlines()]
    assert [row["file"] for row in rows] == CLIPS
    assert [row["text"] for row in rows] == TEXTS
    assert all(row["model"] == TINY for row in rows)
    for row, hypothesis in zip(rows, model.recognize(CLIPS), strict=True):
        assert row["duration"] == pytest.approx(
            keras_ds2.audio.audio_duration(row["file"]), abs=1e-3
        )
        assert [word["word"] for word in row["words"]] == row["text"].split()
        for word, expected in zip(row["words"], hypothesis.words, strict=True):
            assert word["start"] == pytest.approx(expected.start, abs=1e-3)
            assert word["end"] == pytest.approx(expected.end, abs=1e-3)
            assert word["confidence"] == pytest.approx(
                expected.confidence, abs=1e-3
            )


@pytest.mark.parametrize("name", ["srt", "vtt"])
def test_subtitles_are_read_by_another_program(capsys, name):
    status, out, _ = run(
        capsys, "transcribe", "--format", name, "--model", TINY, CLIPS[0]
    )
    assert status == 0
    captions = list(webvtt.from_buffer(io.BytesIO(out.encode()), name))
    text = " ".join(caption.text for caption in captions)
    assert " ".join(text.split()) == TEXTS[0]
    assert 0 <= captions[0].start_in_seconds < captions[-1].end_in_seconds + 1


def test_ctm(capsys):
    _, out, _ = run(
        capsys, "transcribe", "--format=ctm", "--model", TINY, *CLIPS
    )
    rows = [line.split(" ") for line in out.splitlines()]
    assert " ".join(row[4] for row in rows) == " ".join(TEXTS)
    names = [pathlib.Path(clip).stem for clip in CLIPS]
    assert list(dict.fromkeys(row[0] for row in rows)) == names
    starts = [float(row[2]) for row in rows if row[0] == names[0]]
    assert starts == sorted(starts)


@pytest.fixture
def long_file(tmp_path):
    """The two clips, five seconds of silence, and again: 20.2 s."""
    clips = [keras_ds2.load_audio(clip) for clip in CLIPS]
    silence = np.zeros(5 * 16000, "float32")
    path = tmp_path / "long.wav"
    samples = [clips[0], silence, clips[1], silence, clips[0], silence]
    soundfile.write(path, np.concatenate(samples), 16000)
    return path


def test_timestamps_are_those_of_the_pieces(capsys, long_file):
    _, out, _ = run(
        capsys, "transcribe", "--timestamps", "--model", TINY, long_file
    )
    pattern = r"\[0:(\d\d\.\d\d) - 0:(\d\d\.\d\d)\] (.*)"
    rows = [re.fullmatch(pattern, line).groups() for line in out.splitlines()]
    assert len(rows) == 3
    for row, begin in zip(rows, (0, 3.1 + 5, 3.1 + 5 + 3.4 + 5), strict=True):
        assert float(row[0]) == pytest.approx(begin, abs=0.6)
        assert float(row[1]) == pytest.approx(begin + 3.3, abs=0.8)
    _, plain, _ = run(capsys, "transcribe", "--model", TINY, long_file)
    assert plain == " ".join(row[2] for row in rows) + "\n"


def test_output_has_a_file_for_each_recording(capsys, tmp_path):
    folder = tmp_path / "new" / "subtitles"
    status, out, err = run(
        capsys,
        *("transcribe", "--format", "srt", "--output", folder),
        *("--model", TINY, *CLIPS),
    )
    assert (status, out, err) == (0, "", "")
    assert sorted(path.name for path in folder.iterdir()) == sorted(
        pathlib.Path(clip).stem + ".srt" for clip in CLIPS
    )
    assert "delighted" in (folder / "2412-153948-0005.srt").read_text()


def test_a_target_that_cannot_be_written_is_not_the_end(capsys, tmp_path):
    blocked = tmp_path / "2412-153948-0005.txt"
    blocked.mkdir()
    status, out, err = run(
        capsys, "transcribe", "--output", tmp_path, "--model", TINY, *CLIPS
    )
    assert (status, out) == (1, "")
    first, count = err.splitlines()
    assert str(blocked) in first and count.endswith("1 of 2 files failed.")
    assert (tmp_path / "251-137823-0000.txt").read_text() == TEXTS[1] + "\n"


def test_a_bad_file_is_reported_counted_and_not_the_end(capsys, tmp_path):
    (tmp_path / "bad.wav").write_text("no audio")
    files = [tmp_path / "bad.wav", CLIPS[0], "missing.wav"]
    status, out, err = run(capsys, "transcribe", "--model", TINY, *files)
    assert status == 1
    assert out == f"{CLIPS[0]}\t{TEXTS[0]}\n"
    first, second, count = err.splitlines()
    assert re.match(r"keras-ds2: Audio file '.*bad.wav' cannot be", first)
    assert "Audio file 'missing.wav' does not exist" in second
    assert count == "keras-ds2: 2 of 3 files failed."
    status, _, err = run(
        capsys, "transcribe", "--traceback", "--model", TINY, "missing.wav"
    )
    assert status == 1 and err.startswith("Traceback")


def test_decoder_file(capsys, tmp_path):
    (tmp_path / "words.txt").write_text("\n".join(TEXTS[0].split()))
    path = tmp_path / "decoder.json"
    path.write_text('{"lexicon": "words.txt", "beam_width": 16}')
    status, out, _ = run(
        capsys, "transcribe", "--model", TINY, "--decoder", path, *CLIPS
    )
    assert status == 0
    first, second = (line.split("\t")[1] for line in out.splitlines())
    assert first == TEXTS[0]
    assert set(second.split()) <= set(TEXTS[0].split())


def test_progress_is_for_terminals(capsys, terminal):
    _, out, err = run(capsys, "transcribe", "--model", TINY, CLIPS[0])
    assert out == TEXTS[0] + "\n"
    assert "[1/1] 2412-153948-0005.opus: 100% of 0:03" in err
    assert err.endswith("\r\x1b[K")  # and the line is gone


# === evaluate ===


def test_error_rates_are_those_of_the_library(capsys, tmp_path, model):
    output = tmp_path / "hypotheses.jsonl"
    status, out, _ = run(
        capsys,
        *("evaluate", "--model", TINY, "--worst=1", "--output", output),
        DATA / "LibriSpeech/train-clips",
    )
    assert status == 0
    rows = [json.loads(line) for line in output.read_text().splitlines()]
    assert len(rows) == 6 and set(TEXTS) < {row["reference"] for row in rows}
    references = [row["reference"] for row in rows]
    hypotheses = [row["hypothesis"] for row in rows]
    wer = jiwer.wer(references, hypotheses)
    assert out.startswith(f"WER {100 * wer:.2f} % (95 % interval ")
    assert len(out.splitlines()) == 5
    assert hypotheses == model.transcribe([row["audio"] for row in rows])


def test_corpora_of_all_kinds(capsys, tmp_path, monkeypatch):
    manifest = tmp_path / "two.jsonl"
    lines = [
        json.dumps({"audio": clip, "text": text})
        for clip, text in zip(CLIPS, TEXTS, strict=True)
    ]
    manifest.write_text("\n".join(lines))
    monkeypatch.chdir(DATA / "LibriSpeech" / "dev-clips")
    corpora = [manifest, DATA / "LibriSpeech", DATA / "an4", "."]
    status, out, err = run(
        capsys,
        *("evaluate", "--model", TINY, "--split=train", "--worst=0", *corpora),
    )
    assert status == 0
    assert re.findall(r"^(.*):\nWER .*\n(\d+) utt", out, re.MULTILINE) == [
        (str(manifest), "2"),
        (str(DATA / "LibriSpeech"), "8"),
        (str(DATA / "an4"), "7"),
        (".", "2"),
    ]
    assert f"{manifest}:\nWER 0.00 %" in out


def test_a_corpus_whose_name_is_not_utf_8(capsys, tmp_path):
    corpus = tmp_path / os.fsdecode(b"\xff") / "clips"
    clip = pathlib.Path(CLIPS[1])
    shutil.copytree(clip.parent, corpus / clip.parent.parent.name / "137823")
    output = tmp_path / "hypotheses.jsonl"
    argv = ("evaluate", "--model", TINY, "--output", output, corpus)
    status, out, _ = run(capsys, *argv)
    assert status == 0 and "\ufffd/clips/251/137823/" in out
    [row] = map(json.loads, output.read_text().splitlines())
    assert "\ufffd/clips/251/137823/" in row["audio"]


def test_a_decoder_changes_the_rates(capsys, tmp_path):
    words = sorted({word for text in TEXTS for word in text.split()})
    path = tmp_path / "decoder.json"
    path.write_text(json.dumps({"lexicon": words}))
    corpus = DATA / "LibriSpeech/train-clips"
    options = ("evaluate", "--model", TINY, "--worst=9", corpus)
    _, greedy, _ = run(capsys, *options)
    _, with_words, _ = run(capsys, *options, "--decoder", path)
    assert greedy != with_words
    heard = re.findall("hypothesis: (.*)", with_words)
    assert {word for text in heard for word in text.split()} <= set(words)


def test_bad_audio_in_a_corpus(capsys, tmp_path):
    (tmp_path / "bad.wav").write_text("no audio")
    rows = [{"audio": CLIPS[0], "text": TEXTS[0]}]
    rows += [{"audio": "bad.wav", "text": "a"}]
    manifest = tmp_path / "a.jsonl"
    manifest.write_text("\n".join(map(json.dumps, rows)))
    status, out, err = run(capsys, "evaluate", "--model", TINY, manifest)
    assert (status, out) == (2, "") and "bad.wav' cannot be read" in err
    status, out, err = run(
        capsys, "evaluate", "--skip-invalid", "--model", TINY, manifest
    )
    assert status == 0 and "\n1 utterance\n" in out
    assert "1 unreadable" in err


# === info ===


def test_info_of_a_card(capsys, card, model):
    status, out, err = run(capsys, "info", card)
    assert (status, err) == (0, "")
    lines = out.splitlines()
    for line in (
        "model: DeepSpeech2",
        f"parameters: {model.count_params():,}",
        "frame duration: 20 ms",
        "look-ahead: 165 ms",
        "license: CC BY 4.0",
        "  wer: 0.125",
        "  rnn_units: 56",
        f"sha256: {json.loads(card.read_text())['sha256']}",
    ):
        assert line in lines, line


def test_info_lists_what_is_shipped(capsys):
    status, out, err = run(capsys, "info")
    assert (status, err) == (0, "")
    an4, en_read = out.splitlines()
    assert an4.startswith("an4: Spelled letters, numbers,")
    assert en_read.startswith("en-read (default): English read aloud")


def test_look_ahead_is_how_far_samples_act(model, train_clips):
    ahead = round(info._look_ahead(model) * 16000)
    audio = np.repeat(train_clips[0][None, :16000], 3, axis=0)
    frame = 20
    last = frame * 320 + ahead - 1  # the last sample that frame 20 hears
    audio[1, last + 1 :] = 0.5
    # The window is almost 0 at its end; a little before, it is not.
    audio[2, last - 40 :] = 0.5
    inputs = {"audio": audio, "audio_length": np.array([16000] * 3)}
    logits = model.predict_on_batch(inputs)["logits"][:, : frame + 1]
    np.testing.assert_allclose(logits[0], logits[1], atol=1e-5)
    assert np.abs(logits[0, frame] - logits[2, frame]).max() > 1e-3


def test_models_that_cannot_stream():
    options = {"num_rnn_layers": 1, "rnn_units": 4, "dense_units": 4}
    for model in (
        keras_ds2.DeepSpeech(context=2, dense_units=4, rnn_units=4),
        keras_ds2.DeepSpeech2(**options, bidirectional=True),
    ):
        assert "whole recording" in info._describe_look_ahead(model)


# === What goes wrong ===


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["transcribe", "a.wav", "--model=a.keras"], "'a.keras' does not exi"),
        (["transcribe", "a.wav", "--model=a.json"], "Card 'a.json' does not"),
        (
            ["transcribe", "a.wav", "--model=a"],
            "There is no model 'a'. Shipped: an4, en-read. Others are a card "
            "(.json) or a .keras file.",
        ),
        (["transcribe", "--output=README.md", "a.wav"], "is a file. Pass a f"),
        (["transcribe", "--format=srt", "a", "b"], "Pass --output with a fol"),
        (["transcribe", "--format=vtt", "--timestamps", "a"], "--format text"),
        (
            ["transcribe", "--output=o", "a/x.wav", "b/x.mp3"],
            "'a/x.wav' and 'b/x.mp3' would be written to the same file, "
            "'o/x.txt'",
        ),
        (
            ["transcribe", f"--model={TINY}", "--decoder=a.json", "a.wav"],
            "Decoder file 'a.json' does not exist",
        ),
        (["evaluate", "a.txt"], "neither a folder nor a manifest"),
        (["evaluate", "--worst=-1", "a"], "--worst must be 0 or more"),
        (["evaluate", "--report=absent/r.html", "a"], "no folder 'absent'"),
        (["evaluate", "--output=tests", "a"], "'tests' cannot be written: it"),
        (["evaluate", "--output=x", "--report=./x", "a"], "cannot be one file"),
        (["evaluate", "tests"], "holds neither LibriSpeech"),
        (["evaluate", "a.jsonl", f"--model={TINY}"], "Manifest 'a.jsonl' doe"),
    ],
)
def test_errors_are_one_line_and_status_2(capsys, argv, message, monkeypatch):
    monkeypatch.chdir(ROOT)
    status, out, err = run(capsys, *argv)
    assert (status, out) == (2, "")
    assert err.count("\n") == 1
    assert err.startswith("keras-ds2: ") and message in err


@pytest.fixture
def shipped(model, tmp_path, monkeypatch):
    """Where what is shipped lies; every card is that of `model`."""
    folder = tmp_path / "shipped"
    folder.mkdir()
    monkeypatch.setattr(pretrained, "_FOLDER", folder)
    monkeypatch.setattr(pretrained, "load_pretrained", lambda name: model)
    return folder


def test_who_names_no_model_gets_a_shipped_one(capsys, shipped, terminal):
    (shipped / "en-read.json").touch()
    status, out, err = run(capsys, "transcribe", CLIPS[0])
    assert (status, out) == (0, TEXTS[0] + "\n")
    assert err.startswith("Model: en-read (--model for another)\n")


def test_models_that_are_none(capsys, tmp_path):
    path = tmp_path / "a.keras"
    for content in (b"", b"PK\3\4", b"no model"):
        path.write_bytes(content)
        status, _, err = run(capsys, "info", path)
        assert status == 2 and err.count("\n") == 1 and "a.keras" in err
    keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)]).save(path)
    status, _, err = run(capsys, "info", path)
    assert status == 2 and "must be a DeepSpeech2 or DeepSpeech" in err


def test_unforeseen_errors_are_named(capsys, monkeypatch):
    monkeypatch.setattr(shared, "load_model", lambda *_: {}["weights"])
    status, _, err = run(capsys, "info", "an4")
    assert status == 2
    assert err == "keras-ds2: KeyError: 'weights' (--traceback says where)\n"


def test_control_c(capsys, monkeypatch):
    def interrupt(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(shared, "load_model", interrupt)
    assert run(capsys, "info", "an4") == (130, "", "\n")


# === tune-decoder ===


@pytest.fixture
def validation(tmp_path):
    """Manifest of what the model knows."""
    path = tmp_path / "validation.jsonl"
    rows = [
        {"audio": clip, "text": text}
        for clip, text in zip(CLIPS, TEXTS, strict=True)
    ]
    path.write_text("\n".join(map(json.dumps, rows)))
    return path


def test_a_prior_is_measured_and_written(capsys, tmp_path, validation):
    decoder = tmp_path / "decoder.json"
    lexicon = tmp_path / "words.txt"
    lexicon.write_text("country\nmanner\n")
    status, out, _ = run(
        *(capsys, "tune-decoder", validation, "--model", TINY),
        *("--lexicon", lexicon, "--word-scores", 0, "--beam-width", 8),
        *("--prior-weights", 0.5, "--output", decoder),
    )
    assert status == 0 and "beam_width 8, prior_weight 0.5; greedy" in out
    written = json.loads(decoder.read_text())
    assert written["prior_weight"] == 0.5
    loaded = keras_ds2.load_decoder(decoder)
    assert len(loaded.prior) == 1 + len(loaded.alphabet)
    assert sum(loaded.prior) == pytest.approx(1, abs=0.01)
    assert loaded.prior[0] == max(loaded.prior)  # the blank


def test_a_prior_needs_no_words(capsys, tmp_path, validation):
    decoder = tmp_path / "decoder.json"
    status, out, _ = run(
        *(capsys, "tune-decoder", validation, "--model", TINY),
        *("--beam-width", 8, "--prior-weights", 0.1, "--output", decoder),
    )
    assert status == 0 and "beam_width 8, prior_weight 0.1; greedy" in out
    written = json.loads(decoder.read_text())
    assert (written["lexicon"], written["prior_weight"]) == (None, 0.1)
    assert 0.9 < sum(written["prior"]) < 1.1
    status, out, _ = run(
        capsys, "transcribe", "--model", TINY, "--decoder", decoder, CLIPS[0]
    )
    assert (status, out) == (0, TEXTS[0] + "\n")


def test_tuned_decoder_is_read_by_transcribe(capsys, tmp_path, validation):
    words = sorted({word for text in TEXTS for word in text.split()})
    lexicon, decoder = tmp_path / "words.txt", tmp_path / "decoder.json"
    lexicon.write_text("\n".join(words))
    options = (
        ["--language-model", DATA / "words.kenlm", "--lexicon", lexicon],
        ["--lm-weights", 0, 4, "--word-scores", -1, 0, 1, "--beam-width", 8],
        ["--plot", tmp_path / "weights.png", "--output", decoder],
    )
    argv = ["tune-decoder", validation, "--model", TINY]
    status, out, err = run(capsys, *argv, *sum(options, []))
    assert status == 0
    assert "validation.jsonl: 2 utterances" in err
    # The language model knows none of the words, its weight does harm.
    assert "Best: 0.00 % at lm_weight 0, word_score 0, beam_width 8" in out
    assert (tmp_path / "weights.png").stat().st_size > 10_000
    written = json.loads(decoder.read_text())
    assert written["lexicon"] == "words.txt"
    assert pathlib.Path(written["language_model"]).samefile(
        DATA / "words.kenlm"
    )
    weights = ("beam_width", "lm_weight", "word_score")
    assert [written[name] for name in weights] == [8, 0, 0]
    status, out, _ = run(
        capsys, "transcribe", "--model", TINY, "--decoder", decoder, CLIPS[0]
    )
    assert (status, out) == (0, TEXTS[0] + "\n")


@pytest.mark.parametrize(
    "options, message",
    [
        ([], "nothing to weigh. Pass --language-model, --lexicon or --prior"),
        (["--prior-weights", "0"], "There is nothing to weigh"),
        (["--prior-weights", "1", "--plot", "a.png"], "and there are none"),
        (["--output", "absent/d.json"], "there is no folder 'absent'"),
        (["--plot", "absent/d.png"], "there is no folder 'absent'"),
        (["--word-scores"], "expected at least one argument"),
        (["--lm-weights", "-1"], "`lm_weight` must not be negative"),
    ],
)
def test_tune_decoder_refuses_at_once(
    capsys, tmp_path, validation, options, message, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    argv = ["tune-decoder", str(validation), "--model", TINY, *options]
    if options and "--prior-weights" not in options:
        argv += ["--language-model", str(DATA / "words.kenlm")]
    try:
        assert main(argv) == 2
    except SystemExit as error:  # argparse's own
        assert error.code == 2
    assert message in capsys.readouterr().err
    assert os.listdir(tmp_path) == ["validation.jsonl"]


@pytest.mark.parametrize("command", [c.__name__ for c in COMMANDS])
def test_help_teaches_with_examples(capsys, command):
    command = command.rpartition(".")[2].replace("_", "-")
    with pytest.raises(SystemExit) as caught:
        main([command, "--help"])
    assert caught.value.code == 0
    text = capsys.readouterr().out
    assert f"examples:\n  keras-ds2 {command}" in text
    assert max(map(len, text.splitlines())) <= 80


@pytest.mark.parametrize("argv", [[], ["sing"], ["transcribe"]])
def test_usage_is_status_2(capsys, argv):
    with pytest.raises(SystemExit) as caught:
        main(argv)
    assert caught.value.code == 2
    assert capsys.readouterr().err.startswith("usage: keras-ds2")


# === A process of its own ===


# What installing the package makes of its entry point, but for the first line.
SCRIPT = """\
import sys
from keras_ds2.cli.main import main
sys.exit(main())
"""


@pytest.fixture
def start(tmp_path):
    script = tmp_path / "keras-ds2"
    script.write_text(SCRIPT)
    return lambda *argv: start_process(script, *argv)


def start_process(*argv, **options):
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    environment.pop("TF_CPP_MIN_LOG_LEVEL", None)
    return subprocess.Popen(
        [sys.executable, *argv],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=environment,
        text=True,
        **options,
    )


def test_help_imports_no_tensorflow(tmp_path):
    script = tmp_path / "keras-ds2"
    modules = "{'keras', 'numpy', 'tensorflow'} & set(sys.modules)"
    script.write_text(
        SCRIPT.replace(
            "sys.exit",
            "import atexit\natexit.register(lambda: print("
            + modules
            + "))\nsys.exit",
        )
    )
    out, err = start_process(script, "--help").communicate(timeout=60)
    assert out.startswith("usage: keras-ds2") and out.endswith("\nset()\n")
    assert err == ""


def test_a_real_process_says_the_transcript_and_nothing_else(start):
    process = start("transcribe", "--model", TINY, CLIPS[0])
    assert process.communicate(timeout=300) == (TEXTS[0] + "\n", "")
    assert process.returncode == 0


@pytest.mark.slow
def test_a_closed_pipe_and_an_interruption_are_quiet(start):
    argv = ["transcribe", "--model", TINY, *CLIPS * 50]
    with start(*argv) as process:
        process.stdout.readline()
        process.stdout.close()
        assert process.stderr.read() == ""
        assert process.wait(timeout=300) == 141
    with start(*argv) as process:
        process.stdout.readline()
        process.send_signal(signal.SIGINT)
        assert process.stderr.read() == "\n"
        assert process.wait(timeout=300) == 130


# === The manual ===


def test_commands_of_the_manual_work(capsys, card, shipped, monkeypatch):
    text = (ROOT / "docs" / "command_line.md").read_text()
    text = text.replace("\\\n", " ")
    commands = re.findall(r"^\$ keras-ds2 (.*)$", text, re.MULTILINE)
    assert len(commands) > 8
    monkeypatch.chdir(card.parent)
    for name in ("an4.json", "en-read.json"):
        shutil.copy(card, shipped / name)
    for name in ("talk.wav", "interview.flac"):
        samples, rate = soundfile.read(CLIPS[0])
        soundfile.write(name, samples, rate)
    pathlib.Path("decoder.json").write_text('{"lexicon": ["country"]}')
    row = {"audio": "talk.wav", "text": TEXTS[0]}
    for name in ("test.jsonl", "validation.jsonl"):
        pathlib.Path(name).write_text(json.dumps(row))
    shutil.copy(DATA / "words.kenlm", "words.kenlm")
    pathlib.Path("words.txt").write_text("country\nmanner\n")
    shutil.copytree(DATA / "LibriSpeech", "LibriSpeech")
    os.rename("LibriSpeech/dev-clips", "LibriSpeech/test-clean")
    # At a port that is free, and not for ever.
    open_socket = server.open_socket
    monkeypatch.setattr(
        server,
        "open_socket",
        lambda host, _, *rest: open_socket(host, 0, *rest),
    )
    monkeypatch.setattr(server.Server, "run", lambda self, sockets: None)
    for command in commands:
        argv = shlex.split(re.split("[|>#]", command)[0])
        try:
            status, _, err = run(capsys, *argv)
        except SystemExit as stop:  # --help
            status, err = stop.code, ""
        assert status == 0, (command, err)
