"""Logits and transcripts in, loss out: CTC that believes the lengths."""

import keras
from keras import ops

from keras_ds2 import lengths


@keras.saving.register_keras_serializable(package="keras_ds2")
class CTCLayer(keras.layers.Layer):
    """Computes the CTC loss of padded batches from their true lengths.

    `keras.losses.CTC` takes padding for speech: it counts every padded frame
    of the logits, and treats label 0 as padding and blank at once. This layer
    takes both lengths. It knows the cases that others stumble over:

    - An utterance whose transcript needs more frames than it has (see
      `keras_ds2.lengths.required_frames`), or holds the blank or a symbol that
      does not exist, has no alignment. With `on_infeasible="mask"` its loss
      and gradient are 0 (count them with `is_feasible`); with `"error"` it
      raises.
    - An empty transcript is speech without words: its loss is
      `-sum(log p(blank))`.
    - Logits are read as float32 under every dtype policy, and never beyond
      `logit_length`.
    - A hopeless transcript has a finite loss: on TensorFlow no symbol of a
      non-empty transcript counts as less than exp(-80) times as probable as
      the best one of its frame. Such a symbol still gets its gradient.

    There are two doors. `loss` is a pure function for a `compute_loss` of
    yours; it is what `keras_ds2.DeepSpeech2` uses. Calling the layer adds the
    mean loss to the model by `add_loss` and returns the logits, so that any
    functional model can end with it. The layer has no weights.

    Args:
        blank_index: Integer. Symbol of the blank. Defaults to `0`.
        on_infeasible: `"mask"` or `"error"`. Defaults to `"mask"`.

    Call arguments:
        logits: Tensor of shape `(batch, frames, symbols)`, before softmax.
        labels: Integer tensor of shape `(batch, max_labels)`, without blanks.
        label_length: Integer tensor of shape `(batch,)`.
        logit_length: Integer tensor of shape `(batch,)`.

    Output shape:
        That of `logits`. `loss` returns float32 of shape `(batch,)`.

    Raises:
        ValueError: If an argument is out of range.
        tensorflow.errors.InvalidArgumentError: With `on_infeasible="error"`,
            if an utterance has no alignment.

    Reference:
        Graves et al., 2006, "Connectionist temporal classification", eq. 13.

    Example:

    >>> import numpy as np
    >>> import keras_ds2
    >>> ctc = keras_ds2.CTCLayer()
    >>> loss = ctc.loss(
    ...     labels=np.array([[1, 2], [1, 0]]),
    ...     logits=np.zeros((2, 3, 4), "float32"),
    ...     label_length=np.array([2, 0]),
    ...     logit_length=np.array([3, 2]),
    ... )
    >>> (round(float(loss[0]), 3), round(float(loss[1]), 3))
    (2.549, 2.773)
    """

    def __init__(self, blank_index=0, on_infeasible="mask", **kwargs):
        super().__init__(autocast=False, **kwargs)
        # The fast operation has no XLA kernel: `jit_compile="auto"` must
        # leave alone a model that holds this layer.
        self.supports_jit = False
        self.supports_masking = True
        if blank_index < 0:
            raise ValueError(
                "`blank_index` must not be negative. Received: "
                f"blank_index={blank_index}."
            )
        if on_infeasible not in ("mask", "error"):
            raise ValueError(
                "`on_infeasible` must be 'mask' or 'error'. Received: "
                f"on_infeasible={on_infeasible!r}."
            )
        self.blank_index = blank_index
        self.on_infeasible = on_infeasible
        self.built = True

    def call(self, logits, labels, label_length, logit_length):
        self.add_loss(
            ops.mean(self.loss(labels, logits, label_length, logit_length))
        )
        return logits

    def loss(self, labels, logits, label_length, logit_length):
        """Computes the loss of every utterance, `(batch,)` float32."""
        labels = ops.cast(labels, "int32")
        label_length = ops.cast(label_length, "int32")
        logit_length = ops.cast(logit_length, "int32")
        feasible = self.is_feasible(labels, logits, label_length, logit_length)
        if self.on_infeasible == "error":
            feasible = _assert_all(feasible)
        logits = lengths.zero_padding(
            ops.cast(logits, "float32"), ops.where(feasible, logit_length, 0)
        )
        logits = ops.pad(logits, [[0, 0], [0, 1], [0, 0]])  # at least one frame
        has_labels = ops.logical_and(feasible, label_length > 0)
        labels, label_length = self._replace(~has_labels, labels, label_length)
        alignment_loss = self._alignment_loss(
            labels,
            label_length,
            logits,
            ops.where(has_labels, logit_length, ops.shape(logits)[1]),
        )
        blank_loss = self._blank_loss(logits, logit_length)
        loss = ops.where(has_labels, alignment_loss, blank_loss)
        return ops.where(feasible, loss, 0.0)

    def is_feasible(self, labels, logits, label_length, logit_length):
        """Tells which utterances have an alignment, `(batch,)` booleans."""
        labels = ops.cast(labels, "int32")
        real = lengths.sequence_mask(label_length, ops.shape(labels)[1])
        exists = ops.logical_and(labels >= 0, labels < logits.shape[-1])
        exists = ops.logical_and(exists, labels != self.blank_index)
        return ops.logical_and(
            lengths.is_feasible(labels, label_length, logit_length),
            ops.all(ops.logical_or(exists, ~real), axis=1),
        )

    def _replace(self, rows, labels, label_length):
        """Gives `rows` one harmless label, for no operation takes none."""
        symbol = 0 if self.blank_index else 1
        labels = ops.pad(labels, [[0, 0], [0, 1]])  # at least one column
        first = ops.arange(ops.shape(labels)[1])[None, :] == 0
        replaced = ops.logical_and(rows[:, None], first)
        return (
            ops.where(replaced, symbol, labels),
            ops.where(rows, 1, label_length),
        )

    def _blank_loss(self, logits, logit_length):
        log_blank = ops.log_softmax(logits)[:, :, self.blank_index]
        return -ops.sum(lengths.zero_padding(log_blank, logit_length), axis=1)

    def _alignment_loss(self, labels, label_length, logits, logit_length):
        compute = (
            _sparse_ctc_loss
            if keras.backend.backend() == "tensorflow"
            else _dense_ctc_loss
        )
        loss = compute(
            labels, label_length, logits, logit_length, self.blank_index
        )
        # Rounding can leave a certain transcript at -1e-7.
        return ops.maximum(loss, 0.0)

    def compute_output_shape(self, logits_shape, *_, **__):
        return logits_shape

    def get_config(self):
        config = super().get_config()
        config.update(
            blank_index=self.blank_index, on_infeasible=self.on_infeasible
        )
        return config


