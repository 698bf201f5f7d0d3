"""Convolution over time and frequency that padding cannot reach."""

import keras
import numpy as np
import tensorflow as tf
from keras import ops

from keras_ds2 import lengths
from keras_ds2.layers.streaming import SlidingWindow


@keras.saving.register_keras_serializable(package="keras_ds2")
class SequenceConv2D(SlidingWindow, keras.layers.Conv2D):
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
        pad_time: Boolean. Whether zeros are put before and after the frames.
            Without, there are as many outputs as whole kernels fit. Defaults
            to `True`.

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

    def call(self, inputs, num_frames=None, pad_time=True):
        inputs = lengths.zero_padding(inputs, num_frames)
        time, frequency = (size // 2 for size in self.kernel_size)
        time = time if pad_time else 0
        return super().call(
            ops.pad(
                inputs, [[0, 0], [time, time], [frequency, frequency], [0, 0]]
            )
        )

    def convolution_op(self, inputs, kernel):
        if (
            keras.backend.backend() != "tensorflow"
            or tf.config.get_visible_devices("GPU")
            or self.groups != 1
            or inputs.shape[2] is None
        ):
            return super().convolution_op(inputs, kernel)

        @tf.custom_gradient
        def convolve(inputs, kernel):
            strides = [1, *self.strides, 1]
            outputs = tf.nn.conv2d(inputs, kernel, strides, "VALID")

            def gradient(d_outputs):
                return (
                    tf.nn.conv2d_transpose(
                        d_outputs, kernel, tf.shape(inputs), strides, "VALID"
                    ),
                    _kernel_gradient(
                        inputs, d_outputs, kernel.shape, self.strides
                    ),
                )

            return outputs, gradient

        return convolve(inputs, tf.convert_to_tensor(kernel))

    def reach(self):
        half = self.kernel_size[0] // 2
        return half, half, self.strides[0]

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


def _kernel_gradient(inputs, d_outputs, kernel_shape, strides):
    """The gradient of the kernel of a convolution.

    With a stride of s in time, s frames become one of s times the channels,
    and the convolution one without a stride.
    """
    time, frequency, channels, filters = kernel_shape
    stride = strides[0]
    size = -(-time // stride)  # of that convolution's kernel
    shape = tf.shape(inputs)
    frames = tf.shape(d_outputs)[1] + size - 1
    missing = tf.maximum(stride * frames - shape[1], 0)
    inputs = tf.pad(inputs, [[0, 0], [0, missing], [0, 0], [0, 0]])
    inputs = tf.reshape(
        inputs[:, : stride * frames],
        [shape[0], frames, stride, inputs.shape[2], channels],
    )
    gradient = _kernel_gradient_without_stride(
        tf.reshape(
            tf.transpose(inputs, [0, 1, 3, 2, 4]),
            [shape[0], frames, inputs.shape[3], stride * channels],
        ),
        d_outputs,
        (size, frequency, stride * channels, filters),
        strides[1],
    )
    gradient = tf.reshape(
        gradient, [size, frequency, stride, channels, filters]
    )
    gradient = tf.transpose(gradient, [0, 2, 1, 3, 4])
    return tf.reshape(gradient, [size * stride, frequency, channels, filters])[
        :time
    ]


def _kernel_gradient_without_stride(inputs, d_outputs, kernel_shape, stride):
    """The gradient of the kernel of a convolution of stride 1 in time.

    On a CPU, six times as fast as TensorFlow's operation for many channels.
    Windows of frequencies against shifts of time are two matrices of similar
    size, and one product of them is the gradient. One utterance at a time:
    all windows at once would be a hundred times the size of `inputs`.
    """
    time, frequency, channels, filters = kernel_shape
    windows = np.arange(d_outputs.shape[2])[:, None] * stride
    windows = windows + np.arange(frequency)
    frames = tf.shape(inputs)[1]
    dtype = keras.backend.result_type(inputs.dtype.name, "float32")

    def add(i, total):
        # (frames, frequencies, window, channels)
        unfolded = tf.gather(inputs[i], windows, axis=1)
        padded = tf.pad(d_outputs[i], [[time - 1, time - 1], [0, 0], [0, 0]])
        shifted = tf.concat(
            [padded[t : t + frames] for t in reversed(range(time))], axis=-1
        )
        product = tf.matmul(
            tf.reshape(unfolded, [-1, frequency * channels]),
            tf.reshape(shifted, [-1, time * filters]),
            transpose_a=True,
        )
        return i + 1, total + tf.cast(product, dtype)

    _, total = tf.while_loop(
        lambda i, _: i < tf.shape(inputs)[0],
        add,
        (0, tf.zeros((frequency * channels, time * filters), dtype)),
        parallel_iterations=1,  # more would only take more memory
    )
    total = tf.reshape(total, [frequency, channels, time, filters])
    return tf.cast(tf.transpose(total, [2, 0, 1, 3]), inputs.dtype)
