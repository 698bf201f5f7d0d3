"""Trains Deep Speech 2 on LibriSpeech, or on any speech with transcripts.

Without `--data`, a self-test: a tiny model learns six bundled clips by heart,
in about three minutes on two cores. It shows that everything works, from file
to word error rate, and is not a result:

    python examples/train_librispeech.py

The reference configuration (its hyper-parameters are the defaults, see
`--help`) on LibriSpeech as its archives unpack. At batch size 2, 120 passes
over 960 hours are 17 million steps, which take months:

    python examples/train_librispeech.py --data LibriSpeech --run runs/960 \\
        --train train-clean-100,train-clean-360,train-other-500 \\
        --validation dev-clean

A practical recipe for one GPU (for all GPUs, add `--strategy mirrored`): larger
batches within a budget of frames, fewer passes, augmentation:

    python examples/train_librispeech.py --data LibriSpeech --run runs/100 \\
        --train train-clean-100 --validation dev-clean --batch-size 64 \\
        --max-frames-per-batch 60000 --epochs 50 --warmup-steps 3500 \\
        --spec-augment --speed-perturbation

A small model for a few hours of speech and two cores:

    python examples/train_librispeech.py --data LibriSpeech --run runs/mini \\
        --train train-mini --validation dev-mini --size small \\
        --batch-size 16 --epochs 20 --warmup-steps 500 --max-lr 0.001

`--train` and `--validation` also take manifests (`train.jsonl`). A run that
was stopped, however it was, goes on when the same command is given again, and
ends as if it had not been stopped. Its folder receives `log.csv`, TensorBoard
events, `best.keras` (by `val_wer`), `model.keras`, and the figures
`curves.png` and `utterance.png`. When it does not learn: `--overfit-one-batch`
and docs/troubleshooting.md.
"""

import argparse
import ast
import importlib.util
import inspect
import os
import re
import shutil
import sys

# Before TensorFlow is imported: its start-up lines frighten without need.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import tensorflow as tf

import keras_ds2

SIZES = {
    "reference": {},
    "small": dict(
        conv_strides=((2, 2), (2, 2)),
        num_rnn_layers=3,
        rnn_units=320,
        dense_units=320,
    ),
    "tiny": dict(
        conv_filters=(16, 16),
        num_rnn_layers=2,
        rnn_units=160,
        dense_units=160,
        dropout=0.0,
    ),
}
CLIPS = os.path.join(os.path.dirname(__file__), "../tests/data/LibriSpeech")
SELF_TEST = dict(
    data=CLIPS,
    train="train-clips",
    validation="train-clips",
    run="runs/self-test",
    size="tiny",
    batch_size=6,
    epochs=600,
    steps_per_epoch=25,
    warmup_steps=60,
    max_lr=3e-3,
    stop_at_wer=0.04,
)
OVERFIT = dict(
    run="runs/overfit",
    epochs=1000,
    steps_per_epoch=50,
    warmup_steps=100,
    max_lr=1e-3,
    stop_at_wer=0.01,
)


