"""Oracles: the documented schema, the files themselves, and the endless
stream from 0 as the truth of every stream that begins later."""

import itertools
import json
import math
import pathlib
import subprocess
import sys
import time

import numpy as np
import pytest
import soundfile
import tensorflow as tf

import keras_ds2
from keras_ds2.data import (
    Augmentation,
    CorpusError,
    SpeechDataset,
    Utterance,
)
from keras_ds2.data.composition import num_frames

DATA = pathlib.Path(__file__).parent / "data" / "LibriSpeech"


@pytest.fixture(scope="module")
def rows(tmp_path_factory):
    rows = keras_ds2.data.read_librispeech(DATA, ["train-clips", "dev-clips"])
    rows, _ = keras_ds2.data.add_durations(
        rows, cache_dir=tmp_path_factory.mktemp("cache"), progress=False
    )
    return rows


@pytest.fixture
def beeps(tmp_path):
    """Makes files of the given seconds, at 8 kHz."""

    def make(*seconds):
        rows = []
        for i, duration in enumerate(seconds):
            path = str(tmp_path / f"{i}.wav")
            samples = np.full(round(8000 * duration), 0.25)
            soundfile.write(path, samples, 8000)
            rows.append(Utterance(path, "go" + "o" * i, duration))
        return rows

    return make


def fingerprints(dataset, count):
    """The lengths of each batch, which name its members."""
    return [
        tuple(y["label_length"].numpy().tolist())
        for _, y in dataset.take(count)
    ]


def test_schema_and_content(rows):
    dataset = SpeechDataset(rows, 3)
    tokenizer = keras_ds2.CharacterTokenizer()
    batches = list(dataset.one_pass())
    assert [len(x["audio"]) for x, _ in batches] == [3, 3, 2]
    by_length = sorted(rows, key=lambda row: row.duration)
    assert [row for batch in dataset.batches for row in batch] == by_length
    remaining = iter(by_length)
    for x, y in batches:
        assert set(x) == {"audio", "audio_length"}
        assert set(y) == {"labels", "label_length"}
        assert x["audio"].dtype == tf.float32
        for length in (x["audio_length"], y["labels"], y["label_length"]):
            assert length.dtype == tf.int32
        assert x["audio"].shape[1] == max(x["audio_length"].numpy())
        assert y["labels"].shape[1] == max(y["label_length"].numpy())
        for audio, audio_length, labels, label_length in zip(
            x["audio"].numpy(),
            x["audio_length"].numpy(),
            y["labels"].numpy(),
            y["label_length"].numpy(),
            strict=True,
        ):
            row = next(remaining)
            np.testing.assert_array_equal(
                audio[:audio_length], keras_ds2.load_audio(row.audio)
            )
            assert not np.any(audio[audio_length:])
            expected = tokenizer.tokenize(row.text).numpy()
            np.testing.assert_array_equal(labels[:label_length], expected)
            assert np.all(labels[label_length:] == 29)
    assert next(remaining, None) is None


def test_static_shapes_and_cardinality(rows):
    dataset = SpeechDataset(rows, 3)
    assert len(dataset) == 3
    one_pass, stream = dataset.one_pass(), dataset.stream()
    assert one_pass.cardinality() == 3
    assert stream.cardinality() == tf.data.INFINITE_CARDINALITY
    x, y = stream.element_spec
    assert x["audio"].shape.as_list() == [None, None]
    assert y["labels"].shape.as_list() == [None, None]
    assert x["audio_length"].shape.as_list() == [None]
    assert y["label_length"].shape.as_list() == [None]
    # Twice the same: an iteration uses nothing up.
    assert fingerprints(one_pass, 9) == fingerprints(one_pass, 9)


def test_every_pass_has_every_batch_once(beeps):
    dataset = SpeechDataset(beeps(*np.linspace(0.9, 0.1, 9)), 2)
    batches = fingerprints(dataset.stream(), 4 * len(dataset))
    passes = [tuple(batches[i : i + 5]) for i in range(0, 20, 5)]
    # "goooooooooo" is the shortest; the odd one out is the longest.
    assert passes[0] == ((10, 9), (8, 7), (6, 5), (4, 3), (2,))
    assert all(sorted(row) == sorted(passes[0]) for row in passes)
    assert len(set(passes)) == 4


