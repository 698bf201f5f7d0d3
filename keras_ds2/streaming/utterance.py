"""What one stream does for itself, beside the step that many may share."""

from dataclasses import dataclass

import numpy as np

from keras_ds2.decoding.alignment import character_log_probs
from keras_ds2.decoding.greedy import GreedyStream


@dataclass(frozen=True)
class PartialTranscript:
    """What is known of an utterance that goes on.

    Args:
        text: String. The best reading so far.
        stable: String. The beginning of `text` that will not change: the text
            of every later partial and of the final hypothesis begins with
            it. Greedily it is all of `text`; with a `BeamSearchDecoder`, what
            all hypotheses in the beam have in common, up to the last whole
            word where words are decoded.
        endpoint: Boolean. Whether something was said, and after it nothing
            for as long as `endpoint_silence`. Defaults to `False`.

    Example:

    >>> import keras_ds2
    >>> keras_ds2.PartialTranscript("she must s", stable="she must").endpoint
    False
    """

    text: str
    stable: str
    endpoint: bool = False


class Utterance:
    """Gathers samples to chunks, and makes text of their logits.

    Between the two is a `StreamingStep`, which whoever owns the utterance
    runs: on this stream, or on the chunks of many at once. `take`, `read` and
    `finish` may run in another thread than all that is about samples.

    Args:
        step: `StreamingStep`.
        decoder: `BeamSearchDecoder` or `None`, as of `StreamingRecognizer`.
        endpoint_silence: Float, seconds, or `None`, likewise.

    Example:

    >>> import numpy as np
    >>> import keras_ds2
    >>> from keras_ds2.streaming.utterance import Utterance
    >>> model = keras_ds2.DeepSpeech2(num_rnn_layers=1, rnn_units=8)
    >>> step = keras_ds2.StreamingStep(model)
    >>> utterance, state = Utterance(step), step.initial_state()
    >>> utterance.push(np.zeros(4000, "float32"))
    >>> utterance.end()
    >>> while utterance.has_chunk():
    ...     samples, num_samples = utterance.next_chunk()
    ...     logits, is_real, state = step(state, [samples], [num_samples])
    ...     utterance.take(logits[0], is_real[0])
    >>> utterance.num_frames == model.logit_length(4000)
    True
    """

    def __init__(self, step, decoder=None, endpoint_silence=None):
        self.num_frames = 0
        self._model = step.model
        self._chunk_size = step.chunk_size
        self._endpoint_silence = endpoint_silence
        if decoder is None:
            self._search = GreedyStream(
                self._model.alphabet, self._model.frame_duration
            )
        else:
            self._search = decoder.stream(self._model.frame_duration)
        self._waiting = np.zeros(0, "float32")
        self._num_samples = 0
        self._end_frame: int | None = None  # known once there is an end
        self._num_quiet_frames = 0
        self._was_heard = False
        self._has_news = False
        self._partial = PartialTranscript("", "")

    @property
    def num_waiting(self):
        """Samples that are in no chunk yet."""
        return len(self._waiting)

    @property
    def has_ended(self):
        """Whether no more samples will come."""
        return self._end_frame is not None

    def push(self, samples):
        """Takes the next samples, a float32 array."""
        self._num_samples += len(samples)
        self._waiting = np.concatenate([self._waiting, samples])

    def end(self):
        """Ends the utterance with the last sample that was pushed."""
        self._end_frame = self._model.logit_length(self._num_samples)

    def cut(self):
        """Ends the utterance with the last chunk, and returns later samples."""
        rest, self._waiting = self._waiting, self._waiting[:0]
        self._num_samples -= len(rest)
        self.end()
        return rest

    def has_chunk(self):
        """Whether there is something to run, be it only silence at the end."""
        if len(self._waiting) >= self._chunk_size:
            return True
        return self._end_frame is not None and self.num_frames < self._end_frame

    def next_chunk(self):
        """Returns what the step takes: a chunk, and how much of it is real."""
        chunk = self._waiting[: self._chunk_size]
        self._waiting = self._waiting[len(chunk) :]
        padding = self._chunk_size - len(chunk)
        return np.pad(chunk, (0, padding)), len(chunk)

    def take(self, logits, is_real):
        """Takes what the step gave for this stream: one row of each."""
        logits = np.asarray(logits)[np.asarray(is_real)]
        if not len(logits):
            return
        self.num_frames += len(logits)
        self._has_news = True
        log_probs = character_log_probs(
            logits, self._model.alphabet, self._model.ctc.blank_index
        )
        self._search.step(log_probs)
        quiet = (0, self._model.alphabet.find(" ") + 1)
        heard = np.flatnonzero(~np.isin(log_probs.argmax(axis=1), quiet))
        if len(heard):
            self._was_heard = True
            self._num_quiet_frames = -1 - heard[-1]
        self._num_quiet_frames += len(logits)

    def read(self):
        """Returns a `PartialTranscript` of all that was taken."""
        if self._has_news:
            silence = self._num_quiet_frames * self._model.frame_duration
            text, stable = self._search.read()
            self._partial = PartialTranscript(
                text,
                stable,
                endpoint=self._endpoint_silence is not None
                and self._was_heard
                and silence >= self._endpoint_silence,
            )
            self._has_news = False
        return self._partial

    def finish(self):
        """Returns the `Hypothesis`, once there are no more chunks."""
        return self._search.end()
