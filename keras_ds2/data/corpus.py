"""Corpora on disk in, utterances out: what an utterance is; LibriSpeech.

Readers stream and look at file names only; `durations.py` reads headers.
"""

import math
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from keras_ds2.text import normalize_transcript

# Of two encodings of one utterance the first in this order is read.
_AUDIO_SUFFIXES = (".flac", ".wav", ".opus", ".ogg")


class Utterance(NamedTuple):
    """One recording and its transcript.

    Args:
        audio: Path of the audio file.
        text: The normalized transcript.
        duration: Seconds; NaN until known (see `add_durations`).
        speaker: Name of the speaker, empty if unknown.
        source: Where the transcript stands, as `"file:line"`, for messages.

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


class CorpusError(ValueError):
    """Says where a corpus is wrong (file and line) and how to mend it."""


def read_librispeech(
    root: str | os.PathLike[str], subsets: str | Sequence[str]
) -> Iterator[Utterance]:
    """Reads LibriSpeech as it unpacks from its archives.

    The layout is `subset/speaker/chapter/speaker-chapter.trans.txt`, with a
    line `id TRANSCRIPT` per utterance and `id.flac` (or `.wav`, `.opus`,
    `.ogg`) beside it. A transcript may be empty. The order is sorted by
    subset as given, then speaker, chapter and line.

    Args:
        root: The folder that holds the subsets, or its parent, which holds
            `LibriSpeech`.
        subsets: Names of subsets, such as `["train-clean-100"]`, or one
            name.

    Yields:
        `Utterance`s without duration, one by one. Nothing is read, and no
        error raised, before the first is asked for.

    Raises:
        CorpusError: If a folder or subset is missing, a line is malformed,
            an id is repeated, or a transcript or its audio lacks the other.

    Example:

    >>> import pathlib, tempfile
    >>> from keras_ds2.data.corpus import read_librispeech
    >>> with tempfile.TemporaryDirectory() as root:
    ...     chapter = pathlib.Path(root, "dev-clean", "84", "121123")
    ...     chapter.mkdir(parents=True)
    ...     chapter.joinpath("84-121123-0000.flac").touch()
    ...     transcripts = chapter / "84-121123.trans.txt"
    ...     _ = transcripts.write_text("84-121123-0000 GO DO YOU HEAR")
    ...     [row.text for row in read_librispeech(root, ["dev-clean"])]
    ['go do you hear']
    """
    folder = Path(root)
    if (folder / "LibriSpeech").is_dir():
        folder = folder / "LibriSpeech"
    if not folder.is_dir():
        raise CorpusError(
            f"LibriSpeech folder '{folder}' does not exist. Pass the folder "
            "that holds the subsets, or its parent."
        )
    sources: dict[str, str] = {}
    for subset in [subsets] if isinstance(subsets, str) else subsets:
        num_before = len(sources)
        for chapter in _chapters(folder, subset):
            yield from _read_chapter(chapter, sources)
        if len(sources) == num_before:
            raise CorpusError(
                f"LibriSpeech subset '{folder / subset}' holds no "
                "transcripts (speaker/chapter/speaker-chapter.trans.txt). "
                "Unpack its archive again."
            )


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


def _chapters(folder: Path, subset: str) -> list[Path]:
    if not (folder / subset).is_dir():
        existing = sorted(p.name for p in folder.iterdir() if p.is_dir())
        raise CorpusError(
            f"LibriSpeech subset '{subset}' does not exist in '{folder}', "
            f"which holds: {', '.join(existing) or 'nothing'}. Pass one of "
            "these, or unpack its archive there."
        )
    return sorted(p for p in (folder / subset).glob("*/*") if p.is_dir())


def _read_chapter(
    chapter: Path, sources: dict[str, str]
) -> Iterator[Utterance]:
    """Yields the utterances of a chapter, and adds their ids to `sources`."""
    speaker = chapter.parent.name
    transcripts = chapter / f"{speaker}-{chapter.name}.trans.txt"
    audio = _audio_by_id(chapter)
    for source, line in (
        numbered_lines(transcripts) if transcripts.is_file() else ()
    ):
        utterance_id, text = (line.split(maxsplit=1) + [""])[:2]
        if not utterance_id.startswith(f"{speaker}-{chapter.name}-"):
            raise CorpusError(
                f"{source}: malformed line, it begins with '{utterance_id}'. "
                f"Write '{speaker}-{chapter.name}-NUMBER TRANSCRIPT'."
            )
        if utterance_id in sources:
            raise CorpusError(
                f"{source}: id '{utterance_id}' stands already at "
                f"{sources[utterance_id]}. Remove one of the two."
            )
        if utterance_id not in audio:
            raise CorpusError(
                f"{source}: transcript without audio, expected "
                f"'{chapter / utterance_id}.flac' (or "
                f"{', '.join(_AUDIO_SUFFIXES[1:])}). Add the audio or remove "
                "the line."
            )
        sources[utterance_id] = source
        yield Utterance(
            audio=str(audio.pop(utterance_id)),
            text=normalize_transcript(text),
            speaker=speaker,
            source=source,
        )
    if audio:
        raise CorpusError(
            f"{transcripts}: {len(audio)} audio file(s) without transcript, "
            f"such as '{min(audio.values())}'. Add a line "
            f"'{min(audio)} TRANSCRIPT', or remove the audio."
        )


def _audio_by_id(chapter: Path) -> dict[str, Path]:
    return {
        path.stem: path
        for suffix in reversed(_AUDIO_SUFFIXES)
        for path in chapter.glob(f"*{suffix}")
        # macOS leaves files such as "._84-121123-0000.flac".
        if not path.name.startswith(".")
    }
