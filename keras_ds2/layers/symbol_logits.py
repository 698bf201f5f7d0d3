"""The last layer of every model: one logit for each symbol."""

import keras
from keras import ops

# exp(-1e4) is 0 in float32, and 1e4 still is a number in float16.
NEVER = -1e4


@keras.saving.register_keras_serializable(package="keras_ds2")
class SymbolLogits(keras.layers.Dense):
    """Projects features to logits of symbols, in float32 under every policy.

    A `keras.layers.Dense` whose last `num_reserved` symbols (padding and
    unknown) can never be decoded: their logits are constant.

    Args:
        units: Integer. Symbols, blank and reserved ones included.
        num_reserved: Integer. Symbols at the end that are never emitted.
            Defaults to `2`.
        **kwargs: Arguments of `keras.layers.Dense`, without `dtype`.

    Call arguments:
        inputs: Tensor of shape `(batch, frames, features)`.

    Output shape:
        `(batch, frames, units)`, float32.

    Raises:
        ValueError: If no symbol is left.

    Example:

    >>> import numpy as np
    >>> import keras_ds2
    >>> keras_ds2.SymbolLogits(4)(np.ones((1, 1, 2)))[0, 0, 2:].numpy()
    array([-10000., -10000.], dtype=float32)
    """

    def __init__(self, units, num_reserved=2, **kwargs):
        # Sixteen bits cannot tell probable from certain (CTC sums logs).
        kwargs["dtype"] = "float32"
        super().__init__(units, **kwargs)
        if not 0 <= num_reserved < units:
            raise ValueError(
                "`num_reserved` must leave at least one symbol. Received: "
                f"units={units}, num_reserved={num_reserved}."
            )
        self.num_reserved = num_reserved

    def call(self, inputs):
        is_reserved = ops.arange(self.units) >= self.units - self.num_reserved
        return ops.where(is_reserved, NEVER, super().call(inputs))

    def get_config(self):
        config = super().get_config()
        config["num_reserved"] = self.num_reserved
        return config
