"""The recurrent layer of the first paper: two directions, one projection."""

import keras
import tensorflow as tf

from keras_ds2.layers.clipped_relu import clipped_relu
from keras_ds2.layers.simple_rnn import SimpleRNN


@keras.saving.register_keras_serializable(package="keras_ds2")
class BidirectionalSimpleRNN(SimpleRNN):
    """Sums a forward and a backward recurrence that share their input.

    `forward[t] = f(W x[t] + b + U forward[t - 1])`, `backward[t] = f(W x[t] + b
    + V backward[t + 1])`, `output[t] = forward[t] + backward[t]`. `W` and `b`
    are one for both directions, only `U` and `V` are not; the input is
    projected once. `keras.layers.Bidirectional` has two of everything.
    Both directions begin with zeros at the ends of the utterance, whatever the
    padding: the backward one at the last real frame.

    It has its own loop on every device, for two activations, always with a
    bias and without dropout inside.

    Args:
        units: Integer. Size of the output and of both states.
        activation: `"clipped_relu"` (`keras_ds2.clipped_relu`) or `"tanh"`.
            Defaults to `"clipped_relu"`.
        **kwargs: Arguments of `keras_ds2.SimpleRNN`. `recurrent_initializer`,
            its regularizer and its constraint are those of both directions.
            States are neither taken nor returned nor kept, and all outputs
            are returned.

    Call arguments:
        sequences: Tensor of shape `(batch, frames, features)`.
        mask: Optional boolean tensor of shape `(batch, frames)`, `True` where
            real.

    Output shape:
        `(batch, frames, units)`. Masked frames are zero.

    Raises:
        ValueError: If an argument asks for what the layer does not do.

    Reference:
        Hannun et al., 2014 (arXiv:1412.5567), section 2.

    Example:

    >>> import numpy as np
    >>> import keras_ds2
    >>> layer = keras_ds2.BidirectionalSimpleRNN(4)
    >>> layer(np.zeros((2, 10, 3), "float32")).shape
    TensorShape([2, 10, 4])
    >>> [weight.name for weight in layer.weights]
    ['backward_recurrent_kernel', 'kernel', 'recurrent_kernel', 'bias']
    """

    def __init__(self, units, activation="clipped_relu", **kwargs):
        for name in _FIXED:
            if name in kwargs:
                raise ValueError(
                    f"`{name}` cannot be chosen: the layer runs over the whole "
                    "utterance in both directions, from zeros, and returns "
                    f"all outputs. Received: {name}={kwargs[name]!r}."
                )
        if activation == "clipped_relu":  # a name that Keras does not know
            activation = clipped_relu
        super().__init__(
            units, activation=activation, return_sequences=True, **kwargs
        )
        if not self._has_loop():
            raise ValueError(
                "`activation` must be 'clipped_relu' or 'tanh', with "
                "`use_bias`, without dropout inside, not in float64, and on "
                f"TensorFlow. Received: activation={activation!r}, "
                f"kwargs={kwargs}."
            )

    def build(self, sequences_shape):  # type: ignore[override]
        super().build(sequences_shape)
        initializer = self.recurrent_initializer
        if isinstance(initializer, keras.initializers.Initializer):
            # The same one would draw the same numbers a second time.
            config = initializer.get_config()
            if isinstance(config.get("seed"), int):
                config["seed"] += 1
            initializer = initializer.from_config(config)
        self.backward_recurrent_kernel = self.add_weight(
            name="backward_recurrent_kernel",
            shape=self.cell.recurrent_kernel.shape,
            initializer=initializer,
            regularizer=self.recurrent_regularizer,
            constraint=self.recurrent_constraint,
        )

    def call(self, sequences, mask=None, training=False):
        return super().call(sequences, mask=mask, training=training)

    def inner_loop(self, sequences, initial_state, mask, training=False):
        projected, states, mask = self._prepare(
            sequences, initial_state, mask, training
        )
        forward, _ = self._run(
            projected, states, mask, self.cell.recurrent_kernel
        )
        # Padding comes first here; until it ends, states remain zero.
        backward, last = self._run(
            projected[::-1], states, mask[::-1], self.backward_recurrent_kernel
        )
        outputs = tf.where(
            mask, forward + backward[::-1], tf.zeros((), forward.dtype)
        )
        return outputs[-1], tf.transpose(outputs, [1, 0, 2]), [last]

    def initial_state(self, features, start, batch_size):
        raise ValueError(
            f"Layer '{self.name}' cannot stream: its backward direction "
            "begins at the end of the utterance."
        )

    def compute_output_shape(self, sequences_shape):
        return super().compute_output_shape(sequences_shape)

    def get_config(self):
        config = super().get_config()
        for name in _FIXED:
            config.pop(name, None)
        return config


_FIXED = (
    "return_sequences",
    "return_state",
    "go_backwards",
    "stateful",
    "unroll",
    "zero_output_for_mask",
)
