"""Measures the peak memory of a training step of the reference model.

    python benchmarks/memory.py [--quick] [--json]

Each row is a process of its own that takes two steps on noise; the peak is the
process's largest resident set. The first row is a process that has imported
TensorFlow and the package and trains nothing; the others contain that much.
They show what matters: frames per batch at one length, the length at one number
of frames, and the longest utterance alone. With `--device cuda:0` it is the
peak of the GPU's memory instead, as TensorFlow counts what it allocated there.
"""

import argparse
import json
import resource
import subprocess
import sys

ROWS = (
    (0, 0),
    (1, 1),
    (4, 8),
    (8, 8),
    (16, 8),
    (32, 8),
    (8, 16),
    (4, 32),
    (1, 35),
)
FRAMES_PER_SECOND = 100


def work(clips, seconds, policy, device):
    """Prints the peak in MiB; takes no step of no clips."""
    import ours
    import tensorflow as tf

    import keras_ds2

    keras_ds2.use_device(device)
    if clips:
        batch = ours.make_batch(clips, seconds)
        step, _ = ours.make_step(batch, policy)
        for _ in range(2):
            step()
    if device != "cpu":
        print(tf.config.experimental.get_memory_info("GPU:0")["peak"] / 2**20)
        return
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    # Kibibytes, but bytes on macOS.
    print(peak / (2**20 if sys.platform == "darwin" else 2**10))


def measure(clips, seconds, policy, device):
    command = [
        *(sys.executable, __file__, "--device", device),
        *("--worker", str(clips), str(seconds), policy),
    ]
    result = subprocess.run(
        command, stdout=subprocess.PIPE, text=True, check=True
    )
    return float(result.stdout.split()[-1])


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="two rows only")
    parser.add_argument("--device", default="cpu", help="cpu or cuda:N")
    parser.add_argument("--json", action="store_true", help="JSON at the end")
    parser.add_argument("--worker", nargs=3, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.worker:
        clips, seconds, policy = options.worker
        return work(int(clips), float(seconds), policy, options.device)
    rows = ROWS[:2] if options.quick else ROWS
    policies = ("float32", "mixed_bfloat16")
    print(f"{'clips x seconds':>16}{'frames':>8}", end="")
    print("".join(f"{policy + ', MiB':>22}" for policy in policies))
    results = []
    for clips, seconds in rows:
        frames = clips * seconds * FRAMES_PER_SECOND
        print(f"{clips:>11} x {seconds:2}{frames:8}", end="", flush=True)
        peaks = {}
        for policy in policies:
            peaks[policy] = round(
                measure(clips, seconds, policy, options.device)
            )
            print(f"{peaks[policy]:22}", end="", flush=True)
        print()
        results.append({"clips": clips, "seconds": seconds, **peaks})
    if options.json:
        print(json.dumps({"mebibytes": results}))


if __name__ == "__main__":
    main()
