"""Oracles: the state before the step, Keras's own step, counting by hand."""

import gc

import keras
import numpy as np
import pytest
import tensorflow as tf

import keras_ds2
from keras_ds2.data import SpeechDataset
from keras_ds2.training.state import read_state, write_state

PATIENCE = 3


@pytest.fixture(scope="module")
def rows(pytestconfig):
    clips = pytestconfig.rootpath / "tests" / "data" / "LibriSpeech"
    rows = keras_ds2.data.read_librispeech(clips, "train-clips")
    return keras_ds2.data.add_durations(rows)[0]


def make(optimizer=None, dtype="float32", **kwargs):
    keras.utils.set_random_seed(1)
    model = keras_ds2.DeepSpeech2(
        conv_filters=(2,),
        conv_kernel_sizes=((5, 9),),
        conv_strides=((4, 4),),
        num_rnn_layers=1,
        rnn_units=4,
        dense_units=4,
        normalize=False,
        dtype=dtype,
        **kwargs,
    )
    optimizer = optimizer or keras.optimizers.Adam(
        keras_ds2.WarmupSchedule(warmup_steps=8), global_clipnorm=5.0
    )
    model.compile(optimizer)
    return model


@pytest.fixture(scope="module")
def remake():
    """As `make`, but what is compiled (in seconds) is so for all tests."""
    made = {}

    def remake(dtype="float32"):
        if dtype not in made:
            model = make(dtype=dtype)
            made[dtype] = model, read_state(model)
        model, state = made[dtype]
        write_state(model, state)
        return model

    return remake


def state_of(model):
    """Weights, moving statistics and the optimizer's variables."""
    variables = [*model.weights, *model.optimizer.variables]
    return [np.array(variable) for variable in variables]


def assert_same(actual, expected):
    for one, two in zip(actual, expected, strict=True):
        np.testing.assert_array_equal(one, two)


def spoil(x, y):
    return {**x, "audio": x["audio"] * np.nan}, y


def test_step_equals_keras_own(rows, remake, monkeypatch):
    batches = SpeechDataset(rows, 3).one_pass()
    ours = remake()
    history = ours.fit(batches, epochs=2, verbose=0).history
    monkeypatch.delattr(keras_ds2.models.ctc_model.CTCModel, "train_step")
    kerass = make()
    traces = []
    compute_loss = kerass.compute_loss
    monkeypatch.setattr(
        kerass,
        "compute_loss",
        lambda *args, **kwargs: (
            traces.append(args) or compute_loss(*args, **kwargs)
        ),
    )
    expected = kerass.fit(batches, epochs=2, verbose=0).history
    assert_same(state_of(ours), state_of(kerass))
    # A second one would double what is longest in a short training.
    assert len(traces) == 1
    for name in ("loss", "wer", "cer", "blank_ratio", "infeasible"):
        assert history[name] == expected[name]
    # Keras does not know these.
    assert expected["gradient_norm"] == [0, 0] != history["gradient_norm"]


@pytest.mark.parametrize(
    "make_strategy",
    [
        tf.distribute.MirroredStrategy,
        pytest.param(tf.distribute.OneDeviceStrategy, marks=pytest.mark.slow),
    ],
)
def test_a_strategy_of_one_device_changes_nothing(make_strategy, rows, remake):
    device = "CPU:0"
    if make_strategy is tf.distribute.MirroredStrategy:
        device = [device]
    with make_strategy(device).scope():
        other = make()
    results = []
    for model in (remake(), other):
        batches = SpeechDataset(rows, 3).one_pass()
        model.fit(batches, verbose=0)
        # These are not finite, and change nothing.
        model.fit(batches.map(spoil), verbose=0)
        results.append(state_of(model))
    for one, two in zip(*results, strict=True):
        np.testing.assert_allclose(one, two, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    "run_eagerly", [False, pytest.param(True, marks=pytest.mark.slow)]
)
def test_step_that_is_not_finite_changes_nothing(run_eagerly, rows, remake):
    model = make() if run_eagerly else remake()
    model.run_eagerly = run_eagerly
    batches = SpeechDataset(rows, 3).one_pass()
    model.fit(batches, verbose=0)
    before = state_of(model)
    history = model.fit(batches.map(spoil), verbose=0).history
    assert history["skipped"] == [2]
    assert_same(state_of(model), before)
    assert np.isfinite(history["loss"][0])
    # And training goes on; one bad batch does not spoil the epoch's mean.
    mixed = batches.concatenate(batches.take(1).map(spoil))
    history = model.fit(mixed, verbose=0).history
    assert history["skipped"] == [1]
    assert 50 < history["loss"][0] < 1000
    assert history["gradient_norm"][0] > 0
    assert not np.array_equal(state_of(model)[0], before[0])


