"""Transcripts: the default alphabet and the text that labels are made of."""

import unicodedata
from collections import Counter

# The 28 characters of English transcripts: space, apostrophe, a to z.
DEFAULT_ALPHABET = " 'abcdefghijklmnopqrstuvwxyz"

# Symbols after the alphabet that are never labels: padding and unknown.
NUM_RESERVED = 2

_APOSTROPHES = str.maketrans(dict.fromkeys("\u2018\u2019\u02bc", "'"))


def normalize_transcript(text: str) -> str:
    """Brings a transcript to the form that the tokenizer expects.

    Lower case, composed Unicode (NFC), typographic apostrophes as `'`, runs
    of white space as one space, none at the ends. Nothing else: digits,
    punctuation and accents stay, for `unknown_characters` to report.

    Args:
        text: The transcript as written.

    Returns:
        The normalized transcript. Normalizing it again changes nothing.

    Example:

    >>> from keras_ds2.text import normalize_transcript
    >>> normalize_transcript("  It’s  TEN\\n")
    "it's ten"
    """
    text = unicodedata.normalize("NFC", text.lower())
    return " ".join(text.translate(_APOSTROPHES).split())


def unknown_characters(text: str, alphabet: str = DEFAULT_ALPHABET) -> str:
    """Finds the characters of a text that an alphabet lacks.

    Args:
        text: A normalized transcript.
        alphabet: The characters that are known. Defaults to
            `DEFAULT_ALPHABET`.

    Returns:
        The unknown characters, each once, sorted; empty if there are none.

    Example:

    >>> from keras_ds2.text import unknown_characters
    >>> unknown_characters("it's 10 o'clock, 01")
    ',01'
    """
    return "".join(sorted(set(text) - set(alphabet)))


def validate_alphabet(alphabet: str) -> None:
    """Raises a `ValueError` if characters are none, or repeated.

    Args:
        alphabet: What is to be the characters of a model.

    Example:

    >>> from keras_ds2.text import validate_alphabet
    >>> validate_alphabet("abca")
    Traceback (most recent call last):
        ...
    ValueError: `alphabet` must not repeat a character. Remove the ...
    """
    if not isinstance(alphabet, str) or not alphabet:
        raise ValueError(
            "`alphabet` must be a string with at least one character. "
            f"Received: alphabet={alphabet!r}"
        )
    counts = Counter(alphabet)
    duplicates = "".join(sorted(c for c in counts if counts[c] > 1))
    if duplicates:
        raise ValueError(
            "`alphabet` must not repeat a character. Remove the duplicates "
            f"of {duplicates!r}. Received: alphabet={alphabet!r}"
        )
