"""Oracles: files with a fault put in, the good files themselves, and a fresh
interpreter that must end."""

import collections
import json
import pathlib
import shutil
import subprocess
import sys

import numpy as np
import pytest
import soundfile
import tensorflow as tf

import keras_ds2
from keras_ds2.data import (
    Augmentation,
    CorpusError,
    Rejected,
    SpeechDataset,
    Utterance,
    reading,
    report,
)

ROOT = pathlib.Path(__file__).parent.parent


@pytest.fixture
def beeps(tmp_path):
    """Files of 0.5 s, 0.6 s ...; file i holds (i + 1) / 64 everywhere."""

    def make(count):
        rows = []
        for i in range(count):
            duration = 0.5 + i / 10
            path = str(tmp_path / f"{i}.wav")
            samples = np.full(round(16000 * duration), (i + 1) / 64)
            soundfile.write(path, samples, 16000)
            source = f"train.jsonl:{i + 1}"
            rows.append(Utterance(path, "go", duration, source=source))
        return rows

    return make


def members(x):
    """The number of the file in each row."""
    return [round(value * 64) - 1 for value in x["audio"][:, 0].numpy()]


def spoil(row, fault):
    path = pathlib.Path(row.audio)
    samples, rate = soundfile.read(path)
    if fault == "missing":
        path.unlink()
    elif fault == "unreadable":
        path.write_bytes(b"no audio")
    elif fault == "empty":
        soundfile.write(path, np.zeros(0), rate)
    elif fault == "non_finite":
        samples[100] = np.nan
        soundfile.write(path, samples, rate, subtype="FLOAT")
    elif fault == "wrong_duration":  # as if cut off
        path.write_bytes(path.read_bytes()[:8000])


FAULTS = ["missing", "unreadable", "empty", "non_finite", "wrong_duration"]


@pytest.mark.parametrize("fault", FAULTS)
def test_error_names_file_fault_line_and_fix(fault, beeps):
    rows = beeps(3)
    spoil(rows[1], fault)
    dataset = SpeechDataset(rows, 1)
    for data in (dataset.one_pass(), dataset.stream()):
        with pytest.raises(tf.errors.OpError) as caught:
            for _ in data.take(3):
                pass
        assert f"Audio file '{rows[1].audio}' " in caught.value.message
        assert "stands at train.jsonl:2." in caught.value.message
        assert "on_bad_audio='skip'" in caught.value.message
    assert {row.reason for row in dataset.bad_audio.values()} == {fault}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_neighbor_takes_the_place(fault, beeps, tmp_path, capfd):
    rows = beeps(6)
    for number in (1, 5):
        spoil(rows[number], fault)
    report = tmp_path / "bad.jsonl"
    dataset = SpeechDataset(
        rows, 3, on_bad_audio="skip", bad_audio_report=report
    )
    batches = [members(x) for x, _ in dataset.stream().take(2)]
    # The next of the batch, and after the last the first.
    assert batches == [[0, 2, 2], [3, 4, 3]]
    assert [members(x) for x, _ in dataset.one_pass()] == [[0, 2], [3, 4]]
    assert sorted(dataset.bad_audio) == [rows[1], rows[5]]
    assert [row.reason for row in dataset.bad_audio.values()] == 2 * [fault]

    # Told once each, though read again and again.
    assert capfd.readouterr().err.count("Left out: Audio file ") == 2
    lines = sorted(report.read_text().splitlines())  # as threads met them
    lines = [json.loads(line) for line in lines]
    assert [
        (line["audio"], line["source"], line["reason"]) for line in lines
    ] == [(rows[i].audio, f"train.jsonl:{i + 1}", fault) for i in (1, 5)]
    assert rows[1].audio in lines[0]["detail"]


def test_a_whole_bad_batch_is_replaced_by_the_one_before(beeps):
    rows = beeps(7)
    for number in (2, 3, 5, 6):
        spoil(rows[number], "non_finite")
    dataset = SpeechDataset(rows, 2, on_bad_audio="skip")
    expected = [[0, 1], [0, 1], [4, 4], [4]]
    assert [members(x) for x, _ in dataset.stream().take(4)] == expected
    # One of the two passes is shuffled: counts and members are the same.
    later = [members(x) for x, _ in dataset.stream(first_step=4).take(4)]
    assert sorted(later) == sorted(expected)
    again = [members(x) for x, _ in dataset.stream(first_step=4).take(4)]
    assert again == later
    # Without substitution, and without empty batches.
    assert [members(x) for x, _ in dataset.one_pass()] == [[0, 1], [4]]


