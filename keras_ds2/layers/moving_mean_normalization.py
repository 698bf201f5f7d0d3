"""A mean that follows the speaker, for models that stream."""

import keras
import numpy as np
from keras import ops

from keras_ds2 import lengths

# Frames of which the mean is one product. Few, as every frame costs as many
# multiplications; not too few, as the blocks are summed up in another one.
BLOCK_SIZE = 32


@keras.saving.register_keras_serializable(package="keras_ds2")
class MovingMeanNormalization(keras.layers.Layer):
    """Subtracts from each feature its mean over the utterance so far.

    The mean moves with every frame, `mean[t] = momentum * mean[t - 1] + (1 -
    momentum) * input[t]`, and `output[t] = input[t] - mean[t]`. What stays the
    same throughout an utterance vanishes after some seconds: how a voice, a
    room or a microphone differs from those that were trained on. Batch
    normalization cannot know that, since its statistics in inference are those
    of training. As only the past is needed, models with it can stream; the mean
    of a stream that goes on for hours follows whoever is speaking.

    Cepstral mean normalization does this to features, before a model; this
    layer may stand anywhere in one. The mean is computed in float32 under every
    dtype policy (on a GPU as TensorFlow multiplies it: in TensorFloat-32 unless
    that is switched off).

    Args:
        momentum: Float between 0 and 1. The mean forgets in about `1 / (1 -
            momentum)` frames. Defaults to `0.998`: 500 frames, or 10 s at 20
            ms a frame.
        **kwargs: Arguments of `keras.layers.Layer`.

    Call arguments:
        inputs: Tensor of shape `(batch, frames, features)`.
        num_frames: Optional integer tensor of shape `(batch,)`: real frames
            of each row. A right-padded Keras mask serves where it is left
            out.

    Output shape:
        That of `inputs`, in the layer's compute dtype. Frames beyond
        `num_frames` are zero.

    Weights:
        `initial_mean`, of shape `(features,)`: the mean before the first frame.
        It is learned, from zeros.

    Raises:
        ValueError: If `momentum` is out of range, or the inputs have not three
            axes.

    Reference:
        Viikki and Laurila, 1998, "Cepstral domain segmental feature vector
        normalization for noise robust speech recognition", for the moving
        statistics.

    Example:

    >>> import numpy as np
    >>> import keras_ds2
    >>> layer = keras_ds2.MovingMeanNormalization(momentum=0.5)
    >>> layer(np.array([[[8.0], [8.0], [8.0], [0.0]]])).numpy().ravel()
    array([ 4. ,  2. ,  1. , -3.5], dtype=float32)
    """

    def __init__(self, momentum=0.998, **kwargs):
        super().__init__(**kwargs)
        self.supports_masking = True
        self.input_spec = keras.layers.InputSpec(ndim=3)
        self.momentum = float(momentum)
        if not 0 < self.momentum < 1:
            raise ValueError(
                "`momentum` must be greater than 0 and less than 1. Received: "
                f"momentum={momentum}."
            )

    def build(self, input_shape):
        self.initial_mean = self.add_weight(
            name="initial_mean",
            shape=(input_shape[-1],),
            initializer="zeros",
            autocast=False,
        )

    def call(self, inputs, num_frames=None, mask=None):
        if num_frames is None and mask is not None:
            num_frames = ops.sum(ops.cast(mask, "int32"), axis=1)
        x = ops.cast(inputs, "float32") - self.initial_mean
        # The future has weights of zero; but zero times NaN is NaN.
        x = lengths.zero_padding(x, num_frames)
        # From a mean of zero, as the initial one is already subtracted.
        outputs = ops.cast(x - self._moving_mean(x), self.compute_dtype)
        return lengths.zero_padding(outputs, num_frames)

    def _moving_mean(self, x):
        """Mean of each frame, from zero: within blocks, then what came before.

        In products of matrices, since a cumulative sum is several times as
        slow on a CPU, and a loop slower still.
        """
        batch, frames, features = ops.shape(x)
        blocks = (frames + BLOCK_SIZE - 1) // BLOCK_SIZE
        x = ops.pad(x, [[0, 0], [0, blocks * BLOCK_SIZE - frames], [0, 0]])
        x = ops.reshape(x, (batch, blocks, BLOCK_SIZE, features))
        x = ops.matmul(weights_within(BLOCK_SIZE, self.momentum), x)
        number = ops.cast(ops.arange(blocks), "float32")
        age = number[:, None] - number[None, :] - 1
        # Of Python's momentum, not of one that was rounded to float32 before.
        weights = ops.power(self.momentum**BLOCK_SIZE, ops.maximum(age, 0))
        weights = ops.where(age < 0, 0.0, weights)
        before = ops.matmul(weights, x[:, :, -1])  # (batch, blocks, features)
        x += weights_of_past(BLOCK_SIZE, self.momentum) * before[:, :, None]
        x = ops.reshape(x, (batch, blocks * BLOCK_SIZE, features))
        return x[:, :frames]

    # === Streaming: keras_ds2.layers.streaming ===

    def compute_length(self, num_frames):
        return num_frames

    def first_output(self, start):
        return start

    def initial_state(self, features, start, batch_size):
        return [ops.zeros((batch_size, *features))]

    def stream(self, inputs, is_real, state):
        x = ops.cast(inputs, "float32") - self.initial_mean
        # Before the first frame, the mean stays zero.
        x = ops.where(is_real[:, :, None], x, 0.0)
        num_frames = x.shape[1]
        mean = ops.matmul(weights_within(num_frames, self.momentum), x)
        past = weights_of_past(num_frames, self.momentum)
        mean += past * state[0][:, None]
        return ops.cast(x - mean, self.compute_dtype), [mean[:, -1]]

    def compute_output_shape(self, inputs_shape, num_frames_shape=None):
        return inputs_shape

    def get_config(self):
        return {**super().get_config(), "momentum": self.momentum}


def weights_within(num_frames, momentum):
    """How much each of some frames counts in the mean at each of them."""
    age = np.subtract.outer(np.arange(num_frames), np.arange(num_frames))
    weights = (1 - momentum) * momentum ** np.maximum(age, 0.0)
    return np.where(age < 0, 0.0, weights).astype("float32")


def weights_of_past(num_frames, momentum):
    """How much the mean before them counts, of shape `(num_frames, 1)`."""
    age = np.arange(1.0, num_frames + 1)
    return (momentum**age).astype("float32")[:, None]
