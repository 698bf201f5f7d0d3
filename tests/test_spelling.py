"""Oracles: the whole model, of which the second network is a part; speech in
which every character is heard for what it is; places counted by hand."""

import itertools
import pathlib

import jiwer
import keras
import numpy as np
import pytest
from models import padded, scramble

import keras_ds2
from keras_ds2.training.heard_places import HeardPlaces
from keras_ds2.training.imagined_speech import _vary

ALPHABET = " 'abcdefghijklmnopqrstuvwxyz"
TEXTS = ["he said so", "so she is", "is he not", "the hat is his"]
SMALL = {
    "num_mel_bins": 20,
    "conv_filters": (3, 3),
    "conv_kernel_sizes": ((5, 9), (5, 5)),
    "num_rnn_layers": 1,
    "rnn_units": 8,
    "dense_units": 8,
    "num_spelling_layers": 1,
    "spelling_units": 8,
}


def small_model(**options):
    keras.utils.set_random_seed(0)
    return scramble(keras_ds2.DeepSpeech2(**{**SMALL, **options}))


def clearly_heard(texts, certainty=0.9):
    """Two frames of blank after each character's one or two."""
    heard = object.__new__(keras_ds2.HeardSpeech)
    heard.alphabet = heard.heard_alphabet = ALPHABET
    heard.heard_by = "nobody"
    heard.texts = texts
    heard.log_probs = []
    for text in texts:
        symbols = []
        for i, character in enumerate(text):
            symbols += [1 + ALPHABET.index(character)] * (1 + i % 2) + [0, 0]
        probs = np.full((len(symbols), 29), (1 - certainty) / 28)
        probs[np.arange(len(symbols)), symbols] = certainty
        heard.log_probs.append(np.log(probs).astype("float16"))
    return heard


def read(log_probs):
    [labels] = keras_ds2.greedy_decode(log_probs[None], [len(log_probs)])
    return "".join(
        ALPHABET[label - 1] for label in np.array(labels) if label > 0
    )


@pytest.fixture(scope="module")
def files():
    data = pathlib.Path(__file__).parent / "data"
    return sorted(map(str, data.glob("LibriSpeech/*/*/*/*.opus")))[:3]


@pytest.fixture(scope="module")
def dataset():
    return keras_ds2.data.prepare_dataset(
        "tests/data/LibriSpeech", ["dev-clips"], small_model(), batch_size=2
    )


# === What is heard ===


def test_what_is_heard_is_what_the_second_network_takes(dataset):
    model = small_model(normalize=False)
    heard = keras_ds2.HeardSpeech(model, dataset)
    inputs, targets = next(iter(dataset.one_pass()))
    expected = model(inputs)["logits"].numpy()
    second = keras_ds2.SpellingModel(model)
    for i, (text, log_probs) in enumerate(
        zip(heard.texts, heard.log_probs, strict=True)
    ):
        count = int(targets["label_length"][i])
        labels = targets["labels"][i, :count].numpy()
        assert text == "".join(ALPHABET[label - 1] for label in labels)
        np.testing.assert_allclose(
            np.exp(log_probs.astype("float32")).sum(axis=1), 1, atol=1e-2
        )
        x, y = next(iter(heard.one_pass(batch_size=2)))
        logits = second(x)["logits"].numpy()
        length = model.logit_length(int(inputs["audio_length"][i]))
        # Of 16 bits.
        np.testing.assert_allclose(
            logits[i, :length], expected[i, :length], atol=2e-2
        )
        assert y["label_length"][i] == count
        assert y["labels"][i, :count].numpy().tolist() == labels.tolist()


def test_heard_as_in_training_is_another_and_changes_no_weight(dataset):
    model = small_model(normalize=False, dropout=0.5)
    before = model.get_weights()
    whole = keras_ds2.HeardSpeech(model, dataset)
    dropped = keras_ds2.HeardSpeech(model, dataset, training=True)
    assert whole.texts == dropped.texts
    for one, other in zip(whole.log_probs, dropped.log_probs, strict=True):
        assert one.shape == other.shape
        assert np.abs(one - other).max() > 0.05
    # Another time other units are dropped.
    again = keras_ds2.HeardSpeech(model, dataset, training=True)
    assert not np.array_equal(dropped.log_probs[0], again.log_probs[0])
    for weight, value in zip(model.weights, before, strict=True):
        np.testing.assert_array_equal(weight, value, weight.path)


