"""What an utterance is, and what all readers of corpora need.

Readers stream and look at file names only; `durations.py` reads headers.
"""

import math
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

# Of two encodings of one utterance the first in this order is read.
AUDIO_SUFFIXES = (".flac", ".wav", ".sph", ".opus", ".ogg")


class Utterance(NamedTuple):
    """One recording and its transcript.

    Args:
        audio: Path of the audio file.
        text: The normalized transcript.
        duration: Seconds; NaN until known (see `add_durations`).
        speaker: Name of the speaker, empty if unknown.
        source: Where the transcript stands, as `"file:line"`, for messages.
        corpus: Name of the corpus, empty if unknown; errors are counted by
            it.

    Example:

    >>> from keras_ds2.data.corpus import Utterance
    >>> Utterance("clip.flac", "it's ten", duration=1.5).text
    "it's ten"
    """

    audio: str
    text: str
    duration: float = math.nan
    speaker: str = ""
    source: str = ""
    corpus: str = ""


class CorpusError(ValueError):
    """Says where a corpus is wrong (file and line) and how to mend it."""


def numbered_lines(path: Path) -> Iterator[tuple[str, str]]:
    """Yields `("path:number", line)` for every line that is not blank."""
    with path.open("rb") as file:
        for number, line in enumerate(file, start=1):
            source = f"{path}:{number}"
            try:
                # "sig": editors on Windows begin the file with a mark.
                text = line.decode("utf-8-sig").strip()
            except UnicodeDecodeError as error:
                raise CorpusError(
                    f"{source}: byte {error.start + 1} of the line is not "
                    "UTF-8. Save the file as UTF-8."
                ) from error
            if text:
                yield source, text


def refuse_repeated(
    utterance_id: str, source: str, sources: dict[str, str]
) -> None:
    """Raises if `sources` says that the id stands elsewhere already."""
    if utterance_id in sources:
        raise CorpusError(
            f"{source}: id '{utterance_id}' stands already at "
            f"{sources[utterance_id]}. Remove one of the two."
        )


def audio_by_id(folder: Path) -> dict[str, Path]:
    """Finds the audio files of a folder, by their names without suffix."""
    return {
        path.stem: path
        for suffix in reversed(AUDIO_SUFFIXES)
        for path in folder.glob(f"*{suffix}")
        # macOS leaves files such as "._84-121123-0000.flac".
        if not path.name.startswith(".")
    }
