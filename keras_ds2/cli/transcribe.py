"""`keras-ds2 transcribe`: audio files in, transcripts out."""

import os
import sys
import time
from pathlib import Path

from keras_ds2.cli import shared

_SUFFIXES = {
    "text": ".txt",
    "json": ".json",
    "srt": ".srt",
    "vtt": ".vtt",
    "ctm": ".ctm",
}

_EPILOG = """\
Any format that soundfile reads, at any rate, of any length: a recording of more
than 20 s is cut at its silences and read bit by bit.

examples:
  keras-ds2 transcribe talk.wav
  keras-ds2 transcribe --timestamps talk.wav
  keras-ds2 transcribe --model mine.json --decoder decoder.json talk.wav
  keras-ds2 transcribe --format srt talk.mp3 > talk.srt
  keras-ds2 transcribe --format vtt --output subtitles lectures/*.mp3
  keras-ds2 transcribe --format json *.flac | jq -r .text

formats:
  text  a line for each file; of several files, each with its name and a tab
        before. With --timestamps a line for each piece.
  json  a line for each file: an object of `file`, `duration`, `model`, `text`
        and `words`, each with `word`, `start`, `end` and `confidence`
  srt, vtt  subtitles of two lines of 42 characters and 6 s at most
  ctm   NIST's: name, channel, start, duration, word, confidence

Times are in seconds; confidences, from 0 to 1, are not calibrated.
"""


def add_parser(subparsers):
    """Adds the command."""
    parser = subparsers.add_parser(
        "transcribe",
        help="say what is said in audio files",
        description="Transcribes audio files.",
        epilog=_EPILOG,
    )
    parser.add_argument("files", nargs="+", metavar="FILE", help="audio file")
    shared.add_model_arguments(parser)
    parser.add_argument(
        "--format",
        choices=_SUFFIXES,
        default="text",
        help="text (default), json, srt, vtt or ctm",
    )
    parser.add_argument(
        "--timestamps",
        action="store_true",
        help="with --format text: begin and end of each piece",
    )
    parser.add_argument(
        "--output",
        metavar="FOLDER",
        help="write FOLDER/talk.srt for talk.wav, and so on, instead of to "
        "standard output",
    )
    return parser


def run(args):
    """Runs the command."""
    _check(args)
    name, model = shared.load_model(args.model, args.device)
    decoder = shared.load_decoder_for(model, args.decoder)
    if args.output:
        os.makedirs(args.output, exist_ok=True)
    num_failed = 0
    for index, file in enumerate(args.files):
        label = f"[{index + 1}/{len(args.files)}] {os.path.basename(file)}"
        try:
            transcript = _transcribe(file, name, model, decoder, label)
            text = _format(transcript, args)
            if args.output:
                _target(file, args).write_text(text, encoding="utf-8")
        except Exception as error:  # the next file may be a good one
            shared.report(error, args.traceback)
            num_failed += 1
            continue
        if not args.output:
            print(text, end="", flush=True)
    if num_failed and len(args.files) > 1:
        print(
            f"keras-ds2: {num_failed} of {len(args.files)} files failed.",
            file=sys.stderr,
        )
    return 1 if num_failed else 0


def _check(args):
    if args.timestamps and args.format != "text":
        raise ValueError(
            "--timestamps is for --format text: the others have times."
        )
    if args.output:
        if os.path.exists(args.output) and not os.path.isdir(args.output):
            raise ValueError(
                f"--output '{args.output}' is a file. Pass a folder."
            )
        targets: dict[Path, str] = {}
        for file in args.files:
            other = targets.setdefault(_target(file, args), file)
            if other != file:
                raise ValueError(
                    f"'{other}' and '{file}' would be written to the same "
                    f"file, '{_target(file, args)}'. Rename one, or use "
                    "another --output for it."
                )
    elif args.format in ("srt", "vtt") and len(args.files) > 1:
        raise ValueError(
            f"Subtitles of {len(args.files)} files cannot stand in one "
            "output. Pass --output with a folder for them."
        )


def _target(file, args):
    return Path(args.output, Path(file).stem + _SUFFIXES[args.format])


def _transcribe(file, name, model, decoder, label):
    from keras_ds2.audio import audio_duration
    from keras_ds2.transcript import Transcript
    from keras_ds2.transcription import transcribe_file

    duration = audio_duration(file)
    segments = []
    began = time.monotonic()
    with shared.Progress() as progress:
        progress.show(f"{label}: {_clock(duration)}")
        for segment in transcribe_file(model, file, decoder):
            segments.append(segment)
            speed = segment.end / (time.monotonic() - began)
            progress.show(
                f"{label}: {segment.end / duration:.0%} of {_clock(duration)}, "
                f"{speed:.1f} times as fast as spoken"
            )
    return Transcript(shared.printable(file), duration, name, segments)


def _format(transcript, args):
    if args.format == "text":
        return _format_text(transcript, args)
    return transcript.format(args.format)


def _format_text(transcript, args):
    several = len(args.files) > 1 and not args.output
    prefix = f"{transcript.file}\t" if several else ""
    if not args.timestamps:
        return prefix + transcript.format("text")
    return "".join(
        f"{prefix}[{_clock(segment.start, 2)} - {_clock(segment.end, 2)}] "
        f"{segment.hypothesis.text}\n"
        for segment in transcript.segments
    )


def _clock(seconds, digits=0):
    """`1:02:03`, or `2:03.45`."""
    minutes, seconds = divmod(round(seconds, digits), 60)
    hours, minutes = divmod(int(minutes), 60)
    width = digits + 3 if digits else 2
    start = f"{hours}:{minutes:02}" if hours else f"{minutes}"
    return f"{start}:{seconds:0{width}.{digits}f}"
