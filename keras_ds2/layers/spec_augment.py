"""Random stripes of silence in time and frequency, while training."""

import keras
from keras import ops


@keras.saving.register_keras_serializable(package="keras_ds2")
class SpecAugment(keras.layers.Layer):
    """Masks random bands of frequency and spans of time while training.

    What is masked is set to 0, the corpus mean of normalized features. Time
    warping is left out: its authors found that it buys little. The spans of
    an utterance depend on its own length, never on the padded one, so that
    the same seed masks the same frames however far the batch is padded.

    Args:
        num_freq_masks: Integer. Bands per utterance. Defaults to `2`.
        max_freq_width: Integer. Bins of the widest band. Defaults to `27`.
        num_time_masks: Integer. Spans per utterance. Defaults to `2`.
        max_time_width: Integer. Frames of the longest span. Defaults to
            `100`.
        max_time_ratio: Float. No span is longer than this share of its
            utterance. Defaults to `0.2`.
        seed: Integer, or `None` for a random one. Defaults to `None`.

    Call arguments:
        inputs: Tensor of shape `(batch, frames, bins)`.
        num_frames: Optional integer tensor of shape `(batch,)`: real frames
            of each row.
        training: Boolean. The layer only acts while training.

    Output shape:
        That of `inputs`.

    Raises:
        ValueError: If an argument is negative or `max_time_ratio` above 1.

    Reference:
        Park et al., 2019 (arXiv:1904.08779), section 2; the defaults are the
        policy LD, with its bound p on the time masks lowered to 0.2, since 1
        can erase a short utterance.

    Example:

    >>> import numpy as np
    >>> import keras_ds2
    >>> layer = keras_ds2.SpecAugment(seed=0)
    >>> frames = np.ones((1, 100, 80))
    >>> bool(np.all(layer(frames, training=True) == frames))
    False
    >>> bool(np.all(layer(frames, training=False) == frames))
    True
    """

    def __init__(
        self,
        num_freq_masks=2,
        max_freq_width=27,
        num_time_masks=2,
        max_time_width=100,
        max_time_ratio=0.2,
        seed=None,
        **kwargs,
    ):
        super().__init__(**kwargs)
        counts = num_freq_masks, max_freq_width, num_time_masks, max_time_width
        if min(counts) < 0 or not 0 <= max_time_ratio <= 1:
            raise ValueError(
                "Counts and widths must not be negative, `max_time_ratio` "
                f"must be in [0, 1]. Received: num_freq_masks="
                f"{num_freq_masks}, max_freq_width={max_freq_width}, "
                f"num_time_masks={num_time_masks}, max_time_width="
                f"{max_time_width}, max_time_ratio={max_time_ratio}."
            )
        self.num_freq_masks = num_freq_masks
        self.max_freq_width = max_freq_width
        self.num_time_masks = num_time_masks
        self.max_time_width = max_time_width
        self.max_time_ratio = max_time_ratio
        self.seed = seed
        self.seed_generator = keras.random.SeedGenerator(seed)

    def build(self, input_shape):
        pass

    def call(self, inputs, num_frames=None, training=False):
        if not training:
            return inputs
        batch, max_frames, bins = ops.shape(inputs)
        if num_frames is None:
            num_frames = ops.full((batch,), max_frames, dtype="int32")
        num_frames = ops.cast(num_frames, "float32")
        time_width = ops.minimum(
            float(self.max_time_width),
            ops.floor(self.max_time_ratio * num_frames),
        )
        band = self._stripes(
            ops.full((batch,), bins, dtype="float32"),
            ops.full((batch,), float(min(self.max_freq_width, bins))),
            self.num_freq_masks,
            bins,
        )
        span = self._stripes(
            num_frames, time_width, self.num_time_masks, max_frames
        )
        masked = ops.logical_or(band[:, None, :], span[:, :, None])
        return ops.where(masked, ops.zeros((), dtype=inputs.dtype), inputs)

    def _stripes(self, length, max_width, num_stripes, size):
        """Draws stripes within `length`; returns `(batch, size)` booleans."""
        shape = (ops.shape(length)[0], num_stripes)
        draw = keras.random.uniform(
            (2, *shape), dtype="float32", seed=self.seed_generator
        )
        width = ops.floor(draw[0] * (max_width[:, None] + 1.0))
        start = ops.floor(draw[1] * (length[:, None] - width + 1.0))
        positions = ops.arange(size, dtype="float32")[None, None, :]
        start, end = start[:, :, None], (start + width)[:, :, None]
        inside = ops.logical_and(positions >= start, positions < end)
        return ops.any(inside, axis=1)

    def compute_output_shape(self, inputs_shape, num_frames_shape=None):
        return inputs_shape

    def get_config(self):
        config = super().get_config()
        config.update(
            num_freq_masks=self.num_freq_masks,
            max_freq_width=self.max_freq_width,
            num_time_masks=self.num_time_masks,
            max_time_width=self.max_time_width,
            max_time_ratio=self.max_time_ratio,
            seed=self.seed,
        )
        return config
