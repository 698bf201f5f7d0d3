"""Oracles: the model that was saved, file contents read with h5py, and files
spoiled by the test with one fault each."""

import hashlib
import json
from pathlib import Path

import h5py
import keras
import numpy as np
import pytest

import keras_ds2

CLIPS = "tests/data/LibriSpeech"
TINY = dict(
    conv_filters=(4, 4),
    num_rnn_layers=2,
    rnn_units=16,
    bidirectional=True,
    dense_units=16,
)


@pytest.fixture(scope="module")
def model():
    keras.utils.set_random_seed(0)
    model = keras_ds2.DeepSpeech2(**TINY)
    data = keras_ds2.data.prepare_dataset(CLIPS, ["train-clips"], model, 2)
    model.adapt(data.one_pass())
    model.compile(keras.optimizers.Adam(1e-3))
    # Statistics that are not the initial ones.
    model.fit(data.stream(), steps_per_epoch=3, verbose=0)
    return model


@pytest.fixture
def card(model, tmp_path):
    path = tmp_path / "mine.json"
    facts = {"data": "six clips", "metrics": {"wer": 0.5}}
    keras_ds2.save_pretrained(model, path, **facts)
    return path


def logits(model):
    generator = np.random.default_rng(0)
    inputs = {
        "audio": generator.uniform(-0.5, 0.5, (2, 16000)).astype("float32"),
        "audio_length": np.array([16000, 9000]),
    }
    return model.predict_on_batch(inputs)["logits"]


def test_round_trip(model, card):
    keras.utils.set_random_seed(1)
    loaded = keras_ds2.load_pretrained(card)
    assert loaded.get_config() == model.get_config()
    assert loaded.variables[0].dtype == "float32"
    for variable, original in zip(loaded.weights, model.weights, strict=True):
        # What 8 bits of fraction hold; vectors and statistics hold more.
        tolerance = 2**-9 if len(variable.shape) > 1 else 0
        np.testing.assert_allclose(
            variable.numpy(), original.numpy(), rtol=tolerance, atol=6e-8
        )
    np.testing.assert_allclose(logits(loaded), logits(model), atol=8e-3)
    description = json.loads(card.read_text())
    assert description["data"] == "six clips"
    assert description["metrics"] == {"wer": 0.5}
    weights = card.with_name("mine.weights.h5").read_bytes()
    assert description["sha256"] == hashlib.sha256(weights).hexdigest()


def test_matrices_take_16_bits(model, card):
    dtypes, bits = {}, {}

    def visit(name, item):
        if isinstance(item, h5py.Dataset):
            dtypes[name] = item.ndim, item.dtype
            if item.size > 2000:
                bits[name] = 8 * item.id.get_storage_size() / item.size

    with h5py.File(card.with_name("mine.weights.h5")) as file:
        file.visititems(visit)
    assert bits and max(bits.values()) < 13.5
    matrices = {dtype for n, dtype in dtypes.values() if n > 1}
    vectors = {dtype for n, dtype in dtypes.values() if n < 2}
    assert matrices == {np.dtype("float16")}
    assert vectors == {np.dtype("float32"), np.dtype("int32")}
    # The model was trained; its optimizer is not for those who load it.
    assert model.optimizer.iterations > 0
    assert len(dtypes) == len(model.weights)


def test_weights_go_into_a_model_that_exists(model, card):
    keras.utils.set_random_seed(1)
    other = keras_ds2.DeepSpeech2(**TINY)
    other.load_weights(keras_ds2.pretrained_weights(card))
    np.testing.assert_allclose(logits(other), logits(model), atol=8e-3)
    shallower = keras_ds2.DeepSpeech2(**TINY | {"num_rnn_layers": 1})
    with pytest.raises(ValueError, match="model with more layers"):
        shallower.load_weights(keras_ds2.pretrained_weights(card))
    wider = keras_ds2.DeepSpeech2(**TINY | {"rnn_units": 17})
    with pytest.raises(ValueError, match="(?s)shape"):
        wider.load_weights(keras_ds2.pretrained_weights(card))


