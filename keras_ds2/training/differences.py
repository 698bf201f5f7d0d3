"""Descriptions of trainings, and what tells one from the other."""

import hashlib
import json
import re
from typing import Any

import keras


def to_plain(value):
    """What JSON gives back: tuples become lists, NumPy's numbers Python's."""
    return json.loads(json.dumps(value, default=float))


def describe_training(model, dataset, steps_per_epoch, companions, same_start):
    """What must be equal for a training to go on, in plain JSON.

    Args:
        model: Compiled, with its initial weights.
        dataset: The `SpeechDataset` that it is trained on.
        steps_per_epoch: Integer.
        companions: List of callbacks, each with the names of its attributes
            to keep.
        same_start: Boolean. Whether the initial weights are part of it.
    """
    return to_plain(
        {
            "model": {"class": type(model).__name__, **model.get_config()},
            "optimizer": keras.saving.serialize_keras_object(model.optimizer),
            "dataset": dataset.description(),
            "steps_per_epoch": steps_per_epoch,
            "callbacks": [
                [type(callback).__name__, getattr(callback, "monitor", None)]
                for callback, names in companions
                if names
            ],
            # The optimizer has variables for those that are trained.
            "weights": {
                weight.path: "trained" if weight.trainable else "fixed"
                for weight in model.weights
            },
            "initial_weights": _digest(model.weights) if same_start else None,
        }
    )


def find_differences(backup: dict, now: dict) -> list[str]:
    """Compares nested dictionaries; a line of text for each difference."""
    before, after = _flatten(backup), _flatten(now)
    return [
        f"  {name}: {before.get(name)!r} in the backup, {after.get(name)!r} now"
        for name in sorted(before.keys() | after.keys())
        if before.get(name) != after.get(name)
    ]


def _flatten(value: Any, prefix: str = "") -> dict[str, Any]:
    if not isinstance(value, dict):
        return {prefix: value}
    flat: dict[str, Any] = {}
    for name, item in value.items():
        path = f"{prefix}.{name}" if prefix else name
        # Keras counts optimizers: adam, adam_1 ...
        if not re.fullmatch(r"optimizer\b.*\.name", path):
            flat |= _flatten(item, path)
    return flat


def _digest(weights):
    digest = hashlib.sha256()
    for weight in weights:
        digest.update(keras.ops.convert_to_numpy(weight).tobytes())
    return digest.hexdigest()
