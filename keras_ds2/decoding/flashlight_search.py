"""The searches of flashlight-text: words of a lexicon, or any characters.

All take log probabilities of compact symbols: the blank is 0, then come the
characters of the alphabet in order. `begin`, `step` with as many frames as
there are, `end`: a whole utterance is a stream of one step.
"""

import itertools

import numpy as np

from keras_ds2.decoding.language_model import (
    LOG_10,
    import_flashlight,
    load_kenlm,
    read_order,
)
from keras_ds2.decoding.streamed_search import StreamedSearch

# So improbable that nothing comes back, and finite: sums stay numbers.
NEVER = -1e9

# Frames that flashlight looks back for the end of a word to cut there.
_CUT_RANGE = 100


class LexiconSearch(StreamedSearch):
    """Searches the words of a lexicon, with a model of words or without.

    Args:
        alphabet: String.
        words: Dictionary, spelling to the unit of the language model.
        language_model: Path or `None`.
        hot_words: Dictionary, spelling to boost.
    """

    def __init__(self, alphabet, words, language_model, hot_words):
        self._flashlight, _, _ = import_flashlight()
        self._alphabet = alphabet
        self._words = list(words)
        self._symbols = {c: i for i, c in enumerate(alphabet, start=1)}
        self._index = {word: i for i, word in enumerate(self._words)}
        self._boosts = {self._index[w]: b for w, b in hot_words.items()}
        self._model, self._order = self._flashlight.ZeroLM(), 1
        if language_model is not None:
            self._model = load_kenlm(language_model, words.values())
            self._order = read_order(language_model)
        self._tries = {}  # shared by decoders of other weights

    def configure(
        self, beam_width, beam_threshold, lm_weight, word_score, top_paths
    ):
        """Sets what can be changed without loading anything again."""
        self._lm_weight = lm_weight
        self._context = self._order - 1 if lm_weight else 0
        self._word_score = word_score
        model, weight = self._model, lm_weight * LOG_10
        if self._boosts:
            model = _boosted(self._flashlight, model, weight, self._boosts)
            weight = 1.0
        self._boosted_model = model  # kept, for flashlight forgets Python's
        self._weight = weight
        # The tree is the same for all weights, but for boosts among its scores.
        key = lm_weight if self._boosts else None
        if key not in self._tries:
            self._tries[key] = self._make_trie(model)
        self._trie = self._tries[key]
        self._beam = (beam_width, beam_threshold)
        self._decoder = self._make_decoder()

    def _make_decoder(self):
        beam_width, beam_threshold = self._beam
        return self._flashlight.LexiconDecoder(
            self._flashlight.LexiconDecoderOptions(
                beam_size=beam_width,
                beam_size_token=len(self._alphabet) + 1,
                beam_threshold=beam_threshold,
                lm_weight=self._weight,
                word_score=self._word_score,
                unk_score=-np.inf,
                sil_score=0.0,
                log_add=True,
                criterion_type=self._flashlight.CriterionType.CTC,
            ),
            self._trie,
            self._boosted_model,
            self._symbols[" "],
            0,
            -1,
            [],
            False,
        )

    def _make_trie(self, model):
        """The lexicon as a tree; a node knows the best word below it."""
        trie = self._flashlight.Trie(len(self._alphabet) + 1, 0)
        start = model.start(False)
        for word, index in self._index.items():
            symbols = [self._symbols[character] for character in word + " "]
            trie.insert(symbols, index, model.score(start, index)[1])
        trie.smear(self._flashlight.SmearingMode.MAX)
        return trie

    def _emissions(self, result):
        return np.array(result.words)[1:]  # the first frame is forgotten

    def _cuts(self, emissions):
        # One frame after a word's end, if there is one not far back.
        frames = np.arange(len(emissions))
        ends = np.concatenate([[-1], np.where(emissions >= 0, frames + 1, -1)])
        return np.maximum(np.maximum.accumulate(ends)[:-1], frames - _CUT_RANGE)

    def _text(self, units):
        return " ".join(self._words[index] for index in units)

    def _unfinished(self, result):
        ends = np.flatnonzero(self._emissions(result) >= 0)
        if not len(ends) and self.num_forgotten_frames:
            return None
        begin = 2 + ends[-1] if len(ends) else 0
        letters = [
            self._alphabet[symbol - 1]
            for symbol, _ in itertools.groupby(result.tokens[begin:])
            if symbol > 0
        ]
        return "".join(letters).strip()

    def end(self):
        """Yields `(text, score, acoustic_score, lm_score)`, best first."""
        # A word ends with a space, and the last one need not have been said:
        # one more frame gives it for nothing. Whoever is in the middle of a
        # word can only wait, at the price of a blank.
        frame = np.full((1, len(self._alphabet) + 1), 2 * NEVER)
        frame[0, 0] = NEVER
        frame[0, self._symbols[" "]] = 0.0
        self._feed(frame)
        self._decoder.decode_end()
        ranked = self._ranked(self._decoder.get_all_final_hypothesis())
        scores = [(result.score, words) for result, words in ranked]
        if scores[0][0] < NEVER / 2:
            # The recording breaks off in the middle of every word that is
            # left: each text is without its fragment.
            scores = [self._without_fragment(*pair) for pair in ranked]
            scores.sort(key=lambda pair: pair[0], reverse=True)
        for score, words in scores:
            score += self._scored
            lm_score = _lm_score(self._model, words)
            acoustic_score = (
                score
                - self._lm_weight * lm_score
                - self._word_score * len(words)
                - sum(self._boosts.get(index, 0.0) for index in words)
            )
            yield self._text(words), score, acoustic_score, lm_score

    def _without_fragment(self, result, words):
        """Takes back the blank's price and the promise of the best word."""
        scored = _model_score(self._boosted_model, words)
        promised = self._weight * (result.lmScore - scored)
        return result.score - NEVER - promised, words


