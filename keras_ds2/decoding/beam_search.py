"""Logits in, the best hypotheses out."""

import copy
import math
import numbers

import numpy as np

from keras_ds2.decoding.alignment import character_log_probs, time_text
from keras_ds2.decoding.beam_search_stream import BeamSearchStream
from keras_ds2.decoding.choose_search import choose_search
from keras_ds2.decoding.flashlight_search import LexiconSearch
from keras_ds2.decoding.hypothesis import Hypothesis
from keras_ds2.decoding.symbol_prior import divide_by_prior, validate_prior
from keras_ds2.text import DEFAULT_ALPHABET


class BeamSearchDecoder:
    """Finds the texts that network and language model together like best.

    Unlike `greedy_decode` it sums over the alignments of a text, and can be
    told which words there are and how they follow each other. It maximizes

        Q = log p_ctc + lm_weight * log p_lm + word_score * words

    with natural logarithms, plus the boost of each hot word. `p_ctc` is the
    probability of all alignments that read as the text, where a run of spaces
    is one space (without words the best of such texts stands for all);
    `p_lm` is that of the text and its end. If a recording breaks off within
    a word, the text leaves it out and `p_ctc` counts what was heard of it.
    With a `prior`, the probabilities of each frame are first divided by
    `prior ** prior_weight`, and normalized: a network that has learned how
    often each character is written brings a language model of its own, a
    poor one, which is taken out so.

    What is searched depends on what is given:

    - `lexicon` or a language model of words: sequences of these words only.
      Without `lexicon` the words are those of the language model.
    - a language model of characters (each unit one character, the space
      written `|` or `<space>`): any text.
    - neither: any text, by TensorFlow's beam search. Only this needs no
      `pip install "keras_ds2[lm]"`.

    To be made once, for a language model takes its time to load. One object
    serves one thread at a time.

    Args:
        alphabet: String. The characters that the logits stand for, in order
            and leaving out the blank. Symbols beyond are reserved and never
            come out. Defaults to `DEFAULT_ALPHABET`.
        language_model: Path of an ARPA file, gzipped or not, or of a KenLM
            binary. Defaults to `None`.
        lexicon: Path of a text file of one word a line, or list of words.
            Defaults to `None`.
        beam_width: Integer. Hypotheses that are kept after each frame.
            Defaults to `64`.
        beam_threshold: Float. Hypotheses are dropped that are worse than the
            best one by more than this. TensorFlow's search ignores it.
            Defaults to `25.0`.
        lm_weight: Float, not negative (the papers' alpha). Defaults to
            `0.5`.
        word_score: Float (the papers' beta). Needs words. Defaults to `0.0`.
        hot_words: Dictionary from word to what it adds to Q wherever it
            occurs. A word that is not in the lexicon is added to it. Needs
            words. Defaults to `None`.
        top_paths: Integer. Hypotheses that are returned, if there are as
            many. Defaults to `1`.
        prior: Sequence of positive floats: how often this one network tells
            the blank and each character of the alphabet, as `tune_decoder`
            measures it. Defaults to `None`.
        prior_weight: Float, not negative. Needs `prior`. Defaults to `0.0`.
        blank_index: Integer. Symbol of the blank. Defaults to `0`.

    Call arguments:
        logits: Array of shape `(batch, frames, symbols)`.
        logit_length: Integer array of shape `(batch,)`: real frames.
        frame_duration: Float. Seconds between two frames, as
            `model.frame_duration`; without it the hypotheses have no words
            and characters with times. Defaults to `None`.

    Returns:
        When called, a list of `Hypothesis` for each utterance, best first,
        at least one.

    Raises:
        ImportError: If a language model or a lexicon is given and the extra
            is not installed.
        ValueError: If an argument is out of range, does not go together with
            another, or a file is missing or malformed.

    Reference:
        Hannun et al., 2014, section 2.2; Amodei et al., 2016, section 3.8.
        For the prior, Miao et al., "EESEN", 2015.

    Example:

    >>> import numpy as np
    >>> import keras_ds2
    >>> decoder = keras_ds2.BeamSearchDecoder("ab", top_paths=2)
    >>> probabilities = np.array([[[0.6, 0.4, 0.0], [0.6, 0.4, 0.0]]])
    >>> [best, second] = decoder(np.log(probabilities + 1e-9), [2])[0]
    >>> f"{best.text!r} {np.exp(best.score):.2f}"
    "'a' 0.64"
    >>> f"{second.text!r} {np.exp(second.score):.2f}"
    "'' 0.36"
    """

    def __init__(
        self,
        alphabet=DEFAULT_ALPHABET,
        language_model=None,
        lexicon=None,
        beam_width=64,
        beam_threshold=25.0,
        lm_weight=0.5,
        word_score=0.0,
        hot_words=None,
        top_paths=1,
        prior=None,
        prior_weight=0.0,
        blank_index=0,
    ):
        self.alphabet = alphabet
        self.language_model = language_model
        self.lexicon = lexicon
        self.beam_width = beam_width
        self.beam_threshold = beam_threshold
        self.lm_weight = lm_weight
        self.word_score = word_score
        self.hot_words = dict(hot_words or {})
        self.top_paths = top_paths
        self.prior = prior
        self.prior_weight = prior_weight
        self.blank_index = blank_index
        self._validate()
        self._search = choose_search(
            self.alphabet, self.language_model, self.lexicon, self.hot_words
        )
        self._configure()

    @property
    def has_words(self):
        """Whether words are searched, so that `word_score` has a meaning."""
        return isinstance(self._search, LexiconSearch)

    def with_weights(
        self,
        lm_weight,
        word_score,
        beam_width=None,
        prior_weight=None,
    ):
        """Makes a decoder of other weights that shares the language model.

        Args:
            lm_weight: Float, not negative.
            word_score: Float.
            beam_width: Integer. Defaults to `None`: this decoder's.
            prior_weight: Float, not negative. Defaults to `None`: this
                decoder's.

        Returns:
            A `BeamSearchDecoder`.
        """
        decoder = copy.copy(self)
        decoder._search = copy.copy(self._search)
        decoder.lm_weight = lm_weight
        decoder.word_score = word_score
        if beam_width is not None:
            decoder.beam_width = beam_width
        if prior_weight is not None:
            decoder.prior_weight = prior_weight
        decoder._validate()
        decoder._configure()
        return decoder

    def stream(self, frame_duration):
        """Begins to decode one of many streams; see `StreamingRecognizer`.

        Args:
            frame_duration: Float. Seconds between two frames.

        Raises:
            ValueError: If there is neither lexicon nor language model.
        """
        search = self._search.fork()
        return BeamSearchStream(
            search, self.alphabet, frame_duration, self._without_prior
        )

    def __call__(self, logits, logit_length, frame_duration=None):
        logits = np.asarray(logits)
        logit_length = np.asarray(logit_length)
        if logits.ndim != 3 or logits.shape[2] <= len(self.alphabet):
            raise ValueError(
                "`logits` must be of shape (batch, frames, symbols), with a "
                "symbol for the blank and for each of the "
                f"{len(self.alphabet)} characters of the alphabet. Received: "
                f"logits.shape={logits.shape}."
            )
        batch, frames, _ = logits.shape
        if logit_length.shape != (batch,) or np.any(
            (logit_length < 0) | (logit_length > frames)
        ):
            raise ValueError(
                f"`logit_length` must be {batch} numbers from 0 to {frames}. "
                f"Received: logit_length={logit_length}."
            )
        return [
            self._decode(logits[i, : int(length)], i, frame_duration)
            for i, length in enumerate(logit_length)
        ]

    def _decode(self, logits, index, frame_duration):
        if not np.all(np.isfinite(logits)):
            raise ValueError(
                f"`logits` must be finite. Those of utterance {index} of the "
                "batch are not."
            )
        log_probs = character_log_probs(logits, self.alphabet, self.blank_index)
        hypotheses = {}
        self._search.begin()
        self._search.step(self._without_prior(log_probs))
        for text, *scores in self._search.end():
            text = " ".join(word for word in text.split(" ") if word)
            # Texts that differ in runs of spaces only: the best stands.
            if text not in hypotheses:
                times = ()
                if frame_duration is not None:
                    times = time_text(
                        text, self.alphabet, log_probs, frame_duration
                    )
                hypotheses[text] = Hypothesis(text, *scores, *times)
            if len(hypotheses) == self.top_paths:
                break
        return list(hypotheses.values())

    def _without_prior(self, log_probs):
        if not self.prior_weight:
            return log_probs
        return divide_by_prior(log_probs, self.prior, self.prior_weight)

    # === Construction ===

    def _validate(self):
        for name in ("beam_width", "top_paths"):
            value = getattr(self, name)
            if not isinstance(value, numbers.Integral) or value < 1:
                raise ValueError(
                    f"`{name}` must be a positive integer. Received: "
                    f"{name}={value!r}."
                )
        names = ("lm_weight", "word_score", "prior_weight")
        terms = {name: getattr(self, name) for name in names}
        terms |= {f"hot_words[{w!r}]": b for w, b in self.hot_words.items()}
        for name, value in terms.items():
            if not isinstance(value, numbers.Real) or not math.isfinite(value):
                raise ValueError(
                    f"`{name}` must be a finite number. Received: {value!r}."
                )
        for name in ("lm_weight", "beam_threshold", "prior_weight"):
            value = getattr(self, name)
            if not value >= 0:
                raise ValueError(
                    f"`{name}` must not be negative. Received: {value}."
                )
        if self.top_paths > self.beam_width:
            raise ValueError(
                "`top_paths` must not exceed `beam_width`. Received: "
                f"top_paths={self.top_paths}, beam_width={self.beam_width}."
            )
        if len(set(self.alphabet)) < max(len(self.alphabet), 1):
            raise ValueError(
                "`alphabet` must have characters, each once. Received: "
                f"alphabet={self.alphabet!r}."
            )
        if self.prior is not None or self.prior_weight:
            self.prior = validate_prior(self.prior, len(self.alphabet) + 1)
        if self.blank_index not in range(len(self.alphabet) + 1):
            raise ValueError(
                f"`blank_index` must be from 0 to {len(self.alphabet)}: "
                "reserved symbols come last. Received: "
                f"blank_index={self.blank_index}."
            )

    def _configure(self):
        if not self.has_words and (self.hot_words or self.word_score):
            raise ValueError(
                "`hot_words` and `word_score` need words: pass `lexicon`, or "
                "a language model of words. Received: hot_words="
                f"{self.hot_words}, word_score={self.word_score}."
            )
        self._search.configure(
            self.beam_width,
            self.beam_threshold,
            self.lm_weight,
            self.word_score,
            self.top_paths,
        )
