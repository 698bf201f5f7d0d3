"""Teaches a trained recognizer to spell, from text.

    python examples/train_spelling.py --model en-read \\
        --train speech/train.jsonl --validation speech/LibriSpeech/dev-mini \\
        --text sentences.txt.gz

A second network (`DeepSpeech2(num_spelling_layers=2)`) takes what the
recognizer hears and writes it again. It is trained on sentences, one a line,
and on what would be heard of them, put together of what is heard of the
training speech; the recognizer itself does not change. A model that has a
second network already goes on with it. A run that was stopped goes on when the
same command is given again. Its folder receives `log.csv` and `model.keras`.
The recipe is explained in docs/english.md.
"""

import argparse
import gzip
import os
import sys

# Before TensorFlow is imported: its start-up lines frighten without need.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np

import keras_ds2
from keras_ds2.cli.shared import load_model
from keras_ds2.text import unknown_characters

SPELLING = dict(num_spelling_layers=2, spelling_units=512)
SPEEDS = (0.85, 0.9, 0.95, 1.0, 1.05, 1.1, 1.15)
GAIN = (-6.0, 6.0)
MAX_DURATION = 17.0  # seconds
HEARD_AT_ONCE = 24_000  # frames of 10 ms
CLIPNORM = 60.0
WARMUP_STEPS = 100
STEPS_PER_ROUND = 200


def parse_arguments(argv=None):
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("--model", default="en-read", help="shipped model, .keras or card")
    add("--train", nargs="+", required=True, help="manifests or folders; one "
        "that is named twice is heard twice, at other speeds")  # fmt: skip
    add("--shares", type=float, nargs="+", help="how often each of --train "
        "speaks; default: equally often")  # fmt: skip
    add("--text", required=True, help="sentences, one a line; may be .gz")
    add("--validation", nargs="+", required=True, help="manifests or folders")
    add("--run", default="runs/spelling", help="for the results")
    add("--rounds", type=int, default=75, help=f"of {STEPS_PER_ROUND} steps")
    add("--batch-size", type=int, default=40, help="utterances")
    add("--learning-rate", type=float, default=2e-3, help="Adam's, at most")
    add("--no-dropout", action="store_true", help="in the second network, for "
        "this training; give it again when it goes on")  # fmt: skip
    add("--seed", type=int, default=0)
    add("--device", default="auto", help="auto, cpu or cuda:N")
    add(
        "--mixed-precision",
        default="mixed_bfloat16",
        help="float32, mixed_float16 (a GPU) or mixed_bfloat16 (a recent CPU)",
    )
    args = parser.parse_args(argv)
    if args.shares and len(args.shares) != len(args.train):
        parser.error("--shares must be as many numbers as --train has names")
    if not all(share > 0 for share in args.shares or []):
        parser.error("--shares must be above 0")
    return args


def read_sentences(path, alphabet):
    read = gzip.open if path.endswith(".gz") else open
    with read(path, "rt", encoding="utf-8") as file:
        lines = [" ".join(line.split()) for line in file]
    for number, sentence in enumerate(lines, start=1):
        if unknown := unknown_characters(sentence, alphabet):
            raise ValueError(
                f"{path}, line {number}: the model lacks {unknown!r}. "
                "Spell it out, or leave the sentence out."
            )
    return [line for line in lines if line]


def hear(args, model):
    """Each corpus as unknown voices would be heard, and as known ones are."""
    augmentation = keras_ds2.data.Augmentation(SPEEDS, gain=GAIN)
    for number, name in enumerate(args.train):
        dataset = keras_ds2.data.prepare_dataset(
            os.curdir,
            [name],
            model,
            batch_size=128,
            seed=args.seed,
            max_duration=MAX_DURATION,
            on_invalid="skip",  # longer ones
            max_frames_per_batch=HEARD_AT_ONCE,
            augmentation=augmentation,
        )
        for pass_index, training in enumerate((True, False), start=2 * number):
            yield keras_ds2.HeardSpeech(model, dataset, training, pass_index)


def leave_out_dropout(spelling):
    """For this training only: a model that is loaded again has its own."""
    for layer in spelling.layers[-1].layers:
        if isinstance(layer, keras.layers.Dropout):
            layer.rate = 0.0


def main(argv=None):
    args = parse_arguments(argv)
    keras_ds2.use_device(args.device)
    precision = keras_ds2.use_mixed_precision(args.mixed_precision)
    keras.utils.set_random_seed(args.seed)
    _, model = load_model(args.model)
    arguments = {} if getattr(model, "num_spelling_layers", 0) else SPELLING
    model = keras_ds2.add_spelling(model, dtype=precision, **arguments)
    sentences = read_sentences(args.text, model.alphabet)
    validation = keras_ds2.data.prepare_dataset(
        os.curdir, args.validation, model, batch_size=32
    )
    print("Listens to the training speech: a minute or less for an hour of it.")
    shares = args.shares and np.repeat(args.shares, 2)
    imagined = keras_ds2.ImaginedSpeech(
        list(hear(args, model)),
        sentences,
        args.batch_size,
        shares=shares,
        seed=args.seed,
    )
    schedule = keras.optimizers.schedules.CosineDecay(
        0.0,
        decay_steps=args.rounds * STEPS_PER_ROUND - WARMUP_STEPS,
        warmup_target=args.learning_rate,
        warmup_steps=WARMUP_STEPS,
    )
    spelling = keras_ds2.SpellingModel(model)
    if args.no_dropout:
        leave_out_dropout(spelling)
    spelling.compile(keras.optimizers.Adam(schedule, global_clipnorm=CLIPNORM))
    spelling.fit(
        imagined.stream(),
        steps_per_epoch=STEPS_PER_ROUND,
        epochs=args.rounds,
        validation_data=keras_ds2.HeardSpeech(model, validation).one_pass(),
        verbose=2,
        callbacks=[
            keras_ds2.BackupAndRestore(
                f"{args.run}/backup", imagined, f"{args.run}/log.csv"
            ),
        ],
    )
    model.save(f"{args.run}/model.keras")
    result = keras_ds2.evaluate(model, validation)
    print(result.report(num_worst=6))
    return result


if __name__ == "__main__":
    try:
        main()
    except (ValueError, OSError) as error:
        sys.exit(str(error))
