"""Long frames in, more and shorter ones out."""

import keras
from keras import ops


@keras.saving.register_keras_serializable(package="keras_ds2")
class SplitFrames(keras.layers.Layer):
    """Makes several frames of each frame, each of a part of its features.

    `output[t * factor + j]` is the `j`-th of `factor` equal parts of
    `input[t]`: the inverse of frames that are put side by side. So layers that
    cost much in each frame may run at a lower rate than the one at which
    symbols are written.

    Args:
        factor: Integer. Frames that each frame becomes. Defaults to `2`.

    Call arguments:
        inputs: Tensor of shape `(batch, frames, features)`.

    Output shape:
        `(batch, frames * factor, features / factor)`, as
        `OutputLength(1, 1, factor=factor)` counts. What stands in padding
        stays there.

    Raises:
        ValueError: If `factor` is less than 1, or does not divide the
            features.

    Example:

    >>> import numpy as np
    >>> import keras_ds2
    >>> keras_ds2.SplitFrames()(np.array([[[1.0, 2.0, 3.0, 4.0]]]))[0].numpy()
    array([[1., 2.],
           [3., 4.]], dtype=float32)
    """

    def __init__(self, factor=2, **kwargs):
        super().__init__(**kwargs)
        self.supports_masking = True
        if not isinstance(factor, int) or factor < 1:
            raise ValueError(
                "`factor` must be an integer from 1. Received: "
                f"factor={factor}."
            )
        self.factor = factor

    def build(self, input_shape):
        if input_shape[-1] % self.factor:
            raise ValueError(
                f"`factor` must divide the features. Received: factor="
                f"{self.factor}, input_shape={tuple(input_shape)}."
            )

    def call(self, inputs):
        batch, frames, features = ops.shape(inputs)
        return ops.reshape(
            inputs, (batch, frames * self.factor, features // self.factor)
        )

    # === On a stream: `layers/streaming.py` ===

    def first_output(self, start):
        return start * self.factor

    def initial_state(self, features, start, batch_size):
        return []

    def stream(self, inputs, is_real, state):
        return self(inputs), []

    def compute_length(self, num_frames):
        """Counts the frames after the layer (integers or tensors)."""
        return num_frames * self.factor

    def compute_mask(self, inputs, previous_mask):
        if previous_mask is None:
            return None
        return ops.repeat(previous_mask, self.factor, axis=1)

    def compute_output_shape(self, inputs_shape):
        batch, frames, features = inputs_shape
        if frames is not None:
            frames *= self.factor
        return batch, frames, features // self.factor

    def get_config(self):
        return {**super().get_config(), "factor": self.factor}
