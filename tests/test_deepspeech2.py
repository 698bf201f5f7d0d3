"""Oracles: the reference configuration, arithmetic by hand, the utterance
alone as the truth of the utterance in company, and real speech."""

import inspect
import itertools
import pathlib

import jiwer
import keras
import numpy as np
import pytest
import soundfile
import tensorflow as tf
from models import (
    assert_company_and_padding_change_no_logit,
    assert_loss_scaling,
    assert_padding_changes_nothing_in_training,
    assert_trains_and_round_trips,
    labels_of,
    padded,
    scramble,
)

import keras_ds2

DATA = pathlib.Path(__file__).parent / "data"
SMALL = {
    "conv_filters": (4, 4),
    "conv_kernel_sizes": ((5, 9), (5, 5)),
    "num_rnn_layers": 2,
    "rnn_units": 16,
    "dense_units": 16,
    "dropout": 0.0,
}


def small_model(**kwargs):
    """A model whose every weight matters, seeded."""
    keras.utils.set_random_seed(0)
    return scramble(keras_ds2.DeepSpeech2(**{**SMALL, **kwargs}))


@pytest.fixture(scope="module")
def files():
    return sorted(str(p) for p in DATA.glob("LibriSpeech/*/*/*/*.opus"))


@pytest.fixture(scope="module")
def clips(files):
    """Three pieces of real speech, of 1 s, 0.7 s and 0.6 s."""
    return [
        keras_ds2.load_audio(file)[8000 : 8000 + num_samples]
        for file, num_samples in zip(files, (16000, 11111, 9000), strict=False)
    ]


@pytest.fixture(scope="module")
def rows(tmp_path_factory):
    rows = keras_ds2.data.read_librispeech(DATA, ["train-clips", "dev-clips"])
    rows, _ = keras_ds2.data.add_durations(
        rows, cache_dir=tmp_path_factory.mktemp("cache"), progress=False
    )
    return sorted(rows, key=lambda row: row.duration)


# === Configuration ===


def test_defaults_are_the_reference_configuration():
    parameters = inspect.signature(keras_ds2.DeepSpeech2).parameters
    assert {name: row.default for name, row in parameters.items()} == {
        "num_mel_bins": 80,
        "sampling_rate": 16000,
        "sequence_length": 400,
        "sequence_stride": 160,
        "fft_length": 512,
        "window": "hann",
        "normalize": True,
        "spec_augment": False,
        "max_freq_width": 27,
        "max_time_width": 100,
        "conv_filters": (32, 32),
        "conv_kernel_sizes": ((11, 41), (11, 21)),
        "conv_strides": ((2, 2), (1, 2)),
        "rnn_type": "lstm",
        "num_rnn_layers": 5,
        "rnn_units": 512,
        "bidirectional": False,
        "merge_mode": "sum",
        "batch_normalization": True,
        "normalize_projection": False,
        "mean_momentum": None,
        "row_conv_width": 5,
        "dense_units": 1024,
        "dropout": 0.1,
        "num_spelling_layers": 0,
        "spelling_units": 512,
        "spelling_context": 7,
        "spelling_stride": 2,
        "spelling_row_conv_width": 8,
        "alphabet": " 'abcdefghijklmnopqrstuvwxyz",
        "heard_alphabet": None,
        "dtype": None,
        "name": "deep_speech_2",
    }


