"""What every layer must do, and how padding is spoiled."""

import inspect
import json
import os
import tempfile

import keras
import numpy as np
import tensorflow as tf

# Another order of summation, for instance of another batch size.
ROUNDING = 1e-5
# The same operations on the same numbers.
SAME = 1e-6

POLICIES = ("mixed_float16", "mixed_bfloat16")
PAD_AMOUNTS = (1, 7, 64, 300)
FINITE_GARBAGE = ("zeros", "noise")
ANY_GARBAGE = (*FINITE_GARBAGE, "nan", "inf")


def check_layer(
    cls,
    init_kwargs,
    inputs,
    expected_output_shape,
    num_trainable_weights=0,
    num_non_trainable_weights=0,
    output_dtype=None,
    fit=True,
):
    """Checks what Keras asks of a layer.

    Args:
        cls: The layer's class.
        init_kwargs: Dictionary. Every value should differ from its default.
        inputs: Tuple of arrays, the call arguments.
        expected_output_shape: Tuple of integers.
        num_trainable_weights: Integer.
        num_non_trainable_weights: Integer.
        output_dtype: String, if the policy does not decide the output's.
        fit: Boolean. Whether a step of training makes sense.
    """
    layer = _check_config(cls, init_kwargs)
    _check_shapes(layer, inputs, expected_output_shape)
    assert len(layer.trainable_weights) == num_trainable_weights
    assert len(layer.non_trainable_weights) == num_non_trainable_weights
    _check_saving(layer, inputs)
    if fit:
        _check_fit(cls(**init_kwargs), inputs)
    for policy in POLICIES:
        layer = cls(dtype=policy, **init_kwargs)
        output = layer(*inputs)
        expected = output_dtype or policy.removeprefix("mixed_")
        assert keras.backend.standardize_dtype(output.dtype) == expected
        assert _symbolic_model(layer, inputs).output.dtype == expected


def _check_config(cls, init_kwargs):
    layer = cls(**init_kwargs)
    parameters = inspect.signature(cls.__init__).parameters.values()
    named = {p.name for p in parameters if p.kind is not p.VAR_KEYWORD}
    if "__init__" in vars(cls):  # what Keras's own leave out is theirs
        assert named - {"self"} <= set(layer.get_config())
    text = json.dumps(keras.saving.serialize_keras_object(layer))
    revived = keras.saving.deserialize_keras_object(json.loads(text))
    assert type(revived) is cls
    assert revived.get_config() == layer.get_config()
    for name, value in init_kwargs.items():
        if isinstance(value, (str, int, float)):
            assert getattr(revived, name) == value
    return revived


def _symbolic_model(layer, inputs, static=False):
    """A functional model of one layer, of unknown or of fixed shapes."""
    symbols = [
        keras.Input(
            batch_shape=x.shape if static else (None, None, *x.shape[2:]),
            dtype=x.dtype.name,
        )
        if x.ndim > 1
        else keras.Input(
            batch_shape=x.shape if static else (None,), dtype=x.dtype.name
        )
        for x in inputs
    ]
    return keras.Model(symbols, layer(*symbols))


def _check_shapes(layer, inputs, expected_output_shape):
    symbolic = _symbolic_model(layer, inputs, static=True).output
    eager = layer(*inputs)
    computed = layer.compute_output_shape(*(x.shape for x in inputs))
    assert tuple(symbolic.shape) == expected_output_shape
    assert tuple(eager.shape) == expected_output_shape
    assert tuple(computed) == expected_output_shape
    dtype = keras.backend.standardize_dtype(eager.dtype)
    assert symbolic.dtype == dtype
    dynamic = _symbolic_model(layer, inputs).output.shape
    assert len(dynamic) == len(expected_output_shape)
    for size, expected in zip(dynamic, expected_output_shape, strict=True):
        assert size in (None, expected)


def _check_saving(layer, inputs):
    model = _symbolic_model(layer, inputs)
    for i, weight in enumerate(layer.weights):  # unlike the initial values
        if "seed" not in weight.path:
            weight.assign(weight + (0.1 * (i + 1)))
    expected = model(list(inputs))
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "model.keras")
        model.save(path)
        outputs = keras.saving.load_model(path)(list(inputs))
    np.testing.assert_array_equal(outputs, expected)