def parse_arguments(argv=None):
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )

    def add(flag, default=None, help="", group=parser, **kwargs):
        if default is not None:
            kwargs["type"] = type(default)
            help += " (default: %(default)s)"
        group.add_argument(flag, default=default, help=help, **kwargs)

    add("--data", help="folder of the subsets; without it, a self-test")
    add("--train", "train-clean-100", "subsets or manifests, by commas")
    add("--validation", "dev-clean", "subsets or manifests, by commas")
    add("--run", "runs/librispeech", "folder of the results")
    add("--size", "reference", "named model", choices=SIZES)
    add("--batch-size", 2, "utterances")
    add("--epochs", 120, "passes over the corpus")
    add("--steps-per-epoch", type=int, help="between validations and backups "
        "(default: a pass, 1000 at most)")  # fmt: skip
    add("--max-frames-per-batch", type=int, help="10 ms each, with padding")
    add("--warmup-steps", 10_000, "steps of rising learning rate")
    add("--warmup-dim", 256, "dimension in the schedule")
    add("--lr-scale", 1.0, "factor on the schedule")
    add("--max-lr", type=float, help="ceiling of the learning rate")
    add("--beta-1", 0.9, "of Adam")
    add("--beta-2", 0.98, "of Adam")
    add("--epsilon", 1e-9, "of Adam")
    add("--clipnorm", 400.0, "of all gradients together")
    add("--stop-at-wer", 0.0, "end as soon as val_wer is below")
    add("--max-duration", type=float, help="seconds; longer is invalid")
    add("--on-invalid", "error", "what to do with utterances that cannot be "
        "used", choices=("error", "skip"))  # fmt: skip
    add("--on-bad-audio", "error", "what to do with files that fail while "
        "training", choices=("error", "skip"))  # fmt: skip
    add("--speed-perturbation", action="store_true", help="0.9, 1.0 or 1.1")
    add("--noise", help="folder of noise to mix in, at 10 to 30 dB")
    add("--overfit-one-batch", action="store_true", help="learn one batch by "
        "heart, to find out whether training works")  # fmt: skip
    add("--seed", 0, "of weights, dropout, order and augmentation")
    add("--device", "auto", "auto, cpu or cuda:N")
    add("--strategy", "none", "mirrored: all GPUs of this machine share each "
        "batch, or --cpu-devices", choices=("none", "mirrored"))  # fmt: skip
    add("--cpu-devices", 1, "that share the cores, for --strategy mirrored")
    add("--mixed-precision", "auto", "auto (mixed_float16 on a GPU), float32, "
        "mixed_float16 or mixed_bfloat16")  # fmt: skip
    group = parser.add_argument_group(
        "model", "explained in help(keras_ds2.DeepSpeech2); defaults as there"
    )
    signature = inspect.signature(keras_ds2.DeepSpeech2).parameters
    arguments = {n: p.default for n, p in signature.items()}
    del arguments["dtype"], arguments["name"]
    for name, default in arguments.items():
        kwargs: dict = {"type": type(default)}
        if isinstance(default, bool):
            kwargs = {"action": argparse.BooleanOptionalAction}
        elif default is None or isinstance(default, tuple):
            kwargs = {"type": ast.literal_eval}
        flag = f"--{name.replace('_', '-')}"
        add(flag, help=f"reference: {default!r}", group=group, **kwargs)

    known = parser.parse_known_args(argv)[0]
    if known.data is None:
        parser.set_defaults(**SELF_TEST)
    if known.overfit_one_batch:
        parser.set_defaults(**OVERFIT)
    args = parser.parse_args(argv)
    given = {name: getattr(args, name) for name in arguments}
    args.model = SIZES[args.size] | {
        name: value for name, value in given.items() if value is not None
    }
    return args


class StopAtWER(keras.callbacks.Callback):
    backed_up_attributes = ()

    def __init__(self, wer):
        super().__init__()
        self.wer = wer

    def on_epoch_end(self, epoch, logs=None):
        if logs["val_wer"] < self.wer:
            self.model.stop_training = True


def prepare(args, model, names, num_replicas, **kwargs):
    return keras_ds2.data.prepare_dataset(
        args.data,
        [name.strip() for name in names.split(",")],
        model,
        batch_size=args.batch_size,
        seed=args.seed,
        max_duration=args.max_duration,
        on_invalid=args.on_invalid,
        max_frames_per_batch=args.max_frames_per_batch,
        num_replicas=num_replicas,
        on_bad_audio=args.on_bad_audio,
        bad_audio_report=f"{args.run}/bad_audio.jsonl",
        **kwargs,
    )