class CharacterSearch(StreamedSearch):
    """Searches all texts, with a model of characters.

    Args:
        alphabet: String.
        units: List of strings, the model's name of each character.
        language_model: Path.
    """

    def __init__(self, alphabet, units, language_model):
        self._flashlight, _, _ = import_flashlight()
        self._alphabet = alphabet
        self._kenlm = load_kenlm(language_model, ["<blank>", *units])
        self._order = read_order(language_model)

    def configure(
        self, beam_width, beam_threshold, lm_weight, word_score, top_paths
    ):
        """Sets what can be changed without loading anything again."""
        self._lm_weight = lm_weight
        self._context = self._order - 1 if lm_weight else 0
        self._beam = (beam_width, beam_threshold)
        self._decoder = self._make_decoder()

    def _make_decoder(self):
        beam_width, beam_threshold = self._beam
        return self._flashlight.LexiconFreeDecoder(
            self._flashlight.LexiconFreeDecoderOptions(
                beam_size=beam_width,
                beam_size_token=len(self._alphabet) + 1,
                beam_threshold=beam_threshold,
                lm_weight=self._lm_weight * LOG_10,
                sil_score=0.0,
                log_add=True,
                criterion_type=self._flashlight.CriterionType.CTC,
            ),
            self._kenlm,
            -1,  # no symbol is silence: a space is a character like others
            0,
            [],
        )

    def _emissions(self, result):
        symbols = np.array(result.tokens)
        symbols[1:][np.diff(symbols) == 0] = 0  # repeats
        return symbols[1:] - 1  # characters by number, and no blank

    def _cuts(self, emissions):
        return np.arange(len(emissions))

    def _text(self, units):
        text = "".join(self._alphabet[unit] for unit in units)
        return " ".join(text.split())

    def _unfinished(self, result):
        return ""

    def end(self):
        """Yields `(text, score, acoustic_score, lm_score)`, best first."""
        self._decoder.decode_end()
        results = self._decoder.get_all_final_hypothesis()
        for result, units in self._ranked(results):
            lm_score = _lm_score(self._kenlm, [unit + 1 for unit in units])
            score = self._scored + result.score
            text = self._text(units)
            yield text, score, score - self._lm_weight * lm_score, lm_score


def _lm_score(model, items):
    """Natural logarithm of the probability of a whole sequence."""
    return LOG_10 * _model_score(model, items)


def _model_score(model, items):
    state = model.start(False)
    total = 0.0
    for item in items:
        state, score = model.score(state, item)
        total += score
    return total + model.finish(state)[1]


def _boosted(flashlight, model, weight, boosts):
    """Wraps a model, in Python: its scores, weighted, plus boosts."""

    class Boosted(flashlight.LM):  # type: ignore[name-defined]
        def start(self, start_with_nothing):
            return model.start(start_with_nothing)

        def score(self, state, item):
            state, score = model.score(state, item)
            return state, weight * score + boosts.get(item, 0.0)

        def finish(self, state):
            state, score = model.finish(state)
            return state, weight * score

    return Boosted()
