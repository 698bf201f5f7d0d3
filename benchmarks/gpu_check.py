"""Checks on a GPU what tests can only check on a CPU.

    python benchmarks/gpu_check.py [--device cuda:0] [--quick]

From the root of a checkout, for the clips are among the tests' data. Prints one
line for each check: what it found, and whether that is right. What a CPU
computes comes from a process of its own that sees no GPU: layers and Keras
choose other operations wherever a GPU is visible. Then, without `--quick`, the
other benchmarks run on the same device: `train_step.py` (ours and stock Keras;
PyTorch's variants are for a CPU), `memory.py` and `input_pipeline.py`; of these
it is only checked that they end well, and the figures are printed. `ctc.py`
compares CPU code and is left out.

Exit status: 0 where all is right, 1 where a check failed, 2 where there is no
GPU. `--device cpu` runs what makes sense on a CPU; the comparisons are then of
two processes on one CPU. They show that this program works, nothing else.
"""

import argparse
import json
import os
import pathlib
import statistics
import subprocess
import sys
import tempfile
import time
import traceback

import keras
import numpy as np
import ours
import tensorflow as tf
import train_step

import keras_ds2

CLIPS = pathlib.Path("tests/data/LibriSpeech")
# A GPU adds up in another order, cuDNN and cuBLAS with other kernels.
TOLERANCE = 2e-3
# The logits of the two reserved symbols are constants, and huge.
NUM_LEARNED = ours.SYMBOLS - 2
SMALL = {
    "num_rnn_layers": 2,
    "rnn_units": 64,
    "dense_units": 64,
    "dropout": 0.0,
}


class Checks:
    def __init__(self):
        self.failed = 0

    def run(self, name, check):
        try:
            result, passed = check()
        except Exception as error:
            traceback.print_exc()
            result, passed = f"{type(error).__name__}: {error}", False
        self.failed += not passed
        text = str(result).splitlines()[0][:90]
        print(f"{name:38}{'pass' if passed else 'FAIL':6}{text}", flush=True)


def load_batch():
    """Six real clips with letters for transcripts.

    None is empty: cuDNN takes no row without a real frame.
    """
    paths = sorted((CLIPS / "train-clips").rglob("*.opus"))
    clips = [keras_ds2.load_audio(path) for path in paths]
    assert min(map(len, clips)) > 16000
    longest = max(map(len, clips))
    generator = np.random.default_rng(0)
    return {
        "audio": np.stack([np.pad(x, (0, longest - len(x))) for x in clips]),
        "audio_length": np.array([len(x) for x in clips], "int32"),
        "labels": generator.integers(2, 29, (len(clips), 30)).astype("int32"),
        "label_length": np.full(len(clips), 30, "int32"),
    }


def inputs_of(batch):
    return {name: batch[name] for name in ("audio", "audio_length")}


def small_model(**kwargs):
    keras.utils.set_random_seed(0)
    return keras_ds2.DeepSpeech2(normalize=False, **SMALL, **kwargs)


def logits_and_gradients(model, batch):
    with tf.GradientTape() as tape:
        outputs = model(inputs_of(batch), training=True)
        loss = model.compute_loss(y=batch, y_pred=outputs)
    weights = [weight.value for weight in model.trainable_variables]
    gradients = tape.gradient(loss, weights)
    mask = np.array(
        tf.sequence_mask(
            outputs["logit_length"], tf.shape(outputs["logits"])[1]
        )
    )
    logits = np.array(outputs["logits"])[mask]
    return [logits[:, :NUM_LEARNED], *map(np.array, gradients)]


def largest_difference(actual, expected):
    """Of the tensors, each in units of its largest number."""
    return max(
        float(np.abs(a - e).max() / max(np.abs(e).max(), 1e-6))
        for a, e in zip(actual, expected, strict=True)
    )


def check_placed(device):
    where = tf.constant(1.0) + 1.0
    return where.device, (device == "cpu") == ("CPU" in where.device)


def check_memory_growth():
    [gpu] = tf.config.get_visible_devices("GPU")
    growth = tf.config.experimental.get_memory_growth(gpu)
    return f"memory growth {growth}", growth


