"""A name in, a trained model or its weights file out; and how to make more.

What is shipped is a pair of files: a card, `NAME.json`, which says how to build
the model, what it was trained on and how well it does; and the weights,
`NAME.weights.h5`, in 16 bits, with their SHA-256 in the card.
"""

import hashlib
import json
import os
import tempfile
from pathlib import Path
from typing import Any

from keras_ds2.models.deepspeech import DeepSpeech
from keras_ds2.models.deepspeech2 import DeepSpeech2
from keras_ds2.models.speech_recognizer import SpeechRecognizer
from keras_ds2.models.weights_file import write_16_bit

_FOLDER = Path(__file__).parent / "weights"
_MODELS = {"DeepSpeech": DeepSpeech, "DeepSpeech2": DeepSpeech2}


def load_pretrained(
    name: str | os.PathLike[str], dtype: Any = None
) -> SpeechRecognizer:
    """Builds a trained model.

    Shipped are `"en-read"`, which hears English read aloud and streams, and
    `"an4"`, for spelled letters, numbers, dates and a few commands, as in CMU
    AN4. What they are and how well they do stands in `docs/models.md` and in
    their cards, `keras_ds2/weights`.

    Args:
        name: Name of a model that is shipped, or the path of a card (`.json`)
            that `save_pretrained` wrote.
        dtype: Dtype policy, as `"mixed_bfloat16"`. Defaults to Keras's global
            one.

    Returns:
        The model, not compiled, ready to `transcribe`.

    Raises:
        ValueError: If there are no such weights, the card is no card or its
            arguments are no model's, or the weights file is missing, damaged,
            or of another model.

    Example:

    >>> import keras_ds2
    >>> model = keras_ds2.load_pretrained("an4")
    >>> model.transcribe(["tests/data/an4/wav/an4_clstk/ffmm/cen3-ffmm-b.opus"])
    ['fifty six thirty two']
    """
    path = _card_path(name)
    card = _read_card(path)
    try:
        model = _MODELS[card["model"]](**card["arguments"], dtype=dtype)
    except (TypeError, ValueError) as error:
        raise ValueError(
            f"Card '{path}': no {card['model']} has its `arguments`: {error}"
        ) from error
    model.load_weights(pretrained_weights(name))
    return model


def pretrained_weights(name: str | os.PathLike[str]) -> str:
    """Finds the weights file of a trained model, for `model.load_weights`.

    To be loaded before `compile`: Keras warns that the file holds no optimizer.

    Args:
        name: As of `load_pretrained`.

    Returns:
        Path of the `.weights.h5` file, after its SHA-256 was verified.

    Raises:
        ValueError: As `load_pretrained` does.

    Example:

    >>> import keras_ds2
    >>> model = keras_ds2.load_pretrained("an4")
    >>> again = keras_ds2.DeepSpeech2.from_config(model.get_config())
    >>> again.load_weights(keras_ds2.pretrained_weights("an4"))
    """
    card = _card_path(name)
    expected = _read_card(card)["sha256"]
    path = _weights_path(card)
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

    Matrices are stored as float16, rounded to 9 significant bits, and as 0
    where they are smaller than 3e-8; so compressed, they take 12 to 13 bits.
    Vectors, which hold statistics and most biases, stay as they are. The
    weights stand beside the card, as `NAME.weights.h5`; an optimizer is not
    among them.

    Args:
        model: A `DeepSpeech2` or `DeepSpeech`.
        card: Path of the card, ending in `.json`. A pair that exists is
            replaced.
        **facts: What else the card is to say, in plain JSON: data, license,
            command, seed, metrics.

    Raises:
        ValueError: If the model is of another class, the path has another
            ending, a fact is not JSON or has the name of a key of the card, or
            a weight is not finite or too large for float16. Nothing is
            written then.

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
    if type(model) not in _MODELS.values():
        raise ValueError(
            f"`model` must be a {' or '.join(_MODELS)}, for the card to say "
            f"how to build it. Received: model={model}"
        )
    arguments = model.get_config()
    del arguments["dtype"]  # is whoever loads it to choose
    content = {"model": type(model).__name__, "arguments": arguments}
    if taken := sorted({*content, "sha256"} & set(facts)):
        raise ValueError(f"The card has these keys already: {taken}.")
    content |= facts
    # In the same folder, so that files can be moved into place at once.
    with tempfile.TemporaryDirectory(dir=path.parent) as folder:
        full = Path(folder, "full.weights.h5")
        half = Path(folder, "half.weights.h5")
        text = Path(folder, "card.json")
        model.save_weights(full)
        write_16_bit(full, half)
        content["sha256"] = _sha256(half)
        try:
            text.write_text(json.dumps(content, indent=2, allow_nan=False))
        except (TypeError, ValueError) as error:
            raise ValueError(
                f"`facts` and the model's arguments must be plain JSON: {error}"
            ) from error
        os.replace(half, _weights_path(path))
        os.replace(text, path)


def pretrained_names() -> list[str]:
    """Lists the trained models that are shipped.

    Returns:
        Names for `load_pretrained`, sorted.

    Example:

    >>> from keras_ds2.pretrained import pretrained_names
    >>> isinstance(pretrained_names(), list)
    True
    """
    return sorted(card.stem for card in _FOLDER.glob("*.json"))


def read_card(name: str | os.PathLike[str]) -> dict[str, Any]:
    """Reads what the card of a trained model says.

    Args:
        name: As of `load_pretrained`.

    Returns:
        Dictionary of `model`, `arguments`, `sha256` and further facts.

    Raises:
        ValueError: If there is no such card, or it is none.

    Example:

    >>> import os, tempfile
    >>> import keras_ds2
    >>> from keras_ds2.pretrained import read_card
    >>> model = keras_ds2.DeepSpeech2(num_rnn_layers=1, rnn_units=8)
    >>> card = os.path.join(tempfile.mkdtemp(), "mine.json")
    >>> keras_ds2.save_pretrained(model, card, license="CC0")
    >>> read_card(card)["license"]
    'CC0'
    """
    return _read_card(_card_path(name))


def _card_path(name: str | os.PathLike[str]) -> Path:
    path = Path(name)
    if path.suffix == ".json":
        return path
    names = pretrained_names()
    if str(name) not in names:
        raise ValueError(
            f"`name` must be one of {names}, or the path of a card ('.json'). "
            f"Received: name='{name}'"
        )
    return _FOLDER / f"{name}.json"


def _weights_path(card: Path) -> Path:
    return card.with_suffix(".weights.h5")


def _read_card(path: Path) -> dict[str, Any]:
    if not path.is_file():
        raise ValueError(f"Card '{path}' does not exist. Check the path.")
    try:
        card = json.loads(path.read_text(encoding="utf-8-sig"))
    except ValueError as error:
        raise ValueError(
            f"Card '{path}' is not JSON ({error}). Take it from where it came."
        ) from error
    if (
        not isinstance(card, dict)
        or card.get("model") not in list(_MODELS)
        or not isinstance(card.get("arguments"), dict)
        or not isinstance(card.get("sha256"), str)
    ):
        raise ValueError(
            f"Card '{path}' must be an object with the keys `model` "
            f"({' or '.join(_MODELS)}), `arguments` and `sha256`. Write it "
            "with `save_pretrained`."
        )
    return card


def _sha256(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