def test_what_breaks_while_it_is_heard_changes_no_weight(dataset, monkeypatch):
    model = small_model(normalize=False)
    before = model.get_weights()
    take = keras_ds2.HeardSpeech._take

    def fail(self, *args):
        take(self, *args)
        raise OSError("no such file")

    monkeypatch.setattr(keras_ds2.HeardSpeech, "_take", fail)
    with pytest.raises(OSError, match="no such file"):
        keras_ds2.HeardSpeech(model, dataset, training=True)
    for weight, value in zip(model.weights, before, strict=True):
        np.testing.assert_array_equal(weight, value, weight.path)


def test_labels_are_of_what_is_written_not_of_what_is_heard():
    old = small_model(normalize=False)
    model = old.with_vocabulary("é" + ALPHABET[::-1])
    dataset = keras_ds2.data.prepare_dataset(
        "tests/data/LibriSpeech", ["dev-clips"], model, batch_size=2
    )
    heard = keras_ds2.HeardSpeech(model, dataset)
    assert heard.log_probs[0].shape[1] == 1 + len(ALPHABET)
    x, y = next(iter(heard.one_pass()))
    for labels, count, text in zip(
        y["labels"].numpy(), y["label_length"].numpy(), heard.texts, strict=True
    ):
        assert "".join(model.alphabet[i - 1] for i in labels[:count]) == text
    imagined = keras_ds2.ImaginedSpeech([heard], ["he said"], 2, heard_share=0)
    _, y = next(iter(imagined.stream()))
    text = "".join(model.alphabet[i - 1] for i in y["labels"][0, :7].numpy())
    assert text == "he said"
    second = keras_ds2.SpellingModel(model)
    assert second(x)["logits"].shape[-1] == 32
    with pytest.raises(ValueError, match="heard.0. these are not: 'é'"):
        keras_ds2.ImaginedSpeech([heard], ["é"], 2)


def test_other_models_and_data_are_refused(dataset):
    model = small_model(alphabet="abc")
    with pytest.raises(ValueError, match="no corpus statistics yet"):
        keras_ds2.HeardSpeech(small_model(), dataset)
    model = small_model(alphabet="abc", normalize=False)
    with pytest.raises(ValueError, match="must have the model's alphabet, 'a"):
        keras_ds2.HeardSpeech(model, dataset)


def test_a_second_network_behind_a_trained_one(files):
    first = small_model(num_spelling_layers=0).with_vocabulary(ALPHABET[::-1])
    model = keras_ds2.add_spelling(first, 2, spelling_units=4)
    inputs = padded([keras_ds2.load_audio(file)[:9000] for file in files])
    heard = keras.Model(model.input, model.get_layer("heard_logits").output)
    np.testing.assert_array_equal(heard(inputs), first(inputs)["logits"])
    assert (model.num_spelling_layers, model.spelling_units) == (2, 4)
    again = keras_ds2.add_spelling(model, dtype="mixed_bfloat16")
    assert again.dtype_policy.name == "mixed_bfloat16"
    for weight, other in zip(model.weights, again.weights, strict=True):
        np.testing.assert_array_equal(weight, other)
    for arguments in ({"num_spelling_layers": 0}, {"alphabet": "abc"}):
        with pytest.raises(ValueError, match="at least 1, and alphabets canno"):
            keras_ds2.add_spelling(first, **arguments)
    with pytest.raises(ValueError, match="DeepSpeech2. Received: a DeepSpeech"):
        keras_ds2.add_spelling(
            keras_ds2.DeepSpeech(context=1, dense_units=4, rnn_units=4)
        )


def test_a_model_without_a_second_network_is_refused(dataset):
    model = small_model(num_spelling_layers=0)
    for make in (
        lambda: keras_ds2.HeardSpeech(model, dataset),
        lambda: keras_ds2.SpellingModel(model),
    ):
        with pytest.raises(ValueError, match="DeepSpeech2.num_spelling_layers"):
            make()


