"""Keras's LSTM with a loop that is fast on a CPU."""

import keras
import tensorflow as tf

from keras_ds2.layers.recurrence import Recurrence


@keras.saving.register_keras_serializable(package="keras_ds2")
class LSTM(Recurrence, keras.layers.LSTM):
    """Computes what `keras.layers.LSTM` computes, faster where it is slow.

    On a CPU, Keras projects the input inside its loop, step by step, and lets
    automatic differentiation record every step. Here the input is projected
    in one product for all frames, the loop has a gradient of its own that
    keeps states and what they contributed, and the gradient of the recurrent
    weights is one product at the end. Under a 16-bit policy products are
    16-bit, and the cell state, a sum over time, stays float32.

    On a GPU it is Keras's layer, with cuDNN. So it is for what the fast loop
    does not do: dropout inside the layer, other activations, `use_bias=False`,
    `unroll` and float64. Weights have Keras's names and shapes; files
    interchange.

    cuDNN needs right-padded masks without a fully masked row, and gives zeros
    in masked frames; the fast loop takes any mask.

    Args:
        units: Integer. Size of the output and of the state.
        normalize_projection: Boolean. Whether the projected input is
            normalized by a `SequenceBatchNormalization`, as in the paper,
            `f(BN(W x) + U h)`; masks must then be right-padded. Rules out
            cuDNN. Defaults to `False`.
        **kwargs: Arguments of `keras.layers.LSTM`.

    Call arguments:
        sequences: Tensor of shape `(batch, frames, features)`.
        initial_state: Optional list of `h` and `c`, each `(batch, units)`.
        mask: Optional boolean tensor of shape `(batch, frames)`, `True` where
            real.

    Output shape:
        As of `keras.layers.LSTM`; masked frames repeat the last real output,
        or are zero with cuDNN.

    Raises:
        ValueError: If `normalize_projection` is asked for together with what
            the fast loop does not do.

    Reference:
        Hochreiter and Schmidhuber, 1997, with the forget gate of Gers et al.,
        2000; Amodei et al., 2016 (arXiv:1512.02595), section 3.2, for the
        normalization.

    Example:

    >>> import numpy as np
    >>> import keras_ds2
    >>> layer = keras_ds2.LSTM(4, return_sequences=True)
    >>> layer(np.zeros((2, 10, 3), "float32")).shape
    TensorShape([2, 10, 4])
    """

    _state_is_sum = (False, True)

    def _has_loop(self):
        return (
            super()._has_loop()
            and self.activation is keras.activations.tanh
            and self.recurrent_activation is keras.activations.sigmoid
        )

    def _step(self, projected, recurrent, states):
        i, f, g, o = _gates(projected, recurrent)
        c = f * states[1] + i * g
        return [tf.cast(o * tf.tanh(c), projected.dtype), c]

    def _step_back(self, projected, recurrent, before, after, d_states):
        i, f, g, o = _gates(projected, recurrent)
        d_h, d_c = d_states
        tanh_c = tf.tanh(after[1])
        d_c += d_h * o * (1.0 - tanh_c * tanh_c)
        d_z = tf.concat(
            [
                d_c * g * i * (1.0 - i),
                d_c * before[1] * f * (1.0 - f),
                d_c * i * (1.0 - g * g),
                d_h * tanh_c * o * (1.0 - o),
            ],
            axis=1,
        )
        return [d_z], [0.0, d_c * f]


def _gates(projected, recurrent):
    z = tf.cast(projected + recurrent, tf.float32)
    i, f, g, o = tf.split(z, 4, axis=1)
    return tf.sigmoid(i), tf.sigmoid(f), tf.tanh(g), tf.sigmoid(o)
