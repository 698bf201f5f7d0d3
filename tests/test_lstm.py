"""Oracles: the equations in NumPy, and keras.layers.LSTM itself."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from helpers import FINITE_GARBAGE, PAD_AMOUNTS, check_layer, spoil

import keras_ds2

# Another order of summation.
ROUNDING = 1e-5
# bfloat16 keeps 8 bits: half a unit of the last is 2^-9 of a value, and the
# errors of some tens of steps add up.
BFLOAT16 = 3e-2

LENGTH = np.array([7, 0, 3])


def make_inputs(batch=3, frames=7, features=4):
    generator = np.random.default_rng(0)
    return generator.normal(size=(batch, frames, features)).astype("float32")


def make_mask(length=LENGTH, frames=7):
    return np.arange(frames) < length[:, None]


def make_pair(**kwargs):
    """Our layer and Keras's, with the same random weights."""
    pair = []
    for cls in (keras_ds2.LSTM, keras.layers.LSTM):
        keras.utils.set_random_seed(1)
        layer = cls(5, bias_initializer="random_normal", **kwargs)
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


def test_basics():
    check_layer(
        keras_ds2.LSTM,
        {"units": 5, "return_sequences": True},
        (make_inputs(),),
        (3, 7, 5),
        num_trainable_weights=3,
    )


def test_reference():
    def sigmoid(x):
        return 1 / (1 + np.exp(-x))

    layer, _ = make_pair(return_sequences=True)
    kernel, recurrent_kernel, bias = layer.get_weights()
    inputs = make_inputs(batch=1)
    h = c = np.zeros(5)
    for t in range(7):
        z = inputs[0, t] @ kernel + h @ recurrent_kernel + bias
        i, f, g, o = np.split(z, 4)  # Keras's order of gates
        c = sigmoid(f) * c + sigmoid(i) * np.tanh(g)
        h = sigmoid(o) * np.tanh(c)
        np.testing.assert_allclose(
            layer(inputs)[0, t], h, rtol=ROUNDING, atol=ROUNDING
        )


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
@pytest.mark.parametrize("training", [False, True])
def test_equals_keras_in_value_and_gradient(kwargs, masked, training):
    ours, keras_layer = make_pair(**kwargs)
    assert ours._can_use_fast_loop()
    mask = make_mask() if masked else None
    state = [0.1 * make_inputs(3, 5, 1)[:, :, 0], make_inputs(3, 5, 2)[:, :, 1]]
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


def test_gradient_of_the_initial_state():
    ours, keras_layer = make_pair(return_sequences=True)
    gradients = []
    for layer in (ours, keras_layer):
        state = [tf.constant(make_inputs(3, 5, 1)[:, :, 0])] * 2
        state = [state[0], 2 * state[1]]
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
def test_bidirectional_equals_keras(merge_mode):
    outputs = []
    for cls in (keras_ds2.LSTM, keras.layers.LSTM):
        keras.utils.set_random_seed(1)
        layer = keras.layers.Bidirectional(
            cls(5, return_sequences=True), merge_mode=merge_mode
        )
        outputs.append(layer(make_inputs(), mask=make_mask()))
    real = make_mask()
    np.testing.assert_allclose(
        outputs[0][real], outputs[1][real], rtol=ROUNDING, atol=ROUNDING
    )


@pytest.mark.parametrize("amount", PAD_AMOUNTS)
@pytest.mark.parametrize("garbage", FINITE_GARBAGE)
def test_property_padding_changes_nothing(amount, garbage):
    layer, _ = make_pair(return_sequences=True)

    def state(inputs):
        mask = make_mask(frames=inputs.shape[1])
        with tf.GradientTape() as tape:
            outputs = layer(inputs, mask=mask, training=True)[:, :7]
            loss = tf.reduce_sum(tf.sin(outputs[mask[:, :7]]))
        weights = [weight.value for weight in layer.trainable_variables]
        return [outputs[mask[:, :7]], *tape.gradient(loss, weights)]

    expected = state(make_inputs())
    spoiled = state(spoil(make_inputs(), LENGTH, amount, garbage))
    for actual, reference in zip(spoiled, expected, strict=True):
        np.testing.assert_allclose(
            actual, reference, rtol=ROUNDING, atol=ROUNDING
        )


def test_bfloat16_stays_close_to_float32():
    layers = []
    for dtype in ("float32", "mixed_bfloat16"):
        keras.utils.set_random_seed(1)
        layers.append(keras_ds2.LSTM(16, return_sequences=True, dtype=dtype))
    inputs = make_inputs(frames=60)
    mask = make_mask(np.array([60, 20, 1]), frames=60)
    results = [outputs_and_gradients(x, inputs, mask) for x in layers]
    for exact, rounded in zip(*results, strict=True):
        assert np.abs(rounded - exact).max() < BFLOAT16 * np.abs(exact).max()


def test_weights_interchange_with_keras(tmp_path):
    def model(cls):
        inputs = keras.Input((None, 4))
        layer = cls(5, return_sequences=True, name="rnn")
        return keras.Model(inputs, layer(inputs))

    for source, target in (
        (keras_ds2.LSTM, keras.layers.LSTM),
        (keras.layers.LSTM, keras_ds2.LSTM),
    ):
        first, second = model(source), model(target)
        paths = [weight.path for weight in first.weights]
        assert [weight.path for weight in second.weights] == paths
        first.save_weights(tmp_path / "a.weights.h5")
        second.load_weights(tmp_path / "a.weights.h5")
        np.testing.assert_allclose(
            second(make_inputs()), first(make_inputs()), atol=ROUNDING
        )


@pytest.mark.parametrize(
    "kwargs",
    [
        {"dropout": 0.5},
        {"recurrent_dropout": 0.5},
        {"use_bias": False},
        {"activation": "relu"},
        {"recurrent_activation": "hard_sigmoid"},
        {"zero_output_for_mask": True},
    ],
    ids=str,
)
def test_leaves_to_keras_what_it_cannot_do(kwargs):
    ours, keras_layer = (
        cls(5, return_sequences=True, **kwargs)
        for cls in (keras_ds2.LSTM, keras.layers.LSTM)
    )
    assert not ours._can_use_fast_loop()
    ours.build((None, None, 4))
    keras_layer.build((None, None, 4))
    keras_layer.set_weights(ours.get_weights())
    np.testing.assert_array_equal(
        ours(make_inputs(), mask=make_mask()),
        keras_layer(make_inputs(), mask=make_mask()),
    )


def test_leaves_a_gpu_to_keras(monkeypatch):
    layer, _ = make_pair()
    monkeypatch.setattr(
        tf.config, "get_visible_devices", lambda kind: [f"a {kind}"]
    )
    assert not layer._can_use_fast_loop()
