"""Oracles for the small layers: their one-line definitions in NumPy."""

import helpers
import keras
import numpy as np
import pytest

from keras_ds2 import OutputLength, SequenceMask, SymbolLogits, clipped_relu

NUM_FRAMES = np.array([4, 0, 1], "int32")


@pytest.fixture
def frames():
    return np.random.default_rng(0).normal(size=(3, 4, 5)).astype("float32")


# === SymbolLogits ===


def test_symbol_logits_basics(frames):
    helpers.check_layer(
        SymbolLogits,
        {"units": 7, "num_reserved": 3, "use_bias": True},
        (frames,),
        (3, 4, 7),
        num_trainable_weights=2,
        output_dtype="float32",
    )


@pytest.mark.parametrize("num_reserved", [0, 1, 2])
def test_symbol_logits_are_dense_but_for_the_reserved(frames, num_reserved):
    layer = SymbolLogits(6, num_reserved)
    layer.build(frames.shape)
    kernel, bias = (
        np.random.default_rng(1).normal(size=w.shape) for w in layer.weights
    )
    layer.set_weights([kernel, bias])
    logits = np.array(layer(frames))
    emitted = 6 - num_reserved
    np.testing.assert_allclose(
        logits[..., :emitted],
        (frames @ kernel + bias)[..., :emitted],
        atol=helpers.ROUNDING,
    )
    probability = np.array(keras.ops.softmax(logits))
    assert not np.any(probability[..., emitted:])
    assert np.all(np.isfinite(logits.astype("float16")))


def test_symbol_logits_is_float32_inside(frames):
    layer = SymbolLogits(4, dtype="mixed_float16")
    # Between 1 and 1 + 2**-12 float16 knows no number.
    fine = np.full((1, 1, 1), 1 + 2.0**-12, "float32")
    layer.build(fine.shape)
    layer.set_weights([np.ones((1, 4)), np.zeros(4)])
    assert layer(fine)[0, 0, 0] == fine[0, 0, 0]


@pytest.mark.parametrize("num_reserved", [-1, 4, 5])
def test_symbol_logits_leaves_a_symbol(num_reserved):
    with pytest.raises(ValueError, match=f"num_reserved={num_reserved}"):
        SymbolLogits(4, num_reserved)


# === SequenceMask and OutputLength ===


def test_sequence_mask_basics(frames):
    helpers.check_layer(
        SequenceMask,
        {},
        (frames, NUM_FRAMES),
        (3, 4),
        output_dtype="bool",
        fit=False,
    )


def test_sequence_mask_marks_real_frames(frames):
    expected = [[n > t for t in range(4)] for n in NUM_FRAMES]
    mask = np.array(SequenceMask()(frames, NUM_FRAMES))
    assert mask.tolist() == expected


def test_sequence_mask_steers_a_recurrent_layer(frames):
    inputs = keras.Input((None, 5))
    num_frames = keras.Input((), dtype="int32")
    mask = SequenceMask()(inputs, num_frames)
    outputs = keras.layers.LSTM(2)(inputs, mask=mask)
    model = keras.Model([inputs, num_frames], outputs)
    last = model([frames, NUM_FRAMES])
    np.testing.assert_allclose(
        last[2], model([frames[2:, :1], NUM_FRAMES[2:]])[0], atol=helpers.SAME
    )
    assert not np.any(last[1])


def test_output_length_basics():
    helpers.check_layer(
        OutputLength,
        {"window": 3, "stride": 2, "padding": 1},
        (NUM_FRAMES,),
        (3,),
        output_dtype="int32",
        fit=False,
    )


def test_output_length_counts():
    length = np.array([0, 10, 11, 13], "int64")
    # Windows of 3 in 1 + n items, every second one.
    expected = [0, 5, 5, 6]
    outputs = OutputLength(3, 2, padding=1)(length)
    assert keras.backend.standardize_dtype(outputs.dtype) == "int32"
    assert np.array(outputs).tolist() == expected
    assert OutputLength(3, 2, padding=1).compute_length(13) == 6


# === clipped_relu ===


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32"])
def test_clipped_relu(dtype):
    inputs = keras.ops.cast([-25.0, -0.5, 0.0, 7.5, 20.0, 20.5, 1e4], dtype)
    outputs = clipped_relu(inputs)
    assert outputs.dtype == inputs.dtype
    expected = [0, 0, 0, 7.5, 20, 20, 20]
    assert np.array(keras.ops.cast(outputs, "float32")).tolist() == expected


def test_clipped_relu_is_saved_by_name():
    config = keras.saving.serialize_keras_object(clipped_relu)
    assert keras.saving.deserialize_keras_object(config) is clipped_relu
    layer = keras.layers.Activation(clipped_relu)
    revived = keras.layers.Activation.from_config(layer.get_config())
    assert revived.activation is clipped_relu
