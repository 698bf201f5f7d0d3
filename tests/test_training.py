"""Oracles: learning two clips by heart, an uninterrupted run as the truth of
an interrupted one, jiwer and counting by hand, and TensorFlow's own calls."""

import pathlib
import sys
import types

import jiwer
import keras
import numpy as np
import pytest
import soundfile
import tensorflow as tf

import keras_ds2
from keras_ds2.data import SpeechDataset, Utterance
from keras_ds2.training.decoder_tuning import DecoderTuning
from keras_ds2.training.evaluate import Evaluation, TranscribedUtterance

DATA = pathlib.Path(__file__).parent / "data"
SMALL = {
    "conv_filters": (4, 4),
    "conv_kernel_sizes": ((5, 9), (5, 5)),
    "conv_strides": ((2, 2), (2, 2)),
    "num_rnn_layers": 1,
    "rnn_units": 32,
    "dense_units": 32,
    "dropout": 0.0,
}
PNG = b"\x89PNG\r\n\x1a\n"


@pytest.fixture(scope="module")
def rows(tmp_path_factory):
    rows = keras_ds2.data.read_librispeech(DATA, ["train-clips", "dev-clips"])
    rows, _ = keras_ds2.data.add_durations(
        rows, cache_dir=tmp_path_factory.mktemp("cache"), progress=False
    )
    return sorted(rows, key=lambda row: row.duration)


@pytest.fixture(scope="module")
def trained():
    """Knows two of the train-clips by heart."""
    return keras.models.load_model(DATA / "tiny.keras")


# === fit ===


def test_learns_two_clips(rows):
    keras.utils.set_random_seed(0)
    dataset = SpeechDataset(rows[:2], 2)
    model = keras_ds2.DeepSpeech2(**SMALL)
    model.adapt(dataset.one_pass())
    model.compile(keras.optimizers.Adam(1e-2, global_clipnorm=400.0))
    history = model.fit(
        dataset.stream(),
        steps_per_epoch=20,
        epochs=4,
        shuffle=False,
        verbose=0,
    ).history
    assert history["loss"][0] > 100
    # It rests at about 100 while all frames say the same (measured).
    assert history["loss"][-1] < 20
    assert history["cer"][-1] < 0.1 and history["cer"][0] > 0.9


def test_resumed_training_sees_the_same_batches(tmp_path, monkeypatch):
    rows = []
    generator = np.random.default_rng(0)
    for i in range(5):
        path = str(tmp_path / f"{i}.wav")
        num_samples = 4800 + 160 * i
        soundfile.write(path, 0.1 * generator.normal(size=num_samples), 16000)
        rows.append(Utterance(path, "go", num_samples / 16000))
    consumed = []

    class Record(keras.callbacks.Callback):
        backed_up_attributes = ()

        def on_train_batch_end(self, batch, logs=None):
            consumed.append(int(self.model.optimizer.iterations))

    read = []
    compute_loss = keras_ds2.DeepSpeech2.compute_loss

    def spy(self, x, *args, **kwargs):
        read.append(int(x["audio_length"][0]))  # names the file
        return compute_loss(self, x, *args, **kwargs)

    monkeypatch.setattr(keras_ds2.DeepSpeech2, "compute_loss", spy)

    def run(folder, epochs, fail_at=None):
        keras.utils.set_random_seed(0)
        read.clear()
        dataset = SpeechDataset(rows, 1, seed=5)
        model = keras_ds2.DeepSpeech2(**SMALL, normalize=False)
        model.compile(keras.optimizers.Adam(1e-3), run_eagerly=True)

        class Fail(keras.callbacks.Callback):
            backed_up_attributes = ()

            def on_epoch_begin(self, epoch, logs=None):
                if epoch == fail_at:
                    raise InterruptedError

        callbacks = [
            keras_ds2.BackupAndRestore(tmp_path / folder, dataset),
            Fail(),
            Record(),
        ]
        model.fit(
            dataset.stream(),
            steps_per_epoch=3,
            epochs=epochs,
            callbacks=callbacks,
            verbose=0,
        )
        return model

    # Passes have 5 batches, epochs 3: the interruption falls within a pass.
    whole = run("whole", 3)
    whole_read = read.copy()
    with pytest.raises(InterruptedError):
        run("parts", 3, fail_at=1)
    consumed.clear()
    resumed = run("parts", 3)
    assert consumed == [4, 5, 6, 7, 8, 9]
    assert len(whole_read) == 9
    assert read == whole_read[3:]
    for ours, theirs in zip(resumed.weights, whole.weights, strict=True):
        np.testing.assert_array_equal(ours, theirs)


# === evaluate ===


