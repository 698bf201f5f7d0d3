"""`keras-ds2 stream`: sound in as it comes, text out while it is said."""

import sys

from keras_ds2.cli import shared

_EPILOG = """\
Without `-`, it listens to a microphone (pip install 'keras_ds2[mic]').

examples:
  keras-ds2 stream
  keras-ds2 stream --list-microphones
  keras-ds2 stream --microphone USB --decoder decoder.json
  keras-ds2 stream --format json | jq -r 'select(.type == "final").text'
  arecord -q -t raw -f S16_LE -r 16000 | keras-ds2 stream -
  ffmpeg -i talk.mp3 -f s16le -ac 1 -ar 48000 - |
      keras-ds2 stream --sampling-rate 48000 -

An utterance ends where nothing was said for --endpoint-silence, and with the
input, Ctrl-C or SIGTERM.

formats:
  text  a line for each utterance. On a terminal, also what is heard so far:
        what may still change is dim
  json  a line for each event: {"type": "partial", "time", "text", "stable"}
        where the text has changed, and {"type": "final", "start", "end",
        "text", "words"} at the end of an utterance, the words each with
        `word`, `start`, `end` and `confidence`

Times are in seconds from the beginning of the stream. Text lags behind speech
by the look-ahead of the model (keras-ds2 info) and up to 0.1 s.
"""

_SAMPLING_RATES = (1000, 768_000)


def add_parser(subparsers):
    """Adds the command."""
    parser = subparsers.add_parser(
        "stream",
        help="say what is said, while it is said",
        description="Transcribes a microphone, or raw samples from standard "
        "input, live.",
        epilog=_EPILOG,
    )
    parser.add_argument(
        "source",
        nargs="?",
        choices=["-"],
        metavar="-",
        help="read samples from standard input: 16 bits, little-endian, mono, "
        "without a header; by default, a microphone is listened to",
    )
    shared.add_model_arguments(parser)
    parser.add_argument(
        "--endpoint-silence",
        type=float,
        default=0.8,
        metavar="S",
        help="seconds of silence that end an utterance; inf for never "
        "(default: 0.8)",
    )
    parser.add_argument(
        "--format",
        choices=("text", "json"),
        default="text",
        help="text (default) or json",
    )
    parser.add_argument(
        "--sampling-rate",
        type=int,
        metavar="HZ",
        help="of the input; by default, the model's for standard input, and "
        "the microphone's own",
    )
    parser.add_argument(
        "--microphone",
        metavar="NAME",
        help="number or part of the name; by default, the system's",
    )
    parser.add_argument(
        "--list-microphones",
        action="store_true",
        help="show the microphones, the default one with a star, and end",
    )
    return parser


def run(args):
    """Runs the command."""
    _check(args)
    # Light: what is missing is told before the model is loaded.
    from keras_ds2.cli import live_text, sound_sources

    if args.list_microphones:
        print("\n".join(sound_sources.list_microphones()))
        return 0
    source: sound_sources.Microphone | sound_sources.StandardInput
    if args.source is None:
        source = sound_sources.Microphone(args.microphone, args.sampling_rate)
    name, model = shared.load_model(args.model, args.device)
    decoder = shared.load_decoder_for(model, args.decoder)
    with shared.quiet_imports():
        from keras_ds2.cli import listening

    recognizer = listening.prepare(name, model, decoder, args.endpoint_silence)
    if args.source:
        rate = args.sampling_rate or recognizer.step.sampling_rate
        source = sound_sources.StandardInput(rate)
    show = live_text.choose(args.format)
    with source, listening.Interruption() as interruption:
        if shared.is_terminal():
            print(f"Listening to {source.name}; Ctrl-C ends", file=sys.stderr)
        listening.listen(recognizer, interruption.pass_on(source), source, show)
    if source.problem:
        shared.report(OSError(source.problem), args.traceback)
    return interruption.status or (1 if source.problem else 0)


def _check(args):
    if not args.endpoint_silence > 0:
        raise ValueError(
            "--endpoint-silence must be more than 0. Received: "
            f"{args.endpoint_silence}."
        )
    rate = args.sampling_rate
    low, high = _SAMPLING_RATES
    if rate is not None and not low <= rate <= high:
        raise ValueError(
            f"--sampling-rate must be from {low} to {high} Hz. Received: "
            f"{rate}."
        )
    if args.source and args.microphone:
        raise ValueError("--microphone and `-` exclude each other.")
    if args.source and (sys.stdin is None or sys.stdin.isatty()):
        raise ValueError(
            "Standard input has no samples. Pipe some into it, or leave `-` "
            "out for a microphone."
        )
