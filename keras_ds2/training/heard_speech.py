"""A corpus in, what a model hears of it out: log probabilities, cut by text."""

import hashlib
import itertools

import keras
import numpy as np
import tensorflow as tf

from keras_ds2.decoding.alignment import align_labels, character_log_probs
from keras_ds2.text import NUM_RESERVED

# Of reserved symbols, which are never heard: the least probability there is.
_NEVER = float(np.log(np.finfo("float32").tiny))


class HeardSpeech:
    """Keeps what the first network of a model hears of recordings.

    Of each utterance the log probabilities of blank and characters, in 16 bits
    (5 MB for an hour, 40 ms a frame), its transcript, and which frames belong
    to which of its characters.

    A network hears what it was trained on better than what it will meet. With
    `training=True` it is asked as in training, with dropout, masks and
    statistics of the batch: what it then hears of known voices is about as
    wrong as what it hears of unknown ones.

    Args:
        model: `DeepSpeech2` with `num_spelling_layers`.
        dataset: `SpeechDataset` of the model's alphabet; one pass is heard,
            with its augmentation.
        training: Boolean. Whether the model is asked as in training. Its
            statistics do not change. Defaults to `False`.
        pass_index: Integer. Which pass of the data set, for another draw of
            its augmentation. Defaults to `0`.

    Attributes:
        alphabet: String, of the texts.
        heard_alphabet: String, of the log probabilities.
        heard_by: String. SHA-256 of the weights that heard.
        texts: List of strings.
        log_probs: List of float16 arrays `(frames, 1 + characters)`.

    Raises:
        ValueError: If the model has no spelling layers or no statistics of
            the corpus, or the data set has another alphabet.

    Example:

    >>> import keras_ds2
    >>> model = keras_ds2.DeepSpeech2(
    ...     num_rnn_layers=1, rnn_units=8, num_spelling_layers=1
    ... )
    >>> dataset = keras_ds2.data.prepare_dataset(
    ...     "tests/data/LibriSpeech", ["dev-clips"], model, batch_size=2
    ... )
    >>> model.adapt(dataset.one_pass())
    >>> heard = keras_ds2.HeardSpeech(model, dataset)
    >>> heard.texts[0]
    "if he only had that letter back he wouldn't send it"
    >>> heard.log_probs[0].shape
    (154, 29)
    """

    def __init__(self, model, dataset, training=False, pass_index=0):
        first = first_network(model)
        if not model.get_layer("log_mel").is_adapted:
            raise ValueError(
                "The features have no corpus statistics yet: the model is not "
                "trained. Call `model.adapt(dataset.one_pass())` first."
            )
        if dataset.alphabet != model.alphabet:
            raise ValueError(
                "`dataset` must have the model's alphabet, "
                f"{model.alphabet!r}. Received: {dataset.alphabet!r}."
            )
        self.alphabet = model.alphabet
        self.heard_alphabet = model.heard_alphabet or model.alphabet
        weights = b"".join(w.numpy().tobytes() for w in first.weights)
        self.heard_by = hashlib.sha256(weights).hexdigest()
        self.texts: list[str] = []
        self.log_probs: list[np.ndarray] = []

        @tf.function(reduce_retracing=True)
        def hear(inputs):
            return first(inputs, training=training)

        # Not the seeds: another time other units are dropped.
        statistics = [w.numpy() for w in first.non_trainable_weights]
        size = len(dataset)
        batches = dataset.stream(first_step=pass_index * size).take(size)
        try:
            for inputs, targets in batches:
                logits, num_frames = (x.numpy() for x in hear(inputs))
                self._take(logits, num_frames, targets)
        finally:
            for weight, value in zip(
                first.non_trainable_weights, statistics, strict=True
            ):
                weight.assign(value)

    def _take(self, logits, num_frames, targets):
        characters = np.array([" ", *self.alphabet])
        for row, frames, labels, length in zip(
            logits,
            num_frames,
            targets["labels"].numpy(),
            targets["label_length"].numpy(),
            strict=True,
        ):
            log_probs = character_log_probs(row[:frames], self.heard_alphabet)
            self.log_probs.append(log_probs.astype("float16"))
            self.texts.append("".join(characters[labels[:length]]))

    def character_frames(self):
        """Tells where each character begins.

        Returns:
            List of integer arrays: character `i` has the frames from element
            `i` up to, not including, element `i + 1`. Blanks between two
            characters are divided. `None` where the frames do not hold the
            text, or there is none, or a character is never heard.
        """
        symbols = {c: i for i, c in enumerate(self.heard_alphabet, start=1)}
        return [
            _boundaries(log_probs, [symbols.get(c) for c in text])
            for log_probs, text in zip(self.log_probs, self.texts, strict=True)
        ]

    def one_pass(self, batch_size=32):
        """Batches of what was heard, for `SpellingModel.evaluate`.

        Args:
            batch_size: Integer. Defaults to `32`.

        Returns:
            `tf.data.Dataset` of `(x, y)`, as `ImaginedSpeech.stream`.
        """
        order = np.argsort([len(row) for row in self.log_probs], kind="stable")

        def batches():
            for start in range(0, len(order), batch_size):
                rows = order[start : start + batch_size]
                yield pad_heard(
                    [self.log_probs[i] for i in rows],
                    [self.texts[i] for i in rows],
                    self.alphabet,
                )

        dataset = tf.data.Dataset.from_generator(
            batches, output_signature=signature(self.heard_alphabet)
        )
        count = -(-len(order) // batch_size)
        return dataset.apply(tf.data.experimental.assert_cardinality(count))


def first_network(model):
    """The model up to what it hears: logits, and their number."""
    try:
        heard = model.get_layer("heard_logits").output
    except ValueError:
        raise ValueError(
            "`model` must have a second network that takes what the first one "
            "hears, as DeepSpeech2(num_spelling_layers=2)."
        ) from None
    num_frames = model.get_layer("spelling_num_long_frames").input
    return keras.Model(model.input, [heard, num_frames])


def signature(heard_alphabet):
    """What batches of heard speech are made of, for `tf.data`."""
    num_symbols = 1 + len(heard_alphabet) + NUM_RESERVED
    return (
        {
            "heard_logits": tf.TensorSpec((None, None, num_symbols)),
            "num_frames": tf.TensorSpec((None,), tf.int32),
        },
        {
            "labels": tf.TensorSpec((None, None), tf.int32),
            "label_length": tf.TensorSpec((None,), tf.int32),
        },
    )


def pad_heard(rows, texts, alphabet):
    """Rows of log probabilities and their texts as one batch, `(x, y)`."""
    symbols = {c: index for index, c in enumerate(alphabet, start=1)}
    num_frames = np.array([len(row) for row in rows], "int32")
    label_length = np.array([len(text) for text in texts], "int32")
    num_symbols = rows[0].shape[1]
    shape = len(rows), num_frames.max(), num_symbols + NUM_RESERVED
    logits = np.full(shape, _NEVER, "float32")
    labels = np.zeros((len(rows), label_length.max()), "int32")
    for i, (row, text) in enumerate(zip(rows, texts, strict=True)):
        logits[i, : len(row), :num_symbols] = row
        labels[i, : len(text)] = [symbols[character] for character in text]
    return (
        {"heard_logits": logits, "num_frames": num_frames},
        {"labels": labels, "label_length": label_length},
    )


def _boundaries(log_probs, labels):
    if not labels or None in labels:
        return None
    try:
        spans = align_labels(log_probs, labels)
    except ValueError:  # the frames do not hold them
        return None
    gaps = [(end, start) for (_, end), (start, _) in itertools.pairwise(spans)]
    return np.array([0, *(sum(gap) // 2 for gap in gaps), len(log_probs)])
