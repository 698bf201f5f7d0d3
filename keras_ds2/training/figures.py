"""What a person looks at after training: curves, and one utterance."""

import csv
import os

import keras
import numpy as np

from keras_ds2.audio import pad_samples
from keras_ds2.decoding.alignment import character_log_probs
from keras_ds2.models.align import align
from keras_ds2.models.speech_recognizer import SpeechRecognizer


def import_pyplot():
    """Imports matplotlib, to draw into files.

    Raises:
        ImportError: If it is not installed, with the line that installs it.
    """
    try:
        import matplotlib
    except ImportError as error:
        raise ImportError(
            "Figures need matplotlib: pip install 'keras_ds2[plot]'"
        ) from error
    matplotlib.use("Agg")  # no screen needed
    from matplotlib import pyplot

    return pyplot


def plot_learning_curves(
    log: str | os.PathLike[str], path: str | os.PathLike[str]
) -> None:
    """Draws loss and error rates of every epoch.

    Args:
        log: The CSV file that `BackupAndRestore` wrote.
        path: File to write, such as `"curves.png"`.

    Raises:
        ImportError: If matplotlib is missing.
        ValueError: If the log holds no epoch.

    Example:

    >>> import os, tempfile
    >>> import keras_ds2
    >>> folder = tempfile.mkdtemp()
    >>> log = os.path.join(folder, "log.csv")
    >>> with open(log, "w") as file:
    ...     _ = file.write("epoch,loss,cer,wer\\n0,300,1.0,1.0\\n")
    >>> figure = os.path.join(folder, "curves.png")
    >>> keras_ds2.plot_learning_curves(log, figure)
    >>> os.path.exists(figure)
    True
    """
    pyplot = import_pyplot()
    with open(log, newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    if not rows:
        raise ValueError(f"The log '{os.fspath(log)}' holds no epoch yet.")
    epochs = [int(row["epoch"]) + 1 for row in rows]
    figure, all_axes = pyplot.subplots(1, 3, figsize=(12, 3.5))
    panels = [
        ("loss", "CTC loss", 1),
        ("cer", "CER in %", 100),
        ("wer", "WER in %", 100),
    ]
    for axes, (name, label, factor) in zip(all_axes, panels, strict=True):
        for key, legend in ((name, "training"), (f"val_{name}", "validation")):
            if key in rows[0]:
                # An epoch without validation has empty cells.
                values = [float(row[key] or "nan") * factor for row in rows]
                axes.plot(epochs, values, marker=".", label=legend)
        axes.set(xlabel="epoch", ylabel=label)
        axes.xaxis.get_major_locator().set_params(integer=True)
        # The first epochs insert hundreds of characters, and would flatten
        # all that follows.
        axes.set_ylim(0, None if name == "loss" else 110)
        axes.grid(alpha=0.3)
        axes.legend()
    figure.tight_layout()
    figure.savefig(path, dpi=120)
    pyplot.close(figure)


def plot_transcription(
    model: SpeechRecognizer,
    audio: str | os.PathLike[str],
    reference: str,
    path: str | os.PathLike[str],
) -> None:
    """Draws one utterance: waveform, log-mel, character posteriors, words.

    The words that were said stand in the waveform, those that the model heard
    in its posteriors, each where `align` finds it.

    Args:
        model: A `DeepSpeech2` or `DeepSpeech`.
        audio: Audio file.
        reference: What was said.
        path: File to write, such as `"utterance.png"`.

    Raises:
        ImportError: If matplotlib is missing.
        ValueError: If `align` cannot find `reference` in the recording.

    Example:

    >>> import os, tempfile
    >>> import keras_ds2
    >>> model = keras_ds2.DeepSpeech2(num_rnn_layers=1, rnn_units=8)
    >>> figure = os.path.join(tempfile.mkdtemp(), "utterance.png")
    >>> keras_ds2.plot_transcription(
    ...     model,
    ...     "tests/data/LibriSpeech/train-clips/19/198/19-198-0037.opus",
    ...     "she must seek them abroad invited her to go with them",
    ...     figure,
    ... )
    >>> os.path.exists(figure)
    True
    """
    pyplot = import_pyplot()
    samples = model.load_recording(audio)
    [hypothesis] = model.recognize([samples])
    log_mel = model.get_layer("log_mel")
    frames = keras.ops.convert_to_numpy(log_mel(samples[None]))[0]
    logits, _ = model.predict_logits(pad_samples([samples]))
    posteriors = np.exp(
        character_log_probs(logits[0], model.alphabet, model.ctc.blank_index)
    )
    seconds = len(samples) / log_mel.sampling_rate
    times = np.linspace(0, seconds, len(samples), endpoint=False)
    end = len(posteriors) * model.frame_duration

    figure, (top, middle, bottom) = pyplot.subplots(
        3, 1, figsize=(12, 9), sharex=True, height_ratios=(1.4, 2, 4)
    )
    top.plot(times, samples, color="black", linewidth=0.4)
    top.set(ylabel="waveform", title=f"said:   {reference}", xlim=(0, seconds))
    middle.imshow(
        frames.astype("float32").T,
        origin="lower",
        aspect="auto",
        extent=(0, seconds, 0, frames.shape[1]),
    )
    middle.set(ylabel="mel bin")
    symbols = ["blank", *model.alphabet]
    symbols = ["space" if symbol == " " else symbol for symbol in symbols]
    bottom.imshow(
        posteriors.T,
        aspect="auto",
        cmap="magma_r",
        vmin=0,
        vmax=1,
        interpolation="nearest",
        extent=(0, end, len(symbols) - 0.5, -0.5),
    )
    bottom.set_yticks(np.arange(len(symbols)), symbols, fontsize=7)
    bottom.set(
        xlabel="seconds",
        ylabel="symbol",
        title=f"heard:  {hypothesis.text}",
        xlim=(0, seconds),
    )
    _mark_words(top, align(model, samples, reference)[0], share=0.4)
    _mark_words(bottom, hypothesis.words, share=0.12)
    for axes in (top, bottom):
        axes.title.set_fontfamily("monospace")
        axes.title.set_wrap(True)
    figure.tight_layout()
    figure.savefig(path, dpi=120)
    pyplot.close(figure)


def _mark_words(axes, words, share):
    """Writes each word above its time, in a band that is made for them."""
    bottom, top = axes.get_ylim()
    band = share * (top - bottom)  # negative where the axis points downward
    axes.set_ylim(bottom, top + band)
    for index, word in enumerate(words):
        for seconds in (word.start, word.end):
            axes.axvline(seconds, color="tab:blue", linewidth=0.6, alpha=0.6)
        axes.axvspan(
            word.start,
            word.end,
            ymin=1 / (1 + share),
            color="tab:blue",
            alpha=0.15,
            linewidth=0,
        )
        axes.text(
            (word.start + word.end) / 2,
            top + (0.7 if index % 2 else 0.3) * band,  # short ones overlap
            word.text,
            fontsize=9,
            ha="center",
            va="center",
        )
