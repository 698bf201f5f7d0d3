"""Samples in as they come, text out as soon as it is known."""

from dataclasses import dataclass

import numpy as np

from keras_ds2.audio import MAX_AMPLITUDE
from keras_ds2.decoding.alignment import character_log_probs
from keras_ds2.decoding.greedy import GreedyStream
from keras_ds2.streaming.step import StreamingStep


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


class StreamingRecognizer:
    """Transcribes one stream of samples while it comes in.

    The text is that of `model.transcribe`, however the samples are cut: they
    are gathered to chunks of a fixed size, and every chunk goes through the
    model's own layers. So text lags behind speech by `lookahead` and up to one
    chunk more.

    Args:
        model: Unidirectional model, as `DeepSpeech2()`, or a `StreamingStep`
            of one, for recognizers to share: then it is traced once.
        decoder: `BeamSearchDecoder` of the model's alphabet, with a lexicon
            or a language model, or `None` to decode greedily. It may be
            shared by recognizers of one thread. Defaults to `None`.
        endpoint_silence: Float, seconds. How long the best symbol must have
            been blank or space, after any other, for a partial transcript to
            be an endpoint. It is looked at after each `accept`, so hand over
            less at a time than that. Defaults to `None`, never.

    Raises:
        ValueError: If the model is bidirectional, or the decoder is of other
            symbols or cannot stream.

    Example:

    >>> import numpy as np
    >>> import keras_ds2
    >>> model = keras_ds2.DeepSpeech2(num_rnn_layers=1, rnn_units=8)
    >>> recognizer = keras_ds2.StreamingRecognizer(model)
    >>> for _ in range(10):
    ...     partial = recognizer.accept(np.zeros(1600, "float32"))
    >>> hypothesis = recognizer.finish()
    >>> hypothesis.text.startswith(partial.stable)
    True
    """

    def __init__(self, model, decoder=None, endpoint_silence=None):
        if not isinstance(model, StreamingStep):
            model = StreamingStep(model)
        if endpoint_silence is not None and not endpoint_silence > 0:
            raise ValueError(
                "`endpoint_silence` must be positive, or None. Received: "
                f"endpoint_silence={endpoint_silence}."
            )
        model.model.check_decoder(decoder)
        self.step = model
        self.decoder = decoder
        self.endpoint_silence = endpoint_silence
        self.reset()

    @property
    def lookahead(self):
        """Seconds from the first sample of a frame to the last it depends on.

        See `StreamingStep.lookahead`.
        """
        return self.step.lookahead

    def reset(self):
        """Forgets everything, for another utterance to begin."""
        model = self.step.model
        if self.decoder is None:
            self._search = GreedyStream(model.alphabet, model.frame_duration)
        else:
            self._search = self.decoder.stream(model.frame_duration)
        self._state = self.step.initial_state()
        self._chunk = np.zeros((1, self.step.chunk_size), "float32")
        self._num_waiting = 0  # samples in the chunk
        self._num_samples = 0
        self._num_frames = 0
        self._num_quiet_frames = 0
        self._was_heard = False
        self._is_finished = False
        self._partial = PartialTranscript("", "")

    def accept(self, samples):
        """Takes the next samples, any number of them.

        Args:
            samples: 1-D array of floating-point samples in [-1, 1], at the
                model's sampling rate. Divide 16-bit integers by 32768.

        Returns:
            `PartialTranscript` of all that was accepted.

        Raises:
            ValueError: If `samples` is something else, or has NaN or samples
                of absurd size.
            RuntimeError: After `finish`.
        """
        self._check_unfinished()
        samples = _check_samples(samples)
        self._num_samples += len(samples)
        num_frames = self._num_frames
        while len(samples):
            taken = samples[: self.step.chunk_size - self._num_waiting]
            end = self._num_waiting + len(taken)
            self._chunk[0, self._num_waiting : end] = taken
            self._num_waiting = end
            samples = samples[len(taken) :]
            if end == self.step.chunk_size:
                self._advance()
        if self._num_frames > num_frames:
            silence = self._num_quiet_frames * self.step.model.frame_duration
            text, stable = self._search.read()
            self._partial = PartialTranscript(
                text,
                stable,
                endpoint=self.endpoint_silence is not None
                and self._was_heard
                and silence >= self.endpoint_silence,
            )
        return self._partial

    def finish(self):
        """Ends the utterance. Only `reset` may follow.

        Returns:
            `Hypothesis` with the times of words and characters, in seconds
            from the first sample since the last `reset`. Its text is empty if
            there was less than one window of samples.

        Raises:
            RuntimeError: After `finish`.
        """
        self._check_unfinished()
        self._is_finished = True
        num_frames = self.step.model.logit_length(self._num_samples)
        while self._num_frames < num_frames:
            self._advance()
        return self._search.end()

    def _advance(self):
        """Runs the chunk, be it full or not, and empties it."""
        logits, is_real, self._state = self.step(
            self._state, self._chunk, [self._num_waiting]
        )
        self._num_waiting = 0
        logits = logits.numpy()[is_real.numpy()]
        if not len(logits):
            return
        self._num_frames += len(logits)
        model = self.step.model
        log_probs = character_log_probs(
            logits, model.alphabet, model.ctc.blank_index
        )
        self._search.step(log_probs)
        quiet = (0, model.alphabet.find(" ") + 1)
        heard = np.flatnonzero(~np.isin(log_probs.argmax(axis=1), quiet))
        if len(heard):
            self._was_heard = True
            self._num_quiet_frames = -1 - heard[-1]
        self._num_quiet_frames += len(logits)

    def _check_unfinished(self):
        if self._is_finished:
            raise RuntimeError(
                "The utterance is finished. Call `reset()` to begin another."
            )


def _check_samples(samples):
    samples = np.asarray(samples)
    if (
        samples.ndim != 1
        or not np.issubdtype(samples.dtype, np.floating)
        or not np.all(np.abs(samples) <= MAX_AMPLITUDE)  # nor is NaN
    ):
        raise ValueError(
            "`samples` must be a 1-D array of finite floating-point samples in "
            "[-1, 1]; divide 16-bit integers by 32768. Received: "
            f"shape={samples.shape}, dtype={samples.dtype}."
        )
    return samples.astype("float32")
