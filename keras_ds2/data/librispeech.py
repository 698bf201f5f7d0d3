"""LibriSpeech on disk in, utterances out."""

import os
from collections.abc import Iterator, Sequence
from pathlib import Path

from keras_ds2.data.corpus import (
    AUDIO_SUFFIXES,
    CorpusError,
    Utterance,
    audio_by_id,
    numbered_lines,
    refuse_repeated,
)
from keras_ds2.text import normalize_transcript


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
    >>> from keras_ds2.data.librispeech import read_librispeech
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
    audio = audio_by_id(chapter)
    for source, line in (
        numbered_lines(transcripts) if transcripts.is_file() else ()
    ):
        utterance_id, text = (line.split(maxsplit=1) + [""])[:2]
        if not utterance_id.startswith(f"{speaker}-{chapter.name}-"):
            raise CorpusError(
                f"{source}: malformed line, it begins with '{utterance_id}'. "
                f"Write '{speaker}-{chapter.name}-NUMBER TRANSCRIPT'."
            )
        refuse_repeated(utterance_id, source, sources)
        if utterance_id not in audio:
            raise CorpusError(
                f"{source}: transcript without audio, expected "
                f"'{chapter / utterance_id}.flac' (or "
                f"{', '.join(AUDIO_SUFFIXES[1:])}). Add the audio or remove "
                "the line."
            )
        sources[utterance_id] = source
        yield Utterance(
            audio=str(audio.pop(utterance_id)),
            text=normalize_transcript(text),
            speaker=speaker,
            source=source,
            corpus=chapter.parent.parent.name,
        )
    if audio:
        raise CorpusError(
            f"{transcripts}: {len(audio)} audio file(s) without transcript, "
            f"such as '{min(audio.values())}'. Add a line "
            f"'{min(audio)} TRANSCRIPT', or remove the audio."
        )