def operations(layer):
    """The names of all operations of a layer's training, as executed."""
    inputs = tf.random.normal((4, 20, 8))
    mask = tf.sequence_mask([20, 12, 7, 1], 20)

    @tf.function
    def step():
        with tf.GradientTape() as tape:
            loss = tf.reduce_sum(layer(inputs, mask=mask, training=True))
        return tape.gradient(loss, [w.value for w in layer.weights])

    layer(inputs, mask=mask)
    graph = step.get_concrete_function().graph.as_graph_def()
    names = {node.op for node in graph.node}
    for function in graph.library.function:
        names |= {node.op for node in function.node_def}
    return names


def check_cudnn(device, layer):
    found = sorted(n for n in operations(layer) if "CudnnRNN" in n)
    return ", ".join(found) or "no cuDNN operation", (device != "cpu") == bool(
        found
    )


def check_same_as_cpu(batch, **kwargs):
    """In float32: logits and gradients are those of a process without a GPU."""
    model = small_model(**kwargs)
    weights = deterministic_weights(model)
    model.set_weights(weights)
    actual = logits_and_gradients(model, batch)
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "task.npz")
        task = {f"batch_{name}": value for name, value in batch.items()}
        task |= {f"weight_{i}": weight for i, weight in enumerate(weights)}
        np.savez(path, kwargs=json.dumps(kwargs), **task)
        subprocess.run(
            [sys.executable, __file__, "--reference", path],
            env=ours.environment(CUDA_VISIBLE_DEVICES=""),
            check=True,
        )
        with np.load(path) as results:
            expected = [results[f"arr_{i}"] for i in range(len(results))]
    difference = largest_difference(actual, expected)
    return f"largest difference {difference:.1e}", difference < TOLERANCE


def write_reference(path):
    """Replaces a task by its results, in the process without a GPU."""
    assert not tf.config.list_logical_devices("GPU")
    with np.load(path) as task:
        kwargs = json.loads(str(task["kwargs"]))
        arrays = dict(task)
    model = small_model(**kwargs)
    num_weights = sum(name.startswith("weight_") for name in arrays)
    model.set_weights([arrays[f"weight_{i}"] for i in range(num_weights)])
    batch = {
        name.removeprefix("batch_"): value
        for name, value in arrays.items()
        if name.startswith("batch_")
    }
    np.savez(path, *logits_and_gradients(model, batch))


def deterministic_weights(model):
    generator = np.random.default_rng(1)
    return [
        np.abs(0.1 * generator.normal(size=weight.shape)).astype("float32")
        if "moving" in weight.path
        else (0.1 * generator.normal(size=weight.shape)).astype("float32")
        for weight in model.weights
        if "seed" not in weight.path
    ]


def check_padding(batch):
    """Neither padding nor neighbors change an utterance's logits."""
    model = small_model()
    together = model(inputs_of(batch))["logits"]
    padded = dict(batch, audio=np.pad(batch["audio"], [(0, 0), (0, 7777)]))
    longer = model(inputs_of(padded))["logits"]
    difference = 0.0
    for i, samples in enumerate(batch["audio_length"]):
        alone = model(
            {
                "audio": batch["audio"][i : i + 1, :samples],
                "audio_length": batch["audio_length"][i : i + 1],
            }
        )["logits"][0, :, :NUM_LEARNED]
        for other in (together, longer):
            found = other[i, : len(alone), :NUM_LEARNED]
            difference = max(difference, largest_difference([found], [alone]))
    return f"largest difference {difference:.1e}", difference < TOLERANCE


def check_loss_scaling(batch):
    model = small_model(dtype="mixed_float16")
    model.compile("adam")
    scaled = isinstance(model.optimizer, keras.optimizers.LossScaleOptimizer)
    before = [weight.numpy() for weight in model.trainable_weights]
    history = model.fit(inputs_of(batch), batch, epochs=5, verbose=0).history
    losses = history["loss"]
    moved = all(
        np.any(old != weight.numpy())
        for old, weight in zip(before, model.trainable_weights, strict=True)
    )
    passed = scaled and moved and bool(np.all(np.isfinite(losses)))
    name = type(model.optimizer).__name__
    return f"{name}, loss {losses[0]:.0f} to {losses[-1]:.0f}", passed


