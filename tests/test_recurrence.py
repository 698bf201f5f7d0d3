"""Oracles: the equations in NumPy, and the layers of Keras themselves."""

import itertools

import keras
import numpy as np
import pytest
import tensorflow as tf
from helpers import (
    FINITE_GARBAGE,
    PAD_AMOUNTS,
    POLICIES,
    assert_padding_invariant,
    assert_training_padding_invariant,
    check_layer,
)

import keras_ds2
from keras_ds2 import lengths

# Another order of summation.
ROUNDING = 1e-5
# bfloat16 keeps 8 bits: half a unit of the last is 2^-9 of a value, and the
# errors of some tens of steps add up.
BFLOAT16 = 3e-2

LENGTH = np.array([7, 0, 3])

PAIRS = {
    "lstm": (keras_ds2.LSTM, keras.layers.LSTM, {}),
    "gru": (keras_ds2.GRU, keras.layers.GRU, {}),
    "tanh": (keras_ds2.SimpleRNN, keras.layers.SimpleRNN, {}),
    "simple": (
        keras_ds2.SimpleRNN,
        keras.layers.SimpleRNN,
        {"activation": keras_ds2.clipped_relu},
    ),
}
NUM_STATES = {"lstm": 2, "gru": 1, "tanh": 1, "simple": 1}
every_type = pytest.mark.parametrize("rnn_type", PAIRS)


def make_inputs(batch=3, frames=7, features=4):
    generator = np.random.default_rng(0)
    return generator.normal(size=(batch, frames, features)).astype("float32")


def make_mask(length=LENGTH, frames=7):
    return np.arange(frames) < length[:, None]


def make_pair(rnn_type="lstm", units=5, **kwargs):
    """Our layer and Keras's, with the same random weights."""
    *classes, options = PAIRS[rnn_type]
    pair = []
    for cls in classes:
        keras.utils.set_random_seed(1)
        layer = cls(
            units, bias_initializer="random_normal", **options, **kwargs
        )
        layer.build((None, None, 4))
        pair.append(layer)
    return pair


def outputs_and_gradients(layer, inputs, mask, training=True, **kwargs):
    inputs = tf.constant(inputs)
    with tf.GradientTape() as tape:
        tape.watch(inputs)
        outputs = layer(inputs, mask=mask, training=training, **kwargs)
        # Every output counts, each with its own weight.
        loss = sum(
            tf.reduce_sum(tf.sin(tf.cast(output, tf.float32) + i))
            for i, output in enumerate(tf.nest.flatten(outputs))
        )
    weights = [weight.value for weight in layer.trainable_variables]
    gradients = tape.gradient(loss, [inputs, *weights])
    return [np.array(tf.cast(x, tf.float32)) for x in (
        *tf.nest.flatten(outputs), *gradients
    )]  # fmt: skip


@every_type
@pytest.mark.parametrize("normalize_projection", [False, True])
def test_basics(rnn_type, normalize_projection):
    cls, _, options = PAIRS[rnn_type]
    kwargs = {"normalize_projection": True} if normalize_projection else {}
    check_layer(
        cls,
        {"units": 5, "return_sequences": True, **options, **kwargs},
        (make_inputs(),),
        (3, 7, 5),
        num_trainable_weights=3 + normalize_projection,
        num_non_trainable_weights=2 * normalize_projection,
    )


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def reference(rnn_type, weights, inputs, length, normalize=None):
    """All real outputs, frame after frame, as the papers write them.

    `normalize` is applied to the projections of all real frames at once.
    """
    kernel, recurrent_kernel, bias = weights
    rows = [row[:n] @ kernel for row, n in zip(inputs, length, strict=True)]
    if normalize:
        normalized = normalize(np.concatenate(rows))
        rows = np.split(normalized, np.cumsum(length)[:-1])
    outputs = []
    for row in rows:
        h = c = np.zeros(len(recurrent_kernel))
        for x in row:
            y = h @ recurrent_kernel
            if rnn_type == "lstm":
                i, f, g, o = np.split(x + y + bias, 4)  # Keras's order
                c = sigmoid(f) * c + sigmoid(i) * np.tanh(g)
                h = sigmoid(o) * np.tanh(c)
            elif rnn_type == "gru":
                xz, xr, xh = np.split(x + bias[0], 3)
                yz, yr, yh = np.split(y + bias[1], 3)
                z = sigmoid(xz + yz)
                h = z * h + (1 - z) * np.tanh(xh + sigmoid(xr + yr) * yh)
            elif rnn_type == "tanh":
                h = np.tanh(x + y + bias)
            else:
                h = np.clip(x + y + bias, 0, 20)
            outputs.append(h)
    return np.array(outputs)


