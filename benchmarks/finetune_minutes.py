"""What fine-tuning saves: WER against minutes of speech, with and without it.

    python benchmarks/finetune_minutes.py --model en-read --data FOLDER \\
        --train train.jsonl --validation validation.jsonl --minutes 5 15 40

For each number of minutes two arms train on the same utterances, drawn by
`--seed`, the fewer among the more: `finetuned` by the recipe of
examples/finetune.py, and `scratch`, the same network (without the second one
that spells, if the model has one) from random weights, all layers at once: a
learning rate that rises to 0.001 in 2 passes and falls to 0 as a cosine in 19,
or as many as make 1000 steps in all, more than the other arm has. Both have the
same batches, augmentation and precision, and are judged by their last weights.
The model before any training counts as 0 minutes.

Each arm adds a row to OUTPUT/rows.jsonl. Those that are there are skipped, and
an arm that was killed goes on: give the same command again. `--plot` then draws
all rows of this model, data, seed and recipe.
"""

import argparse
import gc
import hashlib
import importlib.util
import json
import math
import os
import sys
import time
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras

import keras_ds2
from keras_ds2.training.figures import import_pyplot

SCRATCH_EPOCHS = 20
SCRATCH_STEPS = 1000
SCRATCH_WARMUP_EPOCHS = 2
SCRATCH_LEARNING_RATE = 1e-3
# Behind a first network that hears nothing yet, a second one only keeps it from
# learning (docs/fine_tuning.md has figures).
SCRATCH_SPELLING_LAYERS = 0
# Passes between validations and backups.
EPOCHS_PER_ROUND = 3
LABELS = {"finetuned": "fine-tuned", "scratch": "from scratch"}


