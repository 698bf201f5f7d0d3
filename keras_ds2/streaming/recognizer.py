"""Samples in as they come, text out as soon as it is known."""

import numpy as np

from keras_ds2.audio import MAX_AMPLITUDE
from keras_ds2.streaming.step import StreamingStep
from keras_ds2.streaming.utterance import Utterance


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
        self._utterance = Utterance(
            self.step, self.decoder, self.endpoint_silence
        )
        self._state = self.step.initial_state()
        self._is_finished = False

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
        self._utterance.push(_check_samples(samples))
        self._advance()
        return self._utterance.read()

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
        self._utterance.end()
        self._advance()
        return self._utterance.finish()

    def _advance(self):
        while self._utterance.has_chunk():
            samples, num_samples = self._utterance.next_chunk()
            logits, is_real, self._state = self.step(
                self._state, samples[None], [num_samples]
            )
            self._utterance.take(logits[0], is_real[0])

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
