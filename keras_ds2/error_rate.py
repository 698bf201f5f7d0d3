"""Word and character error rate, counted in the graph while `fit` runs."""

import keras
import tensorflow as tf


class _ErrorRate(keras.metrics.Metric):
    """Edits over reference units, summed over the corpus before dividing.

    A mean of ratios, as others report, gives a one-word utterance the weight
    of a long one.
    """

    def __init__(self, name=None, dtype=None):
        super().__init__(name=name, dtype=dtype)
        self.edits = self.add_weight(name="edits", initializer="zeros")
        self.units = self.add_weight(name="units", initializer="zeros")

    def update_state(self, references, hypotheses):
        """Counts a batch: two string tensors of shape `(batch,)`."""
        references, hypotheses = map(self._split, (references, hypotheses))
        edits = tf.edit_distance(
            hypotheses.to_sparse(), references.to_sparse(), normalize=False
        )
        self.edits.assign_add(tf.reduce_sum(edits))
        self.units.assign_add(
            tf.cast(tf.reduce_sum(references.row_lengths()), tf.float32)
        )

    def result(self):
        """Edits per unit of the references; 0 before the first."""
        return self.edits / keras.ops.maximum(self.units, 1.0)


@keras.saving.register_keras_serializable(package="keras_ds2")
class WordErrorRate(_ErrorRate):
    """Computes the word error rate (WER) of transcripts over a corpus.

    Works inside `tf.function`, so that `fit` can show it; equal to
    `jiwer.wer` of all references and hypotheses together. Words are what
    spaces separate. It can exceed 1.

    Call arguments:
        references: String tensor of shape `(batch,)`.
        hypotheses: String tensor of shape `(batch,)`.

    Example:

    >>> import keras_ds2
    >>> metric = keras_ds2.WordErrorRate()
    >>> metric.update_state(["hello big world"], ["hello world"])
    >>> round(float(metric.result()), 3)
    0.333
    """

    def _split(self, texts):
        return tf.strings.split(texts)


@keras.saving.register_keras_serializable(package="keras_ds2")
class CharacterErrorRate(_ErrorRate):
    """Computes the character error rate (CER) of transcripts over a corpus.

    As `keras_ds2.WordErrorRate`, over characters, spaces included; equal to
    `jiwer.cer`.

    Example:

    >>> import keras_ds2
    >>> metric = keras_ds2.CharacterErrorRate()
    >>> metric.update_state(["abcd"], ["abd"])
    >>> float(metric.result())
    0.25
    """

    def _split(self, texts):
        return tf.strings.unicode_split(texts, "UTF-8")
