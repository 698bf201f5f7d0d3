"""Measures the way from files to batches, and who waits for whom.

    python benchmarks/input_pipeline.py --data train.jsonl --json

- Utterances per second from FLAC and from Opus, plain and with changes of
  speed: copies of the bundled clips, decoded by a stream that nobody holds up.
- Padding efficiency by batch size and by budget of frames, on the durations
  of a manifest (`--data`; without it, of the bundled clips, which are few).
  Only headers are read.
- The share of training steps that is spent waiting for data: the time of
  `next(iterator)` beside that of the step. Below 2 % is the aim.
- What the pipeline costs in all: decoding also takes cores from the step. The
  same batches are trained on again when nothing decodes any more; the overhead
  is the time of waiting and stepping over that of these steps, less 1.

With `--json`, the last line holds all figures.
"""

import argparse
import json
import os
import pathlib
import statistics
import tempfile
import time

# Before TensorFlow is imported: its start-up lines frighten without need.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np
import soundfile

import keras_ds2
from keras_ds2.data import Augmentation, SpeechDataset

CLIPS = pathlib.Path(__file__).parent.parent / "tests/data/LibriSpeech"
FORMATS = {"flac": {}, "opus": {"format": "OGG", "subtype": "OPUS"}}
SIZES = {
    "reference": {},
    "small": dict(
        conv_strides=((2, 2), (2, 2)),
        num_rnn_layers=3,
        rnn_units=320,
        dense_units=320,
    ),
    "tiny": dict(
        conv_filters=(4, 4),
        conv_kernel_sizes=((5, 9), (5, 5)),
        num_rnn_layers=1,
        rnn_units=16,
        dense_units=16,
    ),
}


def parse_arguments(argv=None):
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--data", help="manifest, for its durations")
    parser.add_argument("--size", default="small", choices=SIZES)
    parser.add_argument("--batch-size", type=int, default=8)
    parser.add_argument("--seconds", type=float, default=5, help="of reading")
    parser.add_argument("--steps", type=int, default=20, help="of training")
    parser.add_argument("--json", action="store_true")
    parser.add_argument(
        "--device", help="cpu or cuda:N; by default, TensorFlow's choice"
    )
    return parser.parse_args(argv)


def bundled_rows():
    rows = keras_ds2.data.read_librispeech(CLIPS, ["train-clips", "dev-clips"])
    return keras_ds2.data.add_durations(rows, progress=False)[0]


def copies(rows, suffix, folder):
    """Writes the rows' files in one format; returns each row eight times."""
    result = []
    for i, row in enumerate(rows):
        path = os.path.join(folder, f"{i}.{suffix}")
        samples = keras_ds2.load_audio(row.audio)
        soundfile.write(path, samples, 16000, **FORMATS[suffix])
        result.append(row._replace(audio=path))
    return 8 * result


def reading_speed(rows, seconds, augmentation=None):
    """Utterances, and seconds of speech, per second."""
    dataset = SpeechDataset(rows, 8, augmentation=augmentation)
    iterator = iter(dataset.stream())
    for _ in range(4):  # until all threads are at work
        next(iterator)
    start = time.perf_counter()
    num_utterances = num_samples = 0
    while time.perf_counter() - start < seconds:
        x, _ = next(iterator)
        num_utterances += len(x["audio_length"])
        num_samples += int(np.sum(x["audio_length"]))
    elapsed = time.perf_counter() - start
    return {
        "utterances_per_second": num_utterances / elapsed,
        "speech_per_second": num_samples / 16000 / elapsed,
    }


def random_efficiency(rows, batch_size):
    """What batches of utterances in any order would have."""
    durations = np.array([row.duration for row in rows])
    np.random.default_rng(0).shuffle(durations)
    starts = range(0, len(durations), batch_size)
    batches = [durations[start : start + batch_size] for start in starts]
    return durations.sum() / sum(len(b) * b.max() for b in batches)


