"""Oracles: a training that nobody stopped, the pretrained weights bit by bit,
and what a person sees who runs the example and its benchmark."""

import importlib.util
import json
import pathlib
import re
import shutil

import keras
import numpy as np
import pytest
import tensorflow as tf

import keras_ds2

ROOT = pathlib.Path(__file__).parent.parent
AN4 = ROOT / "tests" / "data" / "an4"
TINY = dict(
    conv_filters=(4, 4),
    conv_strides=((2, 2), (2, 2)),
    num_rnn_layers=2,
    rnn_units=8,
    dense_units=8,
)
# One step each, after one of warmup.
SHORT = ["--head-epochs=2", "--epochs=4", "--device=cpu"]


def load(name):
    path = ROOT / name
    spec = importlib.util.spec_from_file_location(path.stem, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def example():
    return load("examples/finetune.py")


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Manifests of the clips of AN4; one of them with other characters."""
    folder = tmp_path_factory.mktemp("data")
    rows = [
        {"audio": row.audio, "text": row.text, "speaker": row.speaker}
        for row in keras_ds2.data.read_an4(AN4)
    ]
    manifests = {
        "train": rows,
        "validation": rows[:3],
        "others": rows[3:],
        "one": rows[:1],
        "accents": [row | {"text": f"é {row['text']}!"} for row in rows[3:]],
    }
    for name, chosen in manifests.items():
        lines = map(json.dumps, chosen)
        (folder / f"{name}.jsonl").write_text("\n".join(lines))
    return folder


@pytest.fixture(scope="module")
def tiny(data):
    """A card, and its weights: with statistics that are not the first."""
    keras.utils.set_random_seed(0)
    model = keras_ds2.DeepSpeech2(**TINY)
    training = keras_ds2.data.prepare_dataset(data, ["train.jsonl"], model, 7)
    model.adapt(training.one_pass())
    for weight in model.weights:
        if weight.path.endswith("moving_mean"):
            weight.assign(np.random.default_rng(0).normal(0, 0.1, weight.shape))
    card = data / "tiny.json"
    keras_ds2.save_pretrained(model, card)
    return card


@pytest.fixture(scope="module")
def finished(example, data, tiny):
    """A run: its arguments, folder, and the weights after each stage."""
    folder = data / "run"
    argv = [f"--model={tiny}", f"--data={data}", "--train=accents.jsonl"]
    argv += ["--validation=validation.jsonl", "--extend-alphabet", *SHORT]
    stages = []
    train_stage = example.train_stage

    def spy(path, model, *args):
        train_stage(path, model, *args)
        stages.append({w.path: w.numpy() for w in model.weights})

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(example, "train_stage", spy)
        example.main([*argv, f"--output={folder}"])
    return argv, folder, stages


def test_only_the_last_layers_learn_first(finished, tiny):
    _, folder, (head, everything) = finished
    old = keras_ds2.load_pretrained(tiny).with_vocabulary(
        " 'abcdefghijklmnopqrstuvwxyz!é"
    )
    assert keras.models.load_model(folder / "model.keras").alphabet == (
        old.alphabet
    )
    for weight in old.weights:
        is_last = weight.path.split("/")[0] in ("dense", "logits")
        equal = np.array_equal(weight.numpy(), head[weight.path])
        assert equal != is_last, weight.path
        # Then all that training can move; never the features.
        moved = np.any(everything[weight.path] != head[weight.path])
        assert moved != weight.path.startswith("log_mel"), weight.path


def test_of_two_networks_the_second_ones_last_layers_learn_first(
    example, data, tmp_path, monkeypatch
):
    model = keras_ds2.DeepSpeech2(
        **TINY, num_spelling_layers=1, spelling_units=8
    )
    card = tmp_path / "spelling.json"
    keras_ds2.save_pretrained(model, card)
    stages = []

    def record(folder, model, *args):
        stages.append([x.name for x in model.layers if x.trainable_weights])

    monkeypatch.setattr(example, "train_stage", record)
    example.main(
        [f"--model={card}", f"--data={data}", "--train=train.jsonl"]
        + [f"--output={tmp_path}", "--device=cpu"]
    )
    head, everything = stages
    assert head == ["spelling_dense", "logits"]
    assert {"conv_1", "rnn_1", "heard_logits", *head} < set(everything)


def test_precision_is_that_of_the_device(example, data, tiny, monkeypatch):
    visible = ["GPU"]
    monkeypatch.setattr(
        tf.config, "get_visible_devices", lambda kind=None: visible
    )
    monkeypatch.setattr(
        tf.config,
        "set_visible_devices",
        lambda devices, kind: visible.__setitem__(slice(None), devices),
    )
    argv = [f"--model={tiny}", f"--data={data}", "--train=train.jsonl"]
    args = example.parse_arguments([*argv, "--device=cpu"])
    _, model = example.load(args, example.read(args))
    assert visible == []
    assert model.dtype_policy.name == "float32"


def test_goes_on_in_the_stage_where_it_was_killed(
    finished, example, tmp_path, capsys
):
    argv, folder, (_, expected) = finished
    copy = shutil.copytree(folder, tmp_path / "run")
    # As after a kill in the last epoch.
    (copy / "model.keras").unlink()
    [last] = (copy / "all" / "backup").glob("epoch-000002-*")
    last.unlink()
    before, after = example.main([*argv, f"--output={copy}"])
    told = capsys.readouterr().out
    assert "Nothing is left to do after epoch 2." in told
    assert "Goes on after epoch 1: step 1, pass 2." in told
    model = keras.models.load_model(copy / "model.keras")
    for weight in model.weights:
        np.testing.assert_array_equal(weight.numpy(), expected[weight.path])
    assert (copy / "all" / "log.csv").read_bytes() == (
        folder / "all" / "log.csv"
    ).read_bytes()
    assert told.count(f"Before: WER {100 * before.wer:.2f} %") == 2
    assert told.count(f"After:  WER {100 * after.wer:.2f} %") == 1
    assert told.count("  said: ") == 3


def test_another_model_is_another_training(finished, example, tiny, tmp_path):
    argv, folder, _ = finished
    model = keras_ds2.load_pretrained(tiny)
    model.get_layer("dense").bias.assign_add(
        keras.ops.ones_like(model.get_layer("dense").bias)
    )
    card = tmp_path / "other.json"
    keras_ds2.save_pretrained(model, card)
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*.*")}
    with pytest.raises(ValueError, match="\n  initial_weights: "):
        example.main([*argv, f"--model={card}", f"--output={folder}"])
    assert before == {path: path.stat().st_mtime_ns for path in before}


def test_shipped_weights_on_bundled_clips(example, data, tmp_path, capsys):
    card = tmp_path / "mine.json"
    before, after = example.main(
        ["--model=an4", f"--data={data}", "--train=train.jsonl"]
        + ["--head-epochs=0", "--epochs=2", "--device=cpu"]
        + [f"--output={tmp_path / 'run'}", f"--save-pretrained={card}"]
    )
    # Seven clips that it knows, one of them held out.
    assert len(after.utterances) == 1
    assert before.wer == after.wer == 0
    assert "train.jsonl: 6 utterances" in capsys.readouterr().err
    facts = json.loads(card.read_text())
    assert facts["fine_tuned_from"] == "an4"
    assert facts["metrics"] == {"validation_wer": 0.0, "wer_before": 0.0}
    assert keras_ds2.load_pretrained(card).alphabet.startswith(" 'abc")


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--train=accents.jsonl"], "'!é'. Spell .* pass --extend-alphabet"),
        (["--alphabet= abc"], "the alphabet, ' abc': 'defhij.*--alphabet"),
        (["--alphabet=aa", "--extend-alphabet"], "must not repeat"),
        (
            ["--train=validation.jsonl", "--validation=accents.jsonl"]
            + ["--extend-alphabet"],
            "accents.jsonl: .* no training speech has: '!é'",
        ),
        (["--model=an5"], "There is no model 'an5'. Shipped: an4"),
        (["--train=absent.jsonl"], "absent.jsonl' does not exist"),
        (["--train=one.jsonl"], "one.jsonl: .* Received: 0 and 1 utterances"),
        (["--validation=one.jsonl"], "one.jsonl: .* is trained on, too"),
        (["--epochs=4"], "--epochs, here 4, includes --head-epochs, here 3: 2"),
        (["--head-epochs=1"], "--head-epochs, here 1: 2 or more for either"),
        (["--epochs=0"], "--epochs, here 0, includes"),
        (["--alphabet="], "the alphabet, '': "),
        (["--minutes=0"], "--minutes must be more than 0"),
        (["--learning-rate=0"], "--learning-rate must be more than 0"),
        (["--learning-rate=inf"], "--learning-rate must be .* finite"),
        (["--save-pretrained=a"], "--save-pretrained must end in .json"),
        (["--save-pretrained=nowhere/a.json"], "there is no folder 'nowhere'"),
    ],
)
def test_errors_come_before_training(
    flags, message, example, data, tiny, tmp_path, monkeypatch, capsys
):
    monkeypatch.setattr(example, "train_stage", None)
    argv = [f"--model={tiny}", f"--data={data}", "--train=train.jsonl"]
    output = tmp_path / "run"
    with pytest.raises((ValueError, SystemExit)) as stop:
        example.main([*argv, f"--output={output}", *flags])
    told = str(stop.value) + capsys.readouterr().err
    assert re.search(message, told), told
    assert not output.exists()


def test_minutes_are_drawn_and_fewer_are_among_more(example, data):
    def draw(*flags):
        args = example.parse_arguments(
            [f"--data={data}", "--train=train.jsonl", *flags]
        )
        (_, training), (_, validation) = example.read(args)
        return training, validation

    everything, held_out = draw()
    assert len(everything) == 6 and len(held_out) == 1
    assert not set(everything) & set(held_out)
    some, _ = draw("--minutes=0.1")  # the one that crosses the limit, too
    seconds = [row.duration for row in some]
    assert sum(seconds[:-1]) < 6 <= sum(seconds)
    assert set(some) < set(everything)
    assert set(draw("--minutes=0.05")[0]) < set(some)
    training, validation = draw(
        "--train=others.jsonl", "--validation=validation.jsonl"
    )
    assert (len(training), len(validation)) == (4, 3)


def test_fewer_minutes_have_more_passes(
    example, data, tiny, tmp_path, monkeypatch
):
    stages, rates = [], []

    def record(folder, model, data, epochs, rate):
        stages.append((epochs, len(data[0])))
        rates.append(rate)

    monkeypatch.setattr(example, "train_stage", record)
    monkeypatch.setattr(example, "BATCH_SIZE", 2)
    monkeypatch.setattr(example, "STEPS", 100)
    argv = [f"--model={tiny}", f"--data={data}", "--train=train.jsonl"]
    argv += [f"--output={tmp_path}", "--device=cpu"]
    example.main(argv)  # six clips
    assert stages == [(3, 3), (31, 3)]
    stages.clear()
    example.main([*argv, "--head-epochs=20"])
    assert stages == [(20, 3), (14, 3)]
    stages.clear()
    example.main([*argv, "--minutes=0.1"])
    assert stages == [(3, 2), (47, 2)]
    assert set(rates) == {0.001}
    stages.clear()
    example.main([*argv, "--minutes=0.1", "--epochs=9"])
    assert stages == [(3, 2), (6, 2)]
    rates.clear()
    example.main([*argv, "--learning-rate=0.0003"])
    assert rates == [0.0003, 0.0003]


@pytest.fixture
def benchmark():
    return load("benchmarks/finetune_minutes.py")


def run_benchmark(benchmark, data, tiny, folder, *flags):
    argv = [f"--model={tiny}", f"--data={data}", "--train=others.jsonl"]
    argv += ["--validation=validation.jsonl", f"--output={folder}"]
    return benchmark.main([*argv, "--minutes", "0.2", "0.05", *flags])


def test_benchmark_skips_what_is_done_and_draws(
    benchmark, data, tiny, tmp_path, monkeypatch
):
    done, folders = [], set()

    def arm(example, options, folder, name, minutes):
        folders.add(pathlib.Path(folder).parent)
        if len(done) == 3:
            raise KeyboardInterrupt
        done.append((name, minutes))
        return {"exact_minutes": minutes, "wer": 0.5, "cer": 0.3} | (
            {"low": 0.4, "high": 0.7} if minutes else {"low": None, "high": 0}
        )

    monkeypatch.setattr(benchmark, "run_arm", arm)
    with pytest.raises(KeyboardInterrupt):
        run_benchmark(benchmark, data, tiny, tmp_path)
    assert done == [("pretrained", 0), ("finetuned", 0.05), ("scratch", 0.05)]
    done.clear()
    figure = tmp_path / "figure.png"
    rows = run_benchmark(benchmark, data, tiny, tmp_path, f"--plot={figure}")
    assert done == [("finetuned", 0.2), ("scratch", 0.2)]
    assert [row["minutes"] for row in rows] == [0, 0.05, 0.05, 0.2, 0.2]
    assert figure.stat().st_size > 10_000
    # Another recipe is another experiment, and so is another seed.
    done.clear()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(benchmark, "SCRATCH_EPOCHS", 7)
        with pytest.raises(KeyboardInterrupt):
            run_benchmark(benchmark, data, tiny, tmp_path)
    assert len(done) == 3
    done.clear()
    with pytest.raises(KeyboardInterrupt):
        run_benchmark(benchmark, data, tiny, tmp_path, "--seed=1")
    assert len(done) == 3
    # And so are other weights of the same name.
    done.clear()
    monkeypatch.setattr(benchmark, "read_weights", lambda model: "other")
    with pytest.raises(KeyboardInterrupt):
        run_benchmark(benchmark, data, tiny, tmp_path)
    assert len(done) == 3 and len(folders) == 4


def test_from_nothing_there_is_no_second_network(
    benchmark, example, data, monkeypatch
):
    trained = []
    monkeypatch.setattr(
        example,
        "train_stage",
        lambda folder, model, *args, **kwargs: trained.append(model),
    )
    model = keras_ds2.DeepSpeech2(
        **TINY, num_spelling_layers=1, spelling_units=8
    )
    training = keras_ds2.data.prepare_dataset(data, ["train.jsonl"], model, 7)
    fresh = benchmark.train_from_scratch(example, "", model, (training, None))
    assert trained == [fresh]
    spelling = {x.name for x in model.layers if "spelling" in x.name}
    assert spelling and not spelling & {x.name for x in fresh.layers}
    assert fresh.get_layer("rnn_2").units == 8
    # It has features of its own, and random weights.
    assert keras.ops.any(fresh.get_layer("log_mel").weights[0] != 0)
    ours, other = (
        x.get_layer("rnn_1").get_weights()[0] for x in (fresh, model)
    )
    assert not np.array_equal(ours, other)


@pytest.mark.slow
def test_benchmark_trains_both_arms(
    benchmark, example, data, tiny, tmp_path, monkeypatch
):
    for name, value in (("EPOCHS", 4), ("HEAD_EPOCHS", 2), ("BATCH_SIZE", 3)):
        monkeypatch.setattr(example, name, value)
    monkeypatch.setattr(example, "STEPS", 1)
    for name in ("SCRATCH_EPOCHS", "SCRATCH_STEPS"):
        monkeypatch.setattr(benchmark, name, 7)
    monkeypatch.setattr(benchmark, "load_example", lambda: example)
    old = keras_ds2.load_pretrained(tiny).get_layer("rnn_1").get_weights()[0]
    begun_with = {"finetuned": [], "scratch": []}
    train_stage = example.train_stage

    def spy(folder, model, *args, **kwargs):
        arm = re.search("finetuned|scratch", str(folder))[0]
        weights = model.get_layer("rnn_1").get_weights()[0]
        begun_with[arm].append(np.array_equal(weights, old))
        train_stage(folder, model, *args, **kwargs)

    monkeypatch.setattr(example, "train_stage", spy)
    rows = run_benchmark(benchmark, data, tiny, tmp_path)
    assert [row["arm"] for row in rows] == (
        ["pretrained"] + 2 * ["finetuned", "scratch"]
    )
    # Two stages of each, the last layers first; random, and never the card's.
    assert begun_with == {"finetuned": 4 * [True], "scratch": 2 * [False]}
    for few, many in (rows[1:3], rows[3:5]):
        # The same speech for both.
        for name in ("minutes", "exact_minutes", "utterances", "words"):
            assert few[name] == many[name]
    assert rows[1]["exact_minutes"] < rows[3]["exact_minutes"]
    [log] = tmp_path.glob("*/scratch-0.05min/log.csv")
    # 7 passes are 9, in rounds of 3.
    assert len(log.read_text().splitlines()) == 1 + 3
