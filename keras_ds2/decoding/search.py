"""TensorFlow's search.

Like the others it takes log probabilities of compact symbols: the blank is 0,
then come the characters of the alphabet in order. `begin`, `step` with as many
frames as there are, `end`.
"""

import numpy as np
from keras import ops


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

    def fork(self):
        """Raises a `ValueError`: this search takes whole utterances."""
        raise ValueError(
            "A decoder without lexicon and language model cannot stream: "
            "TensorFlow's search takes whole utterances. Pass `lexicon` or "
            "`language_model`, or decode greedily, without a decoder."
        )

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
