"""Prints where the time of a training step of the reference model goes.

    python benchmarks/profile_step.py [--policy mixed_bfloat16] [--top 40]

TensorFlow's profiler records one step on one thread; the durations of all
operations are added up by layer and operation. Gradients of our own carry no
layer's name: `while`, `while_1` and so on are the loops of the recurrent
layers, from the last to the first, and then that of the second convolution's
kernel; `MatMul` are the gradients of recurrent kernels and sums of rows;
`cond` is the optimizer.
"""

import argparse
import collections
import pathlib
import re
import tempfile

import ours
import tensorflow as tf

ROOT = "StatefulPartitionedCall/"
# They last as long as what they call.
CALLS = ("While", "If", "PartitionedCall", "StatefulPartitionedCall")


def record(step):
    """The names and milliseconds of all operations of a step."""
    # Ships with TensorFlow, which documents no reader of its own records.
    from tensorflow.tsl.profiler.protobuf import xplane_pb2

    space = xplane_pb2.XSpace()
    with tempfile.TemporaryDirectory() as folder:
        tf.profiler.experimental.start(folder)
        step()
        tf.profiler.experimental.stop()
        [path] = pathlib.Path(folder).rglob("*.xplane.pb")
        space.ParseFromString(path.read_bytes())
    return [
        (plane.event_metadata[event.metadata_id].name, event.duration_ps / 1e9)
        for plane in space.planes
        for line in plane.lines
        for event in line.events
    ]


def part(name):
    """The layer, or the operation outside of layers, and its kind."""
    path, kind = name.removeprefix(ROOT).rsplit(":", 1)
    path = re.sub(r"deep_speech_2(_\d+)?/", "", path)
    backward = path.startswith("gradient_tape/")
    scopes = path.removeprefix("gradient_tape/").split("/")
    layer, loop = scopes[0], ""
    if not layer.startswith("while"):
        layer = re.sub(
            r"^((?:conv|rnn)_\d+\w*?|[A-Za-z_]+?)_\d+$", r"\1", layer
        )
        loop = " loop" * ("while" in scopes)
    return f"{'gradient of ' * backward}{layer}{loop}", kind.lstrip("_")


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--policy", default="float32")
    parser.add_argument("--clips", type=int, default=16)
    parser.add_argument("--seconds", type=float, default=8.0)
    parser.add_argument("--top", type=int, default=40, help="parts to print")
    options = parser.parse_args()
    tf.config.threading.set_intra_op_parallelism_threads(1)
    tf.config.threading.set_inter_op_parallelism_threads(1)
    batch = ours.make_batch(options.clips, options.seconds)
    step, _ = ours.make_step(batch, options.policy)
    for _ in range(2):  # traces, allocates
        step()
    parts: collections.Counter = collections.Counter()
    for name, milliseconds in record(step):
        if name.startswith(ROOT) and not name.endswith(CALLS):
            parts[part(name)] += milliseconds
    for (layer, kind), milliseconds in parts.most_common(options.top):
        print(f"{milliseconds:10.1f} ms  {layer:32}{kind}")
    print(f"{sum(parts.values()):10.1f} ms  all operations")


if __name__ == "__main__":
    main()
