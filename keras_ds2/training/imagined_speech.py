"""Text in, what a model would hear if it were read out: batches for training.

Text is plentiful where speech is not. What a network makes of a few characters
is known wherever they were said: a stretch of log probabilities, with all that
is wrong with it. Put one behind the other such stretches are what it would hear
of any sentence, at almost no cost. So a second network learns to spell
(`models/spelling.py`) from as many words as there are.

Where two stretches meet is not to be heard: it would be learned, and is not
there in speech. So they begin and end anywhere, not where words do, and the
characters on both sides are those that stood there when they were heard.
"""

import hashlib
import math

import numpy as np
import tensorflow as tf

from keras_ds2.training.heard_places import STRETCH, HeardPlaces
from keras_ds2.training.heard_speech import pad_heard, signature

# Share of imagined utterances that are two sentences.
_PAIRS = 0.3
# Batches that are drawn at once, to be of similar length each.
_BATCHES_PER_POOL = 16
# What makes another one of the same stretch every time: how sure the network
# is, noise on its log probabilities, frames left out or repeated.
_SHARPNESS = (0.75, 1.15)
_NOISE = (0.0, 0.5)
_FRAMES_CHANGED = (0.0, 0.06)


class ImaginedSpeech:
    """Makes batches of what a model would hear of sentences.

    A sentence is put together of stretches of 3 to 11 characters, each drawn
    among all places of one corpus where these characters, and up to two before
    and after them, were said; shorter ones where there are none. Three of ten
    are two sentences. A share of utterances is not imagined, but was heard as
    a whole. All are varied: in how sure the network is, with some noise, and
    by single frames that are left out or repeated.

    Batches are a pure function of `(seed, step)`, as those of `SpeechDataset`:
    `BackupAndRestore` takes one for the other.

    Args:
        heard: Sequence of `HeardSpeech` of one model.
        sentences: Sequence of strings: words with single spaces between.
            Each character must have been heard in each of `heard`.
        batch_size: Integer. Utterances in a batch.
        shares: Sequence of floats: how often each of `heard` speaks.
            Defaults to `None`: equally often.
        heard_share: Float, from 0 to below 1. Utterances that were heard as a
            whole. Defaults to `0.2`.
        seed: Integer. Defaults to `0`.

    Attributes:
        first_step: As of `SpeechDataset`.

    Raises:
        ValueError: If an argument is out of range, there are no sentences, or
            one has spaces to spare or a character that was not heard.

    Example:

    >>> import keras_ds2
    >>> model = keras_ds2.DeepSpeech2(
    ...     num_rnn_layers=1, rnn_units=8, num_spelling_layers=1
    ... )
    >>> dataset = keras_ds2.data.prepare_dataset(
    ...     "tests/data/LibriSpeech", ["train-clips"], model, batch_size=2
    ... )
    >>> model.adapt(dataset.one_pass())
    >>> heard = keras_ds2.HeardSpeech(model, dataset)
    >>> imagined = keras_ds2.ImaginedSpeech([heard], ["he said so"], 2)
    >>> inputs, targets = next(iter(imagined.stream()))
    >>> inputs["heard_logits"].shape[::2]
    TensorShape([2, 31])
    """

    def __init__(
        self,
        heard,
        sentences,
        batch_size,
        shares=None,
        heard_share=0.2,
        seed=0,
    ):
        heard = list(heard)
        shares = [1] * len(heard) if shares is None else list(shares)
        if not heard or len(shares) != len(heard) or min(shares) <= 0:
            raise ValueError(
                "`heard` must have one of `shares`, above 0, for each. "
                f"Received: {len(heard)} of `heard`, shares={shares}."
            )
        models = {(h.alphabet, h.heard_by) for h in heard}
        if len(models) > 1:
            raise ValueError(
                "`heard` must be of one model. Received: alphabets and "
                f"fingerprints {sorted(models)}."
            )
        if batch_size < 1 or not 0 <= heard_share < 1:
            raise ValueError(
                "`batch_size` must be at least 1, `heard_share` from 0 to "
                f"below 1. Received: batch_size={batch_size}, "
                f"heard_share={heard_share}."
            )
        self.alphabet = heard[0].alphabet
        self.sentences = list(sentences)
        self.batch_size = batch_size
        self.shares = np.array(shares) / sum(shares)
        self.heard_share = heard_share
        self.seed = seed
        self.first_step = 0
        self._corpora = [HeardPlaces(corpus) for corpus in heard]
        self._heard_alphabet = heard[0].heard_alphabet
        self._heard_by = heard[0].heard_by
        self._check_sentences()
        # Where a space was never heard, sentences are of one word.
        may_pair = all(" " in corpus.characters for corpus in self._corpora)
        self._pair_share = _PAIRS if may_pair else 0.0
        frames = sum(len(row) for corpus in heard for row in corpus.log_probs)
        characters = sum(len(text) for corpus in heard for text in corpus.texts)
        # For batches of similar length.
        self._frames_per_character = frames / characters

    def __len__(self):
        """Batches in which as many sentences come as there are."""
        rate = (1 - self.heard_share) * (1 + self._pair_share)
        return math.ceil(len(self.sentences) / rate / self.batch_size)

    def description(self):
        """Describes it in plain JSON, for a backup to compare."""
        digest = hashlib.sha256("\n".join(self.sentences).encode())
        for corpus in self._corpora:
            for text, row in zip(corpus.texts, corpus.log_probs, strict=True):
                # Not what was heard: in another process it is not the same
                # to the last bit.
                digest.update(f"{text} {len(row)}\n".encode())
        return {
            "sentences": len(self.sentences),
            "heard": [len(corpus.texts) for corpus in self._corpora],
            "heard_by": self._heard_by,
            "batch_size": self.batch_size,
            "shares": self.shares.tolist(),
            "heard_share": self.heard_share,
            "seed": self.seed,
            "digest": digest.hexdigest(),
        }

    def stream(self):
        """Reads batches without end, from `first_step` on.

        Returns:
            `tf.data.Dataset` of `(x, y)` for `SpellingModel.fit(...,
            steps_per_epoch=...)`: `x = {"heard_logits", "num_frames"}`, `y =
            {"labels", "label_length"}`.
        """
        spec = signature(self._heard_alphabet)
        flat = tf.nest.flatten(spec)

        def start(_):
            first = tf.numpy_function(
                lambda: np.int64(self.first_step), [], tf.int64
            )
            return tf.data.Dataset.counter(first)

        def make(step):
            arrays = tf.numpy_function(
                lambda step: tf.nest.flatten(self.batch_at(int(step))),
                [step],
                [part.dtype for part in flat],
            )
            for array, part in zip(arrays, flat, strict=True):
                array.set_shape(part.shape)
            return tf.nest.pack_sequence_as(spec, arrays)

        endless = tf.data.experimental.assert_cardinality(
            tf.data.INFINITE_CARDINALITY
        )
        steps = tf.data.Dataset.range(1).flat_map(start)
        return steps.map(make).apply(endless).prefetch(8)

    def batch_at(self, step):
        """Makes the batch that training sees at one step, from 0 on."""
        pool, position = divmod(step, _BATCHES_PER_POOL)
        generator = np.random.default_rng([self.seed, 0, pool])
        size = _BATCHES_PER_POOL * self.batch_size
        chosen = list(
            map(
                self._choose,
                generator.choice(len(self._corpora), size, p=self.shares),
                generator.random(size) < self.heard_share,
                generator.random(size) < self._pair_share,
                generator.random((size, 2)),
            )
        )
        order = np.argsort(
            [
                len(text) * self._frames_per_character
                if heard is None
                else len(heard)
                for _, text, heard in chosen
            ],
            kind="stable",
        )
        group = generator.permutation(_BATCHES_PER_POOL)[position]
        generator = np.random.default_rng([self.seed, 1, step])
        rows, texts = [], []
        for i in order[group * self.batch_size :][: self.batch_size]:
            corpus, text, heard = chosen[i]
            if heard is None:
                heard = self.imagine(text, corpus, generator)
            rows.append(_vary(heard, generator))
            texts.append(text)
        return pad_heard(rows, texts, self.alphabet)

    def _choose(self, corpus, is_heard, is_pair, places):
        """A text, and what was heard of it or, to be imagined, `None`."""
        if is_heard:
            heard = self._corpora[corpus]
            row = int(places[0] * len(heard.texts))
            return corpus, heard.texts[row], heard.log_probs[row]
        sentences = [
            self.sentences[int(place * len(self.sentences))]
            for place in places[: 1 + is_pair]
        ]
        return corpus, " ".join(sentences), None

    def imagine(self, text, corpus, generator):
        """Makes up what would be heard of a text.

        Args:
            text: String.
            corpus: Integer. The one of `heard` that speaks.
            generator: `np.random.Generator`.

        Returns:
            Float16 array of shape `(frames, 1 + characters)`.

        Raises:
            ValueError: If a character was never heard.
        """
        places = self._corpora[corpus]
        stretches = []
        position = 0
        while position < len(text):
            count = int(generator.integers(*STRETCH, endpoint=True))
            size, stretch = places.draw(text, position, count, generator)
            stretches.append(stretch)
            position += size
        return np.concatenate(stretches)

    def _check_sentences(self):
        for sentence in self.sentences:
            if not sentence or sentence != " ".join(sentence.split()):
                raise ValueError(
                    "`sentences` must be of words with single spaces between. "
                    f"Received: {sentence!r}."
                )
        written = set().union(*self.sentences)
        if not written:
            raise ValueError("`sentences` must hold at least one.")
        for number, corpus in enumerate(self._corpora):
            if unknown := "".join(sorted(written - corpus.characters)):
                raise ValueError(
                    "Each character of `sentences` must be heard in each of "
                    f"`heard`, in a transcript that its recording holds. In "
                    f"heard[{number}] these are not: {unknown!r}. Leave such "
                    "sentences out, or let more be heard."
                )


def _vary(row, generator):
    change = generator.random() * generator.uniform(*_FRAMES_CHANGED)
    chance = generator.random(len(row))
    repeats = 1 - (chance < change / 2) + (chance > 1 - change / 2)
    if repeats.any():
        row = np.repeat(row, repeats, axis=0)
    row = row.astype("float32") * np.float32(generator.uniform(*_SHARPNESS))
    noise = generator.standard_normal(row.shape, "float32")
    row = row + noise * np.float32(generator.uniform(*_NOISE))
    row = row - row.max(axis=1, keepdims=True)
    return row - np.log(np.exp(row).sum(axis=1, keepdims=True))
