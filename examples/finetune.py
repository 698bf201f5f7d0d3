"""Fine-tunes a trained model on some minutes of your own speech.

    python examples/finetune.py --model en-read --data FOLDER \\
        --train train.jsonl --validation validation.jsonl --output runs/mine

The manifests stand in FOLDER and have lines such as {"audio": "a.wav", "text":
"go"}; without `--validation`, a tenth of the utterances is held out. First the
last two layers learn, then all. A run that was stopped goes on when the same
command is given again. Its folder receives `model.keras`, and a log for each
stage. The recipe is explained in docs/fine_tuning.md.
"""

import argparse
import math
import os
import sys

# Before TensorFlow is imported: its start-up lines frighten without need.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np

import keras_ds2
from keras_ds2.cli.shared import check_outputs, load_model
from keras_ds2.text import unknown_characters

# As examples/train_an4.py: narrow, for utterances may be a word or two.
SPEC_AUGMENT = dict(spec_augment=True, max_freq_width=15, max_time_width=12)
SPEEDS = (0.9, 1.0, 1.1)
GAIN = (-6.0, 6.0)
BATCH_SIZE = 8
# Passes, unless they are fewer steps: minutes of speech need more passes.
EPOCHS = 15
STEPS = 600
HEAD_EPOCHS = 3
WARMUP_EPOCHS = 1
LEARNING_RATE = 1e-3
CLIPNORM = 400.0
HELD_OUT = 10  # one in so many
SHOWN = 5


def parse_arguments(argv=None):
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )

    def add(flag, default=None, help="", **kwargs):
        if default is not None:
            kwargs["type"] = type(default)
            help += " (default: %(default)s)"
        parser.add_argument(flag, default=default, help=help, **kwargs)

    add("--model", "en-read", "name of a shipped model, .keras file or .json "
        "card")  # fmt: skip
    add("--data", ".", "folder of the manifests")
    add("--train", required=True, help="manifest")
    add("--validation", help="manifest; without, a tenth of --train")
    add("--output", "runs/finetune", "folder of the results")
    add("--minutes", math.inf, "minutes of speech to use, drawn by --seed")
    add("--epochs", type=int, help=f"passes (default: {EPOCHS}, or as many as "
        f"make {STEPS} steps)")  # fmt: skip
    add("--head-epochs", HEAD_EPOCHS, "of them for the last two layers only")
    add("--learning-rate", LEARNING_RATE, "Adam's, at most")
    add("--extend-alphabet", action="store_true", help="add the characters "
        "that the model does not know")  # fmt: skip
    add("--alphabet", help="all characters, in place of the model's")
    add("--save-pretrained", help="also write weights of 16 bits and this "
        "card (.json)")  # fmt: skip
    add("--seed", 0)
    add("--device", "auto", "auto, cpu or cuda:N")
    add("--mixed-precision", "auto", "auto (mixed_float16 on a GPU), float32, "
        "mixed_float16 or mixed_bfloat16")  # fmt: skip
    args = parser.parse_args(argv)
    if not args.minutes > 0:
        parser.error("--minutes must be more than 0")
    if not 0 < args.learning_rate < math.inf:
        parser.error("--learning-rate must be more than 0, and finite")
    if args.save_pretrained and not args.save_pretrained.endswith(".json"):
        parser.error("--save-pretrained must end in .json")
    card_folder = os.path.dirname(os.path.abspath(args.save_pretrained or ""))
    if card_folder != os.path.abspath(args.output):  # which training makes
        check_outputs(args.save_pretrained)  # fails now, not after the work
    return args


