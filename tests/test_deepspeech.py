"""Oracles: the paper's sizes, its equations in NumPy, the utterance alone as
the truth of the utterance in company, and real speech."""

import inspect
import pathlib

import keras
import numpy as np
import pytest
from models import (
    assert_company_and_padding_change_no_logit,
    assert_loss_scaling,
    assert_padding_changes_nothing_in_training,
    assert_trains_and_round_trips,
    labels_of,
    padded,
    scramble,
)

import keras_ds2

DATA = pathlib.Path(__file__).parent / "data"
SMALL = {"context": 2, "dense_units": 16, "rnn_units": 16, "dropout": 0.0}
RNN_TYPES = ("simple", "lstm", "gru")


def small_model(**kwargs):
    """A model whose every weight matters, seeded."""
    keras.utils.set_random_seed(0)
    return scramble(keras_ds2.DeepSpeech(**{**SMALL, **kwargs}))


@pytest.fixture(scope="module")
def clips():
    """Three pieces of real speech, of 1 s, 0.7 s and 0.6 s."""
    files = sorted(DATA.glob("LibriSpeech/*/*/*/*.opus"))
    return [
        keras_ds2.load_audio(file)[8000 : 8000 + num_samples]
        for file, num_samples in zip(files, (16000, 11111, 9000), strict=False)
    ]


# === Configuration ===


def test_defaults_are_the_papers():
    parameters = inspect.signature(keras_ds2.DeepSpeech).parameters
    defaults = {name: row.default for name, row in parameters.items()}
    second = inspect.signature(keras_ds2.DeepSpeech2).parameters
    features = list(defaults)[:10]
    assert features == list(second)[:10]
    for name in (*features, "alphabet", "dtype"):
        assert defaults.pop(name) == second[name].default
    assert defaults == {
        "context": 9,
        "stride": 2,
        "dense_units": 2048,
        "rnn_type": "simple",
        "rnn_units": 2048,
        "dropout": 0.05,
        "name": "deep_speech",
    }


def test_papers_size_and_graph():
    model = keras_ds2.DeepSpeech()
    n = 2048
    counts = {
        "log_mel": 2 * 80 + 1,  # mean, variance, count
        "dense_1": (2 * 9 + 1) * 80 * n + n,
        "dense_2": n * n + n,
        "dense_3": n * n + n,
        # W once, a recurrent matrix for each direction, b once.
        "rnn_4": n * n + 2 * n * n + n,
        "dense_5": n * n + n,
        "logits": n * 31 + 31,
    }
    weighted = [layer for layer in model.layers if layer.weights]
    assert {layer.name: layer.count_params() for layer in weighted} == counts
    assert [layer.name for layer in weighted] == list(counts)
    assert model.count_params() == sum(counts.values()) == 28_352_704
    for name in ("dense_1", "dense_2", "dense_3", "rnn_4", "dense_5"):
        initializer = model.get_layer(name).kernel_initializer
        assert isinstance(initializer, keras.initializers.HeNormal), name
    # Dropout follows the first three dense layers and nothing else.
    dropped = {x.name: x.rate for x in model.layers if "dropout" in x.name}
    assert dropped == {f"dense_{i}_dropout": 0.05 for i in (1, 2, 3)}


@pytest.mark.parametrize(
    "dtype", ["float32", "mixed_bfloat16", "mixed_float16"]
)
def test_outputs_and_compute_dtypes(dtype, clips):
    model = small_model(dtype=dtype)
    outputs = model(padded(clips))
    # 16000 samples: 1 + (16000 - 400) // 160 = 98 frames, halved once.
    assert outputs["logits"].shape == (3, 49, 31)
    assert outputs["logits"].dtype == "float32"
    assert outputs["logit_length"].numpy().tolist() == [49, 34, 27]
    assert model.dtype_policy.name == dtype
    for name in ("context", "dense_1", "rnn_4", "dense_5"):
        layer = model.get_layer(name)
        assert layer.compute_dtype == dtype.removeprefix("mixed_")
    assert all(w.dtype in ("float32", "int32") for w in model.weights)
    assert_loss_scaling(model)


