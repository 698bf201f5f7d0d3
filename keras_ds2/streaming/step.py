"""A chunk of samples and a state in, logits and the next state out."""

import math

import keras
import tensorflow as tf

from keras_ds2.layers.bidirectional_simple_rnn import BidirectionalSimpleRNN
from keras_ds2.layers.moving_mean_normalization import (
    MovingMeanNormalization,
)
from keras_ds2.layers.output_length import OutputLength
from keras_ds2.layers.sequence_batch_normalization import (
    SequenceBatchNormalization,
)
from keras_ds2.layers.sequence_mask import SequenceMask
from keras_ds2.layers.spec_augment import SpecAugment
from keras_ds2.layers.split_frames import SplitFrames
from keras_ds2.layers.streaming import SlidingWindow, StreamedRecurrence

# Beside the path from samples to logits: lengths are counted here anew.
_BESIDE = (keras.layers.InputLayer, OutputLength, SequenceMask)
# Each frame by itself, at least in inference.
_FRAME_BY_FRAME = (
    SequenceBatchNormalization,
    SpecAugment,
    keras.layers.Activation,
    keras.layers.Dense,
    keras.layers.Dropout,
    keras.layers.Reshape,
)
_STREAMED = (
    MovingMeanNormalization,
    SlidingWindow,
    SplitFrames,
    StreamedRecurrence,
)
_BACKWARD = (keras.layers.Bidirectional, BidirectionalSimpleRNN)


