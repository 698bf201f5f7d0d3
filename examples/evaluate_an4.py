"""Scores a trained model on CMU AN4, by default on its test half.

    python examples/evaluate_an4.py an4
    python examples/evaluate_an4.py an4 --model runs/an4/model.keras

`an4` is the corpus as distributed (folders `etc` and `wav`). Without `--model`
it is the shipped model that is scored. Prints the word and character error rate
(greedy, no language model, all edits over all words) and the worst utterances.
"""

import argparse
import os
import sys
import time

# Before TensorFlow is imported: its start-up lines frighten without need.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras

import keras_ds2


def main(argv=None):
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("data", help="folder of the corpus")
    parser.add_argument(
        "--model",
        default="an4",
        help="name of a shipped model, .keras file or .json card "
        "(default: %(default)s)",
    )
    parser.add_argument("--split", choices=("train", "test"), default="test")
    parser.add_argument("--batch-size", type=int, default=16)
    parser.add_argument("--worst", type=int, default=10, help="how many")
    parser.add_argument("--device", default="auto", help="auto, cpu or cuda:N")
    args = parser.parse_args(argv)

    keras_ds2.use_device(args.device)
    if args.model.endswith(".keras"):
        model = keras.models.load_model(args.model)
    else:
        model = keras_ds2.load_pretrained(args.model)
    dataset = keras_ds2.data.prepare_dataset(
        args.data, [f"an4_{args.split}"], model, args.batch_size
    )
    model.transcribe_batch(next(iter(dataset.one_pass()))[0])  # compiles
    begun = time.perf_counter()
    result = keras_ds2.evaluate(model, dataset)
    seconds = time.perf_counter() - begun
    print(result.report(num_worst=args.worst))
    print(
        f"{dataset.duration:.0f} s of speech in {seconds:.1f} s: real-time "
        f"factor {seconds / dataset.duration:.3f}"
    )
    return result


if __name__ == "__main__":
    try:
        main()
    except (ValueError, OSError) as error:
        sys.exit(str(error))
