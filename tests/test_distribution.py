"""The oracle is one device: two replicas must train the same weights."""

import json
import subprocess
import sys

import numpy as np

# Two sums of half a batch instead of one, in float32, over three steps.
ROUNDING = 1e-5

SCRIPT = """
import contextlib, json, sys
import keras, tensorflow as tf
import keras_ds2

cpu = tf.config.list_physical_devices("CPU")[0]
tf.config.set_logical_device_configuration(
    cpu, [tf.config.LogicalDeviceConfiguration()] * 2
)
clips, results = sys.argv[1:], []
for scope in (
    contextlib.nullcontext,
    tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"]).scope,
):
    keras.utils.set_random_seed(0)
    with scope():
        model = keras_ds2.DeepSpeech2(
            conv_filters=(2,),
            conv_kernel_sizes=((5, 9),),
            conv_strides=((4, 4),),
            num_rnn_layers=1,
            rnn_units=4,
            dense_units=4,
            dropout=0.0,
            batch_normalization=False,
        )
        model.compile(keras.optimizers.SGD(1e-4))
    data = keras_ds2.data.prepare_dataset(
        clips[0], ["train-clips"], model, batch_size=2
    )
    model.adapt(data.one_pass())
    history = model.fit(
        data.stream(lambda: int(model.optimizer.iterations.numpy())),
        shuffle=False, steps_per_epoch=3, verbose=0,
    )
    audio = [row.audio for row in data.batches[0]]
    results.append({
        "loss": history.history["loss"][0],
        "weights": [w.numpy().tolist() for w in model.trainable_variables],
        "texts": model.transcribe(audio),
    })
print(json.dumps(results))
"""


def test_two_replicas_train_as_one_device(pytestconfig):
    clips = pytestconfig.rootpath / "tests" / "data" / "LibriSpeech"
    output = subprocess.run(
        [sys.executable, "-c", SCRIPT, clips],
        check=True,
        stdout=subprocess.PIPE,
        text=True,
    ).stdout
    single, mirrored = json.loads(output.splitlines()[-1])
    np.testing.assert_allclose(mirrored["loss"], single["loss"], rtol=ROUNDING)
    for one, two in zip(single["weights"], mirrored["weights"], strict=True):
        np.testing.assert_allclose(two, one, rtol=ROUNDING, atol=ROUNDING)
    assert mirrored["texts"] == single["texts"]
