"""Oracle: the formula in plain Python."""

import math

import keras
import numpy as np
import pytest

from keras_ds2 import WarmupSchedule

# Float32 powers and roots.
TOLERANCE = 1e-6


def reference(step, dim=256, warmup_steps=10_000, scale=1.0):
    down = 1 / math.sqrt(step) if step else math.inf
    return scale / math.sqrt(dim) * min(down, step / warmup_steps**1.5)


@pytest.mark.parametrize(
    "arguments",
    [
        {},
        {"dim": 512, "warmup_steps": 4000},
        {"dim": 1, "warmup_steps": 1, "scale": 0.01},
    ],
)
def test_formula(arguments):
    schedule = WarmupSchedule(**arguments)
    for step in [*range(5), 999, 4000, 9999, 10_000, 10_001, 10**5, 2**31 - 1]:
        expected = reference(step, **arguments)
        assert float(schedule(step)) == pytest.approx(expected, rel=TOLERANCE)


def test_peak():
    schedule = WarmupSchedule(dim=256, warmup_steps=100)
    rates = [float(schedule(step)) for step in range(300)]
    assert np.argmax(rates) == 100
    assert rates[100] == pytest.approx(1 / 160, rel=TOLERANCE)
    assert np.all(np.diff(rates[:101]) > 0)
    assert np.all(np.diff(rates[100:]) < 0)


def test_default_peak():
    peak = float(WarmupSchedule()(10_000))
    assert peak == pytest.approx(6.25e-4, rel=TOLERANCE)


def test_step_0_is_0():
    assert float(WarmupSchedule()(0)) == 0
    assert float(WarmupSchedule()(np.int64(0))) == 0


def test_max_lr_is_a_ceiling():
    schedule = WarmupSchedule(warmup_steps=100, max_lr=3e-3)
    rates = np.array([float(schedule(step)) for step in range(1000)])
    expected = [min(reference(s, 256, 100), 3e-3) for s in range(1000)]
    np.testing.assert_allclose(rates, expected, rtol=TOLERANCE)
    assert rates[-1] < 3e-3


def test_config():
    arguments = {"dim": 8, "warmup_steps": 3, "scale": 0.5, "max_lr": 0.1}
    config = keras.saving.serialize_keras_object(WarmupSchedule(**arguments))
    revived = keras.saving.deserialize_keras_object(config)
    assert isinstance(revived, WarmupSchedule)
    assert revived.get_config() == arguments


def test_adam_follows_it():
    """Adam's first steps on a constant gradient are the learning rate."""
    schedule = WarmupSchedule(dim=1, warmup_steps=3, scale=0.1)
    inputs = keras.Input((1,))
    outputs = keras.layers.Dense(1, use_bias=False)(inputs)
    model = keras.Model(inputs, outputs)
    # The loss is the output itself, so that its gradient never changes.
    model.compile(keras.optimizers.Adam(schedule, epsilon=1e-9), lambda y, p: p)
    [weight] = model.weights
    start = float(weight[0, 0])
    model.fit(np.ones((5, 1)), np.ones((5, 1)), batch_size=1, verbose=0)
    # Keras counts the first step as 0.
    descent = sum(reference(step, 1, 3, 0.1) for step in range(5))
    assert start - float(weight[0, 0]) == pytest.approx(descent, rel=1e-4)
    assert float(model.optimizer.learning_rate) == pytest.approx(
        reference(5, 1, 3, 0.1), rel=TOLERANCE
    )


def test_an_optimizer_is_saved_with_it():
    optimizer = keras.optimizers.Adam(WarmupSchedule(dim=8, warmup_steps=3))
    config = keras.saving.serialize_keras_object(optimizer)
    revived = keras.saving.deserialize_keras_object(config)
    revived.iterations.assign(5)
    assert float(revived.learning_rate) == pytest.approx(
        reference(5, 8, 3), rel=TOLERANCE
    )


@pytest.mark.parametrize("name", ["dim", "warmup_steps", "scale", "max_lr"])
@pytest.mark.parametrize("value", [0, -1])
def test_invalid_arguments(name, value):
    with pytest.raises(ValueError, match=f"{name}={value}"):
        WarmupSchedule(**{name: value})
