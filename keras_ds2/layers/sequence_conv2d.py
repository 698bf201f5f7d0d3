"""Convolution over time and frequency that padding cannot reach."""

import keras
from keras import ops

from keras_ds2 import lengths


@keras.saving.register_keras_serializable(package="keras_ds2")
class SequenceConv2D(keras.layers.Conv2D):
    """Convolves padded spectrograms without looking at their padding.

    `keras.layers.Conv2D` with `(kernel_size - 1) // 2` zeros on both ends of
    time and frequency, whatever the stride, and with everything beyond the
    end of an utterance set to zero first. TensorFlow's `"same"` at stride 2
    moves the window by one frame when the padded length is odd, so that an
    utterance's output depends on its neighbors.

    Args:
        filters: Integer. Output channels.
        kernel_size: Pair of odd integers, (time, frequency).
        strides: Pair of integers, (time, frequency). Defaults to `(1, 1)`.
        **kwargs: Arguments of `keras.layers.Conv2D`, without `padding`,
            `dilation_rate` and `data_format`.

    Call arguments:
        inputs: Tensor of shape `(batch, frames, frequencies, channels)`.
        num_frames: Optional integer tensor of shape `(batch,)`: real frames
            of each row.

    Output shape:
        `(batch, ceil(frames / strides[0]), ceil(frequencies / strides[1]),
        filters)`. Frames beyond `ceil(num_frames / strides[0])` are
        undefined.

    Raises:
        ValueError: If a kernel size is even, for it has no middle, or padding,
            dilation or another data format is asked for.

    Reference:
        Amodei et al., 2016 (arXiv:1512.02595), section 3.5.

    Example:

    >>> import numpy as np
    >>> import keras_ds2
    >>> layer = keras_ds2.SequenceConv2D(32, (11, 41), strides=(2, 2))
    >>> layer(np.zeros((1, 99, 80, 1)), np.array([60])).shape
    TensorShape([1, 50, 40, 32])
    """

    def __init__(self, filters, kernel_size, strides=(1, 1), **kwargs):
        for name in ("padding", "dilation_rate", "data_format"):
            if name in kwargs:
                raise ValueError(
                    f"`{name}` cannot be chosen: the layer pads time and "
                    "frequency by half a kernel, undilated, channels last. "
                    f"Received: {name}={kwargs[name]!r}."
                )
        super().__init__(
            filters,
            kernel_size,
            strides=strides,
            padding="valid",
            data_format="channels_last",
            **kwargs,
        )
        if not all(size % 2 for size in self.kernel_size):
            raise ValueError(
                "`kernel_size` must be odd, for the window to have a middle. "
                f"Received: kernel_size={kernel_size}."
            )

    def call(self, inputs, num_frames=None):
        inputs = lengths.zero_padding(inputs, num_frames)
        time, frequency = (size // 2 for size in self.kernel_size)
        return super().call(
            ops.pad(
                inputs, [[0, 0], [time, time], [frequency, frequency], [0, 0]]
            )
        )

    def compute_length(self, num_frames):
        """Counts the frames after the layer (integers or tensors)."""
        return self._compute_size(num_frames, axis=0)

    def _compute_size(self, size, axis):
        if size is None:
            return None
        window, stride = self.kernel_size[axis], self.strides[axis]
        return lengths.output_length(size, window, stride, padding=window - 1)

    def compute_output_shape(self, inputs_shape, num_frames_shape=None):
        batch, frames, frequencies, _ = inputs_shape
        return (
            batch,
            self._compute_size(frames, axis=0),
            self._compute_size(frequencies, axis=1),
            self.filters,
        )

    def get_config(self):
        config = super().get_config()
        for name in ("padding", "dilation_rate", "data_format"):
            del config[name]
        return config