def train(args):
    for name in ("matplotlib", "tensorboard"):
        if importlib.util.find_spec(name) is None:
            raise SystemExit(f"{name} is missing: pip install '.[plot]'")
    os.makedirs(args.run, exist_ok=True)
    all_devices = args.strategy == "mirrored" and args.device == "auto"
    device = keras_ds2.use_device(
        "all" if all_devices else args.device, args.cpu_devices
    )
    precision = keras_ds2.use_mixed_precision(args.mixed_precision)
    strategy = keras_ds2.use_strategy(args.strategy)
    num_replicas = strategy.num_replicas_in_sync
    keras.utils.set_random_seed(args.seed)

    with strategy.scope():
        model = keras_ds2.DeepSpeech2(**args.model)
        schedule = keras_ds2.WarmupSchedule(
            args.warmup_dim, args.warmup_steps, args.lr_scale, args.max_lr
        )
        model.compile(
            keras.optimizers.Adam(
                schedule,
                beta_1=args.beta_1,
                beta_2=args.beta_2,
                epsilon=args.epsilon,
                global_clipnorm=args.clipnorm / num_replicas,
            )
        )
    speeds = (0.9, 1.0, 1.1) if args.speed_perturbation else (1.0,)
    augmentation = keras_ds2.data.Augmentation(speeds, args.noise)
    train_set = prepare(
        args, model, args.train, num_replicas, augmentation=augmentation
    )
    validation_set = prepare(args, model, args.validation, num_replicas)
    if args.overfit_one_batch:
        batch = train_set.batches[len(train_set) // 2]
        train_set = validation_set = keras_ds2.data.SpeechDataset(
            batch, len(batch), model.sampling_rate, model.alphabet
        )
    if model.normalize:
        # The second pass: the first begins with the shortest utterances.
        sample = train_set.stream(first_step=len(train_set))
        model.adapt(sample, steps=min(len(train_set), 500))
    num_steps = args.epochs * len(train_set)
    steps_per_epoch = args.steps_per_epoch or min(len(train_set), 1000)
    print(
        f"{args.size} model, {model.count_params():,} parameters, on {device} "
        f"in {precision}: {num_steps:,} steps for {args.epochs} passes"
    )
    print(keras_ds2.dry_run(model, train_set))
    model.fit(
        train_set.stream(),
        # A bar that does not fit into a line is repeated line by line.
        verbose=1 if shutil.get_terminal_size().columns >= 200 else 2,
        steps_per_epoch=steps_per_epoch,
        epochs=-(-num_steps // steps_per_epoch),
        validation_data=validation_set.one_pass(),
        callbacks=[
            keras_ds2.TrainingMonitor(train_set),
            keras.callbacks.TensorBoard(args.run),
            keras.callbacks.ModelCheckpoint(
                f"{args.run}/best.keras",
                "val_wer",
                mode="min",
                save_best_only=True,
            ),
            StopAtWER(args.stop_at_wer),
            keras_ds2.BackupAndRestore(
                f"{args.run}/backup", train_set, f"{args.run}/log.csv"
            ),
        ],
    )
    model.save(f"{args.run}/model.keras")
    return keras.models.load_model(f"{args.run}/best.keras"), validation_set


def main(argv=None):
    args = parse_arguments(argv)
    if args.data == CLIPS:
        print("A self-test: six bundled clips are learned by heart.")
    model, validation_set = train(args)
    result = keras_ds2.evaluate(model, validation_set)
    print(result.report(num_worst=6))
    keras_ds2.plot_learning_curves(
        f"{args.run}/log.csv", f"{args.run}/curves.png"
    )
    best = result.utterances[-1]
    keras_ds2.plot_transcription(
        model, best.audio, best.reference, f"{args.run}/utterance.png"
    )
    print(f"Models, log and figures: {args.run}")
    if args.data == CLIPS:
        print("This was a self-test on clips learned by heart, not a result.")
    return result


if __name__ == "__main__":
    fault = None
    try:
        main()
    except (ValueError, OSError, MemoryError) as error:
        fault = str(error)
    except tf.errors.OpError as error:  # a file that broke after indexing
        found = re.search("(?:Audio|Corpus)Error: (.*)", error.message)
        if not found:
            raise
        fault = found[1]
    if fault:
        sys.exit(fault)
