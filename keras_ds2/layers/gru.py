"""Keras's GRU with a loop that is fast on a CPU."""

import keras
import tensorflow as tf

from keras_ds2.layers.recurrence import Recurrence


@keras.saving.register_keras_serializable(package="keras_ds2")
class GRU(Recurrence, keras.layers.GRU):
    """Computes what `keras.layers.GRU` computes, faster where it is slow.

    As `keras_ds2.LSTM` does for the LSTM: on a CPU the input is projected in
    one product for all frames, and the loop has a gradient of its own. Under
    a 16-bit policy products are 16-bit, and the state, a moving average over
    time, stays float32.

    On a GPU it is Keras's layer, with cuDNN. So it is for what the fast loop
    does not do: dropout inside the layer, other activations, `use_bias=False`,
    `reset_after=False`, `unroll` and float64. Weights have Keras's names and
    shapes; files interchange.

    cuDNN needs right-padded masks without a fully masked row, and gives zeros
    in masked frames; the fast loop takes any mask.

    Args:
        units: Integer. Size of the output and of the state.
        normalize_projection: Boolean. Whether the projected input is
            normalized by a `SequenceBatchNormalization`, as in the paper,
            `f(BN(W x) + U h)`; masks must then be right-padded. Rules out
            cuDNN. Defaults to `False`.
        **kwargs: Arguments of `keras.layers.GRU`.

    Call arguments:
        sequences: Tensor of shape `(batch, frames, features)`.
        initial_state: Optional tensor of shape `(batch, units)`.
        mask: Optional boolean tensor of shape `(batch, frames)`, `True` where
            real.

    Output shape:
        As of `keras.layers.GRU`; masked frames repeat the last real output,
        or are zero with cuDNN.

    Raises:
        ValueError: If `normalize_projection` is asked for together with what
            the fast loop does not do.

    Reference:
        Cho et al., 2014 (arXiv:1406.1078), with the reset gate after the
        product, as cuDNN has it; Amodei et al., 2016 (arXiv:1512.02595),
        section 3.2, for the normalization.

    Example:

    >>> import numpy as np
    >>> import keras_ds2
    >>> layer = keras_ds2.GRU(4, return_sequences=True)
    >>> layer(np.zeros((2, 10, 3), "float32")).shape
    TensorShape([2, 10, 4])
    """

    _state_is_sum = (True,)

    def _has_loop(self):
        return (
            super()._has_loop()
            and self.reset_after
            and self.activation is keras.activations.tanh
            and self.recurrent_activation is keras.activations.sigmoid
        )

    def _biases(self):
        return self.cell.bias[0], self.cell.bias[1]

    def _step(self, projected, recurrent, states):
        z, _, candidate, _ = self._gates(projected, recurrent)
        return [candidate + z * (states[0] - candidate)]

    def _step_back(self, projected, recurrent, before, after, d_states):
        z, r, candidate, y = self._gates(projected, recurrent)
        (d_h,) = d_states
        d_candidate = d_h * (1.0 - z) * (1.0 - candidate * candidate)
        d_z = d_h * (before[0] - candidate) * z * (1.0 - z)
        d_r = d_candidate * y * r * (1.0 - r)
        return (
            [
                tf.concat([d_z, d_r, d_candidate * r], axis=1),
                tf.concat([d_z, d_r, d_candidate], axis=1),
            ],
            [d_h * z],
        )

    def _gates(self, projected, recurrent):
        """The gates, the candidate, and what the reset gate multiplies."""
        x, y = tf.cast(projected, tf.float32), tf.cast(recurrent, tf.float32)
        (x_z, x_r, x), (y_z, y_r, y) = (
            tf.split(tensor, 3, axis=1) for tensor in (x, y)
        )
        z, r = tf.sigmoid(x_z + y_z), tf.sigmoid(x_r + y_r)
        return z, r, tf.tanh(x + r * y), y
