"""Every count of frames in the package, and the masks made from them.

Lengths travel beside tensors as int32 vectors of shape `(batch,)`. The
functions that only calculate take Python integers, NumPy arrays and tensors
alike, so that the data pipeline, the model and the loss cannot disagree.
"""

import keras
import numpy as np
from keras import ops


def output_length(length, window, stride, padding=0):
    """Counts the whole windows that fit into a sequence.

    `max(0, 1 + floor((length + padding - window) / stride))`. With
    `padding = window - 1`, the rule of our convolutions, this is
    `ceil(length / stride)`.

    Args:
        length: Integer, or an integer array or tensor: items before.
        window: Integer. Items that one output looks at.
        stride: Integer. Items between the starts of two windows.
        padding: Integer. Zeros added, both ends together. Defaults to `0`.

    Returns:
        The number of outputs, in the type of `length`.

    Example:

    >>> from keras_ds2.lengths import output_length
    >>> output_length(16000, window=400, stride=160)
    98
    >>> output_length(98, window=11, stride=2, padding=10)
    49
    """
    count = 1 + (length + padding - window) // stride
    if isinstance(length, int):
        return max(count, 0)
    if keras.utils.is_keras_tensor(length) or ops.is_tensor(length):
        return ops.maximum(count, 0)
    return np.maximum(count, 0)


def sequence_mask(length, max_length):
    """Marks the real items of a padded batch.

    Args:
        length: Integer tensor of shape `(batch,)`.
        max_length: Integer or scalar tensor. The padded length.

    Returns:
        Boolean tensor of shape `(batch, max_length)`, `True` where real.

    Example:

    >>> import numpy as np
    >>> from keras_ds2.lengths import sequence_mask
    >>> sequence_mask(np.array([1, 3]), 3).numpy().astype(int)
    array([[1, 0, 0],
           [1, 1, 1]])
    """
    positions = ops.arange(max_length, dtype="int32")
    return positions[None, :] < ops.cast(length, "int32")[:, None]


def zero_padding(inputs, length):
    """Sets everything beyond the end of each sequence to zero.

    A selection, not a product: NaN and infinity in the padding vanish too.

    Args:
        inputs: Tensor of shape `(batch, time, ...)`.
        length: Integer tensor of shape `(batch,)`, or `None` to change
            nothing.

    Returns:
        Tensor of the shape and dtype of `inputs`.

    Example:

    >>> import numpy as np
    >>> from keras_ds2.lengths import zero_padding
    >>> zero_padding(np.ones((2, 3)), np.array([1, 2])).numpy()
    array([[1., 0., 0.],
           [1., 1., 0.]])
    """
    if length is None:
        return inputs
    mask = sequence_mask(length, ops.shape(inputs)[1])
    mask = ops.reshape(mask, ops.shape(mask) + (1,) * (len(inputs.shape) - 2))
    return ops.where(mask, inputs, ops.zeros((), dtype=inputs.dtype))


def required_frames(labels):
    """Counts the frames that CTC needs at least for one transcript.

    One frame for each label, and one more for the blank that must stand
    between two equal neighbors (Graves et al., 2006, section 3).

    Args:
        labels: Sequence of one utterance's labels (ids or characters).

    Returns:
        Integer.

    Example:

    >>> from keras_ds2.lengths import required_frames
    >>> required_frames("hello")
    6
    """
    repeats = sum(a == b for a, b in zip(labels, labels[1:], strict=False))
    return len(labels) + repeats


def is_feasible(labels, label_length, logit_length):
    """Tells which utterances of a batch CTC can align at all.

    The rule of `required_frames`, for a padded batch.

    Args:
        labels: Integer tensor of shape `(batch, max_labels)`.
        label_length: Integer tensor of shape `(batch,)`.
        logit_length: Integer tensor of shape `(batch,)`.

    Returns:
        Boolean tensor of shape `(batch,)`.

    Example:

    >>> import numpy as np
    >>> from keras_ds2.lengths import is_feasible
    >>> labels = np.array([[1, 1, 2], [1, 2, 3]])
    >>> is_feasible(labels, np.array([3, 3]), np.array([3, 3])).numpy()
    array([False,  True])
    """
    labels = ops.convert_to_tensor(labels)
    label_length = ops.cast(label_length, "int32")
    repeats = ops.logical_and(
        labels[:, 1:] == labels[:, :-1],
        sequence_mask(label_length, ops.shape(labels)[1])[:, 1:],
    )
    required = label_length + ops.sum(ops.cast(repeats, "int32"), axis=1)
    return required <= ops.cast(logit_length, "int32")
