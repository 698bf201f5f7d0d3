"""Times one chunk of many streams through the reference model.

    python benchmarks/streaming.py [--json]

A step takes 100 ms of each stream and gives the logits of 5 frames: what a
server computes ten times a second for all its sockets together. Each number of
threads is a process of its own, held to as many cores. Prints, for each number
of streams:

    p50, p98   milliseconds of a step on the wall, half and 98 % of all
    cpu        milliseconds of a step on the processor, the median: what it
               would take if nothing else ran
    rtf        seconds of computing for each second that passes, from the mean;
               above 1 the streams cannot be kept up with

With `--json`, the last line holds the same, by threads and streams.
"""

import argparse
import json
import os
import subprocess
import sys
import time

import numpy as np


def percentiles(seconds: list[float]) -> dict[str, float]:
    """Half and 98 % of all steps took no longer, in milliseconds."""
    p50, p98 = np.percentile(seconds, [50, 98]) * 1000
    return {"p50": round(float(p50), 2), "p98": round(float(p98), 2)}


def measure(step, num_streams: int, num_steps: int) -> dict[str, float]:
    """Steps, after a few that do not count."""
    generator = np.random.default_rng(0)
    size = (num_streams, step.chunk_size)
    samples = generator.normal(0, 0.1, size).astype("float32")
    full = np.full(num_streams, step.chunk_size, "int32")
    state = step.initial_state(num_streams)
    wall, cpu = [], []
    for _ in range(10 + num_steps):
        start, cpu_start = time.perf_counter(), time.process_time()
        logits, _, state = step(state, samples, full)
        logits.numpy()
        wall.append(time.perf_counter() - start)
        cpu.append(time.process_time() - cpu_start)
    duration = step.chunk_size / step.sampling_rate
    return {
        **percentiles(wall[10:]),
        "cpu": percentiles(cpu[10:])["p50"],
        "rtf": round(float(np.mean(wall[10:])) / duration, 3),
    }


def work(options: argparse.Namespace) -> None:
    """Prints one line for each number of streams."""
    threads = options.threads[0]
    cores = sorted(os.sched_getaffinity(0))[:threads]
    if len(cores) < threads:
        raise SystemExit(f"There are only {len(cores)} cores.")
    os.sched_setaffinity(0, cores)
    import tensorflow as tf

    import keras_ds2

    tf.config.threading.set_intra_op_parallelism_threads(threads)
    tf.config.threading.set_inter_op_parallelism_threads(threads)
    step = keras_ds2.StreamingStep(
        keras_ds2.DeepSpeech2(dtype=options.dtype),
        chunk_duration=options.chunk_duration,
    )
    for num_streams in options.streams:
        result = measure(step, num_streams, options.steps)
        print(json.dumps([num_streams, result]), flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--streams", type=int, nargs="+", default=[1, 10, 50])
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--chunk-duration", type=float, default=0.1)
    parser.add_argument("--dtype", default="float32")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--worker", action="store_true", help="for itself")
    options = parser.parse_args()
    if options.worker:
        work(options)
        return
    results: dict[str, dict[str, dict[str, float]]] = {}
    for threads in options.threads:
        arguments = [a for a in sys.argv[1:] if a != "--json"]
        process = subprocess.Popen(
            [sys.executable, __file__, *arguments, "--worker"]
            + ["--threads", str(threads)],
            stdout=subprocess.PIPE,
            text=True,
        )
        assert process.stdout is not None
        for line in process.stdout:
            num_streams, result = json.loads(line)
            results.setdefault(str(threads), {})[str(num_streams)] = result
            print(
                f"{threads} threads, {num_streams} streams: "
                + ", ".join(f"{name} {x:g}" for name, x in result.items()),
                flush=True,
            )
        if process.wait():
            raise SystemExit(f"With {threads} threads it failed; see above.")
    if options.json:
        print(json.dumps(results))


if __name__ == "__main__":
    main()
