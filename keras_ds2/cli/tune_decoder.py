"""`keras-ds2 tune-decoder`: validation data in, a decoder file out."""

from keras_ds2.cli import shared

_EPILOG = """\
CORPUS is as of `keras-ds2 evaluate`: a manifest, a subset of LibriSpeech, AN4.
It must not be what the model is tested on later.

examples:
  keras-ds2 tune-decoder validation.jsonl --language-model words.kenlm \\
      --output decoder.json
  keras-ds2 tune-decoder validation.jsonl --lexicon words.txt \\
      --word-scores -1 0 1 2 3 --beam-width 16 64 --output decoder.json
  keras-ds2 tune-decoder LibriSpeech/dev-other --language-model words.kenlm \\
      --lm-weights 0.5 0.7 0.9 --word-scores 0 1 --prior-weights 0.3 0.6 \\
      --plot weights.png --output decoder.json

  keras-ds2 transcribe --decoder decoder.json talk.wav

Every combination is tried, by the word error rate of the whole corpus. Where
the best stands at the end of what was tried, a warning says so.
"""


def add_parser(subparsers):
    """Adds the command."""
    parser = subparsers.add_parser(
        "tune-decoder",
        help="find the weights of a decoder on validation data",
        description="Finds the weights of the fewest word errors, and writes "
        "a decoder file.",
        epilog=_EPILOG,
    )
    parser.add_argument("corpus", metavar="CORPUS")
    shared.add_model_argument(parser)
    shared.add_device_argument(parser)
    parser.add_argument(
        "--language-model",
        metavar="FILE",
        help="ARPA file, gzipped or not, or KenLM binary",
    )
    parser.add_argument(
        "--lexicon",
        metavar="FILE",
        help="the only words that may come out, one a line; by default those "
        "of the language model",
    )
    parser.add_argument(
        "--lm-weights",
        type=float,
        nargs="+",
        metavar="W",
        help="weights to try (default: 0 0.25 0.5 0.75 1 1.5)",
    )
    parser.add_argument(
        "--word-scores",
        type=float,
        nargs="+",
        metavar="S",
        help="scores of a word to try (default: -2 -1 0 1 2)",
    )
    parser.add_argument(
        "--prior-weights",
        type=float,
        nargs="+",
        metavar="P",
        help="how much of the network's own liking for each character to "
        "take out; for a model of high error rates try 0.3 to 0.8 (default: 0)",
    )
    parser.add_argument(
        "--beam-width",
        type=int,
        nargs="+",
        default=[64],
        metavar="N",
        help="one or more widths to try (default: 64)",
    )
    parser.add_argument(
        "--split",
        choices=("train", "test"),
        default="train",
        help="half of AN4 (default: train)",
    )
    parser.add_argument(
        "--batch-size", type=int, default=16, help="default: 16"
    )
    parser.add_argument(
        "--output", metavar="FILE", help="write the decoder file (.json)"
    )
    parser.add_argument(
        "--plot", metavar="FILE", help="draw a heat map (.png, .svg, .pdf)"
    )
    return parser


def run(args):
    """Runs the command."""
    has_prior = any(args.prior_weights or [])
    if not (args.language_model or args.lexicon or has_prior):
        raise ValueError(
            "There is nothing to weigh. Pass --language-model, --lexicon or "
            "--prior-weights."
        )
    if args.plot and not (args.language_model or args.lexicon):
        raise ValueError(
            "--plot draws weights of a language model and scores of words, and "
            "there are none. Pass --language-model or --lexicon, or leave "
            "--plot out."
        )
    shared.check_outputs(args.output, args.plot)
    root, names = shared.locate_corpus(args.corpus, args.split)
    with shared.quiet_imports():
        import keras_nlp  # noqa: F401  (as noisy as TensorFlow)

        from keras_ds2.data.prepare import prepare_dataset
        from keras_ds2.decoding.beam_search import BeamSearchDecoder
        from keras_ds2.decoding.decoder_file import save_decoder
        from keras_ds2.training.figures import import_pyplot
        from keras_ds2.training.tuning import tune_decoder

    if args.plot:
        import_pyplot()  # fails now, not after the work
    _, model = shared.load_model(args.model, args.device)
    decoder = BeamSearchDecoder(
        model.alphabet,
        args.language_model,
        args.lexicon,
        beam_width=args.beam_width[0],
        blank_index=model.ctc.blank_index,
    )
    dataset = prepare_dataset(root, names, model, args.batch_size)
    tuning = tune_decoder(
        model,
        dataset,
        decoder,
        args.lm_weights,
        args.word_scores,
        args.beam_width,
        args.prior_weights,
        progress=shared.is_terminal(),
    )
    print(tuning.report())
    if args.output:
        save_decoder(args.output, tuning.decoder)
    if args.plot:
        tuning.plot(args.plot)
    return 0
