"""How text is shown that is still being said: lines, JSON, or redrawn."""

import json
import os
import shutil
import sys
import unicodedata


def choose(format):
    """Returns the view for `--format`, and for what standard output is."""
    if format == "json":
        return Events()
    if sys.stdout.isatty() and os.environ.get("TERM") != "dumb":
        return Terminal()
    return Utterances()


class Utterances:
    """A line for each utterance, when it has ended."""

    def partial(self, partial, time):
        """Shows what is known by `time`, in seconds."""

    def final(self, hypothesis, start):
        """Shows the utterance that began at `start`, in seconds."""
        if hypothesis.text:
            print(hypothesis.text, flush=True)


class Events:
    """A JSON object a line for all that changes."""

    def partial(self, partial, time):
        """Shows what is known by `time`, in seconds."""
        self._print(
            type="partial",
            time=round(time, 3),
            text=partial.text,
            stable=partial.stable,
        )

    def final(self, hypothesis, start):
        """Shows the utterance that began at `start`, in seconds."""
        from keras_ds2.transcript import describe_words

        if not hypothesis.text:
            return
        words = describe_words(hypothesis.words, start)
        self._print(
            type="final",
            start=words[0]["start"],
            end=words[-1]["end"],
            text=hypothesis.text,
            words=words,
        )

    def _print(self, **event):
        print(json.dumps(event, ensure_ascii=False), flush=True)


class Terminal:
    """Utterances as lines, and below them one that is redrawn.

    It has what fits of the end of what is known. What may change is dim.
    """

    def partial(self, partial, time):
        """Shows what is known by `time`, in seconds."""
        tail = _tail(partial.text, shutil.get_terminal_size().columns - 1)
        num_stable = max(
            len(tail) - (len(partial.text) - len(partial.stable)), 0
        )
        self._print(f"{tail[:num_stable]}\x1b[2m{tail[num_stable:]}\x1b[m")

    def final(self, hypothesis, start):
        """Shows the utterance that began at `start`, in seconds."""
        self._print(f"{hypothesis.text}\n" if hypothesis.text else "")

    def _print(self, text):
        print(f"\r\x1b[K{text}", end="", flush=True)


def _tail(text, columns):
    """As much of the end of a text as fits, after dots if not all does."""
    if _width(text) <= columns:
        return text
    start = len(text)
    room = columns - len("...")
    while start and (room := room - _width(text[start - 1])) >= 0:
        start -= 1
    return f"...{text[start:]}"


def _width(text):
    """Columns of a terminal that it takes."""
    return sum(
        0
        if unicodedata.category(character) in ("Mn", "Me", "Cf")
        else 1 + (unicodedata.east_asian_width(character) in "WF")
        for character in text
    )
