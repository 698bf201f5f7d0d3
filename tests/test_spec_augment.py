"""Oracle: the definition of the masks, read off inputs of ones."""

import helpers
import numpy as np
import pytest

from keras_ds2 import SpecAugment

BATCH, FRAMES, BINS = 40, 60, 20
NUM_FRAMES = np.linspace(0, FRAMES, BATCH).astype("int32")
ONES = np.ones((BATCH, FRAMES, BINS), "float32")


def masked(layer, inputs=ONES, num_frames=NUM_FRAMES):
    """Whether each number was set to zero, in a training call."""
    outputs = np.array(layer(inputs, num_frames, training=True))
    assert np.all((outputs == 0) | (outputs == inputs))
    return outputs == 0


def stripes(layer, **kwargs):
    """Which frames and which bins of each utterance are wholly masked."""
    mask = masked(layer, **kwargs)
    spans, bands = mask.all(axis=2), mask.all(axis=1)
    # Whatever is masked lies in a stripe.
    assert np.array_equal(mask, spans[:, :, None] | bands[:, None, :])
    return spans, bands


def is_one_run(row):
    return np.count_nonzero(np.diff(np.r_[0, row, 0])) in (0, 2)


def test_basics():
    helpers.check_layer(
        SpecAugment,
        {
            "num_freq_masks": 1,
            "max_freq_width": 3,
            "num_time_masks": 3,
            "max_time_width": 7,
            "max_time_ratio": 0.5,
            "seed": 4,
        },
        (ONES[:4], NUM_FRAMES[-4:]),
        (4, FRAMES, BINS),
    )


def test_inference_is_the_identity():
    inputs = np.random.default_rng(0).normal(size=ONES.shape)
    inputs = inputs.astype("float32")
    layer = SpecAugment(seed=0)
    for outputs in (
        layer(inputs, NUM_FRAMES),
        layer(inputs, NUM_FRAMES, training=False),
    ):
        np.testing.assert_array_equal(outputs, inputs)


def test_spans_lie_within_real_frames_and_are_bounded():
    layer = SpecAugment(0, 0, 1, max_time_width=8, max_time_ratio=0.25, seed=1)
    widest, last_reached, first_reached = 0, False, False
    for _ in range(10):
        spans, _ = stripes(layer)
        for row, length in zip(spans, NUM_FRAMES, strict=True):
            assert is_one_run(row)
            assert not row[length:].any()
            assert row.sum() <= min(8, np.floor(0.25 * length))
            last_reached |= length > 0 and row[length - 1]
            first_reached |= row[0]
        widest = max(widest, spans.sum(axis=1).max())
    assert widest == 8
    assert first_reached
    assert last_reached


def test_the_ratio_binds_short_utterances():
    layer = SpecAugment(0, 0, 1, max_time_width=50, max_time_ratio=0.1, seed=1)
    widths = [stripes(layer)[0].sum(axis=1) for _ in range(20)]
    bound = np.floor(np.float32(0.1) * NUM_FRAMES)
    np.testing.assert_array_equal(np.max(widths, axis=0), bound)


def test_bands_are_bounded_and_reach_every_bin():
    layer = SpecAugment(1, 6, 0, seed=1)
    bands = np.concatenate([stripes(layer)[1] for _ in range(10)])
    assert all(map(is_one_run, bands))
    widths = bands.sum(axis=1)
    assert set(widths) == set(range(7))
    assert bands.any(axis=0).all()
    # Uniform widths from 0 to 6: 3 on average, here over 400 draws.
    assert abs(widths.mean() - 3) < 0.4


def test_number_of_stripes():
    layer = SpecAugment(2, 1, 3, 1, 1.0, seed=1)
    spans, bands = stripes(layer, num_frames=np.full(BATCH, FRAMES))
    assert bands.sum(axis=1).max() == 2
    assert spans.sum(axis=1).max() == 3


def test_masked_share():
    # Two spans of 0 to 12 of 60 frames: 10 % each on average.
    spans, _ = stripes(
        SpecAugment(0, 0, 2, 100, 0.2, seed=1),
        inputs=np.ones((2000, FRAMES, 1), "float32"),
        num_frames=np.full(2000, FRAMES),
    )
    assert 0.18 < spans.mean() < 0.2


def test_seed_decides():
    first, second = (masked(SpecAugment(seed=3)) for _ in range(2))
    np.testing.assert_array_equal(first, second)
    assert np.any(first != masked(SpecAugment(seed=4)))
    layer = SpecAugment(seed=3)
    assert np.any(masked(layer) != masked(layer))


def test_utterances_differ():
    mask = masked(SpecAugment(seed=3), num_frames=np.full(BATCH, FRAMES))
    assert len({row.tobytes() for row in mask}) > BATCH // 2


@pytest.mark.parametrize("amount", helpers.PAD_AMOUNTS)
def test_padding_changes_no_mask(amount):
    inputs = np.pad(ONES, ((0, 0), (0, amount), (0, 0)), constant_values=5)
    padded = masked(SpecAugment(seed=3), inputs)[:, :FRAMES]
    np.testing.assert_array_equal(padded, masked(SpecAugment(seed=3)))


def test_without_lengths_all_frames_are_real():
    expected = masked(SpecAugment(seed=3), num_frames=np.full(BATCH, FRAMES))
    actual = masked(SpecAugment(seed=3), num_frames=None)
    np.testing.assert_array_equal(actual, expected)


@pytest.mark.parametrize(
    "arguments",
    [
        {"num_freq_masks": -1},
        {"max_freq_width": -1},
        {"num_time_masks": -1},
        {"max_time_width": -1},
        {"max_time_ratio": 1.1},
        {"max_time_ratio": -0.1},
    ],
)
def test_invalid_arguments(arguments):
    [(name, value)] = arguments.items()
    with pytest.raises(ValueError, match=f"{name}={value}"):
        SpecAugment(**arguments)
