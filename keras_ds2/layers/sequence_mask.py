"""Lengths in, mask out: for the Keras layers that take masks."""

import keras
from keras import ops

from keras_ds2 import lengths


@keras.saving.register_keras_serializable(package="keras_ds2")
class SequenceMask(keras.layers.Layer):
    """Makes the boolean mask that Keras's recurrent layers take.

    Call arguments:
        inputs: Tensor of shape `(batch, frames, ...)`; gives the width.
        num_frames: Integer tensor of shape `(batch,)`: real frames.

    Output shape:
        `(batch, frames)`, boolean, `True` where real.

    Example:

    >>> import numpy as np
    >>> import keras_ds2
    >>> mask = keras_ds2.SequenceMask()
    >>> mask(np.zeros((2, 3, 8)), np.array([1, 3])).numpy().astype(int)
    array([[1, 0, 0],
           [1, 1, 1]])
    """

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.supports_masking = True  # what is real, `num_frames` tells

    def call(self, inputs, num_frames):
        return lengths.sequence_mask(num_frames, ops.shape(inputs)[1])

    def compute_mask(self, inputs, previous_mask):
        return None

    def compute_output_spec(self, inputs, num_frames):
        return keras.KerasTensor(inputs.shape[:2], dtype="bool")

    def compute_output_shape(self, inputs_shape, num_frames_shape=None):
        return inputs_shape[:2]
