"""What a network has heard, as further layers take it."""

import keras
from keras import ops

# e**-5, less than one in a hundred, becomes 0; certainty becomes 1.
SCALE = 5.0
# Far below what is ever right. Symbols that are never emitted stand there.
LOWEST = -20.0


@keras.saving.register_keras_serializable(package="keras_ds2")
def log_probabilities(inputs):
    """Computes `1 + max(log softmax(x), -20) / 5` over the last axis.

    So certainty is 1, a probability of 0.7 % is 0, as is what layers put
    before the beginning and after the end of an utterance, and nothing is
    below -3.

    Args:
        inputs: Tensor of logits, of shape `(..., symbols)`.

    Returns:
        Tensor of the same shape and dtype.

    Example:

    >>> import numpy as np
    >>> from keras_ds2.layers.log_probabilities import log_probabilities
    >>> log_probabilities(np.array([[0.0, -5.0, -1e4]])).numpy().round(2)
    array([[ 1., -0., -3.]])
    """
    log_probs = ops.log_softmax(ops.convert_to_tensor(inputs), axis=-1)
    return 1.0 + ops.maximum(log_probs, LOWEST) / SCALE
