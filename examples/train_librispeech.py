"""Trains Deep Speech 2 on LibriSpeech, or on any speech with transcripts.

Without data, a self-test: a tiny model learns six bundled clips by heart in a
few minutes on a CPU. It shows that everything works, and is not a result:

    python examples/train_librispeech.py

The reference configuration (see `--help` for every hyper-parameter; these are
the defaults) on LibriSpeech as its archives unpack. At batch size 2, 120
passes over 960 hours are 17 million steps, which takes months:

    python examples/train_librispeech.py --data LibriSpeech --run runs/960 \\
        --train train-clean-100,train-clean-360,train-other-500 \\
        --validation dev-clean

A practical recipe for one GPU: larger batches, fewer passes, masks on the
spectrogram. The learning rate peaks after 4 passes over train-clean-100:

    python examples/train_librispeech.py --data LibriSpeech --run runs/100 \\
        --train train-clean-100 --validation dev-clean --batch-size 32 \\
        --epochs 50 --warmup-steps 3500 --spec-augment

A CPU can train a small model on a few hours of speech:

    python examples/train_librispeech.py --data LibriSpeech --run runs/mini \\
        --train train-mini --validation dev-mini --size small \\
        --batch-size 16 --epochs 20 --warmup-steps 500

`--train` and `--validation` also take manifests (`train.jsonl`). A run that
was stopped goes on when the same command is given again. The run's folder
receives `log.csv`, TensorBoard events, `best.keras` (by `val_wer`),
`model.keras`, and two figures.
"""

import argparse
import ast
import inspect
import itertools
import os
import time

import keras

import keras_ds2

SIZES = {
    "reference": {},
    "small": {
        "conv_strides": ((2, 2), (2, 2)),
        "num_rnn_layers": 3,
        "rnn_units": 320,
        "dense_units": 320,
    },
    "tiny": {
        "conv_filters": (16, 16),
        "num_rnn_layers": 2,
        "rnn_units": 160,
        "dense_units": 160,
        "dropout": 0.0,
    },
}

CLIPS = os.path.join(os.path.dirname(__file__), "../tests/data/LibriSpeech")
SELF_TEST = {
    "data": CLIPS,
    "train": "train-clips",
    "validation": "train-clips",
    "size": "tiny",
    "batch_size": 6,
    "epochs": 600,
    "steps_per_epoch": 20,
    "warmup_steps": 60,
    "max_lr": 3e-3,
    "stop_at_wer": 0.04,
}


def parse_arguments(argv=None):
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )

    def add(flag, default=None, help="default: %(default)s", **kwargs):
        if default is not None:
            kwargs["type"] = type(default)
        parser.add_argument(flag, default=default, help=help, **kwargs)

    add("--data", help="folder of the subsets; without it, a self-test")
    add("--train", "train-clean-100", "subsets or .jsonl files")
    add("--validation", "dev-clean", "subsets or .jsonl files")
    add("--run", "runs/librispeech", "folder for all results: %(default)s")
    add("--size", "reference", "named model: %(choices)s", choices=SIZES)
    add("--batch-size", 2, "utterances, default: %(default)s")
    add("--epochs", 120, "passes over the corpus, default: %(default)s")
    add(
        "--steps-per-epoch",
        type=int,
        help="from one validation and backup "
        "to the next, default: one pass, 5000 at most",
    )
    add("--warmup-steps", 10_000)
    add("--warmup-dim", 256)
    add("--lr-scale", 1.0, "factor on the schedule, default: %(default)s")
    add("--max-lr", type=float, help="ceiling of the learning rate")
    add("--beta-1", 0.9, "of Adam, default: %(default)s")
    add("--beta-2", 0.98, "of Adam, default: %(default)s")
    add("--epsilon", 1e-9, "of Adam, default: %(default)s")
    add("--clipnorm", 400.0, "of all gradients, default: %(default)s")
    add("--stop-at-wer", 0.0, "end when `val_wer` is below")
    add("--max-duration", type=float, help="seconds; longer is invalid")
    add(
        "--on-invalid",
        "error",
        "utterances: %(choices)s",
        choices=("error", "skip"),
    )
    add("--seed", 0)
    add("--device", "auto", "auto, cpu or cuda:N")
    add(
        "--mixed-precision",
        "auto",
        "auto (mixed_float16 on a GPU), float32, "
        "mixed_float16 or mixed_bfloat16",
    )
    signature = inspect.signature(keras_ds2.DeepSpeech2).parameters
    model_flags = {n: p.default for n, p in signature.items()}
    del model_flags["dtype"], model_flags["name"]
    for name, default in model_flags.items():
        flag, text = f"--{name.replace('_', '-')}", f"model: {default!r}"
        if isinstance(default, bool):
            add(flag, None, text, action=argparse.BooleanOptionalAction)
        elif isinstance(default, tuple):
            add(flag, None, text, type=ast.literal_eval)
        else:
            add(flag, None, text, type=type(default))
    if parser.parse_known_args(argv)[0].data is None:
        parser.set_defaults(**SELF_TEST)
    args = parser.parse_args(argv)
    given = {n: getattr(args, n) for n in model_flags}
    args.model = SIZES[args.size] | {
        name: value for name, value in given.items() if value is not None
    }
    return args