def test_characters_divide_the_frames():
    heard = clearly_heard(["abc", "b"])
    # a - - | b b - - | c - -: the blanks between two are divided.
    first, second = heard.character_frames()
    assert first.tolist() == [0, 2, 6, 10]
    assert second.tolist() == [0, 3]
    heard.log_probs[0] = heard.log_probs[0][:2]
    heard.texts[1] = ""
    assert heard.character_frames() == [None, None]


# === What is imagined ===


def test_an_imagined_sentence_is_read_as_it_is_written():
    heard = clearly_heard(TEXTS)
    imagined = keras_ds2.ImaginedSpeech([heard], TEXTS, 2)
    generator = np.random.default_rng(0)
    for text in ("the note is his", "dast e th", "i", "o o  o", *TEXTS):
        assert read(imagined.imagine(text, 0, generator)) == text


def test_stretches_stand_between_the_characters_they_stood_between():
    texts = ["xabcdy", "zabcdz", "abcd", "q"]
    places = HeardPlaces(clearly_heard(texts))
    generator = np.random.default_rng(0)

    def drawn(text, position, count):
        draws = [
            places.draw(text, position, count, generator) for _ in range(40)
        ]
        return {(size, stretch.tobytes()) for size, stretch in draws}

    def place(row, start, stop):
        frames = places._frames[row]
        part = places.log_probs[row][frames[start] : frames[stop]]
        return stop - start, part.tobytes()

    # After x it was said once, after z once, as a whole once.
    assert drawn("xabcdy", 1, 4) == {place(0, 1, 5)}
    assert drawn("zabcdz", 1, 4) == {place(1, 1, 5)}
    assert drawn("abcd", 0, 4) == {place(2, 0, 4)}
    # At the beginning of an utterance once, though it ends otherwise.
    assert drawn("abcdef", 0, 3) == {place(2, 0, 3)}
    # Nothing was said after a q: anywhere.
    anywhere = {place(0, 1, 5), place(1, 1, 5), place(2, 0, 4)}
    assert drawn("qabcd", 1, 4) == anywhere
    # Neither before nor after it is as it was.
    assert drawn("qbcq", 1, 2) == {
        place(0, 2, 4),
        place(1, 2, 4),
        place(2, 1, 3),
    }
    # No further than was said, and at least one.
    assert drawn("qq", 0, 2) == {place(3, 0, 1)}


def test_stretches_do_not_end_where_words_do():
    """A network would learn where words end from where they meet."""
    sentences = [
        " ".join(words) for words in itertools.permutations("he so is".split())
    ]
    heard = clearly_heard(sentences)
    places = HeardPlaces(heard)
    generator = np.random.default_rng(0)
    ends = []
    for sentence in sentences * 40:
        position = 0
        while position < len(sentence):
            count = int(generator.integers(3, 11, endpoint=True))
            size, _ = places.draw(sentence, position, count, generator)
            position += size
            if position < len(sentence):
                ends.append(" " in sentence[position - 1 : position + 1])
    # Four of seven places within are beside a space.
    assert np.mean(ends) == pytest.approx(4 / 7, abs=0.1)


def test_batches_are_a_function_of_seed_and_step():
    heard = [clearly_heard(TEXTS), clearly_heard(TEXTS[::-1], 0.6)]

    def make(**kwargs):
        return keras_ds2.ImaginedSpeech(heard, TEXTS, 3, **kwargs)

    first, again = make(), make()
    again.first_step = 2
    stream = [batch for _, batch in zip(range(4), first.stream(), strict=False)]
    for (x, y), (other_x, other_y) in zip(
        stream[2:], again.stream(), strict=False
    ):
        for one, other in ((x, other_x), (y, other_y)):
            assert all(np.array_equal(one[k], other[k]) for k in one)
    x, y = first.batch_at(3)
    np.testing.assert_array_equal(
        stream[3][0]["heard_logits"], x["heard_logits"]
    )
    others = [first.batch_at(0), make(seed=1).batch_at(3)]
    for other, _ in others:
        assert not np.array_equal(other["heard_logits"], x["heard_logits"])
    assert x["heard_logits"].shape[::2] == (3, 31)
    assert np.all(x["heard_logits"][..., 29:] < -80)
    assert make().description() == first.description()
    assert make(seed=1).description() != first.description()


