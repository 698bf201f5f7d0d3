"""Words with times in, subtitles and word lists for other programs out."""

import html
import textwrap
from collections.abc import Sequence

from keras_ds2.decoding.hypothesis import TimedText

# What subtitlers agree on, more or less: two lines of 42 characters, for one
# second at least and six at most. A pause of a second begins a new cue.
_LINE_LENGTH = 42
_NUM_LINES = 2
_SHORTEST = 1.0
_LONGEST = 6.0
_PAUSE = 1.0


def make_cues(
    words: Sequence[TimedText],
) -> list[tuple[float, float, list[str]]]:
    """Groups words to what is shown at a time.

    A cue has up to two lines of 42 characters, lasts up to 6 s, ends at a
    pause of 1 s, and is shown for at least 1 s if the next one allows.

    Args:
        words: `TimedText`s in order.

    Returns:
        List of start and end, in seconds, and the lines.

    Example:

    >>> from keras_ds2 import TimedText
    >>> from keras_ds2.subtitles import make_cues
    >>> words = [TimedText("it", 0.1, 0.2, 1.0), TimedText("is", 0.3, 0.4, 1.0)]
    >>> make_cues(words)
    [(0.1, 1.1, ['it is'])]
    """
    groups: list[list[TimedText]] = []
    for word in words:
        if groups and _fits(groups[-1], word):
            groups[-1].append(word)
        else:
            groups.append([word])
    cues = []
    for i, group in enumerate(groups):
        start = group[0].start
        end = max(group[-1].end, start + _SHORTEST)
        if i + 1 < len(groups):
            end = min(end, groups[i + 1][0].start)
        cues.append((start, end, _lines(group)))
    return cues


def format_srt(words: Sequence[TimedText]) -> str:
    """Writes words as SubRip subtitles.

    Args:
        words: `TimedText`s in order.

    Returns:
        The content of an `.srt` file.

    Example:

    >>> from keras_ds2 import TimedText
    >>> from keras_ds2.subtitles import format_srt
    >>> print(format_srt([TimedText("ten", 0.4, 1.7, 0.9)]), end="")
    1
    00:00:00,400 --> 00:00:01,700
    ten
    """
    return "\n".join(
        f"{number}\n{_clock(start, ',')} --> {_clock(end, ',')}\n"
        + "".join(f"{line}\n" for line in lines)
        for number, (start, end, lines) in enumerate(make_cues(words), 1)
    )


def format_vtt(words: Sequence[TimedText]) -> str:
    """Writes words as WebVTT subtitles.

    Args:
        words: `TimedText`s in order.

    Returns:
        The content of a `.vtt` file.

    Example:

    >>> from keras_ds2 import TimedText
    >>> from keras_ds2.subtitles import format_vtt
    >>> print(format_vtt([TimedText("ten", 0.4, 1.7, 0.9)]), end="")
    WEBVTT
    <BLANKLINE>
    00:00:00.400 --> 00:00:01.700
    ten
    """
    return "WEBVTT\n" + "".join(
        f"\n{_clock(start, '.')} --> {_clock(end, '.')}\n"
        + "".join(f"{html.escape(line, quote=False)}\n" for line in lines)
        for start, end, lines in make_cues(words)
    )


def format_ctm(words: Sequence[TimedText], name: str) -> str:
    """Writes words as NIST's CTM, which `sclite` reads.

    Args:
        words: `TimedText`s in order.
        name: String. Name of the recording; spaces in it become `_`.

    Returns:
        One line for each word: name, channel `1`, start, duration, word,
        confidence.

    Example:

    >>> from keras_ds2 import TimedText
    >>> from keras_ds2.subtitles import format_ctm
    >>> print(format_ctm([TimedText("ten", 0.4, 1.7, 0.9)], "a b"), end="")
    a_b 1 0.40 1.30 ten 0.900
    """
    name = "_".join(name.split())
    return "".join(
        f"{name} 1 {word.start:.2f} {word.end - word.start:.2f} {word.text} "
        f"{word.confidence:.3f}\n"
        for word in words
    )


def _fits(group: Sequence[TimedText], word: TimedText) -> bool:
    return (
        word.start - group[-1].end < _PAUSE
        and word.end - group[0].start <= _LONGEST
        and len(_lines([*group, word])) <= _NUM_LINES
    )


def _lines(words: Sequence[TimedText]) -> list[str]:
    return textwrap.wrap(
        " ".join(word.text for word in words),
        _LINE_LENGTH,
        break_long_words=False,
        break_on_hyphens=False,
    )


def _clock(seconds: float, point: str) -> str:
    minutes, milliseconds = divmod(round(1000 * seconds), 60_000)
    hours, minutes = divmod(minutes, 60)
    seconds, milliseconds = divmod(milliseconds, 1000)
    return f"{hours:02}:{minutes:02}:{seconds:02}{point}{milliseconds:03}"
