"""Manifests in, utterances out: one JSON object per line."""

import json
import math
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from keras_ds2.data.corpus import CorpusError, Utterance, numbered_lines
from keras_ds2.text import normalize_transcript

_LONGEST = 1e6  # Seconds; more than a week is no duration of an utterance.
_SURROGATES = re.compile("[\ud800-\udfff]")


def read_manifest(path: str | os.PathLike[str]) -> Iterator[Utterance]:
    """Reads a manifest: one JSON object per line.

    Keys: `audio` (or `audio_filepath`), a path, which counts from the
    manifest's folder if it is relative; `text`, a string; optionally
    `duration`, in seconds, `speaker`, and `corpus`, by default the name of the
    manifest without its ending. Other keys are ignored, but for `offset`: an
    utterance is always a whole file.

    Args:
        path: The manifest, in UTF-8.

    Yields:
        `Utterance`s, one by one, in the order of the lines. Nothing is
        read, and no error raised, before the first is asked for.

    Raises:
        CorpusError: If the manifest is missing or empty, or a line is not a
            JSON object, lacks a key, holds a wrong value, or names an audio
            file that does not exist.

    Example:

    >>> import json, pathlib, tempfile
    >>> from keras_ds2.data.manifest import read_manifest
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     pathlib.Path(folder, "a.wav").touch()
    ...     manifest = pathlib.Path(folder, "train.jsonl")
    ...     row = {"audio": "a.wav", "text": "Go", "duration": 1.5}
    ...     _ = manifest.write_text(json.dumps(row))
    ...     [(row.text, row.duration) for row in read_manifest(manifest)]
    [('go', 1.5)]
    """
    path = Path(path)
    if not path.is_file():
        raise CorpusError(
            f"Manifest '{path}' does not exist or is not a file. Check the "
            "path."
        )
    source = None
    for source, line in numbered_lines(path):
        yield _parse_row(line, source, path)
    if source is None:
        raise CorpusError(
            f"Manifest '{path}' is empty. Write one JSON object per line."
        )


def _parse_row(line: str, source: str, manifest: Path) -> Utterance:
    try:
        row = json.loads(line, object_pairs_hook=_without_repeats)
    # Not JSON; a number of thousands of digits; brackets without end.
    except (ValueError, RecursionError) as error:
        raise CorpusError(
            f"{source}: not JSON ({error}). Write one JSON object per line."
        ) from error
    if not isinstance(row, dict):
        raise CorpusError(
            f"{source}: must be a JSON object with the keys `audio` and "
            f"`text`. Received: {line[:80]}"
        )
    key = "audio" if "audio" in row else "audio_filepath"
    if key not in row or "text" not in row:
        raise CorpusError(
            f"{source}: key `{'text' if key in row else 'audio'}` is "
            f"missing. Add it. Received the keys: {', '.join(row)}"
        )
    _require(isinstance(row[key], str), source, key, row, "a path")
    valid = row.get("audio_filepath", row[key]) == row[key]
    _require(valid, source, "audio_filepath", row, "absent beside `audio`")
    _require(_is_text(row["text"]), source, "text", row, "a string")
    duration = row.get("duration")
    if duration is None:
        duration = math.nan
    else:
        # Not `isinstance`, by which `true` is an integer.
        valid = type(duration) in (int, float) and 0 < duration <= _LONGEST
        _require(valid, source, "duration", row, "positive seconds")
    speaker = row.get("speaker")
    speaker = "" if speaker is None else speaker
    valid = _is_text(speaker) or type(speaker) is int
    _require(valid, source, "speaker", row, "a string")
    corpus = row.get("corpus")
    corpus = manifest.stem if corpus is None else corpus
    _require(_is_text(corpus), source, "corpus", row, "a string")
    # Ignoring it would pair the text with the whole recording.
    valid = row.get("offset") in (None, 0)
    _require(valid, source, "offset", row, "absent or 0")
    audio = os.path.join(manifest.parent, row[key])
    if not os.path.isfile(audio):
        raise CorpusError(
            f"{source}: audio file '{audio}' of key `{key}` does not exist. "
            "Correct the path (relative paths count from the manifest's "
            "folder) or remove the line."
        )
    return Utterance(
        audio=audio,
        text=normalize_transcript(row["text"]),
        duration=float(duration),
        speaker=str(speaker),
        source=source,
        corpus=corpus,
    )


def _without_repeats(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    row = dict(pairs)
    if len(row) < len(pairs):
        raise ValueError("a key stands twice in one object")
    return row


def _is_text(value: Any) -> bool:
    # JSON can spell halves of characters ("\ud800"), which UTF-8 cannot.
    return isinstance(value, str) and not _SURROGATES.search(value)


def _require(
    valid: bool, source: str, key: str, row: dict[str, Any], expected: str
) -> None:
    if not valid:
        raise CorpusError(
            f"{source}: `{key}` must be {expected}. Received: {row[key]!r:.80}"
        )
