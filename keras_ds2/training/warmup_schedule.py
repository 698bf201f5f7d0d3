"""The learning rate: up in a straight line, then down with the root."""

import keras
from keras import ops


@keras.saving.register_keras_serializable(package="keras_ds2")
class WarmupSchedule(keras.optimizers.schedules.LearningRateSchedule):
    """Raises the learning rate linearly, then lowers it as `step^-0.5`.

    `scale * dim^-0.5 * min(step^-0.5, step * warmup_steps^-1.5)`: it peaks at
    `warmup_steps` with `scale * (dim * warmup_steps)^-0.5`, 6.25e-4 by
    default. It is a schedule, not a callback: give it to the optimizer, as
    in `keras.optimizers.Adam(WarmupSchedule(), beta_2=0.98, epsilon=1e-9)`.

    Args:
        dim: Integer. The model dimension of the formula. Defaults to `256`.
        warmup_steps: Integer. Steps of the ascent. Defaults to `10000`.
        scale: Float. Factor on the whole. Defaults to `1.0`.
        max_lr: Float. Ceiling of the learning rate. Defaults to `None`, for
            none.

    Returns:
        When called with a step (integer or tensor), the learning rate as a
        float32 tensor; 0 at step 0.

    Raises:
        ValueError: If an argument is not positive.

    Reference:
        Vaswani et al., 2017 (arXiv:1706.03762), section 5.3, eq. 3.

    Example:

    >>> import keras_ds2
    >>> schedule = keras_ds2.WarmupSchedule()
    >>> round(float(schedule(10_000)), 8)
    0.000625
    """

    def __init__(self, dim=256, warmup_steps=10_000, scale=1.0, max_lr=None):
        if min(dim, warmup_steps, scale) <= 0 or (
            max_lr is not None and max_lr <= 0
        ):
            raise ValueError(
                "Every argument of `WarmupSchedule` must be positive. "
                f"Received: dim={dim}, warmup_steps={warmup_steps}, "
                f"scale={scale}, max_lr={max_lr}."
            )
        self.dim = dim
        self.warmup_steps = warmup_steps
        self.scale = scale
        self.max_lr = max_lr

    def __call__(self, step):
        step = ops.cast(step, "float32")
        descent = ops.rsqrt(ops.maximum(step, 1.0))
        ascent = step * self.warmup_steps**-1.5
        rate = self.scale * self.dim**-0.5 * ops.minimum(descent, ascent)
        return rate if self.max_lr is None else ops.minimum(rate, self.max_lr)

    def get_config(self):
        return {
            "dim": self.dim,
            "warmup_steps": self.warmup_steps,
            "scale": self.scale,
            "max_lr": self.max_lr,
        }
