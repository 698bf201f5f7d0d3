"""Keras's simple recurrent layer with a loop that is fast on a CPU."""

import keras
import tensorflow as tf

from keras_ds2.layers.clipped_relu import MAX_VALUE, clipped_relu
from keras_ds2.layers.recurrence import Recurrence


@keras.saving.register_keras_serializable(package="keras_ds2")
class SimpleRNN(Recurrence, keras.layers.SimpleRNN):
    """Computes what `keras.layers.SimpleRNN` computes, faster on a CPU.

    As `keras_ds2.LSTM` does for the LSTM, for the activations `"tanh"` and
    `keras_ds2.clipped_relu`; everything else, and a GPU, is left to Keras's
    layer. Weights have Keras's names and shapes; files interchange.

    Args:
        units: Integer. Size of the output and of the state.
        normalize_projection: Boolean. Whether the projected input is
            normalized by a `SequenceBatchNormalization`, as in the paper,
            `f(BN(W x) + U h)`; masks must then be right-padded. Defaults to
            `False`.
        **kwargs: Arguments of `keras.layers.SimpleRNN`.

    Call arguments:
        sequences: Tensor of shape `(batch, frames, features)`.
        initial_state: Optional tensor of shape `(batch, units)`.
        mask: Optional boolean tensor of shape `(batch, frames)`, `True` where
            real.

    Output shape:
        As of `keras.layers.SimpleRNN`; masked frames repeat the last real
        output, with and without a GPU.

    Raises:
        ValueError: If `normalize_projection` is asked for together with what
            the fast loop does not do.

    Reference:
        Amodei et al., 2016 (arXiv:1512.02595), sections 3.1 and 3.2.

    Example:

    >>> import numpy as np
    >>> import keras_ds2
    >>> layer = keras_ds2.SimpleRNN(
    ...     4,
    ...     activation=keras_ds2.clipped_relu,
    ...     normalize_projection=True,
    ...     return_sequences=True,
    ... )
    >>> layer(np.zeros((2, 10, 3), "float32")).shape
    TensorShape([2, 10, 4])
    """

    def _has_loop(self):
        return super()._has_loop() and self.activation in (
            keras.activations.tanh,
            clipped_relu,
        )

    def _step(self, projected, recurrent, states):
        return [self.activation(projected + recurrent)]

    def _step_back(self, projected, recurrent, before, after, d_states):
        h = tf.cast(after[0], tf.float32)
        if self.activation is clipped_relu:
            # Where it is neither 0 nor clipped, it is the identity.
            is_linear = tf.logical_and(h > 0.0, h < MAX_VALUE)
            d_z = tf.where(is_linear, d_states[0], 0.0)
        else:
            d_z = d_states[0] * (1.0 - h * h)
        return [d_z], [0.0]
