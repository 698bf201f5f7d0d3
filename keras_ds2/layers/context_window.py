"""Some frames before and after each frame, as features of that frame."""

import keras
from keras import ops

from keras_ds2 import lengths
from keras_ds2.layers.streaming import SlidingWindow


@keras.saving.register_keras_serializable(package="keras_ds2")
class ContextWindow(SlidingWindow, keras.layers.Layer):
    """Puts each frame beside its neighbors, for dense layers to see.

    `output[t]` is the concatenation of `input[t * stride + j]` for `j =
    -context .. context`: the past, the frame itself, the future. Before the
    first and after the last real frame of an utterance the input counts as
    zero, whatever stands in the padding. It is what a convolution over time
    sees; the dense layer that follows is its kernel.

    Args:
        context: Integer. Frames on each side: C of the paper, which tries 5,
            7 and 9. Defaults to `9`.
        stride: Integer. Only every `stride`-th frame is a middle. Defaults to
            `1`.

    Call arguments:
        inputs: Tensor of shape `(batch, frames, features)`.
        num_frames: Optional integer tensor of shape `(batch,)`: real frames
            of each row. A right-padded Keras mask serves where it is left
            out.
        pad_time: Boolean. Whether zeros are put before and after the frames.
            Without, there are as many outputs as whole windows fit. Defaults
            to `True`.

    Output shape:
        `(batch, ceil(frames / stride), (2 * context + 1) * features)`, as
        `OutputLength(2 * context + 1, stride, padding=2 * context)` counts.
        Frames beyond `ceil(num_frames / stride)` are zero.

    Raises:
        ValueError: If `context` is negative or `stride` less than 1.

    Reference:
        Hannun et al., 2014 (arXiv:1412.5567), section 2.

    Example:

    >>> import numpy as np
    >>> import keras_ds2
    >>> frames = np.array([[[1.0], [2.0], [3.0], [9.0]]])
    >>> layer = keras_ds2.ContextWindow(context=1)
    >>> layer(frames, np.array([3]))[0].numpy()
    array([[0., 1., 2.],
           [1., 2., 3.],
           [2., 3., 0.],
           [0., 0., 0.]], dtype=float32)
    """

    def __init__(self, context=9, stride=1, **kwargs):
        super().__init__(**kwargs)
        self.supports_masking = True
        whole = isinstance(context, int) and isinstance(stride, int)
        if not whole or context < 0 or stride < 1:
            raise ValueError(
                "`context` must be an integer from 0, `stride` one from 1. "
                f"Received: context={context}, stride={stride}."
            )
        self.context = context
        self.stride = stride

    def call(self, inputs, num_frames=None, mask=None, pad_time=True):
        if num_frames is None and mask is not None:
            num_frames = ops.sum(ops.cast(mask, "int32"), axis=1)
        inputs = lengths.zero_padding(inputs, num_frames)
        if pad_time:
            context = [self.context, self.context]
            inputs = ops.pad(inputs, [[0, 0], context, [0, 0]])
        batch, frames, features = ops.shape(inputs)
        width = 2 * self.context + 1
        # One gather: slices to be concatenated take five times as long, with
        # their gradient.
        count = lengths.output_length(frames, width, self.stride)
        starts = ops.arange(count) * self.stride
        windows = starts[:, None] + ops.arange(width)[None, :]
        outputs = ops.take(inputs, windows, axis=1)
        outputs = ops.reshape(outputs, (batch, count, width * features))
        if num_frames is None:
            return outputs
        return lengths.zero_padding(outputs, self.compute_length(num_frames))

    def reach(self):
        return self.context, self.context, self.stride

    def compute_length(self, num_frames):
        """Counts the frames after the layer (integers or tensors)."""
        window = 2 * self.context + 1
        return lengths.output_length(
            num_frames, window, self.stride, padding=window - 1
        )

    def compute_mask(self, inputs, previous_mask):
        return (
            None if previous_mask is None else previous_mask[:, :: self.stride]
        )

    def compute_output_shape(self, inputs_shape, num_frames_shape=None):
        batch, frames, features = inputs_shape
        if frames is not None:
            frames = self.compute_length(frames)
        return batch, frames, (2 * self.context + 1) * features

    def get_config(self):
        config = super().get_config()
        config.update(context=self.context, stride=self.stride)
        return config