def test_dtype_is_the_users_choice(model, card):
    loaded = keras_ds2.load_pretrained(card, dtype="mixed_bfloat16")
    assert loaded.dtype_policy.name == "mixed_bfloat16"
    np.testing.assert_allclose(logits(loaded), logits(model), atol=0.1)


@pytest.mark.parametrize("fault", ["cut", "flipped", "other"])
def test_damaged_weights_are_refused(model, card, fault):
    weights = card.with_name("mine.weights.h5")
    data = bytearray(weights.read_bytes())
    if fault == "cut":
        del data[-100:]
    elif fault == "flipped":
        data[len(data) // 2] ^= 1
    else:
        model.save_weights(weights)
        data = bytearray(weights.read_bytes())
    weights.write_bytes(data)
    for function in (keras_ds2.load_pretrained, keras_ds2.pretrained_weights):
        with pytest.raises(ValueError, match="is damaged or belongs to ano"):
            function(card)


def test_the_first_network_too(tmp_path):
    model = keras_ds2.DeepSpeech(context=2, dense_units=8, rnn_units=8)
    keras_ds2.save_pretrained(model, tmp_path / "first.json")
    loaded = keras_ds2.load_pretrained(tmp_path / "first.json")
    assert isinstance(loaded, keras_ds2.DeepSpeech)
    assert loaded.get_config() == model.get_config()
    np.testing.assert_allclose(logits(loaded), logits(model), atol=1e-2)


def test_mixed_precision_saves_what_is_precise(tmp_path):
    model = keras_ds2.DeepSpeech2(**TINY, dtype="mixed_float16")
    keras_ds2.save_pretrained(model, tmp_path / "half.json")
    keras.mixed_precision.set_global_policy("mixed_bfloat16")
    try:
        loaded = keras_ds2.load_pretrained(tmp_path / "half.json")
    finally:
        keras.mixed_precision.set_global_policy("float32")
    assert loaded.dtype_policy.name == "mixed_bfloat16"
    for variable, original in zip(loaded.weights, model.weights, strict=True):
        assert variable.dtype == original.dtype != "float16"
        np.testing.assert_allclose(
            variable.numpy(), original.numpy(), rtol=2**-9, atol=6e-8
        )


def test_what_is_missing_is_named(card):
    with pytest.raises(ValueError, match=r"one of \[.*\], or the path of a"):
        keras_ds2.load_pretrained("an5")
    card.with_name("mine.weights.h5").unlink()
    with pytest.raises(ValueError, match="mine.weights.h5' does not exist"):
        keras_ds2.load_pretrained(card)
    content = json.loads(card.read_text())
    card.write_text(json.dumps(content | {"model": "os.system"}))
    with pytest.raises(ValueError, match="`model` .DeepSpeech or DeepSpeech2"):
        keras_ds2.load_pretrained(card)
    card.write_text("{")
    with pytest.raises(ValueError, match="mine.json' is not JSON"):
        keras_ds2.load_pretrained(card)
    card.unlink()
    with pytest.raises(ValueError, match="mine.json' does not exist"):
        keras_ds2.load_pretrained(card)
    for name in ("../weights/an4", "an4.weights", str(card.with_suffix(""))):
        with pytest.raises(ValueError, match="`name` must be one of"):
            keras_ds2.load_pretrained(name)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"sha256": None}, "must be an object with the keys .*`sha256`"),
        ({"model": ["DeepSpeech2"]}, "must be an object with the keys"),
        ({"arguments": []}, "must be an object with the keys"),
        ({"arguments": {"units": 8}}, "Card '.*mine.json': no DeepSpeech2 has"),
        ({"arguments": {"dtype": "float16"}}, "no DeepSpeech2 has"),
        ({"arguments": {"rnn_units": "8"}}, "Card '.*mine.json': no Dee"),
    ],
)
def test_cards_that_are_wrong(card, changes, message):
    content = json.loads(card.read_text())
    card.write_text(json.dumps(content | changes))
    with pytest.raises(ValueError, match=f"(?s){message}"):
        keras_ds2.load_pretrained(card)


