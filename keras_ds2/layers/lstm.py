"""Keras's LSTM with a loop that is fast on a CPU."""

import keras
import tensorflow as tf
from keras import ops


@keras.saving.register_keras_serializable(package="keras_ds2")
class LSTM(keras.layers.LSTM):
    """Computes what `keras.layers.LSTM` computes, faster where it is slow.

    On a CPU, Keras projects the input inside its loop, step by step, and lets
    automatic differentiation record every step. Here the input is projected
    in one product for all frames, the loop has a gradient of its own that
    keeps gates and states alone, and the gradient of the recurrent weights is
    one product at the end. Under a 16-bit policy products are 16-bit, and the
    cell state, a sum over time, stays float32.

    On a GPU it is Keras's layer, with cuDNN. So it is for what the fast loop
    does not do: dropout inside the layer, other activations, `use_bias=False`,
    `unroll` and float64. Weights have Keras's names and shapes; files
    interchange.

    Args:
        units: Integer. Size of the output and of the state.
        **kwargs: Arguments of `keras.layers.LSTM`.

    Call arguments:
        sequences: Tensor of shape `(batch, frames, features)`.
        initial_state: Optional list of `h` and `c`, each `(batch, units)`.
        mask: Optional boolean tensor of shape `(batch, frames)`, `True` where
            real.

    Output shape:
        As of `keras.layers.LSTM`; masked frames repeat the last real output.

    Reference:
        Hochreiter and Schmidhuber, 1997, with the forget gate of Gers et al.,
        2000.

    Example:

    >>> import numpy as np
    >>> import keras_ds2
    >>> layer = keras_ds2.LSTM(4, return_sequences=True)
    >>> layer(np.zeros((2, 10, 3), "float32")).shape
    TensorShape([2, 10, 4])
    """

    def inner_loop(self, sequences, initial_state, mask, training=False):
        if not self._can_use_fast_loop():
            return super().inner_loop(
                sequences, initial_state, mask, training=training
            )
        mask = mask[0] if isinstance(mask, (list, tuple)) else mask
        if mask is None:
            mask = ops.ones(ops.shape(sequences)[:2], dtype="bool")
        sequences = tf.where(
            mask[:, :, None], sequences, tf.zeros((), sequences.dtype)
        )
        mask = tf.transpose(mask)[:, :, None]  # (frames, batch, 1)
        kernel, recurrent_kernel, bias = (
            tf.cast(weight, self.compute_dtype)
            for weight in (
                self.cell.kernel,
                self.cell.recurrent_kernel,
                self.cell.bias,
            )
        )
        projected = tf.matmul(sequences, kernel) + bias
        projected = tf.transpose(projected, [1, 0, 2])
        if self.go_backwards:
            mask, projected = mask[::-1], projected[::-1]
        h = tf.cast(initial_state[0], self.compute_dtype)
        c = tf.cast(initial_state[1], "float32")
        # Inference keeps no gates.
        run = _run if training else _forward
        h_all, c_all, *_ = run(projected, recurrent_kernel, h, c, mask)
        # As in Keras, an output before the first real frame is zero, whatever
        # the initial state.
        has_begun = tf.cumsum(tf.cast(mask, tf.int32)) > 0
        outputs = tf.where(has_begun, h_all, tf.zeros((), h_all.dtype))
        return (
            outputs[-1],
            tf.transpose(outputs, [1, 0, 2]),
            [h_all[-1], tf.cast(c_all[-1], self.compute_dtype)],
        )

    def _can_use_fast_loop(self):
        return (
            keras.backend.backend() == "tensorflow"
            and not tf.config.get_visible_devices("GPU")
            and self.activation is keras.activations.tanh
            and self.recurrent_activation is keras.activations.sigmoid
            and self.use_bias
            and not (self.dropout or self.recurrent_dropout or self.unroll)
            and not self.zero_output_for_mask
            and self.compute_dtype != "float64"
        )


