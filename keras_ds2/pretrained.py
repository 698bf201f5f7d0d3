"""A name in, a trained model or its weights file out; and how to make more.

What is shipped is a pair of files: a card, `NAME.json`, which says how to build
the model, what it was trained on and how well it does; and the weights,
`NAME.weights.h5`, in 16 bits, with their SHA-256 in the card.
"""

import hashlib
import json
import os
import shutil
import tempfile
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from keras_ds2.models.deepspeech import DeepSpeech
from keras_ds2.models.deepspeech2 import DeepSpeech2
from keras_ds2.models.speech_recognizer import SpeechRecognizer

_FOLDER = Path(__file__).parent / "weights"
_MODELS = {"DeepSpeech": DeepSpeech, "DeepSpeech2": DeepSpeech2}


def load_pretrained(
    name: str | os.PathLike[str], dtype: Any = None
) -> SpeechRecognizer:
    """Builds a trained model.

    Args:
        name: Name of shipped weights, `"an4"`; or the path of a card (`.json`)
            that `save_pretrained` wrote.
        dtype: Dtype policy, as `"mixed_bfloat16"`. Defaults to Keras's global
            one.

    Returns:
        The model, not compiled, ready to `transcribe`.

    Raises:
        ValueError: If there are no such weights, the card lacks a key, or the
            weights file is missing, damaged, or of another model.

    Example:

    >>> import keras_ds2
    >>> model = keras_ds2.load_pretrained("an4")
    >>> folder = "tests/data/an4/wav/an4_clstk"
    >>> model.transcribe([f"{folder}/mjda/an174-mjda-b.opus"])
    ['enter five']
    """
    card = _read_card(name)
    model = _MODELS[card["model"]](**card["arguments"], dtype=dtype)
    model.load_weights(pretrained_weights(name))
    return model


def pretrained_weights(name: str | os.PathLike[str]) -> str:
    """Finds the weights file of a trained model, for `model.load_weights`.

    Args:
        name: As of `load_pretrained`.

    Returns:
        Path of the `.weights.h5` file, after its SHA-256 was verified.

    Raises:
        ValueError: As `load_pretrained` does.

    Example:

    >>> import keras_ds2
    >>> path = keras_ds2.pretrained_weights("an4")
    >>> path.endswith("an4.weights.h5")
    True
    """
    path = _weights_path(_card_path(name))
    expected = _read_card(name)["sha256"]
    if not path.is_file():
        raise ValueError(
            f"Weights file '{path}' does not exist. Put it beside its card, or "
            "install keras_ds2 again."
        )
    received = _sha256(path)
    if received != expected:
        raise ValueError(
            f"Weights file '{path}' is damaged or belongs to another card: its "
            f"SHA-256 is {received}, the card's `sha256` {expected}. Take both "
            "files from where they came, or install keras_ds2 again."
        )
    return str(path)


def save_pretrained(
    model: SpeechRecognizer, card: str | os.PathLike[str], **facts: Any
) -> None:
    """Writes a model's weights in 16 bits, and their card.

    Matrices are stored as float16; vectors, which hold statistics and biases,
    stay as they are. The weights stand beside the card, as
    `NAME.weights.h5`.

    Args:
        model: A `DeepSpeech2` or `DeepSpeech`.
        card: Path of the card, ending in `.json`.
        **facts: What else the card is to say, in plain JSON: data, license,
            command, seed, metrics.

    Raises:
        ValueError: If the path has another ending, a fact the name of a key of
            the card, or a weight no float16.

    Example:

    >>> import os, tempfile
    >>> import keras_ds2
    >>> model = keras_ds2.DeepSpeech2(num_rnn_layers=1, rnn_units=8)
    >>> card = os.path.join(tempfile.mkdtemp(), "mine.json")
    >>> keras_ds2.save_pretrained(model, card, data="my own")
    >>> keras_ds2.load_pretrained(card).count_params() == model.count_params()
    True
    """
    path = Path(card)
    if path.suffix != ".json":
        raise ValueError(f"`card` must end in '.json'. Received: card='{card}'")
    arguments = model.get_config()
    del arguments["dtype"]  # is whoever loads it to choose
    description = {"model": type(model).__name__, "arguments": arguments}
    if taken := sorted({*description, "sha256"} & set(facts)):
        raise ValueError(f"The card has these keys already: {taken}.")
    weights = _weights_path(path)
    with tempfile.TemporaryDirectory() as folder:
        full = os.path.join(folder, "full.weights.h5")
        half = os.path.join(folder, "half.weights.h5")
        model.save_weights(full)
        _write_16_bit(full, half)
        shutil.move(half, weights)
    description |= facts | {"sha256": _sha256(weights)}
    path.write_text(json.dumps(description, indent=2) + "\n", encoding="utf-8")


def _card_path(name):
    path = Path(name)
    return path if path.suffix == ".json" else _FOLDER / f"{name}.json"


def _weights_path(card):
    return card.with_suffix(".weights.h5")


def _read_card(name):
    path = _card_path(name)
    if not path.is_file():
        names = sorted(card.stem for card in _FOLDER.glob("*.json"))
        raise ValueError(
            f"`name` must be one of {names}, or the path of a card ('.json'). "
            f"Received: name='{name}'"
        )
    try:
        card = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"Card '{path}' is not JSON ({error}).") from error
    missing = {"model", "arguments", "sha256"} - set(card)
    if missing or card["model"] not in _MODELS:
        raise ValueError(
            f"Card '{path}' must have the keys `arguments`, `sha256` and "
            f"`model` ({' or '.join(_MODELS)}). Write it with "
            "`save_pretrained`."
        )
    return card


def _sha256(path):
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _write_16_bit(source, target):
    """Copies an HDF5 file, its matrices as float16."""
    with h5py.File(source) as full, h5py.File(target, "w") as half:

        def copy(name, item):
            if isinstance(item, h5py.Group):
                group = half.require_group(name)
                group.attrs.update(item.attrs)
                return
            values = item[()]
            if values.ndim > 1:
                values = _to_16_bit(values, name)
            half.create_dataset(name, data=values).attrs.update(item.attrs)

        half.attrs.update(full.attrs)
        full.visititems(copy)


def _to_16_bit(values, name):
    largest = np.abs(values).max(initial=0.0)
    if not largest <= np.finfo("float16").max:  # NaN is not, either
        raise ValueError(
            f"Weights '{name}' hold values that are no float16, up to "
            f"{largest}. Save the model with `save_weights`."
        )
    return values.astype("float16")