@every_type
def test_reference(rnn_type):
    layer, _ = make_pair(rnn_type, return_sequences=True)
    inputs, mask = make_inputs(), make_mask()
    np.testing.assert_allclose(
        layer(inputs, mask=mask)[mask],
        reference(rnn_type, layer.get_weights(), inputs, LENGTH),
        rtol=ROUNDING,
        atol=ROUNDING,
    )


@pytest.mark.parametrize("normalize_projection", [False, True])
@every_type
def test_a_batch_without_rows(rnn_type, normalize_projection):
    cls, _, options = PAIRS[rnn_type]
    layer = cls(
        5,
        return_sequences=True,
        normalize_projection=normalize_projection,
        **options,
    )
    inputs, mask = make_inputs(batch=0), make_mask(np.zeros(0, "int32"))
    assert layer(inputs, mask=mask).shape == (0, 7, 5)
    outputs, *gradients = outputs_and_gradients(
        layer, inputs, mask, training=False
    )
    assert outputs.shape == (0, 7, 5)
    assert not any(np.any(gradient) for gradient in gradients)


def test_clipping_stops_the_gradient():
    # Inputs that push states to 0, to the clip, and in between.
    ours, keras_layer = make_pair("simple", return_sequences=True)
    results = [
        outputs_and_gradients(layer, 30 * make_inputs(), make_mask())
        for layer in (ours, keras_layer)
    ]
    outputs = results[0][0]
    assert (outputs == 20).any() and ((outputs > 0) & (outputs < 20)).any()
    for actual, expected in zip(*results, strict=True):
        np.testing.assert_allclose(actual, expected, rtol=1e-4, atol=1e-3)


@pytest.mark.parametrize(
    "kwargs",
    [
        {},
        {"return_sequences": True},
        {"return_sequences": True, "return_state": True},
        {"return_sequences": True, "go_backwards": True},
        {"return_state": True, "go_backwards": True},
    ],
    ids=lambda kwargs: "+".join(kwargs) or "last",
)
@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize(
    # The loop does not know: there is no dropout in it.
    "training",
    [pytest.param(False, marks=pytest.mark.slow), True],
)
@every_type
def test_equals_keras_in_value_and_gradient(rnn_type, kwargs, masked, training):
    ours, keras_layer = make_pair(rnn_type, **kwargs)
    assert ours._uses_loop()
    mask = make_mask() if masked else None
    state = [0.1 * make_inputs(3, 5, 1)[:, :, 0], make_inputs(3, 5, 2)[:, :, 1]]
    state = state[: NUM_STATES[rnn_type]]
    for initial_state in (None, state):
        call = {"training": training}
        if initial_state:
            call["initial_state"] = initial_state
        for actual, expected in zip(
            outputs_and_gradients(ours, make_inputs(), mask, **call),
            outputs_and_gradients(keras_layer, make_inputs(), mask, **call),
            strict=True,
        ):
            np.testing.assert_allclose(
                actual, expected, rtol=ROUNDING, atol=ROUNDING
            )


@every_type
def test_gradient_of_the_initial_state(rnn_type):
    ours, keras_layer = make_pair(rnn_type, return_sequences=True)
    gradients = []
    for layer in (ours, keras_layer):
        state = tf.constant(make_inputs(3, 5, 1)[:, :, 0])
        state = [state, 2 * state][: NUM_STATES[rnn_type]]
        with tf.GradientTape() as tape:
            tape.watch(state)
            outputs = layer(
                make_inputs(),
                mask=make_mask(),
                initial_state=state,
                training=True,
            )
            loss = tf.reduce_sum(outputs * tf.range(5, dtype=tf.float32))
        gradients.append(tape.gradient(loss, state))
    for actual, expected in zip(*gradients, strict=True):
        np.testing.assert_allclose(
            actual, expected, rtol=ROUNDING, atol=ROUNDING
        )


