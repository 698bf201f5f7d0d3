"""Times a training step of the reference model against stock Keras and PyTorch.

    pip install -r benchmarks/requirements.txt
    python benchmarks/train_step.py [--quick] [--json]

Every variant trains the same network on the same clips, from samples to Adam:
log-mel features, two convolutions, five LSTMs of 512, a row convolution, batch
normalization, dropout, CTC. Ours also counts word and character errors, as
`fit` shows them; the others do not. That the networks are the same is checked
first, by `same_networks.py`.

Each variant is a process of its own; they step in turn, in another order each
round, so that what else the machine does meets all of them. The environment
leaves OpenMP's waiting as it is: `OMP_WAIT_POLICY=PASSIVE` would have PyTorch's
threads sleep within its steps. TensorFlow does not use OpenMP; its threads and
GNU's OpenMP spin for milliseconds after a step, which a pause before the next
one covers. `KMP_BLOCKTIME` is for a PyTorch of Intel's OpenMP: 200 ms if unset.

Prints medians. "s/CPU-s" are seconds of speech, without padding, per second of
all threads. With `--json`, the last line holds, for the largest number of
threads (`threads_of_top_level`) and, in `threads`, for each:

    ratio_to_keras           stock Keras in float32 / our fastest
    ratio_to_torch           PyTorch's fastest / our fastest
    ratio_to_keras_float32   stock Keras / ours, both in float32
    ratio_to_keras_bfloat16  the same, both in bfloat16
    ratio_to_torch_float32   PyTorch's fastest / ours, both in float32
    ratio_to_torch_bfloat16  the same, both in bfloat16
    milliseconds             medians of all variants

`--device cuda:0` times ours and stock Keras on a GPU; PyTorch, whose CPU build
`requirements.txt` names, is left out there.
"""

import argparse
import json
import os
import pathlib
import random
import statistics
import subprocess
import sys
import time
from typing import Any

import ours

VARIANTS = (
    "ours_float32",
    "ours_mixed_bfloat16",
    "keras_float32",
    "keras_mixed_bfloat16",
    "torch_float32",
    "torch_float32_packed",
    "torch_bfloat16",
    "torch_bfloat16_packed",
)
# Numerator and denominator: the fastest variants whose names start so.
RATIOS = {
    "ratio_to_keras": ("keras_float32", "ours"),
    "ratio_to_torch": ("torch", "ours"),
    "ratio_to_keras_float32": ("keras_float32", "ours_float32"),
    "ratio_to_keras_bfloat16": ("keras_mixed_bfloat16", "ours_mixed_bfloat16"),
    "ratio_to_torch_float32": ("torch_float32", "ours_float32"),
    "ratio_to_torch_bfloat16": ("torch_bfloat16", "ours_mixed_bfloat16"),
}
# Seconds in which threads that spin after a step fall asleep.
PAUSE = 0.05


def command(program, options):
    """A program of this folder, as another process."""
    path = str(pathlib.Path(__file__).with_name(program))
    return [sys.executable, path, "--device", options.device]


def environment(threads):
    return ours.environment(OMP_NUM_THREADS=str(threads), KMP_BLOCKTIME="1")


def check_networks(options):
    """Ends the program if a network does not compute what ours does."""
    libraries = sorted({v.split("_")[0] for v in options.variants} - {"ours"})
    if libraries:
        status = subprocess.run(
            [*command("same_networks.py", options), *libraries],
            env=environment(len(os.sched_getaffinity(0))),
        ).returncode
        if status:
            raise SystemExit("The networks are not the same; see above.")


def make_step(variant, batch, threads, device="cpu"):
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

    import keras_ds2

    keras_ds2.use_device(device)
    tf.config.threading.set_intra_op_parallelism_threads(threads)
    tf.config.threading.set_inter_op_parallelism_threads(threads)
    if library == "ours":
        return ours.make_step(batch, dtype)
    import stock_keras

    return stock_keras.make_step(batch, dtype)


def work(options):
    """Steps once for each line on the standard input."""
    step, parameters = make_step(
        options.worker,
        ours.make_batch(options.clips, options.seconds),
        options.threads[0],
        options.device,
    )
    print(json.dumps(int(parameters)), flush=True)
    for _ in sys.stdin:
        start = time.perf_counter()
        loss = step()
        seconds = time.perf_counter() - start
        print(json.dumps([seconds, loss]), flush=True)


class Worker:
    def __init__(self, variant, options, threads):
        arguments = [
            *(*command("train_step.py", options), "--worker", variant),
            *("--threads", str(threads), "--clips", str(options.clips)),
            *("--seconds", str(options.seconds)),
        ]
        cpus = sorted(os.sched_getaffinity(0))[:threads]
        self.process: Any = subprocess.Popen(
            arguments,
            env=environment(threads),
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
        time.sleep(PAUSE)
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
        for worker in [*workers.values()] * 2:  # traces, allocates
            worker.step()
        seconds: dict[str, list[float]] = {variant: [] for variant in workers}
        losses = {}
        order, generator = list(workers), random.Random(0)
        for _ in range(options.repeats):
            generator.shuffle(order)
            for variant in order:
                duration, losses[variant] = workers[variant].step()
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
    batch = ours.make_batch(options.clips, options.seconds)
    audio = float(batch["audio_length"].sum()) / ours.RATE
    for variant, durations in seconds.items():
        median = statistics.median(durations)
        print(
            f"{variant:24}{median * 1e3:8.0f}{min(durations) * 1e3:9.0f}"
            f"{losses[variant]:9.1f}{audio / median / threads:9.1f}",
            flush=True,
        )
    return {v: 1e3 * statistics.median(s) for v, s in seconds.items()}


def ratios(milliseconds):
    """Those of `RATIOS` whose variants were timed."""

    def best(prefix):
        times = [t for v, t in milliseconds.items() if v.startswith(prefix)]
        return min(times, default=None)

    return {
        name: round(best(theirs) / best(own), 2)
        for name, (theirs, own) in RATIOS.items()
        if best(theirs) and best(own)
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
    parser.add_argument("--variants", nargs="+", choices=VARIANTS)
    parser.add_argument("--device", default="cpu", help="cpu or cuda:N")
    parser.add_argument("--worker", choices=VARIANTS, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.worker:
        return work(options)
    on_gpu = options.device != "cpu"
    options.variants = options.variants or [
        v for v in VARIANTS if not (on_gpu and v.startswith("torch"))
    ]
    if on_gpu and any(v.startswith("torch") for v in options.variants):
        parser.error("The PyTorch variants run on the CPU only.")
    if options.quick:
        options.clips, options.seconds, options.repeats = 4, 2.0, 2
        options.threads = [max(options.threads)]
    check_networks(options)
    results = {}
    for threads in options.threads:
        milliseconds = compare(options, threads)
        rounded = {v: round(t, 1) for v, t in milliseconds.items()}
        results[threads] = {**ratios(milliseconds), "milliseconds": rounded}
        print(ratios(milliseconds))
    if options.json:
        top = max(options.threads)
        top_level = {"threads_of_top_level": top, **results[top]}
        print(json.dumps({**top_level, "threads": results}))


if __name__ == "__main__":
    main()