def test_reference_size_and_graph():
    model = keras_ds2.DeepSpeech2()
    features = 20 * 32  # 80 bins, halved twice, in 32 channels
    counts = {
        "log_mel": 2 * 80 + 1,  # mean, variance, count
        "conv_1": 11 * 41 * 32,  # batch norm brings the bias
        "conv_1_norm": 4 * 32,
        "conv_2": 11 * 21 * 32 * 32,
        "conv_2_norm": 4 * 32,
        "rnn_1": 4 * 512 * (features + 512 + 1),
    }
    for i in range(2, 6):
        counts[f"rnn_{i}_norm"] = 4 * 512
        counts[f"rnn_{i}"] = 4 * 512 * (512 + 512 + 1)
    counts["row_conv"] = 5 * 512
    counts["dense"] = 512 * 1024 + 1024
    counts["logits"] = 1024 * 31 + 31
    weighted = [layer for layer in model.layers if layer.weights]
    assert {layer.name: layer.count_params() for layer in weighted} == counts
    assert [layer.name for layer in weighted] == list(counts)
    assert model.count_params() == sum(counts.values()) == 11_577_376
    dropped = [x.rate for x in model.layers if "dropout" in x.name]
    assert dropped == [0.1] * 6
    recurrent = [x for x in model.layers if isinstance(x, keras.layers.LSTM)]
    assert [x.units for x in recurrent] == [512] * 5


@pytest.mark.parametrize(
    "dtype", ["float32", "mixed_bfloat16", "mixed_float16"]
)
def test_outputs_and_compute_dtypes(dtype, clips):
    model = small_model(dtype=dtype)
    outputs = model(padded(clips))
    # 16000 samples: 1 + (16000 - 400) // 160 = 98 frames, halved once.
    assert outputs["logits"].shape == (3, 49, 31)
    assert outputs["logits"].dtype == "float32"
    assert outputs["logit_length"].numpy().tolist() == [49, 34, 27]
    assert outputs["logit_length"].dtype == "int32"
    assert model.dtype_policy.name == dtype
    for name in ("conv_1", "rnn_1", "row_conv", "dense"):
        layer = model.get_layer(name)
        assert layer.compute_dtype == dtype.removeprefix("mixed_")
    assert all(w.dtype in ("float32", "int32") for w in model.weights)


def test_logit_length_method_is_the_graphs(clips):
    model = small_model(conv_strides=((3, 2), (2, 2)))
    grid = np.array([0, 1, 399, 400, 559, 560, 719, 720, 880, 4000, 15999])
    outputs = model(
        {"audio": np.zeros((len(grid), 16000)), "audio_length": grid}
    )
    by_graph = outputs["logit_length"].numpy().tolist()
    assert by_graph == [0, 0, 0, 1, 1, 1, 1, 1, 1, 4, 17]
    assert [model.logit_length(int(n)) for n in grid] == by_graph
    assert model.logit_length(grid).tolist() == by_graph
    assert model.logit_length(tf.constant(grid)).numpy().tolist() == by_graph


# === Options ===

FEW = [
    {"rnn_type": "gru", "batch_normalization": False},
    {"rnn_type": "simple", "bidirectional": True, "merge_mode": "concat"},
    {"rnn_type": "gru", "bidirectional": True, "normalize_projection": True},
    {"mean_momentum": 0.9, "normalize_projection": True},
    {"row_conv_width": 0, "alphabet": "abcdefghijklmnopqrstuvwxyzé -'"},
    {
        "conv_filters": (3,),
        "conv_kernel_sizes": ((5, 9),),
        "conv_strides": ((2, 2),),
        "spec_augment": True,
        "max_freq_width": 9,
        "max_time_width": 7,
    },
    {
        "conv_filters": (3, 4, 5),
        "conv_kernel_sizes": ((5, 9), (3, 5), (3, 3)),
        "conv_strides": ((2, 2), (1, 2), (1, 2)),
        "normalize": False,
        "window": "hamming",
    },
    {
        "num_spelling_layers": 2,
        "spelling_units": 8,
        "spelling_context": 3,
        "spelling_stride": 3,
        "spelling_row_conv_width": 4,
        "heard_alphabet": "abcdefg",
    },
    {"num_spelling_layers": 1, "spelling_units": 8, "bidirectional": True},
]
SPELLING = {"num_spelling_layers": 2, "spelling_units": 16}


def test_masks_are_as_wide_as_asked_for():
    layer = keras_ds2.DeepSpeech2(
        **{**SMALL, "spec_augment": True, "max_freq_width": 9}
    ).get_layer("spec_augment")
    assert (layer.max_freq_width, layer.max_time_width) == (9, 100)
    layer = keras_ds2.DeepSpeech(
        dense_units=4, rnn_units=4, spec_augment=True, max_time_width=7
    ).get_layer("spec_augment")
    assert (layer.max_freq_width, layer.max_time_width) == (27, 7)


