"""Oracle: the sum over every alignment, one by one, in float64."""

import itertools

import helpers
import keras
import numpy as np
import pytest
import tensorflow as tf

import keras_ds2
from keras_ds2 import CTCLayer

# Float32 sums of logarithms against float64.
LOSS_TOLERANCE = 1e-5
# The fast operation against Keras's: its softmax is not in the logarithm.
BACKEND_TOLERANCE = 1e-3
# Central differences in float64 err by the square of the step.
STEP = 1e-4
GRADIENT_TOLERANCE = 1e-5


@pytest.fixture(params=["fast", "dense"])
def path(request, monkeypatch):
    """Both ways to the loss: TensorFlow's operation and that of the rest."""
    if request.param == "dense":
        monkeypatch.setattr(keras.backend, "backend", lambda: "another")
    return request.param


def collapse(path, blank):
    return tuple(s for s, _ in itertools.groupby(path) if s != blank)


def log_softmax(logits):
    logits = logits.astype("float64")
    peak = logits.max(axis=-1, keepdims=True)
    total = np.exp(logits - peak).sum(axis=-1, keepdims=True)
    return logits - peak - np.log(total)


def brute_force(logits, labels, blank=0):
    """-log of the summed probability of all paths that spell the labels."""
    log_probability = log_softmax(logits)
    frames, symbols = logits.shape
    scores = [
        sum(log_probability[t, s] for t, s in enumerate(path))
        for path in itertools.product(range(symbols), repeat=frames)
        if collapse(path, blank) == tuple(labels)
    ]
    return -np.logaddexp.reduce(scores) if scores else np.inf


def logits_of(*shape, seed=0, scale=2.0):
    generator = np.random.default_rng(seed)
    return (scale * generator.normal(size=shape)).astype("float32")


def padded(labels, fill=0, width=None):
    """Labels of all utterances, padded, and their numbers."""
    width = max(map(len, labels), default=0) if width is None else width
    rows = [list(row) + [fill] * (width - len(row)) for row in labels]
    length = np.array([len(row) for row in labels])
    return np.array(rows, "int32").reshape(len(labels), width), length


def loss_and_gradient(layer, labels, logits, label_length, logit_length):
    logits = tf.convert_to_tensor(logits)
    with tf.GradientTape() as tape:
        tape.watch(logits)
        loss = layer.loss(labels, logits, label_length, logit_length)
        total = tf.reduce_sum(loss)
    return np.array(loss), np.array(tape.gradient(total, logits))


# === Values ===


@pytest.mark.parametrize("blank", [0, 1, 3])
def test_loss_sums_all_alignments(path, blank):
    symbols = [s for s in range(4) if s != blank]
    labels = [
        row
        for size in range(5)
        for row in itertools.product(symbols[:2], repeat=size)
    ] + [symbols, symbols[::-1]]
    logits = logits_of(len(labels), 4, 4)
    expected = np.array(
        [brute_force(x, y, blank) for x, y in zip(logits, labels, strict=True)]
    )
    ids, label_length = padded(labels)
    loss = CTCLayer(blank).loss(
        ids, logits, label_length, np.full(len(labels), 4)
    )
    assert loss.shape == (len(labels),)
    feasible = np.isfinite(expected)
    assert 0 < np.count_nonzero(~feasible) < len(labels) / 2
    np.testing.assert_allclose(
        loss, np.where(feasible, expected, 0), rtol=LOSS_TOLERANCE
    )


def test_every_length_of_logits(path):
    labels = [(1,), (1, 1), (2, 1), ()]
    cases = list(itertools.product(labels, range(6)))
    logits = logits_of(len(cases), 5, 3)
    expected = [
        brute_force(x[:n], y) for x, (y, n) in zip(logits, cases, strict=True)
    ]
    expected = np.where(np.isfinite(expected), expected, 0)
    ids, label_length = padded([y for y, _ in cases])
    logit_length = np.array([n for _, n in cases])
    loss = CTCLayer().loss(ids, logits, label_length, logit_length)
    np.testing.assert_allclose(loss, expected, rtol=LOSS_TOLERANCE, atol=1e-7)