def test_a_whole_bad_batch_keeps_the_budget(beeps):
    rows = beeps(12)
    for number in (0, 1, 4, 5, 6):
        spoil(rows[number], "unreadable")
    budget = 220
    dataset = SpeechDataset(
        rows, 4, max_frames_per_batch=budget, on_bad_audio="skip"
    )
    sizes = [len(batch) for batch in dataset.batches]
    assert sizes == [3, 2, 2, 1, 1, 1, 1, 1]
    for size, (x, _) in zip(sizes, dataset.stream(0), strict=False):
        frames = 1 + (x["audio"].shape[1] - 400) // 160
        assert len(members(x)) == size
        assert size * frames <= budget


def test_only_where_none_before_is_good_it_is_one_after(beeps):
    rows = beeps(8)
    for number in (0, 1, 2, 3):
        spoil(rows[number], "missing")
    dataset = SpeechDataset(rows, 2, on_bad_audio="skip")
    batches = [members(x) for x, _ in dataset.stream().take(4)]
    # The nearest, which is the least longer.
    assert batches == [[4, 5], [4, 5], [4, 5], [6, 7]]


def test_replicas_keep_equal_shares(beeps):
    rows = beeps(6)
    for number in (0, 1, 2, 4):
        spoil(rows[number], "unreadable")
    dataset = SpeechDataset(rows, 2, num_replicas=2, on_bad_audio="skip")
    sizes = [len(members(x)) for x, _ in dataset.stream().take(9)]
    assert sizes == 9 * [2]


def test_replicas_keep_equal_shares_of_one_pass(beeps, capfd):
    rows = beeps(12)
    for number in (1, 4, 5, 6, 8):
        spoil(rows[number], "missing")
    dataset = SpeechDataset(rows, 4, num_replicas=2, on_bad_audio="skip")
    # Of three good rows two are left, of one none, of three two.
    for _ in range(2):
        batches = [members(x) for x, _ in dataset.one_pass()]
        assert batches == [[0, 2], [9, 10]]
    told = capfd.readouterr().err
    for number in (3, 7, 11):
        assert told.count(f"{rows[number].audio}' is good, but what") == 1
    assert told.count("Left out: ") == 5 + 3
    reasons = collections.Counter(x.reason for x in dataset.bad_audio.values())
    assert reasons == {"missing": 5, "no_share": 3}
    # They are no bad files: training goes on with them.
    seen = {i for x, _ in dataset.stream().take(3) for i in members(x)}
    assert seen == {0, 2, 3, 7, 9, 10, 11}
    # Transcripts stay beside their own utterances.
    model = keras_ds2.DeepSpeech2(num_rnn_layers=1, rnn_units=4)
    result = keras_ds2.evaluate(model, dataset)
    names = {item.audio for item in result.utterances}
    assert names == {rows[i].audio for i in (0, 2, 9, 10)}


@pytest.mark.parametrize("method", ["stream", "one_pass"])
def test_when_all_fail_it_ends(method, beeps):
    rows = beeps(5)
    for row in rows:
        spoil(row, "non_finite")
    dataset = SpeechDataset(rows, 2, on_bad_audio="skip")
    with pytest.raises(tf.errors.OpError, match="Every file .* 5 non_finite"):
        list(getattr(dataset, method)().take(99))


def test_when_all_fail_a_repeated_one_counts_once(beeps):
    rows = beeps(2)
    for row in rows:
        spoil(row, "missing")
    dataset = SpeechDataset([*rows, rows[0]], 1, on_bad_audio="skip")
    for data in (dataset.stream(), dataset.one_pass()):
        with pytest.raises(tf.errors.OpError, match="Every file .* 2 missing"):
            list(data.take(99))


