"""Utterances in, batches out: composed once by length, decoded on the way."""

import itertools
from collections.abc import Callable, Iterator, Sequence

import numpy as np
import tensorflow as tf

from keras_ds2.audio import load_audio, pad_samples
from keras_ds2.data.corpus import Utterance
from keras_ds2.text import DEFAULT_ALPHABET, unknown_characters


class SpeechDataset:
    """Composes utterances into batches and reads them for training.

    Batches are composed once, of utterances of similar length, and keep their
    members; passes over the corpus differ in the order of the batches. The
    order is a pure function of `(seed, pass)`: pass 0 goes from the shortest
    to the longest (SortaGrad), later ones are shuffled.

    A batch is `(x, y)`:

    ```
    x = {
        "audio": (batch, samples) float32, zero beyond each end,
        "audio_length": (batch,) int32,
    }
    y = {
        "labels": (batch, max_labels) int32, padded with the padding symbol,
        "label_length": (batch,) int32,
    }
    ```

    Args:
        utterances: Sequence of `Utterance` with durations: the first of what
            `keras_ds2.data.check_utterances` returns.
        batch_size: Integer. Utterances in a batch; the last one may be
            smaller.
        sampling_rate: Integer, Hz; files at other rates are resampled.
            Defaults to `16000`.
        alphabet: String, the model's. Defaults to space, apostrophe, a to z.
        seed: Integer, for the order of batches. Defaults to `0`.

    Raises:
        ValueError: If there are no utterances, or one has no duration.

    Reference:
        Amodei et al., 2016 (arXiv:1512.02595), section 3.3 (SortaGrad).

    Example:

    >>> import keras_ds2
    >>> rows, _ = keras_ds2.data.add_durations(
    ...     keras_ds2.data.read_librispeech(
    ...         "tests/data/LibriSpeech", "train-clips"
    ...     )
    ... )
    >>> dataset = keras_ds2.data.SpeechDataset(rows, batch_size=4)
    >>> [len(batch) for batch in dataset.batches]
    [4, 2]
    >>> inputs, targets = next(iter(dataset.one_pass()))
    >>> inputs["audio"].shape, targets["labels"].shape
    (TensorShape([4, 59600]), TensorShape([4, 62]))
    """

    def __init__(
        self,
        utterances: Sequence[Utterance],
        batch_size: int,
        sampling_rate: int = 16000,
        alphabet: str = DEFAULT_ALPHABET,
        seed: int = 0,
    ):
        if not utterances or batch_size < 1:
            raise ValueError(
                "A data set needs utterances and a positive `batch_size`. "
                f"Received: {len(utterances)} utterances, "
                f"batch_size={batch_size}."
            )
        durations = np.array([item.duration for item in utterances])
        if not np.all(durations > 0):
            item = utterances[int(np.argmin(durations > 0))]
            raise ValueError(
                f"Utterance {item.audio} has no duration. Pass the list "
                "through `keras_ds2.data.add_durations` first."
            )
        for item in utterances:
            if unknown := unknown_characters(item.text, alphabet):
                raise ValueError(
                    f"Utterance {item.source or item.audio} has characters "
                    f"outside the alphabet: {unknown!r}. Pass the list "
                    "through `keras_ds2.data.check_utterances` first."
                )
        self.sampling_rate = sampling_rate
        self.alphabet = alphabet
        self.seed = seed
        self.duration = float(durations.sum())
        # Equal durations by name: the same corpus gives the same batches on
        # every file system.
        ordered = sorted(utterances, key=lambda row: (row.duration, row.audio))
        self.batches = [
            ordered[start : start + batch_size]
            for start in range(0, len(ordered), batch_size)
        ]

    def __len__(self) -> int:
        """Batches in a pass."""
        return len(self.batches)

    @property
    def padding_efficiency(self) -> float:
        """Share of the padded audio that is speech."""
        padded = sum(len(b) * b[-1].duration for b in self.batches)
        return self.duration / padded

    def order(self, pass_index: int) -> np.ndarray:
        """Returns the batch numbers of one pass, in order."""
        if pass_index == 0:
            return np.arange(len(self))
        generator = np.random.default_rng((self.seed, pass_index))
        return generator.permutation(len(self))

    def batch_at(self, step: int) -> list[Utterance]:
        """Returns the batch that training sees at one step, from 0 on."""
        pass_index, position = divmod(step, len(self))
        return self.batches[self.order(pass_index)[position]]

    def one_pass(self) -> tf.data.Dataset:
        """Reads every batch once, from the shortest to the longest."""
        return self._read(lambda: iter(self.batches), len(self))

    def stream(
        self, first_batch: Callable[[], int] | None = None
    ) -> tf.data.Dataset:
        """Reads pass after pass without end.

        Args:
            first_batch: Function that returns the number of batches to leave
                out, asked when reading begins. Training that goes on at step
                n must see batch n: `lambda:
                int(model.optimizer.iterations.numpy())`. Defaults to none.

        Returns:
            `tf.data.Dataset` for `fit(..., steps_per_epoch=...)`.
        """
        return self._read(
            lambda: map(
                self.batch_at,
                itertools.count(first_batch() if first_batch else 0),
            ),
            tf.data.INFINITE_CARDINALITY,
        )

    def _read(self, batches, cardinality) -> tf.data.Dataset:
        from keras_ds2.tokenizer import CharacterTokenizer

        tokenizer = CharacterTokenizer(self.alphabet)

        def names() -> Iterator[tuple[list[str], list[str]]]:
            for batch in batches():
                yield [row.audio for row in batch], [row.text for row in batch]

        def load(paths):
            inputs = pad_samples(
                [load_audio(p.decode(), self.sampling_rate) for p in paths]
            )
            return inputs["audio"], inputs["audio_length"]

        def read(paths, texts):
            audio, audio_length = tf.numpy_function(
                load, [paths], [tf.float32, tf.int32]
            )
            labels = tokenizer.tokenize(texts)
            x = {
                "audio": tf.ensure_shape(audio, (None, None)),
                "audio_length": tf.ensure_shape(audio_length, (None,)),
            }
            y = {
                "labels": labels.to_tensor(tokenizer.padding_id),
                "label_length": tf.cast(labels.row_lengths(), tf.int32),
            }
            return x, y

        strings = tf.TensorSpec((None,), tf.string)
        dataset = tf.data.Dataset.from_generator(
            names, output_signature=(strings, strings)
        )
        return (
            dataset.map(read, num_parallel_calls=tf.data.AUTOTUNE)
            .apply(tf.data.experimental.assert_cardinality(cardinality))
            .prefetch(tf.data.AUTOTUNE)
        )
