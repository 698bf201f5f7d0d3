"""Characters in, what was heard where they were said out."""

import bisect

import numpy as np

# Characters before and after a stretch that are the same as where it is put:
# the best that can be had, and none at last.
_CONTEXTS = ((2, 2), (2, 1), (1, 1), (1, 0), (0, 0))
# Characters of a stretch; fewer only where there is no other.
STRETCH = (3, 11)
# Characters by which places are found: those of a stretch with its context.
_LONGEST = STRETCH[1] + 4
# Before and after each utterance: silence, mostly.
_NOTHING = "\n"
# Beyond all characters.
_LAST = "\U0010ffff"


class HeardPlaces:
    """Where in a heard corpus which characters were said.

    Args:
        heard: `HeardSpeech`.

    Attributes:
        characters: Set of all characters that were said somewhere.
    """

    def __init__(self, heard):
        self.texts, self.log_probs = heard.texts, heard.log_probs
        self._frames = heard.character_frames()
        said: list[str] = []
        places: list[tuple[int, int]] = []
        for row, frames in enumerate(self._frames):
            if frames is not None:
                said.append(_NOTHING + self.texts[row] + _NOTHING)
                places.extend((row, i - 1) for i in range(len(said[-1])))
        self.characters = set().union(*said) - {_NOTHING}
        codes = np.array(
            [ord(c) for c in "".join(said) + _NOTHING * _LONGEST], "<u4"
        )
        windows = np.lib.stride_tricks.sliding_window_view(codes, _LONGEST)
        keys = np.ascontiguousarray(windows[: len(places)])
        keys = keys.view(f"<U{_LONGEST}").ravel()
        order = np.argsort(keys, kind="stable")
        self._keys = keys[order].tolist()
        self._places = np.array(places, "int32").reshape(-1, 2)[order]

    def draw(self, text, position, count, generator):
        """Draws what was heard of some characters of a text.

        Args:
            text: String, of `characters`.
            position: Integer. Where in it they begin.
            count: Integer. How many are wanted.
            generator: `np.random.Generator`.

        Returns:
            How many there are, from 1 to `count`, and float16 log
            probabilities of shape `(frames, 1 + characters)`.

        Raises:
            ValueError: If the first of them was never heard.
        """
        rest = len(text) - position
        text, position = _NOTHING + text + _NOTHING, position + 1
        for before, after in _CONTEXTS:
            before = min(before, position)
            wanted = text[position - before : position + count + after]
            found, (first, last) = self._longest(wanted[:_LONGEST])
            size = found - before
            if position + size < len(text):  # not to the end of the text
                size -= after
            size = min(size, count, rest)
            if size >= min(STRETCH[0], rest) or not (before or after):
                break
        if size < 1:
            raise ValueError(
                f"{text[position]!r} was never heard in a transcript that its "
                "recording holds."
            )
        row, start = self._places[int(generator.integers(first, last))]
        start += before
        frames = self._frames[row]
        return size, self.log_probs[row][frames[start] : frames[start + size]]

    def _longest(self, wanted):
        """The longest beginning that was said, and the places where."""
        low, high = 0, len(wanted)
        found = 0, len(self._keys)
        size = high  # mostly there is all of it, or little
        while low < high:
            beginning = wanted[:size]
            first = bisect.bisect_left(self._keys, beginning)
            last = bisect.bisect_left(self._keys, beginning + _LAST, first)
            if first < last:
                low, found = size, (first, last)
            else:
                high = size - 1
            size = (low + high + 1) // 2
        return low, found
