"""Model, validation data and decoder in, the decoder's best weights out."""

import itertools
import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from keras_ds2.data.dataset import SpeechDataset
from keras_ds2.decoding.beam_search import BeamSearchDecoder
from keras_ds2.models.speech_recognizer import SpeechRecognizer
from keras_ds2.training.evaluate import rows_read
from keras_ds2.training.figures import import_pyplot

LM_WEIGHTS = (0.0, 0.25, 0.5, 0.75, 1.0, 1.5)
WORD_SCORES = (-2.0, -1.0, 0.0, 1.0, 2.0)

_NAMES = ("beam_width", "lm_weight", "word_score")


@dataclass(frozen=True)
class DecoderTrial:
    """One point of the grid, and the WER there."""

    beam_width: int
    lm_weight: float
    word_score: float
    wer: float


@dataclass(frozen=True)
class DecoderTuning:
    """What `tune_decoder` found: all trials, the best, and its decoder."""

    table: list[DecoderTrial]
    best: DecoderTrial
    decoder: BeamSearchDecoder  # with the best weights
    greedy_wer: float
    num_utterances: int

    @property
    def on_border(self) -> tuple[str, ...]:
        """Names of what is best at the end of the tried values.

        Not `lm_weight=0`, below which there is nothing, nor the narrowest
        beam, for narrower ones are not better.
        """
        names = []
        for name in _NAMES:
            values = self._values(name)
            best = getattr(self.best, name)
            is_floor = best == 0 if name == "lm_weight" else name == _NAMES[0]
            if len(values) > 1 and (
                best == values[-1] or best == values[0] and not is_floor
            ):
                names.append(name)
        return tuple(names)

    @property
    def warning(self) -> str:
        """Says where the grid was too small; empty if it was not."""
        parts = []
        for name in self.on_border:
            best = getattr(self.best, name)
            is_last = best == self._values(name)[-1]
            parts.append(
                f"The best {name}, {best:g}, is the "
                f"{'largest' if is_last else 'smallest'} that was tried. Try "
                f"{'larger' if is_last else 'smaller'} ones too."
            )
        return " ".join(parts)

    def report(self) -> str:
        """Formats table, best, greedy decoding and warning for people."""
        lines = []
        word_scores = self._values("word_score")
        for beam_width in self._values("beam_width"):
            lines += [
                f"WER in %, {self.num_utterances} utterances, beam_width "
                f"{beam_width}; lm_weight down, word_score across",
                " " * 8 + "".join(f"{score:8g}" for score in word_scores),
            ]
            for weight, row in zip(
                self._values("lm_weight"), self._grid(beam_width), strict=True
            ):
                cells = "".join(f"{100 * wer:8.2f}" for wer in row)
                lines.append(f"{weight:8g}{cells}")
        lines.append(
            f"Best: {100 * self.best.wer:.2f} % at lm_weight "
            f"{self.best.lm_weight:g}, word_score {self.best.word_score:g}, "
            f"beam_width {self.best.beam_width}; greedy: "
            f"{100 * self.greedy_wer:.2f} %"
        )
        if self.warning:
            lines.append(f"Warning: {self.warning}")
        return "\n".join(lines)

    def plot(self, path: str | os.PathLike[str]) -> None:
        """Draws the WER over both weights, at the best beam width.

        Args:
            path: File to write, such as `"weights.png"`.

        Raises:
            ImportError: If matplotlib is missing.
        """
        pyplot = import_pyplot()
        weights = self._values("lm_weight")
        scores = self._values("word_score")
        grid = 100 * self._grid(self.best.beam_width)
        figure, axes = pyplot.subplots(
            figsize=(2 + 0.8 * len(scores), 1.8 + 0.45 * len(weights)),
            layout="constrained",
        )
        image = axes.imshow(grid, cmap="viridis_r", aspect="auto")
        figure.colorbar(image, label="WER in %")
        middle = (grid.min() + grid.max()) / 2
        for (row, column), wer in np.ndenumerate(grid):
            axes.text(
                column,
                row,
                f"{wer:.2f}",
                ha="center",
                va="center",
                color="white" if wer > middle else "black",
            )
        best = (
            scores.index(self.best.word_score) - 0.5,
            weights.index(self.best.lm_weight) - 0.5,
        )
        axes.add_patch(
            pyplot.Rectangle(
                best, 1, 1, fill=False, edgecolor="red", linewidth=3
            )
        )
        axes.set_xticks(range(len(scores)), [f"{s:g}" for s in scores])
        axes.set_yticks(range(len(weights)), [f"{w:g}" for w in weights])
        axes.set(xlabel="word_score", ylabel="lm_weight")
        figure.suptitle(
            f"best {self.best.wer:.2%}, greedy {self.greedy_wer:.2%}, "
            f"beam {self.best.beam_width}"
        )
        figure.savefig(path, dpi=120)
        pyplot.close(figure)

    def _values(self, name):
        return sorted({getattr(trial, name) for trial in self.table})

    def _grid(self, beam_width):
        """WER of shape `(lm_weights, word_scores)`."""
        rows = [t.wer for t in self.table if t.beam_width == beam_width]
        return np.reshape(rows, (len(self._values("lm_weight")), -1))


