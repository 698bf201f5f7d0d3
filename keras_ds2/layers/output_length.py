"""Length before a layer in, length after it out."""

import keras

from keras_ds2 import lengths


@keras.saving.register_keras_serializable(package="keras_ds2")
class OutputLength(keras.layers.Layer):
    """Applies `keras_ds2.lengths.output_length` inside a functional model.

    Args:
        window: Integer. Items that one output looks at.
        stride: Integer. Items between the starts of two windows.
        padding: Integer. Zeros added, both ends together. Defaults to `0`.
        factor: Integer. Items that each output becomes, as in `SplitFrames`.
            Defaults to `1`.

    Call arguments:
        length: Integer tensor of shape `(batch,)`.

    Output shape:
        That of `length`, int32.

    Example:

    >>> import numpy as np
    >>> import keras_ds2
    >>> keras_ds2.OutputLength(400, 160)(np.array([16000, 399])).numpy()
    array([98,  0], dtype=int32)
    """

    def __init__(self, window, stride, padding=0, factor=1, **kwargs):
        super().__init__(**kwargs)
        self.window = window
        self.stride = stride
        self.padding = padding
        self.factor = factor

    def call(self, length):
        return self.compute_length(keras.ops.cast(length, "int32"))

    def compute_length(self, length):
        """Does the same to integers, arrays and tensors."""
        count = lengths.output_length(
            length, self.window, self.stride, self.padding
        )
        return count * self.factor

    def compute_output_spec(self, length):
        return keras.KerasTensor(length.shape, dtype="int32")

    def compute_output_shape(self, length_shape):
        return length_shape

    def get_config(self):
        config = super().get_config()
        config.update(
            window=self.window,
            stride=self.stride,
            padding=self.padding,
            factor=self.factor,
        )
        return config
