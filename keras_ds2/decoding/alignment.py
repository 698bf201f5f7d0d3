"""Log probabilities and a text in, the frames of each character out."""

import array

import numpy as np

from keras_ds2.decoding.hypothesis import TimedText

# exp(-1e4) is 0, and sums of it stay numbers.
_LOWEST = -1e4


def character_log_probs(logits, alphabet, blank_index=0):
    """Normalizes logits over the blank and the alphabet, in this order.

    Args:
        logits: Array of shape `(frames, symbols)`, finite.
        alphabet: String. The characters that come out.
        blank_index: Integer. Symbol of the blank. Defaults to `0`.

    Returns:
        Float64 array of shape `(frames, 1 + len(alphabet))`, the blank first,
        without the reserved symbols.

    Example:

    >>> import numpy as np
    >>> from keras_ds2.decoding.alignment import character_log_probs
    >>> logits = np.array([[1.0, 3.0, 1.0, -np.inf]])
    >>> np.exp(character_log_probs(logits, "ab", blank_index=1)).round(2)
    array([[0.79, 0.11, 0.11]])
    """
    symbols = np.arange(len(alphabet) + 1)
    characters = symbols[symbols != blank_index]
    logits = logits[:, [blank_index, *characters]].astype("float64")
    logits = logits - logits.max(axis=1, keepdims=True)
    total = np.exp(logits).sum(axis=1, keepdims=True)
    return np.maximum(logits - np.log(total), _LOWEST)


def align_labels(log_probs, labels, blank_index=0, space_index=None):
    """Finds the frames of each label on the most probable CTC alignment.

    Args:
        log_probs: Array of shape `(frames, symbols)`.
        labels: Integers, the text without blanks.
        blank_index: Integer. Symbol of the blank. Defaults to `0`.
        space_index: Integer. Symbol that may be repeated between words, and
            stand before the first and after the last one, as spaces do in
            texts whose runs of spaces were made one. Defaults to `None`.

    Returns:
        List of `(start, end)`, one for each label: its first frame, and the
        one after its last.

    Raises:
        ValueError: If the frames cannot hold the labels.

    Reference:
        Graves et al., 2006, section 4.1, with a maximum in place of the sum.

    Example:

    >>> import numpy as np
    >>> from keras_ds2.decoding.alignment import align_labels
    >>> best = [0, 1, 1, 0, 2, 0]
    >>> align_labels(np.log(np.eye(3)[best] + 0.01), [1, 2])
    [(1, 3), (4, 5)]
    """
    labels = np.asarray(labels, int)
    emissions = _emissions(log_probs, labels, blank_index, space_index)
    num_frames, num_states = emissions.shape
    # A blank may be left out between two labels that differ.
    may_skip = np.zeros(num_states, bool)
    may_skip[3::2] = np.not_equal(labels[1:], labels[:-1])
    steps = np.zeros((num_frames, num_states), "int8")
    scores = np.where(np.arange(num_states) < 2, 0.0, -np.inf)
    columns = np.arange(num_states)
    for frame in range(num_frames):
        if frame > 0:
            arrivals = np.full((3, num_states), -np.inf)
            arrivals[0] = scores
            arrivals[1, 1:] = scores[:-1]
            arrivals[2, 2:] = np.where(may_skip[2:], scores[:-2], -np.inf)
            steps[frame] = arrivals.argmax(axis=0)
            scores = arrivals[steps[frame], columns]
        scores = scores + emissions[frame]
    state = num_states - 1
    if num_states > 1 and scores[-2] > scores[-1]:
        state -= 1
    if not scores[state] > -np.inf or num_frames == 0 < len(labels):
        raise ValueError(
            f"{num_frames} frames cannot hold {len(labels)} labels: the text "
            "is too long, or has no probability."
        )
    spans = [(num_frames, 0)] * len(labels)
    for frame in range(num_frames - 1, -1, -1):
        if state % 2:
            _, end = spans[state // 2]
            spans[state // 2] = (frame, max(end, frame + 1))
        state -= int(steps[frame, state])  # of 8 bits, where a state is not
    return spans


def _emissions(log_probs, labels, blank_index, space_index):
    """Log probabilities of blank, label, blank, label, ..., blank."""
    blank = log_probs[:, blank_index]
    emissions = np.empty((len(log_probs), 2 * len(labels) + 1))
    emissions[:, 0::2] = blank[:, None]
    emissions[:, 1::2] = log_probs[:, labels]
    if space_index is not None:
        edge = np.array([space_index, *labels, space_index]) == space_index
        between = np.flatnonzero(edge[1:] | edge[:-1])
        either = np.maximum(blank, log_probs[:, space_index])
        emissions[:, 2 * between] = either[:, None]
    return emissions


def time_text(text, alphabet, log_probs, frame_duration):
    """Tells when each word and each character of a text was said.

    Args:
        text: String, of characters of the alphabet, one space between words.
        alphabet: String.
        log_probs: Array of shape `(frames, symbols)`: the blank first, then
            the alphabet in order.
        frame_duration: Float. Seconds between two frames.

    Returns:
        Two tuples of `TimedText`: the words, and the characters but spaces.

    Raises:
        ValueError: If the frames cannot hold the text.

    Example:

    >>> import numpy as np
    >>> from keras_ds2.decoding.alignment import time_text
    >>> log_probs = np.log(np.eye(3)[[0, 1, 1, 0, 2, 0]] + 0.01)
    >>> [word], _ = time_text("ab", "ab", log_probs, frame_duration=0.5)
    >>> (word.start, word.end)
    (0.5, 2.5)
    """
    letters = LetterTimes()
    for span in letter_spans(text, alphabet, log_probs):
        letters.append(*span)
    return letters.timed(text, frame_duration)


def letter_spans(text, alphabet, log_probs):
    """Yields first frame, end and confidence of each letter of a text.

    Letters are characters but spaces. For the arguments see `time_text`.
    """
    symbols = {c: index for index, c in enumerate(alphabet, start=1)}
    labels = [symbols[character] for character in text]
    spans = align_labels(log_probs, labels, space_index=symbols.get(" "))
    for character, label, (start, end) in zip(text, labels, spans, strict=True):
        if character != " ":
            yield start, end, float(np.exp(log_probs[start:end, label].max()))


class LetterTimes:
    """When the letters of a text were said, in 16 bytes for each.

    A letter is a character but a space.
    """

    def __init__(self):
        self.starts = array.array("i")
        self.ends = array.array("i")
        self.confidences = array.array("d")

    def append(self, start, end, confidence):
        """Adds a letter: its first frame, the one after its last."""
        self.starts.append(start)
        self.ends.append(end)
        self.confidences.append(confidence)

    def timed(self, text, frame_duration):
        """Returns two tuples of `TimedText`: words and letters of `text`."""
        letters = [
            TimedText(
                letter,
                start * frame_duration,
                end * frame_duration,
                confidence,
            )
            for letter, start, end, confidence in zip(
                text.replace(" ", ""),
                self.starts,
                self.ends,
                self.confidences,
                strict=True,
            )
        ]
        words = []
        begin = 0
        for word in text.split(" ") if text else ():
            own = letters[begin : begin + len(word)]
            begin += len(word)
            confidence = min(letter.confidence for letter in own)
            words.append(TimedText(word, own[0].start, own[-1].end, confidence))
        return tuple(words), tuple(letters)
