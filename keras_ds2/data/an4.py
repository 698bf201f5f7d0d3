"""CMU AN4 on disk in, utterances out."""

import os
import re
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

from keras_ds2.data.corpus import (
    AUDIO_SUFFIXES,
    CorpusError,
    Utterance,
    numbered_lines,
    refuse_repeated,
)
from keras_ds2.text import normalize_transcript

# "<s> YES </s> (an251-fash-b)", in the test half without the marks.
_TRANSCRIPT = re.compile(
    r"(?:<s>)?(?P<text>[^<>()]*)(?:</s>)?\s*\((?P<id>\S+)\)"
)


def read_an4(
    root: str | os.PathLike[str], split: str = "train"
) -> Iterator[Utterance]:
    """Reads CMU AN4 as it is distributed.

    The layout is `etc/an4_train.fileids`, with a path below `wav` per line
    (`an4_clstk/fash/an251-fash-b`), `etc/an4_train.transcription`, with a line
    `<s> TRANSCRIPT </s> (an251-fash-b)` for each, and the audio as `.sph`,
    `.wav`, `.flac`, `.opus` or `.ogg`. The name of a speaker is that of the
    folder. A transcript may be empty; audio that is not listed is ignored.

    Args:
        root: The folder that holds `etc` and `wav`, or its parent, which holds
            `an4`.
        split: `"train"` (948 utterances in the distribution) or `"test"`
            (130). Defaults to `"train"`.

    Yields:
        `Utterance`s without duration, in the order of `fileids`. Nothing is
        read, and no error raised, before the first is asked for.

    Raises:
        CorpusError: If a file is missing or empty, a line is malformed, an id
            is repeated, or an id lacks its transcript, its line or its audio.

    Reference:
        Acero and Stern, 1990, "Environmental robustness in automatic speech
        recognition" (the recordings).

    Example:

    >>> import pathlib, tempfile
    >>> from keras_ds2.data.an4 import read_an4
    >>> with tempfile.TemporaryDirectory() as root:
    ...     folder = pathlib.Path(root, "wav", "an4_clstk", "fash")
    ...     folder.mkdir(parents=True)
    ...     folder.joinpath("an251-fash-b.sph").touch()
    ...     etc = pathlib.Path(root, "etc")
    ...     etc.mkdir()
    ...     ids = etc / "an4_train.fileids"
    ...     _ = ids.write_text("an4_clstk/fash/an251-fash-b")
    ...     transcripts = etc / "an4_train.transcription"
    ...     _ = transcripts.write_text("<s> YES </s> (an251-fash-b)")
    ...     [(row.text, row.speaker) for row in read_an4(root)]
    [('yes', 'fash')]
    """
    if split not in ("train", "test"):
        raise CorpusError(
            f"`split` must be 'train' or 'test'. Received: split={split!r}"
        )
    folder = Path(root)
    if (folder / "an4").is_dir():
        folder = folder / "an4"
    listing = folder / "etc" / f"an4_{split}.fileids"
    transcripts = _read_transcripts(listing.with_suffix(".transcription"))
    sources: dict[str, str] = {}
    for source, line in _lines(listing):
        path = PurePosixPath(line)
        if len(path.parts) < 2 or ".." in path.parts or path.is_absolute():
            raise CorpusError(
                f"{source}: malformed line. Write 'folder/SPEAKER/ID', as it "
                f"stands below `wav`. Received: {line[:80]}"
            )
        utterance_id = path.name
        refuse_repeated(utterance_id, source, sources)
        if utterance_id not in transcripts:
            raise CorpusError(
                f"{source}: id '{utterance_id}' has no transcript in "
                f"'{listing.with_suffix('.transcription')}'. Write ids "
                f"without ending; add a line 'TRANSCRIPT ({utterance_id})' or "
                "remove this one."
            )
        sources[utterance_id] = source
        where, text = transcripts.pop(utterance_id)
        audio = _find_audio(folder / "wav" / path, source)
        yield Utterance(
            audio=str(audio),
            text=normalize_transcript(text),
            speaker=audio.parent.name,
            source=where,
            corpus=f"an4_{split}",
        )
    if transcripts:
        utterance_id, (source, _) = next(iter(transcripts.items()))
        raise CorpusError(
            f"{source}: id '{utterance_id}' does not stand in '{listing}', nor "
            f"do {len(transcripts) - 1} more. Add paths there, or remove the "
            "transcripts."
        )


def _lines(path: Path) -> Iterator[tuple[str, str]]:
    if not path.is_file():
        raise CorpusError(
            f"AN4 file '{path}' does not exist. Pass the folder that holds "
            "`etc` and `wav`, or its parent; unpack the archive there."
        )
    source = None
    for source, line in numbered_lines(path):
        yield source, line
    if source is None:
        raise CorpusError(
            f"AN4 file '{path}' is empty. Unpack the archive again."
        )


def _read_transcripts(path: Path) -> dict[str, tuple[str, str]]:
    """Maps ids to where the transcript stands, and to the transcript."""
    sources: dict[str, str] = {}
    transcripts: dict[str, tuple[str, str]] = {}
    for source, line in _lines(path):
        match = _TRANSCRIPT.fullmatch(line)
        if match is None:
            raise CorpusError(
                f"{source}: malformed line. Write '<s> TRANSCRIPT </s> (id)'. "
                f"Received: {line[:80]}"
            )
        refuse_repeated(match["id"], source, sources)
        sources[match["id"]] = source
        transcripts[match["id"]] = source, match["text"]
    return transcripts


def _find_audio(stem: Path, source: str) -> Path:
    for suffix in AUDIO_SUFFIXES:
        # Not `with_suffix`, which would cut a name at its last dot.
        audio = stem.with_name(stem.name + suffix)
        if audio.is_file():
            return audio
    fix = "Add the audio or remove the line and its transcript."
    if stem.with_name(f"{stem.name}.raw").is_file():
        fix = (
            "There is a '.raw', which does not say its rate and byte order: "
            "take the archive with NIST SPHERE files (.sph)."
        )
    raise CorpusError(
        f"{source}: no audio, expected '{stem}' with one of the endings "
        f"{', '.join(AUDIO_SUFFIXES)}. {fix}"
    )
