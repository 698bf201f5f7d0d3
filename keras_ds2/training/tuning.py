"""Model, validation data and decoder in, the decoder's best weights out."""

import copy
import itertools
import sys
from collections.abc import Sequence

import numpy as np

from keras_ds2.data.dataset import SpeechDataset
from keras_ds2.decoding.alignment import character_log_probs
from keras_ds2.decoding.beam_search import BeamSearchDecoder
from keras_ds2.decoding.symbol_prior import measure_symbol_prior
from keras_ds2.models.speech_recognizer import SpeechRecognizer
from keras_ds2.training.decoder_tuning import DecoderTrial, DecoderTuning
from keras_ds2.training.evaluate import rows_read

LM_WEIGHTS = (0.0, 0.25, 0.5, 0.75, 1.0, 1.5)
WORD_SCORES = (-2.0, -1.0, 0.0, 1.0, 2.0)


def tune_decoder(
    model: SpeechRecognizer,
    dataset: SpeechDataset,
    decoder: BeamSearchDecoder,
    lm_weights: Sequence[float] | None = None,
    word_scores: Sequence[float] | None = None,
    beam_widths: Sequence[int] | None = None,
    prior_weights: Sequence[float] | None = None,
    progress: bool = False,
) -> DecoderTuning:
    """Finds the weights of a decoder by the WER on validation data.

    Tries every combination. The logits are computed once, and the language
    model is loaded once.

    Of several combinations with the lowest WER, those of the narrowest beam
    count; of these the one nearest to their middle, in steps of the grid,
    for the middle of a plateau holds best on other data; then the one of the
    lower `prior_weight`, `lm_weight`, `word_score`.

    The prior of the characters, if one is to be tried and the decoder has
    none, is the mean of what the model tells of all frames; no transcript
    has a part in it.

    Args:
        model: A `DeepSpeech2` or `DeepSpeech`, trained.
        dataset: A `SpeechDataset` of validation data, never the test data.
        decoder: `BeamSearchDecoder` of the model's alphabet.
        lm_weights: Sequence of floats, not negative. Defaults to `None`: `(0,
            0.25, 0.5, 0.75, 1, 1.5)`, or 0 without a language model.
        word_scores: Sequence of floats. Defaults to `None`: `(-2, -1, 0, 1,
            2)`, or 0 without words, as with a model of characters.
        beam_widths: Sequence of integers. Defaults to `None`: the decoder's.
        prior_weights: Sequence of floats, not negative. For a model of high
            error rates 0.3 to 0.8 are worth a try. Defaults to `None`: the
            decoder's.
        progress: Boolean. Whether to report each trial to standard error.
            Defaults to `False`.

    Returns:
        `DecoderTuning`: `table`, a list of all trials (`beam_width`,
        `prior_weight`, `lm_weight`, `word_score`, `wer`); `best`, one of
        them; `decoder`, with the best weights; `greedy_wer`; `on_border`,
        names of what is best at the end of the tried values, and `warning`,
        the sentence about it; `report()` for people; `plot(path)`, a heat
        map.

    Raises:
        ValueError: If there is nothing to try, a value is out of range, or
            the decoder has no language model, or no words, to weigh.

    Reference:
        Hannun et al., 2014, section 2.2, where both weights are chosen so;
        Miao et al., 2015 (arXiv:1507.08240), for the prior.

    Example:

    >>> import keras_ds2
    >>> model = keras_ds2.DeepSpeech2(num_rnn_layers=1, rnn_units=8)
    >>> validation = keras_ds2.data.prepare_dataset(
    ...     "tests/data/LibriSpeech", ["dev-clips"], model, batch_size=2
    ... )
    >>> decoder = keras_ds2.BeamSearchDecoder(lexicon=["yes", "no"])
    >>> tuning = keras_ds2.tune_decoder(
    ...     model, validation, decoder, word_scores=[-1, 0, 1]
    ... )
    >>> len(tuning.table)
    3
    """
    model.check_decoder(decoder)
    if lm_weights is None:
        lm_weights = LM_WEIGHTS if decoder.language_model else [0.0]
    if word_scores is None:
        word_scores = WORD_SCORES if decoder.has_words else [0.0]
    if beam_widths is None:
        beam_widths = [decoder.beam_width]
    if prior_weights is None:
        prior_weights = [decoder.prior_weight]
    grid = list(
        itertools.product(
            _tried("beam_widths", beam_widths),
            _tried("prior_weights", prior_weights),
            _tried("lm_weights", lm_weights),
            _tried("word_scores", word_scores),
        )
    )
    if decoder.language_model is None and set(lm_weights) != {0}:
        raise ValueError(
            "`lm_weights` need a decoder with a language model. Leave them "
            f"out. Received: lm_weights={list(lm_weights)}."
        )
    measures_prior = decoder.prior is None and any(prior_weights)
    if measures_prior:
        decoder = copy.copy(decoder)
        # Until it is known: what is wrong with the rest is to be found now.
        decoder.prior = [1.0] * (len(decoder.alphabet) + 1)
    decoders = [
        decoder.with_weights(lm_weight, word_score, beam_width, prior_weight)
        for beam_width, prior_weight, lm_weight, word_score in grid
    ]
    # Here, for it takes a while to import and only evaluation needs it.
    import jiwer

    batches = [model.predict_logits(x) for x, _ in dataset.one_pass()]
    if measures_prior:
        prior = _measure_prior(batches, decoder)
        for tried in decoders:
            tried.prior = prior
    references = [row.text for row in rows_read(dataset)]

    def error_rate(decoder):
        texts: list[str] = []
        for logits, logit_length in batches:
            texts += model.decode(logits, logit_length, decoder)
        return jiwer.wer(references, texts)

    table = []
    for point, tried in zip(grid, decoders, strict=True):
        table.append(DecoderTrial(*point, error_rate(tried)))
        if progress:
            print(f"{len(table)} of {len(grid)}: {table[-1]}", file=sys.stderr)
    best = _choose(table)
    return DecoderTuning(
        table=table,
        best=best,
        decoder=decoders[table.index(best)],
        greedy_wer=error_rate(None),
        num_utterances=len(references),
    )


def _measure_prior(batches, decoder):
    return measure_symbol_prior(
        np.concatenate(
            [
                character_log_probs(
                    row[:length], decoder.alphabet, decoder.blank_index
                )
                for logits, logit_length in batches
                for row, length in zip(logits, logit_length, strict=True)
            ]
        )
    ).tolist()


def _tried(name, values):
    if not len(values):
        raise ValueError(f"`{name}` must not be empty.")
    return sorted(set(values))


def _choose(table):
    lowest = min(trial.wer for trial in table)
    ties = [trial for trial in table if trial.wer == lowest]
    narrowest = min(trial.beam_width for trial in ties)
    ties = [trial for trial in ties if trial.beam_width == narrowest]
    steps = np.array(
        [
            [
                sorted({getattr(t, name) for t in table}).index(
                    getattr(trial, name)
                )
                for name in ("prior_weight", "lm_weight", "word_score")
            ]
            for trial in ties
        ]
    )
    distance = ((steps - steps.mean(axis=0)) ** 2).sum(axis=1)
    # The table is sorted, and the first of the smallest is taken.
    return ties[int(distance.round(9).argmin())]