def load_example():
    path = Path(__file__).parent.parent / "examples" / "finetune.py"
    spec = importlib.util.spec_from_file_location("finetune_example", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def read_recipe(example):
    """What the figures depend on that is no argument: all constants."""
    constants = vars(example) | globals()
    recipe = {name: constants[name] for name in constants if name.isupper()}
    return json.loads(json.dumps(recipe))  # as rows.jsonl gives it back


def digest(content):
    return hashlib.sha256(content).hexdigest()[:12]


def read_manifests(options):
    """Tells manifests of the same name apart."""
    names = options.train, options.validation
    return [digest(Path(options.data, name).read_bytes()) for name in names]


def read_weights(model):
    """Tells the weights of two models of the same name apart."""
    path = Path(model)
    if path.suffix != ".keras":
        path = Path(keras_ds2.pretrained_weights(model))
    return digest(path.read_bytes())


def train_from_scratch(example, folder, model, data):
    """Trains the network anew; returns it."""
    training = data[0]
    config = model.get_config()
    if config.get("num_spelling_layers"):
        config["num_spelling_layers"] = SCRATCH_SPELLING_LAYERS
        config["heard_alphabet"] = None
    fresh = type(model).from_config(config)
    fresh.adapt(training.one_pass())
    epochs = max(SCRATCH_EPOCHS, math.ceil(SCRATCH_STEPS / len(training)))
    example.train_stage(
        folder,
        fresh,
        data,
        math.ceil(epochs / EPOCHS_PER_ROUND) * EPOCHS_PER_ROUND,
        SCRATCH_LEARNING_RATE,
        SCRATCH_WARMUP_EPOCHS,
        EPOCHS_PER_ROUND,
        same_start=False,  # random
    )
    return fresh


def score(model, validation):
    """Error rates, with the interval of words."""
    result = keras_ds2.evaluate(model, validation)
    rate, _ = result.estimates()
    low, high = (None if math.isnan(x) else x for x in (rate.low, rate.high))
    return {
        "wer": result.wer,
        "low": low,
        "high": high,
        "cer": result.cer,
        "words": rate.edits.units,
        "resampled": rate.resampled,
    }


def run_arm(example, options, folder, arm, minutes):
    """Trains and scores; a dictionary of figures."""
    keras.backend.clear_session()
    gc.collect()
    keras.utils.set_random_seed(options.seed)
    args = example.parse_arguments(
        [f"--model={options.model}", f"--data={options.data}"]
        + [f"--train={options.train}", f"--validation={options.validation}"]
        + [f"--output={folder}", f"--minutes={minutes or math.inf}"]
        + [f"--seed={options.seed}", f"--device={options.device}"]
        + [f"--mixed-precision={options.mixed_precision}"]
    )
    begun = time.perf_counter()
    manifests = example.read(args)
    _, model = example.load(args, manifests)
    data = training, validation = example.prepare(args, model, manifests)
    if arm == "scratch":
        model = train_from_scratch(example, folder, model, data)
    elif arm == "finetuned":
        example.finetune(args, model, data)
    return {
        "exact_minutes": training.duration / 60 if minutes else 0.0,
        "utterances": sum(map(len, training.batches)) if minutes else 0,
        **score(model, validation),
        # Of this process: less than all of them if it was killed before.
        "seconds": round(time.perf_counter() - begun),
    }


def read_rows(path):
    if not path.exists():
        return []
    return [json.loads(line) for line in path.read_text().splitlines()]


def draw(rows, model, path):
    """Draws WER against minutes, with the intervals of the rows."""
    pyplot = import_pyplot()
    figure, axes = pyplot.subplots(figsize=(6, 4))
    for arm, label in LABELS.items():
        chosen = sorted(
            (row for row in rows if row["arm"] == arm),
            key=lambda row: row["exact_minutes"],
        )
        ends = [
            [
                0.0 if row[end] is None else 100 * abs(row[end] - row["wer"])
                for row in chosen
            ]
            for end in ("low", "high")
        ]
        axes.errorbar(
            [row["exact_minutes"] for row in chosen],
            [100 * row["wer"] for row in chosen],
            ends,
            label=label,
            marker="o",
            capsize=3,
        )
    for row in rows:
        if row["arm"] == "pretrained":
            label = f"{model}, not trained further"
            axes.axhline(100 * row["wer"], ls="--", color="gray", label=label)
    ticks = sorted({row["minutes"] for row in rows if row["minutes"]})
    axes.set_xscale("log")
    axes.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
    axes.minorticks_off()
    axes.set(xlabel="minutes of training speech", ylabel="WER in %")
    axes.set_ylim(0, None)
    axes.grid(alpha=0.3)
    axes.legend()
    figure.tight_layout()
    figure.savefig(path, dpi=120)
    pyplot.close(figure)


def main(argv=None):
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--model", required=True)
    parser.add_argument("--data", default=".", help="folder of the manifests")
    parser.add_argument("--train", required=True, help="manifest")
    parser.add_argument("--validation", required=True, help="manifest")
    parser.add_argument("--minutes", type=float, nargs="+", default=[5, 15, 40])
    parser.add_argument("--output", default="runs/finetune-benchmark")
    parser.add_argument("--plot", metavar="PNG", help="figure to draw")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--mixed-precision", default="auto")
    options = parser.parse_args(argv)
    if not all(minutes > 0 for minutes in options.minutes):
        parser.error("--minutes must be more than 0")
    if options.plot:
        import_pyplot()  # missing, now and not after hours
    example = load_example()
    names = ("model", "data", "train", "validation", "seed", "mixed_precision")
    common = {name: getattr(options, name) for name in names}
    common["recipe"] = read_recipe(example)
    common["weights"] = read_weights(options.model)
    common["manifests"] = read_manifests(options)
    experiment = digest(json.dumps(common, sort_keys=True).encode())
    path = Path(options.output, "rows.jsonl")
    path.parent.mkdir(parents=True, exist_ok=True)
    arms = [(arm, m) for m in sorted(options.minutes) for arm in LABELS]
    for arm, minutes in [("pretrained", 0.0), *arms]:
        settings = {**common, "arm": arm, "minutes": minutes}
        if not any(settings.items() <= row.items() for row in read_rows(path)):
            print(f"=== {arm}, {minutes:g} minutes ===", flush=True)
            folder = f"{options.output}/{experiment}/{arm}-{minutes:g}min"
            row = settings | run_arm(example, options, folder, arm, minutes)
            with open(path, "a") as file:
                print(json.dumps(row, allow_nan=False), file=file)
    rows = [row for row in read_rows(path) if common.items() <= row.items()]
    for row in rows:
        print(
            f"{row['arm']}, {row['minutes']:g} minutes: WER "
            f"{100 * row['wer']:.1f} %, CER {100 * row['cer']:.1f} %"
        )
    if options.plot:
        draw(rows, options.model, options.plot)
    return rows


if __name__ == "__main__":
    try:
        main()
    except (ValueError, OSError) as error:
        sys.exit(str(error))
