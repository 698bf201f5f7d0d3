"""Rejected utterances in, JSON lines on disk out: a report that survives."""

import json
import os
import warnings

from keras_ds2.data.checks import Rejected


class Report:
    """Names each bad file once, in a file that later runs go on with.

    Args:
        path: Path of the JSON lines. It is opened at once, and made where it
            is missing, so that a wrong path is known before training.

    Raises:
        ValueError: If the file cannot be read and written.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self._path = path
        try:
            os.makedirs(os.path.dirname(path) or ".", exist_ok=True)
            with open(path, "a+", encoding="utf-8", errors="replace") as file:
                file.seek(0)
                content = file.read()
                # The line that a killed run was writing.
                if content and not content.endswith("\n"):
                    print(file=file)
        except OSError as error:
            raise ValueError(
                f"`bad_audio_report` cannot be written ({error}). Pass the "
                f"path of a file. Received: bad_audio_report='{path}'"
            ) from error
        self._named = set(map(_audio, content.splitlines()))
        self._is_broken = False

    def add(self, rejected: Rejected) -> None:
        """Adds a line, unless the file is named; a full disk is no end."""
        audio = rejected.utterance.audio
        if audio in self._named or self._is_broken:
            return
        self._named.add(audio)
        line = {
            "audio": audio,
            "source": rejected.utterance.source,
            "reason": rejected.reason,
            "detail": rejected.detail,
        }
        try:
            with open(self._path, "a", encoding="utf-8") as file:
                print(json.dumps(line), file=file)
        except OSError as error:
            self._is_broken = True
            warnings.warn(
                f"Report of bad audio '{self._path}' cannot be written "
                f"({error}). Going on without it.",
                stacklevel=2,
            )


def _audio(line: str) -> str | None:
    """Returns the file that a line names, or `None` for any other line."""
    try:
        row = json.loads(line)
    except (ValueError, RecursionError):
        return None
    audio = row.get("audio") if isinstance(row, dict) else None
    return audio if isinstance(audio, str) else None
