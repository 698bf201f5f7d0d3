"""Trains a recognizer of read English that streams, from little speech.

    python examples/train_english.py --train speech/train.jsonl \\
        synthetic/manifest.jsonl --validation speech/LibriSpeech/dev-mini

Real and synthetic speech (examples/synthesize_speech.py) are trained on alike.
A run that was stopped goes on when the same command is given again, also with
other `--rounds`: only the last `--decay-rounds` depend on how many there are.
Its folder receives `log.csv`, `model.keras`, `curves.png`. The recipe is
explained in docs/english.md.
"""

import argparse
import os
import sys

# Before TensorFlow is imported: its start-up lines frighten without need.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras

import keras_ds2

MODEL = dict(
    max_time_width=40,
    conv_strides=((2, 2), (2, 2)),  # 40 ms
    rnn_type="gru",
    num_rnn_layers=3,
    rnn_units=768,
    normalize_projection=True,
    mean_momentum=0.996,  # 10 s
    row_conv_width=10,  # 400 ms
    dense_units=512,
    dropout=0.2,
)
SPEEDS = (0.85, 0.9, 0.95, 1.0, 1.05, 1.1, 1.15)
GAIN = (-6.0, 6.0)
MAX_DURATION = 17.0  # seconds
BATCH_SIZE = 128  # at most
CLIPNORM = 400.0
STEPS_PER_ROUND = 200


def parse_arguments(argv=None):
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("--train", nargs="+", required=True, help="manifests or folders")
    add("--validation", nargs="+", required=True, help="manifests or folders")
    add("--run", default="runs/english", help="for the results")
    add("--weights", help="to begin from, such as an earlier model.keras")
    add("--rounds", type=int, default=200, help=f"{STEPS_PER_ROUND} steps each")
    add("--learning-rate", type=float, default=1e-3, help="Adam's, level")
    add("--warmup-rounds", type=int, default=2, help="to that rate, at first")
    add("--decay-rounds", type=int, default=40, help="to a rate of 0, at last")
    add(
        "--no-spec-augment",
        action="store_true",
        help="for the first hours: easier, and learned faster",
    )
    add("--max-frames-per-batch", type=int, default=16_000, help="of 10 ms")
    add("--seed", type=int, default=0)
    add("--device", default="auto", help="auto, cpu or cuda:N")
    add("--cpu-devices", type=int, default=1, help="one per core is best")
    add(
        "--mixed-precision",
        default="mixed_bfloat16",
        help="float32, mixed_float16 (a GPU) or mixed_bfloat16 (a recent CPU)",
    )
    args = parser.parse_args(argv)
    slopes = args.warmup_rounds, args.decay_rounds
    if min(slopes) < 1 or args.rounds < sum(slopes):
        parser.error(
            "--warmup-rounds and --decay-rounds must be at least 1, and "
            "--rounds as many as both together"
        )
    return args


def learning_rate(args):
    """Up, level, and down to nearly 0, by rounds."""

    def schedule(epoch, _):
        up = (epoch + 1) / args.warmup_rounds
        down = (args.rounds - epoch) / args.decay_rounds
        return args.learning_rate * min(up, 1.0, down)

    return keras.callbacks.LearningRateScheduler(schedule)


def train(args):
    device = keras_ds2.use_device(args.device, args.cpu_devices)
    precision = keras_ds2.use_mixed_precision(args.mixed_precision)
    strategy = keras_ds2.use_strategy(
        "mirrored" if args.cpu_devices > 1 else "none"
    )
    keras.utils.set_random_seed(args.seed)
    with strategy.scope():
        spec_augment = not args.no_spec_augment
        model = keras_ds2.DeepSpeech2(spec_augment=spec_augment, **MODEL)
        if args.weights:  # before there is an optimizer, which begins anew
            model.load_weights(args.weights)
        # Each replica clips its share.
        clipnorm = CLIPNORM / strategy.num_replicas_in_sync
        model.compile(keras.optimizers.Adam(global_clipnorm=clipnorm))

    def read(names, **kwargs):
        return keras_ds2.data.prepare_dataset(
            os.curdir,
            names,
            model,
            BATCH_SIZE,
            args.seed,
            max_frames_per_batch=args.max_frames_per_batch,
            num_replicas=strategy.num_replicas_in_sync,
            **kwargs,
        )

    training = read(
        args.train,
        max_duration=MAX_DURATION,
        on_invalid="skip",  # longer ones
        augmentation=keras_ds2.data.Augmentation(SPEEDS, gain=GAIN),
        sorted_first_pass=not args.weights,
    )
    validation = read(args.validation)
    if not args.weights:
        # The second pass: the first begins with the shortest utterances.
        model.adapt(training.stream(first_step=len(training)), steps=100)
    print(f"{model.count_params():,} parameters, on {device} in {precision}")
    model.fit(
        training.stream(),
        steps_per_epoch=STEPS_PER_ROUND,
        epochs=args.rounds,
        validation_data=validation.one_pass(),
        verbose=2,
        callbacks=[
            learning_rate(args),
            keras_ds2.TrainingMonitor(training),
            keras_ds2.BackupAndRestore(
                f"{args.run}/backup", training, f"{args.run}/log.csv"
            ),
        ],
    )
    model.save(f"{args.run}/model.keras")
    return keras.models.load_model(f"{args.run}/model.keras"), validation


def main(argv=None):
    args = parse_arguments(argv)
    model, validation = train(args)
    result = keras_ds2.evaluate(model, validation)
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
