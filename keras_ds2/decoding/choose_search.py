"""A decoder's arguments in, the search that they ask for out."""

from keras_ds2.decoding.flashlight_search import (
    CharacterSearch,
    LexiconSearch,
)
from keras_ds2.decoding.language_model import (
    character_units,
    import_flashlight,
    read_units,
    spell_hot_words,
    spell_words,
)
from keras_ds2.decoding.search import TensorFlowSearch


def choose_search(alphabet, language_model, lexicon, hot_words):
    """Makes the search that goes with the arguments of a decoder.

    Args:
        alphabet: String, of the decoder.
        language_model: Path of an ARPA file or KenLM binary, or `None`.
        lexicon: List of words, or `None`.
        hot_words: Dictionary of words and what is added to their scores.

    Returns:
        `TensorFlowSearch` without a language model and without words,
        `CharacterSearch` for a language model of characters, otherwise
        `LexiconSearch`.

    Raises:
        ValueError: If the alphabet can spell no word of the language model.
        ImportError: If flashlight-text is needed and missing.
    """
    if language_model is None and lexicon is None:
        return TensorFlowSearch(alphabet)
    import_flashlight()
    units = []
    if language_model is not None:
        units = read_units(language_model)
    if lexicon is None and (names := character_units(units, alphabet)):
        return CharacterSearch(alphabet, names, language_model)
    boosts = spell_hot_words(hot_words, alphabet)
    words = spell_words(units, lexicon, boosts, alphabet)
    if not words:
        known = f"it has {units[:3]}" if units else "it has none"
        raise ValueError(
            f"Language model '{language_model}' has no word that the "
            f"alphabet {alphabet!r} can spell: {known}. Pass a "
            "`lexicon` for a KenLM binary without its words (build_binary "
            "-v)."
        )
    return LexiconSearch(alphabet, words, language_model, boosts)
