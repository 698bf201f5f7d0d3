"""How layers run on a stream: chunk after chunk, with a state between.

A chunk is a fixed number of frames, and frames are numbered from 0. A layer
that looks ahead lags behind: the first frames of its first chunk have numbers
below 0. They are not real, nor are those beyond the end of an utterance, and
count as zero, as they do offline.

What a layer has to offer:

- `first_output(start)`: the number of the first frame that comes out of a
  chunk whose first frame is `start`, for integers and tensors.
- `initial_state(features, start, batch_size)`: list of float32 tensors, each
  `(batch, ...)`, before the first chunk. `features` is the shape of one frame,
  `start` the number of the first.
- `stream(inputs, is_real, state)`: outputs of one chunk, and the next state.
  `inputs` are of the layer's compute dtype, if it casts at all; `is_real` is
  boolean, `(batch, frames)`.
- `compute_length(num_frames)`: as everywhere.
"""

from typing import Any

import tensorflow as tf
from keras import ops

# Why a `Recurrence` without its loop can neither stream nor be exported.
LEFT_TO_KERAS = (
    "it is left to Keras's loop, because of dropout inside, another "
    "activation, `use_bias=False`, `unroll`, `reset_after=False` or float64"
)


class SlidingWindow:
    """Streams a layer whose outputs each see a window of its inputs.

    To be named before the Keras layer among the base classes. Where the layer
    pads an utterance with zeros in time, a stream has what came before; so
    `call` must leave its padding out if told `pad_time=False`.

    A subclass has a `reach()`, which returns `(before, after, stride)`: output
    `t` sees the inputs from `t * stride - before` to `t * stride + after`, both
    included.
    """

    reach: Any

    def compute_length(self, num_frames):
        return num_frames

    def first_output(self, start):
        before, after, stride = self.reach()
        first = -((after - start) // stride)
        if before + after + 1 < stride:
            # It leaves frames out, and may do so where the chunk begins.
            first = ops.minimum(first, (start + before) // stride)
        return first if ops.is_tensor(start) else int(first)

    def initial_state(self, features, start, batch_size):
        before, _, stride = self.reach()
        num_frames = start + before - self.first_output(start) * stride
        return [ops.zeros((batch_size, num_frames, *features))]

    def stream(self, inputs, is_real, state):
        num_outputs = inputs.shape[1] // self.reach()[-1]
        is_real = ops.reshape(
            is_real, ops.shape(is_real) + (1,) * (len(inputs.shape) - 2)
        )
        inputs = ops.where(is_real, inputs, ops.zeros((), inputs.dtype))
        past = ops.cast(state[0], inputs.dtype)
        inputs = ops.concatenate([past, inputs], axis=1)
        rest = inputs[:, inputs.shape[1] - past.shape[1] :]
        outputs = self._over_whole_windows(inputs)[:, :num_outputs]
        return outputs, [ops.cast(rest, "float32")]

    def _over_whole_windows(self, inputs):
        # Through the door of the layer, which casts weights.
        return self(inputs, pad_time=False)  # type: ignore[operator]


class StreamedRecurrence:
    """Streams a `Recurrence`, whose parts it uses."""

    name: str
    units: int
    cell: Any
    _state_is_sum: tuple[bool, ...]
    _has_loop: Any
    _biases: Any
    _prepare: Any
    _advance: Any

    def compute_length(self, num_frames):
        return num_frames

    def first_output(self, start):
        return start

    def initial_state(self, features, start, batch_size):
        if not self._has_loop():
            raise ValueError(
                f"Layer '{self.name}' cannot stream: {LEFT_TO_KERAS}."
            )
        return [ops.zeros((batch_size, self.units)) for _ in self._state_is_sum]

    def stream(self, inputs, is_real, state):
        projected, states, mask = self._prepare(inputs, state, is_real, False)
        kernel, bias = (
            tf.cast(weight, projected.dtype)
            for weight in (self.cell.recurrent_kernel, self._biases()[1])
        )
        outputs = []
        # As fast as TensorFlow's loop, for the few frames of a chunk, and
        # without its lists of tensors, which not every runtime knows.
        for t in range(inputs.shape[1]):
            _, states = self._advance(
                projected[t], mask[t], states, kernel, bias
            )
            outputs.append(ops.cast(states[0], projected.dtype))
        states = [ops.cast(state, "float32") for state in states]
        return tf.stack(outputs, axis=1), states
