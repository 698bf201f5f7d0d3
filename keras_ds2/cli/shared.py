"""What several commands need: models, decoders, quiet, progress."""

import argparse
import contextlib
import os
import shutil
import sys
import tempfile
import traceback
from collections.abc import Iterator
from pathlib import Path

DEFAULT_MODEL = "en-read"


def add_model_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds `--model`, `--decoder` and `--device`."""
    add_model_argument(parser)
    parser.add_argument(
        "--decoder",
        metavar="FILE",
        help="JSON file of a beam search with a language model or lexicon; "
        "by default the best symbol of each frame is taken",
    )
    add_device_argument(parser)


def add_model_argument(parser: argparse.ArgumentParser) -> None:
    """Adds `--model`."""
    parser.add_argument(
        "--model",
        metavar="MODEL",
        help="name of a shipped model (keras-ds2 info lists them), card "
        f"(.json) or .keras file (default: {DEFAULT_MODEL})",
    )


def add_device_argument(parser: argparse.ArgumentParser) -> None:
    """Adds `--device`."""
    parser.add_argument(
        "--device",
        default="auto",
        help="auto, cpu or cuda:N (default: auto, the first GPU if any)",
    )


@contextlib.contextmanager
def quiet_imports() -> Iterator[None]:
    """Keeps from the terminal what TensorFlow's libraries say when loaded.

    They write to the file descriptor, before any setting of theirs acts.
    """
    level = os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    if level != "3":  # wanted
        yield
        return
    sys.stderr.flush()
    stderr = os.dup(2)
    with tempfile.TemporaryFile() as noise:
        os.dup2(noise.fileno(), 2)
        try:
            yield
        finally:
            os.dup2(stderr, 2)
            os.close(stderr)


def load_model(name: str | None, device: str = "auto"):
    """Loads the model of `--model`.

    Args:
        name: Name of a shipped model, path of a card or `.keras` file, or
            `None` for the default one.
        device: As of `use_device`. Defaults to `"auto"`.

    Returns:
        Its name, and the model.

    Raises:
        ValueError: If there is no such model or device.
    """
    with quiet_imports():
        import keras

        from keras_ds2.models.speech_recognizer import SpeechRecognizer
        from keras_ds2.pretrained import load_pretrained, pretrained_names
        from keras_ds2.training.device import use_device

    use_device(device)
    if name is None:
        name = DEFAULT_MODEL
        if is_terminal():
            print(f"Model: {name} (--model for another)", file=sys.stderr)
    if name.endswith(".json") or name in pretrained_names():
        return name, load_pretrained(name)
    if not name.endswith(".keras"):
        raise ValueError(
            f"There is no model '{name}'. Shipped: "
            f"{', '.join(pretrained_names()) or 'none'}. Others are a card "
            "(.json) or a .keras file."
        )
    if not os.path.isfile(name):
        raise ValueError(f"Model '{name}' does not exist. Check the path.")
    try:
        model = keras.models.load_model(name, compile=False)
    except (OSError, KeyError) as error:
        raise ValueError(f"Model '{name}' cannot be read: {error}") from error
    if not isinstance(model, SpeechRecognizer):
        raise ValueError(
            f"Model '{name}' must be a DeepSpeech2 or DeepSpeech. Received: a "
            f"{type(model).__name__}."
        )
    return name, model


def load_decoder_for(model, path: str | None):
    """Loads the decoder of `--decoder`, `None` if there is none."""
    if path is None:
        return None
    from keras_ds2.decoding.decoder_file import load_decoder

    return load_decoder(path, model.alphabet, model.ctc.blank_index)


def locate_corpus(path: str, split: str) -> tuple[Path, list[str]]:
    """Finds what `prepare_dataset` calls a corpus.

    Args:
        path: A manifest, a subset or the folder of LibriSpeech, or AN4.
        split: Half of AN4.

    Returns:
        Its root, and the names there.

    Raises:
        ValueError: If there is no such corpus.
    """
    corpus = Path(path)
    if corpus.suffix in (".jsonl", ".json"):
        return corpus.parent, [corpus.name]
    if not corpus.is_dir():
        raise ValueError(
            f"'{corpus}' is neither a folder nor a manifest (.jsonl). Check "
            "the path."
        )
    if (corpus / "etc").is_dir():
        return corpus, [f"an4_{split}"]
    if _is_subset(corpus):
        # Resolved, for the name of "." is empty.
        return corpus.resolve().parent, [corpus.resolve().name]
    subsets = sorted(p.name for p in corpus.iterdir() if _is_subset(p))
    if not subsets:
        raise ValueError(
            f"Folder '{corpus}' holds neither LibriSpeech (speaker/chapter/*"
            ".trans.txt) nor AN4 (etc, wav). Write a manifest for it."
        )
    return corpus, subsets


def check_outputs(*paths: str | None) -> None:
    """Refuses what cannot be written, now and not after an hour of work.

    Args:
        paths: Files to write, or `None`.

    Raises:
        ValueError: If one is a folder, or in a folder that does not exist, or
            two are the same.
    """
    given = [path for path in paths if path]
    if len(set(map(os.path.realpath, given))) < len(given):
        raise ValueError(
            f"Two outputs cannot be one file. Received: {', '.join(given)}"
        )
    for path in given:
        folder = Path(path).parent
        if not folder.is_dir():
            raise ValueError(
                f"'{path}' cannot be written: there is no folder '{folder}'. "
                "Make it first."
            )
        if os.path.isdir(path):
            raise ValueError(
                f"'{path}' cannot be written: it is a folder. Pass a file."
            )


def _is_subset(path):
    return any(path.glob("*/*/*.trans.txt"))


def report(error: Exception, with_traceback: bool) -> None:
    """Tells of an error in one line, or with where it came from."""
    if with_traceback:
        traceback.print_exception(error)
        return
    lines = (line.strip() for line in str(error).splitlines())
    text = "; ".join(line for line in lines if line)
    # An error that was not written for people needs its name.
    if not isinstance(error, (ValueError, ImportError, OSError)) or not text:
        text = f"{type(error).__name__}: {text} (--traceback says where)"
    print(f"keras-ds2: {text}", file=sys.stderr)


def printable(text: str) -> str:
    """Replaces what is not UTF-8: a file's name need not be, output must."""
    return os.fsencode(text).decode("utf-8", errors="replace")


def is_terminal() -> bool:
    """Whether somebody looks on, who wants to know more than errors."""
    return sys.stderr.isatty()


class Progress:
    """One line that changes, on a terminal; nothing anywhere else."""

    def __init__(self) -> None:
        self._is_shown = is_terminal()

    def __enter__(self) -> "Progress":
        return self

    def __exit__(self, *_) -> None:
        self.show("")

    def show(self, text: str) -> None:
        """Replaces the line; `""` removes it."""
        if self._is_shown:
            text = text[: shutil.get_terminal_size().columns - 1]
            print(f"\r\x1b[K{text}", end="", file=sys.stderr, flush=True)
