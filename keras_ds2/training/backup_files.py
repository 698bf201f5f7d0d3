"""Backups on disk: whole or not there, and known to be sound."""

import contextlib
import hashlib
import io
import json
import os
import pathlib
import re
import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np

_NUM_KEPT = 2


def write_backup(
    folder: pathlib.Path,
    epoch: int,
    arrays: Sequence[np.ndarray],
    state: dict[str, Any],
) -> None:
    """Adds a backup to a folder, and leaves it and the one before.

    The file is written under another name, synchronized with the disk, and
    then renamed to its epoch and its own SHA-256.

    Raises:
        OSError: If the disk is full, or the folder cannot be written to. The
            backups that are there stay.
    """
    buffer = io.BytesIO()
    np.savez(
        buffer,
        state=np.array(json.dumps(state)),
        **{f"array_{i}": array for i, array in enumerate(arrays)},  # type: ignore[arg-type]
    )
    content = buffer.getbuffer()
    digest = hashlib.sha256(content).hexdigest()
    unfinished = folder / "unfinished"
    try:
        with open(unfinished, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(unfinished, folder / f"epoch-{epoch:06}-{digest}.npz")
        _synchronize(folder)
    except OSError as error:
        with contextlib.suppress(OSError):
            unfinished.unlink()
        raise OSError(
            f"The backup of epoch {epoch} ({len(content) / 1e6:.0f} MB) could "
            f"not be written to '{folder}': {error.strerror}. Earlier backups "
            "are intact. Make room, and start the same training again."
        ) from error
    sound = [
        (other, path)
        for other, path in _list(folder)
        # What was damaged, and therefore made again, is of the same epoch.
        if other < epoch or digest in path.name
    ]
    kept = {path for _, path in sound[:_NUM_KEPT]}
    for _, path in _list(folder):
        if path not in kept:
            path.unlink()


def read_latest_backup(
    folder: pathlib.Path,
) -> tuple[int, list[np.ndarray], dict[str, Any]] | None:
    """Reads the last sound backup.

    Returns:
        Epoch, arrays and state; `None` if there never was a backup.

    Raises:
        OSError: If there are backups, but none is sound.
    """
    backups = _list(folder)
    for epoch, path in backups:
        try:
            content = path.read_bytes()
        except OSError:  # a broken disk
            content = b""
        if hashlib.sha256(content).hexdigest() == path.stem.split("-")[2]:
            with np.load(io.BytesIO(content)) as file:
                arrays = [file[f"array_{i}"] for i in range(len(file) - 1)]
                return epoch, arrays, json.loads(str(file["state"]))
        warnings.warn(
            f"The backup '{path}' is damaged (its SHA-256 is not that of its "
            "name); trying the one before.",
            stacklevel=2,
        )
    if backups:
        raise OSError(
            f"Every backup in '{folder}' is damaged. Start again in another "
            "folder, or delete them."
        )
    return None


def _list(folder: pathlib.Path) -> list[tuple[int, pathlib.Path]]:
    """All backups, the last one first."""
    found = []
    for path in folder.iterdir():
        if match := re.fullmatch(r"epoch-(\d+)-[0-9a-f]{64}\.npz", path.name):
            found.append((int(match[1]), path))
    return sorted(found, reverse=True)


def _synchronize(folder: pathlib.Path) -> None:
    """Makes a renaming last: it is a change of the folder."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
