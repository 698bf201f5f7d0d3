"""The oracle is one device: two replicas must train the same weights."""

import json
import subprocess
import sys

import numpy as np

# Sums of half a batch each, instead of one, in float32.
ROUNDING = 1e-6
# CTC works on logarithms of the size of the loss, about 100.
CTC_ROUNDING = 5e-5

SCRIPT = """
import json, sys
import keras, numpy as np, tensorflow as tf
import keras_ds2

keras_ds2.use_device("cpu", num_cpu_devices=2)
results = []
for name in ("none", "mirrored"):
    strategy = keras_ds2.use_strategy(name)
    count = strategy.num_replicas_in_sync
    keras.utils.set_random_seed(0)
    with strategy.scope():
        model = keras_ds2.DeepSpeech2(
            conv_filters=(2,),
            conv_kernel_sizes=((5, 9),),
            conv_strides=((4, 4),),
            num_rnn_layers=1,
            rnn_units=4,
            dense_units=4,
            dropout=0.0,
        )
        # As in the example: each replica clips its share.
        model.compile(
            keras.optimizers.SGD(1e-3, global_clipnorm=20.0 / count)
        )
    data = keras_ds2.data.prepare_dataset(
        sys.argv[1], ["train-clips"], model, batch_size=4, num_replicas=2
    )
    model.adapt(data.one_pass())
    keras_ds2.dry_run(model, data)
    for epochs in (1, 3):  # goes on after the first
        history = model.fit(
            data.stream(), steps_per_epoch=2, epochs=epochs, verbose=0,
            callbacks=[
                keras_ds2.TrainingMonitor(data),
                keras_ds2.BackupAndRestore(f"{sys.argv[2]}/{name}", data),
            ],
        )
        if epochs == 1:
            for weight in model.trainable_weights:
                with strategy.scope():
                    weight.assign(0 * weight)  # which the backup undoes
    del history.history["speech_per_second"]
    evaluation = model.evaluate(data.one_pass(), return_dict=True, verbose=0)
    weights = [w.numpy().tolist() for w in model.weights]

    # One utterance of one replica spoils a step for both.
    def spoil(x, y):
        audio = tf.concat([x["audio"][:-1], x["audio"][-1:] * np.nan], axis=0)
        return {**x, "audio": audio}, y

    spoilt = model.fit(
        data.one_pass().map(spoil), steps_per_epoch=1, verbose=0
    )
    after = [w.numpy().tolist() for w in model.weights]
    message = ""
    if count == 2:
        uneven = keras_ds2.data.SpeechDataset(data.batches[0], 3)
        try:
            model.fit(uneven.one_pass(), verbose=0)
        except ValueError as error:
            message = str(error)
    results.append({
        "message": message,
        "replicas": count,
        "history": history.history,
        "evaluation": evaluation,
        "weights": weights,
        "is_untouched": after == weights,
        "skipped": spoilt.history["skipped"],
        "texts": model.transcribe([row.audio for row in data.batches[0]]),
    })
print(json.dumps(results))
"""


def test_two_replicas_train_as_one_device(pytestconfig, tmp_path):
    clips = pytestconfig.rootpath / "tests" / "data" / "LibriSpeech"
    output = subprocess.run(
        [sys.executable, "-c", SCRIPT, clips, tmp_path],
        check=True,
        stdout=subprocess.PIPE,
        text=True,
    ).stdout
    single, mirrored = json.loads(output.splitlines()[-1])
    assert (single["replicas"], mirrored["replicas"]) == (1, 2)
    for one, two in zip(single["weights"], mirrored["weights"], strict=True):
        np.testing.assert_allclose(two, one, rtol=ROUNDING, atol=ROUNDING)
    for name in ("history", "evaluation"):
        assert single[name].keys() == mirrored[name].keys()
        for key, value in single[name].items():
            np.testing.assert_allclose(
                mirrored[name][key], value, rtol=CTC_ROUNDING, err_msg=key
            )
    # Clipping was at work, else it would not have been tested.
    assert min(single["history"]["gradient_norm"]) > 20
    assert mirrored["texts"] == single["texts"]
    assert "`prepare_dataset(..., num_replicas=2)`" in mirrored["message"]
    for result in (single, mirrored):
        assert result["is_untouched"]
        assert result["skipped"] == [1]