@pytest.mark.parametrize("merge_mode", ["sum", "concat"])
@every_type
def test_bidirectional_equals_keras(rnn_type, merge_mode):
    outputs = []
    *classes, options = PAIRS[rnn_type]
    for cls in classes:
        keras.utils.set_random_seed(1)
        layer = keras.layers.Bidirectional(
            cls(5, return_sequences=True, **options), merge_mode=merge_mode
        )
        outputs.append(layer(make_inputs(), mask=make_mask()))
        if cls is classes[0]:
            assert layer.forward_layer._uses_loop()
            assert layer.backward_layer._uses_loop()
    np.testing.assert_allclose(*outputs, rtol=ROUNDING, atol=ROUNDING)


# A loop is as long as its input; twice as much padding is no other code.
FEW_PADDINGS = [(1, "zeros"), (7, "noise")]


class TakesLengths(keras.layers.Layer):
    """The layer with lengths for a mask, and zeros beyond them."""

    def __init__(self, layer):
        super().__init__()
        self.layer = layer

    def call(self, inputs, num_frames, training=False):
        mask = lengths.sequence_mask(num_frames, inputs.shape[1])
        outputs = self.layer(inputs, mask=mask, training=training)
        return lengths.zero_padding(outputs, num_frames)


@pytest.mark.parametrize(
    "amount, garbage",
    [
        pytest.param(
            *pair, marks=() if pair in FEW_PADDINGS else pytest.mark.slow
        )
        for pair in itertools.product(PAD_AMOUNTS, FINITE_GARBAGE)
    ],
)
@pytest.mark.parametrize("normalize_projection", [False, True])
@every_type
def test_padding_changes_nothing(
    rnn_type, normalize_projection, amount, garbage
):
    cls, _, options = PAIRS[rnn_type]
    layer = cls(
        5,
        return_sequences=True,
        normalize_projection=normalize_projection,
        **options,
    )
    arguments = (TakesLengths(layer), make_inputs(), np.array([7, 1, 3]))
    assert_padding_invariant(*arguments, amount, garbage)
    assert_training_padding_invariant(*arguments, amount, garbage)


@pytest.mark.parametrize("normalize_projection", [False, True])
@every_type
def test_bfloat16_stays_close_to_float32(rnn_type, normalize_projection):
    cls, _, options = PAIRS[rnn_type]
    layers = []
    for dtype in ("float32", "mixed_bfloat16"):
        keras.utils.set_random_seed(1)
        layers.append(
            cls(
                16,
                return_sequences=True,
                normalize_projection=normalize_projection,
                dtype=dtype,
                **options,
            )
        )
    inputs = make_inputs(frames=60)
    mask = make_mask(np.array([60, 20, 1]), frames=60)
    results = [outputs_and_gradients(x, inputs, mask) for x in layers]
    for exact, rounded in zip(*results, strict=True):
        assert np.abs(rounded - exact).max() < BFLOAT16 * np.abs(exact).max()


@every_type
def test_weights_interchange_with_keras(rnn_type, tmp_path):
    ours, theirs, options = PAIRS[rnn_type]

    def model(cls):
        inputs = keras.Input((None, 4))
        layer = cls(5, return_sequences=True, name="rnn", **options)
        return keras.Model(inputs, layer(inputs))

    for source, target in ((ours, theirs), (theirs, ours)):
        first, second = model(source), model(target)
        paths = [weight.path for weight in first.weights]
        assert [weight.path for weight in second.weights] == paths
        first.save_weights(tmp_path / "a.weights.h5")
        second.load_weights(tmp_path / "a.weights.h5")
        np.testing.assert_allclose(
            second(make_inputs()), first(make_inputs()), atol=ROUNDING
        )


UNSUPPORTED = [
    *(
        (rnn_type, kwargs)
        for rnn_type in ("lstm", "gru", "tanh")
        for kwargs in (
            {"dropout": 0.5},
            {"recurrent_dropout": 0.5},
            {"use_bias": False},
            {"activation": "relu"},
        )
    ),
    ("lstm", {"recurrent_activation": "hard_sigmoid"}),
    ("gru", {"recurrent_activation": "hard_sigmoid"}),
    ("gru", {"reset_after": False}),
]


@pytest.mark.parametrize("rnn_type, kwargs", UNSUPPORTED, ids=str)
def test_leaves_to_keras_what_it_cannot_do(rnn_type, kwargs):
    *classes, _ = PAIRS[rnn_type]
    ours, keras_layer = (
        cls(5, return_sequences=True, **kwargs) for cls in classes
    )
    assert not ours._uses_loop()
    ours.build((None, None, 4))
    keras_layer.build((None, None, 4))
    keras_layer.set_weights(ours.get_weights())
    np.testing.assert_array_equal(
        ours(make_inputs(), mask=make_mask()),
        keras_layer(make_inputs(), mask=make_mask()),
    )
    with pytest.raises(ValueError, match="needs the layer's own loop"):
        classes[0](5, normalize_projection=True, **kwargs)


