"""Oracle: the model before it was saved, in a process that never saw it.

`data/tiny.keras` has learned two of the bundled clips; `data/tiny.json` holds
what it said when it was made. It shows that files of older versions still
load. It was made by

    model = keras_ds2.DeepSpeech2(
        conv_filters=(8, 8), conv_kernel_sizes=((5, 9), (5, 5)),
        num_rnn_layers=1, rnn_units=56, dense_units=32, dropout=0.0,
    )
    model.adapt(two_clips.one_pass())
    model.compile(keras.optimizers.Adam(5e-3, global_clipnorm=400.0))
    model.fit(two_clips.stream(), steps_per_epoch=440)

and saved as a copy without the optimizer, to be smaller.
"""

import json
import pathlib
import subprocess
import sys

import keras
import numpy as np
import pytest
from keras.src.saving.serialization_lib import ObjectSharingScope

import keras_ds2
from keras_ds2.audio import pad_samples
from keras_ds2.models.parts import recurrent_layer

ROOT = pathlib.Path(__file__).parent.parent
DATA = ROOT / "tests" / "data"
SMALL = {
    "conv_filters": (4, 4),
    "conv_kernel_sizes": ((5, 9), (5, 5)),
    "num_rnn_layers": 2,
    "rnn_units": 16,
    "dense_units": 16,
    "dropout": 0.1,
    "alphabet": "zyxwvutsrqponmlkjihgfedcba '",
}
SMALL_FIRST = {
    "context": 2,
    "dense_units": 16,
    "rnn_units": 16,
    "dropout": 0.1,
    "alphabet": SMALL["alphabet"],
}
MODELS = {keras_ds2.DeepSpeech: SMALL_FIRST, keras_ds2.DeepSpeech2: SMALL}
every_model = pytest.mark.parametrize("cls", MODELS)


@pytest.fixture(scope="module")
def inputs():
    files = sorted(DATA.glob("LibriSpeech/train-clips/*/*/*.opus"))[:2]
    first, second = (keras_ds2.load_audio(file) for file in files)
    return pad_samples([first[8000:24000], second[8000:19000]])


@pytest.fixture(scope="module")
def batch(inputs):
    tokenizer = keras_ds2.CharacterTokenizer(SMALL["alphabet"])
    labels = tokenizer.tokenize(["go do you", "hear"])
    targets = {
        "labels": labels.to_tensor(tokenizer.padding_id),
        "label_length": labels.row_lengths(),
    }
    return inputs, {key: np.array(row) for key, row in targets.items()}


def train(cls, batch):
    """A few steps in mixed precision, so that every weight has moved."""
    keras.utils.set_random_seed(3)
    model = cls(**MODELS[cls], dtype="mixed_bfloat16")
    model.adapt([batch[0]])
    model.compile(keras.optimizers.Adam(keras_ds2.WarmupSchedule(8, 4)))
    model.fit(*batch, batch_size=2, epochs=3, verbose=0)
    return model


@pytest.fixture(scope="module")
def trained(batch):
    """A model of each class."""
    return {cls: train(cls, batch) for cls in MODELS}


READER = """
import json, sys
import numpy as np
import keras_ds2
import keras, tensorflow as tf

inputs = dict(np.load(f"{sys.argv[1]}/inputs.npz"))
targets = dict(np.load(f"{sys.argv[1]}/targets.npz"))
reports = {}
for name in sys.argv[2:]:
    folder = f"{sys.argv[1]}/{name}"
    loaded = keras.models.load_model(f"{folder}/model.keras")
    rebuilt = getattr(keras_ds2, name).from_config(
        json.load(open(f"{folder}/config.json"))
    )
    rebuilt.load_weights(f"{folder}/model.weights.h5")
    exported = tf.saved_model.load(f"{folder}/exported")
    np.savez(
        f"{folder}/outputs.npz",
        loaded=loaded.predict_on_batch(inputs)["logits"],
        rebuilt=rebuilt.predict_on_batch(inputs)["logits"],
        exported=exported.serve(inputs)["logits"].numpy(),
        length=exported.serve(inputs)["logit_length"].numpy(),
    )
    texts = loaded.transcribe_batch(inputs)
    rnn = next(x for x in loaded.layers if x.name in ("rnn_1", "rnn_4"))
    history = loaded.fit(inputs, targets, batch_size=2, verbose=0).history
    reports[name] = {
        "policy": loaded.dtype_policy.name,
        "rnn_policy": rnn.dtype_policy.name,
        "alphabet": loaded.alphabet,
        "adapted": loaded.get_layer("log_mel").is_adapted,
        "rebuilt_adapted": rebuilt.get_layer("log_mel").is_adapted,
        "iterations": int(loaded.optimizer.iterations),
        "schedule": loaded.optimizer.get_config()["learning_rate"],
        "loss": history["loss"][0],
        "texts": texts,
    }
print(json.dumps(reports))
"""


