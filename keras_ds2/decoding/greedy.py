"""Logits in, labels out: the most probable symbol of each frame."""

import itertools

import numpy as np
from keras import ops

from keras_ds2.decoding.alignment import character_log_probs, time_text
from keras_ds2.decoding.hypothesis import Hypothesis


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


def greedy_hypotheses(
    logits, logit_length, alphabet, frame_duration, blank_index=0
):
    """Reads each utterance along its most probable alignment, with times.

    The text is that of `greedy_decode`. Its scores are the logarithm of the
    probability of this one alignment.

    Args:
        logits: Array of shape `(batch, frames, symbols)`.
        logit_length: Integer array of shape `(batch,)`: real frames.
        alphabet: String. The characters of the symbols, leaving out the
            blank.
        frame_duration: Float. Seconds between two frames.
        blank_index: Integer. Symbol of the blank. Defaults to `0`.

    Returns:
        List of `Hypothesis`, one for each utterance.

    Example:

    >>> import numpy as np
    >>> from keras_ds2.decoding.greedy import greedy_hypotheses
    >>> logits = 9 * np.eye(3)[[[1, 1, 0, 2, 2]]]
    >>> [hypothesis] = greedy_hypotheses(logits, [5], "ab", 0.5)
    >>> hypothesis.text, hypothesis.words[0].end
    ('ab', 2.5)
    """
    return [
        _hypothesis(
            character_log_probs(row[:length], alphabet, blank_index),
            alphabet,
            frame_duration,
        )
        for row, length in zip(np.asarray(logits), logit_length, strict=True)
    ]


def _hypothesis(log_probs, alphabet, frame_duration):
    best = log_probs.argmax(axis=1)
    symbols = [symbol for symbol, _ in itertools.groupby(best) if symbol]
    text = "".join(alphabet[symbol - 1] for symbol in symbols)
    text = " ".join(word for word in text.split(" ") if word)
    score = float(log_probs.max(axis=1).sum())
    words, characters = time_text(text, alphabet, log_probs, frame_duration)
    return Hypothesis(text, score, score, words=words, characters=characters)
