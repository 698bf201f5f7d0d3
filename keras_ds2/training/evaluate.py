"""Model and data set in, error rates and the worst utterances out."""

from dataclasses import dataclass

from keras_ds2.data.corpus import Utterance
from keras_ds2.data.dataset import SpeechDataset
from keras_ds2.decoding.beam_search import BeamSearchDecoder
from keras_ds2.models.speech_recognizer import SpeechRecognizer


@dataclass(frozen=True)
class TranscribedUtterance:
    """One recording, what was said, what was heard, and its WER."""

    audio: str
    reference: str
    hypothesis: str
    wer: float


@dataclass(frozen=True)
class Evaluation:
    """Error rates over a corpus: all edits over all words (characters)."""

    wer: float
    cer: float
    utterances: list[TranscribedUtterance]  # worst first

    def report(self, num_worst: int = 5) -> str:
        """Formats the error rates and the worst utterances for people."""
        lines = [
            f"WER {self.wer:.2%}, CER {self.cer:.2%} "
            f"({len(self.utterances)} utterances)"
        ]
        for item in self.utterances[:num_worst]:
            lines += [
                f"{item.wer:.0%} {item.audio}",
                f"  reference:  {item.reference}",
                f"  hypothesis: {item.hypothesis}",
            ]
        return "\n".join(lines)


def evaluate(
    model: SpeechRecognizer,
    dataset: SpeechDataset,
    decoder: BeamSearchDecoder | None = None,
) -> Evaluation:
    """Transcribes a data set and counts its errors.

    `model.evaluate` shows the same rates beside the loss; this function keeps
    the transcripts, and counts with jiwer.

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
    # Here, for it takes a while to import and only evaluation needs it.
    import jiwer

    hypotheses: list[str] = []
    for inputs, _ in dataset.one_pass():
        hypotheses += model.transcribe_batch(inputs, decoder)
    rows = rows_read(dataset)
    references = [row.text for row in rows]
    utterances = [
        TranscribedUtterance(
            row.audio, row.text, text, jiwer.wer(row.text, text)
        )
        for row, text in zip(rows, hypotheses, strict=True)
    ]
    return Evaluation(
        wer=jiwer.wer(references, hypotheses),
        cer=jiwer.cer(references, hypotheses),
        utterances=sorted(utterances, key=lambda item: -item.wer),
    )


def rows_read(dataset: SpeechDataset) -> list[Utterance]:
    """Lists the utterances of the pass just made, in its order."""
    bad = dataset.bad_audio
    rows = [row for batch in dataset.batches for row in batch]
    return [row for row in rows if row not in bad]
