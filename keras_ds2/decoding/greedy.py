"""Logits in, labels out: the most probable symbol of each frame."""

from keras import ops


def greedy_decode(logits, logit_length, blank_index=0):
    """Decodes each utterance along its most probable alignment.

    Takes the best symbol of every real frame, merges repeats and drops
    blanks.

    Args:
        logits: Tensor of shape `(batch, frames, symbols)`.
        logit_length: Integer tensor of shape `(batch,)`: real frames.
        blank_index: Integer. Symbol of the blank. Defaults to `0`.

    Returns:
        Integer tensor of shape `(batch, frames)`: the labels, then -1.

    Reference:
        Graves et al., 2006, section 3.2 (best path decoding).

    Example:

    >>> import numpy as np
    >>> import keras_ds2
    >>> symbols = np.array([[1, 1, 0, 1, 2, 2]])
    >>> logits = np.eye(3, dtype="float32")[symbols]
    >>> keras_ds2.greedy_decode(logits, np.array([5])).numpy()
    array([[ 1,  1,  2, -1, -1, -1]], dtype=int32)
    """
    decoded, _ = ops.ctc_decode(
        logits, logit_length, strategy="greedy", mask_index=blank_index
    )
    return decoded[0]
