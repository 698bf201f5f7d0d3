"""A look a few frames ahead, for recurrent layers that only look back."""

import keras
from keras import ops

from keras_ds2 import lengths
from keras_ds2.layers.streaming import SlidingWindow


@keras.saving.register_keras_serializable(package="keras_ds2")
class RowConvolution(SlidingWindow, keras.layers.Layer):
    """Mixes each frame with the few that follow it, feature by feature.

    `output[t, i] = sum over j = 0 .. width - 1 of kernel[j, i] * input[t + j,
    i]`: the current frame and `width - 1` future ones, never a past one, each
    feature by itself. Beyond the end of an utterance the input counts as
    zero. It lets unidirectional recurrent layers, which can stream, see a
    little of the future. Elsewhere it is called lookahead convolution.
    `keras.layers.DepthwiseConv1D` is centered or looks back, and knows no
    lengths.

    Args:
        width: Integer. Frames in the sum, the current one included: tau + 1
            of the paper. Defaults to `5`.
        kernel_initializer: Initializer of the kernel, of shape `(width,
            features)`. Defaults to `"glorot_uniform"`.
        kernel_regularizer: Regularizer of the kernel. Defaults to `None`.

    Call arguments:
        inputs: Tensor of shape `(batch, frames, features)`.
        num_frames: Optional integer tensor of shape `(batch,)`: real frames
            of each row. A right-padded Keras mask serves where it is left
            out.
        pad_time: Boolean. Whether zeros are put after the frames. Without,
            the last `width - 1` have no output. Defaults to `True`.

    Output shape:
        That of `inputs`, in the layer's compute dtype. Frames beyond
        `num_frames` are zero.

    Raises:
        ValueError: If `width` is less than 1.

    Reference:
        Amodei et al., 2016 (arXiv:1512.02595), section 3.7.

    Example:

    >>> import numpy as np
    >>> import keras_ds2
    >>> layer = keras_ds2.RowConvolution(3, kernel_initializer="ones")
    >>> layer(np.array([[[1.0], [2.0], [3.0], [4.0]]])).numpy().ravel()
    array([6., 9., 7., 4.], dtype=float32)
    """

    def __init__(
        self,
        width=5,
        kernel_initializer="glorot_uniform",
        kernel_regularizer=None,
        **kwargs,
    ):
        super().__init__(**kwargs)
        self.supports_masking = True
        if width < 1:
            raise ValueError(
                "`width` counts the current frame, so it must be at least 1. "
                f"Received: width={width}."
            )
        self.width = width
        self.kernel_initializer = keras.initializers.get(kernel_initializer)
        self.kernel_regularizer = keras.regularizers.get(kernel_regularizer)

    def build(self, input_shape):
        self.kernel = self.add_weight(
            name="kernel",
            shape=(self.width, input_shape[-1]),
            initializer=self.kernel_initializer,
            regularizer=self.kernel_regularizer,
        )

    def call(self, inputs, num_frames=None, mask=None, pad_time=True):
        if num_frames is None and mask is not None:
            num_frames = ops.sum(ops.cast(mask, "int32"), axis=1)
        inputs = lengths.zero_padding(inputs, num_frames)
        future = self.width - 1
        if pad_time:
            inputs = ops.pad(inputs, [[0, 0], [0, future], [0, 0]])
        kernel = ops.expand_dims(self.kernel, axis=-1)
        outputs = ops.depthwise_conv(inputs, kernel, padding="valid")
        # Of no frames, eager TensorFlow returns the padding.
        return outputs[:, : ops.shape(inputs)[1] - future]

    def reach(self):
        return 0, self.width - 1, 1

    def compute_output_shape(self, inputs_shape, num_frames_shape=None):
        return inputs_shape

    def get_config(self):
        config = super().get_config()
        config.update(
            width=self.width,
            kernel_initializer=keras.initializers.serialize(
                self.kernel_initializer
            ),
            kernel_regularizer=keras.regularizers.serialize(
                self.kernel_regularizer
            ),
        )
        return config