@pytest.mark.parametrize("labels", [(1, 2), (1, 1), (2,), ()])
def test_gradient_is_the_central_difference(path, labels):
    logits = logits_of(1, 4, 3, scale=1.0)
    expected = np.zeros(logits.shape)
    for index in np.ndindex(3, 3):  # the fourth frame is padding
        around = []
        for step in (STEP, -STEP):
            moved = logits[0, :3].astype("float64")
            moved[index] += step
            around.append(brute_force(moved, labels))
        expected[0][index] = (around[0] - around[1]) / (2 * STEP)
    ids, label_length = padded([labels])
    _, gradient = loss_and_gradient(
        CTCLayer(), ids, logits, label_length, np.array([3])
    )
    np.testing.assert_allclose(gradient, expected, atol=GRADIENT_TOLERANCE)


def test_long_transcripts_equal_keras():
    generator = np.random.default_rng(0)
    labels = generator.integers(1, 31, (2, 300))
    label_length = np.array([300, 20])
    logit_length = np.array([350, 100])
    logits = logits_of(2, 350, 31)
    np.testing.assert_allclose(
        CTCLayer().loss(labels, logits, label_length, logit_length),
        keras.ops.ctc_loss(labels, logits, label_length, logit_length),
        rtol=BACKEND_TOLERANCE,
    )


def test_certain_transcripts_are_never_negative(path):
    paths = [[0, 1, 1, 0, 2], [1, 2, 0, 2, 2], [0, 0, 0, 0, 0]]
    logits = 200 * np.eye(3, dtype="float32")[paths] - 100
    ids, label_length = padded([collapse(row, 0) for row in paths])
    loss = np.array(
        CTCLayer().loss(ids, logits, label_length, np.array([5, 5, 5]))
    )
    np.testing.assert_array_equal(loss, 0)
    # In float32 the probability of an alignment can come out above 1.
    logits = logits_of(200, 5, 3, scale=0.1) + 8 * np.eye(3)[paths[0]]
    loss = CTCLayer().loss(
        np.tile(ids[:1], (200, 1)),
        logits.astype("float32"),
        np.full(200, 2),
        np.full(200, 5),
    )
    assert np.all(np.array(loss) >= 0)


def test_hopeless_transcripts_have_a_loss_and_a_gradient(path):
    # Blank is e^200 times as probable as everything else.
    logits = np.array([[[100, -100, -100], [100, -100, -100]]], "float32")
    loss, gradient = loss_and_gradient(
        CTCLayer(), np.array([[1]]), logits, np.array([1]), np.array([2])
    )
    at_least = {"fast": 80, "dense": 200}[path]
    # Three alignments; two of them need the label once.
    assert loss[0] == pytest.approx(at_least - np.log(2), abs=1e-3)
    expected = [[[0.5, -0.5, 0], [0.5, -0.5, 0]]]
    np.testing.assert_allclose(gradient, expected, atol=1e-5)


# === Padding ===


@pytest.mark.parametrize(
    ("amount", "garbage"),
    [(1, "noise"), (7, "inf"), (64, "nan"), (300, "zeros")],
)
def test_padded_frames_change_nothing(path, amount, garbage):
    labels, label_length = padded([(1, 2), (2,), (), (1, 1, 1)])
    logit_length = np.array([6, 3, 4, 2])
    logits = logits_of(4, 6, 3)
    loss, gradient = loss_and_gradient(
        CTCLayer(), labels, logits, label_length, logit_length
    )
    spoiled = helpers.spoil(logits, logit_length, amount, garbage)
    loss_2, gradient_2 = loss_and_gradient(
        CTCLayer(), labels, spoiled, label_length, logit_length
    )
    np.testing.assert_allclose(loss_2, loss, rtol=helpers.SAME)
    np.testing.assert_allclose(
        gradient_2[:, :6], gradient, atol=helpers.ROUNDING
    )
    assert np.any(gradient[0])
    for row, length in zip(gradient_2, logit_length, strict=True):
        assert not np.any(row[length:])


