"""What a person looks at after training: curves, and one utterance."""

import csv
import os

import keras
import numpy as np

from keras_ds2.audio import load_audio, pad_samples
from keras_ds2.models.speech_recognizer import SpeechRecognizer


def _pyplot():
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
    pyplot = _pyplot()
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
    """Draws one utterance: log-mel, character posteriors, both texts.

    Args:
        model: A `DeepSpeech2` or `DeepSpeech`.
        audio: Audio file.
        reference: What was said.
        path: File to write, such as `"utterance.png"`.

    Raises:
        ImportError: If matplotlib is missing.

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
    pyplot = _pyplot()
    log_mel = model.get_layer("log_mel")
    inputs = pad_samples([load_audio(audio, log_mel.sampling_rate)])
    frames = keras.ops.convert_to_numpy(log_mel(inputs["audio"]))[0]
    logits = model.predict_on_batch(inputs)["logits"][0]
    posteriors = keras.ops.convert_to_numpy(keras.ops.softmax(logits))
    [hypothesis] = model.transcribe_batch(inputs)

    seconds = len(inputs["audio"][0]) / log_mel.sampling_rate
    figure, (top, bottom) = pyplot.subplots(
        2, 1, figsize=(12, 7), sharex=True, height_ratios=(2, 3)
    )
    top.imshow(
        frames.astype("float32").T,
        origin="lower",
        aspect="auto",
        extent=(0, seconds, 0, frames.shape[1]),
    )
    top.set(ylabel="mel bin", title=f"said:   {reference}", xlim=(0, seconds))
    symbols = ["blank", *model.alphabet]
    symbols = ["space" if symbol == " " else symbol for symbol in symbols]
    bottom.imshow(
        posteriors[:, : len(symbols)].T,
        aspect="auto",
        cmap="magma_r",
        vmin=0,
        vmax=1,
        interpolation="nearest",
        extent=(0, seconds, len(symbols) - 0.5, -0.5),
    )
    bottom.set_yticks(np.arange(len(symbols)), symbols, fontsize=7)
    bottom.set(xlabel="seconds", ylabel="symbol", title=f"heard:  {hypothesis}")
    for axes in (top, bottom):
        axes.title.set_fontfamily("monospace")
        axes.title.set_wrap(True)
    figure.tight_layout()
    figure.savefig(path, dpi=120)
    pyplot.close(figure)
