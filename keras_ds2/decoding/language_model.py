"""Files of n-grams and of words, opened, checked and named when wrong."""

import gzip
import itertools
import math
import mmap
import os
import struct
import zlib

from keras_ds2.text import normalize_transcript

LOG_10 = math.log(10.0)  # KenLM's logarithms are decimal, ours are natural

_KENLM_MAGIC = b"mmap lm http://kheafield.com/code"
# Where its format 5 says how long n-grams are, whether the words are there, and
# how many.
_ORDER = 88
_HAS_WORDS = 100
_NUM_WORDS = 108
_SPECIAL = ("<s>", "</s>", "<unk>", "<UNK>")
_SPACES = ("|", "<space>")


def import_flashlight():
    """Imports the decoder of the optional extra.

    Raises:
        ImportError: If it is not installed, with the line that installs it.
    """
    try:
        import flashlight.lib.text.decoder as decoder
        from flashlight.lib.text.decoder.kenlm import KenLM
        from flashlight.lib.text.dictionary import Dictionary
    except ImportError as error:
        raise ImportError(
            "Beam search with a language model or a lexicon needs "
            'flashlight-text. Install it with: pip install "keras_ds2[lm]"'
        ) from error
    return decoder, KenLM, Dictionary


def read_units(path):
    """Lists the words (or characters) that a language model knows.

    Args:
        path: File, ARPA (also gzipped) or KenLM's binary format.

    Returns:
        List of strings, without the marks of sentences and unknown words;
        empty for a binary that was built without its words.

    Raises:
        ValueError: If there is no such file or it is neither format, naming
            it.

    Example:

    >>> import os, tempfile
    >>> from keras_ds2.decoding.language_model import read_units
    >>> path = os.path.join(tempfile.mkdtemp(), "tiny.arpa")
    >>> lines = ["\\\\data\\\\", "ngram 1=1", "", "\\\\1-grams:", "-1 ten", ""]
    >>> with open(path, "w") as file:
    ...     _ = file.write("\\n".join(lines))
    >>> read_units(path)
    ['ten']
    """
    if not os.path.isfile(path):
        raise ValueError(
            f"Language model '{path}' does not exist. Pass the path of an "
            "ARPA file or of a KenLM binary."
        )
    with open(path, "rb") as file:
        start = file.read(len(_KENLM_MAGIC))
    try:
        if start == _KENLM_MAGIC:
            units = _binary_units(path)
        else:
            with _open_arpa(path, start) as file:
                units = _arpa_units(file)
        units = [unit.decode("utf-8") for unit in units]
    except (ValueError, EOFError, OSError, zlib.error) as error:
        raise ValueError(
            f"Language model '{path}' is neither a well-formed ARPA file nor "
            f"a KenLM binary: {error}. Build it again, for instance with "
            "KenLM's lmplz."
        ) from error
    return [unit for unit in units if unit not in _SPECIAL]


def read_order(path):
    """Tells how long the n-grams of a language model are.

    Args:
        path: File that `read_units` takes.

    Returns:
        Integer. The probability of a unit depends on one unit less before it.
    """
    with open(path, "rb") as file:
        start = file.read(_ORDER + 1)
    if start.startswith(_KENLM_MAGIC):
        return start[_ORDER]
    with _open_arpa(path, start) as file:
        lines = itertools.takewhile(lambda x: x.strip() != b"\\1-grams:", file)
        return sum(line.startswith(b"ngram ") for line in lines)


def _open_arpa(path, start):
    opened = gzip.open if start.startswith(b"\x1f\x8b") else open
    return opened(path, "rb")


def _binary_units(path):
    with (
        open(path, "rb") as file,
        mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content,
    ):
        if len(content) < _NUM_WORDS + 8:
            raise ValueError("it ends within the header")
        if not content[_HAS_WORDS]:
            return []
        # They come last, each ended by a zero byte.
        units = content[content.rfind(b"<unk>\0") :].split(b"\0")[:-1]
        (expected,) = struct.unpack_from("<Q", content, _NUM_WORDS)
    # A model without <unk> is given one that it may not count.
    if len(units) < expected:
        raise ValueError(f"it states {expected} words and has {len(units)}")
    return units


def _arpa_units(file):
    # What KenLM checks when it loads the file is not checked here.
    for line in file:
        if line.strip() == b"\\1-grams:":
            break
    else:
        raise ValueError("it has no line '\\1-grams:'")
    units = []
    for line in file:
        fields = line.split()
        if not fields:
            break
        if len(fields) not in (2, 3):
            raise ValueError(f"its unigram {line!r} has no word")
        units.append(fields[1])
    return units


