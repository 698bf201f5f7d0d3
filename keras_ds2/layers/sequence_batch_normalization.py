"""Batch normalization that counts real frames only."""

import keras
from keras import ops

from keras_ds2 import lengths


@keras.saving.register_keras_serializable(package="keras_ds2")
class SequenceBatchNormalization(keras.layers.BatchNormalization):
    """Normalizes features by statistics over all real frames of a batch.

    `keras.layers.BatchNormalization` for padded sequences: mean and variance
    are taken over every utterance and every frame of it, but never over
    padding, for inputs with and without a frequency axis (Keras refuses a
    `(batch, time)` mask on 4-D inputs). The features are the last axis.
    Statistics are computed and kept in float32 under every dtype policy.
    Weights have the names, shapes and order of Keras's layer, so `get_weights`
    and `set_weights` interchange.

    Args:
        momentum: Float. Momentum of the moving statistics. Keras's 0.99
            keeps the initial variance of 1 for hundreds of batches, many
            times that of LSTM outputs. Defaults to `0.95`.
        epsilon: Float, added to the variance. Defaults to `1e-3`.
        **kwargs: Arguments of `keras.layers.BatchNormalization`, without
            `axis` and `synchronized`: replicas keep their own statistics.

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
        if kwargs.get("synchronized"):
            # Keras ignores it where there is a mask.
            raise ValueError(
                "Statistics are those of one replica: `synchronized=True` is "
                "not supported."
            )
        super().__init__(axis=-1, momentum=momentum, epsilon=epsilon, **kwargs)

    def call(self, inputs, num_frames=None, training=None, mask=None):
        if num_frames is None and mask is not None:
            num_frames = ops.sum(ops.cast(mask, "int32"), axis=1)
        if num_frames is None:
            return super().call(inputs, training=training)
        inputs = lengths.zero_padding(inputs, num_frames)
        mask = lengths.sequence_mask(num_frames, ops.shape(inputs)[1])
        if len(inputs.shape) == 4:
            mask = ops.broadcast_to(mask[:, :, None], ops.shape(inputs)[:3])
        outputs = super().call(inputs, training=training, mask=mask)
        return lengths.zero_padding(outputs, num_frames)

    def compute_output_shape(self, inputs_shape, num_frames_shape=None):
        return inputs_shape