def padding(rows):
    """Padding efficiency by batch size, and by budget of frames."""
    table = []
    for batch_size in (2, 8, 32, 128):
        dataset = SpeechDataset(rows, batch_size)
        table.append(
            {
                "batch_size": batch_size,
                "max_frames_per_batch": None,
                "batches": len(dataset),
                "efficiency": dataset.padding_efficiency,
                "in_any_order": random_efficiency(rows, batch_size),
            }
        )
    for budget in (5_000, 20_000, 80_000):
        dataset = SpeechDataset(rows, 512, max_frames_per_batch=budget)
        table.append(
            {
                "batch_size": 512,
                "max_frames_per_batch": budget,
                "batches": len(dataset),
                "efficiency": dataset.padding_efficiency,
            }
        )
    return table


def waiting(rows, size, batch_size, num_steps):
    """Medians of waiting and of training, the share of waiting, the overhead.

    The overhead compares two runs of the same steps, one after the other, so
    it is as exact as the machine is quiet, and may come out below zero.
    """
    dataset = SpeechDataset(rows, batch_size)
    model = keras_ds2.DeepSpeech2(**SIZES[size])
    if model.normalize:
        model.adapt(dataset.one_pass(), steps=2)
    model.compile(keras.optimizers.Adam(1e-4))
    iterator = iter(dataset.stream())
    waits, steps, cached, batches = [], [], [], []
    for _ in range(num_steps + 3):
        start = time.perf_counter()
        x, y = next(iterator)
        middle = time.perf_counter()
        model.train_on_batch(x, y)
        waits.append(middle - start)
        steps.append(time.perf_counter() - middle)
        batches.append((x, y))
    waits, steps = waits[3:], steps[3:]  # the first compile
    del iterator  # ends its threads
    for x, y in batches:
        start = time.perf_counter()
        model.train_on_batch(x, y)
        cached.append(time.perf_counter() - start)
    cached = cached[3:]
    return {
        "model": size,
        "batch_size": batch_size,
        "wait_ms": 1e3 * statistics.median(waits),
        "step_ms": 1e3 * statistics.median(steps),
        "cached_step_ms": 1e3 * statistics.median(cached),
        "share_waiting": sum(waits) / (sum(waits) + sum(steps)),
        "overhead": (sum(waits) + sum(steps)) / sum(cached) - 1,
    }


def main(argv=None):
    args = parse_arguments(argv)
    if args.device:
        keras_ds2.use_device(args.device)
    clips = bundled_rows()
    figures: dict = {"cores": os.cpu_count(), "reading": {}}

    print(f"Reading, {args.seconds:g} s each, on {figures['cores']} cores")
    with tempfile.TemporaryDirectory() as folder:
        for suffix in FORMATS:
            rows = copies(clips, suffix, folder)
            for name, augmentation in (
                (suffix, None),
                (f"{suffix}, speeds", Augmentation((0.9, 1.0, 1.1))),
            ):
                speed = reading_speed(rows, args.seconds, augmentation)
                figures["reading"][name] = speed
                print(
                    f"  {name:<14}"
                    f"{speed['utterances_per_second']:>8.0f} utterances/s"
                    f"{speed['speech_per_second']:>8.0f} s of speech/s"
                )
        rows = copies(clips, "flac", folder)
        figures["waiting"] = waiting(
            rows, args.size, args.batch_size, args.steps
        )

    if args.data:
        listed = keras_ds2.data.read_manifest(args.data)
        clips = keras_ds2.data.add_durations(listed, progress=False)[0]
    figures["utterances"] = len(clips)
    figures["padding"] = padding(clips)
    print(f"Padding efficiency, {len(clips):,} utterances")
    print("  batch size    frames  batches  by length  in any order")
    for row in figures["padding"]:
        any_order = row.get("in_any_order")
        print(
            f"  {row['batch_size']:>10}"
            f"{row['max_frames_per_batch'] or '-':>10}"
            f"{row['batches']:>9,}{row['efficiency']:>11.1%}"
            + (f"{any_order:>14.1%}" if any_order else "")
        )

    row = figures["waiting"]
    print(
        f"Training, {row['model']} model, batch size {row['batch_size']}: "
        f"{row['step_ms']:.0f} ms a step, {row['wait_ms']:.2f} ms of waiting "
        f"for data, {row['share_waiting']:.2%} of the time; "
        f"{row['cached_step_ms']:.0f} ms a step when nothing decodes, "
        f"{row['overhead']:+.1%} in all"
    )
    if args.json:
        print(json.dumps(figures))
    return figures


if __name__ == "__main__":
    main()
