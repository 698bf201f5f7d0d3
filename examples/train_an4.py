"""Trains either Deep Speech on CMU AN4: spelled letters, numbers, few words.

    python examples/train_an4.py --data an4

`an4` is the corpus as distributed (folders `etc` and `wav`). Eight of its
training speakers are kept for validation; `--all-speakers` trains on all. A
run that was stopped goes on when the same command is given again. Its folder
receives `log.csv`, `model.keras`, `curves.png`. The recipe is explained in
docs/an4.md.
"""

import argparse
import os
import sys
from typing import Any

# Before TensorFlow is imported: its start-up lines frighten without need.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras

import keras_ds2

# Narrow, for many utterances are a word or two.
SPEC_AUGMENT = dict(spec_augment=True, max_freq_width=15, max_time_width=12)
DEEP_SPEECH_2 = dict(
    **SPEC_AUGMENT,
    conv_strides=((2, 2), (2, 2)),  # 40 ms
    num_rnn_layers=3,
    rnn_units=256,
    bidirectional=True,
    row_conv_width=0,
    dense_units=256,
    dropout=0.3,
)
# A quarter of the paper's width.
DEEP_SPEECH = dict(**SPEC_AUGMENT, dense_units=512, rnn_units=512)
MODELS: dict[str, Any] = {
    "deepspeech2": (keras_ds2.DeepSpeech2, DEEP_SPEECH_2),
    "deepspeech": (keras_ds2.DeepSpeech, DEEP_SPEECH),
}
SPEEDS = (0.9, 1.0, 1.1)
GAIN = (-6.0, 6.0)
BATCH_SIZE = 16
EPOCHS = 150
WARMUP_EPOCHS = 5
LEARNING_RATE = 1e-3
CLIPNORM = 400.0
# Passes between validations and backups.
EPOCHS_PER_ROUND = 3
VALIDATION_SPEAKERS = set("ffmm fmjd mdcs mdxn mgah mjda mjjs2 msrb".split())


def parse_arguments(argv=None):
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--data", required=True, help="folder of the corpus")
    parser.add_argument("--run", default="runs/an4", help="for the results")
    parser.add_argument("--model", choices=MODELS, default="deepspeech2")
    parser.add_argument("--all-speakers", action="store_true")
    parser.add_argument("--epochs", type=int, default=EPOCHS, help="passes")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--device", default="auto", help="auto, cpu or cuda:N")
    parser.add_argument(
        "--mixed-precision",
        default="mixed_bfloat16",
        help="float32, mixed_float16 (a GPU) or mixed_bfloat16 (a recent CPU)",
    )
    args = parser.parse_args(argv)
    if args.epochs <= WARMUP_EPOCHS or args.epochs % EPOCHS_PER_ROUND:
        parser.error(
            f"--epochs must be more than {WARMUP_EPOCHS} (warmup) and a "
            f"multiple of {EPOCHS_PER_ROUND} (validation)"
        )
    return args


def prepare(args, model):
    def read(names, **kwargs):
        return keras_ds2.data.prepare_dataset(
            args.data, names, model, BATCH_SIZE, args.seed, **kwargs
        )

    def is_validation(row):
        return row.speaker in VALIDATION_SPEAKERS

    training = read(
        ["an4_train"],
        augmentation=keras_ds2.data.Augmentation(SPEEDS, gain=GAIN),
        select=lambda row: args.all_speakers or not is_validation(row),
    )
    return training, read(["an4_train"], select=is_validation)


def train(args):
    device = keras_ds2.use_device(args.device)
    precision = keras_ds2.use_mixed_precision(args.mixed_precision)
    keras.utils.set_random_seed(args.seed)
    build, arguments = MODELS[args.model]
    model = build(**arguments)
    training, validation = prepare(args, model)
    model.adapt(training.one_pass())
    schedule = keras.optimizers.schedules.CosineDecay(
        0.0,
        decay_steps=(args.epochs - WARMUP_EPOCHS) * len(training),
        warmup_target=LEARNING_RATE,
        warmup_steps=WARMUP_EPOCHS * len(training),
    )
    model.compile(keras.optimizers.Adam(schedule, global_clipnorm=CLIPNORM))
    print(f"{model.count_params():,} parameters, on {device} in {precision}")
    os.makedirs(args.run, exist_ok=True)
    model.fit(
        training.stream(),
        steps_per_epoch=EPOCHS_PER_ROUND * len(training),
        epochs=args.epochs // EPOCHS_PER_ROUND,
        validation_data=validation.one_pass(),
        verbose=2,
        callbacks=[
            keras_ds2.TrainingMonitor(training),
            keras_ds2.BackupAndRestore(
                f"{args.run}/backup", training, f"{args.run}/log.csv"
            ),
        ],
    )
    model.save(f"{args.run}/model.keras")
    return model, validation


def main(argv=None):
    args = parse_arguments(argv)
    model, validation = train(args)
    result = keras_ds2.evaluate(model, validation)
    if args.all_speakers:
        print("These speakers were trained on; it is no result:")
    print(result.report(num_worst=6))
    keras_ds2.plot_learning_curves(
        f"{args.run}/log.csv", f"{args.run}/curves.png"
    )
    return result


if __name__ == "__main__":
    try:
        main()
    except (ValueError, OSError) as error:
        sys.exit(str(error))
