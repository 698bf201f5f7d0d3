"""Logits in, labels out: the most probable symbol of each frame."""

import numpy as np
from keras import ops

from keras_ds2.decoding.alignment import LetterTimes, character_log_probs
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
    hypotheses = []
    for row, length in zip(np.asarray(logits), logit_length, strict=True):
        stream = GreedyStream(alphabet, frame_duration)
        stream.step(character_log_probs(row[:length], alphabet, blank_index))
        hypotheses.append(stream.end())
    return hypotheses


class GreedyStream:
    """Does to a stream what `greedy_decode` does to whole utterances.

    Args:
        alphabet: String.
        frame_duration: Float. Seconds between two frames.
    """

    def __init__(self, alphabet, frame_duration):
        self._alphabet = alphabet
        self._frame_duration = frame_duration
        self._letters = LetterTimes()
        self._text = ""
        self._score = 0.0
        self._num_frames = 0
        self._last = 0

    def step(self, log_probs):
        """Takes some frames, `(frames, symbols)`, the blank first."""
        for symbol, score in zip(
            log_probs.argmax(axis=1), log_probs.max(axis=1), strict=True
        ):
            character = self._alphabet[symbol - 1] if symbol else ""
            is_new, self._last = symbol != self._last, symbol
            self._score += score
            self._num_frames += 1
            if character == " ":
                if is_new and self._text and self._text[-1] != " ":
                    self._text += " "
            elif character and is_new:
                self._text += character
                self._letters.append(
                    self._num_frames - 1, self._num_frames, np.exp(score)
                )
            elif character:
                self._letters.ends[-1] = self._num_frames
                confidence = max(self._letters.confidences[-1], np.exp(score))
                self._letters.confidences[-1] = confidence

    def read(self):
        """Returns the text so far, and the part that is certain: all of it."""
        text = self._text.rstrip(" ")
        return text, text

    def end(self):
        """Returns the `Hypothesis`; its score is that of one alignment."""
        text = self._text.rstrip(" ")
        score = float(self._score)
        times = self._letters.timed(text, self._frame_duration)
        return Hypothesis(text, score, score, 0.0, *times)