def _check_fit(layer, inputs):
    body = _symbolic_model(layer, inputs)
    head = keras.layers.Dense(1)(body.output)
    model = keras.Model(body.inputs, head)
    model.compile("sgd", "mse", jit_compile=False)
    target = np.zeros((*np.shape(body(list(inputs)))[:-1], 1), "float32")
    before = [np.array(w) for w in layer.trainable_weights]
    history = model.fit(list(inputs), target, batch_size=len(target), verbose=0)
    assert np.isfinite(history.history["loss"][0])
    for old, weight in zip(before, layer.trainable_weights, strict=True):
        assert np.any(old != np.array(weight)), weight.path


def spoil(inputs, length, amount, garbage):
    """Pads the second axis by `amount` and spoils all that is not real."""
    generator = np.random.default_rng(amount)
    widths = [(0, 0)] * inputs.ndim
    widths[1] = (0, amount)
    padded = np.pad(inputs, widths)
    fill = {
        "zeros": np.zeros(padded.shape),
        "noise": 1e3 * generator.normal(size=padded.shape),
        "nan": np.full(padded.shape, np.nan),
        "inf": np.full(padded.shape, np.inf),
    }[garbage]
    real = np.arange(padded.shape[1]) < np.asarray(length)[:, None]
    real = real.reshape(*real.shape, *[1] * (inputs.ndim - 2))
    return np.where(real, padded, fill).astype(inputs.dtype)


def assert_padding_invariant(
    layer,
    inputs,
    length,
    amount,
    garbage,
    output_length=None,
    zero_beyond=True,
    tolerance=ROUNDING,
):
    """In inference every row is as it is alone, whatever the padding holds.

    Args:
        layer: Callable of a padded batch and its lengths.
        inputs: Array of shape `(batch, time, ...)`.
        length: Integer array of shape `(batch,)`.
        amount: Integer. Padding to add.
        garbage: String, what stands in the padding; see `spoil`.
        output_length: Integer array, if the layer changes lengths.
        zero_beyond: Boolean. Whether outputs beyond the end must be 0.
        tolerance: Float, absolute and relative.
    """
    output_length = length if output_length is None else output_length
    batch = np.array(layer(spoil(inputs, length, amount, garbage), length))
    for i, (before, after) in enumerate(
        zip(length, output_length, strict=True)
    ):
        alone = layer(inputs[i : i + 1, :before], length[i : i + 1])
        assert alone.shape[1] == after
        np.testing.assert_allclose(
            batch[i, :after], alone[0], rtol=tolerance, atol=tolerance
        )
        if zero_beyond:
            assert not np.any(batch[i, after:])


def training_state(layer, inputs, length, output_length=None):
    """Loss, gradients and non-trainable weights after a training call.

    The loss is a fixed random weighting of the real output frames. The
    layer's weights are as before afterwards.
    """
    output_length = length if output_length is None else output_length
    weights = layer.get_weights()
    arguments = inspect.signature(layer.call).parameters
    training = {"training": True} if "training" in arguments else {}
    with tf.GradientTape() as tape:
        outputs = layer(inputs, length, **training)
        shape = (len(inputs), max(output_length), *outputs.shape[2:])
        weighting = np.random.default_rng(0).normal(size=shape)
        real = np.arange(shape[1]) < np.asarray(output_length)[:, None]
        weighting *= real.reshape(*real.shape, *[1] * (len(shape) - 2))
        loss = tf.reduce_sum(outputs[:, : shape[1]] * weighting)
    gradients = tape.gradient(loss, layer.trainable_variables)
    state = [loss, *gradients, *layer.non_trainable_variables]
    state = [np.array(value) for value in state]
    layer.set_weights(weights)
    return state


def assert_training_padding_invariant(
    layer, inputs, length, amount, garbage, output_length=None
):
    """Padding changes neither loss, nor gradients, nor moving statistics."""
    layer(inputs, length)  # builds it
    expected = training_state(layer, inputs, length, output_length)
    padded = spoil(inputs, length, amount, garbage)
    actual = training_state(layer, padded, length, output_length)
    for value, reference in zip(actual, expected, strict=True):
        np.testing.assert_allclose(
            value, reference, rtol=ROUNDING, atol=ROUNDING
        )
