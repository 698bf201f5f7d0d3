"""Makes synthetic speech from sentences, for where real speech is scarce.

    python examples/synthesize_speech.py --text sentences.txt.gz --hours 50 \\
        --output synthetic

Reads one sentence a line (letters, spaces, apostrophes), writes Opus files
and `manifest.jsonl`, which may be trained on at any time. Stopped and started
again, it goes on. What to install is told in docs/english.md. `keras_ds2` is
not needed: it may run in an environment of its own.
"""

import argparse
import fcntl
import fnmatch
import functools
import gzip
import hashlib
import itertools
import json
import multiprocessing
import os
import re
import signal
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import soundfile
import soxr
from speech_synthesizers import SynthesisError, synthesizers

SAMPLING_RATE = 16_000
TEMPOS = (0.85, 1.2)
# The voice as a whole is moved, formants too: a longer or shorter throat.
PITCHES = (0.92, 1.08)
# What takes less or more went wrong.
SECONDS_PER_LETTER = (0.03, 0.25)
PEAK = 0.5
OPUS_COMPRESSION = 0.9  # About 30 kbit/s.
PATIENCE = 600  # Seconds, before a worker counts as dead.
BATCH = 64


@dataclass(frozen=True)
class Utterance:
    """What is said and how: all that chance decides."""

    index: int
    text: str
    voice: str  # Of the form "synthesizer/voice".
    tempo: float
    pitch: float
    timbre: tuple[float, float]  # For synthesizers that can; from 0 to 1.


def choose_voices(patterns, table):
    voices = [
        f"{name}/{voice}"
        for name, synthesizer in table.items()
        if synthesizer.is_installed()
        for voice in synthesizer.voices
    ]
    for pattern in patterns:
        if not fnmatch.filter(voices, pattern):
            name = pattern.partition("/")[0]
            if name in table and table[name].is_installed():
                remedy = f"There are: {', '.join(table[name].voices)}"
            else:
                names = [name] if name in table else list(table)
                remedy = "Install it: " + "; or ".join(
                    table[name].install for name in names
                )
            raise SynthesisError(f"No voice is called '{pattern}'. {remedy}.")
    return [
        voice
        for voice in voices
        if any(fnmatch.fnmatchcase(voice, pattern) for pattern in patterns)
    ]


def read_sentences(path, seed):
    opened = gzip.open if str(path).endswith(".gz") else open
    with opened(path, "rt", encoding="utf-8") as file:
        sentences = file.read().splitlines()
    for number, sentence in enumerate(sentences, 1):
        if not re.fullmatch("[A-Za-z' ]*[A-Za-z][A-Za-z' ]*", sentence):
            raise SynthesisError(
                f"{path}:{number}: a sentence must be of letters, spaces and "
                f"apostrophes. Received: {sentence[:80]!r}"
            )
    if not sentences:
        raise SynthesisError(f"'{path}' holds no sentence.")
    np.random.default_rng(seed).shuffle(sentences)
    return sentences


def plan(seed, index, sentences, voices):
    """Draws an utterance: the same for the same seed and index."""
    generator = np.random.default_rng([seed, index])
    return Utterance(
        index=index,
        text=sentences[index % len(sentences)],
        voice=voices[generator.integers(len(voices))],
        tempo=generator.uniform(*TEMPOS),
        pitch=generator.uniform(*PITCHES),
        timbre=tuple(generator.random(2)),
    )


def synthesize(utterance, output, kokoro_archive):
    """Writes a file; returns its row (`None` if it failed) and CPU seconds."""
    begun = sum(os.times()[:4])  # The programs that it calls included.
    name = utterance.voice.partition("/")[0]
    samples, rate = synthesizers(kokoro_archive)[name].speak(
        utterance, utterance.tempo / utterance.pitch
    )
    # Played faster, it is higher, and was spoken the slower.
    samples = soxr.resample(samples, rate * utterance.pitch, SAMPLING_RATE)
    duration = len(samples) / SAMPLING_RATE
    peak = np.max(np.abs(samples), initial=0)
    low, high = SECONDS_PER_LETTER
    if not low <= duration / len(utterance.text) <= high or not peak:
        return None, sum(os.times()[:4]) - begun
    audio = f"audio/{utterance.index // 1000:04}/{utterance.index:07}.opus"
    path = Path(output, audio)
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_suffix(".unfinished")
    soundfile.write(
        unfinished,
        samples * (PEAK / peak),
        SAMPLING_RATE,
        format="OGG",
        subtype="OPUS",
        compression_level=OPUS_COMPRESSION,
    )
    os.replace(unfinished, path)
    row = dict(
        audio=audio,
        text=utterance.text,
        duration=duration,
        speaker=utterance.voice,
        corpus="synthetic",
        index=utterance.index,
        tempo=utterance.tempo,
        pitch=utterance.pitch,
        timbre=utterance.timbre,
    )
    return row, sum(os.times()[:4]) - begun


