"""The searches: TensorFlow's, and the two of flashlight-text.

All take log probabilities of compact symbols: the blank is 0, then come the
characters of the alphabet in order. `begin`, `step` with as many frames as
there are, `end`: a whole utterance is a stream of one step.
"""

import itertools

import numpy as np
from keras import ops

from keras_ds2.decoding.language_model import (
    LOG_10,
    import_flashlight,
    load_kenlm,
)

# So improbable that nothing comes back, and finite: sums stay numbers.
NEVER = -1e9


class TensorFlowSearch:
    """Searches all texts, without a model of language.

    Args:
        alphabet: String.
    """

    def __init__(self, alphabet):
        self._alphabet = alphabet

    def configure(
        self, beam_width, beam_threshold, lm_weight, word_score, top_paths
    ):
        """Sets the width of the beam and the number of texts."""
        self._beam_width = beam_width
        self._top_paths = top_paths

    def begin(self):
        """Starts an utterance."""
        self._frames = []

    def step(self, log_probs):
        """Takes some frames, `(frames, symbols)`."""
        self._frames.extend(log_probs)

    def end(self):
        """Yields `(text, score, acoustic_score, lm_score)`, best first."""
        if not self._frames:
            yield "", 0.0, 0.0, 0.0
            return
        log_probs = np.array(self._frames, "float32")
        # TensorFlow fails if there are fewer texts than it is asked for. Up
        # to so many characters, none like the one before, always fit.
        num_characters = min(len(log_probs), 8)
        size = len(self._alphabet)
        num_texts = 1 + sum(
            size * (size - 1) ** i for i in range(num_characters)
        )
        # For several, all: some may be the same but for runs of spaces.
        num_paths = 1 if self._top_paths == 1 else self._beam_width
        decoded, scores = ops.ctc_decode(
            log_probs[None],
            np.array([len(log_probs)], "int32"),
            strategy="beam_search",
            beam_width=self._beam_width,
            top_paths=min(num_paths, num_texts),
            mask_index=0,
        )
        for labels, score in zip(
            np.asarray(decoded)[:, 0], np.asarray(scores)[0], strict=True
        ):
            text = "".join(self._alphabet[i - 1] for i in labels if i > 0)
            yield text, float(score), float(score), 0.0


class LexiconSearch:
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
        self._model = (
            load_kenlm(language_model, words.values())
            if language_model is not None
            else self._flashlight.ZeroLM()
        )
        self._tries = {}  # shared by decoders of other weights

    def configure(
        self, beam_width, beam_threshold, lm_weight, word_score, top_paths
    ):
        """Sets what can be changed without loading anything again."""
        self._lm_weight = lm_weight
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
        self._decoder = self._flashlight.LexiconDecoder(
            self._flashlight.LexiconDecoderOptions(
                beam_size=beam_width,
                beam_size_token=len(self._alphabet) + 1,
                beam_threshold=beam_threshold,
                lm_weight=weight,
                word_score=word_score,
                unk_score=-np.inf,
                sil_score=0.0,
                log_add=True,
                criterion_type=self._flashlight.CriterionType.CTC,
            ),
            self._trie,
            model,
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

    def begin(self):
        """Starts an utterance."""
        self._decoder.decode_begin()

    def step(self, log_probs):
        """Takes some frames, `(frames, symbols)`."""
        _step(self._decoder, log_probs)

    def end(self):
        """Yields `(text, score, acoustic_score, lm_score)`, best first."""
        # A word ends with a space, and the last one need not have been said:
        # one more frame gives it for nothing. Whoever is in the middle of a
        # word can only wait, at the price of a blank.
        frame = np.full((1, len(self._alphabet) + 1), 2 * NEVER)
        frame[0, 0] = NEVER
        frame[0, self._symbols[" "]] = 0.0
        self.step(frame)
        self._decoder.decode_end()
        results = self._decoder.get_all_final_hypothesis()
        scores = [(result.score, result.words) for result in results]
        if scores[0][0] < NEVER / 2:
            # The recording breaks off in the middle of every word that is
            # left: each text is without its fragment.
            scores = [self._without_fragment(result) for result in results]
            scores.sort(key=lambda pair: pair[0], reverse=True)
        for score, words in scores:
            words = [index for index in words if index >= 0]
            lm_score = _lm_score(self._model, words)
            acoustic_score = (
                score
                - self._lm_weight * lm_score
                - self._word_score * len(words)
                - sum(self._boosts.get(index, 0.0) for index in words)
            )
            text = " ".join(self._words[index] for index in words)
            yield text, score, acoustic_score, lm_score

    def _without_fragment(self, result):
        """Takes back the blank's price and the promise of the best word."""
        # flashlight begins and ends with a space of its own.
        labels = _labels(result.tokens[:-1])
        fragment = labels[-labels[::-1].index(self._symbols[" "]) :]
        promised = self._weight * self._trie.search(fragment).max_score
        return result.score - NEVER - promised, result.words


class CharacterSearch:
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

    def configure(
        self, beam_width, beam_threshold, lm_weight, word_score, top_paths
    ):
        """Sets what can be changed without loading anything again."""
        self._lm_weight = lm_weight
        self._decoder = self._flashlight.LexiconFreeDecoder(
            self._flashlight.LexiconFreeDecoderOptions(
                beam_size=beam_width,
                beam_size_token=len(self._alphabet) + 1,
                beam_threshold=beam_threshold,
                lm_weight=lm_weight * LOG_10,
                sil_score=0.0,
                log_add=True,
                criterion_type=self._flashlight.CriterionType.CTC,
            ),
            self._kenlm,
            -1,  # no symbol is silence: a space is a character like others
            0,
            [],
        )

    def begin(self):
        """Starts an utterance."""
        self._decoder.decode_begin()

    def step(self, log_probs):
        """Takes some frames, `(frames, symbols)`."""
        _step(self._decoder, log_probs)

    def end(self):
        """Yields `(text, score, acoustic_score, lm_score)`, best first."""
        self._decoder.decode_end()
        for result in self._decoder.get_all_final_hypothesis():
            symbols = _labels(result.tokens)
            lm_score = _lm_score(self._kenlm, symbols)
            text = "".join(self._alphabet[symbol - 1] for symbol in symbols)
            yield (
                text,
                result.score,
                result.score - self._lm_weight * lm_score,
                lm_score,
            )


def _step(decoder, log_probs):
    frames = np.ascontiguousarray(log_probs, "float32")
    if len(frames):
        decoder.decode_step(frames.ctypes.data, *frames.shape)


def _labels(tokens):
    """What is left of an alignment without blanks and repeats."""
    return [token for token, _ in itertools.groupby(tokens) if token > 0]


def _lm_score(model, items):
    """Natural logarithm of the probability of a whole sequence."""
    state = model.start(False)
    total = 0.0
    for item in items:
        state, score = model.score(state, item)
        total += score
    return LOG_10 * (total + model.finish(state)[1])


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
