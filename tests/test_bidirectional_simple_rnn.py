"""Oracles: the paper's equation in NumPy, and two layers of Keras that are
given the same input weights."""

import helpers
import keras
import numpy as np
import pytest
import tensorflow as tf

import keras_ds2
from keras_ds2 import BidirectionalSimpleRNN, lengths

# bfloat16 keeps 8 bits, and the errors of some tens of steps add up.
BFLOAT16 = 3e-2
LENGTH = np.array([7, 0, 3])
ACTIVATIONS = {"simple": keras_ds2.clipped_relu, "tanh": "tanh"}
every_activation = pytest.mark.parametrize(
    "activation", ACTIVATIONS.values(), ids=ACTIVATIONS
)


def make_inputs(batch=3, frames=7, features=4):
    generator = np.random.default_rng(0)
    return generator.normal(size=(batch, frames, features)).astype("float32")


def make_mask(length=LENGTH, frames=7):
    return np.arange(frames) < length[:, None]


def make_layer(**kwargs):
    """A layer whose every weight matters."""
    keras.utils.set_random_seed(1)
    layer = BidirectionalSimpleRNN(
        5, bias_initializer="random_normal", **kwargs
    )
    layer.build((None, None, 4))
    return layer


def weights_of(layer):
    kernel, forward, bias = layer.cell.get_weights()
    return kernel, bias, forward, np.array(layer.backward_recurrent_kernel)


def reference(weights, inputs, length, activation=lambda x: np.clip(x, 0, 20)):
    kernel, bias, *recurrent_kernels = weights
    outputs = np.zeros((*inputs.shape[:2], len(bias)))
    for row, n in enumerate(length):
        for order, recurrent_kernel in zip(
            (range(n), reversed(range(n))), recurrent_kernels, strict=True
        ):
            h = np.zeros(len(bias))
            for t in order:
                h = activation(
                    inputs[row, t] @ kernel + h @ recurrent_kernel + bias
                )
                outputs[row, t] += h
    return outputs


def two_keras_layers(layer, activation):
    """Both directions as layers of Keras, with equal kernels and biases."""
    kernel, bias, *recurrent_kernels = weights_of(layer)
    layers = []
    for go_backwards, recurrent_kernel in zip(
        (False, True), recurrent_kernels, strict=True
    ):
        keras_layer = keras.layers.SimpleRNN(
            5,
            activation=activation,
            return_sequences=True,
            go_backwards=go_backwards,
            zero_output_for_mask=True,
        )
        keras_layer.build((None, None, 4))
        keras_layer.set_weights([kernel, recurrent_kernel, bias])
        layers.append(keras_layer)
    return layers


def test_basics():
    helpers.check_layer(
        BidirectionalSimpleRNN,
        {
            "units": 5,
            "activation": keras.activations.tanh,
            "kernel_initializer": keras.initializers.HeNormal(seed=1),
            "recurrent_regularizer": keras.regularizers.L2(0.1),
        },
        (make_inputs(),),
        (3, 7, 5),
        num_trainable_weights=4,
    )


def test_both_directions_are_regularized_and_constrained():
    layer = make_layer(
        recurrent_regularizer=keras.regularizers.L2(0.1),
        recurrent_constraint=keras.constraints.MaxNorm(0.5),
    )
    forward, backward = weights_of(layer)[2:]
    expected = [0.1 * np.sum(x**2) for x in (forward, backward)]
    np.testing.assert_allclose(
        sorted(layer.losses), sorted(expected), rtol=1e-5
    )
    for variable in (
        layer.cell.recurrent_kernel,
        layer.backward_recurrent_kernel,
    ):
        assert variable.constraint is layer.recurrent_constraint


def test_basics_with_normalization():
    helpers.check_layer(
        BidirectionalSimpleRNN,
        {"units": 5, "normalize_projection": True},
        (make_inputs(),),
        (3, 7, 5),
        num_trainable_weights=5,
        num_non_trainable_weights=2,
    )


def test_default_activation_survives_saving():
    layer = make_layer()
    assert layer.activation is keras_ds2.clipped_relu
    copy = type(layer).from_config(layer.get_config())
    assert copy.activation is keras_ds2.clipped_relu


def test_equation():
    layer = make_layer()
    outputs = layer(make_inputs(), mask=make_mask())
    np.testing.assert_allclose(
        outputs,
        reference(weights_of(layer), make_inputs(), LENGTH),
        rtol=helpers.ROUNDING,
        atol=helpers.ROUNDING,
    )
    # Without a mask all frames are real.
    np.testing.assert_allclose(
        layer(make_inputs()),
        reference(weights_of(layer), make_inputs(), [7] * 3),
        rtol=helpers.ROUNDING,
        atol=helpers.ROUNDING,
    )