def check_fit(quick):
    """A real training on the bundled clips learns."""
    model = small_model()
    train = keras_ds2.data.prepare_dataset(
        CLIPS, ["train-clips"], model, batch_size=3
    )
    model.compile(keras.optimizers.Adam(2e-3))
    history = model.fit(
        train.one_pass(), epochs=10 if quick else 20, verbose=0
    ).history["loss"]
    passed = history[-1] < 0.8 * history[0]
    return f"loss {history[0]:.0f} to {history[-1]:.0f}", passed


def measure_speed(policy, quick):
    batch = ours.make_batch(*((2, 1.0) if quick else (16, 8.0)))
    step, _ = ours.make_step(batch, policy)
    if tf.config.get_visible_devices("GPU"):
        tf.config.experimental.reset_memory_stats("GPU:0")
    seconds = []
    for _ in range(2 if quick else 8):
        start = time.perf_counter()
        loss = step()
        seconds.append(time.perf_counter() - start)
    text = f"{1e3 * statistics.median(seconds[1:]):.0f} ms a step"
    if tf.config.get_visible_devices("GPU"):
        peak = tf.config.experimental.get_memory_info("GPU:0")["peak"]
        text += f", {peak / 2**20:.0f} MiB at most"
    return text, bool(np.isfinite(loss))


def check_benchmark(program, *arguments):
    """Runs another program of this folder, which prints its own figures."""
    path = pathlib.Path(__file__).with_name(program)
    command = [sys.executable, str(path), *arguments]
    start = time.perf_counter()
    status = subprocess.run(command, env=ours.environment()).returncode
    seconds = time.perf_counter() - start
    return f"exit status {status} after {seconds:.0f} s", status == 0


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--device", default="cuda:0", help="cuda:N or cpu")
    parser.add_argument("--quick", action="store_true", help="tiny timings")
    parser.add_argument("--reference", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.reference:
        return write_reference(options.reference)
    device = options.device
    if device != "cpu" and not tf.config.list_physical_devices("GPU"):
        print("TensorFlow sees no GPU here: nothing was checked.")
        return 2
    keras_ds2.use_device(device)
    # TensorFloat-32 keeps ten bits; the comparisons are of float32.
    tf.config.experimental.enable_tensor_float_32_execution(False)
    print(f"TensorFlow {tf.__version__}, Keras {keras.__version__}, {device}")
    checks, batch = Checks(), load_batch()
    checks.run("operations run on the device", lambda: check_placed(device))
    if device != "cpu":
        checks.run("memory is taken as needed", check_memory_growth)
    for layer in (keras_ds2.LSTM, keras_ds2.GRU):
        checks.run(
            f"cuDNN runs the {layer.__name__}, on a GPU only",
            lambda layer=layer: check_cudnn(
                device, layer(16, return_sequences=True)
            ),
        )
    for name, kwargs in (
        ("LSTM", {}),
        ("GRU, both directions", {"rnn_type": "gru", "bidirectional": True}),
        ("normalized projection", {"normalize_projection": True}),
        ("moving means", {"mean_momentum": 0.998}),
    ):
        checks.run(
            f"as a CPU: {name}",
            lambda kwargs=kwargs: check_same_as_cpu(batch, **kwargs),
        )
    checks.run("padding changes nothing", lambda: check_padding(batch))
    checks.run("float16 scales its loss", lambda: check_loss_scaling(batch))
    checks.run("fit learns the clips", lambda: check_fit(options.quick))
    policies = ["float32", "mixed_bfloat16"]
    if device != "cpu":
        tf.config.experimental.enable_tensor_float_32_execution(True)
        policies.append("mixed_float16")
    for policy in policies:
        checks.run(
            f"speed in {policy}",
            lambda policy=policy: measure_speed(policy, options.quick),
        )
    variants = [v for v in train_step.VARIANTS if not v.startswith("torch")]
    for program, *arguments in (
        ("train_step.py", "--variants", *variants),
        ("memory.py",),
        ("input_pipeline.py", "--size", "reference"),
    ):
        if options.quick:
            break
        print(f"\n{program} on {device}", flush=True)
        checks.run(
            f"{program} ends well",
            lambda program=program, arguments=arguments: check_benchmark(
                program, *arguments, "--device", device
            ),
        )
    print(f"{checks.failed} failed" if checks.failed else "all passed")
    return int(bool(checks.failed))


if __name__ == "__main__":
    sys.exit(main())