def test_batches_hold_what_was_heard_and_what_was_not():
    new = ["his hat is not so", "she is his"]
    heard = clearly_heard(TEXTS, certainty=0.999)
    share = 0.4
    imagined = keras_ds2.ImaginedSpeech([heard], new, 20, heard_share=share)
    texts = []
    for step in range(32):
        x, y = imagined.batch_at(step)
        lengths = x["num_frames"]
        # Of similar length; the longest of all has five times the shortest.
        assert max(lengths) < 2 * min(lengths)
        for row, n, labels, count in zip(
            x["heard_logits"], lengths, y["labels"], y["label_length"],
            strict=True,
        ):  # fmt: skip
            text = "".join(ALPHABET[i - 1] for i in labels[:count])
            texts.append(text)
            # But for a frame that was left out.
            assert abs(len(read(row[:n])) - len(text)) <= 4
    assert np.mean([text in TEXTS for text in texts]) == pytest.approx(
        share, abs=0.06
    )
    pairs = {f"{one} {two}" for one in new for two in new}
    assert set(texts) == {*TEXTS, *new, *pairs}


def test_shares_tell_who_speaks():
    heard = [clearly_heard(TEXTS, c) for c in (0.99, 0.3)]
    imagined = keras_ds2.ImaginedSpeech(heard, TEXTS, 50, shares=(3, 1))
    x, _ = imagined.batch_at(0)
    certain = x["heard_logits"][:, :9].max(axis=2).mean(axis=1) > -0.5
    assert np.mean(certain) == pytest.approx(0.75, abs=0.15)


def test_words_alone_are_never_two():
    heard = clearly_heard(["he", "so"])
    imagined = keras_ds2.ImaginedSpeech([heard], ["he", "so", "hes"], 20)
    lengths = [imagined.batch_at(i)[1]["label_length"] for i in range(16)]
    assert np.max(lengths) == 3


def test_what_is_varied_stays_what_it_is():
    [row] = clearly_heard(["she said that he is not so"], 0.99).log_probs
    generator = np.random.default_rng(0)
    varied = [_vary(row, generator) for _ in range(50)]
    lengths = [len(other) for other in varied]
    assert len(row) in lengths and len(set(lengths)) > 5
    assert max(abs(n / len(row) - 1) for n in lengths) < 0.1
    for other in varied:
        np.testing.assert_allclose(np.exp(other).sum(axis=1), 1, rtol=1e-4)
    sure = [np.exp(other.max(axis=1)).mean() for other in varied]
    assert min(sure) < 0.95 < 0.99 < max(sure)


@pytest.mark.parametrize(
    "arguments, message",
    [
        ({"sentences": []}, "must hold at least one"),
        ({"sentences": ["so", ""]}, "single spaces between. Received: ''"),
        ({"sentences": [" so"]}, "single spaces between. Received: ' so'"),
        ({"sentences": ["quick"]}, r"heard\[0\] these are not: 'ckqu'"),
        # Of which the recording is too short.
        ({"sentences": ["so", "z"]}, r"heard\[0\] these are not: 'z'"),
        ({"shares": (1, 2)}, r"1 of `heard`, shares=\[1, 2\]"),
        ({"shares": (0,)}, r"above 0.*shares=\[0\]"),
        ({"heard": []}, "0 of `heard`"),
        ({"heard_share": 1.0}, "below 1.*heard_share=1.0"),
        ({"batch_size": 0}, "at least 1.*batch_size=0"),
    ],
)
def test_invalid_arguments(arguments, message):
    heard = clearly_heard([*TEXTS, "zzz"])
    heard.log_probs[-1] = heard.log_probs[-1][:2]
    arguments = {"sentences": TEXTS, "batch_size": 2, **arguments}
    with pytest.raises(ValueError, match=message):
        keras_ds2.ImaginedSpeech(**{"heard": [heard], **arguments})


def test_what_two_models_hear_is_refused():
    for name in ("alphabet", "heard_by"):
        heard = [clearly_heard(TEXTS), clearly_heard(TEXTS)]
        setattr(heard[1], name, ALPHABET + "é")
        with pytest.raises(ValueError, match="of one model. Received: alpha"):
            keras_ds2.ImaginedSpeech(heard, TEXTS, 2)


def test_what_was_never_heard_is_named():
    imagined = keras_ds2.ImaginedSpeech([clearly_heard(TEXTS)], TEXTS, 2)
    with pytest.raises(ValueError, match="'q' was never heard"):
        imagined.imagine("he quit", 0, np.random.default_rng(0))


