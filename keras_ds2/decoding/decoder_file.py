"""A decoder's arguments on disk, as JSON, beside the files that they name."""

import json
import os
from pathlib import Path
from typing import Any

from keras_ds2.decoding.beam_search import BeamSearchDecoder
from keras_ds2.text import DEFAULT_ALPHABET

# What a key may hold, in words and as a test.
_NUMBER = "a number", lambda value: type(value) in (int, float)
_PATH = "a path", lambda value: isinstance(value, str)
_KEYS: dict[str, tuple[str, Any]] = {
    "language_model": _PATH,
    "lexicon": (
        "a path or a list of words",
        lambda value: (
            isinstance(value, str)
            or isinstance(value, list)
            and all(isinstance(word, str) for word in value)
        ),
    ),
    "beam_width": ("an integer", lambda value: type(value) is int),
    "beam_threshold": _NUMBER,
    "lm_weight": _NUMBER,
    "word_score": _NUMBER,
    "prior": (
        "a list of numbers",
        lambda value: isinstance(value, list) and all(map(_NUMBER[1], value)),
    ),
    "prior_weight": _NUMBER,
    "hot_words": (
        "an object from word to number",
        lambda value: (
            isinstance(value, dict) and all(map(_NUMBER[1], value.values()))
        ),
    ),
}


def load_decoder(
    path: str | os.PathLike[str],
    alphabet: str = DEFAULT_ALPHABET,
    blank_index: int = 0,
) -> BeamSearchDecoder:
    """Makes the decoder that a file describes.

    The file holds one JSON object of arguments of `BeamSearchDecoder`:
    `language_model`, `lexicon`, `beam_width`, `beam_threshold`, `lm_weight`,
    `word_score`, `prior`, `prior_weight`, `hot_words`. What is absent or
    `null` has its default. Relative paths count from the folder of the file.

    Args:
        path: The file, in UTF-8.
        alphabet: String. The model's characters. Defaults to
            `DEFAULT_ALPHABET`.
        blank_index: Integer. The model's symbol of the blank. Defaults to
            `0`.

    Returns:
        `BeamSearchDecoder`.

    Raises:
        ImportError: If the decoder needs the extra `lm`.
        ValueError: If the file is missing or holds no such object; if an
            argument is wrong. Names file and key.

    Example:

    >>> import pathlib, tempfile
    >>> import keras_ds2
    >>> path = pathlib.Path(tempfile.mkdtemp(), "decoder.json")
    >>> _ = path.write_text('{"beam_width": 16}')
    >>> keras_ds2.load_decoder(path).beam_width
    16
    """
    arguments = _read(Path(path))
    for key in ("language_model", "lexicon"):
        if isinstance(arguments.get(key), str):
            arguments[key] = os.path.join(os.path.dirname(path), arguments[key])
    try:
        return BeamSearchDecoder(alphabet, **arguments, blank_index=blank_index)
    except ValueError as error:
        raise ValueError(f"Decoder file '{path}': {error}") from error


def save_decoder(
    path: str | os.PathLike[str], decoder: BeamSearchDecoder
) -> None:
    """Writes the file that `load_decoder` reads.

    Alphabet and blank are left to the model. Paths are written relative to
    the file if they lie in its folder or below, so that the folder can be
    moved, and absolute otherwise.

    Args:
        path: The file. One that exists is replaced.
        decoder: `BeamSearchDecoder`.

    Example:

    >>> import os, tempfile
    >>> import keras_ds2
    >>> path = os.path.join(tempfile.mkdtemp(), "decoder.json")
    >>> keras_ds2.save_decoder(path, keras_ds2.BeamSearchDecoder(beam_width=8))
    >>> keras_ds2.load_decoder(path).beam_width
    8
    """
    arguments = {key: getattr(decoder, key) for key in _KEYS}
    folder = Path(path).resolve().parent
    for key in ("language_model", "lexicon"):
        value = arguments[key]
        if isinstance(value, (str, os.PathLike)):
            file = Path(value).resolve()
            if file.is_relative_to(folder):
                file = file.relative_to(folder)
            arguments[key] = str(file)
        elif value is not None:
            arguments[key] = list(value)
    text = json.dumps(
        arguments,
        indent=2,
        ensure_ascii=False,
        default=lambda value: value.item(),  # NumPy's weights
    )
    Path(path).write_text(text + "\n", encoding="utf-8")


def _read(path: Path) -> dict[str, Any]:
    if not path.is_file():
        raise ValueError(f"Decoder file '{path}' does not exist.")
    try:
        arguments = json.loads(path.read_text(encoding="utf-8-sig"))
    except ValueError as error:
        raise ValueError(
            f"Decoder file '{path}' is not JSON ({error})."
        ) from error
    if not isinstance(arguments, dict):
        raise ValueError(
            f"Decoder file '{path}' must hold one JSON object. Received: "
            f"{arguments!r:.80}"
        )
    if unknown := sorted(set(arguments) - set(_KEYS)):
        raise ValueError(
            f"Decoder file '{path}' has unknown keys: {', '.join(unknown)}. "
            f"Known are: {', '.join(_KEYS)}."
        )
    arguments = {k: v for k, v in arguments.items() if v is not None}
    for key, value in arguments.items():
        expected, is_valid = _KEYS[key]
        if not is_valid(value):
            raise ValueError(
                f"Decoder file '{path}': `{key}` must be {expected}. "
                f"Received: {value!r:.80}"
            )
    return arguments
