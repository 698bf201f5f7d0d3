"""What a decoder gives: a text, why it was chosen, and when it was said."""

from dataclasses import dataclass


@dataclass(frozen=True)
class TimedText:
    """A word or a character, and the part of a recording that it stands in.

    Args:
        text: String. The word or the character.
        start: Float. Seconds from the beginning of the recording.
        end: Float. Seconds from the beginning of the recording.
        confidence: Float from 0 to 1. For a character, the highest
            probability that a frame of its own gives it; for a word, that of
            its least certain character. It is the network's, the language
            model has no part in it, and nothing calibrates it.

    Example:

    >>> import keras_ds2
    >>> keras_ds2.TimedText("ten", start=0.4, end=0.7, confidence=0.9).text
    'ten'
    """

    text: str
    start: float
    end: float
    confidence: float


@dataclass(frozen=True)
class Hypothesis:
    """One reading of an utterance.

    Args:
        text: String. The words, one space between them.
        score: Float. What the decoder maximizes; see `BeamSearchDecoder`.
        acoustic_score: Float. Natural logarithm of the probability that the
            network gives the text, all alignments in the beam together; with
            a `prior`, after that was divided out.
        lm_score: Float. Natural logarithm of the probability that the
            language model gives the text, its end included, before any
            weight. `0` without a language model.
        words: Tuple of `TimedText`, if the decoder was told the duration of
            a frame.
        characters: Tuple of `TimedText`, one for each character but spaces,
            likewise.

    Example:

    >>> import keras_ds2
    >>> keras_ds2.Hypothesis("ten", score=-1.5, acoustic_score=-1.5).lm_score
    0.0
    """

    text: str
    score: float
    acoustic_score: float
    lm_score: float = 0.0
    words: tuple[TimedText, ...] = ()
    characters: tuple[TimedText, ...] = ()
