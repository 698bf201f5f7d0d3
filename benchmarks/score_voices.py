"""Scores synthetic voices by how well another recognizer understands them.

    pip install pocketsphinx
    python benchmarks/score_voices.py synthetic/manifest.jsonl --utterances 30

Transcribes the first utterances of each speaker of a manifest with the model
that comes with pocketsphinx, and prints how fast each one speaks and word
error rates, that of all with a 95 % interval. The rate of real speech is the
yardstick (`--corpus` selects in a manifest that holds several): a voice far
above it is broken.
"""

import argparse
import collections
import json
import os
import pathlib

import jiwer
import soundfile

from keras_ds2.training.evaluate import Evaluation, TranscribedUtterance


def parse_arguments(argv=None):
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("manifest", type=pathlib.Path)
    parser.add_argument("--utterances", type=int, default=30, help="of each")
    parser.add_argument("--corpus", help="as in the manifest")
    parser.add_argument("--max-duration", type=float, default=10, help="s")
    return parser.parse_args(argv)


def read_speakers(args):
    speakers = collections.defaultdict(list)
    for line in args.manifest.read_text().splitlines():
        row = json.loads(line)
        if args.corpus in (None, row.get("corpus")):
            if row["duration"] <= args.max_duration:
                speakers[row["speaker"]].append(row)
    return speakers


def transcribe(decoder, path):
    samples, _ = soundfile.read(path, dtype="int16")
    decoder.start_utt()
    decoder.process_raw(samples.tobytes(), full_utt=True)
    decoder.end_utt()
    return decoder.hyp().hypstr if decoder.hyp() else ""


def main(argv=None):
    args = parse_arguments(argv)
    import pocketsphinx

    decoder = pocketsphinx.Decoder(samprate=16000, loglevel="FATAL")
    all_utterances = []
    for speaker, rows in sorted(read_speakers(args).items()):
        rows = rows[: args.utterances]
        texts = [row["text"] for row in rows]
        results = [
            transcribe(
                decoder, os.path.join(args.manifest.parent, row["audio"])
            )
            for row in rows
        ]
        seconds = sum(row["duration"] for row in rows)
        words = sum(len(text.split()) for text in texts)
        print(
            f"{speaker:32} {jiwer.wer(texts, results):6.1%} of {words} words, "
            f"{words / seconds:.2f} words per second",
            flush=True,
        )
        all_utterances += [
            TranscribedUtterance(
                row["audio"],
                row["text"],
                text,
                jiwer.wer(row["text"], text),
                speaker=speaker,
            )
            for row, text in zip(rows, results, strict=True)
        ]
    print(Evaluation.of(all_utterances).report(num_worst=0))


if __name__ == "__main__":
    main()
