"""16-bit samples of one client in, messages for it out."""

import asyncio
from collections import deque

import numpy as np
import soxr

from keras_ds2.decoding.hypothesis import Hypothesis
from keras_ds2.streaming.utterance import Utterance
from keras_ds2.transcript import describe_words

# Final messages that may wait for a slow reader. Then its stream stands still.
_MOST_FINALS = 8

# What clients may know of an error.
FAILURE = "The service failed."


class Refused(Exception):
    """Closes a stream with a code of RFC 6455 and a reason for people."""

    def __init__(self, code: int, reason: str) -> None:
        super().__init__(code, reason)
        self.code = code
        self.reason = reason


class Stream:
    """One client's stream: a row of the batch, utterance after utterance.

    Everything but `advance` belongs to the thread of the event loop.

    Args:
        step: `StreamingStep`.
        decoder: `BeamSearchDecoder` or `None`.
        row: Integer. Where its state stands among those of all streams.
        max_backlog: Float, seconds. Audio that may wait here.
        wake: Function to call when there is something to run.
    """

    def __init__(self, step, decoder, row, max_backlog, wake):
        self.row = row
        self.close_code, self.close_reason = 1000, ""
        self.has_ended = False
        self.is_done = False
        self._step = step
        self._decoder = decoder
        # At least what a step takes: with less it would wait for ever.
        self._max_waiting = max(
            max_backlog * step.sampling_rate, step.chunk_size
        )
        self._wake = wake
        self._index = 0  # of the utterance
        self._start = 0  # its first sample
        self._num_samples = 0
        self._later = None  # samples after an utterance that is about to end
        self._finals: deque[dict] = deque()
        self._partial = None
        self._error = None
        self._news = asyncio.Event()
        self._room = asyncio.Event()
        self._room.set()
        self._last_texts = "", ""
        self.configure()

    def configure(self, sampling_rate=None, endpoint_silence=None):
        """Says what comes, before any of it; rates in Hz, times in seconds."""
        if self.has_ended:
            return
        own_rate = self._step.sampling_rate
        self._rate = sampling_rate or own_rate
        self._resampler = None
        if self._rate != own_rate:
            self._resampler = soxr.ResampleStream(
                self._rate, own_rate, num_channels=1, dtype="float32"
            )
        self._num_received = 0
        self._endpoint_silence = endpoint_silence
        self._begin(np.zeros(0, "float32"))

    # === What comes in ===

    @property
    def duration(self):
        """Seconds that were received."""
        return self._num_received / self._rate

    def push(self, pcm):
        """Takes bytes: 16-bit samples, little-endian."""
        if self.has_ended:
            return
        samples = np.frombuffer(pcm, "<i2").astype("float32") / 32768
        self._num_received += len(samples)
        self._push(samples)

    def end(self, code=1000, reason=""):
        """Ends the stream; what was received is still transcribed."""
        if self.has_ended:
            return
        self._push(np.zeros(0, "float32"), is_last=True)
        self.has_ended = True
        self.close_code, self.close_reason = code, reason
        if self._later is None:
            self._utterance.end()
        self._wake()

    async def wait_for_room(self):
        """Returns once not too much is waiting: the client has to wait."""
        await self._room.wait()

    def _push(self, samples, is_last=False):
        if self._resampler is not None:
            samples = self._resampler.resample_chunk(samples, is_last)
        self._num_samples += len(samples)
        if self._later is None:
            self._utterance.push(samples)
        else:
            self._later = np.concatenate([self._later, samples])
        self._look_for_room()
        self._wake()

    def _look_for_room(self):
        later = 0 if self._later is None else len(self._later)
        if self._utterance.num_waiting + later > self._max_waiting:
            self._room.clear()
        else:
            self._room.set()

    # === What is done with it ===

    def is_ready(self):
        """Whether it takes part in the next step."""
        return (
            not self.is_done
            and self._error is None
            and len(self._finals) < _MOST_FINALS
            and (self._utterance.has_chunk() or self._utterance.has_ended)
        )

    def next_chunk(self):
        """Returns samples and their number; `None` if only the end is left."""
        if not self._utterance.has_chunk():
            return None
        chunk = self._utterance.next_chunk()
        self._look_for_room()
        return chunk

    def advance(self, logits=None, is_real=None):
        """Decodes; returns a `PartialTranscript`, or the `Hypothesis`."""
        if logits is not None:
            self._utterance.take(logits, is_real)
        if self._utterance.has_ended and not self._utterance.has_chunk():
            return self._utterance.finish()
        return self._utterance.read()

    def deliver(self, outcome):
        """Makes messages of what `advance` returned, or of an error."""
        if isinstance(outcome, Exception):
            self._error = outcome
        elif isinstance(outcome, Hypothesis):
            self._deliver_final(outcome)
        else:
            self._deliver_partial(outcome)
        self._news.set()
        self._look_for_room()

    def _deliver_partial(self, partial):
        if (partial.text, partial.stable) != self._last_texts:
            self._last_texts = partial.text, partial.stable
            # An earlier one that nobody has read yet is out of date.
            self._partial = {
                "type": "partial",
                "utterance": self._index,
                "text": partial.text,
                "stable": partial.stable,
            }
        if partial.endpoint and self._later is None:
            self._later = self._utterance.cut()

    def _deliver_final(self, hypothesis):
        later, self._later = self._later, None
        if later is None:
            later = np.zeros(0, "float32")
        start = self._start / self._step.sampling_rate
        self._start = self._num_samples - len(later)
        self._partial = None
        # Silence after the last words is not worth a message of its own,
        # unless it passed for a word.
        if hypothesis.text or self._last_texts[0] or not self._index:
            self._finals.append(
                {
                    "type": "final",
                    "utterance": self._index,
                    "start": round(start, 3),
                    "end": round(self._start / self._step.sampling_rate, 3),
                    "text": hypothesis.text,
                    "words": describe_words(hypothesis.words, start),
                }
            )
        self._index += 1
        self.is_done = self.has_ended and not len(later)
        self._begin(later)
        if self.has_ended:
            self._utterance.end()

    def _begin(self, samples):
        self._utterance = Utterance(
            self._step, self._decoder, self._endpoint_silence
        )
        self._utterance.push(samples)
        self._last_texts = "", ""

    # === What goes out ===

    async def messages(self):
        """Yields messages as they are known, up to the last final one."""
        while True:
            await self._news.wait()
            self._news.clear()
            while self._finals:
                yield self._finals.popleft()
                self._wake()
            if self._partial is not None:
                partial, self._partial = self._partial, None
                yield partial
            if self._error is not None:
                raise Refused(1011, FAILURE) from self._error
            if self.is_done and not self._finals:
                return