def test_another_recognizer_is_another_training(dataset):
    model = small_model(normalize=False)

    def described():
        heard = keras_ds2.HeardSpeech(model, dataset)
        return keras_ds2.ImaginedSpeech([heard], ["he"], 2).description()

    before = described()
    assert described() == before
    model.get_layer("heard_logits").bias.assign_add(np.ones(31))
    assert described() != before


# === What is learned ===


def fit(model, imagined, folder, epochs):
    second = keras_ds2.SpellingModel(model)
    second.compile(keras.optimizers.Adam(5e-3))
    second.fit(
        imagined.stream(),
        steps_per_epoch=3,
        epochs=epochs,
        verbose=0,
        callbacks=[
            keras_ds2.BackupAndRestore(folder, imagined, folder / "log.csv")
        ],
    )


def test_the_second_network_learns_alone_and_goes_on(tmp_path):
    heard = clearly_heard(TEXTS)
    weights = []
    for folder, parts in (("whole", [2]), ("parts", [1, 2])):
        for epochs in parts:
            model = small_model()
            before = model.get_weights()
            imagined = keras_ds2.ImaginedSpeech([heard], TEXTS, 4)
            fit(model, imagined, tmp_path / folder, epochs)
        weights.append(model.get_weights())
        for weight, old in zip(model.weights, before, strict=True):
            is_second = weight.path.startswith(("spelling", "logits"))
            if weight.trainable:
                changed = np.any(weight.numpy() != old)
                assert changed == is_second, weight.path
    for whole, parts in zip(*weights, strict=True):
        np.testing.assert_array_equal(whole, parts)


def test_only_the_whole_model_is_saved(tmp_path):
    model = small_model()
    second = keras_ds2.SpellingModel(model)
    with pytest.raises(NotImplementedError, match="Save that model"):
        second.save(tmp_path / "second.keras")
    assert second.get_config() == model.get_config()
    assert len(second.weights) < len(model.weights)


def test_float16_gets_loss_scaling():
    second = keras_ds2.SpellingModel(small_model(dtype="mixed_float16"))
    second.compile("adam")
    assert isinstance(second.optimizer, keras.optimizers.LossScaleOptimizer)


@pytest.mark.slow
def test_spelling_is_learned_from_text_alone():
    """Each `c` is heard as an `s` or not at all, as only words can tell."""
    texts = ["i can see a nice place", "once a cat sat", "she says so"]
    said = ["nice cat", "a place i can see", "once she sat", "so he says"]
    heard = clearly_heard(said * 4)
    generator = np.random.default_rng(0)
    c, s = (1 + ALPHABET.index(x) for x in "cs")
    for log_probs in heard.log_probs:
        is_c = log_probs.argmax(axis=1) == c
        log_probs[is_c] = np.roll(log_probs[is_c], s - c, axis=1)
        log_probs[is_c & (generator.random(len(is_c)) < 0.3)] = -3.4
    keras.utils.set_random_seed(0)
    model = keras_ds2.DeepSpeech2(
        **{**SMALL, "spelling_units": 96, "rnn_type": "gru", "dropout": 0.0}
    )
    imagined = keras_ds2.ImaginedSpeech([heard], texts, 16, heard_share=0.0)
    second = keras_ds2.SpellingModel(model)
    second.compile(keras.optimizers.Adam(4e-3, global_clipnorm=60.0))
    second.fit(imagined.stream(), steps_per_epoch=500, epochs=1, verbose=0)
    # The sentences, which nobody said, of other stretches.
    other = keras_ds2.ImaginedSpeech(
        [heard], texts, 16, heard_share=0.0, seed=1
    )
    results = second.evaluate(
        other.stream(), steps=4, return_dict=True, verbose=0
    )
    assert results["wer"] < 0.15
    pairs = []
    for inputs, targets in map(other.batch_at, range(4)):
        for row, n, labels in zip(
            inputs["heard_logits"],
            inputs["num_frames"],
            targets["labels"],
            strict=True,
        ):
            text = "".join(ALPHABET[i - 1] for i in labels if i > 0)
            pairs.append((text, read(row[:n])))
    assert jiwer.wer(*map(list, zip(*pairs, strict=True))) > 0.4
