"""Batch normalization that counts real frames only."""

import math

import keras
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
        x = lengths.zero_padding(ops.cast(inputs, "float32"), num_frames)
        if training and self.trainable:
            mean, variance = self._moments_of_real_frames(x, num_frames)
            for moving, batch_value in (
                (self.moving_mean, mean),
                (self.moving_variance, variance),
            ):
                moving.assign(
                    moving * self.momentum + batch_value * (1 - self.momentum)
                )
        else:
            mean, variance = self.moving_mean, self.moving_variance
        factor = ops.rsqrt(variance + self.epsilon)
        if self.scale:
            factor *= self.gamma
        offset = -mean * factor
        if self.center:
            offset += self.beta
        outputs = ops.cast(x * factor + offset, self.compute_dtype)
        return lengths.zero_padding(outputs, num_frames)

    def _moments_of_real_frames(self, x, num_frames):
        """Mean and variance of each feature; `x` is zero in the padding."""
        axes = list(range(len(x.shape) - 1))
        positions = math.prod(x.shape[2:-1])  # frequencies
        count = ops.cast(ops.sum(num_frames) * positions, "float32")
        count = ops.maximum(sum_over_replicas(count), 1.0)
        mean = sum_over_replicas(ops.sum(x, axes)) / count
        deviation = lengths.zero_padding(x - mean, num_frames)
        variance = sum_over_replicas(ops.sum(ops.square(deviation), axes))
        return mean, variance / count

    def compute_output_shape(self, inputs_shape, num_frames_shape=None):
        return inputs_shape
