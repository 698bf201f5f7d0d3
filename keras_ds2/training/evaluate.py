"""Model and data set in, error rates and the worst utterances out."""

import math
from collections.abc import Iterable
from dataclasses import dataclass

from keras_ds2.data.corpus import Utterance
from keras_ds2.data.dataset import SpeechDataset
from keras_ds2.decoding.beam_search import BeamSearchDecoder
from keras_ds2.decoding.hypothesis import Hypothesis, TimedText
from keras_ds2.models.speech_recognizer import SpeechRecognizer
from keras_ds2.scoring import (
    ErrorRate,
    align_characters,
    align_words,
    count_edits,
    estimate,
)


@dataclass(frozen=True)
class TranscribedUtterance:
    """One recording, what was said, what was heard, and its WER.

    `duration` is in seconds, NaN if unknown; `speaker` and `corpus` are empty
    if unknown; `words` are those of the hypothesis, with times.
    """

    audio: str
    reference: str
    hypothesis: str
    wer: float
    duration: float = math.nan
    speaker: str = ""
    corpus: str = ""
    words: tuple[TimedText, ...] = ()


@dataclass(frozen=True)
class Evaluation:
    """Error rates over a corpus: all edits over all words (characters)."""

    wer: float
    cer: float
    utterances: list[TranscribedUtterance]  # worst first

    @classmethod
    def of(cls, utterances: Iterable[TranscribedUtterance]) -> "Evaluation":
        """Counts the errors of utterances, perhaps of several corpora."""
        # Here, for it takes a while to import and only evaluation needs it.
        import jiwer

        utterances = sorted(utterances, key=lambda item: -item.wer)
        references = [item.reference for item in utterances]
        hypotheses = [item.hypothesis for item in utterances]
        return cls(
            wer=jiwer.wer(references, hypotheses),
            cer=jiwer.cer(references, hypotheses),
            utterances=utterances,
        )

    def estimates(self) -> tuple[ErrorRate, ErrorRate]:
        """Returns the error rates of words and characters, with intervals."""
        references = [item.reference for item in self.utterances]
        hypotheses = [item.hypothesis for item in self.utterances]
        speakers = [item.speaker for item in self.utterances]
        words, characters = (
            estimate([count_edits(pairs) for pairs in aligned], speakers)
            for aligned in (
                align_words(references, hypotheses),
                align_characters(references, hypotheses),
            )
        )
        return words, characters

    def report(self, num_worst: int = 5) -> str:
        """Formats the error rates and the worst utterances for people."""
        words, characters = self.estimates()
        lines = [
            f"WER {100 * self.wer:.2f} %{_interval(words, '95 % interval ')}, "
            f"CER {100 * self.cer:.2f} %{_interval(characters)}",
            f"{len(self.utterances)} utterance"
            + "s" * (len(self.utterances) != 1),
        ]
        if not math.isnan(words.low):
            lines[-1] += f"; intervals by resampling {words.resampled}"
        for item in self.utterances[:num_worst]:
            lines += [
                f"{item.wer:.0%} {item.audio}",
                f"  reference:  {item.reference}",
                f"  hypothesis: {item.hypothesis}",
            ]
        return "\n".join(lines)


def _interval(rate: ErrorRate, name: str = "") -> str:
    """Nothing where nothing is known, as of one utterance, or no errors."""
    if math.isnan(rate.low):
        return ""
    return f" ({name}{100 * rate.low:.1f} to {100 * rate.high:.1f})"


def evaluate(
    model: SpeechRecognizer,
    dataset: SpeechDataset,
    decoder: BeamSearchDecoder | None = None,
) -> Evaluation:
    """Transcribes a data set and counts its errors.

    `model.evaluate` shows the same rates beside the loss; this function keeps
    the transcripts, and counts with jiwer. `report()` of the result adds 95 %
    intervals; `write_report` makes a page of it.

    Args:
        model: A `DeepSpeech2` or `DeepSpeech`.
        dataset: A `SpeechDataset`. Utterances that it had to leave out, under
            `on_bad_audio="skip"`, are not counted.
        decoder: `BeamSearchDecoder` of the model's alphabet, or `None` for
            `greedy_decode`. Defaults to `None`.

    Returns:
        `Evaluation`, its utterances sorted from the worst to the best.

    Example:

    >>> import keras_ds2
    >>> model = keras_ds2.DeepSpeech2(num_rnn_layers=1, rnn_units=8)
    >>> dataset = keras_ds2.data.prepare_dataset(
    ...     "tests/data/LibriSpeech", ["dev-clips"], model, batch_size=2
    ... )
    >>> result = keras_ds2.evaluate(model, dataset)
    >>> len(result.utterances)
    2
    """
    import jiwer

    recognized: list[Hypothesis] = []
    for inputs, _ in dataset.one_pass():
        recognized += model.recognize_batch(inputs, decoder)
    return Evaluation.of(
        TranscribedUtterance(
            row.audio,
            row.text,
            hypothesis.text,
            jiwer.wer(row.text, hypothesis.text),
            row.duration,
            row.speaker,
            row.corpus,
            hypothesis.words,
        )
        for row, hypothesis in zip(rows_read(dataset), recognized, strict=True)
    )


def rows_read(dataset: SpeechDataset) -> list[Utterance]:
    """Lists the utterances of the pass just made, in its order."""
    bad = dataset.bad_audio
    rows = [row for batch in dataset.batches for row in batch]
    return [row for row in rows if row not in bad]