def test_gradient_that_is_not_finite_is_skipped(rows, monkeypatch):
    model = make()
    model.run_eagerly = True
    model.optimizer.build(model.trainable_weights)
    before = state_of(model)

    @tf.custom_gradient
    def harmless_looking(x):
        return x, lambda d: d * np.inf

    compute_loss = model.compute_loss
    monkeypatch.setattr(
        model,
        "compute_loss",
        lambda *args, **kwargs: harmless_looking(compute_loss(*args, **kwargs)),
    )
    batch = SpeechDataset(rows[:2], 2).one_pass()
    assert model.fit(batch, verbose=0).history["skipped"] == [1]
    assert_same(state_of(model), before)


def test_float16_lowers_its_scale_and_keeps_the_rest(rows, remake):
    model = remake("mixed_float16")
    assert isinstance(model.optimizer, keras.optimizers.LossScaleOptimizer)
    batches = SpeechDataset(rows, 3).one_pass()
    history = model.fit(batches, verbose=0).history
    scale = float(model.optimizer.dynamic_scale)
    weights = model.get_weights()
    history = model.fit(batches.map(spoil), verbose=0).history
    assert history["skipped"] == [2]
    assert float(model.optimizer.dynamic_scale) == scale / 4
    assert_same(model.get_weights(), weights)


def test_float16_skips_a_loss_that_is_not_finite(rows, monkeypatch):
    model = make(dtype="mixed_float16")
    model.run_eagerly = True
    before = model.get_weights()
    compute_loss = model.compute_loss
    monkeypatch.setattr(
        model,
        "compute_loss",
        lambda *args, **kwargs: compute_loss(*args, **kwargs) + np.inf,
    )
    batch = SpeechDataset(rows[:2], 2).one_pass()
    assert model.fit(batch, verbose=0).history["skipped"] == [1]
    assert_same(model.get_weights(), before)


def test_fit_takes_what_keras_takes(rows, remake):
    model = remake()
    dataset = SpeechDataset(rows, 3)
    seen = []
    spy = keras.callbacks.LambdaCallback(
        on_epoch_end=lambda epoch, logs: seen.append(set(logs))
    )
    monitor = keras_ds2.TrainingMonitor(dataset)
    # x, y, batch_size, epochs, verbose, callbacks, by place
    model.fit(
        dataset.stream(), None, None, 1, 0, [spy, monitor], steps_per_epoch=1
    )
    assert seen[0] >= {"pass", "learning_rate", "speech_per_second", "skipped"}
    model.fit(dataset.one_pass(), verbose=0, callbacks=spy)
    values = model.evaluate(dataset.one_pass(), verbose=0)
    named = model.evaluate(dataset.one_pass(), verbose=0, return_dict=True)
    assert len(values) == len(named) == 5
    assert "skipped" not in named


def test_gradient_norm_is_the_unclipped_and_unscaled(rows):
    norms = []
    for dtype in ("float32", "mixed_float16"):
        optimizer = keras.optimizers.SGD(0.0, global_clipnorm=1e-3)
        model = make(optimizer, dtype=dtype, dropout=0.0)
        model.run_eagerly = True
        model.optimizer.build(model.trainable_weights)
        if dtype == "mixed_float16":
            model.optimizer.dynamic_scale.assign(8.0)
        [(x, y)] = SpeechDataset(rows[:2], 2).one_pass()
        norms.append(
            model.train_on_batch(x, y, return_dict=True)["gradient_norm"]
        )
        if dtype == "float32":
            with tf.GradientTape() as tape:
                loss = model.compute_loss(x, y, model(x, training=True))
            gradients = tape.gradient(
                loss, [weight.value for weight in model.trainable_weights]
            )
            expected = np.sqrt(sum(np.sum(np.square(g)) for g in gradients))
    assert norms[0] == pytest.approx(expected, rel=1e-4)
    assert norms[1] == pytest.approx(expected, rel=2e-2)  # 11 bits


def test_blank_ratio_counts_real_frames():
    model = make()
    logits = np.zeros((2, 4, 31), "float32")
    logits[0, :3, 0] = 1  # three of three real frames
    logits[1, 0, 0] = logits[1, 1:, 5] = 1  # one of two
    y = {
        "labels": np.array([[2], [3]], "int32"),
        "label_length": np.array([1, 1], "int32"),
    }
    y_pred = {"logits": logits, "logit_length": np.array([3, 2])}
    logs = model.compute_metrics(None, y, y_pred)
    assert float(logs["blank_ratio"]) == pytest.approx(4 / 5)


@pytest.mark.parametrize("run_eagerly", [False, True])
def test_no_iterator_outlives_a_fit_that_failed(run_eagerly, rows, remake):
    model = make() if run_eagerly else remake()
    model.run_eagerly = run_eagerly
    rows = [rows[0], rows[0]._replace(audio="absent.wav")]
    dataset = SpeechDataset(rows, 1)
    kind = type(iter(dataset.one_pass()))
    gc.collect()
    # `isinstance` would look through weak proxies, also through dead ones.
    before = [item for item in gc.get_objects() if type(item) is kind]
    with pytest.raises(tf.errors.OpError, match="absent.wav") as error:
        model.fit(dataset.stream(), steps_per_epoch=2, verbose=0)
    alive = [item for item in gc.get_objects() if type(item) is kind]
    assert error.tb and len(alive) == len(before)


# === Monitor ===