@every_activation
@pytest.mark.parametrize("scale", [1.0, 30.0])
def test_gradients_are_the_sums_of_two_keras_layers(activation, scale):
    ours = make_layer(activation=activation)
    layers = two_keras_layers(ours, activation)
    inputs, mask = tf.constant(scale * make_inputs()), make_mask()
    results = []
    for step in (
        lambda: ours(inputs, mask=mask),
        lambda: (
            layers[0](inputs, mask=mask) + layers[1](inputs, mask=mask)[:, ::-1]
        ),
    ):
        with tf.GradientTape(persistent=True) as tape:
            tape.watch(inputs)
            outputs = step()
            loss = tf.reduce_sum(tf.sin(outputs))
        results.append((outputs, tape, loss))
    (outputs, tape, loss), (expected, keras_tape, keras_loss) = results

    def keras_gradient(weight_of):
        weights = [weight_of(layer.cell).value for layer in layers]
        return keras_tape.gradient(keras_loss, weights)

    pairs = [
        (outputs, expected),
        *(
            (tape.gradient(loss, ours_weight.value), sum(theirs))
            for ours_weight, theirs in (
                (ours.cell.kernel, keras_gradient(lambda c: c.kernel)),
                (ours.cell.bias, keras_gradient(lambda c: c.bias)),
            )
        ),
        *zip(
            tape.gradient(
                loss,
                [
                    ours.cell.recurrent_kernel.value,
                    ours.backward_recurrent_kernel.value,
                ],
            ),
            keras_gradient(lambda c: c.recurrent_kernel),
            strict=True,
        ),
        (tape.gradient(loss, inputs), keras_tape.gradient(keras_loss, inputs)),
    ]
    for actual, keras_value in pairs:
        assert np.any(actual)
        # Of numbers up to 400 where states are clipped.
        np.testing.assert_allclose(
            actual, keras_value, rtol=1e-4, atol=helpers.ROUNDING * scale**2
        )


def test_clamps_each_direction_at_20():
    layer = BidirectionalSimpleRNN(
        2, kernel_initializer="ones", recurrent_initializer="identity"
    )
    # The sum of past and present inputs, and the sum of present and future
    # ones, each no more than 20.
    inputs = np.array([[[9.0], [8], [7], [-50], [6]]])
    expected = [9 + 20, 17 + 15, 20 + 7, 0 + 0, 6 + 6]
    outputs = np.array(layer(inputs))
    np.testing.assert_array_equal(outputs[0, :, 0], expected)
    np.testing.assert_array_equal(outputs[0, :, 1], expected)


def test_directions_begin_with_different_weights():
    forward, backward = weights_of(make_layer())[2:]
    assert np.abs(forward - backward).max() > 0.1
    seeded = make_layer(
        recurrent_initializer=keras.initializers.Orthogonal(seed=3)
    )
    forward, backward = weights_of(seeded)[2:]
    assert np.abs(forward - backward).max() > 0.1
    given = make_layer(
        recurrent_initializer=lambda shape, dtype: tf.eye(*shape)
    )
    np.testing.assert_array_equal(weights_of(given)[3], np.eye(5))


class TakesLengths(keras.layers.Layer):
    """The layer with lengths for a mask."""

    def __init__(self, layer):
        super().__init__()
        self.layer = layer

    def call(self, inputs, num_frames, training=False):
        mask = lengths.sequence_mask(num_frames, inputs.shape[1])
        return self.layer(inputs, mask=mask, training=training)


@pytest.mark.parametrize("amount", [1, 20])
@pytest.mark.parametrize("garbage", ["noise", "nan"])
@pytest.mark.parametrize("normalize_projection", [False, True])
def test_padding_changes_nothing(normalize_projection, garbage, amount):
    layer = BidirectionalSimpleRNN(5, normalize_projection=normalize_projection)
    arguments = (TakesLengths(layer), make_inputs(), np.array([7, 1, 3]))
    helpers.assert_padding_invariant(*arguments, amount, garbage)
    helpers.assert_training_padding_invariant(*arguments, amount, garbage)


@every_activation
@pytest.mark.parametrize("policy", helpers.POLICIES)
def test_sixteen_bits_stay_close_to_float32(policy, activation):
    inputs = make_inputs(frames=60)
    mask = make_mask(np.array([60, 20, 1]), frames=60)
    results = []
    for dtype in ("float32", policy):
        layer = make_layer(dtype=dtype, activation=activation)
        assert all(weight.dtype == "float32" for weight in layer.weights)
        with tf.GradientTape() as tape:
            outputs = layer(inputs, mask=mask, training=True)
            loss = tf.reduce_sum(tf.cast(outputs, "float32") ** 2)
        weights = [weight.value for weight in layer.trainable_weights]
        results.append([outputs, *tape.gradient(loss, weights)])
    for exact, rounded in zip(*results, strict=True):
        exact, rounded = np.array(exact), np.array(tf.cast(rounded, "float32"))
        assert np.abs(rounded - exact).max() < BFLOAT16 * np.abs(exact).max()


@pytest.mark.parametrize("shape", [(0, 7, 4), (2, 1, 4)])
def test_small_batches(shape):
    layer = make_layer()
    inputs = tf.zeros(shape)
    with tf.GradientTape() as tape:
        tape.watch(inputs)
        outputs = layer(inputs)
        loss = tf.reduce_sum(outputs)
    assert outputs.shape == (*shape[:2], 5)
    assert tape.gradient(loss, inputs).shape == shape


def test_no_loop_of_keras_on_a_gpu(monkeypatch):
    layer = make_layer()
    expected = layer(make_inputs(), mask=make_mask())
    monkeypatch.setattr(
        tf.config, "get_visible_devices", lambda kind: [f"a {kind}"]
    )
    np.testing.assert_array_equal(
        layer(make_inputs(), mask=make_mask()), expected
    )


@pytest.mark.parametrize(
    "kwargs, message",
    [
        ({"return_sequences": False}, "`return_sequences` cannot be chosen"),
        ({"stateful": True}, "`stateful` cannot be chosen.*stateful=True"),
        ({"go_backwards": True}, "`go_backwards` cannot be chosen"),
        ({"activation": "relu"}, "must be 'clipped_relu' or.*'relu'"),
        ({"dropout": 0.5}, "without dropout inside.*'dropout': 0.5"),
        ({"use_bias": False}, "with `use_bias`.*'use_bias': False"),
        ({"dtype": "float64"}, "not in float64"),
    ],
)
def test_invalid_options(kwargs, message):
    with pytest.raises(ValueError, match=message):
        BidirectionalSimpleRNN(5, **kwargs)
