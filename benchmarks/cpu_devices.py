"""Times training on a CPU that is one device, and on one that is several.

    python benchmarks/cpu_devices.py [--devices 2] [--json]

The reference model in bfloat16, on noise: 16 clips of 8 s for each device, by
`fit`. Each row is a process of its own; they take turns, and the best of
`--repeats` is shown. The last row is one device with the batch of several. With
`--json`, the last line holds the seconds of speech per second, and `ratio`,
several devices over the better of the others.
"""

import argparse
import json
import subprocess
import sys
import time

CLIPS, SECONDS, STEPS = 16, 8, 10


def work(devices, clips):
    """Prints seconds of speech that are trained on in a second."""
    import keras
    import ours
    import tensorflow as tf

    import keras_ds2

    keras_ds2.use_device("cpu", devices)
    keras_ds2.use_mixed_precision("mixed_bfloat16")
    strategy = keras_ds2.use_strategy("mirrored" if devices > 1 else "none")
    with strategy.scope():
        model = keras_ds2.DeepSpeech2(normalize=False)
        model.compile(keras.optimizers.Adam(1e-3))
    batch = ours.make_batch(clips, SECONDS)
    inputs = {name: batch[name] for name in ("audio", "audio_length")}
    targets = {name: batch[name] for name in ("labels", "label_length")}
    batches = tf.data.Dataset.from_tensors((inputs, targets)).repeat()
    model.fit(batches, steps_per_epoch=2, verbose=0)
    start = time.perf_counter()
    model.fit(batches, steps_per_epoch=STEPS, verbose=0)
    seconds = time.perf_counter() - start
    print(STEPS * batch["audio_length"].sum() / ours.RATE / seconds)


def main():
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--devices", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--json", action="store_true", help="JSON at the end")
    parser.add_argument("--worker", nargs=2, type=int, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.worker:
        return work(*options.worker)
    rows = [
        (1, CLIPS),
        (options.devices, options.devices * CLIPS),
        (1, options.devices * CLIPS),
    ]
    best = dict.fromkeys(rows, 0.0)
    for _ in range(options.repeats):
        for devices, clips in rows:
            command = [sys.executable, __file__]
            command += ["--worker", str(devices), str(clips)]
            result = subprocess.run(
                command, stdout=subprocess.PIPE, text=True, check=True
            )
            speed = float(result.stdout.split()[-1])
            best[devices, clips] = max(best[devices, clips], speed)
    print(f"{'devices':>8}{'clips':>8}{'s of speech/s':>16}")
    for (devices, clips), speed in best.items():
        print(f"{devices:8}{clips:8}{speed:16.1f}")
    one, several, large = best.values()
    ratio = several / max(one, large)
    print(f"Several devices over one: {ratio:.2f}")
    if options.json:
        print(
            json.dumps({"speech_per_second": [*best.values()], "ratio": ratio})
        )


if __name__ == "__main__":
    main()