@pytest.fixture(scope="module")
def read(batch, trained, tmp_path_factory):
    """What one fresh process, for all models, reports of each, and computes."""
    root = tmp_path_factory.mktemp("saved")
    for name, arrays in zip(("inputs", "targets"), batch, strict=True):
        np.savez(root / f"{name}.npz", **arrays)
    folders = {cls: root / cls.__name__ for cls in trained}
    for cls, folder in folders.items():
        folder.mkdir()
        trained[cls].save(folder / "model.keras")
        trained[cls].save_weights(folder / "model.weights.h5")
        trained[cls].export(folder / "exported", verbose=False)
        config = json.dumps(trained[cls].get_config())
        (folder / "config.json").write_text(config)
    names = [folder.name for folder in folders.values()]
    result = subprocess.run(
        [sys.executable, "-c", READER, str(root), *names],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert result.returncode == 0, result.stderr
    reports = json.loads(result.stdout.splitlines()[-1])
    return {
        cls: (reports[folder.name], np.load(folder / "outputs.npz"))
        for cls, folder in folders.items()
    }


@every_model
def test_a_fresh_process_gives_the_same(cls, batch, trained, read):
    inputs, _ = batch
    trained = trained[cls]
    report, outputs = read[cls]
    expected = trained.predict_on_batch(inputs)
    largest = np.abs(expected["logits"][:, :, :29]).max()
    for name in ("loaded", "rebuilt", "exported"):
        # The same operations, compiled apart: bfloat16 has 8 bits.
        np.testing.assert_allclose(
            outputs[name], expected["logits"], rtol=0, atol=1e-2 * largest
        )
    np.testing.assert_array_equal(outputs["length"], expected["logit_length"])
    assert report["texts"] == trained.transcribe_batch(inputs)
    assert report["policy"] == report["rnn_policy"] == "mixed_bfloat16"
    assert report["alphabet"] == SMALL["alphabet"]
    assert report["adapted"] and report["rebuilt_adapted"]
    # Three steps before saving, one after loading.
    assert report["iterations"] == 4
    assert report["schedule"]["registered_name"] == "keras_ds2>WarmupSchedule"
    assert np.isfinite(report["loss"])


@every_model
def test_training_goes_on_as_if_never_saved(cls, batch, tmp_path):
    def make():
        keras.utils.set_random_seed(4)
        model = cls(**{**MODELS[cls], "dropout": 0.0})
        model.adapt([batch[0]])
        model.compile(keras.optimizers.Adam(1e-2), run_eagerly=True)
        return model

    short = tuple(
        {
            key: row[:, :4800] if key == "audio" else row
            for key, row in x.items()
        }
        for x in batch
    )
    short[0]["audio_length"] = np.array([4800, 4000])
    short[1]["label_length"] = np.array([3, 2])
    whole, first = make(), make()
    whole.fit(*short, batch_size=2, epochs=2, verbose=0)
    first.fit(*short, batch_size=2, epochs=1, verbose=0)
    first.save(tmp_path / "model.keras")
    second = keras.models.load_model(tmp_path / "model.keras")
    for ours, theirs in zip(
        second.optimizer.variables, first.optimizer.variables, strict=True
    ):
        np.testing.assert_array_equal(ours, theirs)
    second.compile(second.optimizer, run_eagerly=True)
    second.fit(*short, batch_size=2, epochs=1, verbose=0)
    for ours, theirs in zip(second.weights, whole.weights, strict=True):
        # Adam's first steps have the size of the learning rate, 1e-2, and
        # without the saved moments would differ by as much.
        np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-5)


def test_checked_in_model_still_says_the_same():
    model = keras.models.load_model(DATA / "tiny.keras")
    expected = json.loads((DATA / "tiny.json").read_text())
    files = [str(DATA / name) for name in expected["audio"]]
    assert model.transcribe(files) == expected["transcripts"]
    inputs = pad_samples([keras_ds2.load_audio(file) for file in files])
    outputs = model.predict_on_batch(inputs)
    assert outputs["logit_length"].tolist() == expected["logit_length"]
    np.testing.assert_allclose(
        outputs["logits"][:, 40:44, :5],
        expected["logits"],
        rtol=0,
        atol=1e-4,  # of logits up to 45: float32, on another processor
    )
    assert (DATA / "tiny.keras").stat().st_size < 300_000


@pytest.mark.filterwarnings("ignore:Skipping nested container")
@pytest.mark.parametrize(
    "options, message",
    [
        ({"rnn_units": 8}, "shape of the target variable.*rnn_1/lstm_cell"),
        ({"rnn_type": "gru"}, "'gru_cell' expected 3 variables"),
        ({"num_rnn_layers": 3}, "'rnn_3_norm' expected 4 variables"),
        ({"alphabet": "abc"}, "shape of the target variable.*logits/kernel"),
        ({"num_rnn_layers": 1}, "belongs to a model with more layers"),
        ({"row_conv_width": 0}, "belongs to a model with more layers"),
    ],
    ids=str,
)
def test_weights_of_another_architecture_are_refused(
    options, message, trained, tmp_path
):
    trained[keras_ds2.DeepSpeech2].save_weights(tmp_path / "model.weights.h5")
    other = keras_ds2.DeepSpeech2(**{**SMALL, **options})
    with pytest.raises(ValueError, match=rf"(?s){message}"):
        other.load_weights(tmp_path / "model.weights.h5")


@keras.saving.register_keras_serializable(package="test")
class WithAnArgumentMore(keras_ds2.DeepSpeech2):
    def __init__(self, extra=1, **kwargs):
        super().__init__(**kwargs)
        self.extra = extra


def test_subclasses_keep_all_arguments(tmp_path):
    model = WithAnArgumentMore(extra=2, **SMALL)
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    assert type(loaded) is WithAnArgumentMore
    assert loaded.get_config() == model.get_config()
    assert loaded.extra == 2


def test_layers_of_two_directions_are_not_taken_for_each_other():
    # What `load_model` opens. An object's address may be that of a dead one.
    with ObjectSharingScope():
        layers = [
            recurrent_layer("lstm", 2, True, "sum", None, f"rnn_{number}")
            for number in range(300)
        ]
    parts = [
        x for both in layers for x in (both.forward_layer, both.backward_layer)
    ]
    assert len({id(part) for part in parts}) == 600
    assert [part.go_backwards for part in parts] == 300 * [False, True]