class Parrot:
    """Says what it was told to, batch by batch."""

    def __init__(self, texts):
        self.texts = iter(texts)

    def recognize_batch(self, inputs, decoder=None):
        return [
            keras_ds2.Hypothesis(next(self.texts), 0.0, 0.0)
            for _ in inputs["audio_length"]
        ]


def test_evaluate_counts_by_hand(rows):
    rows = [
        row._replace(text=text)
        for row, text in zip(
            rows, ("a cab", "go", "see the sea", "up"), strict=False
        )
    ]
    said = ["a cab", "no go", "sea the", "up"]
    result = keras_ds2.evaluate(Parrot(said), SpeechDataset(rows, 3))
    # Words: 0 of 2, 1 inserted of 1, 1 replaced and 1 lost of 3, 0 of 1.
    assert result.wer == pytest.approx(3 / 7)
    # Characters: "no ", "a" for "e" and " sea", of 5 + 2 + 11 + 2.
    assert result.cer == pytest.approx((3 + 1 + 4) / 20)
    references = [row.text for row in rows]
    assert result.wer == jiwer.wer(references, said)
    worst_first = [(row.reference, row.wer) for row in result.utterances]
    assert worst_first[0] == ("go", 1.0)
    assert worst_first[1] == ("see the sea", pytest.approx(2 / 3))
    assert [row.wer for row in result.utterances[2:]] == [0, 0]
    assert result.utterances[0].hypothesis == "no go"
    assert result.utterances[0].audio == rows[1].audio


def test_report_of_evaluation():
    items = [
        TranscribedUtterance("b.wav", "go", "no go", 1.0),
        TranscribedUtterance("a.wav", "a cab", "a cab", 0.0),
    ]
    # Draws of both have 0, 1 or 2 errors in 2, 3 or 4 words.
    assert Evaluation(0.25, 0.1234, items).report(num_worst=1) == (
        "WER 25.00 % (95 % interval 0.0 to 100.0), "
        "CER 12.34 % (0.0 to 150.0)\n"
        "2 utterances; intervals by resampling 2 utterances\n"
        "100% b.wav\n"
        "  reference:  go\n"
        "  hypothesis: no go"
    )
    # No errors, no interval: other draws would show none either.
    assert Evaluation(0.0, 0.0, items[1:]).report(num_worst=0) == (
        "WER 0.00 %, CER 0.00 %\n1 utterance"
    )


def test_evaluate_takes_empty_references(rows):
    rows = [rows[0]._replace(text=""), rows[1]._replace(text="go on")]
    for said, wer in ((["", "go on"], 0), (["oh", "go"], 1)):
        result = keras_ds2.evaluate(Parrot(said), SpeechDataset(rows, 2))
        # Two edits of the two words of the corpus, or none.
        assert result.wer == wer
        assert len(result.utterances) == 2


# === Device ===


@pytest.fixture
def visible(monkeypatch):
    """Three GPUs on paper; returns what was made visible."""
    calls = {"growth": []}
    gpus = [types.SimpleNamespace(name=f"GPU:{i}") for i in range(3)]
    config = tf.config
    monkeypatch.setattr(config, "list_physical_devices", lambda kind: gpus)
    monkeypatch.setattr(
        config,
        "set_visible_devices",
        lambda devices, kind: calls.update(
            {kind: [device.name for device in devices]}
        ),
    )
    monkeypatch.setattr(
        config.experimental,
        "set_memory_growth",
        lambda device, enable: calls["growth"].append((device.name, enable)),
    )
    return calls


@pytest.mark.parametrize(
    "name, chosen, gpus",
    [
        ("cpu", "cpu", []),
        ("auto", "cuda:0", ["GPU:0"]),
        ("cuda:0", "cuda:0", ["GPU:0"]),
        ("cuda:2", "cuda:2", ["GPU:2"]),
        ("all", "cuda:0,cuda:1,cuda:2", ["GPU:0", "GPU:1", "GPU:2"]),
    ],
)
def test_use_device_shows_one_gpu(name, chosen, gpus, visible):
    assert keras_ds2.use_device(name) == chosen
    assert visible["GPU"] == gpus
    assert visible["growth"] == [(gpu, True) for gpu in gpus]


@pytest.mark.parametrize("name", ["cuda:3", "cuda", "gpu:0", "GPU:0", ""])
def test_missing_device_is_an_error(name, visible):
    message = f"no device '{name}'. Available: cpu, cuda:0, cuda:1, cuda:2$"
    with pytest.raises(ValueError, match=message):
        keras_ds2.use_device(name)
    assert "GPU" not in visible


def test_without_a_gpu(monkeypatch):
    monkeypatch.setattr(tf.config, "list_physical_devices", lambda kind: [])
    with pytest.raises(ValueError, match="Available: cpu. TensorFlow sees no"):
        keras_ds2.use_device("cuda:0")
    with pytest.raises(ValueError, match="Available: cpu$"):
        keras_ds2.use_device("tpu")


