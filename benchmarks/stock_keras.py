"""The reference network of stock Keras layers, for `train_step.py`.

Only the log-mel features are ours: Keras's layer normalizes each batch by its
loudest clip. The convolutions pad as ours do, by half a kernel: `"same"` would
begin one bin later wherever a stride of 2 meets an even number. Frames beyond
the end are masked where the layers know masks, which is in the LSTMs and their
batch normalization.
"""

import warnings

import keras
import numpy as np
import tensorflow as tf
from keras import ops

import keras_ds2


def build(dropout=0.1, dtype="float32"):
    """Layers of a dtype policy; log-mel features and logits are float32."""
    keras.config.set_dtype_policy(dtype)
    audio = keras.Input((None,), name="audio")
    audio_length = keras.Input((), dtype="int32", name="audio_length")
    x = keras_ds2.LogMelSpectrogram(normalize=False)(audio, audio_length)
    num_frames = keras_ds2.OutputLength(400, 160)(audio_length)
    x = keras.layers.Reshape((-1, 80, 1))(x)
    for kernel_size, strides in (((11, 41), (2, 2)), ((11, 21), (1, 2))):
        x = keras.layers.ZeroPadding2D([size // 2 for size in kernel_size])(x)
        x = keras.layers.Conv2D(
            32, kernel_size, strides=strides, use_bias=False
        )(x)
        x = keras.layers.BatchNormalization()(x)
        x = keras.layers.ReLU(max_value=20)(x)
    num_frames = keras_ds2.OutputLength(11, 2, padding=10)(num_frames)
    x = keras.layers.Reshape((-1, 640))(x)
    mask = keras_ds2.SequenceMask()(x, num_frames)
    for i in range(5):
        if i:
            x = keras.layers.BatchNormalization()(x, mask=mask)
        x = keras.layers.LSTM(512, return_sequences=True)(x, mask=mask)
        x = keras.layers.Dropout(dropout)(x)
    warnings.filterwarnings("ignore", message=".*does not support masking")
    x = keras.layers.ZeroPadding1D((0, 4))(x)
    x = keras.layers.DepthwiseConv1D(5, use_bias=False)(x)
    x = keras.layers.Dense(1024)(x)
    x = keras.layers.ReLU(max_value=20)(x)
    x = keras.layers.Dropout(dropout)(x)
    logits = keras.layers.Dense(31, dtype="float32")(x)
    # Samples must not be cast to 16 bits on the way in.
    return keras.Model(
        [audio, audio_length], [logits, num_frames], dtype="float32"
    )


class Trained(keras.Model):
    """Adds the loss: Keras's own takes no lengths."""

    def __init__(self, network):
        super().__init__(dtype="float32")
        self.network = network

    def call(self, inputs, training=False):
        features = [inputs["audio"], inputs["audio_length"]]
        return self.network(features, training=training)

    def compute_loss(self, x, y, y_pred, sample_weight=None, training=True):
        logits, num_frames = y_pred
        return ops.mean(
            ops.ctc_loss(
                y["labels"], logits, y["label_length"], num_frames, mask_index=0
            )
        )

    def compute_metrics(self, x, y, y_pred, sample_weight=None):
        return self.get_metrics_result()


def outputs_with(ours, batch):
    """Logits and loss of `batch` with the weights of our model."""
    network = build(dropout=0.0)
    weights = [
        weight.reshape(variable.shape)  # (5, 512) for (5, 512, 1)
        for weight, variable in zip(
            ours.get_weights(), network.weights, strict=True
        )
    ]
    # Ours can never emit the two reserved symbols.
    weights[-2][:, -2:] = 0.0
    weights[-1][-2:] = -1e4
    network.set_weights(weights)
    model = Trained(network)
    outputs = model(batch, training=False)
    loss = model.compute_loss(None, batch, outputs)
    return np.array(outputs[0]), float(loss)


def make_step(batch, dtype="float32"):
    """Returns a function that trains one step, and the number of parameters."""
    keras.utils.set_random_seed(0)
    model = Trained(build(dtype=dtype))
    model.compile(keras.optimizers.Adam(1e-3), jit_compile=False)
    batches = iter(tf.data.Dataset.from_tensors((batch, batch)).repeat())
    model.make_train_function()

    def step():
        model.reset_metrics()
        return float(model.train_function(batches)["loss"])

    return step, sum(np.prod(w.shape) for w in model.trainable_weights)
