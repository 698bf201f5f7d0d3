"""Times a training step of the reference model against stock Keras and PyTorch.

    pip install -r benchmarks/requirements.txt
    python benchmarks/train_step.py [--quick] [--json]

Every variant trains the same network on the same clips, from samples to Adam:
log-mel features, two convolutions, five LSTMs of 512, a row convolution, batch
normalization, dropout, CTC. Ours also counts word and character errors, as
`fit` shows them; the others do not. That the networks are the same is checked
first: with our weights, in inference and in float32, theirs have our logits
and our loss on a batch without padding, to a relative `TOLERANCE`. (What they
do with padding is their own, see `stock_keras.py` and `stock_torch.py`.)

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

import numpy as np

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
# Of logits and losses of the same network, in units of the largest.
TOLERANCE = 1e-4
# Seconds in which threads that spin after a step fall asleep.
PAUSE = 0.05
RATE, SYMBOLS = 16000, 31


def make_batch(
    num_clips: int, seconds: float, shortest: float = 0.9
) -> dict[str, np.ndarray]:
    """Noise of 90 to 100 % of the length, with 12 to 14 letters a second."""
    generator = np.random.default_rng(0)
    samples = int(seconds * RATE)
    audio_length = generator.integers(
        int(shortest * samples), samples + 1, num_clips
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


def reference(batch):
    """Our network without dropout, and its logits and loss of `batch`.

    The moving statistics are those of the batch, so that features stay within
    the range where the network is not flat.
    """
    import keras

    import keras_ds2

    keras.utils.set_random_seed(0)
    model = keras_ds2.DeepSpeech2(normalize=False, dropout=0.0)
    generator = np.random.default_rng(1)
    for weight in model.trainable_weights:
        if len(weight.shape) == 1:  # zeros and ones hide a wrong order
            weight.assign(weight + 0.1 * generator.normal(size=weight.shape))
    for layer in model.layers:
        if isinstance(layer, keras.layers.BatchNormalization):
            layer.momentum = 0.0
    inputs = {name: batch[name] for name in ("audio", "audio_length")}
    model(inputs, training=True)
    outputs = model(inputs, training=False)
    loss = model.compute_loss(y=batch, y_pred=outputs)
    return model, np.array(outputs["logits"]), float(loss)


def check(options):
    """Prints how far the others' logits and losses are from ours."""
    import tensorflow as tf

    import keras_ds2

    keras_ds2.use_device(options.device)
    tf.config.experimental.enable_tensor_float_32_execution(False)
    batch = make_batch(2, 2.0, shortest=1.0)
    model, expected, expected_loss = reference(batch)
    learned = slice(SYMBOLS - 2)  # logits of reserved symbols are constants
    scale = np.abs(expected[..., learned]).max()
    differences = {}
    for library in options.check:
        if library == "torch":
            import stock_torch as stock
        else:
            import stock_keras as stock  # type: ignore[no-redef]
        logits, loss = stock.outputs_with(model, batch)
        error = np.abs(logits - expected)[..., learned].max() / scale
        differences[library] = [
            float(error),
            abs(loss - expected_loss) / expected_loss,
        ]
    print(json.dumps(differences))


def check_networks(options):
    """Ends the program if a network does not compute what ours does."""
    libraries = sorted({v.split("_")[0] for v in options.variants} - {"ours"})
    if not libraries:
        return
    result = subprocess.run(
        [*command(options), "--check", *libraries],
        env=environment(len(os.sched_getaffinity(0))),
        stdout=subprocess.PIPE,
        text=True,
    )
    if result.returncode:
        raise SystemExit("The networks were not compared; see above.")
    differences = json.loads(result.stdout.splitlines()[-1])
    for library, (logits, loss) in differences.items():
        print(
            f"{library} with our weights: logits differ by {logits:.1e}, the "
            f"loss by {loss:.1e}",
            flush=True,
        )
        if not max(logits, loss) < TOLERANCE:
            raise SystemExit(f"More than {TOLERANCE:.0e}: not the same network")


def command(options):
    """This program, as another process."""
    path = str(pathlib.Path(__file__).resolve())
    return [sys.executable, path, "--device", options.device]


def environment(threads):
    root = str(pathlib.Path(__file__).resolve().parents[1])
    path = os.pathsep.join([root, os.environ.get("PYTHONPATH", "")])
    return dict(
        os.environ,
        OMP_NUM_THREADS=str(threads),
        KMP_BLOCKTIME="1",
        TF_CPP_MIN_LOG_LEVEL="3",
        PYTHONPATH=path,
    )


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
        return make_ours(batch, dtype)
    import stock_keras

    return stock_keras.make_step(batch, dtype)


def work(options):
    """Steps once for each line on the standard input."""
    step, parameters = make_step(
        options.worker,
        make_batch(options.clips, options.seconds),
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
            *(*command(options), "--worker", variant),
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
    batch = make_batch(options.clips, options.seconds)
    audio = float(batch["audio_length"].sum()) / RATE
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
        name: round(best(theirs) / best(ours), 2)
        for name, (theirs, ours) in RATIOS.items()
        if best(theirs) and best(ours)
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
    parser.add_argument("--check", nargs="+", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.worker:
        return work(options)
    if options.check:
        return check(options)
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
