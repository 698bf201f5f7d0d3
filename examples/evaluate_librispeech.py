"""Scores a trained model on LibriSpeech, or on a manifest.

    python examples/evaluate_librispeech.py runs/100/best.keras \\
        --data LibriSpeech --test test-clean

Prints the word and character error rate (greedy, no language model, all edits
over all words) and the worst utterances.
"""

import argparse
import sys

import keras

import keras_ds2


def main(argv=None):
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("model", help=".keras file")
    parser.add_argument("--data", required=True, help="folder of the subsets")
    parser.add_argument("--test", required=True, help="subsets or manifests")
    parser.add_argument("--batch-size", type=int, default=16)
    parser.add_argument("--worst", type=int, default=10, help="how many")
    parser.add_argument(
        "--on-invalid", choices=("error", "skip"), default="error"
    )
    parser.add_argument("--device", default="auto", help="auto, cpu or cuda:N")
    args = parser.parse_args(argv)

    keras_ds2.use_device(args.device)
    model = keras.models.load_model(args.model)
    dataset = keras_ds2.data.prepare_dataset(
        args.data,
        args.test.split(","),
        model,
        args.batch_size,
        on_invalid=args.on_invalid,
    )
    result = keras_ds2.evaluate(model, dataset)
    print(result.report(num_worst=args.worst))
    return result


if __name__ == "__main__":
    try:
        main()
    except (ValueError, OSError) as error:
        sys.exit(str(error))