def read(args):
    """The lines of each manifest that are to be used, by name of manifest."""
    names = [args.train, args.validation or args.train]
    training, validation = (
        keras_ds2.data.add_durations(
            keras_ds2.data.read_manifest(os.path.join(args.data, name)),
            progress=False,
        )[0]
        for name in names
    )
    order = np.random.default_rng(args.seed).permutation(len(training))
    training = [training[i] for i in order]
    if not args.validation:
        count = max(1, len(training) // HELD_OUT)
        training, validation = training[count:], training[:count]
    if not training or not validation:
        raise ValueError(
            f"{' and '.join(dict.fromkeys(names))}: there must be speech to "
            f"train on and to validate on. Received: {len(training)} and "
            f"{len(validation)} utterances."
        )
    files = [
        {os.path.realpath(row.audio) for row in rows}
        for rows in (training, validation)
    ]
    if both := files[0] & files[1]:
        raise ValueError(
            f"{names[1]}: '{min(both)}' is trained on, too, which would make "
            f"the error rate too good. {len(both)} such files. Let each stand "
            "in one place only."
        )
    before = np.cumsum([0.0, *(row.duration for row in training[:-1])])
    training = training[: np.sum(before < 60 * args.minutes)]
    return list(zip(names, (training, validation), strict=True))


def load(args, manifests):
    """The trained model: with SpecAugment, and all characters that it needs."""
    name, model = load_model(args.model, args.device)
    # The precision that suits that device, so not before it is chosen.
    precision = keras_ds2.use_mixed_precision(args.mixed_precision)
    alphabet = model.alphabet if args.alphabet is None else args.alphabet
    unknown, unseen = (
        unknown_characters("".join(row.text for row in rows), alphabet)
        for _, rows in manifests
    )
    if unknown and not args.extend_alphabet:
        raise ValueError(
            f"The transcripts have characters that are not in the alphabet, "
            f"{alphabet!r}: {unknown!r}. Spell them out, or pass "
            "--extend-alphabet to add them, or --alphabet with all of them."
        )
    if unseen := unknown_characters(unseen, unknown):
        raise ValueError(
            f"{manifests[1][0]}: the transcripts to validate on have new "
            f"characters that no training speech has: {unseen!r}. Spell them "
            "out, or train on speech that has them, too."
        )
    model = model.with_vocabulary(alphabet + unknown)
    # A copy, for a model keeps the options that it was built with.
    options = model.get_config() | SPEC_AUGMENT | {"dtype": precision}
    copy = type(model).from_config(options)
    copy.set_weights(model.get_weights())
    return name, copy


def prepare(args, model, manifests):
    def batch(manifest, **kwargs):
        name, rows = manifest
        lines = {row.source for row in rows}
        kwargs["select"] = lambda row: row.source in lines
        return keras_ds2.data.prepare_dataset(
            args.data, [name], model, BATCH_SIZE, args.seed, **kwargs
        )

    augmentation = keras_ds2.data.Augmentation(SPEEDS, gain=GAIN)
    training, validation = manifests
    return batch(training, augmentation=augmentation), batch(validation)


def count_epochs(args, training):
    """Passes of each stage: of the head alone, and of everything."""
    epochs = args.epochs
    if epochs is None:
        epochs = max(EPOCHS, math.ceil(STEPS / len(training)))
    head, rest = args.head_epochs, epochs - args.head_epochs
    least = WARMUP_EPOCHS + 1  # a rate that only rises is no training
    if rest < least or (head and head < least):
        raise ValueError(
            f"--epochs, here {epochs}, includes --head-epochs, here {head}: "
            f"{least} or more for either, or --head-epochs 0."
        )
    return head, rest


def train_stage(
    folder,
    model,
    data,
    epochs,
    learning_rate,
    warmup_epochs=WARMUP_EPOCHS,
    epochs_per_round=1,
    same_start=True,
):
    """Trains what is trainable, or goes on, from a rate of 0 back to 0."""
    training, validation = data
    schedule = keras.optimizers.schedules.CosineDecay(
        0.0,
        decay_steps=(epochs - warmup_epochs) * len(training),
        warmup_target=learning_rate,
        warmup_steps=warmup_epochs * len(training),
    )
    # Also what makes Keras notice which layers are trainable now.
    model.compile(keras.optimizers.Adam(schedule, global_clipnorm=CLIPNORM))
    model.fit(
        training.stream(),
        steps_per_epoch=epochs_per_round * len(training),
        epochs=epochs // epochs_per_round,
        validation_data=validation.one_pass(),
        verbose=2,
        callbacks=[
            keras_ds2.TrainingMonitor(training),
            keras_ds2.BackupAndRestore(
                f"{folder}/backup", training, f"{folder}/log.csv", same_start
            ),
        ],
    )


def finetune(args, model, data):
    """Two stages, each with a backup of its own.

    Started again, a finished stage gives back its weights and is over.
    """
    head_epochs, epochs = count_epochs(args, data[0])
    if head_epochs:
        dense = [x for x in model.layers if isinstance(x, keras.layers.Dense)]
        # Frozen, batch normalization keeps its statistics too.
        for layer in model.layers:
            layer.trainable = layer in dense[-2:]
        head = f"{args.output}/head"
        train_stage(head, model, data, head_epochs, args.learning_rate)
    for layer in model.layers:  # which `model.trainable = True` does not do
        layer.trainable = True
    train_stage(f"{args.output}/all", model, data, epochs, args.learning_rate)


def main(argv=None):
    args = parse_arguments(argv)
    keras.utils.set_random_seed(args.seed)
    manifests = read(args)
    name, model = load(args, manifests)
    training, validation = prepare(args, model, manifests)
    count_epochs(args, training)  # fails now, not after the first evaluation
    before = keras_ds2.evaluate(model, validation)
    print(f"Before: {before.report(num_worst=0)}")
    finetune(args, model, (training, validation))
    model.save(f"{args.output}/model.keras")
    after = keras_ds2.evaluate(model, validation)
    if args.save_pretrained:
        keras_ds2.save_pretrained(
            model,
            args.save_pretrained,
            fine_tuned_from=name,
            minutes=training.duration / 60,
            metrics={"validation_wer": after.wer, "wer_before": before.wer},
        )
    print(f"Before: {before.report(num_worst=0)}")
    # The weights of the last pass: none was chosen by these figures.
    print(f"After:  {after.report(num_worst=0)}")
    heard = {item.audio: item.hypothesis for item in before.utterances}
    # From the worst to the best.
    for item in after.utterances[:: -(-len(heard) // SHOWN)]:
        print(f"{item.audio}\n  said:   {item.reference}")
        print(f"  before: {heard[item.audio]}\n  after:  {item.hypothesis}")
    return before, after


if __name__ == "__main__":
    try:
        main()
    except (ValueError, OSError) as error:
        sys.exit(str(error))
