"""The one error of all audio files."""

import os


class AudioError(ValueError):
    """Says which audio file cannot be used, why, and what to do about it.

    Args:
        path: The audio file.
        reason: One of `"missing"`, `"unreadable"`, `"empty"`,
            `"non_finite"`, `"out_of_range"`, `"too_short"`, `"too_long"`,
            `"wrong_duration"`, `"silent"` (as noise); fit for counting.
        detail: The rest of the sentence that begins with the file's name:
            what is wrong, with figures, and the fix.

    Example:

    >>> from keras_ds2.audio import AudioError, load_audio
    >>> try:
    ...     load_audio("missing.flac")
    ... except AudioError as error:
    ...     print(error.reason)
    missing
    """

    def __init__(
        self, path: str | os.PathLike[str], reason: str, detail: str
    ) -> None:
        # All three go to `args`, so that the error survives pickling on its
        # way out of a worker process.
        super().__init__(path, reason, detail)
        self.path = os.fspath(path)
        self.reason = reason
        self.detail = detail

    def __str__(self) -> str:
        return f"Audio file '{self.path}' {self.detail}"
