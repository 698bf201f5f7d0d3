"""Times a training step of the reference model against stock Keras and PyTorch.

    pip install -r benchmarks/requirements.txt
    python benchmarks/train_step.py [--quick] [--json]

Every variant trains the same network on the same clips, from samples to Adam:
log-mel features, two convolutions, five LSTMs of 512, a row convolution, batch
normalization, dropout, CTC. Ours also counts word and character errors, as
`fit` shows them; the others do not. Each variant is a process of its own; they
step in turn, so that what else the machine does meets all of them. Prints
medians; with `--json`, the last line holds them with the ratios of the fastest
of the others to the fastest of ours.
"""

import argparse
import json
import os
import pathlib
import statistics
import subprocess
import sys
import time
from typing import Any

import numpy as np

VARIANTS = (
    "ours_float32",
    "ours_mixed_bfloat16",
    "keras_float32",
    "torch_float32",
    "torch_float32_packed",
    "torch_bfloat16",
    "torch_bfloat16_packed",
)
RATE, SYMBOLS = 16000, 31


def make_batch(num_clips: int, seconds: float) -> dict[str, np.ndarray]:
    """Noise of 90 to 100 % of the length, with 12 to 14 letters a second."""
    generator = np.random.default_rng(0)
    samples = int(seconds * RATE)
    audio_length = generator.integers(
        int(0.9 * samples), samples + 1, num_clips
    )
    audio_length[0] = samples
    label_length = (audio_length / RATE * generator.uniform(12, 14)).astype(int)
    audio = generator.normal(0, 0.1, (num_clips, samples))
    audio[np.arange(samples) >= audio_length[:, None]] = 0
    return {
        "audio": audio.astype("float32"),
        "audio_length": audio_length.astype("int32"),
        "labels": generator.integers(
            1, SYMBOLS - 2, (num_clips, label_length.max())
        ).astype("int32"),
        "label_length": label_length.astype("int32"),
    }


def make_ours(batch, policy):
    """Our model's own training function, as `fit` calls it."""
    import keras
    import tensorflow as tf

    import keras_ds2

    keras.utils.set_random_seed(0)
    model = keras_ds2.DeepSpeech2(normalize=False, dtype=policy)
    model.compile(keras.optimizers.Adam(1e-3), jit_compile=False)
    inputs = {name: batch[name] for name in ("audio", "audio_length")}
    targets = {name: batch[name] for name in ("labels", "label_length")}
    batches = iter(tf.data.Dataset.from_tensors((inputs, targets)).repeat())
    model.make_train_function()
    losses = []

    def step():
        losses.append(float(model.train_function(batches)["loss"]))
        model.reset_metrics()
        return losses[-1]

    return step, sum(np.prod(w.shape) for w in model.trainable_weights)


def make_step(variant, batch, threads):
    library, dtype = variant.split("_", 1)
    if library == "torch":
        import stock_torch

        return stock_torch.make_step(
            batch,
            dtype.startswith("bfloat16"),
            dtype.endswith("packed"),
            threads,
        )
    import tensorflow as tf

    tf.config.threading.set_intra_op_parallelism_threads(threads)
    tf.config.threading.set_inter_op_parallelism_threads(threads)
    if library == "ours":
        return make_ours(batch, dtype)
    import stock_keras

    return stock_keras.make_step(batch)


def work(options):
    """Steps once for each line on the standard input."""
    step, parameters = make_step(
        options.worker,
        make_batch(options.clips, options.seconds),
        options.threads[0],
    )
    print(json.dumps(int(parameters)), flush=True)
    for _ in sys.stdin:
        start = time.perf_counter()
        loss = step()
        seconds = time.perf_counter() - start
        print(json.dumps([seconds, loss]), flush=True)


class Worker:
    def __init__(self, variant, options, threads):
        path = pathlib.Path(__file__).resolve()
        command = [
            *(sys.executable, str(path), "--worker", variant),
            *("--threads", str(threads), "--clips", str(options.clips)),
            *("--seconds", str(options.seconds)),
        ]
        environment = dict(
            os.environ,
            OMP_NUM_THREADS=str(threads),
            TF_CPP_MIN_LOG_LEVEL="3",
            PYTHONPATH=os.pathsep.join(
                [str(path.parents[1]), os.environ.get("PYTHONPATH", "")]
            ),
        )
        cpus = sorted(os.sched_getaffinity(0))[:threads]
        self.process: Any = subprocess.Popen(
            command,
            env=environment,
            text=True,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            preexec_fn=lambda: os.sched_setaffinity(0, cpus),
        )
        self.parameters = self.read()

    def read(self):
        line = self.process.stdout.readline()
        if not line:
            raise SystemExit("A variant failed; its error stands above.")
        return json.loads(line)

    def step(self):
        self.process.stdin.write("step\n")
        self.process.stdin.flush()
        return self.read()

    def stop(self):
        self.process.stdin.close()
        self.process.wait()


def compare(options, threads):
    """Returns the median milliseconds of every variant."""
    workers = {}
    try:
        for variant in options.variants:
            workers[variant] = Worker(variant, options, threads)
        parameters = {v: worker.parameters for v, worker in workers.items()}
        if len(set(parameters.values())) > 1:
            raise SystemExit(f"The networks differ in size: {parameters}")
        for worker in workers.values():  # traces, allocates
            worker.step()
        seconds: dict[str, list[float]] = {variant: [] for variant in workers}
        losses = {}
        for _ in range(options.repeats):
            for variant, worker in workers.items():
                duration, losses[variant] = worker.step()
                seconds[variant].append(duration)
    finally:
        for worker in workers.values():
            worker.stop()
    print(
        f"\n{options.clips} clips of {options.seconds:g} s, {threads} "
        f"thread(s), {next(iter(parameters.values())):,} parameters, median "
        f"of {options.repeats}"
    )
    print(f"{'variant':24}{'ms':>8}{'fastest':>9}{'loss':>9}{'s/CPU-s':>9}")
    audio = options.clips * options.seconds
    for variant, durations in seconds.items():
        median = statistics.median(durations)
        print(
            f"{variant:24}{median * 1e3:8.0f}{min(durations) * 1e3:9.0f}"
            f"{losses[variant]:9.1f}{audio / median / threads:9.1f}",
            flush=True,
        )
    return {v: 1e3 * statistics.median(s) for v, s in seconds.items()}


def ratios(milliseconds):
    """Stock Keras's and PyTorch's best over our best."""

    def best(library):
        times = [t for v, t in milliseconds.items() if v.startswith(library)]
        return min(times, default=float("nan"))

    return {
        f"ratio_to_{library}": round(best(library) / best("ours"), 2)
        for library in ("keras", "torch")
        if any(v.startswith(library) for v in milliseconds)
    }


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="a small check")
    parser.add_argument("--json", action="store_true", help="JSON at the end")
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--clips", type=int, default=16)
    parser.add_argument("--seconds", type=float, default=8.0)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--variants", nargs="+", default=VARIANTS)
    parser.add_argument("--worker", choices=VARIANTS, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.worker:
        return work(options)
    if options.quick:
        options.clips, options.seconds, options.repeats = 4, 2.0, 2
        options.threads = options.threads[-1:]
    results = {}
    for threads in options.threads:
        milliseconds = compare(options, threads)
        rounded = {v: round(t, 1) for v, t in milliseconds.items()}
        results[threads] = {**ratios(milliseconds), "milliseconds": rounded}
        print(ratios(milliseconds))
    if options.json:
        # The ratios of the last number of threads stand on top.
        print(json.dumps({**results[options.threads[-1]], "threads": results}))


if __name__ == "__main__":
    main()
