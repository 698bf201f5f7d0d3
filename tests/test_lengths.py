"""Oracle: windows, frames and alignments counted one by one."""

import itertools

import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_ds2 import lengths


def count_windows(length, window, stride, padding):
    starts = range(0, length + padding, stride)
    return sum(start + window <= length + padding for start in starts)


@pytest.mark.parametrize("window", [1, 2, 5, 11])
@pytest.mark.parametrize("stride", [1, 2, 3])
def test_output_length_counts_windows(window, stride):
    for length, padding in itertools.product(range(25), (0, 1, window - 1)):
        expected = count_windows(length, window, stride, padding)
        actual = lengths.output_length(length, window, stride, padding)
        assert actual == expected


def test_output_length_with_full_padding_is_ceil():
    for length, stride in itertools.product(range(1, 30), (1, 2, 3)):
        actual = lengths.output_length(length, 11, stride, padding=10)
        assert actual == -(-length // stride)


def test_output_length_keeps_the_type():
    expected = [0, 0, 1, 98]
    values = [0, 399, 400, 16000]
    integers = [lengths.output_length(n, 400, 160) for n in values]
    assert integers == expected
    assert {type(n) for n in integers} == {int}
    array = lengths.output_length(np.array(values, "int32"), 400, 160)
    assert isinstance(array, np.ndarray)
    assert array.dtype == "int32"
    assert array.tolist() == expected
    scalar = lengths.output_length(np.int64(0), 400, 160)
    assert isinstance(scalar, np.integer)
    assert scalar == 0
    tensor = lengths.output_length(tf.constant(values), 400, 160)
    assert tf.is_tensor(tensor)
    assert tensor.dtype == tf.int32
    assert tensor.numpy().tolist() == expected
    symbol = lengths.output_length(keras.Input((), dtype="int32"), 400, 160)
    assert keras.utils.is_keras_tensor(symbol)


def test_sequence_mask_counts():
    mask = np.array(lengths.sequence_mask(np.array([0, 2, 5, 9]), 5))
    assert mask.dtype == bool
    for row, length in zip(mask, [0, 2, 5, 9], strict=True):
        assert row.tolist() == [i < length for i in range(5)]


@pytest.mark.parametrize("rank", [2, 3, 4])
@pytest.mark.parametrize("garbage", [7.0, np.nan, np.inf])
def test_zero_padding_selects(rank, garbage):
    inputs = np.ones((2, 4) + (3,) * (rank - 2), "float16")
    inputs[0, 1:] = garbage
    outputs = lengths.zero_padding(inputs, np.array([1, 4]))
    expected = np.ones_like(inputs)
    expected[0, 1:] = 0
    assert outputs.dtype == tf.float16
    np.testing.assert_array_equal(outputs, expected)


def test_zero_padding_without_lengths_changes_nothing():
    inputs = np.full((1, 2), np.nan)
    assert lengths.zero_padding(inputs, None) is inputs


def collapse(path, blank=0):
    return [symbol for symbol, _ in itertools.groupby(path) if symbol != blank]


def shortest_alignment(labels):
    """The least frames of which some path collapses to the labels."""
    for num_frames in itertools.count():
        for path in itertools.product(range(3), repeat=num_frames):
            if collapse(path) == list(labels):
                return num_frames


ALL_LABELS = [
    labels
    for size in range(5)
    for labels in itertools.product((1, 2), repeat=size)
]


def test_required_frames_is_the_shortest_alignment():
    for labels in ALL_LABELS:
        assert lengths.required_frames(labels) == shortest_alignment(labels)


@pytest.mark.parametrize("num_frames", range(9))
def test_is_feasible_is_the_rule_for_a_batch(num_frames):
    # The padding repeats the last label: it must not count.
    labels = [
        row + (row[-1] if row else 1,) * (6 - len(row)) for row in ALL_LABELS
    ]
    label_length = np.array([len(row) for row in ALL_LABELS])
    expected = [
        num_frames >= lengths.required_frames(row) for row in ALL_LABELS
    ]
    actual = lengths.is_feasible(
        np.array(labels), label_length, np.full(len(labels), num_frames)
    )
    assert np.array(actual).tolist() == expected


def test_is_feasible_without_a_single_label():
    feasible = lengths.is_feasible(
        np.zeros((2, 0), int), np.array([0, 0]), np.array([3, 0])
    )
    assert np.array(feasible).tolist() == [True, True]
