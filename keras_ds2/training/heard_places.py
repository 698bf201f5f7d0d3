"""Characters in, what was heard where they were said out."""

import bisect

import numpy as np

# Characters before and after a stretch that are the same as where it is put:
# the best that can be had, and none at last.
_CONTEXTS = ((2, 2), (2, 1), (1, 1), (1, 0), (0, 0))
# Fewer are a stretch only where there is no other.
_FEW = 3
# Characters by which places are found; no stretch with its context is longer.
_LONGEST = 16
# Between utterances; beyond all characters.
_NOTHING, _LAST = "\0", "\U0010ffff"


class HeardPlaces:
    """Where in a heard corpus which characters were said."""

    def __init__(self, heard):
        self.texts, self.log_probs = heard.texts, heard.log_probs
        self._frames = heard.character_frames()
        characters: list[str] = []
        places: list[tuple[int, int]] = []
        for row, frames in enumerate(self._frames):
            if frames is not None:
                text = self.texts[row]
                characters.append(text + _NOTHING)
                places.extend((row, i) for i in range(len(text) + 1))
        text = "".join(characters)
        codes = np.array([ord(c) for c in text + _NOTHING * _LONGEST], "<u4")
        windows = np.lib.stride_tricks.sliding_window_view(codes, _LONGEST)
        keys = np.ascontiguousarray(windows[: len(text)])
        keys = keys.view(f"<U{_LONGEST}").ravel()
        order = np.argsort(keys, kind="stable")
        self._keys = keys[order].tolist()
        self._places = np.array(places, "int32")[order]

    def draw(self, text, written, count, generator):
        """Draws what was heard of the next characters of a text.

        Args:
            text: String. What is to come.
            written: String. What stands before it.
            count: Integer. How many characters are wanted.
            generator: `np.random.Generator`.

        Returns:
            How many there are, from 1 to `count`, and float16 log
            probabilities of shape `(frames, 1 + characters)`.
        """
        for before, after in _CONTEXTS:
            context = written[len(written) - before :] if before else ""
            wanted = context + text[: count + after]
            size, (first, last) = self._longest(wanted[:_LONGEST])
            size -= len(context)
            if size < len(text):
                size -= after
            size = min(size, count)
            if size >= min(_FEW, len(text)) or not (before or after):
                break
        row, start = self._places[int(generator.integers(first, last))]
        start += len(context)
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