def _assert_all(feasible):
    import tensorflow as tf

    check = tf.debugging.assert_equal(
        tf.math.count_nonzero(~feasible),
        tf.constant(0, tf.int64),
        "Utterances without an alignment: their transcripts need more frames "
        "than they have, or hold symbols that do not exist. Remove them, "
        "shorten the transcripts or lower the stride in time.",
    )
    with tf.control_dependencies([check] if check is not None else []):
        return tf.identity(feasible)


def _sparse_ctc_loss(labels, label_length, logits, logit_length, blank_index):
    """The fast path: TensorFlow's C++ operation, on the CPU also of a GPU.

    Its blank is the last symbol. cuDNN's variant is left alone: it takes at
    most 256 labels and leaves gradients beyond the end as they were.
    """
    import tensorflow as tf

    # The operation's softmax underflows to log(0): no symbol counts as less
    # probable than exp(-80) of the best one. The gradient passes.
    floor = tf.reduce_max(logits, axis=-1, keepdims=True) - 80.0
    logits = tf.grad_pass_through(lambda x: tf.maximum(x, floor))(logits)
    mask = tf.sequence_mask(label_length, tf.shape(labels)[1])
    values = tf.boolean_mask(labels, mask)
    before, blank, after = tf.split(
        logits, [blank_index, 1, logits.shape[-1] - blank_index - 1], axis=-1
    )
    logits = tf.concat([before, after, blank], axis=-1)
    return tf.raw_ops.CTCLoss(
        inputs=tf.transpose(logits, [1, 0, 2]),
        labels_indices=tf.where(mask),
        labels_values=values - tf.cast(values > blank_index, tf.int32),
        sequence_length=logit_length,
        preprocess_collapse_repeated=False,
        ctc_merge_repeated=True,
        ignore_longer_outputs_than_inputs=False,
    ).loss


def _dense_ctc_loss(labels, label_length, logits, logit_length, blank_index):
    """The path of the other backends, an order of magnitude slower."""
    return ops.ctc_loss(
        labels, logits, label_length, logit_length, mask_index=blank_index
    )