def test_order_is_a_function_of_seed_and_pass(beeps):
    rows = beeps(*np.linspace(0.1, 0.2, 12))
    orders = {
        (seed, number): tuple(SpeechDataset(rows, 1, seed=seed).order(number))
        for seed in (0, 1)
        for number in (0, 1, 2)
    }
    assert orders[0, 0] == orders[1, 0] == tuple(range(12))
    shuffled = {key: order for key, order in orders.items() if key[1]}
    assert len(set(shuffled.values())) == 4
    again = SpeechDataset(rows[::-1], 1, seed=1)
    # Asked for in another order, and of files listed in another order.
    assert tuple(again.order(2)) == orders[1, 2]
    assert tuple(again.order(1)) == orders[1, 1]
    with pytest.raises(ValueError, match="read-only"):
        again.order(1).sort()
    assert again.batches == SpeechDataset(rows, 1).batches
    # All are shuffled, and the later ones as before.
    shuffled = SpeechDataset(rows, 1, seed=1, sorted_first_pass=False)
    assert sorted(shuffled.order(0)) == list(range(12))
    assert tuple(shuffled.order(0)) not in orders.values()
    assert tuple(shuffled.order(1)) == orders[1, 1]
    assert shuffled.description() != again.description()


@pytest.mark.parametrize("first", [1, 4, 5, 7, 11])
def test_stream_goes_on_where_another_stopped(first, beeps):
    dataset = SpeechDataset(beeps(*np.linspace(0.1, 0.2, 5)), 1, seed=3)
    expected = fingerprints(dataset.stream(), first + 8)
    stream = dataset.stream()
    dataset.first_step = first  # Asked only when an iterator is made.
    assert fingerprints(stream, 8) == expected[first:]
    assert fingerprints(dataset.stream(first_step=first), 8) == expected[first:]
    assert fingerprints(dataset.stream(first_step=0), 1) == expected[:1]


def test_equal_durations_are_ordered_by_name(beeps):
    rows = beeps(0.1, 0.1, 0.1)
    for shuffled in (rows, rows[::-1]):
        assert SpeechDataset(shuffled, 2).batches == [rows[:2], rows[2:]]


def test_padding_efficiency(beeps):
    rows = beeps(1.0, 4.0, 3.0, 2.0, 5.0)
    # (1 + 2) of 2 * 2, (3 + 4) of 2 * 4, 5 of 5.
    dataset = SpeechDataset(rows, 2)
    assert dataset.padding_efficiency == pytest.approx(15 / (4 + 8 + 5))
    assert dataset.duration == 15.0
    assert SpeechDataset(rows, 1).padding_efficiency == 1.0


def listed(*seconds):
    """Utterances whose files are never opened."""
    return [
        Utterance(f"/corpus/{i:06}.wav", "go", duration)
        for i, duration in enumerate(seconds)
    ]


def frames(seconds, speed=1.0):
    """By hand: 25 ms windows each 10 ms at 16 kHz."""
    return 1 + (math.ceil(round(seconds * 16000) / speed) - 400) // 160