class StreamingStep:
    """Runs a model on many streams, one chunk of each at a time.

    It is made of the model's own layers, in their order, each with a state
    that it hands to its next chunk: the last samples, the last frames before
    a convolution, the states of recurrent layers, frames that wait for their
    future. Logits are those of the whole utterance at once, up to rounding.

    State goes in and comes out; nothing is kept inside, so one object serves
    any number of streams and threads. It is traced once, for all batch sizes.

    A row's stream goes on with a full chunk and ends with one that is not full,
    of which there may be none at all. As a logit depends on samples ahead, the
    last logits come with some more chunks of no samples.

    Args:
        model: Unidirectional model, as `DeepSpeech2()`.
        chunk_duration: Float, seconds. Samples that are taken at a time; a
            multiple of the longest frame of any layer, which mostly is an
            output frame. Defaults to `None`: as many of these as fit into
            0.1 s, at least one.

    Call arguments:
        state: Dictionary of `initial_state` or of the last call; tensors or
            arrays, all with the streams as their first axis.
        samples: Float32 array of shape `(batch, chunk_size)`, in [-1, 1].
        num_samples: Integer array of shape `(batch,)`: how many of them are
            real. Less than `chunk_size` ends a stream; what comes after its
            end changes nothing.

    Returns:
        When called, `(logits, is_real, state)`: float32 of shape `(batch,
        frames, symbols)`, where `frames` is fixed; boolean of shape `(batch,
        frames)`, `False` for frames before the first and after the last of a
        stream; the next state.

    Raises:
        ValueError: If the model has a layer that cannot stream, naming it, or
            the chunk is no multiple of the longest frame.

    Example:

    >>> import numpy as np
    >>> import keras_ds2
    >>> model = keras_ds2.DeepSpeech2(num_rnn_layers=1, rnn_units=8)
    >>> step = keras_ds2.StreamingStep(model, chunk_duration=0.4)
    >>> audio = np.zeros((2, step.chunk_size), "float32")
    >>> state = step.initial_state(batch_size=2)
    >>> logits, is_real, state = step(state, audio, [6400, 100])
    >>> logits.shape, is_real.numpy().sum(axis=1)
    (TensorShape([2, 20, 31]), array([8, 0]))
    >>> logits, is_real, state = step(state, audio, [0, 0])
    >>> is_real.numpy().sum(axis=1), model.logit_length(6400)
    (array([11,  0]), 19)
    """

    def __init__(self, model, chunk_duration=None):
        self.model = model
        self.layers = layers_of_path(model)
        for layer in self.layers:
            _check(layer)
        self.sampling_rate = model.get_layer("log_mel").sampling_rate
        # At every layer a chunk is a whole number of frames.
        unit = math.lcm(*self._frame_sizes())
        if chunk_duration is None:
            size = max(self.sampling_rate // 10 // unit, 1) * unit
        else:
            size = chunk_duration * self.sampling_rate
        self.chunk_size = round(size) if math.isfinite(size) else 0
        if self.chunk_size < 1 or self.chunk_size % unit:
            raise ValueError(
                "`chunk_duration` must be a multiple of the longest frame, "
                f"{unit / self.sampling_rate:g} s. Received: "
                f"chunk_duration={chunk_duration}."
            )
        self.state_shapes = self._initial_shapes()
        # From this place on, no layer sees a frame before the first.
        self.settled_size = self.chunk_size * math.ceil(
            self._lookahead_size() / self.chunk_size
        )
        self._function = tf.function(
            self._run,
            input_signature=[
                {
                    name: tf.TensorSpec((None, *shape), dtype, name)
                    for name, (shape, dtype) in self.state_shapes.items()
                },
                tf.TensorSpec((None, self.chunk_size), "float32", "samples"),
                tf.TensorSpec((None,), "int32", "num_samples"),
            ],
            autograph=False,
        )

    @property
    def lookahead(self):
        """Seconds from the first sample of a frame to the last it depends on.

        The sum of what each layer sees ahead: `(after + 1) / rate` of the
        log-mel window, and `after * stride / rate` of each further layer,
        where `stride` is the number of samples from one of its inputs to the
        next.
        """
        return self._lookahead_size() / self.sampling_rate

    @property
    def delay(self):
        """Output frames that the logits are behind the samples.

        After `n` samples, a multiple of a chunk, those that fit into `n`, less
        `delay`, are known.
        """
        return -self._first_outputs()[-1]

    def initial_state(self, batch_size=1):
        """Returns the state of streams that begin.

        Args:
            batch_size: Integer. Streams. Defaults to `1`.

        Returns:
            Dictionary of tensors, each of shape `(batch_size, ...)`.
        """
        return {
            name: tf.zeros((batch_size, *shape), dtype)
            for name, (shape, dtype) in self.state_shapes.items()
        }

    def __call__(self, state, samples, num_samples):
        return self._function(
            dict(state),
            tf.convert_to_tensor(samples, "float32"),
            tf.convert_to_tensor(num_samples, "int32"),
        )

    def _run(self, state, samples, num_samples):
        # Samples before this chunk, and all that the stream has had; they
        # differ once it has ended.
        position, length = state["position"], state["length"]
        length += tf.where(length == position, num_samples, 0)
        x, start, count = samples, position, length
        states: dict[str, tf.Tensor] = {}
        for layer in self.layers:
            if not _is_streamed(layer):
                x = layer(x)
                continue
            prefix = layer.name + "."
            if layer.autocast:
                x = keras.ops.cast(x, layer.compute_dtype)
            names = [
                name for name in self.state_shapes if name.startswith(prefix)
            ]
            x, values = layer.stream(
                x, _is_real(x, start, count), [state[name] for name in names]
            )
            states.update(zip(names, values, strict=True))
            start = layer.first_output(start)
            count = layer.compute_length(count)
        # Whole chunks may be forgotten, lest the numbers grow without end.
        position += self.chunk_size
        old = tf.where(position > self.settled_size, self.chunk_size, 0)
        states["position"] = position - old
        states["length"] = tf.maximum(length - old, 0)
        return x, _is_real(x, start, count), states

    def _first_outputs(self):
        """The first frame of the first chunk before each layer and after."""
        starts = [0]
        for layer in self.layers:
            start = starts[-1]
            starts.append(
                layer.first_output(start) if _is_streamed(layer) else start
            )
        return starts

    def _initial_shapes(self):
        """Shape, without the batch, and dtype of all that the state holds."""
        shapes = {"position": ((), "int32"), "length": ((), "int32")}
        shape = (None, None)
        for layer, start in zip(
            self.layers, self._first_outputs(), strict=False
        ):
            if _is_streamed(layer):
                for i, value in enumerate(
                    layer.initial_state(shape[2:], start, batch_size=1)
                ):
                    shapes[f"{layer.name}.{i}"] = (value.shape[1:], "float32")
            shape = layer.compute_output_shape(shape)
        return shapes

    def _frame_sizes(self):
        """Samples of a frame before each layer, and after the last."""
        sizes = [1]
        for layer in self.layers:
            size = sizes[-1]
            if isinstance(layer, SlidingWindow):
                size *= layer.reach()[-1]
            elif isinstance(layer, SplitFrames):
                size //= layer.factor
            sizes.append(size)
        return sizes

    def _lookahead_size(self):
        return 1 + sum(
            layer.reach()[1] * size
            for layer, size in zip(
                self.layers, self._frame_sizes(), strict=False
            )
            if isinstance(layer, SlidingWindow)
        )


def layers_of_path(model):
    """The layers from samples to logits, in their order."""
    return [layer for layer in model.layers if not isinstance(layer, _BESIDE)]


def _is_streamed(layer):
    return isinstance(layer, _STREAMED)


def _check(layer):
    if isinstance(layer, _BACKWARD) or getattr(layer, "go_backwards", False):
        raise ValueError(
            f"Layer '{layer.name}' also runs from the end of the utterance, so "
            "that the first logit would have to wait for the last sample. "
            "Only unidirectional models can stream, as "
            "`DeepSpeech2(bidirectional=False)`."
        )
    if not _is_streamed(layer) and not isinstance(layer, _FRAME_BY_FRAME):
        raise ValueError(
            f"Layer '{layer.name}', a {type(layer).__name__}, cannot stream: "
            "it is not known to treat each frame by itself."
        )


def _is_real(x, start, count):
    index = start[:, None] + tf.range(x.shape[1])
    return (index >= 0) & (index < count[:, None])