def make_dataset(args, names, model):
    rows = itertools.chain.from_iterable(
        keras_ds2.data.read_manifest(os.path.join(args.data, name))
        if name.endswith(".jsonl")
        else keras_ds2.data.read_librispeech(args.data, name)
        for name in names.split(",")
    )
    rows, unreadable = keras_ds2.data.add_durations(rows, args.on_invalid)
    rows, unusable = keras_ds2.data.check_utterances(
        rows,
        model.logit_length,
        model.alphabet,
        model.sampling_rate,
        max_duration=args.max_duration,
        on_invalid=args.on_invalid,
    )
    if unreadable + unusable:
        print(keras_ds2.data.describe_rejected(unreadable + unusable))
    dataset = keras_ds2.data.SpeechDataset(
        rows, args.batch_size, model.sampling_rate, model.alphabet, args.seed
    )
    print(
        f"{names}: {len(rows):,} utterances, {dataset.duration / 3600:.2f} h, "
        f"{len(dataset):,} batches, {dataset.padding_efficiency:.0%} speech"
    )
    return dataset


class EstimateTime(keras.callbacks.Callback):
    """Says early how long it will take; ends when the WER is low enough."""

    def __init__(self, num_steps, stop_at_wer):
        super().__init__()
        self.num_steps, self.stop_at_wer = num_steps, stop_at_wer
        self.count = 0

    def on_train_batch_end(self, batch, logs=None):
        self.count += 1
        if self.count == 5:  # the first ones compile
            self.start = time.monotonic()
        if self.count == 25:
            hours = (time.monotonic() - self.start) / 20 * self.num_steps / 3600
            print(f"\nAt this pace {self.num_steps:,} steps take {hours:.1f} h")

    def on_epoch_end(self, epoch, logs=None):
        self.model.stop_training = logs["val_wer"] < self.stop_at_wer


def train(args):
    device = keras_ds2.use_device(args.device)
    precision = keras_ds2.use_mixed_precision(args.mixed_precision)
    keras.utils.set_random_seed(args.seed)
    log, backup = f"{args.run}/log.csv", f"{args.run}/backup"
    if os.path.exists(log) and not os.path.exists(backup):
        raise SystemExit(f"{args.run} holds a finished run. Choose another.")
    os.makedirs(args.run, exist_ok=True)

    model = keras_ds2.DeepSpeech2(**args.model)
    train_set = make_dataset(args, args.train, model)
    validation_set = make_dataset(args, args.validation, model)
    # A shuffled sample: the first pass begins with the shortest utterances.
    sample = train_set.stream(first_batch=lambda: len(train_set))
    model.adapt(sample, steps=min(len(train_set), 500))
    schedule = keras_ds2.WarmupSchedule(
        args.warmup_dim, args.warmup_steps, args.lr_scale, args.max_lr
    )
    model.compile(
        keras.optimizers.Adam(
            schedule,
            beta_1=args.beta_1,
            beta_2=args.beta_2,
            epsilon=args.epsilon,
            global_clipnorm=args.clipnorm,
        )
    )
    num_steps = args.epochs * len(train_set)
    steps_per_epoch = args.steps_per_epoch or min(len(train_set), 5000)
    print(
        f"{args.size} model, {model.count_params():,} parameters, on {device} "
        f"in {precision}: {num_steps:,} steps for {args.epochs} passes"
    )
    model.fit(
        # Going on where a stopped run ended, in the order it would have had.
        train_set.stream(first_batch=lambda: int(model.optimizer.iterations)),
        steps_per_epoch=steps_per_epoch,
        epochs=-(-num_steps // steps_per_epoch),
        validation_data=validation_set.one_pass(),
        callbacks=[
            keras.callbacks.BackupAndRestore(backup),
            keras.callbacks.CSVLogger(log, append=True),
            keras.callbacks.TensorBoard(args.run),
            keras.callbacks.ModelCheckpoint(
                f"{args.run}/best.keras",
                monitor="val_wer",
                mode="min",
                save_best_only=True,
            ),
            EstimateTime(num_steps, args.stop_at_wer),
        ],
    )
    model.save(f"{args.run}/model.keras")
    return keras.models.load_model(f"{args.run}/best.keras"), validation_set


def main(argv=None):
    args = parse_arguments(argv)
    model, validation_set = train(args)
    result = keras_ds2.evaluate(model, validation_set)
    print(result.report(num_worst=6))
    best = result.utterances[-1]
    keras_ds2.plot_learning_curves(
        f"{args.run}/log.csv", f"{args.run}/curves.png"
    )
    keras_ds2.plot_transcription(
        model, best.audio, best.reference, f"{args.run}/utterance.png"
    )
    print(f"Figures, log and models: {args.run}")
    if args.data == CLIPS:
        print("This was a self-test on clips learned by heart, not a result.")
    return result


if __name__ == "__main__":
    main()
