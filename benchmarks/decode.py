"""Times beam search against TensorFlow's and pyctcdecode's, on real logits.

    python benchmarks/decode.py --logits mini.npz \\
        --model runs/mini/best.keras --data validation.jsonl \\
        --language-model books-3gram.arpa.gz [--json]

`--logits` is written from a model and a manifest where it does not exist, and
read where it does. pyctcdecode asks for an older NumPy than TensorFlow needs,
so it runs in a Python of its own, `--pyctcdecode`, made for instance with

    python3 -m venv peers
    peers/bin/pip install --no-deps pyctcdecode pygtrie hypothesis \\
        sortedcontainers numpy kenlm

What is not installed is reported as missing. All use one thread, one utterance
at a time; the medians of `--repeats` are shown, in frames of logits a second of
CPU time, which what else the machine does disturbs least.

- "ours, any text" and "TensorFlow, any text": no words, no language model. Ours
  is TensorFlow's, with a shell around it.
- "ours, words": the words of the language model, and the model.
- "pyctcdecode": the same file, the same words, alpha and beta equal to our two
  weights (all logarithms are natural). Once with its own pruning, which drops
  symbols below exp(-5) and hypotheses 10 below the best; once with ours, 25.

Different texts need not be errors of search, for the objectives differ: to
pyctcdecode a word outside the list is possible, at a cost of 10 decimal orders;
a text that ends with a space is charged so too; the language model counts when
a word is over, not from its first letter on. So each text of either is scored
by our objective, exactly (all alignments, no beam): "better" counts the
utterances where theirs has the higher score, that is, where our search missed
it, "worse" those where it has the lower, "outside" those with a word outside
the list, which our objective does not allow. At equal beam widths ours is the
narrower search, for it counts each point within a word as a hypothesis of its
own: on a weak network pyctcdecode finds some better texts, ours finds them, and
better ones, with a beam a few times as wide.

With `--json`, the last line holds all figures.
"""

import argparse
import json
import os
import pathlib
import statistics
import subprocess
import sys
import time

# Before TensorFlow is imported: its start-up lines frighten without need.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import jiwer
import keras
import numpy as np
import tensorflow as tf

import keras_ds2
from keras_ds2.decoding.alignment import character_log_probs
from keras_ds2.decoding.language_model import read_units, spell_words


def parse_arguments(argv=None):
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--logits", required=True, help=".npz file")
    parser.add_argument("--model", help=".keras file or .json card")
    parser.add_argument("--data", help="manifest (.jsonl)")
    parser.add_argument("--limit", type=int, default=40, help="utterances")
    parser.add_argument("--language-model", help="ARPA or KenLM, of words")
    parser.add_argument("--lm-weight", type=float, default=0.5)
    parser.add_argument("--word-score", type=float, default=0.0)
    parser.add_argument(
        "--beam-widths", type=int, nargs="+", default=[16, 64, 256]
    )
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument(
        "--pyctcdecode",
        metavar="PYTHON",
        default=sys.executable,
        help="the Python that has it (default: this one)",
    )
    parser.add_argument("--json", action="store_true")
    return parser.parse_args(argv)


def write_logits(path, model_path, manifest, limit):
    """Keeps log probabilities, blank first, of a manifest's first rows."""
    if model_path.endswith(".keras"):
        model = keras.models.load_model(model_path, compile=False)
    else:
        model = keras_ds2.load_pretrained(model_path)
    manifest = pathlib.Path(manifest)
    rows = list(keras_ds2.data.read_manifest(manifest))[:limit]
    chosen = {row.audio for row in rows}
    dataset = keras_ds2.data.prepare_dataset(
        manifest.parent,
        [manifest.name],
        model,
        batch_size=8,
        select=lambda row: row.audio in chosen,
    )
    log_probs = [
        character_log_probs(row[:length], model.alphabet, model.ctc.blank_index)
        for x, _ in dataset.one_pass()
        for row, length in zip(*model.predict_logits(x), strict=True)
    ]
    np.savez(
        path,
        log_probs=np.concatenate(log_probs).astype("float32"),
        frames=[len(item) for item in log_probs],
        texts=[row.text for batch in dataset.batches for row in batch],
        alphabet=model.alphabet,
    )


