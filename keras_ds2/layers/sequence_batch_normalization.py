"""Batch normalization that counts real frames only."""

import math

import keras
import tensorflow as tf
from keras import ops

from keras_ds2 import lengths
from keras_ds2.replicas import sum_over_replicas


@keras.saving.register_keras_serializable(package="keras_ds2")
class SequenceBatchNormalization(keras.layers.BatchNormalization):
    """Normalizes features by statistics over all real frames of a batch.

    `keras.layers.BatchNormalization` for padded sequences: mean and variance
    are taken over every utterance and every frame of it, but never over
    padding, for inputs with and without a frequency axis (Keras refuses a
    `(batch, time)` mask on 4-D inputs). The features are the last axis.
    Statistics are computed and kept in float32 under every dtype policy, and
    are those of the whole batch also where several devices share it. Weights
    have the names, shapes and order of Keras's layer, so `get_weights`
    and `set_weights` interchange.

    Args:
        momentum: Float. Momentum of the moving statistics. Keras's 0.99
            keeps the initial variance of 1 for hundreds of batches, many
            times that of LSTM outputs. Defaults to `0.95`.
        epsilon: Float, added to the variance. Defaults to `1e-3`.
        **kwargs: Arguments of `keras.layers.BatchNormalization`, without
            `axis`, `renorm` and `synchronized` (which it always is).

    Call arguments:
        inputs: Tensor of shape `(batch, frames, features)` or `(batch,
            frames, frequencies, features)`.
        num_frames: Optional integer tensor of shape `(batch,)`: real frames
            of each row. A right-padded Keras mask serves where it is left
            out.
        training: Boolean. Whether to use the batch's own statistics and to
            update the moving ones.

    Output shape:
        That of `inputs`, in the layer's compute dtype. Frames beyond
        `num_frames` are zero.

    Reference:
        Amodei et al., 2016 (arXiv:1512.02595), section 3.2.

    Example:

    >>> import numpy as np
    >>> import keras_ds2
    >>> layer = keras_ds2.SequenceBatchNormalization(epsilon=0.0)
    >>> frames = np.array([[[1.0], [3.0], [999.0]]])
    >>> layer(frames, np.array([2]), training=True).numpy().ravel()
    array([-1.,  1.,  0.], dtype=float32)
    """

    def __init__(self, momentum=0.95, epsilon=1e-3, **kwargs):
        if kwargs.pop("axis", -1) != -1:
            raise ValueError("The features must be the last axis: axis=-1.")
        for name in ("renorm", "synchronized"):
            if kwargs.get(name):
                raise ValueError(
                    f"`{name}=True` is not supported. (Statistics are those "
                    "of all replicas in any case.)"
                )
        super().__init__(axis=-1, momentum=momentum, epsilon=epsilon, **kwargs)

    def call(self, inputs, num_frames=None, training=None, mask=None):
        batch, frames = ops.shape(inputs)[:2]
        if num_frames is None:
            num_frames = (
                ops.full((batch,), frames, dtype="int32")
                if mask is None
                else ops.sum(ops.cast(mask, "int32"), axis=1)
            )
        inputs = lengths.zero_padding(inputs, num_frames)
        if training and self.trainable:
            outputs, mean, variance = self._normalize_batch(inputs, num_frames)
            for moving, batch_value in (
                (self.moving_mean, mean),
                (self.moving_variance, variance),
            ):
                moving.assign(
                    moving * self.momentum + batch_value * (1 - self.momentum)
                )
            return outputs
        factor, offset = self.factor_and_offset()
        outputs = ops.cast(inputs, "float32") * factor + offset
        outputs = ops.cast(outputs, self.compute_dtype)
        return lengths.zero_padding(outputs, num_frames)

    def factor_and_offset(self):
        """What inference multiplies each feature by, and then adds."""
        factor = ops.rsqrt(self.moving_variance + self.epsilon)
        if self.scale:
            factor *= self.gamma
        offset = -self.moving_mean * factor
        if self.center:
            offset += self.beta
        return factor, offset

    def _normalize_batch(self, inputs, num_frames):
        """Returns outputs, and mean and variance of each feature.

        With a gradient of its own (Ioffe and Szegedy, 2015, section 3), which
        keeps one tensor where automatic differentiation keeps ten.
        """
        shape = tf.shape(inputs)
        features = inputs.shape[-1]
        is_real = lengths.sequence_mask(num_frames, shape[1])
        # One row for each frame and frequency.
        is_real = tf.repeat(
            tf.reshape(is_real, [-1, 1]), math.prod(inputs.shape[2:-1]), axis=0
        )
        is_real = tf.cast(is_real, tf.float32)
        count = tf.maximum(sum_over_replicas(tf.reduce_sum(is_real)), 1.0)
        gamma = self.gamma.value if self.scale else tf.ones([features])
        beta = self.beta.value if self.center else tf.zeros([features])

        @tf.custom_gradient
        def normalize(x, gamma, beta):
            x = tf.cast(tf.reshape(x, [-1, features]), tf.float32)
            mean = sum_over_replicas(sum_rows(x)) / count
            centered = (x - mean) * is_real
            variance = sum_rows(tf.square(centered))
            variance = sum_over_replicas(variance) / count
            inverse = tf.math.rsqrt(variance + self.epsilon)
            y = centered * (inverse * gamma) + is_real * beta

            def gradient(d_y, d_mean, d_variance):  # moments are not learned
                d_y = tf.cast(tf.reshape(d_y, [-1, features]), tf.float32)
                d_y *= is_real
                d_beta = sum_rows(d_y)
                d_gamma = sum_rows(d_y * centered) * inverse
                d_x = (
                    d_y
                    - sum_over_replicas(d_beta) / count
                    - centered * (inverse * sum_over_replicas(d_gamma) / count)
                )
                d_x *= is_real * (inverse * gamma)
                d_x = tf.reshape(tf.cast(d_x, inputs.dtype), shape)
                return d_x, d_gamma, d_beta

            y = tf.reshape(tf.cast(y, self.compute_dtype), shape)
            return (y, mean, variance), gradient

        outputs, mean, variance = normalize(inputs, gamma, beta)
        return tf.ensure_shape(outputs, inputs.shape), mean, variance

    def compute_output_shape(self, inputs_shape, num_frames_shape=None):
        return inputs_shape


def sum_rows(matrix):
    """Sums over the first axis, by a product: several times as fast."""
    ones = tf.ones([1, tf.shape(matrix)[0]], matrix.dtype)
    return tf.matmul(ones, matrix)[0]