@pytest.mark.parametrize("fill", [-1, -(2**31), 1, 2, 3, 10**9])
def test_padded_labels_change_nothing(path, fill):
    rows = [(1, 2), (2,), (), (1, 1, 1)]
    logit_length = np.array([6, 3, 4, 2])
    logits = logits_of(4, 6, 3)
    results = [
        loss_and_gradient(
            CTCLayer(), *(labels, logits, label_length), logit_length
        )
        for labels, label_length in (padded(rows), padded(rows, fill, 9))
    ]
    for expected, actual in zip(*results, strict=True):
        np.testing.assert_allclose(actual, expected, atol=helpers.SAME)


def test_keras_counts_padding_as_speech():
    """Why this layer exists."""
    logits = logits_of(1, 8, 5)
    labels = np.array([[1, 2, 3]])
    length = np.array([3])
    ours, theirs = (
        [
            float(function(logits[:, :frames]))
            for frames in (5, 8)  # the last three are padding
        ]
        for function in (
            lambda x: CTCLayer().loss(labels, x, length, np.array([5]))[0],
            lambda x: keras.losses.CTC()(labels, x),
        )
    )
    assert ours[0] == pytest.approx(ours[1], rel=LOSS_TOLERANCE)
    assert ours[0] == pytest.approx(theirs[0], rel=BACKEND_TOLERANCE)
    assert theirs[1] > theirs[0] + 1


# === Utterances without an alignment, transcripts without a label ===


def test_infeasible_utterances_do_not_count(path):
    rows = [(1, 2), (1, 1), (2, 1, 2), (1,)]
    logit_length = np.array([4, 2, 2, 0])
    logits = logits_of(4, 4, 3)
    labels, label_length = padded(rows)
    loss, gradient = loss_and_gradient(
        CTCLayer(), labels, logits, label_length, logit_length
    )
    np.testing.assert_array_equal(loss[1:], 0)
    np.testing.assert_array_equal(gradient[1:], 0)
    alone, gradient_alone = loss_and_gradient(
        CTCLayer(), labels[:1], logits[:1], label_length[:1], logit_length[:1]
    )
    np.testing.assert_allclose(loss[0], alone[0], rtol=helpers.SAME)
    np.testing.assert_allclose(
        gradient[0], gradient_alone[0], atol=helpers.SAME
    )


def test_nothing_but_infeasible_utterances(path):
    loss, gradient = loss_and_gradient(
        CTCLayer(),
        np.array([[1, 1], [1, 2]]),
        logits_of(2, 2, 3),
        np.array([2, 2]),
        np.array([2, 1]),
    )
    np.testing.assert_array_equal(loss, 0)
    np.testing.assert_array_equal(gradient, 0)


@pytest.mark.parametrize("max_labels", [0, 2])
def test_nothing_but_empty_transcripts(path, max_labels):
    logits = logits_of(3, 4, 3)
    logit_length = np.array([4, 2, 0])
    expected = [
        -log_softmax(x[:n])[:, 0].sum()
        for x, n in zip(logits, logit_length, strict=True)
    ]
    loss = CTCLayer().loss(
        np.ones((3, max_labels), int), logits, np.zeros(3, int), logit_length
    )
    np.testing.assert_allclose(loss, expected, rtol=LOSS_TOLERANCE)


def test_not_a_single_frame(path):
    loss = CTCLayer().loss(
        np.ones((2, 1), int),
        np.zeros((2, 0, 3), "float32"),
        np.array([1, 0]),
        np.array([0, 0]),
    )
    np.testing.assert_array_equal(loss, 0)


@pytest.mark.parametrize("wrap", [lambda f: f, tf.function])
def test_infeasible_utterances_raise_on_request(wrap):
    loss = wrap(CTCLayer(on_infeasible="error").loss)
    labels, label_length = padded([(1, 2), (1, 1)])
    logits = tf.constant(logits_of(2, 3, 3))
    expected = CTCLayer().loss(labels, logits, label_length, np.array([3, 3]))
    actual = loss(labels, logits, label_length, np.array([3, 3]))
    np.testing.assert_array_equal(actual, expected)
    with pytest.raises(tf.errors.InvalidArgumentError, match="more frames"):
        loss(labels, logits, label_length, np.array([3, 2]))