def go_on(file, output, settings):
    """Returns the rows of a manifest, which it makes ready to be added to."""
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise SynthesisError(f"Another process writes '{output}'.") from None
    path = output / "settings.json"
    if not path.exists():
        unfinished = path.with_suffix(".unfinished")
        unfinished.write_text(json.dumps(settings))
        os.replace(unfinished, path)
    elif json.loads(path.read_text()) != settings:
        raise SynthesisError(
            f"'{output}' was begun with another seed, text or other voices. "
            "Give those, or another --output."
        )
    file.seek(0)
    whole = file.read().rpartition(b"\n")
    # Without a last line that was being written when the last run was killed.
    file.truncate(len(whole[0] + whole[1]))
    return [json.loads(line) for line in whole[0].splitlines()]


def generate(args, file, sentences, voices):
    digest = hashlib.sha256("\n".join(sentences).encode()).hexdigest()
    settings = dict(seed=args.seed, text=digest, voices=voices)
    rows = go_on(file, args.output, settings)
    first = rows[-1]["index"] + 1 if rows else 0
    seconds = sum(row["duration"] for row in rows)
    already, cpu, failed, wanted = seconds, 0.0, 0, 3600 * args.hours
    work = functools.partial(
        synthesize, output=args.output, kokoro_archive=args.kokoro
    )
    context = multiprocessing.get_context("spawn")
    # Ctrl-C is for the parent.
    ignore = (signal.SIGINT, signal.SIG_IGN)
    with context.Pool(args.workers, signal.signal, ignore) as pool:
        for start in itertools.count(first, BATCH):
            batch = [
                plan(args.seed, index, sentences, voices)
                for index in range(start, start + BATCH)
            ]
            results = pool.imap(work, batch)
            for _ in batch:
                if seconds >= wanted:
                    break
                row, used = results.next(PATIENCE)
                cpu += used
                if row is None:
                    failed += 1
                    continue
                file.write(json.dumps(row).encode() + b"\n")
                file.flush()
                seconds += row["duration"]
            speed = (seconds - already) / cpu if cpu else 0
            print(
                f"{seconds / 3600:.3f} of {args.hours:g} h, {failed} left "
                f"out, {speed:.2f} s of speech per second of CPU",
                flush=True,
            )
            if seconds >= wanted:
                break
    # There are enough; workers were ended in the midst of others.
    for unfinished in args.output.glob("audio/*/*.unfinished"):
        unfinished.unlink()


def main(argv=None):
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--text", required=True, help="sentences; may be .gz")
    parser.add_argument("--hours", type=float, required=True)
    parser.add_argument("--output", type=Path, required=True, help="folder")
    parser.add_argument(
        "--voices",
        nargs="+",
        default=["*"],
        help="such as kokoro/af_heart 'flite/*'; by default all installed",
    )
    parser.add_argument(
        "--kokoro", default="kokoro-js-1.2.1.tgz", help="file of its voices"
    )
    parser.add_argument("--workers", type=int, default=1, help="processes")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args(argv)
    try:
        voices = choose_voices(args.voices, synthesizers(args.kokoro))
        print(f"Voices: {' '.join(voices)}", flush=True)
        sentences = read_sentences(args.text, args.seed)
        args.output.mkdir(parents=True, exist_ok=True)
        with open(args.output / "manifest.jsonl", "a+b") as file:
            generate(args, file, sentences, voices)
    except (SynthesisError, OSError, subprocess.TimeoutExpired) as error:
        sys.exit(str(error))
    except multiprocessing.TimeoutError:
        sys.exit(f"A worker gave nothing for {PATIENCE} s and seems dead.")
    except KeyboardInterrupt:
        sys.exit("Stopped. The same command goes on.")


if __name__ == "__main__":
    main()