@pytest.mark.parametrize("speed", [1.0, 0.9])
@pytest.mark.parametrize("num_replicas", [1, 2, 3])
@pytest.mark.parametrize("budget", [None, 4000, 10_000])
def test_batches_keep_budget_count_and_shares(budget, num_replicas, speed):
    rows = listed(*np.random.default_rng(0).uniform(1.0, 11.0, 500).round(3))
    augmentation = Augmentation((speed, 1.1))
    dataset = SpeechDataset(
        rows,
        12,
        max_frames_per_batch=budget,
        num_replicas=num_replicas,
        augmentation=augmentation,
    )
    batched = [row for batch in dataset.batches for row in batch]
    assert sorted(batched + dataset.left_over) == rows
    assert len(dataset.left_over) == 500 % num_replicas
    by_length = [row.duration for row in batched + dataset.left_over]
    assert by_length == sorted(by_length)
    for batch, following in itertools.zip_longest(
        dataset.batches, dataset.batches[1:], fillvalue=[]
    ):
        assert len(batch) % num_replicas == 0
        assert len(batch) <= 12
        longest = frames(batch[-1].duration, speed)
        assert budget is None or len(batch) * longest <= budget
        if following and len(batch) < 12:
            # It could not have taken the next share.
            more = len(batch) + num_replicas
            share = following[:num_replicas][-1]
            assert more * frames(share.duration, speed) > budget
    assert sum(map(len, dataset.batches)) + len(dataset.left_over) == 500


def test_a_budget_may_be_used_up():
    rows = listed(*8 * [2.0])
    for budget, expected in ((4 * 198, [4, 4]), (4 * 198 - 1, [3, 3, 2])):
        dataset = SpeechDataset(rows, 8, max_frames_per_batch=budget)
        assert [len(batch) for batch in dataset.batches] == expected


def test_frames_are_those_of_the_features():
    log_mel = keras_ds2.LogMelSpectrogram(normalize=False)
    for num_samples in (400, 559, 560, 16000, 16080):
        expected = log_mel(np.zeros((1, num_samples), "float32")).shape[1]
        assert num_frames(num_samples / 16000, 16000) == expected


def test_an_utterance_beyond_the_budget_is_named():
    rows = listed(1.0, 2.0, 30.0)
    SpeechDataset(rows, 2, max_frames_per_batch=frames(30.0))
    message = r"(?s)1 too_long.*/000002.wav: Lasts 30.000 s, 2,998 frames.*2998"
    with pytest.raises(CorpusError, match=message):
        SpeechDataset(rows, 2, max_frames_per_batch=frames(30.0) - 1)
    # Each replica holds one; and slower is longer.
    with pytest.raises(CorpusError, match="room for on 2 replicas"):
        SpeechDataset(rows, 2, max_frames_per_batch=2999, num_replicas=2)
    with pytest.raises(CorpusError, match="3,331 frames of 10 ms at speed 0.9"):
        SpeechDataset(
            rows,
            2,
            max_frames_per_batch=2999,
            augmentation=Augmentation((0.9, 1.0)),
        )


def test_description_survives_a_move_and_json():
    rows = listed(3.0, 1.0, 1.0, 2.0)

    def describe(rows, *args, **kwargs):
        dataset = SpeechDataset(rows, *(args or (2,)), **kwargs)
        description = dataset.description()
        assert json.loads(json.dumps(description)) == description
        return description

    first = describe(rows)
    assert (first["utterances"], first["batches"]) == (4, 2)
    assert first["hours"] == 7 / 3600
    moved = [
        row._replace(audio=row.audio.replace("corpus", f"{9 - i}"), source="x")
        for i, row in enumerate(rows)
    ]
    assert describe(moved[::-1]) == first
    for other in (
        describe([*rows[:3], rows[3]._replace(text="gone")]),
        describe([*rows[:3], rows[3]._replace(audio="/corpus/x.wav")]),
        describe([*rows[:3], rows[3]._replace(duration=2.1)]),
    ):
        assert other["digest"] != first["digest"]
    for other in (
        describe(rows[:3]),
        describe(rows, 1),
        describe(rows, seed=1),
        describe(rows, alphabet="og"),
        describe(rows, sampling_rate=8000),
        describe(rows, max_frames_per_batch=9999),
        describe(rows, num_replicas=2),
        describe(rows, on_bad_audio="skip"),
        describe(rows, augmentation=Augmentation((0.9,))),
    ):
        assert other != first