def test_leaves_a_gpu_to_keras(monkeypatch):
    layer, _ = make_pair()
    normalized = keras_ds2.LSTM(5, normalize_projection=True)
    monkeypatch.setattr(
        tf.config, "get_visible_devices", lambda kind: [f"a {kind}"]
    )
    assert not layer._uses_loop()
    assert normalized._uses_loop()


# === Normalized projection ===


def make_normalized(rnn_type, **kwargs):
    """A layer with weights that are nothing special."""
    cls, _, options = PAIRS[rnn_type]
    keras.utils.set_random_seed(1)
    layer = cls(
        5,
        return_sequences=True,
        normalize_projection=True,
        bias_initializer="random_normal",
        **options,
        **kwargs,
    )
    layer.build((None, None, 4))
    generator = np.random.default_rng(3)
    for weight in layer.projection_norm.weights:
        weight.assign(generator.uniform(0.5, 2, weight.shape))
    return layer


def norm_and_rnn_weights(layer):
    gamma, mean, variance = layer.projection_norm.get_weights()
    return (gamma, mean, variance), layer.cell.get_weights()


@pytest.mark.parametrize("training", [False, True])
@every_type
def test_normalization_equals_the_papers_equation(rnn_type, training):
    layer = make_normalized(rnn_type)
    (gamma, mean, variance), weights = norm_and_rnn_weights(layer)
    statistics = []

    def normalize(projections):
        m, v = mean, variance
        if training:
            m, v = projections.mean(axis=0), projections.var(axis=0)
            statistics.extend((m, v))
        return gamma * (projections - m) / np.sqrt(v + 1e-3)

    inputs, mask = make_inputs(), make_mask()
    np.testing.assert_allclose(
        layer(inputs, mask=mask, training=training)[mask],
        reference(rnn_type, weights, inputs, LENGTH, normalize),
        rtol=1e-4,
        atol=ROUNDING,
    )
    new_mean, new_variance = layer.projection_norm.get_weights()[1:]
    if training:
        mean = 0.95 * mean + 0.05 * statistics[0]
        variance = 0.95 * variance + 0.05 * statistics[1]
    np.testing.assert_allclose(new_mean, mean, rtol=1e-4)
    np.testing.assert_allclose(new_variance, variance, rtol=1e-4)


@every_type
def test_both_directions_normalize(rnn_type):
    forward = make_normalized(rnn_type)
    layer = keras.layers.Bidirectional(forward, merge_mode="concat")
    layer.build((None, None, 4))
    layer.forward_layer.set_weights(forward.get_weights())
    layer.backward_layer.set_weights(forward.get_weights())
    (gamma, mean, variance), weights = norm_and_rnn_weights(forward)

    def normalize(projections):
        return gamma * (projections - mean) / np.sqrt(variance + 1e-3)

    inputs, mask = make_inputs(), make_mask()
    reversed_inputs = inputs.copy()
    for row, n in zip(reversed_inputs, LENGTH, strict=True):
        row[:n] = row[:n][::-1]
    backward = reference(rnn_type, weights, reversed_inputs, LENGTH, normalize)
    backward = [x[::-1] for x in np.split(backward, np.cumsum(LENGTH)[:-1])]
    expected = np.concatenate(
        [
            reference(rnn_type, weights, inputs, LENGTH, normalize),
            np.concatenate(backward),
        ],
        axis=1,
    )
    np.testing.assert_allclose(
        layer(inputs, mask=mask)[mask], expected, rtol=1e-4, atol=ROUNDING
    )


@pytest.mark.parametrize("policy", POLICIES)
@every_type
def test_normalization_trains_in_sixteen_bits(rnn_type, policy):
    layer = make_normalized(rnn_type, dtype=policy)
    outputs, *gradients = outputs_and_gradients(
        layer, make_inputs(), make_mask()
    )
    assert all(weight.dtype == "float32" for weight in layer.weights)
    assert all(np.all(np.isfinite(x)) for x in (outputs, *gradients))
    assert all(np.any(gradient) for gradient in gradients)
