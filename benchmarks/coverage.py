"""How often 95 % intervals of an error rate hold the truth.

    python benchmarks/coverage.py

Corpora are drawn from one truth: a WER of 10 % on the average of speakers
who differ (a beta distribution, standard deviation 4.7 %) and say 50 to 200
words each.
"""

import argparse

import numpy as np

from keras_ds2.scoring import bootstrap_interval


def coverage(num_speakers, num_corpora, seed=0):
    """Returns the share of intervals that hold the truth."""
    rng = np.random.default_rng(seed)
    hits = 0
    for _ in range(num_corpora):
        words = rng.integers(50, 201, size=num_speakers)
        errors = rng.binomial(words, rng.beta(4, 36, size=num_speakers))
        low, high = bootstrap_interval(errors, words)
        hits += low <= 0.1 <= high
    return hits / num_corpora


def main(argv=None):
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--corpora", type=int, default=2000)
    args = parser.parse_args(argv)
    for num_speakers in (3, 5, 8, 20, 100):
        share = coverage(num_speakers, args.corpora)
        print(f"{num_speakers} speakers: {share:.1%}")


if __name__ == "__main__":
    main()