def timed(decode, utterances, repeats):
    """Texts (or what `decode` returns), and the seconds of each repeat."""
    decode(utterances[0])  # what is made once
    seconds = []
    for _ in range(repeats):
        start = time.process_time()
        results = [decode(item) for item in utterances]
        seconds.append(time.process_time() - start)
    return results, seconds


def row_of(name, beam_width, seconds, texts, lm_scores=None):
    return {
        "decoder": name,
        "beam_width": beam_width,
        "seconds": seconds,
        "texts": texts,
        "lm_scores": lm_scores,
    }


def time_ours(args, utterances, alphabet):
    rows = []
    for name, path in (("any text", None), ("words", args.language_model)):
        if name == "words" and path is None:
            continue
        decoder = keras_ds2.BeamSearchDecoder(alphabet, path)
        word_score = args.word_score if path else 0.0
        for beam_width in args.beam_widths:
            search = decoder.with_weights(
                args.lm_weight, word_score, beam_width
            )
            paths, seconds = timed(
                lambda item, search=search: search(item[None], [len(item)])[0],
                utterances,
                args.repeats,
            )
            texts = [best.text for [best] in paths]
            lm_scores = [best.lm_score for [best] in paths]
            rows.append(
                row_of(f"ours, {name}", beam_width, seconds, texts, lm_scores)
            )
    return rows


def time_tensorflow(args, utterances, alphabet):
    def decode(log_probs, beam_width):
        blank_last = np.roll(log_probs, -1, axis=1)[:, None]
        [decoded], _ = tf.nn.ctc_beam_search_decoder(
            blank_last, [len(log_probs)], beam_width, top_paths=1
        )
        text = "".join(alphabet[i] for i in decoded.values.numpy())
        return " ".join(text.split())

    rows = []
    for beam_width in args.beam_widths:
        texts, seconds = timed(
            lambda item, beam_width=beam_width: decode(item, beam_width),
            utterances,
            args.repeats,
        )
        rows.append(row_of("TensorFlow, any text", beam_width, seconds, texts))
    return rows


def time_pyctcdecode(args, alphabet, words):
    """Rows, or the sentence that says why there are none."""
    if args.language_model is None:
        return [], "pyctcdecode was not timed: it needs --language-model."
    job = {
        "logits": os.path.abspath(args.logits),
        "alphabet": alphabet,
        "language_model": os.path.abspath(args.language_model),
        "words": sorted(words),
        "lm_weight": args.lm_weight,
        "word_score": args.word_score,
        "beam_widths": args.beam_widths,
        "repeats": args.repeats,
    }
    worker = pathlib.Path(__file__).with_name("stock_pyctcdecode.py")
    process = subprocess.run(
        [args.pyctcdecode, str(worker)],
        input=json.dumps(job),
        capture_output=True,
        text=True,
    )
    if process.returncode:
        raise SystemExit(f"pyctcdecode failed:\n{process.stderr}")
    answer = json.loads(process.stdout.splitlines()[-1])
    if "missing" in answer:
        return [], f"pyctcdecode is missing: {answer['missing']}."
    return answer["rows"], None


def log_p_ctc(log_probs, text, alphabet):
    """Sums all alignments of a text; runs of spaces are one, anywhere.

    Each character is an entry, its first frame or more, and a rest. The rest
    of a space takes spaces, too, so that each alignment is counted once.
    """
    labels = [alphabet.index(character) + 1 for character in text]
    space = alphabet.index(" ") + 1
    labels += [space] if labels else []  # that may follow the last word
    is_space = np.array(labels) == space
    blank = log_probs[:, :1].astype("float64")
    either = np.logaddexp(blank, log_probs[:, [space]])
    entries = log_probs[:, labels].astype("float64")
    rests = np.hstack([either, np.where(is_space, either, blank)])
    may_skip = np.append([False], np.not_equal(labels[1:], labels[:-1]))
    never = np.full(len(labels), -np.inf)
    entry, rest = never, np.append([0.0], never)
    for frame in range(len(log_probs)):
        before = np.append([-np.inf], entry)[:-1]
        stay = np.where(is_space, -np.inf, entry)
        skip = np.where(may_skip[: len(labels)], before, -np.inf)
        entered = np.logaddexp(np.logaddexp(rest[:-1], skip), stay)
        rested = np.append(rest[:1], np.logaddexp(entry, rest[1:]))
        entry, rest = entered + entries[frame], rested + rests[frame]
    return np.logaddexp.reduce([*entry[-2:], *rest[-2:]])


