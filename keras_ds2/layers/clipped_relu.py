"""The activation of both papers."""

import keras

MAX_VALUE = 20.0


@keras.saving.register_keras_serializable(package="keras_ds2")
def clipped_relu(inputs):
    """Clips to `min(max(x, 0), 20)`.

    Args:
        inputs: Tensor of any shape.

    Returns:
        Tensor of the same shape and dtype.

    Reference:
        Hannun et al., 2014 (arXiv:1412.5567), section 2; Amodei et al., 2016
        (arXiv:1512.02595), section 3.1.

    Example:

    >>> import numpy as np
    >>> import keras_ds2
    >>> keras_ds2.clipped_relu(np.array([-1.0, 5.0, 30.0])).numpy()
    array([ 0.,  5., 20.])
    """
    return keras.activations.relu(
        keras.ops.convert_to_tensor(inputs), max_value=MAX_VALUE
    )