def test_a_batch_without_any_good_row_is_a_corpus_error(beeps, monkeypatch):
    monkeypatch.setattr(reading.BatchReader, "_read", lambda self, row: None)
    dataset = SpeechDataset(beeps(2), 1, on_bad_audio="skip")
    with pytest.raises(CorpusError, match="Every file of the data set failed"):
        dataset._reader.full(0, 0)


def test_a_stated_duration_of_a_long_recording(tmp_path):
    path = str(tmp_path / "long.wav")
    soundfile.write(path, np.zeros(20 * 8000), 8000)
    # 5 % of what is stated.
    for stated in (19.1, 19.9, 20.9, 21.0):
        [_] = SpeechDataset([Utterance(path, "go", stated)], 1).one_pass()
    for stated in (18.9, 21.2):
        lie = Utterance(path, "go", stated)
        with pytest.raises(tf.errors.OpError, match="lasts 20.000 s, but its"):
            list(SpeechDataset([lie], 1).one_pass())


def test_a_stated_duration_is_compared(beeps, monkeypatch):
    [row] = beeps(1)  # 0.5 s
    for stated in (0.46, 0.5, 0.54):
        [_] = SpeechDataset([row._replace(duration=stated)], 1).one_pass()
    # It is found before decoding, which could exhaust the memory.
    monkeypatch.delattr(reading, "load_audio")
    for stated in (0.1, 0.44, 0.56, 36000.0):
        lie = row._replace(duration=stated)
        with pytest.raises(tf.errors.OpError, match="lasts 0.500 s, but its"):
            list(SpeechDataset([lie], 1).one_pass())


def test_what_gives_no_frame_is_bad(beeps, tmp_path):
    path = str(tmp_path / "short.wav")
    soundfile.write(path, np.zeros(399), 16000)
    row = Utterance(path, "", 0.025)  # 0.06 ms less in truth
    with pytest.raises(tf.errors.OpError, match="gives 399 samples at 16000"):
        list(SpeechDataset([row], 1).one_pass())
    rows = [row, *beeps(1)]
    dataset = SpeechDataset(rows, 2, on_bad_audio="skip")
    [(x, _)] = dataset.stream().take(1)
    assert x["audio_length"].numpy().tolist() == [8000, 8000]
    # Neither does the augmentation make any.
    soundfile.write(path, np.zeros(420), 16000)
    fast = SpeechDataset([row], 1, augmentation=Augmentation((1.1,)))
    [(x, _)] = fast.stream().take(1)
    assert x["audio_length"].numpy().tolist() == [420]


# === Augmentation ===


@pytest.fixture(scope="module")
def clips(tmp_path_factory):
    rows, _ = keras_ds2.data.add_durations(
        keras_ds2.data.read_librispeech(
            ROOT / "tests/data/LibriSpeech", "train-clips"
        ),
        cache_dir=tmp_path_factory.mktemp("cache"),
        progress=False,
    )
    return rows


AUGMENTATION = Augmentation((0.9, 1.0, 1.1), gain=(-6.0, 6.0))


def heard(dataset, first_step, count):
    """Samples by (transcript, pass)."""
    found = {}
    stream = dataset.stream(first_step=first_step).take(count)
    for step, (x, y) in enumerate(stream, start=first_step):
        for samples, length, labels in zip(
            x["audio"], x["audio_length"], y["labels"], strict=True
        ):
            text = tuple(label for label in labels.numpy() if label < 29)
            key = text, step // len(dataset)
            found[key] = samples[:length].numpy().tobytes()
    return found


def test_augmentation_is_a_function_of_seed_utterance_and_pass(clips):
    pairs = heard(SpeechDataset(clips, 2, augmentation=AUGMENTATION), 0, 9)
    assert len(pairs) == 18
    # Other batches, a later start, another order of the list.
    dataset = SpeechDataset(clips[::-1], 3, augmentation=AUGMENTATION)
    assert heard(dataset, 2, 2) == {
        key: value for key, value in pairs.items() if key[1] == 1
    }
    assert len(set(pairs.values())) == 18  # never twice the same
    other = SpeechDataset(clips, 2, seed=1, augmentation=AUGMENTATION)
    other = heard(other, 0, 9)
    assert not set(other.values()) & set(pairs.values())


