"""Weighs what `keras-ds2 export` writes against TensorFlow: size, speed, WER.

    python benchmarks/export.py --data validation.jsonl [--model an4]
    python benchmarks/export.py --streaming

The first scores a trained model on a manifest, with TensorFlow, with ONNX
Runtime, and, if it has LSTMs, with its matrices in 8 bits; the second times one
step of 100 ms of the reference model, with random weights. One thread each, and
its processor time, which other work on the machine hardly changes; they take
turns all the same. Prints, for each:

    MB       size of the file
    rtf      seconds of computing for a second of speech, by batch size
    ms       milliseconds of a step, by the number of streams
    ratio    TensorFlow's time by its time
    WER, CER greedy, all edits over all words

With `--json` the last line holds the same.
"""

import argparse
import itertools
import json
import os
import pathlib
import tempfile
import time
from typing import Any

import jiwer
import keras
import numpy as np
import onnxruntime
import tensorflow as tf

import keras_ds2
from keras_ds2.audio import pad_samples

Results = dict[str, dict[str, Any]]


def open_session(path: str) -> onnxruntime.InferenceSession:
    """A session of one thread."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    return onnxruntime.InferenceSession(path, options)


def clock(programs: dict[str, Any], inputs: list[Any]) -> Results:
    """Runs all programs on each input in turn; the first input twice."""
    seconds = dict.fromkeys(programs, 0.0)
    outputs: dict[str, list] = {name: [] for name in programs}
    for i, item in enumerate([inputs[0], *inputs]):
        for name, program in programs.items():
            begun = time.process_time()
            output = program(item)
            if i:
                seconds[name] += time.process_time() - begun
                outputs[name].append(output)
    return {
        name: {"seconds": seconds[name], "outputs": outputs[name]}
        for name in programs
    }


def compare_models(options: argparse.Namespace, folder: str) -> Results:
    """Whole utterances: size, speed by batch size, error rates."""
    if options.model.endswith(".keras"):
        model = keras.models.load_model(options.model, compile=False)
    else:
        model = keras_ds2.load_pretrained(options.model)
    sessions, results = {}, {}
    model.save_weights(os.path.join(folder, "tensorflow.weights.h5"))
    # ONNX Runtime has 8 bits for the LSTM alone.
    has_lstm = model.get_config()["rnn_type"] == "lstm"
    for name, int8 in (("onnx", False), ("onnx int8", True))[: 1 + has_lstm]:
        path = os.path.join(folder, f"{name}.onnx")
        keras_ds2.export_model(model, path, int8=int8)
        sessions[name] = open_session(path)
    for name in ("tensorflow", *sessions):
        [file] = pathlib.Path(folder).glob(f"{name}.*")
        results[name] = {"MB": round(file.stat().st_size / 1e6, 1)}

    def run_onnx(session):
        return lambda x: session.run(["logits", "logit_length"], x)

    run = tf.function(model, reduce_retracing=True)

    def run_tensorflow(x):
        y = run({name: tf.constant(value) for name, value in x.items()})
        return y["logits"].numpy(), y["logit_length"].numpy()

    programs = {"tensorflow": run_tensorflow}
    programs |= {name: run_onnx(s) for name, s in sessions.items()}
    utterances = keras_ds2.data.read_manifest(options.data)
    rows = sorted(utterances, key=lambda row: row.duration)
    clips = [model.load_recording(row.audio) for row in rows]
    texts = [row.text for row in rows]
    duration = sum(map(len, clips)) / model.get_layer("log_mel").sampling_rate
    for size in options.batch_sizes:
        batches = [
            pad_samples(clips[i : i + size]) for i in range(0, len(clips), size)
        ]
        clocked = clock(programs, batches)
        for name, result in clocked.items():
            decoded = (model.decode(*y) for y in result["outputs"])
            heard = list(itertools.chain.from_iterable(decoded))
            results[name] |= {
                f"rtf, batch {size}": round(result["seconds"] / duration, 4),
                f"ratio, batch {size}": round(
                    clocked["tensorflow"]["seconds"] / result["seconds"], 2
                ),
                "WER": round(jiwer.wer(texts, heard), 4),
                "CER": round(jiwer.cer(texts, heard), 4),
            }
    return results


def compare_steps(options: argparse.Namespace, folder: str) -> Results:
    """One step of the reference model, by the number of streams."""
    model = keras_ds2.DeepSpeech2()
    step = keras_ds2.StreamingStep(model)
    results: Results = {"tensorflow": {}, "onnx": {}, "onnx int8": {}}
    sessions = {}
    for name in ("onnx", "onnx int8"):
        path = os.path.join(folder, f"{name}.onnx")
        keras_ds2.export_model(
            model, path, streaming=True, int8=name == "onnx int8"
        )
        sessions[name] = open_session(path)
        results[name]["MB"] = round(os.path.getsize(path) / 1e6, 1)

    def run_onnx(session):
        metadata = session.get_modelmeta().custom_metadata_map
        shapes = json.loads(metadata["state"])
        names = [output.name for output in session.get_outputs()]
        states: dict[int, dict] = {}

        def run(x):
            state = states.setdefault(
                len(x),
                {
                    name: np.zeros((len(x), *value["shape"]), value["dtype"])
                    for name, value in shapes.items()
                },
            )
            full = np.full(len(x), step.chunk_size, "int32")
            y = session.run(names, {**state, "samples": x, "num_samples": full})
            values = dict(zip(names, y, strict=True))
            states[len(x)] = {name: values[f"next_{name}"] for name in state}

        return run

    states: dict[int, Any] = {}

    def run_tensorflow(x):
        state = states.get(len(x)) or step.initial_state(len(x))
        full = np.full(len(x), step.chunk_size, "int32")
        logits, _, states[len(x)] = step(state, x, full)
        logits.numpy()

    programs = {"tensorflow": run_tensorflow}
    programs |= {name: run_onnx(s) for name, s in sessions.items()}
    generator = np.random.default_rng(0)
    for size in options.batch_sizes:
        shape = (size, step.chunk_size)
        chunk = generator.normal(0, 0.1, shape).astype("float32")
        clocked = clock(programs, [chunk] * options.steps)
        for name, result in clocked.items():
            seconds = result["seconds"] / options.steps
            results[name] |= {
                f"ms, {size} streams": round(1000 * seconds, 2),
                f"ratio, {size} streams": round(
                    clocked["tensorflow"]["seconds"] / result["seconds"], 2
                ),
            }
    return results


def main(argv=None) -> Results:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--model", default="an4", help="name or .keras file")
    parser.add_argument("--data", help="manifest (.jsonl)")
    parser.add_argument("--streaming", action="store_true")
    parser.add_argument("--batch-sizes", type=int, nargs="+", default=[1, 10])
    parser.add_argument("--steps", type=int, default=100)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args(argv)
    if not options.streaming and not options.data:
        parser.error("--data or --streaming is needed.")
    with tempfile.TemporaryDirectory() as folder:
        compare = compare_steps if options.streaming else compare_models
        results = compare(options, folder)
    for name, result in results.items():
        values = ", ".join(f"{key} {value}" for key, value in result.items())
        print(f"{name}: {values}")
    if options.json:
        print(json.dumps(results))
    return results


if __name__ == "__main__":
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:1])
    tf.config.threading.set_intra_op_parallelism_threads(1)
    tf.config.threading.set_inter_op_parallelism_threads(1)
    main()