@pytest.mark.parametrize("context, stride", [(0, 1), (5, 2), (7, 3)])
def test_logit_length_method_is_the_graphs(context, stride):
    model = small_model(context=context, stride=stride)
    grid = np.array([0, 399, 400, 559, 560, 720, 880, 4000, 15999])
    frames = np.array([0, 0, 1, 1, 2, 3, 4, 23, 98])
    expected = (-(-frames // stride)).tolist()
    outputs = model(
        {"audio": np.zeros((len(grid), 16000)), "audio_length": grid}
    )
    assert outputs["logit_length"].numpy().tolist() == expected
    assert model.logit_length(grid).tolist() == expected


def test_equations(clips):
    model = small_model(context=3, stride=2)
    model.adapt([padded(clips)])
    weights = {layer.name: layer.get_weights() for layer in model.layers}

    def relu(x):
        return np.clip(x, 0, 20)

    def dense(x, name):
        kernel, bias = weights[name]
        return x @ kernel + bias

    for samples in clips:
        frames = np.array(model.get_layer("log_mel")(samples[None]))[0]
        around = np.pad(frames, [(3, 3), (0, 0)])
        x = np.array(
            [around[t : t + 7].reshape(-1) for t in range(0, len(frames), 2)]
        )
        for name in ("dense_1", "dense_2", "dense_3"):
            x = relu(dense(x, name))
        backward, kernel, forward, bias = weights["rnn_4"]
        total = np.zeros((len(x), 16))
        for order, recurrent in ((1, forward), (-1, backward)):
            h = np.zeros(16)
            for t in range(len(x))[::order]:
                h = relu(x[t] @ kernel + bias + h @ recurrent)
                total[t] += h
        expected = dense(relu(dense(total, "dense_5")), "logits")
        logits = model(padded([samples]))["logits"][0]
        np.testing.assert_allclose(
            logits[:, :29], expected[:, :29], rtol=1e-4, atol=1e-4
        )


def test_every_activation_is_clamped_at_20(clips):
    model = small_model()
    for weight in model.weights:
        if "kernel" in weight.path and "logits" not in weight.path:
            weight.assign(100 * weight)
    names = ("dense_1", "dense_2", "dense_3", "rnn_4", "dense_5")
    parts = keras.Model(
        model.inputs, [model.get_layer(name).output for name in names]
    )
    limits = (20, 20, 20, 40, 20)  # of the sum of two directions
    for name, output, limit in zip(
        names, parts(padded(clips)), limits, strict=True
    ):
        assert np.min(output) == 0, name
        assert np.max(output) == limit, name


# === Options ===


@pytest.mark.parametrize("rnn_type", RNN_TYPES)
@pytest.mark.parametrize(
    "context, stride",
    [
        (5, 2),
        pytest.param(0, 1, marks=pytest.mark.slow),
        pytest.param(0, 3, marks=pytest.mark.slow),
        pytest.param(7, 1, marks=pytest.mark.slow),
        pytest.param(9, 2, marks=pytest.mark.slow),
    ],
)
def test_options_train_and_round_trip(rnn_type, context, stride, clips):
    options = {"rnn_type": rnn_type, "context": context, "stride": stride}
    assert_trains_and_round_trips(small_model(**options), options, clips)


@pytest.mark.parametrize(
    "options",
    [
        {"spec_augment": True, "alphabet": "abcdefghijklmnopqrstuvwxyzé -'"},
        {"normalize": False, "num_mel_bins": 40, "context": 0, "stride": 1},
    ],
    ids=str,
)
def test_other_options(options, clips):
    assert_trains_and_round_trips(small_model(**options), options, clips)


@pytest.mark.parametrize(
    "options, message",
    [
        ({"rnn_type": "rnn"}, "`rnn_type` must be one of .*rnn_type='rnn'"),
        ({"context": -1}, "Received: context=-1"),
        ({"stride": 0}, "Received: context=2, stride=0"),
    ],
)
def test_invalid_options(options, message):
    with pytest.raises(ValueError, match=message):
        small_model(**options)


# === Invariance ===

# Measured on a CPU with logits up to 7.4: 2.4e-6 in float32, 0.06 in bfloat16
# (two of its units), 0 in float16, left the unit roundoff.
TOLERANCES = {"float32": 1e-5, "mixed_bfloat16": 0.1, "mixed_float16": 1e-2}


@pytest.mark.parametrize(
    "dtype, rnn_type",
    [
        ("float32", "simple"),
        ("mixed_bfloat16", "simple"),
        ("mixed_float16", "simple"),
        pytest.param("float32", "lstm", marks=pytest.mark.slow),
        pytest.param("float32", "gru", marks=pytest.mark.slow),
        pytest.param("mixed_bfloat16", "lstm", marks=pytest.mark.slow),
    ],
)
def test_company_and_padding_change_no_logit(dtype, rnn_type, clips):
    model = small_model(dtype=dtype, rnn_type=rnn_type)
    assert_company_and_padding_change_no_logit(model, clips, TOLERANCES[dtype])


@pytest.mark.parametrize(
    "rnn_type",
    [
        "simple",
        pytest.param("lstm", marks=pytest.mark.slow),
        pytest.param("gru", marks=pytest.mark.slow),
    ],
)
def test_padding_changes_nothing_in_training(rnn_type, clips):
    model = small_model(rnn_type=rnn_type)
    assert_padding_changes_nothing_in_training(model, clips)


def test_looks_both_ways(clips):
    model = small_model()
    changed = clips[0].copy()
    changed[160 * 50 : 160 * 50 + 80] += 0.1
    before, after = (
        model(padded([samples]))["logits"][0, :, :29].numpy()
        for samples in (clips[0], changed)
    )
    moved = np.abs(after - before).max(axis=-1) > 0
    # Mel frames 48 to 50 hold it, and 2 more on each side see them: output
    # frames 23 to 26. What goes further is the recurrent layer's, each way.
    assert np.all(moved[18:23]) and np.all(moved[27:32])


def test_no_state_between_batches(clips):
    model = small_model()
    first, second = padded(clips[:1]), padded(clips[1:])
    expected = [model.predict_on_batch(x)["logits"] for x in (first, second)]
    for _ in range(2):  # the same again, in the other order
        for batch, logits in zip((second, first), expected[::-1], strict=True):
            np.testing.assert_array_equal(
                model.predict_on_batch(batch)["logits"], logits
            )


def test_last_partial_batch_is_nothing_special(clips):
    model = small_model(normalize=False)
    inputs = padded([clip[: len(clip) // 3] for clip in clips])
    targets = labels_of(["a b", "c", "it's"])
    whole = model.predict(inputs, batch_size=3, verbose=0)
    parts = model.predict(inputs, batch_size=2, verbose=0)
    np.testing.assert_allclose(
        parts["logits"], whole["logits"], rtol=0, atol=5e-6
    )
    model.compile(keras.optimizers.SGD(0.0), run_eagerly=True)
    losses = [
        model.evaluate(inputs, targets, batch_size=n, verbose=0)[0]
        for n in (3, 2)
    ]
    assert losses[1] == pytest.approx(losses[0], rel=1e-5)
    logs = model.fit(inputs, targets, batch_size=2, verbose=0).history
    assert logs["loss"] == [pytest.approx(losses[0], rel=1e-5)]
    assert logs["skipped"] == [0]


# === Training ===


def test_begins_in_range(clips):
    """What the initializers are chosen for; see `models/deepspeech.py`."""
    model = keras_ds2.DeepSpeech(rnn_units=1024, dense_units=1024)
    inputs = padded(clips)
    model.adapt([inputs])
    names = ("dense_1", "dense_2", "dense_3", "rnn_4", "dense_5")
    parts = keras.Model(
        model.inputs,
        [
            *(model.get_layer(name).output for name in names),
            model.output["logit_length"],
        ],
    )
    *outputs, length = parts(inputs)
    real = np.arange(49) < np.array(length)[:, None]
    sizes = [np.sqrt(np.mean(np.square(x[real]))) for x in outputs]
    clipped = [np.mean(np.array(x)[real] >= 20) for x in outputs]
    assert 0.7 < min(sizes) and max(sizes) < 4
    assert max(clipped) < 1e-3


def test_learns_two_clips_by_heart():
    rows = keras_ds2.data.read_librispeech(DATA, ["train-clips", "dev-clips"])
    clips = {row.text: keras_ds2.load_audio(row.audio) for row in rows}
    texts = sorted(clips, key=lambda text: len(clips[text]))[:2]
    clips = [clips[text] for text in texts]
    inputs, targets = padded(clips), labels_of(texts)
    keras.utils.set_random_seed(0)
    model = keras_ds2.DeepSpeech(
        context=5, dense_units=64, rnn_units=64, dropout=0.0
    )
    model.adapt([inputs])
    model.compile(keras.optimizers.Adam(3e-3, global_clipnorm=400.0))
    history = model.fit(inputs, targets, batch_size=2, epochs=32, verbose=0)
    loss = history.history["loss"]
    assert loss[-1] < 0.05 * loss[0]
    assert model.transcribe(clips) == texts
    assert model.transcribe(clips[::-1], batch_size=1) == texts[::-1]
