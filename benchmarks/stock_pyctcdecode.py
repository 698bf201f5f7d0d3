"""Times pyctcdecode for decode.py, which starts this and explains it.

Reads a JSON object from standard input, writes one to standard output. Needs
pyctcdecode, kenlm and NumPy, not this package: pyctcdecode asks for an older
NumPy than TensorFlow does.
"""

import json
import sys
import time

import numpy as np

# Its own, and those of our decoder: a beam 25 wide in scores, all symbols.
PRUNING = {
    "its pruning": {},
    "our pruning": {"beam_prune_logp": -25.0, "token_min_logp": -25.0},
}


def main():
    job = json.load(sys.stdin)
    try:
        import kenlm
        import pyctcdecode
    except ImportError as error:
        print(json.dumps({"missing": str(error)}))
        return
    file = np.load(job["logits"])
    utterances = np.split(file["log_probs"], np.cumsum(file["frames"])[:-1])
    decoder = pyctcdecode.build_ctcdecoder(
        ["", *job["alphabet"]],
        job["language_model"],
        job["words"],
        alpha=job["lm_weight"],
        beta=job["word_score"],
    )
    model = kenlm.Model(job["language_model"])
    rows = []
    for pruning, options in PRUNING.items():
        for beam_width in job["beam_widths"]:
            decoder.decode(utterances[0], beam_width=beam_width, **options)
            seconds = []
            for _ in range(job["repeats"]):
                start = time.process_time()
                texts = [
                    decoder.decode(item, beam_width=beam_width, **options)
                    for item in utterances
                ]
                seconds.append(time.process_time() - start)
            rows.append(
                {
                    "decoder": f"pyctcdecode, {pruning}",
                    "beam_width": beam_width,
                    "seconds": seconds,
                    "texts": texts,
                    "lm_scores": [
                        model.score(text) * np.log(10.0) for text in texts
                    ],
                }
            )
    print(json.dumps({"rows": rows}))


if __name__ == "__main__":
    main()
