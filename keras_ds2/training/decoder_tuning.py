"""What trying the weights of a decoder came to: table, report, heat map."""

import itertools
import os
from dataclasses import dataclass

import numpy as np

from keras_ds2.decoding.beam_search import BeamSearchDecoder
from keras_ds2.training.figures import import_pyplot

_NAMES = ("beam_width", "prior_weight", "lm_weight", "word_score")


@dataclass(frozen=True)
class DecoderTrial:
    """One point of the grid, and the WER there."""

    beam_width: int
    prior_weight: float
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

        Not `lm_weight=0` or `prior_weight=0`, below which there is nothing,
        nor the narrowest beam, for narrower ones are not better.
        """
        names = []
        for name in _NAMES:
            values = self._values(name)
            best = getattr(self.best, name)
            is_floor = name == "beam_width"
            if name in ("lm_weight", "prior_weight"):
                is_floor = best == 0
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
        for beam_width, prior_weight in itertools.product(
            self._values("beam_width"), self._values("prior_weight")
        ):
            prior = (
                f", prior_weight {prior_weight:g}" if self._has_prior else ""
            )
            lines += [
                f"WER in %, {self.num_utterances} utterances, beam_width "
                f"{beam_width}{prior}; lm_weight down, word_score across",
                " " * 8 + "".join(f"{score:8g}" for score in word_scores),
            ]
            for weight, row in zip(
                self._values("lm_weight"),
                self._grid(beam_width, prior_weight),
                strict=True,
            ):
                cells = "".join(f"{100 * wer:8.2f}" for wer in row)
                lines.append(f"{weight:8g}{cells}")
        prior = ""
        if self._has_prior:
            prior = f", prior_weight {self.best.prior_weight:g}"
        lines.append(
            f"Best: {100 * self.best.wer:.2f} % at lm_weight "
            f"{self.best.lm_weight:g}, word_score {self.best.word_score:g}, "
            f"beam_width {self.best.beam_width}{prior}; greedy: "
            f"{100 * self.greedy_wer:.2f} %"
        )
        if self.warning:
            lines.append(f"Warning: {self.warning}")
        return "\n".join(lines)

    def plot(self, path: str | os.PathLike[str]) -> None:
        """Draws the WER over both weights, at the best beam and prior.

        Args:
            path: File to write, such as `"weights.png"`.

        Raises:
            ImportError: If matplotlib is missing.
        """
        pyplot = import_pyplot()
        weights = self._values("lm_weight")
        scores = self._values("word_score")
        grid = 100 * self._grid(self.best.beam_width, self.best.prior_weight)
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
        title = (
            f"best {self.best.wer:.2%}, greedy {self.greedy_wer:.2%},\n"
            f"beam {self.best.beam_width}"
        )
        if self._has_prior:
            title += f", prior_weight {self.best.prior_weight:g}"
        figure.suptitle(title)
        figure.savefig(path, dpi=120)
        pyplot.close(figure)

    def _values(self, name):
        return sorted({getattr(trial, name) for trial in self.table})

    @property
    def _has_prior(self):
        return any(self._values("prior_weight"))

    def _grid(self, beam_width, prior_weight):
        """WER of shape `(lm_weights, word_scores)`."""
        rows = [
            trial.wer
            for trial in self.table
            if trial.beam_width == beam_width
            and trial.prior_weight == prior_weight
        ]
        return np.reshape(rows, (len(self._values("lm_weight")), -1))