def tune_decoder(
    model: SpeechRecognizer,
    dataset: SpeechDataset,
    decoder: BeamSearchDecoder,
    lm_weights: Sequence[float] | None = None,
    word_scores: Sequence[float] | None = None,
    beam_widths: Sequence[int] | None = None,
    progress: bool = False,
) -> DecoderTuning:
    """Finds the weights of a decoder by the WER on validation data.

    Tries every combination. The logits are computed once, and the language
    model is loaded once.

    Of several combinations with the lowest WER, those of the narrowest beam
    count; of these the one nearest to their middle, in steps of the grid,
    for the middle of a plateau holds best on other data; then the one of the
    lower `lm_weight`, then of the lower `word_score`.

    Args:
        model: A `DeepSpeech2` or `DeepSpeech`, trained.
        dataset: A `SpeechDataset` of validation data, never the test data.
        decoder: `BeamSearchDecoder` of the model's alphabet.
        lm_weights: Sequence of floats, not negative. Defaults to `None`: `(0,
            0.25, 0.5, 0.75, 1, 1.5)`, or 0 without a language model.
        word_scores: Sequence of floats. Defaults to `None`: `(-2, -1, 0, 1,
            2)`, or 0 without words, as with a model of characters.
        beam_widths: Sequence of integers. Defaults to `None`: the decoder's.
        progress: Boolean. Whether to report each trial to standard error.
            Defaults to `False`.

    Returns:
        `DecoderTuning`: `table`, a list of all trials (`beam_width`,
        `lm_weight`, `word_score`, `wer`); `best`, one of them; `decoder`, with
        the best weights; `greedy_wer`; `on_border`, names of what is best at
        the end of the tried values, and `warning`, the sentence about it;
        `report()` for people; `plot(path)`, a heat map.

    Raises:
        ValueError: If there is nothing to try, a value is out of range, or
            the decoder has no language model, or no words, to weigh.

    Reference:
        Hannun et al., 2014, section 2.2, where both weights are chosen so.

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
    if lm_weights is None:
        lm_weights = LM_WEIGHTS if decoder.language_model else [0.0]
    if word_scores is None:
        word_scores = WORD_SCORES if decoder.has_words else [0.0]
    if beam_widths is None:
        beam_widths = [decoder.beam_width]
    grid = list(
        itertools.product(
            _tried("beam_widths", beam_widths),
            _tried("lm_weights", lm_weights),
            _tried("word_scores", word_scores),
        )
    )
    if decoder.language_model is None and set(lm_weights) != {0}:
        raise ValueError(
            "`lm_weights` need a decoder with a language model. Leave them "
            f"out. Received: lm_weights={list(lm_weights)}."
        )
    decoders = [
        decoder.with_weights(lm_weight, word_score, beam_width)
        for beam_width, lm_weight, word_score in grid
    ]
    # Here, for it takes a while to import and only evaluation needs it.
    import jiwer

    batches = [model.predict_logits(x) for x, _ in dataset.one_pass()]
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
                for name in ("lm_weight", "word_score")
            ]
            for trial in ties
        ]
    )
    distance = ((steps - steps.mean(axis=0)) ** 2).sum(axis=1)
    # The table is sorted, and the first of the smallest is taken.
    return ties[int(distance.round(9).argmin())]