def test_a_large_corpus_is_quick():
    # LibriSpeech has 281,241 utterances for training.
    rows = listed(*np.random.default_rng(0).uniform(1.0, 17.0, 281_241))
    dataset = SpeechDataset(rows, 32, max_frames_per_batch=30_000)
    start = time.process_time()
    dataset.description()
    assert time.process_time() - start < 2
    dataset.batch_at(len(dataset))
    start = time.process_time()
    for step in range(len(dataset), 2 * len(dataset)):
        dataset.batch_at(step)
    # 11,000 permutations of 11,000 would take two seconds and more.
    assert time.process_time() - start < 0.5
    assert dataset.padding_efficiency > 0.99


def test_resamples_to_its_own_rate(beeps):
    [(x, _)] = SpeechDataset(beeps(0.5), 1, sampling_rate=16000).one_pass()
    assert x["audio_length"].numpy().tolist() == [8000]
    np.testing.assert_allclose(x["audio"][0, 2000:6000], 0.25, atol=1e-3)
    [(x, _)] = SpeechDataset(beeps(0.5), 1, sampling_rate=8000).one_pass()
    assert x["audio_length"].numpy().tolist() == [4000]


def test_alphabet_and_empty_transcripts(beeps):
    rows = beeps(0.1, 0.2)
    rows = [rows[0]._replace(text=""), rows[1]._replace(text="oé")]
    [(_, y)] = SpeechDataset(rows, 2, alphabet="éo").one_pass()
    assert y["labels"].numpy().tolist() == [[3, 3], [2, 1]]
    assert y["label_length"].numpy().tolist() == [0, 2]


def test_a_file_broken_after_indexing_is_named(beeps):
    rows = beeps(0.1, 0.2, 0.3)
    pathlib.Path(rows[1].audio).write_bytes(b"no audio")
    batches = iter(SpeechDataset(rows, 1).one_pass())
    with pytest.raises(Exception, match="1.wav' cannot be read"):
        list(batches)


def test_invalid_arguments(beeps):
    rows = beeps(0.1, 0.2)
    with pytest.raises(ValueError, match="needs utterances.*0 utterances"):
        SpeechDataset([], 2)
    with pytest.raises(ValueError, match="positive `batch_size`.*batch_size=0"):
        SpeechDataset(rows, 0)
    with pytest.raises(ValueError, match="multiple of `num_replicas`.*size=3"):
        SpeechDataset(rows, 3, num_replicas=2)
    with pytest.raises(ValueError, match="for each replica.*2 utterances"):
        SpeechDataset(rows, 3, num_replicas=3)
    with pytest.raises(ValueError, match="`seed` must not be .* seed=-1"):
        SpeechDataset(rows, 1, seed=-1)
    with pytest.raises(ValueError, match="lasts 0.100 s, less than min_dur"):
        SpeechDataset(rows, 1, min_duration=0.15)
    missing = Utterance("late.wav", "go")
    for bad in (missing, missing._replace(duration=0.0)):
        with pytest.raises(ValueError, match="late.wav has no duration.*add_d"):
            SpeechDataset([*rows, bad], 2)
    bad = rows[0]._replace(text="10 a")
    with pytest.raises(ValueError, match=r"outside the alphabet: '01'.*check_"):
        SpeechDataset([*rows, bad], 2)


def test_prepare_dataset_names_what_is_wrong(tmp_path, beeps):
    model = keras_ds2.DeepSpeech2(num_rnn_layers=1, rnn_units=4)
    [row] = beeps(0.01)
    manifest = tmp_path / "short.jsonl"
    manifest.write_text(json.dumps({"audio": row.audio, "text": ""}))

    def prepare(*names, **options):
        return keras_ds2.data.prepare_dataset(
            tmp_path, names, model, batch_size=1, **options
        )

    with pytest.raises(CorpusError, match=r"(?s)too_short.*short.jsonl:1"):
        prepare("short.jsonl")
    with pytest.raises(CorpusError, match="No utterance of short.jsonl"):
        prepare("short.jsonl", on_invalid="skip")
    with pytest.raises(CorpusError, match="without repeats"):
        prepare("short.jsonl", "short.jsonl")
    with pytest.raises(CorpusError, match="must be a list"):
        keras_ds2.data.prepare_dataset(tmp_path, "short.jsonl", model, 1)