@pytest.mark.parametrize("name, number", [("cpu", 0), ("cpu", 9), ("auto", 2)])
def test_devices_that_the_cpu_cannot_be(name, number, visible, monkeypatch):
    monkeypatch.setattr("os.sched_getaffinity", lambda process: range(8))
    with pytest.raises(ValueError, match="from 1 to the number of cores, 8, "):
        keras_ds2.use_device(name, number)
    assert "GPU" not in visible


def test_strategy_that_cannot_be():
    assert keras_ds2.use_strategy("none").num_replicas_in_sync == 1
    with pytest.raises(ValueError, match="needs two devices or more"):
        keras_ds2.use_strategy("mirrored")
    with pytest.raises(ValueError, match="Received: name='horovod'"):
        keras_ds2.use_strategy("horovod")


def test_device_is_chosen_before_tensorflow_is_used(visible, monkeypatch):
    def refuse(devices, kind):
        raise RuntimeError("Visible devices cannot be modified")

    monkeypatch.setattr(tf.config, "set_visible_devices", refuse)
    with pytest.raises(RuntimeError, match="before TensorFlow is first used"):
        keras_ds2.use_device("cuda:1")


@pytest.mark.parametrize("has_gpu", [False, True])
def test_mixed_precision(has_gpu, monkeypatch):
    before = keras.config.dtype_policy()
    gpus = ["GPU:0"] if has_gpu else []
    monkeypatch.setattr(tf.config, "get_visible_devices", lambda kind: gpus)
    automatic = "mixed_float16" if has_gpu else "float32"
    names = ("auto", "float32", "mixed_bfloat16", "mixed_float16")
    try:
        for name in names:
            expected = automatic if name == "auto" else name
            assert keras_ds2.use_mixed_precision(name) == expected
            assert keras.config.dtype_policy().name == expected
        with pytest.raises(ValueError, match="float12"):
            keras_ds2.use_mixed_precision("float12")
    finally:
        keras.config.set_dtype_policy(before)


# === Figures ===


def test_learning_curves(tmp_path):
    log = tmp_path / "log.csv"
    log.write_text(
        "epoch,cer,loss,val_cer,val_loss,val_wer,wer\n"
        "0,2.5,300.0,0.9,200.0,1.0,1.0\n"
        "1,0.5,100.0,0.4,90.0,0.8,0.7\n"
    )
    keras_ds2.plot_learning_curves(log, tmp_path / "all.png")
    assert (tmp_path / "all.png").read_bytes().startswith(PNG)
    log.write_text("epoch,cer,loss,wer\n0,2.5,300.0,1.0\n")
    keras_ds2.plot_learning_curves(log, tmp_path / "training.png")
    assert (tmp_path / "training.png").stat().st_size > 10_000
    log.write_text("epoch,cer,loss,wer\n")
    with pytest.raises(ValueError, match="log.csv' holds no epoch yet"):
        keras_ds2.plot_learning_curves(log, tmp_path / "none.png")
    assert not (tmp_path / "none.png").exists()


def test_transcription_figure(trained, rows, tmp_path, monkeypatch):
    from matplotlib import pyplot

    shown = []
    close = pyplot.close

    def spy(figure):
        shown.extend(figure.axes)
        close(figure)

    monkeypatch.setattr(pyplot, "close", spy)
    path = tmp_path / "utterance.png"
    keras_ds2.plot_transcription(trained, rows[1].audio, rows[1].text, path)
    assert path.read_bytes().startswith(PNG)
    top, middle, bottom = shown
    [hypothesis] = trained.transcribe([rows[1].audio])
    assert rows[1].text in top.get_title()
    assert hypothesis in bottom.get_title()
    # 3.14 s: 312 frames of 80 bins, 156 of the blank and 28 characters.
    assert middle.images[0].get_array().shape == (80, 312)
    assert bottom.images[0].get_array().shape == (29, 156)
    for axes, words in ((top, rows[1].text), (bottom, hypothesis)):
        assert [text.get_text() for text in axes.texts] == words.split()
    assert not pyplot.get_fignums()


def test_figures_without_matplotlib(tmp_path, trained, rows, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    message = r"pip install 'keras_ds2\[plot\]'"
    with pytest.raises(ImportError, match=message):
        keras_ds2.plot_learning_curves("log.csv", tmp_path / "a.png")
    with pytest.raises(ImportError, match=message):
        DecoderTuning([], None, None, 0.0, 0).plot(tmp_path / "a.png")
    with pytest.raises(ImportError, match=message):
        keras_ds2.plot_transcription(
            trained, rows[0].audio, "", tmp_path / "a.png"
        )
