"""From samples that come in to text that is shown, until there are no more."""

import signal
import sys
from collections.abc import Iterable, Iterator

import numpy as np
import soxr

from keras_ds2.streaming.recognizer import StreamingRecognizer
from keras_ds2.streaming.step import StreamingStep
from keras_ds2.streaming.utterance import PartialTranscript


class Interruption:
    """Ctrl-C and SIGTERM end the listening, not the work on what was heard.

    The second of them ends that, too.
    """

    def __init__(self) -> None:
        self._signal: int | None = None
        self._is_waiting = False

    @property
    def status(self) -> int:
        """The exit status: 0 if there was none."""
        return 0 if self._signal is None else 128 + self._signal

    def __enter__(self) -> "Interruption":
        self._before = {
            number: signal.signal(number, self._note)
            for number in (signal.SIGINT, signal.SIGTERM)
        }
        return self

    def __exit__(self, *_) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def pass_on(self, pieces: Iterable) -> Iterator:
        """Yields the pieces, until there is an interruption."""
        pieces = iter(pieces)
        while True:
            self._is_waiting = True
            try:
                if self._signal is not None:
                    return
                piece = next(pieces, None)
            except KeyboardInterrupt:
                return
            finally:
                self._is_waiting = False
            if piece is None:
                return
            yield piece

    def _note(self, number, _) -> None:
        is_second, self._signal = self._signal is not None, number
        if self._is_waiting or is_second:
            raise KeyboardInterrupt


def prepare(
    name: str, model, decoder, endpoint_silence: float
) -> StreamingRecognizer:
    """Makes a recognizer that answers at once.

    Raises:
        ValueError: If the model or the decoder cannot stream.
    """
    try:
        step = StreamingStep(model)
    except ValueError as error:
        raise ValueError(
            f"Model '{name}' cannot stream. {error} Pass another --model, or "
            "record what is said and use `keras-ds2 transcribe`."
        ) from error
    recognizer = StreamingRecognizer(step, decoder, endpoint_silence)
    # The first chunk takes seconds: not while somebody speaks.
    recognizer.accept(np.zeros(step.chunk_size, "float32"))
    recognizer.reset()
    return recognizer


def listen(recognizer, pieces, source, show) -> None:
    """Shows what is said in all pieces.

    Args:
        recognizer: As of `prepare`.
        pieces: Iterable of 1-D float32 arrays of `source.sampling_rate`.
        source: A `StandardInput` or `Microphone`.
        show: A view of `live_text`.
    """
    rate = recognizer.step.sampling_rate
    pieces = _resample(pieces, source.sampling_rate, rate)
    position = start = 0  # samples: heard, and before this utterance
    shown = nothing = PartialTranscript("", stable="")
    for chunk in _cut(pieces, recognizer.step.chunk_size):
        position += len(chunk)
        partial = recognizer.accept(chunk)
        if partial.endpoint:
            _end(recognizer, source, show, start / rate)
            recognizer.reset()
            start, shown = position, nothing
        elif partial != shown:
            show.partial(partial, position / rate)
            shown = partial
    _end(recognizer, source, show, start / rate)


def _end(recognizer, source, show, start):
    show.final(recognizer.finish(), start)
    if source.num_lost:
        print(
            f"keras-ds2: Pieces of sound lost after {start:.1f} s: "
            f"{source.num_lost}. This computer is too slow, or busy.",
            file=sys.stderr,
        )
        source.num_lost = 0


def _resample(pieces, rate, new_rate):
    if rate == new_rate:
        yield from pieces
        return
    stream = soxr.ResampleStream(rate, new_rate, num_channels=1)
    for piece in pieces:
        yield stream.resample_chunk(piece)
    yield stream.resample_chunk(np.zeros(0, "float32"), last=True)


def _cut(pieces, size):
    """Makes pieces of one size of them, but for the last.

    So an utterance ends at the same sample, however samples come in.
    """
    waiting = np.zeros(0, "float32")
    for piece in pieces:
        waiting = np.concatenate([waiting, piece])
        while len(waiting) >= size:
            yield waiting[:size]
            waiting = waiting[size:]
    yield waiting
