"""Log probabilities in as they come, the best hypothesis out at the end."""

import itertools

import numpy as np

from keras_ds2.decoding.alignment import LetterTimes, letter_spans
from keras_ds2.decoding.hypothesis import Hypothesis

# Frames that are kept for times to be told, and those of them that are too
# recent to tell times in: 20 s and 2 s of 20 ms.
_MOST_FRAMES = 1000
_RECENT_FRAMES = 100


class BeamSearchStream:
    """Does to a stream what a `BeamSearchDecoder` does to whole utterances.

    Times are told by pieces, in long utterances before they end, lest all
    their frames be kept.

    Args:
        search: Search of a stream of its own; see `StreamedSearch.fork`.
        alphabet: String.
        frame_duration: Float. Seconds between two frames.
        weigh: Function from log probabilities to those that are searched.
    """

    def __init__(self, search, alphabet, frame_duration, weigh):
        self._search = search
        self._alphabet = alphabet
        self._frame_duration = frame_duration
        self._weigh = weigh
        self._letters = LetterTimes()
        self._log_probs = np.zeros((0, 1 + len(alphabet)))  # of later frames
        self._start = 0  # the number of the first of them
        self._begins_with_space = True  # where the text does
        self._most_frames = _MOST_FRAMES
        self._search.begin()

    def step(self, log_probs):
        """Takes some frames, `(frames, symbols)`, the blank first."""
        self._search.step(self._weigh(log_probs))
        self._log_probs = np.concatenate([self._log_probs, log_probs])

    def read(self):
        """Returns the best text so far, and the part that is certain."""
        text, certain = self._search.read()
        if len(self._log_probs) > self._most_frames:
            newest = len(self._log_probs) - _RECENT_FRAMES
            self._time(text, certain, newest)
            # Long silence, in which a word may wait to be completed. The space
            # before the next one was in it.
            if len(self._log_probs) > 2 * _MOST_FRAMES:
                self._drop(newest)
                self._begins_with_space = False
            self._most_frames = len(self._log_probs) + _MOST_FRAMES
        return text, certain

    def end(self):
        """Returns the best `Hypothesis`."""
        text, *scores = next(iter(self._search.end()))
        text = " ".join(text.split())
        self._time(text, text, newest=len(self._log_probs))
        times = self._letters.timed(text, self._frame_duration)
        return Hypothesis(text, *scores, *times)

    def _time(self, text, certain, newest):
        """Times certain letters, and forgets their frames.

        All that end up to frame `newest` of those that are kept: later ones
        may move with what is said next.
        """
        num_timed = len(self._letters.starts)
        rest = _skip_letters(text, num_timed)
        if not self._begins_with_space:
            rest = rest.lstrip(" ")
        num_certain = len(certain.replace(" ", "")) - num_timed
        spans = letter_spans(
            rest,
            self._alphabet,
            self._log_probs,
        )
        num_frames = 0
        for start, end, confidence in itertools.islice(spans, num_certain):
            if end > newest:
                break
            self._letters.append(
                self._start + start, self._start + end, confidence
            )
            num_frames = end
            self._begins_with_space = True
        self._drop(num_frames)

    def _drop(self, num_frames):
        self._log_probs = self._log_probs[num_frames:]
        self._start += num_frames


def _skip_letters(text, count):
    end = 0
    while count:
        count -= text[end] != " "
        end += 1
    return text[end:]
