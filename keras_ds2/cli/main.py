"""`keras-ds2`: arguments in, a command run, an exit status out."""

import argparse
import os
import sys
from collections.abc import Sequence

from keras_ds2 import __version__
from keras_ds2.cli import (
    evaluate,
    export,
    info,
    serve,
    shared,
    stream,
    transcribe,
    tune_decoder,
)

# Each is a module with two functions: `add_parser(subparsers)` adds the
# command and returns its parser; `run(args)` returns the exit status. It
# raises an error whose text is one sentence for people.
COMMANDS = (
    transcribe,
    stream,
    evaluate,
    tune_decoder,
    export,
    serve,
    info,
)

_DESCRIPTION = """\
Speech to text with Deep Speech 1 and 2.

  keras-ds2 transcribe talk.wav                  what is said, as text
  keras-ds2 transcribe --format srt talk.mp3     as subtitles
  keras-ds2 stream                               what a microphone hears, live
  keras-ds2 evaluate test.jsonl                  word and character error rate
  keras-ds2 tune-decoder validation.jsonl --language-model words.kenlm
                                                 weights of a language model
  keras-ds2 export an4                           a file for ONNX Runtime
  keras-ds2 serve                                a page to speak to, a service
  keras-ds2 info an4                             what a model is, and how good

Each command has its own help: keras-ds2 transcribe --help
"""

_EPILOG = """\
exit status:
  0    all is well
  1    some recordings failed; the others were transcribed
  2    nothing was done: wrong usage, or a model, decoder or corpus that
       cannot be used
  130  interrupted with Ctrl-C
  141  the reader of a pipe closed it
  143  ended by SIGTERM
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Runs a command.

    Args:
        argv: Arguments, without the program's name. Defaults to `None`: those
            of the process.

    Returns:
        The exit status.

    Raises:
        SystemExit: After `--help`, `--version`, or wrong arguments.
    """
    args = _parser().parse_args(argv)
    try:
        status = args.run(args)
        sys.stdout.flush()
        return status
    except BrokenPipeError:
        # Whoever read has enough. Python, too, flushes once more at its end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141
    except KeyboardInterrupt:
        print(file=sys.stderr)
        return 130
    except Exception as error:
        shared.report(error, args.traceback)
        return 2


def _parser() -> argparse.ArgumentParser:
    def formatter(prog):
        return argparse.RawDescriptionHelpFormatter(prog, max_help_position=27)

    parser = argparse.ArgumentParser(
        prog="keras-ds2",
        description=_DESCRIPTION,
        epilog=_EPILOG,
        formatter_class=formatter,
    )
    parser.add_argument(
        "--version", action="version", version=f"keras-ds2 {__version__}"
    )
    subparsers = parser.add_subparsers(
        title="commands", required=True, metavar="COMMAND"
    )
    for module in COMMANDS:
        command = module.add_parser(subparsers)
        command.formatter_class = formatter
        command.add_argument(
            "--traceback",
            action="store_true",
            help="show where in the program an error came from",
        )
        command.set_defaults(run=module.run)
    return parser