def test_draws_know_text_and_folder_but_not_the_root(beeps, tmp_path):
    [row] = beeps(1)
    places = ["a/x.wav", "b/x.wav", "a/y.wav"]
    for root in ("first", "second"):
        for place in places:
            path = tmp_path / root / place
            path.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(row.audio, path)
    augmentation = Augmentation(gain=(-20.0, 20.0))

    def gains(root):
        rows = [
            row._replace(audio=str(tmp_path / root / place), text=text)
            for place in places
            for text in ("go", "gone")
        ]
        dataset = SpeechDataset(rows, 6, augmentation=augmentation)
        [(x, _)] = dataset.stream().take(1)
        return x["audio"][:, 0].numpy().tolist()

    first = gains("first")
    assert len(set(first)) == 6
    assert gains("second") == first
    assert gains("second/../first") == first


def test_each_utterance_has_its_own_draw(clips):
    plain = heard(SpeechDataset(clips, 2), 0, 3)
    loud = SpeechDataset(clips, 2, augmentation=Augmentation(gain=(-6.0, 6.0)))
    gains = {
        round(np.std(np.frombuffer(samples, "float32")) / np.std(original), 3)
        for key, samples in heard(loud, 0, 3).items()
        for original in [np.frombuffer(plain[key], "float32")]
    }
    assert len(gains) == len(clips) == 6


def test_only_training_is_augmented(clips):
    plain = SpeechDataset(clips, 2)
    dataset = SpeechDataset(clips, 2, augmentation=AUGMENTATION)
    for (x, _), (expected, _) in zip(
        dataset.one_pass(), plain.one_pass(), strict=True
    ):
        np.testing.assert_array_equal(x["audio"], expected["audio"])
    # Nothing asked for is nothing done.
    off = SpeechDataset(clips, 2, augmentation=Augmentation())
    assert heard(off, 0, 3) == heard(plain, 0, 3)


def test_longest_batch(clips):
    [(x, y)] = SpeechDataset(clips, 4).longest_batch()
    # Four clips of 59600 samples against two of the longest.
    samples = [round(16000 * row.duration) for row in clips]
    assert max(samples) == 87920
    assert x["audio"].shape == (4, sorted(samples)[3])
    assert y["labels"].shape[0] == 4
    dataset = SpeechDataset(clips, 4, augmentation=AUGMENTATION)
    [(slow, _)] = dataset.longest_batch()
    expected = np.array(x["audio_length"]) / 0.9
    np.testing.assert_allclose(slow["audio_length"], expected, atol=1)


# === Threads and exit ===


