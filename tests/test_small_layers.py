"""Oracles for the small layers: their one-line definitions in NumPy."""

import helpers
import keras
import numpy as np
import pytest

from keras_ds2 import OutputLength, SequenceMask, SplitFrames, clipped_relu
from keras_ds2.layers.log_probabilities import log_probabilities

NUM_FRAMES = np.array([4, 0, 1], "int32")


@pytest.fixture
def frames():
    return np.random.default_rng(0).normal(size=(3, 4, 5)).astype("float32")


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
        {"window": 3, "stride": 2, "padding": 1, "factor": 3},
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
    assert OutputLength(3, 2, padding=1, factor=3).compute_length(13) == 18
    outputs = OutputLength(1, 1, factor=2)(length)
    assert np.array(outputs).tolist() == [0, 20, 22, 26]


# === SplitFrames ===


def test_split_frames_basics(frames):
    helpers.check_layer(SplitFrames, {"factor": 5}, (frames,), (3, 20, 1))


def test_split_frames_undoes_what_a_context_window_joins(frames):
    pairs = np.concatenate([frames[:, 0::2], frames[:, 1::2]], axis=-1)
    np.testing.assert_array_equal(SplitFrames(2)(pairs), frames)


def test_split_frames_splits_a_mask(frames):
    masked = keras.layers.Masking()(frames * [[[1], [1], [1], [0]]])
    mask = SplitFrames(5)(masked)._keras_mask
    assert np.array(mask).tolist() == [[True] * 15 + [False] * 5] * 3


@pytest.mark.parametrize("factor", [0, -2, 1.5])
def test_split_frames_refuses_what_is_no_factor(factor):
    with pytest.raises(ValueError, match="`factor` must be an integer from 1"):
        SplitFrames(factor)


def test_split_frames_refuses_parts_that_are_not_equal(frames):
    with pytest.raises(ValueError, match="must divide the features.*factor=3"):
        SplitFrames(3)(frames)


# === clipped_relu ===


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32"])
def test_clipped_relu(dtype):
    inputs = keras.ops.cast([-25.0, -0.5, 0.0, 0.0625, 7.5, 20.5, 1e4], dtype)
    outputs = clipped_relu(inputs)
    assert outputs.dtype == inputs.dtype
    expected = [0, 0, 0, 0.0625, 7.5, 20, 20]
    assert np.array(keras.ops.cast(outputs, "float32")).tolist() == expected


def test_clipped_relu_is_saved_by_name():
    config = keras.saving.serialize_keras_object(clipped_relu)
    assert keras.saving.deserialize_keras_object(config) is clipped_relu
    layer = keras.layers.Activation(clipped_relu)
    revived = keras.layers.Activation.from_config(layer.get_config())
    assert revived.activation is clipped_relu


# === log_probabilities ===


def test_log_probabilities_are_scaled_and_have_a_floor():
    # Of 1/2, 1/4, 1/8, 1/8 and of something that never is.
    logits = np.log([4.0, 2.0, 1.0, 1.0, 1e-300]).astype("float32")
    expected = [1 + np.log(p) / 5 for p in (0.5, 0.25, 0.125, 0.125)] + [-3]
    # The same whatever is added to all logits.
    outputs = log_probabilities(np.stack([logits, logits + 7]))
    np.testing.assert_allclose(outputs, [expected] * 2, rtol=1e-5)


def test_log_probabilities_are_saved_by_name():
    config = keras.saving.serialize_keras_object(log_probabilities)
    assert keras.saving.deserialize_keras_object(config) is log_probabilities