def compare(ours, theirs, utterances, alphabet, words, args):
    """Counts where their text differs, and whose is better by our score."""
    counts = {"same": 0, "better": 0, "worse": 0, "outside": 0}

    def score(row, index):
        text = row["texts"][index]
        if words is None:
            return log_p_ctc(utterances[index], text, alphabet)
        return (
            log_p_ctc(utterances[index], text, alphabet)
            + args.lm_weight * row["lm_scores"][index]
            + args.word_score * len(text.split())
        )

    for index, (mine, other) in enumerate(
        zip(ours["texts"], theirs["texts"], strict=True)
    ):
        if mine == other:
            counts["same"] += 1
        elif words is not None and not words >= set(other.split()):
            counts["outside"] += 1
        elif score(theirs, index) > score(ours, index):
            counts["better"] += 1
        else:
            counts["worse"] += 1
    return counts


def main(argv=None):
    args = parse_arguments(argv)
    if not os.path.exists(args.logits):
        if args.model is None or args.data is None:
            raise SystemExit(
                f"'{args.logits}' does not exist. Pass --model and --data to "
                "make it."
            )
        write_logits(args.logits, args.model, args.data, args.limit)
    file = np.load(args.logits)
    alphabet = str(file["alphabet"])
    references = [str(text) for text in file["texts"]]
    utterances = np.split(file["log_probs"], np.cumsum(file["frames"])[:-1])
    num_frames = int(file["frames"].sum())
    words = None
    if args.language_model is not None:
        units = read_units(args.language_model)
        words = set(spell_words(units, None, {}, alphabet))

    rows = time_ours(args, utterances, alphabet)
    rows += time_tensorflow(args, utterances, alphabet)
    peer_rows, missing = time_pyctcdecode(args, alphabet, words)
    rows += peer_rows
    ours = {(row["decoder"], row["beam_width"]): row for row in rows}

    print(f"{len(utterances)} utterances, {num_frames:,} frames")
    print(
        f"{'':26}{'beam':>6}{'frames/s':>10}{'WER %':>8}"
        "   texts: same, better, worse, outside"
    )
    for row in rows:
        median = statistics.median(row.pop("seconds"))
        row["frames_per_second"] = num_frames / median
        row["wer"] = jiwer.wer(references, row["texts"])
        line = (
            f"{row['decoder']:26}{row['beam_width']:>6}"
            f"{row['frames_per_second']:>10,.0f}{100 * row['wer']:>8.2f}"
        )
        if not row["decoder"].startswith("ours"):
            is_peer = row["decoder"].startswith("pyctcdecode")
            name = "ours, words" if is_peer else "ours, any text"
            mine = ours[name, row["beam_width"]]
            row["ratio"] = mine["frames_per_second"] / row["frames_per_second"]
            row["texts_compared"] = compare(
                mine,
                row,
                utterances,
                alphabet,
                words if is_peer else None,
                args,
            )
            counts = row["texts_compared"].values()
            line += "          " + "".join(f"{count:>7}" for count in counts)
            line += f"   ours is {row['ratio']:.2f} times as fast"
        print(line)
    if missing:
        print(missing)
    if args.json:
        for row in rows:
            del row["texts"], row["lm_scores"]
        print(
            json.dumps(
                {
                    "cores": os.cpu_count(),
                    "utterances": len(utterances),
                    "frames": num_frames,
                    "lm_weight": args.lm_weight,
                    "word_score": args.word_score,
                    "missing": missing,
                    "rows": rows,
                }
            )
        )


if __name__ == "__main__":
    main()
