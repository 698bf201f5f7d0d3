"""Utterances in, batches out, as `tf.data`: by number, decoded on the way."""

import os
from collections.abc import Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from keras_ds2.data.augment import Augmentation
from keras_ds2.data.checks import Rejected, validate_choice
from keras_ds2.data.composition import (
    compose_batches,
    digest,
    shuffled,
    validate_counts,
    validate_rows,
)
from keras_ds2.data.corpus import Utterance
from keras_ds2.data.reading import BatchReader, Recording, pad_recordings
from keras_ds2.text import DEFAULT_ALPHABET

_DESCRIBED = (
    *("batch_size", "max_frames_per_batch", "num_replicas", "seed"),
    *("sampling_rate", "alphabet", "on_bad_audio", "sorted_first_pass"),
)


class SpeechDataset:
    """Composes utterances into batches and reads them for training.

    Batches are composed once, of utterances of similar length, and keep their
    members; passes over the corpus differ in the order of the batches. The
    order is a pure function of `(seed, pass)`: the first goes from the shortest
    to the longest (SortaGrad), the others are shuffled.

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
        batch_size: Integer. Most utterances in a batch; a multiple of
            `num_replicas`.
        sampling_rate: Integer, Hz; files at other rates are resampled.
            Defaults to `16000`.
        alphabet: String, the model's. Defaults to space, apostrophe, a to z.
        seed: Integer, for the order of batches and for augmentation. Defaults
            to `0`.
        max_frames_per_batch: Integer. Most frames in a batch, padding
            included: its rows times its longest row, in frames of 25 ms each
            10 ms, at the slowest speed of the augmentation. Defaults to
            `None`: no limit but `batch_size`.
        num_replicas: Integer. Devices that share a batch: each batch has a
            multiple of it. The longest utterances, at most
            `num_replicas - 1`, are left over and dropped. Defaults to `1`.
        augmentation: `Augmentation` for `stream`; `one_pass` is never
            altered. Defaults to `None`.
        on_bad_audio: What to do about a file that fails when it is decoded.
            `"error"`: end. `"skip"`: in `stream` its place is taken by the
            next good row of its batch, or by the batch before where all are
            bad, so that neither counts nor shares change; in `one_pass` it
            is left out. Defaults to `"error"`.
        bad_audio_report: Path of a file to which each bad file is added once
            as a JSON line (`audio`, `source`, `reason`, `detail`). Defaults
            to `None`.
        min_duration: Float, seconds; shorter recordings are bad. Defaults to
            `0.025`, one window: less gives no frame.
        sorted_first_pass: Boolean. `False` shuffles the first pass too, as
            where hours of training go on. Defaults to `True`.

    Attributes:
        batches: List of lists of `Utterance`, from short to long.
        left_over: List of the `Utterance`s that were dropped.
        duration: Seconds of all batches, without padding.
        first_step: Integer, the step at which `stream` begins to read, asked
            when an iterator is made. `0` unless set; training that goes on
            at step n sets n.

    Raises:
        ValueError: If there are no utterances, one has no duration or
            characters outside the alphabet, an argument is out of range, or
            the report cannot be written.
        CorpusError: If an utterance alone exceeds `max_frames_per_batch`.

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
        max_frames_per_batch: int | None = None,
        num_replicas: int = 1,
        augmentation: Augmentation | None = None,
        on_bad_audio: str = "error",
        bad_audio_report: str | os.PathLike[str] | None = None,
        min_duration: float = 0.025,
        sorted_first_pass: bool = True,
    ):
        validate_counts(len(utterances), batch_size, num_replicas, seed)
        validate_choice("on_bad_audio", on_bad_audio)
        validate_rows(utterances, alphabet, min_duration)
        self.batch_size = batch_size
        self.sampling_rate = sampling_rate
        self.alphabet = alphabet
        self.seed = seed
        self.max_frames_per_batch = max_frames_per_batch
        self.num_replicas = num_replicas
        self.augmentation = augmentation
        self.on_bad_audio = on_bad_audio
        self.sorted_first_pass = sorted_first_pass
        self.first_step = 0
        slowest = augmentation.slowest_speed if augmentation else 1.0
        self.batches, self.left_over = compose_batches(
            utterances,
            sampling_rate,
            batch_size,
            max_frames_per_batch,
            num_replicas,
            slowest,
        )
        rows = [row for batch in self.batches for row in batch]
        self.duration = float(sum(row.duration for row in rows))
        self._slowest_speed = slowest
        self._reader = BatchReader(
            self.batches,
            sampling_rate,
            seed,
            min_duration,
            augmentation,
            on_bad_audio,
            bad_audio_report,
            num_replicas,
        )

    def __len__(self) -> int:
        """Batches in a pass."""
        return len(self.batches)

    @property
    def padding_efficiency(self) -> float:
        """Share of the padded audio that is speech."""
        padded = sum(len(b) * b[-1].duration for b in self.batches)
        return self.duration / padded

    @property
    def bad_audio(self) -> dict[Utterance, Rejected]:
        """What was left out so far, with its reason; `no_share`: not bad."""
        return dict(self._reader.left_out)

    def description(self) -> dict[str, Any]:
        """Describes the data set in plain JSON, for a backup to compare.

        Returns:
            Dictionary of the arguments, `utterances`, `hours`, `batches`,
            and `digest`: SHA-256 of file name (without folder), transcript
            and duration of all rows in the order of the batches.
        """
        config = self.augmentation.get_config() if self.augmentation else None
        return {
            "utterances": sum(map(len, self.batches)),
            "hours": self.duration / 3600,
            "batches": len(self),
            **{name: getattr(self, name) for name in _DESCRIBED},
            "augmentation": config,
            "digest": digest(self.batches),
        }

    def order(self, pass_index: int) -> np.ndarray:
        """Returns the batch numbers of one pass, in order."""
        if pass_index == 0 and self.sorted_first_pass:
            return np.arange(len(self))
        return shuffled(self.seed, pass_index, len(self))

    def batch_at(self, step: int) -> list[Utterance]:
        """Returns the batch that training sees at one step, from 0 on."""
        pass_index, position = divmod(step, len(self))
        return self.batches[self.order(pass_index)[position]]

    def longest_batch(self) -> tf.data.Dataset:
        """Reads the one batch with the most padded samples, for a dry run.

        Where the augmentation changes speeds, at the slowest of them.
        """
        padded = [len(batch) * batch[-1].duration for batch in self.batches]
        return self._read(
            tf.data.Dataset.from_tensors(int(np.argmax(padded))),
            lambda index: self._reader.full(int(index), 0, self._slowest_speed),
        )

    def one_pass(self) -> tf.data.Dataset:
        """Reads every batch once, from the shortest to the longest.

        Under `on_bad_audio="skip"` a bad row is left out, and so many good
        ones of its batch (`no_share`) that the rest is a multiple of
        `num_replicas`; perhaps none. The number of batches is then unknown.
        """
        dataset = self._read(
            tf.data.Dataset.range(len(self)),
            lambda index: self._reader.usable(int(index)),
        )
        if self.on_bad_audio == "skip":
            dataset = dataset.filter(lambda x, y: tf.size(x["audio"]) > 0)
        return dataset.prefetch(tf.data.AUTOTUNE)

    def stream(self, first_step: int | None = None) -> tf.data.Dataset:
        """Reads pass after pass without end.

        Args:
            first_step: Integer. Number of batches to leave out: training
                that goes on at step n must see batch n. Defaults to `None`:
                the attribute `first_step`, asked when an iterator is made.

        Returns:
            `tf.data.Dataset` for `fit(..., steps_per_epoch=...)`.
        """

        def start() -> np.int64:
            return np.int64(
                self.first_step if first_step is None else first_step
            )

        def count(_) -> tf.data.Dataset:
            first = tf.numpy_function(start, [], tf.int64)
            return tf.data.Dataset.counter(first)

        def load(step) -> list[Recording]:
            pass_index, position = divmod(int(step), len(self))
            return self._reader.full(
                int(self.order(pass_index)[position]), pass_index
            )

        # Counted by TensorFlow: a Python generator hides where it stands.
        steps = tf.data.Dataset.range(1).flat_map(count)
        endless = tf.data.experimental.assert_cardinality(
            tf.data.INFINITE_CARDINALITY
        )
        batches = self._read(steps, load).apply(endless)
        return batches.prefetch(tf.data.AUTOTUNE)

    def _read(self, numbers: tf.data.Dataset, load) -> tf.data.Dataset:
        # Here, for it takes seconds to import.
        from keras_ds2.tokenizer import CharacterTokenizer

        tokenizer = CharacterTokenizer(self.alphabet)
        types = [tf.float32, tf.int32, tf.string]

        def read(number):
            arrays = tf.numpy_function(
                lambda number: pad_recordings(load(number)), [number], types
            )
            return _to_batch(tokenizer, *arrays)

        return numbers.map(
            read, num_parallel_calls=tf.data.AUTOTUNE, deterministic=True
        )


def _to_batch(tokenizer, audio, audio_length, texts):
    labels = tokenizer.tokenize(tf.ensure_shape(texts, (None,)))
    x = {
        "audio": tf.ensure_shape(audio, (None, None)),
        "audio_length": tf.ensure_shape(audio_length, (None,)),
    }
    y = {
        "labels": labels.to_tensor(tokenizer.padding_id),
        "label_length": tf.cast(labels.row_lengths(), tf.int32),
    }
    return x, y
