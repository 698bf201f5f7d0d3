"""Oracle: a matrix product in NumPy, with some columns given away."""

import helpers
import keras
import numpy as np
import pytest

from keras_ds2 import SymbolLogits


@pytest.fixture
def frames():
    return np.random.default_rng(0).normal(size=(3, 4, 5)).astype("float32")


def test_basics(frames):
    helpers.check_layer(
        SymbolLogits,
        {"units": 7, "num_reserved": 3, "use_bias": True},
        (frames,),
        (3, 4, 7),
        num_trainable_weights=2,
        output_dtype="float32",
    )


@pytest.mark.parametrize("num_reserved", [0, 1, 2])
def test_dense_but_for_the_reserved(frames, num_reserved):
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


def test_float32_inside(frames):
    layer = SymbolLogits(4, dtype="mixed_float16")
    # Between 1 and 1 + 2**-12 float16 knows no number.
    fine = np.full((1, 1, 1), 1 + 2.0**-12, "float32")
    layer.build(fine.shape)
    layer.set_weights([np.ones((1, 4)), np.zeros(4)])
    assert layer(fine)[0, 0, 0] == fine[0, 0, 0]


@pytest.mark.parametrize("num_reserved", [-1, 4, 5])
def test_one_symbol_is_left(num_reserved):
    with pytest.raises(ValueError, match=f"num_reserved={num_reserved}"):
        SymbolLogits(4, num_reserved)