def test_interpreter_ends_after_an_error_in_fit(beeps, tmp_path):
    rows = beeps(6)
    spoil(rows[4], "non_finite")
    manifest = tmp_path / "a.jsonl"
    manifest.write_text(
        "\n".join(
            json.dumps({"audio": row.audio, "text": row.text}) for row in rows
        )
    )
    code = (
        "import keras_ds2\n"
        "model = keras_ds2.DeepSpeech2(conv_filters=(2, 2), rnn_units=4,\n"
        "    conv_kernel_sizes=((3, 3), (3, 3)), num_rnn_layers=1,\n"
        "    dense_units=4, normalize=False)\n"
        "data = keras_ds2.data.prepare_dataset(\n"
        f"    {str(tmp_path)!r}, ['a.jsonl'], model, 1)\n"
        "model.compile('adam', run_eagerly=True)\n"
        "stream = data.stream()\n"  # held until the very end
        "model.fit(stream, steps_per_epoch=6, shuffle=False, verbose=0)\n"
    )
    result = subprocess.run(
        [sys.executable, "-c", code],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert result.returncode == 1
    assert "4.wav' holds 1 NaN or infinite samples" in result.stderr


def test_many_threads_count_each_file_once(beeps, capfd):
    rows = beeps(24)
    for row in rows[::2]:
        spoil(row, "unreadable")
    dataset = SpeechDataset(rows, 2, on_bad_audio="skip")
    streams = [iter(dataset.stream()) for _ in range(4)]
    for _ in range(24):
        batches = [members(next(stream)[0]) for stream in streams]
        assert batches == 4 * batches[:1]
    reasons = collections.Counter(
        row.reason for row in dataset.bad_audio.values()
    )
    assert reasons == {"unreadable": 12}
    assert capfd.readouterr().err.count("Left out") == 12


def test_evaluation_leaves_bad_audio_out(beeps):
    rows = beeps(4)
    spoil(rows[1], "missing")
    dataset = SpeechDataset(rows, 2, on_bad_audio="skip")
    model = keras_ds2.DeepSpeech2(num_rnn_layers=1, rnn_units=4)
    result = keras_ds2.evaluate(model, dataset)
    names = {item.audio for item in result.utterances}
    assert names == {rows[i].audio for i in (0, 2, 3)}


def test_report_of_an_error_too(beeps, tmp_path):
    [row] = beeps(1)
    spoil(row, "missing")
    report = tmp_path / "bad.jsonl"
    dataset = SpeechDataset([row], 1, bad_audio_report=report)
    with pytest.raises(tf.errors.OpError):
        list(dataset.one_pass())
    assert json.loads(report.read_text())["reason"] == "missing"


def test_report_goes_on_after_an_interruption(beeps, tmp_path):
    rows = beeps(4)
    spoil(rows[1], "missing")
    report = tmp_path / "run" / "bad.jsonl"

    def read():
        dataset = SpeechDataset(
            rows, 2, on_bad_audio="skip", bad_audio_report=report
        )
        list(dataset.one_pass())
        return report.read_text().splitlines()

    [first] = read()
    assert read() == [first]
    # Killed in the middle of a line, and a file that is bad by now.
    spoil(rows[2], "missing")
    report.write_text(f'{first}\n[1]\n{{"audio": 1}}\n{{"audio": "')
    *before, last = read()
    assert before[0] == first and len(before) == 4
    assert json.loads(last)["audio"] == rows[2].audio


def test_unwritable_report_is_an_early_error(beeps, tmp_path):
    rows = beeps(1)
    (tmp_path / "file").touch()
    for path in (tmp_path, tmp_path / "file" / "bad.jsonl"):
        with pytest.raises(ValueError, match="`bad_audio_report` cannot be"):
            SpeechDataset(rows, 1, bad_audio_report=path)


def test_report_on_a_full_disk_is_no_end(beeps, tmp_path, monkeypatch):
    path = tmp_path / "bad.jsonl"
    rejected = [Rejected(row, "missing", "") for row in beeps(3)]
    bad_files = report.Report(path)
    bad_files.add(rejected[0])

    def full_disk(*args, **kwargs):
        raise OSError("No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("builtins.open", full_disk)
        with pytest.warns(UserWarning, match="No space left.* on with") as told:
            bad_files.add(rejected[1])
            bad_files.add(rejected[2])
    assert len(told) == 1
    assert len(path.read_text().splitlines()) == 1


def test_invalid_on_bad_audio(beeps):
    with pytest.raises(ValueError, match="`on_bad_audio` must.*'drop'"):
        SpeechDataset(beeps(1), 1, on_bad_audio="drop")


def test_every_file_bad_is_a_corpus_error(beeps):
    rows = beeps(1)
    spoil(rows[0], "missing")
    dataset = SpeechDataset(rows, 1, on_bad_audio="skip")
    with pytest.raises(tf.errors.OpError, match="Every file"):
        list(dataset.longest_batch())


def test_validation_without_its_bad_files(beeps):
    rows = beeps(5)
    spoil(rows[1], "non_finite")
    spoil(rows[4], "non_finite")  # a whole batch
    dataset = SpeechDataset(rows, 2, on_bad_audio="skip")
    model = keras_ds2.DeepSpeech2(
        conv_filters=(2,),
        conv_kernel_sizes=((5, 9),),
        conv_strides=((4, 4),),
        num_rnn_layers=1,
        rnn_units=4,
        dense_units=4,
        normalize=False,
    )
    model.compile("adam", run_eagerly=True)
    history = model.fit(
        dataset.stream(),
        steps_per_epoch=2,
        epochs=2,
        verbose=0,
        validation_data=dataset.one_pass(),
    ).history
    assert np.all(np.isfinite(history["loss"] + history["val_loss"]))
    good = SpeechDataset([rows[i] for i in (0, 2, 3)], 3).one_pass()
    alone = model.evaluate(good, verbose=0, return_dict=True)
    assert history["val_wer"][-1] == alone["wer"]
