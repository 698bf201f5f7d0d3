"""Utterances in, the same with durations out, read from audio headers."""

import contextlib
import json
import math
import os
import sys
import tempfile
import time
import warnings
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from pathlib import Path

from keras_ds2.audio import AudioError, audio_duration
from keras_ds2.data.checks import Rejected, validate_choice
from keras_ds2.data.corpus import Utterance

# Utterances handed to the threads at a time: a pool that is given a whole
# corpus at once holds a task for each of its utterances in memory.
_BLOCK_SIZE = 1024


def add_durations(
    utterances: Iterable[Utterance],
    on_invalid: str = "error",
    cache_dir: str | os.PathLike[str] | None = None,
    progress: bool = True,
) -> tuple[list[Utterance], list[Rejected]]:
    """Fills in missing durations from the headers of the audio files.

    So broken files are found before training. Durations are kept in a cache
    file, by path, size and time of change, so that the next call is quick.
    Durations that are known already are believed, their files not opened.

    Args:
        utterances: `Utterance`s, as `read_librispeech` and `read_manifest`
            give them.
        on_invalid: `"error"`: the first file that cannot be read is an
            error. `"skip"`: such files are left out and returned. Defaults
            to `"error"`.
        cache_dir: Folder of the cache file. Defaults to `None`:
            `$XDG_CACHE_HOME/keras_ds2`, or `~/.cache/keras_ds2`.
        progress: Boolean. Whether to report to standard error. Defaults to
            `True`.

    Returns:
        The utterances in their order, all with a duration, and a list of
        the `Rejected` ones.

    Raises:
        AudioError: If a file is missing, unreadable or empty, unless
            `on_invalid="skip"`.

    Example:

    >>> import os, tempfile
    >>> import numpy as np
    >>> import soundfile
    >>> from keras_ds2.data.corpus import Utterance
    >>> from keras_ds2.data.durations import add_durations
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = os.path.join(folder, "a.wav")
    ...     soundfile.write(path, np.zeros(4000), samplerate=8000)
    ...     rows, _ = add_durations(
    ...         [Utterance(path, "go")], cache_dir=folder, progress=False
    ...     )
    >>> rows[0].duration
    0.5
    """
    validate_choice("on_invalid", on_invalid)
    start = time.monotonic()
    cache = _DurationCache(cache_dir)
    kept: list[Utterance] = []
    rejected: list[Rejected] = []
    num_cached = 0
    try:
        for utterance, result in _in_threads(cache, utterances):
            if isinstance(result, AudioError):
                if on_invalid == "error":
                    raise result
                fault = Rejected(utterance, result.reason, str(result))
                rejected.append(fault)
                continue
            duration, was_cached = result
            kept.append(utterance._replace(duration=duration))
            num_cached += was_cached
            if progress and len(kept) % _BLOCK_SIZE == 0:
                _show_count(len(kept))
    finally:
        # After an error too: the files before it need not be read again.
        cache.save()
    if progress:
        hours = sum(utterance.duration for utterance in kept) / 3600
        print(
            f"Indexed {len(kept):,} utterances ({hours:.2f} h) in "
            f"{time.monotonic() - start:.1f} s, {num_cached:,} from cache",
            file=sys.stderr,
        )
    return kept, rejected


class _DurationCache:
    """Durations by path, size and time of change, kept in one JSON file."""

    def __init__(self, folder: str | os.PathLike[str] | None) -> None:
        if folder is None:
            caches = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
            folder = os.path.join(os.path.expanduser(caches), "keras_ds2")
        self._path = Path(folder) / "durations.json"
        self._durations = self._load()
        self._num_loaded = len(self._durations)

    def look_up(self, utterance: Utterance) -> tuple[float, bool] | AudioError:
        """Returns seconds and whether they were cached, or what is wrong."""
        if not math.isnan(utterance.duration):
            return utterance.duration, False
        key = _key(utterance.audio)
        if key in self._durations:
            return self._durations[key], True
        try:
            duration = audio_duration(utterance.audio)
        except AudioError as error:
            return error
        if key:
            self._durations[key] = duration
        return duration, False

    def save(self) -> None:
        """Writes the file if there is news, and warns where it cannot."""
        if len(self._durations) == self._num_loaded:
            return
        temporary = None
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            # Renamed when complete: readers see the old file or the new.
            with tempfile.NamedTemporaryFile(
                "w", dir=self._path.parent, delete=False
            ) as file:
                temporary = file.name
                json.dump(self._durations, file)
            os.replace(temporary, self._path)
        except OSError as error:
            self._warn(f"cannot be written: {error}")
            if temporary:
                with contextlib.suppress(OSError):
                    os.remove(temporary)

    def _load(self) -> dict[str, float]:
        try:
            durations = json.loads(self._path.read_bytes())
        except (FileNotFoundError, NotADirectoryError):
            return {}
        except (OSError, ValueError) as error:
            self._warn(f"cannot be read: {error}")
            return {}
        if isinstance(durations, dict) and all(
            isinstance(duration, float) for duration in durations.values()
        ):
            return durations
        self._warn("is damaged")
        return {}

    def _warn(self, problem: str) -> None:
        warnings.warn(
            f"Cache of durations '{self._path}' {problem}. Going on without "
            "it: audio headers are read anew each time. Delete it, or pass "
            "another `cache_dir`.",
            stacklevel=2,
        )


def _key(path: str) -> str | None:
    try:
        status = os.stat(path)
    except OSError:  # Left to `audio_duration`, which says what is wrong.
        return None
    return f"{os.path.abspath(path)}|{status.st_size}|{status.st_mtime_ns}"


def _in_threads(
    cache: _DurationCache, utterances: Iterable[Utterance]
) -> Iterator[tuple[Utterance, tuple[float, bool] | AudioError]]:
    """Yields each utterance, in order, with what the cache returns."""
    remaining = iter(utterances)
    with ThreadPoolExecutor() as pool:
        while block := list(islice(remaining, _BLOCK_SIZE)):
            yield from zip(block, pool.map(cache.look_up, block), strict=True)


def _show_count(count: int) -> None:
    if sys.stderr.isatty():
        print(f"\rIndexing: {count:,}\r", end="", file=sys.stderr, flush=True)