def _forward(projected, recurrent_kernel, h_0, c_0, mask):
    """Runs over time, the first axis of `projected` and `mask`.

    Returns the states `h` and `c`, each `(frames, batch, units)`, and the
    gates, `(frames, batch, 4 * units)`.
    """
    dtype = projected.dtype
    frames = tf.shape(projected)[0]
    projected_array, mask_array = _unstack(projected), _unstack(mask)

    def step(t, h, c, h_array, c_array, gate_array):
        z = projected_array.read(t) + tf.matmul(h, recurrent_kernel)
        i, f, g, o = tf.split(tf.cast(z, tf.float32), 4, axis=1)
        i, f, g, o = tf.sigmoid(i), tf.sigmoid(f), tf.tanh(g), tf.sigmoid(o)
        is_real = mask_array.read(t)
        c_t = f * c + i * g
        h = tf.where(is_real, tf.cast(o * tf.tanh(c_t), dtype), h)
        c = tf.where(is_real, c_t, c)
        gates = tf.cast(tf.concat([i, f, g, o], axis=1), dtype)
        return (
            t + 1,
            h,
            c,
            h_array.write(t, h),
            c_array.write(t, c),
            gate_array.write(t, gates),
        )

    *_, h_array, c_array, gate_array = tf.while_loop(
        lambda t, *_: t < frames,
        step,
        (
            0,
            h_0,
            c_0,
            tf.TensorArray(dtype, frames, element_shape=h_0.shape),
            tf.TensorArray(tf.float32, frames, element_shape=c_0.shape),
            tf.TensorArray(dtype, frames, element_shape=projected.shape[1:]),
        ),
        maximum_iterations=frames,
    )
    return h_array.stack(), c_array.stack(), gate_array.stack()


@tf.custom_gradient
def _run(projected, recurrent_kernel, h_0, c_0, mask):
    """`_forward` without the gates, with a gradient of its own."""
    h_all, c_all, gates_all = _forward(
        projected, recurrent_kernel, h_0, c_0, mask
    )
    dtype = projected.dtype

    def gradient(d_h_all, d_c_all):
        frames = tf.shape(projected)[0]
        # Unstacked again: a SavedModel cannot hold a gradient that captures
        # a tensor array.
        mask_array = _unstack(mask)
        d_h_array, d_c_array = _unstack(d_h_all), _unstack(d_c_all)
        gate_array, c_array = _unstack(gates_all), _unstack(c_all)
        c_before = _unstack(tf.concat([c_0[None], c_all[:-1]], axis=0))

        def step_back(t, d_h, d_c, d_z_array):
            i, f, g, o = tf.split(
                tf.cast(gate_array.read(t), tf.float32), 4, axis=1
            )
            is_real = mask_array.read(t)
            d_h += tf.cast(d_h_array.read(t), tf.float32)
            tanh_c = tf.tanh(c_array.read(t))
            d_c += d_c_array.read(t)
            d_c_t = d_c + d_h * o * (1.0 - tanh_c * tanh_c)
            d_z = tf.concat(
                [
                    d_c_t * g * i * (1.0 - i),
                    d_c_t * c_before.read(t) * f * (1.0 - f),
                    d_c_t * i * (1.0 - g * g),
                    d_h * tanh_c * o * (1.0 - o),
                ],
                axis=1,
            )
            d_z = tf.cast(tf.where(is_real, d_z, 0.0), dtype)
            d_h_before = tf.matmul(d_z, recurrent_kernel, transpose_b=True)
            d_h = tf.where(is_real, tf.cast(d_h_before, tf.float32), d_h)
            d_c = tf.where(is_real, d_c_t * f, d_c)
            return t - 1, d_h, d_c, d_z_array.write(t, d_z)

        _, d_h_0, d_c_0, d_z_array = tf.while_loop(
            lambda t, *_: t >= 0,
            step_back,
            (
                frames - 1,
                tf.zeros_like(h_0, tf.float32),
                tf.zeros_like(c_0),
                tf.TensorArray(
                    dtype, frames, element_shape=projected.shape[1:]
                ),
            ),
            maximum_iterations=frames,
        )
        d_projected = d_z_array.stack()
        h_before = tf.concat([h_0[None], h_all[:-1]], axis=0)
        units = recurrent_kernel.shape[0]
        d_recurrent_kernel = tf.matmul(
            tf.reshape(h_before, [-1, units]),
            tf.reshape(d_projected, [-1, 4 * units]),
            transpose_a=True,
        )
        return (
            d_projected,
            d_recurrent_kernel,
            tf.cast(d_h_0, dtype),
            d_c_0,
            None,
        )

    return (h_all, c_all), gradient


def _unstack(tensor):
    array = tf.TensorArray(
        tensor.dtype, tf.shape(tensor)[0], clear_after_read=False
    )
    return array.unstack(tensor)