def test_prepare_dataset_tells_what_it_left_out(tmp_path, beeps, capsys):
    model = keras_ds2.DeepSpeech2(num_rnn_layers=1, rnn_units=4)
    lines = [
        json.dumps({"audio": row.audio, "text": "go"})
        for row in beeps(1.0, 1.2, 1.4, 9.0, 9.5, 1.1)
    ]
    (tmp_path / "a.jsonl").write_text("\n".join(lines))

    def prepare(**options):
        return keras_ds2.data.prepare_dataset(
            tmp_path,
            ["a.jsonl"],
            model,
            2,
            max_frames_per_batch=1850,
            num_replicas=2,
            **options,
        )

    with pytest.raises(CorpusError, match="(?s)1 too_long.*jsonl:5.*'skip'"):
        prepare(max_duration=9.2, on_invalid="error")
    capsys.readouterr()
    dataset = prepare(
        max_duration=9.2,
        on_invalid="skip",
        augmentation=Augmentation((0.9, 1.0)),
        on_bad_audio="skip",
        bad_audio_report=tmp_path / "bad.jsonl",
    )
    told = capsys.readouterr().err
    assert "2 utterance(s) cannot be used: 2 too_long" in told
    assert "a.jsonl:5: Lasts 9.500 s, more than max_duration" in told
    assert "a.jsonl:4: Lasts 9.000 s, 998 frames of 10 ms at speed 0.9" in told
    assert "a.jsonl: 4 utterances, 0.00 h, 2 batches, 94% speech" in told
    assert "left over" not in told
    assert dataset.description()["on_bad_audio"] == "skip"

    (tmp_path / "a.jsonl").write_text("\n".join(lines[:3]))
    assert len(prepare().left_over) == 1
    told = capsys.readouterr().err
    assert "2 utterances" in told
    assert "; dropped 1 utterance(s) left over, so that 2 replicas" in told


REPLICAS = """
import sys
import keras, numpy, tensorflow
num_replicas = int(sys.argv[1])
cpus = tensorflow.config.list_physical_devices("CPU")
devices = [tensorflow.config.LogicalDeviceConfiguration()] * num_replicas
tensorflow.config.set_logical_device_configuration(cpus[0], devices)
names = [f"CPU:{i}" for i in range(num_replicas)]
import keras_ds2
from keras_ds2.data import *
rows, _ = add_durations(
    read_librispeech("tests/data/LibriSpeech", ["train-clips", "dev-clips"])
)
augmentation = Augmentation((0.9, 1.0, 1.1))
dataset = SpeechDataset(rows, 4, num_replicas=2, augmentation=augmentation)
dataset.first_step = 1
keras.utils.set_random_seed(0)
with tensorflow.distribute.MirroredStrategy(names).scope():
    model = keras_ds2.DeepSpeech2(
        conv_filters=(4, 4), conv_kernel_sizes=((5, 9), (5, 5)), rnn_units=8,
        num_rnn_layers=1, dense_units=8, dropout=0.0,
        batch_normalization=False, normalize=False,
    )
    model.compile(keras.optimizers.Adam(1e-2))
history = model.fit(
    dataset.stream(), steps_per_epoch=3, epochs=2, shuffle=False, verbose=0,
    validation_data=dataset.one_pass(),
).history
print(*history["loss"], *history["val_loss"])
"""


@pytest.mark.slow
def test_replicas_see_the_same_in_every_run():
    def losses(num_replicas):
        result = subprocess.run(
            [sys.executable, "-c", REPLICAS, str(num_replicas)],
            cwd=DATA.parent.parent.parent,
            capture_output=True,
            text=True,
            timeout=200,
            check=True,
        )
        return [float(text) for text in result.stdout.split()[-4:]]

    first = losses(2)
    assert losses(2) == first
    # Sums in another order.
    np.testing.assert_allclose(losses(1), first, rtol=1e-5)