GRID = [
    {
        "rnn_type": rnn_type,
        "bidirectional": merge_mode is not None,
        "merge_mode": merge_mode or "sum",
        "batch_normalization": batch_normalization,
        "normalize_projection": normalize_projection,
    }
    for (
        rnn_type,
        merge_mode,
        batch_normalization,
        normalize_projection,
    ) in itertools.product(
        ("lstm", "gru", "simple"),
        (None, "sum", "concat"),
        (True, False),
        (True, False),
    )
]


@pytest.mark.parametrize(
    "options",
    FEW + [pytest.param(row, marks=pytest.mark.slow) for row in GRID],
    ids=str,
)
def test_options_train_and_round_trip(options, clips):
    assert_trains_and_round_trips(small_model(**options), options, clips)


@pytest.mark.parametrize(
    "options, message",
    [
        ({"rnn_type": "rnn"}, "`rnn_type` must be one of .*rnn_type='rnn'"),
        (
            {"bidirectional": True, "merge_mode": "mul"},
            "`merge_mode` must be 'sum' or.*merge_mode='mul'",
        ),
        ({"conv_filters": (4,)}, r"one entry for each.*conv_filters=\(4,\)"),
        ({"conv_kernel_sizes": ((4, 9), (5, 5))}, "must be odd"),
        ({"row_conv_width": -1}, "must be at least 1"),
        ({"heard_alphabet": "aa", **SPELLING}, "'a'"),
        ({"heard_alphabet": "ab"}, "is for a second network"),
        ({"num_spelling_layers": -1}, "not be negative.*spelling_layers=-1"),
        ({"spelling_stride": 0, **SPELLING}, "`stride` one from 1.*stride=0"),
        ({"spelling_context": -1, **SPELLING}, "from 0.*context=-1"),
    ],
)
def test_invalid_options(options, message):
    with pytest.raises(ValueError, match=message):
        keras_ds2.DeepSpeech2(**{**SMALL, **options})


# === Invariance ===

# Measured on a CPU with logits up to 0.8: 1.2e-7 in float32 (the order of
# sums), 4e-3 in bfloat16 (its unit roundoff; the kernel and with it the order
# depends on the shape), 0 in float16, left the unit roundoff of 1e-3.
TOLERANCES = {"float32": 1e-6, "mixed_bfloat16": 1e-2, "mixed_float16": 1e-3}


@pytest.mark.parametrize(
    "dtype, bidirectional, batch_normalization",
    [
        ("float32", False, False),
        ("float32", True, True),
        pytest.param("float32", False, True, marks=pytest.mark.slow),
        pytest.param("float32", True, False, marks=pytest.mark.slow),
        ("mixed_bfloat16", False, True),
        pytest.param("mixed_bfloat16", True, False, marks=pytest.mark.slow),
        ("mixed_float16", True, True),
        pytest.param("mixed_float16", False, False, marks=pytest.mark.slow),
    ],
)
def test_company_and_padding_change_no_logit(
    dtype, bidirectional, batch_normalization, clips
):
    model = small_model(
        dtype=dtype,
        bidirectional=bidirectional,
        batch_normalization=batch_normalization,
    )
    assert_company_and_padding_change_no_logit(model, clips, TOLERANCES[dtype])


@pytest.mark.parametrize(
    "dtype",
    [
        "float32",
        pytest.param("mixed_bfloat16", marks=pytest.mark.slow),
        pytest.param("mixed_float16", marks=pytest.mark.slow),
    ],
)
def test_company_and_padding_change_no_spelling(dtype, clips):
    # Three frames are one: clips end within one, and at its end.
    model = small_model(dtype=dtype, spelling_stride=3, **SPELLING)
    lengths = [model.logit_length(len(clip)) for clip in clips]
    assert lengths == [51, 36, 27]
    assert_company_and_padding_change_no_logit(model, clips, TOLERANCES[dtype])