def test_what_cannot_be_saved_is_refused(model, tmp_path):
    with pytest.raises(ValueError, match=r"must end in '.json'. Received"):
        keras_ds2.save_pretrained(model, tmp_path / "mine")
    with pytest.raises(ValueError, match=r"keys already: \['sha256'\]"):
        keras_ds2.save_pretrained(model, tmp_path / "a.json", sha256="0")
    with pytest.raises(ValueError, match="must be a DeepSpeech or DeepSpeech2"):
        keras_ds2.save_pretrained(keras.Sequential(), tmp_path / "a.json")
    for fact in (np.float32(1), float("nan")):
        with pytest.raises(ValueError, match="must be plain JSON"):
            keras_ds2.save_pretrained(model, tmp_path / "a.json", wer=fact)
    broken = keras_ds2.DeepSpeech2(**TINY)
    dense = broken.get_layer("dense")
    for variable, value in (
        (dense.kernel, 7e4),
        (dense.kernel, np.nan),
        (dense.bias, np.nan),
        (dense.bias, np.inf),
    ):
        before = variable.numpy()
        variable.assign(np.full(variable.shape, value))
        with pytest.raises(ValueError, match=f"dense.*values up to {value}"):
            keras_ds2.save_pretrained(broken, tmp_path / "a.json")
        variable.assign(before)
    assert not list(Path(tmp_path).iterdir())


def test_what_is_refused_leaves_what_was_there(model, card):
    paths = card, card.with_name("mine.weights.h5")
    before = [path.read_bytes() for path in paths]
    other = keras_ds2.DeepSpeech2(**TINY)
    with pytest.raises(ValueError, match="must be plain JSON"):
        keras_ds2.save_pretrained(other, card, wer=np.float32(1))
    assert [path.read_bytes() for path in paths] == before
    keras_ds2.save_pretrained(other, card)
    np.testing.assert_allclose(
        logits(keras_ds2.load_pretrained(card)), logits(other), atol=8e-3
    )
    assert sorted(card.parent.iterdir()) == sorted(paths)


# === What is shipped ===


@pytest.fixture(scope="module")
def an4():
    return keras_ds2.load_pretrained("an4")


def test_an4_hears_the_bundled_clips_word_for_word(an4):
    rows = list(keras_ds2.data.read_an4("tests/data/an4"))
    assert len(rows) == 7
    texts = an4.transcribe([row.audio for row in rows])
    assert texts == [row.text for row in rows]


def test_an4_goes_into_a_model_that_exists(an4):
    card = json.loads(Path("keras_ds2/weights/an4.json").read_text())
    model = keras_ds2.DeepSpeech2(**card["arguments"])
    model.load_weights(keras_ds2.pretrained_weights("an4"))
    np.testing.assert_array_equal(logits(model), logits(an4))


def test_en_read_hears_speakers_it_has_not_met():
    model = keras_ds2.load_pretrained("en-read")
    folder = f"{CLIPS}/dev-clips"
    clips = [
        f"{folder}/174/168635/174-168635-0021.opus",
        f"{folder}/2277/149897/2277-149897-0012.opus",
    ]
    texts = model.transcribe(clips)
    assert texts == [
        "he pret hated her and shes sprinht thing to him",
        "if he only had that letter back he would ensend eit",
    ]
    for page in ("README.md", "docs/quickstart.md", "docs/models.md"):
        assert texts[1] in Path(page).read_text()
    # It streams.
    recognizer = keras_ds2.StreamingRecognizer(model)
    recognizer.accept(keras_ds2.load_audio(clips[1]))
    assert recognizer.finish().text == texts[1]


def test_shipped_cards_say_all_that_a_user_asks():
    cards = sorted(Path("keras_ds2/weights").glob("*.json"))
    assert [card.stem for card in cards] == ["an4", "en-read"]
    for path in cards:
        card = json.loads(path.read_text())
        for key in ("data", "license", "command", "commit", "seed", "metrics"):
            assert card[key] not in ("", None), (path, key)
        assert 0 < card["metrics"]["validation_wer"] < 1
        weights = path.with_name(f"{path.stem}.weights.h5")
        assert weights.stat().st_size < 24e6
