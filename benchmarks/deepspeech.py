"""Measures what the recurrent layer of the first Deep Speech costs.

    python benchmarks/deepspeech.py [--units N] [--quick] [--json]

The whole network at the paper's sizes, with each `rnn_type`: parameters, those
of the recurrent layer alone, peak memory and CPU time of training steps of Adam
on noise. Each row is a process of its own; the peak is its largest resident
set, less that of a process that only imports TensorFlow and the package.
"""

import argparse
import json
import resource
import subprocess
import sys
import time

import numpy as np

CLIPS, SECONDS = 8, 8
RNN_TYPES = ("simple", "gru", "lstm")
REPEATS = 3


def peak():
    size = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    # Kibibytes, but bytes on macOS.
    return size / (2**20 if sys.platform == "darwin" else 2**10)


def work(rnn_type, units, clips, seconds):
    """Prints the figures of one network; of "none", the peak alone."""
    import keras
    import ours

    import keras_ds2

    figures = {}
    if rnn_type != "none":
        keras.utils.set_random_seed(0)
        model = keras_ds2.DeepSpeech(
            rnn_type=rnn_type,
            dense_units=units,
            rnn_units=units,
            normalize=False,
        )
        model.compile(keras.optimizers.Adam(1e-4))
        batch = ours.make_batch(clips, seconds)
        inputs = {name: batch.pop(name) for name in ("audio", "audio_length")}
        times = []
        for _ in range(1 + REPEATS):  # the first one compiles
            start = time.process_time()
            model.train_on_batch(inputs, batch)
            times.append(time.process_time() - start)
        figures = {
            "parameters": model.count_params(),
            "recurrent_parameters": model.get_layer("rnn_4").count_params(),
            "cpu_milliseconds": round(1000 * float(np.median(times[1:]))),
        }
    print(json.dumps({**figures, "mebibytes": round(peak())}))


def measure(*arguments):
    command = [sys.executable, __file__, "--worker", *map(str, arguments)]
    result = subprocess.run(
        command, stdout=subprocess.PIPE, text=True, check=True
    )
    return json.loads(result.stdout.splitlines()[-1])


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--units", type=int, default=2048, help="of each layer")
    parser.add_argument("--quick", action="store_true", help="one short clip")
    parser.add_argument("--json", action="store_true", help="JSON at the end")
    parser.add_argument("--worker", nargs=4, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.worker:
        rnn_type, units, clips, seconds = options.worker
        return work(rnn_type, int(units), int(clips), float(seconds))
    clips, seconds = (1, 1) if options.quick else (CLIPS, SECONDS)
    empty = measure("none", options.units, clips, seconds)["mebibytes"]
    print(f"{clips} clips of {seconds} s, {options.units} units")
    columns = (
        "parameters",
        "recurrent_parameters",
        "mebibytes",
        "cpu_milliseconds",
    )
    print(f"{'rnn_type':10}" + "".join(f"{name:>22}" for name in columns))
    results = {}
    for rnn_type in RNN_TYPES:
        row = measure(rnn_type, options.units, clips, seconds)
        row["mebibytes"] -= empty
        print(f"{rnn_type:10}" + "".join(f"{row[x]:22,}" for x in columns))
        results[rnn_type] = row
    if options.json:
        print(json.dumps(results))


if __name__ == "__main__":
    main()
