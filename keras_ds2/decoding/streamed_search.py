"""A search of flashlight-text that never ends."""

import copy
import sys
from typing import Any

import numpy as np

# Frames that are kept at least, and those after which the best hypothesis is
# taken for true where others still disagree. 4 s and 20 s of 20 ms.
_KEPT_FRAMES = 200
_LONGEST_DOUBT = 1000


class StreamedSearch:
    """Runs a decoder on whole utterances, or (`fork`) on a stream.

    On a stream memory does not grow, and the best hypothesis alone is right.
    Units, words or characters, on which all hypotheses agree that can still
    win are certain. They are kept here, hypotheses that begin otherwise do not
    count any more, and by and by the decoder forgets their frames.

    Two hypotheses have the same future if they have the same unfinished unit
    and the same units before, as many as the language model looks at: whatever
    comes, both scores change alike, and the worse one cannot win. In a beam
    most are such twins, which differ in something that was said long ago.
    """

    _decoder: Any
    _forgets = False
    _context: int  # units that the language model looks back at

    def begin(self):
        """Starts an utterance."""
        self._decoder.decode_begin()
        self._certain: list[int] = []
        self._num_forgotten = 0  # of these
        self.num_forgotten_frames = 0
        self._num_held_frames = 0
        self._room = _KEPT_FRAMES if self._forgets else sys.maxsize
        self._scored = 0.0  # what forgetting took off the scores

    def step(self, log_probs):
        """Takes some frames, `(frames, symbols)`."""
        # To forget always at the same number of frames: flashlight leaves the
        # last hypotheses where they were, and with them all states of the
        # language model since, until as many frames come again.
        while len(log_probs):
            frames = log_probs[: self._room - self._num_held_frames]
            log_probs = log_probs[len(frames) :]
            self._feed(frames)
            self._num_held_frames += len(frames)
            if self._num_held_frames == self._room:
                self._forget(self._decide())
                if self._num_held_frames == self._room:
                    self._room += _KEPT_FRAMES

    def _feed(self, frames):
        frames = np.ascontiguousarray(frames, "float32")
        self._decoder.decode_step(frames.ctypes.data, *frames.shape)

    def fork(self):
        """Makes a search of a stream, which shares models and lexicon."""
        search = copy.copy(self)
        search._decoder = self._make_decoder()
        search._forgets = True
        return search

    def read(self):
        """Returns the best text so far, and the part that is certain."""
        results = self._decide()
        if not results:  # no frame yet
            return "", ""
        units = self._all_units(results[0])
        text = f"{self._text(units)} {self._unfinished(results[0]) or ''}"
        return text.strip(), self._text(self._certain)

    def _decide(self):
        """Finds what is certain; returns those that can win, best first."""
        ranked = self._ranked(self._decoder.get_all_final_hypothesis())
        contenders: dict[tuple, tuple] = {}  # of several twins, the best
        for i, (result, units) in enumerate(ranked):
            unfinished = self._unfinished(result)
            past = units[max(len(units) - self._context, 0) :]
            # The beginning of a unit may have been forgotten.
            key = i if unfinished is None else (*past, unfinished)
            contenders.setdefault((key, result.tokens[-1]), (result, units))
        if contenders:
            self._certain = _shared([u for _, u in contenders.values()])
        return [result for result, _ in contenders.values()]

    def _ranked(self, results):
        """Pairs of a hypothesis and all its units, best first."""
        results = sorted(results, key=lambda result: -result.score)
        ranked = [(result, self._all_units(result)) for result in results]
        count = len(self._certain)
        return [
            pair for pair in ranked if pair[1][:count] == self._certain
        ] or [
            (result, self._certain + units[count:])
            for result, units in ranked[:1]
        ]

    def _all_units(self, result):
        emissions = self._emissions(result)
        units = emissions[emissions >= 0].tolist()
        return self._certain[: self._num_forgotten] + units

    def _forget(self, results):
        """Has the decoder let go of frames; the best result comes first."""
        emissions = np.array([self._emissions(result) for result in results])
        num_frames = emissions.shape[1]
        counts = (emissions >= 0).cumsum(axis=1)
        agreed = (counts == counts[0]).all(axis=0)
        agreed &= self._num_forgotten + counts[0] <= len(self._certain)
        # Where it would cut, for each frame that it can be asked to cut after.
        cuts = self._cuts(emissions[0])[:-1]
        frames = np.flatnonzero((cuts >= 0) & agreed[cuts])
        if not len(frames) and num_frames > _LONGEST_DOUBT:
            frames = np.flatnonzero((cuts >= 0) & (cuts < num_frames // 2))
        if not len(frames):
            return
        self._decoder.prune(int(num_frames - 1 - frames[-1]))
        self._scored += results[0].score
        num_frames = int(cuts[frames[-1]]) + 1
        self.num_forgotten_frames += num_frames
        self._num_held_frames -= num_frames
        units = emissions[0][:num_frames]
        units = units[units >= 0].tolist()
        num_new = max(self._num_forgotten + len(units) - len(self._certain), 0)
        self._certain = self._certain + units[len(units) - num_new :]
        self._num_forgotten += len(units)

    def _make_decoder(self):
        raise NotImplementedError

    def _emissions(self, result):
        """The unit that is complete at each frame, or less than 0."""
        raise NotImplementedError

    def _cuts(self, emissions):
        """After which frame the decoder cuts, if asked to after each.

        `emissions` are those of the best hypothesis. Below 0: nowhere.
        """
        raise NotImplementedError

    def _text(self, units):
        raise NotImplementedError

    def _unfinished(self, result):
        """The letters after the last unit; `None` if they are not known."""
        raise NotImplementedError


def _shared(sequences):
    """What all begin with: what the first and the last by order do."""
    first, last = min(sequences), max(sequences)
    for i, (a, b) in enumerate(zip(first, last, strict=False)):
        if a != b:
            return first[:i]
    return first