def read_lexicon(lexicon, alphabet):
    """Reads the words that may be decoded.

    Args:
        lexicon: Path of a UTF-8 text file, one word a line (what follows a
            tab is ignored), or an iterable of words.
        alphabet: String, the characters that a word may have.

    Returns:
        List of strings.

    Raises:
        ValueError: If the file cannot be read, there are no words, or a word
            has a character that the alphabet lacks.

    Example:

    >>> from keras_ds2.decoding.language_model import read_lexicon
    >>> read_lexicon(["ten", "two"], " entow")
    ['ten', 'two']
    """
    name = "`lexicon`"
    if isinstance(lexicon, (str, os.PathLike)):
        name = f"Lexicon '{lexicon}'"
        try:
            with open(lexicon, encoding="utf-8-sig") as file:
                lexicon = [line.partition("\t")[0].strip() for line in file]
        except (OSError, UnicodeDecodeError) as error:
            raise ValueError(
                f"{name} cannot be read as a text file of one word a line: "
                f"{error}"
            ) from error
    words = [word for word in lexicon if word]
    if not words:
        raise ValueError(f"{name} has no words.")
    wrong = [word for word in words if not _is_spelled(word, alphabet)]
    if wrong:
        raise ValueError(
            f"{name} has {len(wrong)} words that the alphabet {alphabet!r} "
            f"cannot spell, as {wrong[0]!r}. Remove them, or write them as "
            "in transcripts."
        )
    return words


def _is_spelled(word, alphabet):
    spelling = normalize_transcript(word)
    return bool(spelling) and set(spelling) <= set(alphabet) - {" "}


def spell_words(units, lexicon, hot_words, alphabet):
    """Maps each word that may come out to the language model's unit.

    Units that the alphabet cannot spell are left out; of several with one
    spelling (`The`, `the`) the last when sorted counts, in lower case.

    Args:
        units: List of strings, of `read_units`.
        lexicon: As of `read_lexicon`, or `None` for the words of `units`.
        hot_words: Iterable of spelled words to add.
        alphabet: String.

    Returns:
        Dictionary from spelling to unit; a word that is no unit is its own.

    Raises:
        ValueError: If the alphabet has no space, or `lexicon` is wrong.

    Example:

    >>> from keras_ds2.decoding.language_model import spell_words
    >>> spell_words(["TEN", "10"], None, ["ant"], " aent")
    {'ten': 'TEN', 'ant': 'ant'}
    """
    if " " not in alphabet:
        raise ValueError(
            "Words need an `alphabet` with a space. Received: "
            f"alphabet={alphabet!r}."
        )
    # In an order of our own, for each format has another.
    words = {
        normalize_transcript(unit): unit
        for unit in sorted(units)
        if _is_spelled(unit, alphabet)
    }
    chosen = list(words)
    if lexicon is not None:
        lexicon = read_lexicon(lexicon, alphabet)
        chosen = [normalize_transcript(word) for word in lexicon]
    return {word: words.get(word, word) for word in (*chosen, *hot_words)}


def spell_hot_words(hot_words, alphabet):
    """Checks hot words and writes them as they are spelled.

    Returns:
        Dictionary from spelling to boost.

    Raises:
        ValueError: If the alphabet cannot spell a word.
    """
    for word in hot_words:
        if not _is_spelled(word, alphabet):
            raise ValueError(
                "`hot_words` must be single words that the alphabet "
                f"{alphabet!r} can spell. Received: {word!r}."
            )
    return {normalize_transcript(w): boost for w, boost in hot_words.items()}


def character_units(units, alphabet):
    """Names each character of the alphabet as a character model does.

    Returns:
        List of strings, or `None` if the units are words.

    Raises:
        ValueError: If it cannot be told which the units are.
    """
    known = set(units)
    marks = known.intersection(_SPACES)
    if not known or any(len(unit) > 1 for unit in known - marks):
        return None
    if " " in alphabet and not marks:
        raise ValueError(
            "The language model's units are single characters, and none is "
            "the space. Write the space of a model of characters as `|`, or "
            "pass a `lexicon` of words of one letter."
        )
    space = next(iter(sorted(marks)), " ")
    names = [c if c in known else c.upper() for c in alphabet]
    return [space if name == " " else name for name in names]


def load_kenlm(path, units):
    """Loads a language model whose items are numbered as `units`."""
    _, KenLM, Dictionary = import_flashlight()
    dictionary = Dictionary()
    for index, unit in enumerate(units):
        dictionary.add_entry(unit, index)
    try:
        return KenLM(os.fspath(path), dictionary)
    except RuntimeError as error:
        raise ValueError(
            f"Language model '{path}' cannot be loaded. Build it again, for "
            f"instance with KenLM's lmplz. KenLM says: {error}"
        ) from error