# === As a layer ===


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_sixteen_bit_logits_are_read_as_float32(dtype):
    labels, label_length = padded([(1, 2)])
    logits = tf.cast(logits_of(1, 50, 3), dtype)
    length = np.array([50])
    loss = CTCLayer(dtype=f"mixed_{dtype}").loss(
        labels, logits, label_length, length
    )
    assert loss.dtype == tf.float32
    exact = tf.cast(logits, "float32")
    np.testing.assert_array_equal(
        loss, CTCLayer().loss(labels, exact, label_length, length)
    )


@pytest.mark.parametrize("policy", helpers.POLICIES)
def test_mixed_policies_do_not_touch_the_logits(policy):
    labels, label_length = padded([(1, 2)])
    batch = logits_of(1, 50, 3), labels, label_length, np.array([50])
    plain, mixed = CTCLayer(), CTCLayer(dtype=policy)
    np.testing.assert_array_equal(mixed(*batch), batch[0])
    plain(*batch)
    assert float(mixed.losses[0]) == float(plain.losses[0])


def test_config():
    layer = CTCLayer(blank_index=2, on_infeasible="error", name="ctc")
    config = keras.saving.serialize_keras_object(layer)
    revived = keras.saving.deserialize_keras_object(config)
    assert isinstance(revived, CTCLayer)
    assert revived.get_config() == layer.get_config()
    assert (revived.blank_index, revived.on_infeasible) == (2, "error")
    assert not layer.supports_jit


def test_a_functional_model_that_ends_with_it_trains(tmp_path):
    frames = keras.Input((None, 4))
    labels = keras.Input((None,), dtype="int32")
    label_length = keras.Input((), dtype="int32")
    logit_length = keras.Input((), dtype="int32")
    x = keras.layers.Masking()(frames)
    x = keras_ds2.SymbolLogits(5, 0)(x)
    outputs = CTCLayer()(x, labels, label_length, logit_length)
    model = keras.Model([frames, labels, label_length, logit_length], outputs)
    # No `jit_compile=False`: Keras must not try to compile the operation.
    model.compile(keras.optimizers.Adam(0.1))
    assert not model.jit_compile
    ids, label_length = padded([(1, 2), (3,), ()])
    logit_length = np.array([6, 4, 2])
    batch = [logits_of(3, 6, 4), ids, label_length, logit_length]
    logits = model(batch)
    assert logits.shape == (3, 6, 5)
    expected = CTCLayer().loss(ids, logits, label_length, logit_length)
    assert model.evaluate(batch, verbose=0) == pytest.approx(
        np.mean(expected), rel=LOSS_TOLERANCE
    )
    history = model.fit(batch, epochs=20, verbose=0).history["loss"]
    assert history[0] == pytest.approx(np.mean(expected), rel=LOSS_TOLERANCE)
    assert history[-1] < history[0] / 4
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    np.testing.assert_array_equal(loaded(batch), model(batch))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"blank_index": -1}, "Received: blank_index=-1"),
        ({"on_infeasible": "skip"}, "Received: on_infeasible='skip'"),
    ],
)
def test_invalid_arguments(arguments, message):
    with pytest.raises(ValueError, match=message):
        CTCLayer(**arguments)


@pytest.mark.parametrize("label", [0, -1, 5, 100], ids=str)
def test_symbols_that_do_not_exist_have_no_alignment(label, path):
    logits = tf.Variable(logits_of(2, 6, 5))
    logits[0].assign(tf.fill((6, 5), np.nan))  # not read
    arguments = [np.array([[1, label], [1, 2]]), logits, [2, 2], [6, 6]]
    layer = CTCLayer()
    with tf.GradientTape() as tape:
        loss = layer.loss(*arguments)
        total = tf.reduce_sum(loss)
    gradient = tape.gradient(total, logits)
    assert loss[0] == 0 and not np.any(gradient[0])
    expected = brute_force(logits_of(2, 6, 5)[1], (1, 2))
    assert float(loss[1]) == pytest.approx(expected, rel=LOSS_TOLERANCE)
    assert layer.is_feasible(*arguments).numpy().tolist() == [False, True]
    with pytest.raises(tf.errors.InvalidArgumentError, match="do not exist"):
        CTCLayer(on_infeasible="error").loss(*arguments)