def test_padding_changes_nothing_in_training_of_spelling(clips):
    model = small_model(
        normalize_projection=True, spelling_stride=3, **SPELLING
    )
    assert_padding_changes_nothing_in_training(model, clips)


@pytest.mark.parametrize(
    "bidirectional, batch_normalization",
    [
        (True, True),
        (False, False),
        pytest.param(False, True, marks=pytest.mark.slow),
        pytest.param(True, False, marks=pytest.mark.slow),
    ],
)
def test_padding_changes_nothing_in_training(
    bidirectional, batch_normalization, clips
):
    model = small_model(
        bidirectional=bidirectional, batch_normalization=batch_normalization
    )
    assert_padding_changes_nothing_in_training(model, clips)


@pytest.mark.parametrize(
    "options, future",
    [
        # Mel frames: 2 (strides of the first) times 4 (row convolution) plus
        # 2 (second kernel), and 2 (first kernel).
        ({}, 2 * (4 + 2) + 2),
        ({"row_conv_width": 2}, 2 * (1 + 2) + 2),
        ({"row_conv_width": 0}, 2 * 2 + 2),
        # The reference: 23 frames and a window, 255 ms.
        ({"conv_kernel_sizes": ((11, 41), (11, 21))}, 2 * (4 + 5) + 5),
    ],
)
def test_looks_ahead_no_further_than_stated(options, future, clips):
    model = small_model(**options)
    changed = clips[0].copy()
    # The last 160 samples of mel frame 60, and all that follows.
    changed[160 * 60 + 240 :] += 0.1
    before, after = (
        model(padded([samples]))["logits"][0, :, :29].numpy()
        for samples in (clips[0], changed)
    )
    moved = np.abs(after - before).max(axis=-1) > 0
    first = -(-(60 - future) // 2)
    assert not np.any(moved[:first])
    assert np.all(moved[first:])


def test_bidirectional_sees_everything(clips):
    model = small_model(bidirectional=True)
    changed = clips[0].copy()
    changed[-400:] += 0.5
    before, after = (
        model(padded([samples]))["logits"][0, 0].numpy()
        for samples in (clips[0], changed)
    )
    assert np.any(before != after)


# === Training ===


def test_reserved_symbols_are_never_decoded(clips):
    model = small_model()
    bias = np.zeros(31)
    bias[29:] = 1e9
    model.get_layer("logits").bias.assign(bias)
    outputs = model.predict_on_batch(padded(clips))
    assert not np.isin(outputs["logits"].argmax(-1), (29, 30)).any()
    assert np.all(outputs["logits"][:, :, 29:] <= -1e4)
    assert np.all(outputs["logits"][:, :, :29] > -1e3)


def test_transcripts_are_in_the_alphabet_of_the_model(clips):
    model = small_model(alphabet="zyx")
    bias = np.zeros(6)
    bias[2] = 100.0  # symbol 0 is the blank, 2 the second letter
    model.get_layer("logits").bias.assign(bias)
    assert model.transcribe(clips) == ["y", "y", "y"]
    y = labels_of(["y", "x", "yy"], "zyx")
    model.compute_metrics(None, y, model(padded(clips)))
    assert float(model.character_errors.result()) == 2 / 4


def test_predict_needs_no_labels(clips):
    model = small_model()
    inputs = padded(clips)
    outputs = model.predict(inputs, batch_size=3, verbose=0)
    expected = model(inputs)
    np.testing.assert_allclose(
        outputs["logits"], expected["logits"], rtol=0, atol=1e-6
    )
    assert outputs["logit_length"].tolist() == [49, 34, 27]


def test_loss_is_the_weighted_mean_plus_layer_losses(clips):
    model = small_model()
    outputs = model(padded(clips))
    y = labels_of(["go do you", "see", "it's"])
    each = model.ctc.loss(
        y["labels"],
        outputs["logits"],
        y["label_length"],
        outputs["logit_length"],
    ).numpy()
    assert np.all(each > 1)
    loss = model.compute_loss(y=y, y_pred=outputs)
    assert float(loss) == pytest.approx(each.mean(), rel=1e-6)
    loss = model.compute_loss(
        y=y, y_pred=outputs, sample_weight=np.array([1.0, 0.0, 3.0])
    )
    expected = (each[0] + 3 * each[2]) / 3
    assert float(loss) == pytest.approx(expected, rel=1e-6)
    # As `fit` passes the weights of arrays.
    weight = np.array([1.0, 0.0, 3.0])
    copies = {"labels": weight, "label_length": weight}
    loss = model.compute_loss(y=y, y_pred=outputs, sample_weight=copies)
    assert float(loss) == pytest.approx(expected, rel=1e-6)
    kernel = model.get_layer("dense").kernel
    kernel.regularizer = keras.regularizers.L2(0.5)
    extra = 0.5 * np.square(kernel.numpy()).sum()
    loss = model.compute_loss(y=y, y_pred=outputs)
    assert float(loss) == pytest.approx(each.mean() + extra, rel=1e-5)


@pytest.mark.parametrize(
    "arguments",
    [
        {"loss": "mse"},
        {"metrics": ["accuracy"]},
        {"weighted_metrics": ["accuracy"]},
    ],
)
def test_compiled_losses_are_refused(arguments, clips):
    model = small_model(normalize=False)
    inputs, y = padded(clips), labels_of(["a", "b", "c"])
    model.compile("sgd", **arguments)
    message = rf"`compile\({next(iter(arguments))}=...\)` has no effect"
    with pytest.raises(ValueError, match=message):
        model.fit(inputs, y, verbose=0)
    with pytest.raises(ValueError, match=message):
        model.evaluate(inputs, y, verbose=0)


def test_fit_asks_for_adapt(clips):
    model = small_model()
    model.compile("sgd", run_eagerly=True)
    inputs, y = padded(clips), labels_of(["a", "b", "c"])
    with pytest.raises(ValueError, match=r"`model.adapt\(dataset.one_pass"):
        model.fit(inputs, y, verbose=0)
    model.adapt([inputs])
    assert np.isfinite(model.fit(inputs, y, verbose=0).history["loss"][0])


@pytest.mark.parametrize(
    "dtype", ["float32", "mixed_bfloat16", "mixed_float16"]
)
def test_float16_gets_loss_scaling(dtype):
    assert_loss_scaling(small_model(dtype=dtype))


def test_fit_reports_the_error_rates_of_evaluate(rows):
    model = keras.models.load_model(DATA / "tiny.keras")
    train = keras_ds2.data.SpeechDataset(rows[:2], 2)
    validation = keras_ds2.data.SpeechDataset(rows, 3)
    model.compile(keras.optimizers.SGD(1e-9))
    history = model.fit(
        train.one_pass(),
        validation_data=validation.one_pass(),
        shuffle=False,
        verbose=0,
    ).history
    names = ("loss", "wer", "cer", "infeasible", "blank_ratio")
    assert set(history) == {
        *names,
        *(f"val_{name}" for name in names),
        "gradient_norm",
        "skipped",
    }
    result = keras_ds2.evaluate(model, validation)
    assert 0 < result.wer != result.cer > 0
    assert history["val_wer"] == [pytest.approx(result.wer, rel=1e-6)]
    assert history["val_cer"] == [pytest.approx(result.cer, rel=1e-6)]
    hypotheses = model.transcribe([row.audio for row in rows])
    references = [row.text for row in rows]
    assert jiwer.wer(references, hypotheses) == pytest.approx(result.wer)
    assert history["val_infeasible"] == [0]


def test_infeasible_utterances_are_counted(clips):
    model = small_model(normalize=False)
    model.compile("sgd", run_eagerly=True)
    inputs = padded(clips)
    # 49, 34 and 27 frames; "aa" needs one frame more than it has letters.
    y = labels_of(["ab" * 24, "a" * 18, "ab" * 14])
    logs = model.evaluate(inputs, y, return_dict=True, verbose=0)
    assert logs["infeasible"] == pytest.approx(2 / 3)
    assert np.isfinite(logs["loss"])


# === Transcription ===


@pytest.fixture(scope="module")
def trained():
    """Knows two of the clips by heart."""
    return keras.models.load_model(DATA / "tiny.keras")


def test_transcribes_files_and_arrays_of_any_kind(trained, rows, tmp_path):
    files = [row.audio for row in rows[:4]]
    arrays = [keras_ds2.load_audio(file) for file in files]
    expected = trained.transcribe(files)
    assert len(set(expected)) == 4 and all(expected)
    assert trained.transcribe(arrays) == expected
    # Neither order nor batch size matters.
    assert trained.transcribe(files[::-1], batch_size=3) == expected[::-1]
    assert trained.transcribe(files, batch_size=1) == expected
    assert trained.transcribe([]) == []
    mixed = [arrays[0], pathlib.Path(files[1])]
    assert trained.transcribe(mixed) == expected[:2]


@pytest.mark.parametrize("dtype", ["mixed_bfloat16", "mixed_float16"])
def test_transcripts_survive_sixteen_bits(dtype, trained, rows):
    config = {**trained.get_config(), "dtype": dtype}
    model = keras_ds2.DeepSpeech2.from_config(config)
    model.set_weights(trained.get_weights())
    learned = [row.audio for row in rows if row.text in LEARNED]
    assert trained.transcribe(learned) == LEARNED
    assert model.transcribe(learned) == LEARNED


def test_transcribes_other_rates_and_channels(trained, rows, tmp_path):
    import soxr

    [row] = [row for row in rows if row.text == LEARNED[0]]
    samples = keras_ds2.load_audio(row.audio)
    stereo = soxr.resample(samples, 16000, 44100)
    stereo = np.stack([stereo * 1.5, stereo * 0.5], axis=1)
    soundfile.write(tmp_path / "a.wav", stereo, 44100, "FLOAT")
    narrow = soxr.resample(samples, 16000, 8000)
    soundfile.write(tmp_path / "b.wav", narrow, 8000, "FLOAT")
    wide, narrow = trained.transcribe([tmp_path / "a.wav", tmp_path / "b.wav"])
    assert jiwer.cer(LEARNED[0], wide) < 0.2
    # 8 kHz lacks the upper half of the bins, yet is not taken for 16 kHz:
    # read at the wrong rate it would have half the frames.
    frames = trained.logit_length(len(samples))
    loaded = keras_ds2.load_audio(tmp_path / "b.wav")
    assert abs(trained.logit_length(len(loaded)) - frames) <= 1
    assert narrow


def test_transcribe_refuses_what_is_not_speech(trained, tmp_path):
    good = np.zeros(400, "float32")
    assert len(trained.transcribe([good])) == 1
    for bad, received in (
        (good[:399], r"shape=\(399,\)"),
        (np.full(400, np.nan), "dtype=float64"),
        (np.zeros((2, 400)), r"shape=\(2, 400\)"),
        (np.zeros(400, "int16"), "dtype=int16"),
    ):
        with pytest.raises(ValueError, match=f"Item 1 .* {received}"):
            trained.transcribe([good, bad])
    for lone in ("a.wav", tmp_path / "a.wav", good):
        with pytest.raises(ValueError, match="must be a list of recordings"):
            trained.transcribe(lone)
    with pytest.raises(keras_ds2.AudioError, match="absent.wav' does not"):
        trained.transcribe([str(tmp_path / "absent.wav")])
    soundfile.write(tmp_path / "short.wav", np.zeros(300), 16000)
    with pytest.raises(keras_ds2.AudioError, match="short.wav' lasts 0.019"):
        trained.transcribe([tmp_path / "short.wav"])


LEARNED = [
    "i was delighted with the country and the manner of life",
    "i'll be glad to try sir he replied",
]
