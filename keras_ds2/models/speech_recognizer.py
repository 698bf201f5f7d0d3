"""What all models share: transcripts and saving. No architecture."""

import inspect
import math
import os
import warnings

import keras
import numpy as np

from keras_ds2.audio import load_audio, pad_samples
from keras_ds2.decoding.greedy import greedy_decode, greedy_hypotheses
from keras_ds2.layers.output_length import OutputLength
from keras_ds2.models.ctc_model import CTCModel
from keras_ds2.models.vocabulary import copy_with_alphabet
from keras_ds2.models.weights_file import refuse_deeper


class SpeechRecognizer(CTCModel):
    """A functional model from samples to logits that trains with CTC.

    A subclass builds its graph in `__init__`: a `LogMelSpectrogram` named
    `log_mel` first, an `OutputLength` beside every layer that changes the
    number of frames, `SymbolLogits` last. Then it keeps each argument as an
    attribute of the same name.

    Args:
        inputs: Dictionary of symbolic inputs, `audio` and `audio_length`.
        outputs: Dictionary of outputs, `logits` and `logit_length`.
        dtype: Dtype policy of the layers.
        name: String.
    """

    def __init__(self, inputs, outputs, dtype, name):
        super().__init__(inputs=inputs, outputs=outputs, name=name)
        # A functional model ignores `dtype`, yet `compile` asks the model and
        # not its layers whether float16 needs loss scaling.
        self.dtype_policy = keras.dtype_policies.get(dtype)

    def adapt(self, data, steps=None):
        """Measures the corpus statistics that features are normalized by.

        To be called once before the first `fit`; see
        `LogMelSpectrogram.adapt` for the arguments.
        """
        self.get_layer("log_mel").adapt(data, steps)

    def with_vocabulary(self, alphabet):
        """Makes a model that knows other characters, to be fine-tuned.

        Weights and statistics are copied. The blank and the characters that
        both alphabets have keep their logits, to the bit. A new character
        begins with the mean of the old ones' weights and a lower bias: always
        below the best of them, so that no greedy text changes before training
        if none is dropped (`models/vocabulary.py` says why).

        Args:
            alphabet: String of the characters, each once, in any order.

        Returns:
            A model of its own, not compiled.

        Raises:
            ValueError: If `alphabet` is no string of unique characters.

        Example:

        >>> import keras_ds2
        >>> model = keras_ds2.load_pretrained("an4")
        >>> model.with_vocabulary(model.alphabet + "áéíñóúü").alphabet
        " 'abcdefghijklmnopqrstuvwxyzáéíñóúü"
        """
        return copy_with_alphabet(self, alphabet)

    # === Inference ===

    def transcribe(self, audio, batch_size=16, decoder=None):
        """Transcribes recordings, greedily or as a decoder finds best.

        Batches are made of recordings of similar length; neither the batch
        size nor the order changes a transcript. Each recording is held and
        recognized whole: for those of many minutes there is
        `keras_ds2.transcribe_file`.

        Args:
            audio: List of files (paths of any format that soundfile reads, at
                any rate) or of sample arrays (1-D float, in [-1, 1], at the
                model's sampling rate).
            batch_size: Integer. Recordings at a time. Defaults to `16`.
            decoder: `BeamSearchDecoder` of the model's alphabet, or `None`
                for `greedy_decode`. Defaults to `None`.

        Returns:
            List of strings, in the order of `audio`.

        Raises:
            ValueError: If a file cannot be read or holds less than one
                window, naming it; if the decoder is of other symbols.
        """
        self.check_decoder(decoder)
        return self._in_batches(
            audio,
            batch_size,
            lambda inputs: self.transcribe_batch(inputs, decoder),
        )

    def recognize(self, audio, batch_size=16, decoder=None):
        """Does as `transcribe`, and says when each word was said.

        Args:
            audio: As of `transcribe`.
            batch_size: As of `transcribe`. Defaults to `16`.
            decoder: As of `transcribe`. Defaults to `None`.

        Returns:
            List of `Hypothesis`, with the times of words and characters, in
            the order of `audio`.

        Raises:
            ValueError: As `transcribe` does.
        """
        self.check_decoder(decoder)
        return self._in_batches(
            audio,
            batch_size,
            lambda inputs: self.recognize_batch(inputs, decoder),
        )

    def recognize_batch(self, inputs, decoder=None):
        """Recognizes one padded batch, `{"audio", "audio_length"}`."""
        self.check_decoder(decoder)
        logits, logit_length = self.predict_logits(inputs)
        if decoder is not None:
            paths = decoder(logits, logit_length, self.frame_duration)
            return [best for best, *_ in paths]
        return greedy_hypotheses(
            logits,
            logit_length,
            self.alphabet,
            self.frame_duration,
            self.ctc.blank_index,
        )

    def transcribe_batch(self, inputs, decoder=None):
        """Transcribes one padded batch, `{"audio", "audio_length"}`."""
        self.check_decoder(decoder)
        logits, logit_length = self.predict_logits(inputs)
        return self.decode(logits, logit_length, decoder)

    def _in_batches(self, audio, batch_size, function):
        """Applies a function of a padded batch to recordings, in order."""
        if isinstance(audio, (str, os.PathLike, np.ndarray)):
            raise ValueError(
                "`audio` must be a list of recordings. Pass "
                "`[recording]` to transcribe one."
            )
        samples = [
            self.load_recording(item, f"Item {index} of `audio`")
            for index, item in enumerate(audio)
        ]
        order = np.argsort([len(item) for item in samples], kind="stable")
        results = [None] * len(samples)
        for start in range(0, len(order), batch_size):
            batch = order[start : start + batch_size]
            inputs = pad_samples([samples[i] for i in batch])
            for i, result in zip(batch, function(inputs), strict=True):
                results[i] = result
        return results

    def predict_logits(self, inputs):
        """Logits and their lengths, as arrays, for one padded batch."""
        outputs = self.predict_on_batch(inputs)
        # Under a distribution strategy every replica sees the whole batch.
        num_utterances = len(inputs["audio_length"])
        return (
            outputs["logits"][:num_utterances],
            outputs["logit_length"][:num_utterances],
        )

    def decode(self, logits, logit_length, decoder=None):
        """Transcribes logits, greedily or as a decoder finds best."""
        self.check_decoder(decoder)
        if decoder is not None:
            return [paths[0].text for paths in decoder(logits, logit_length)]
        labels = greedy_decode(logits, logit_length, self.ctc.blank_index)
        return self._tokenizer().detokenize(labels)

    def load_recording(self, audio, name="`audio`"):
        """Brings a recording to the samples that the model takes.

        Args:
            audio: File, or samples: 1-D float array in [-1, 1].
            name: String. What error messages call it.

        Returns:
            Float32 array of shape `(samples,)`.

        Raises:
            ValueError: If there is less than one window, or the file or the
                array is not usable.
        """
        log_mel = self.get_layer("log_mel")
        if isinstance(audio, (str, os.PathLike)):
            return load_audio(
                audio,
                log_mel.sampling_rate,
                min_duration=log_mel.sequence_length / log_mel.sampling_rate,
            )
        samples = np.asarray(audio)
        if (
            samples.ndim != 1
            or not np.issubdtype(samples.dtype, np.floating)
            or len(samples) < log_mel.sequence_length
            or not np.all(np.isfinite(samples))
        ):
            raise ValueError(
                f"{name} must be a 1-D array of at least "
                f"{log_mel.sequence_length} finite floating-point samples in "
                f"[-1, 1]. Received: shape={samples.shape}, "
                f"dtype={samples.dtype}."
            )
        return samples.astype("float32")

    def logit_length(self, audio_length):
        """Counts the output frames of `audio_length` samples (or of many)."""
        for layer in self.layers:
            if isinstance(layer, OutputLength):
                audio_length = layer.compute_length(audio_length)
        return audio_length

    @property
    def frame_duration(self):
        """Seconds from one output frame to the next."""
        stride = math.prod(
            layer.stride / layer.factor
            for layer in self.layers
            if isinstance(layer, OutputLength)
        )
        return stride / self.get_layer("log_mel").sampling_rate

    def check_decoder(self, decoder):
        """Raises a `ValueError` if a decoder is of other symbols.

        Args:
            decoder: `BeamSearchDecoder`, or `None`, which always fits.
        """
        if decoder is None:
            return
        for name, own in (
            ("alphabet", self.alphabet),
            ("blank_index", self.ctc.blank_index),
        ):
            if getattr(decoder, name, own) != own:
                raise ValueError(
                    f"`decoder` must have the model's `{name}`, {own!r}. "
                    f"Received: decoder.{name}={getattr(decoder, name)!r}."
                )

    # === Saving ===

    def load_weights(self, filepath, skip_mismatch=False, **kwargs):
        """As Keras's, but refuses a file of a model with more layers.

        Args:
            filepath: `.weights.h5` or `.keras` file.
            skip_mismatch: Boolean. Whether to load what fits. Defaults to
                `False`.
            **kwargs: Arguments of `keras.Model.load_weights`.

        Raises:
            ValueError: If the weights do not belong to this architecture.
        """
        if not skip_mismatch and str(filepath).endswith(".weights.h5"):
            refuse_deeper(filepath, len(self.weights))
        with warnings.catch_warnings():
            # Keras warns of parts that it looks for in vain; what is really
            # missing is an error.
            warnings.filterwarnings("ignore", "Skipping nested container")
            super().load_weights(
                filepath, skip_mismatch=skip_mismatch, **kwargs
            )

    def get_config(self):
        """The arguments of the subclass, by name."""
        classes = type(self).__mro__
        config = {
            name: getattr(self, name)
            for cls in classes[: classes.index(SpeechRecognizer)]
            for name, parameter in inspect.signature(cls).parameters.items()
            if parameter.kind is not parameter.VAR_KEYWORD
        }
        config["dtype"] = keras.dtype_policies.serialize(self.dtype_policy)
        return config
