"""A file of any length and a model in, timed transcripts out, bit by bit."""

import dataclasses
import itertools
import os
from collections.abc import Iterator

from keras_ds2.audio import audio_duration, load_audio
from keras_ds2.decoding.beam_search import BeamSearchDecoder
from keras_ds2.decoding.hypothesis import Hypothesis, TimedText
from keras_ds2.models.speech_recognizer import SpeechRecognizer
from keras_ds2.segmentation import segment_audio


@dataclasses.dataclass(frozen=True)
class Segment:
    """A piece of a recording, and what was said there.

    Args:
        start: Float. Seconds from the beginning of the recording.
        end: Float. Seconds from the beginning of the recording.
        hypothesis: `Hypothesis`. The times of its words and characters, too,
            count from the beginning of the recording.

    Example:

    >>> import keras_ds2
    >>> hypothesis = keras_ds2.Hypothesis("ten", -1.5, acoustic_score=-1.5)
    >>> keras_ds2.Segment(8.0, 9.5, hypothesis).hypothesis.text
    'ten'
    """

    start: float
    end: float
    hypothesis: Hypothesis


def transcribe_file(
    model: SpeechRecognizer,
    path: str | os.PathLike[str],
    decoder: BeamSearchDecoder | None = None,
    min_silence: float = 0.5,
    max_segment: float = 20.0,
    batch_size: int = 8,
) -> Iterator[Segment]:
    """Transcribes a file of any length, in little memory, with times.

    A file of up to `max_segment` is recognized whole, as by
    `model.transcribe`. A longer one is read in blocks and cut at its
    silences: a language model takes each piece for a sentence of its own.
    Pieces come out as they are done.

    Args:
        model: A `DeepSpeech2` or `DeepSpeech`.
        path: An audio file in any format that soundfile reads, at any rate.
        decoder: `BeamSearchDecoder` of the model's alphabet, or `None` for
            the best symbol of each frame. Defaults to `None`.
        min_silence: Float. The shortest silence to cut at, in seconds.
            Defaults to `0.5`.
        max_segment: Float. The longest piece, in seconds; speech without a
            silence is cut where it is quietest. Defaults to `20.0`, about
            what models are trained on.
        batch_size: Integer. Pieces that the model sees at a time. Defaults
            to `8`.

    Yields:
        `Segment`s in order; none where there is no speech.

    Raises:
        AudioError: If the file cannot be used, before anything is yielded.
        ValueError: If an argument is out of range, or the decoder is of other
            symbols.

    Example:

    >>> import keras_ds2
    >>> model = keras_ds2.DeepSpeech2(num_rnn_layers=1, rnn_units=8)
    >>> clip = "tests/data/an4/wav/an4_clstk/ffmm/cen3-ffmm-b.opus"
    >>> [segment] = keras_ds2.transcribe_file(model, clip)
    >>> segment.start, round(segment.end, 1)
    (0.0, 2.0)
    """
    rate = model.sampling_rate
    if audio_duration(path) <= max_segment:
        shortest = model.sequence_length / rate
        samples = load_audio(path, rate, min_duration=shortest)
        pieces = iter([(0.0, samples)])
    else:
        pieces = segment_audio(path, rate, min_silence, max_segment)
    # Several batches at a time: they are made of pieces of similar length.
    while group := list(itertools.islice(pieces, 4 * batch_size)):
        hypotheses = model.recognize(
            [samples for _, samples in group], batch_size, decoder
        )
        for (start, samples), hypothesis in zip(group, hypotheses, strict=True):
            yield Segment(
                start, start + len(samples) / rate, _shift(hypothesis, start)
            )


def _shift(hypothesis: Hypothesis, seconds: float) -> Hypothesis:
    """The same, said later."""

    def later(items: tuple[TimedText, ...]) -> tuple[TimedText, ...]:
        return tuple(
            dataclasses.replace(
                item, start=item.start + seconds, end=item.end + seconds
            )
            for item in items
        )

    return dataclasses.replace(
        hypothesis,
        words=later(hypothesis.words),
        characters=later(hypothesis.characters),
    )
