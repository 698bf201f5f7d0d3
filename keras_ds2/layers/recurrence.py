"""What our recurrent layers share: the projection, the loop, its gradient."""

import keras
import tensorflow as tf
from keras import ops

from keras_ds2.layers.sequence_batch_normalization import (
    SequenceBatchNormalization,
    sum_rows,
)
from keras_ds2.layers.streaming import StreamedRecurrence


class Recurrence(StreamedRecurrence, keras.layers.RNN):
    """Gives a recurrent layer of Keras a loop that is fast on a CPU.

    To be named before the Keras layer among the base classes. The input is
    projected in one product for all frames, and the loop adds what the state
    contributes. It keeps the states and these contributions, from which its
    gradient computes the gates again; the gradient of the recurrent weights is
    one product at the end.

    A subclass says what one frame does, in `_step` and `_step_back`.
    """

    # Whether each state is a sum over time, to be kept in float32.
    _state_is_sum: tuple[bool, ...] = (False,)

    def __init__(self, units, *, normalize_projection=False, **kwargs):
        super().__init__(units, **kwargs)
        self.normalize_projection = normalize_projection
        self.projection_norm: SequenceBatchNormalization | None = None
        if normalize_projection:
            if not self._has_loop():
                raise ValueError(
                    "`normalize_projection=True` needs the layer's own loop, "
                    "which knows neither dropout inside, other activations, "
                    "`use_bias=False`, `unroll`, `reset_after=False` nor "
                    "float64, and TensorFlow only."
                )
            # No center: the recurrent layer has a bias.
            self.projection_norm = SequenceBatchNormalization(
                center=False, dtype=self.dtype_policy, name="projection_norm"
            )

    def build(self, sequences_shape, initial_state_shape=None):
        super().build(sequences_shape, initial_state_shape)
        if self.projection_norm is not None:
            columns = self.cell.kernel.shape[1]
            self.projection_norm.build((*sequences_shape[:2], columns))

    def get_config(self):
        config = super().get_config()
        config["normalize_projection"] = self.normalize_projection
        return config

    def inner_loop(self, sequences, initial_state, mask, training=False):
        if not self._uses_loop():
            return super().inner_loop(
                sequences, initial_state, mask, training=training
            )
        projected, states, mask = self._prepare(
            sequences, initial_state, mask, training
        )
        if self.go_backwards:
            mask, projected = mask[::-1], projected[::-1]
        h_all, *states = self._run(
            projected, states, mask, self.cell.recurrent_kernel
        )
        # As in Keras, an output before the first real frame is zero, whatever
        # the initial state; inside `Bidirectional`, that of every masked one.
        if not self.zero_output_for_mask:
            mask = tf.cumsum(tf.cast(mask, tf.int32)) > 0
        outputs = tf.where(mask, h_all, tf.zeros((), h_all.dtype))
        return outputs[-1], tf.transpose(outputs, [1, 0, 2]), states

    def _uses_loop(self):
        on_gpu = tf.config.get_visible_devices("GPU")
        return self._has_loop() and (self.normalize_projection or not on_gpu)

    def _has_loop(self):
        return (
            keras.backend.backend() == "tensorflow"
            and self.use_bias
            and not (self.dropout or self.recurrent_dropout or self.unroll)
            and self.compute_dtype != "float64"
        )

    def _biases(self):
        """The bias of the projection, if there is one, and of the product."""
        return None, self.cell.bias

    def _prepare(self, sequences, initial_state, mask, training):
        """Returns what `_run` takes: time is the first axis."""
        mask = mask[0] if isinstance(mask, (list, tuple)) else mask
        if mask is None:
            mask = ops.ones(ops.shape(sequences)[:2], dtype="bool")
        projected = self._project(sequences, mask, training)
        states = [
            tf.cast(state, "float32" if is_sum else self.compute_dtype)
            for state, is_sum in zip(
                initial_state, self._state_is_sum, strict=True
            )
        ]
        return projected, states, tf.transpose(mask)[:, :, None]

    def _project(self, sequences, mask, training):
        """Returns `(frames, batch, columns)`."""
        sequences = tf.where(
            mask[:, :, None], sequences, tf.zeros((), sequences.dtype)
        )
        kernel = tf.cast(self.cell.kernel, self.compute_dtype)
        shape = tf.shape(sequences)
        # As one matrix: a product per row of the batch would have as many
        # gradients of the kernel, to be added up.
        projected = tf.matmul(
            tf.reshape(sequences, [-1, sequences.shape[-1]]), kernel
        )
        # Not -1 for the columns, which a batch without rows leaves open.
        projected = tf.reshape(projected, [shape[0], shape[1], kernel.shape[1]])
        if self.projection_norm is not None:
            projected = self.projection_norm(
                projected,
                # A stream begins with frames that are not real.
                ops.sum(ops.cast(mask, "int32"), axis=1) if training else None,
                training=training,
            )
        bias, _ = self._biases()
        if bias is not None:
            projected += tf.cast(bias, self.compute_dtype)
        return tf.transpose(projected, [1, 0, 2])

    def _step(self, projected, recurrent, states):
        """Advances one frame, and returns the new states.

        `projected` and `recurrent` are the contributions of input and state,
        `(batch, columns)`; `states` begins with `h`, `(batch, units)`.
        """
        raise NotImplementedError

    def _step_back(self, projected, recurrent, before, after, d_states):
        """Takes the gradients of the states back by one frame, in float32.

        `before` and `after` are the states around the frame, `d_states` the
        gradients of the latter. Returns a list of the gradients of `recurrent`
        and, only where it is another, of `projected`; and the gradients of
        `before`, without what went through `recurrent`.
        """
        raise NotImplementedError

    def _advance(self, projected, mask, states, kernel, bias):
        """Returns what the states contributed to a frame, and the next ones."""
        h = tf.cast(states[0], projected.dtype)
        recurrent = tf.nn.bias_add(tf.matmul(h, kernel), bias)
        after = self._step(projected, recurrent, states)
        pairs = zip(after, states, strict=True)
        return recurrent, [tf.where(mask, new, old) for new, old in pairs]

    def _run(self, projected, states, mask, recurrent_kernel):
        """Runs over time, the first axis of `projected` and `mask`.

        `mask` is `(frames, batch, 1)`. Returns `h` of every frame, `(frames,
        batch, units)`, and the last states.
        """
        dtype = projected.dtype

        @tf.custom_gradient
        def run(projected, kernel, bias, *states):
            recurrent, *results = self._forward(
                projected, kernel, bias, states, mask
            )

            def gradient(d_h_all, *d_states):
                h_before = tf.cast(results[0][:-1], dtype)
                h_before = tf.reshape(h_before, [-1, self.units])
                d_all, d_initial = self._backward(
                    projected,
                    recurrent,
                    kernel,
                    results,
                    mask,
                    d_h_all,
                    d_states,
                )
                d_recurrent = tf.reshape(d_all[0], [-1, kernel.shape[1]])
                d_initial = [
                    tf.cast(d_state, state.dtype)
                    for d_state, state in zip(d_initial, states, strict=True)
                ]
                return (
                    d_all[-1],
                    tf.matmul(h_before, d_recurrent, transpose_a=True),
                    sum_rows(d_recurrent),
                    *d_initial,
                )

            h_all = tf.cast(results[0][1:], dtype)
            return (h_all, *(result[-1] for result in results)), gradient

        _, bias = self._biases()
        return run(
            projected,
            tf.cast(recurrent_kernel, dtype),
            tf.cast(bias, dtype),
            *states,
        )

    def _forward(self, projected, kernel, bias, states, mask):
        """Returns what the states contributed, and each state in all frames.

        The initial states come first, so there is one more of each. Frames are
        read by slicing the first axis, which copies nothing, as unstacking
        would.
        """
        frames = tf.shape(projected)[0]
        arrays = [
            tf.TensorArray(
                state.dtype, frames + 1, element_shape=state.shape
            ).write(0, state)
            for state in states
        ]
        arrays.insert(
            0,
            tf.TensorArray(
                projected.dtype, frames, element_shape=projected.shape[1:]
            ),
        )

        def step(t, states, arrays):
            recurrent, states = self._advance(
                projected[t], mask[t], states, kernel, bias
            )
            return (
                t + 1,
                states,
                [
                    arrays[0].write(t, recurrent),
                    *_write(arrays[1:], t + 1, states),
                ],
            )

        *_, arrays = tf.while_loop(
            lambda t, *_: t < frames,
            step,
            (0, list(states), arrays),
            maximum_iterations=frames,
        )
        return [array.stack() for array in arrays]

    def _backward(
        self, projected, recurrent, kernel, results, mask, d_h_all, d_states
    ):
        """Returns the gradients of all products, and of the initial states."""
        dtype = kernel.dtype
        frames = tf.shape(projected)[0]
        num_arrays = 1 if self._biases()[0] is None else 2
        arrays = [
            tf.TensorArray(dtype, frames, element_shape=projected.shape[1:])
            for _ in range(num_arrays)
        ]
        # Once, and not in every product, which takes six times as long.
        kernel = tf.transpose(kernel)

        def step(t, d_states, arrays):
            d_h, *d_others = d_states
            d_states = [d_h + tf.cast(d_h_all[t], "float32"), *d_others]
            d_products, d_before = self._step_back(
                projected[t],
                recurrent[t],
                [result[t] for result in results],
                [result[t + 1] for result in results],
                d_states,
            )
            d_products = [
                tf.cast(tf.where(mask[t], d, 0.0), dtype) for d in d_products
            ]
            d_h = tf.matmul(d_products[0], kernel)
            d_before[0] += tf.cast(d_h, "float32")
            d_states = [
                tf.where(mask[t], before, after)
                for before, after in zip(d_before, d_states, strict=True)
            ]
            return t - 1, d_states, _write(arrays, t, d_products)

        d_states = [tf.cast(d_state, "float32") for d_state in d_states]
        _, d_states, arrays = tf.while_loop(
            lambda t, *_: t >= 0,
            step,
            (frames - 1, d_states, arrays),
            maximum_iterations=frames,
        )
        return [array.stack() for array in arrays], d_states


def _write(arrays, t, values):
    return [
        array.write(t, value)
        for array, value in zip(arrays, values, strict=True)
    ]
