"""The searches: TensorFlow's, and the two of flashlight-text.

All take log probabilities of compact symbols: the blank is 0, then come the
characters of the alphabet in order. `begin`, `step` with as many frames as
there are, `end`: a whole utterance is a stream of one step.
"""

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
        # TensorFlow fails if there are fewer texts than it is asked for. One
        # frame has this many, two frames or more have at least as many.
        num_texts = 1 + len(self._alphabet) ** min(len(log_probs), 2)
        decoded, scores = ops.ctc_decode(
            log_probs[None],
            np.array([len(log_probs)], "int32"),
            strategy="beam_search",
            beam_width=self._beam_width,
            top_paths=min(self._top_paths, num_texts),
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
        self._kenlm = (
            load_kenlm(language_model, words.values())
            if language_model is not None
            else None
        )

    def configure(
        self, beam_width, beam_threshold, lm_weight, word_score, top_paths
    ):
        """Sets what can be changed without loading anything again."""
        self._lm_weight = lm_weight if self._kenlm is not None else 0.0
        self._word_score = word_score
        model = self._kenlm if self._lm_weight else self._flashlight.ZeroLM()
        # flashlight multiplies what its model says by this weight.
        weight = self._lm_weight * LOG_10 if self._lm_weight else 1.0
        if self._boosts:
            boosts = {i: b / weight for i, b in self._boosts.items()}
            model = _boosted(self._flashlight, model, boosts)
        self._model = model
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
            self._trie(model),
            model,
            self._symbols[" "],
            0,
            -1,
            [],
            False,
        )

    def _trie(self, model):
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
        # one more frame gives it for nothing, and nothing else.
        frame = np.full((1, len(self._alphabet) + 1), NEVER)
        frame[0, self._symbols[" "]] = 0.0
        self.step(frame)
        self._decoder.decode_end()
        results = self._decoder.get_all_final_hypothesis()
        # If the recording breaks off in the middle of every word that is
        # left, each text is without its fragment.
        whole = [result for result in results if result.score > NEVER / 2]
        for result in whole or results:
            words = [index for index in result.words if index >= 0]
            score = result.score - (0.0 if whole else NEVER)
            lm_score = _lm_score(self._kenlm, words)
            acoustic_score = (
                score
                - self._lm_weight * lm_score
                - self._word_score * len(words)
                - sum(self._boosts.get(index, 0.0) for index in words)
            )
            text = " ".join(self._words[index] for index in words)
            yield text, score, acoustic_score, lm_score


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
            symbols = [
                symbol
                for symbol, before in zip(
                    result.tokens[1:], result.tokens, strict=False
                )
                if symbol > 0 and symbol != before
            ]
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


def _lm_score(model, items):
    """Natural logarithm of the probability of a whole sequence."""
    if model is None:
        return 0.0
    state = model.start(False)
    total = 0.0
    for item in items:
        state, score = model.score(state, item)
        total += score
    return LOG_10 * (total + model.finish(state)[1])


def _boosted(flashlight, model, boosts):
    """Wraps a model, in Python, to add to the scores of some words."""

    class Boosted(flashlight.LM):  # type: ignore[name-defined]
        def start(self, start_with_nothing):
            return model.start(start_with_nothing)

        def score(self, state, item):
            state, score = model.score(state, item)
            return state, score + boosts.get(item, 0.0)

        def finish(self, state):
            return model.finish(state)

    return Boosted()