def test_monitor_stops_a_training_that_is_lost(rows, remake, capsys):
    model = remake()
    dataset = SpeechDataset(rows, 2)
    monitor = keras_ds2.TrainingMonitor(dataset, patience=PATIENCE)
    before = state_of(model)
    with pytest.raises(RuntimeError, match="3 steps in a row .*Lower the lea"):
        model.fit(
            dataset.stream().map(spoil),
            steps_per_epoch=2,  # the row goes on in the next epoch
            epochs=9,
            verbose=0,
            callbacks=[monitor],
        )
    assert_same(state_of(model), before)
    printed = capsys.readouterr().out
    for step in range(PATIENCE):
        assert f"Step {step}: loss or gradient is not finite" in printed
        for row in dataset.batch_at(step):
            assert row.audio in printed


def test_monitor_forgives_single_steps(rows, remake, capsys):
    model = remake()
    dataset = SpeechDataset(rows, 2)
    model.fit(
        # Every second batch.
        dataset.stream()
        .enumerate()
        .map(
            lambda i, batch: tf.cond(
                i % 2 == 0, lambda: spoil(*batch), lambda: batch
            )
        ),
        steps_per_epoch=8,
        verbose=0,
        callbacks=[keras_ds2.TrainingMonitor(dataset, patience=2)],
    )
    assert capsys.readouterr().out.count("the step is skipped") == 4


def test_monitor_does_not_show_a_loss_that_was_not(rows, remake):
    model = remake()
    dataset = SpeechDataset(rows, 2)
    history = model.fit(
        dataset.stream().map(spoil),
        steps_per_epoch=2,
        verbose=0,
        callbacks=[keras_ds2.TrainingMonitor(dataset)],
    ).history
    assert np.isnan(history["loss"])


def test_monitor_needs_steps(rows):
    model = make()
    dataset = SpeechDataset(rows, 2)
    monitor = keras_ds2.TrainingMonitor(dataset)
    data = dataset.one_pass().filter(lambda x, y: True)  # of unknown length
    with pytest.raises(ValueError, match="needs .*steps_per_epoch"):
        model.fit(data, verbose=0, callbacks=[monitor])
    model.steps_per_execution = 2
    with pytest.raises(ValueError, match="`steps_per_execution=1`"):
        model.fit(
            dataset.stream(), steps_per_epoch=2, verbose=0, callbacks=[monitor]
        )


def test_monitor_does_not_cry_at_usual_overflows(rows, remake, capsys):
    model = remake("mixed_float16")
    dataset = SpeechDataset(rows, 2)
    model.fit(
        dataset.stream().map(spoil),
        steps_per_epoch=3,
        verbose=0,
        callbacks=[keras_ds2.TrainingMonitor(dataset)],
    )
    assert "Utterances" not in capsys.readouterr().out


def test_monitor_adds_to_the_logs(rows, remake):
    model = remake()
    dataset = SpeechDataset(rows, 2)
    seen = []

    class Spy(keras.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            seen.append(logs)

    history = model.fit(
        dataset.stream(),
        steps_per_epoch=2,
        epochs=2,
        verbose=0,
        callbacks=[keras_ds2.TrainingMonitor(dataset), Spy()],
    ).history
    assert history["pass"] == [pytest.approx(2 / 3), pytest.approx(4 / 3)]
    assert [logs["pass"] for logs in seen] == pytest.approx(
        [1 / 3, 2 / 3, 1, 4 / 3]
    )
    schedule = keras_ds2.WarmupSchedule(warmup_steps=8)
    rates = [logs["learning_rate"] for logs in seen]
    assert rates == pytest.approx([float(schedule(i)) for i in (1, 2, 3, 4)])
    assert min(history["speech_per_second"]) > 0


# === Dry run ===


def test_dry_run_takes_its_step_back(rows, remake, monkeypatch):
    model = remake()
    dataset = SpeechDataset(rows, 4)
    variables = [*model.variables, *model.optimizer.variables]
    before = [np.array(variable) for variable in variables]
    lengths = []
    fit = model.fit

    def spy(data, **kwargs):
        lengths.extend(x["audio"].shape for x, _ in data)
        return fit(data, **kwargs)

    monkeypatch.setattr(model, "fit", spy)
    said = keras_ds2.dry_run(model, dataset)
    # Four of 3.6 s are more than two of 5.5 s.
    assert lengths == [(4, 59600)]
    assert "(4 utterances of up to 3.7 s) fits" in said
    assert_same([np.array(variable) for variable in variables], before)
    # The same compiled function: no second one for the stream.
    function = model.train_function
    fit(dataset.stream(), steps_per_epoch=1, verbose=0)
    assert model.train_function is function


def test_dry_run_tells_what_does_not_fit(rows, monkeypatch):
    model = make()

    def fit(*args, **kwargs):
        raise tf.errors.ResourceExhaustedError(None, None, "OOM")

    monkeypatch.setattr(model, "fit", fit)
    with pytest.raises(MemoryError, match="6 utterances of up to 5.5 s.*Lower"):
        keras_ds2.dry_run(model, SpeechDataset(rows, 6))
