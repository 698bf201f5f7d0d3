"""`keras-ds2 evaluate`: corpora in, error rates out."""

import dataclasses
import json

from keras_ds2.cli import shared

_EPILOG = """\
CORPUS is one of
  test.jsonl              a manifest: {"audio": "a.wav", "text": "go"} a line
  LibriSpeech/test-clean  a subset of LibriSpeech as it unpacks
  LibriSpeech             all subsets there
  an4                     CMU AN4, with its folders etc and wav (see --split)

examples:
  keras-ds2 evaluate test.jsonl
  keras-ds2 evaluate --model mine.json --decoder decoder.json an4
  keras-ds2 evaluate --worst 20 --output hypotheses.jsonl LibriSpeech/test-clean
  keras-ds2 evaluate --report errors.html test.jsonl

WER and CER count all edits over all words (characters), with the transcripts
in lower case and otherwise as written.
"""


def add_parser(subparsers):
    """Adds the command."""
    parser = subparsers.add_parser(
        "evaluate",
        help="count the errors of a model on transcribed speech",
        description="Prints word and character error rate, and the worst "
        "utterances.",
        epilog=_EPILOG,
    )
    parser.add_argument("corpora", nargs="+", metavar="CORPUS")
    shared.add_model_arguments(parser)
    parser.add_argument(
        "--split",
        choices=("train", "test"),
        default="test",
        help="half of AN4 (default: test)",
    )
    parser.add_argument(
        "--batch-size", type=int, default=16, help="default: 16"
    )
    parser.add_argument(
        "--worst",
        type=int,
        default=5,
        metavar="N",
        help="how many utterances to show (default: 5)",
    )
    parser.add_argument(
        "--skip-invalid",
        action="store_true",
        help="leave out, count and name what cannot be used, such as broken "
        "audio, instead of ending",
    )
    parser.add_argument(
        "--output",
        metavar="FILE",
        help="write a JSON object a line for each utterance: `audio`, "
        "`reference`, `hypothesis`, `wer` and more",
    )
    parser.add_argument(
        "--report",
        metavar="FILE",
        help="write a page (.html) of all errors: by corpus, speaker and "
        "length, what was taken for what, the worst utterances with sound",
    )
    return parser


def run(args):
    """Runs the command."""
    if args.worst < 0:
        raise ValueError(f"--worst must be 0 or more. Received: {args.worst}")
    shared.check_outputs(args.output, args.report)
    evaluations = evaluate_all(args)
    for corpus, evaluation in evaluations.items():
        if len(evaluations) > 1:
            print(shared.printable(f"{corpus}:"))
        print(shared.printable(evaluation.report(num_worst=args.worst)))
    if args.output:
        _write(evaluations, args.output)
    if args.report:
        _write_report(evaluations, args.report)
    return 0


def evaluate_all(args):
    """Evaluates each corpus; a dictionary from its path to `Evaluation`."""
    locations = [
        shared.locate_corpus(path, args.split) for path in args.corpora
    ]
    with shared.quiet_imports():
        import keras_nlp  # noqa: F401  (as noisy as TensorFlow)

        from keras_ds2.data.prepare import prepare_dataset
        from keras_ds2.training.evaluate import evaluate

    _, model = shared.load_model(args.model, args.device)
    decoder = shared.load_decoder_for(model, args.decoder)
    on_error = "skip" if args.skip_invalid else "error"
    evaluations = {}
    for path, (root, names) in zip(args.corpora, locations, strict=True):
        dataset = prepare_dataset(
            root,
            names,
            model,
            args.batch_size,
            on_invalid=on_error,
            on_bad_audio=on_error,
        )
        evaluations[path] = evaluate(model, dataset, decoder)
    return evaluations


def _write(evaluations, path):
    with open(path, "w", encoding="utf-8") as file:
        for evaluation in evaluations.values():
            for row in evaluation.utterances:
                line = json.dumps(dataclasses.asdict(row), ensure_ascii=False)
                print(shared.printable(line), file=file)


def _write_report(evaluations, path):
    from keras_ds2.report.page import write_report
    from keras_ds2.training.evaluate import Evaluation

    everything = Evaluation.of(
        row for result in evaluations.values() for row in result.utterances
    )
    write_report(everything, path, title=", ".join(evaluations))
