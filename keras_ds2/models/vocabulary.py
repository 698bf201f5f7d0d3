"""Another alphabet for a trained model: what its output layer keeps.

A new character begins with the mean of the old characters' weights, its bias
lower by log(1 + number of new ones). So its logit is the mean of theirs, less
that: below the best of them in every frame, and no greedy text changes; all new
ones together are less probable than one old character in the geometric mean.
This follows the scale of whatever network it is. A logit near zero, of zeros or
of Keras's initial weights, does not: of characters that are not heard logits
are far below, whatever their bias (docs/fine_tuning.md has figures). What is
low is learned all the same: every path of CTC through the transcript passes
through its symbols, so the gradient of a new one does not shrink with its
probability.
"""

import math

import numpy as np

from keras_ds2.text import NUM_RESERVED


def copy_with_alphabet(model, alphabet):
    """Does as `SpeechRecognizer.with_vocabulary` says."""
    config = model.get_config() | {"alphabet": alphabet}
    if config.get("num_spelling_layers"):
        # A second network takes what the first one hears, as it learned to.
        config["heard_alphabet"] = model.heard_alphabet or model.alphabet
    copy = type(model).from_config(config)
    for layer in model.layers:
        weights = layer.get_weights()
        if layer.name == "logits":
            kernel, bias = (
                _move_symbols(values, model.alphabet, alphabet)
                for values in weights
            )
            weights = [kernel, _lower_new(bias, model.alphabet, alphabet)]
        copy.get_layer(layer.name).set_weights(weights)
    return copy


def _move_symbols(values, old, new):
    """Puts the last axis in the order of `new`, averages where it is new."""
    # Blank, characters, reserved ones: the order of all models.
    characters = values[..., 1 : 1 + len(old)]
    average = characters.mean(axis=-1, dtype="float64").astype(values.dtype)
    columns = {character: characters[..., i] for i, character in enumerate(old)}
    return np.stack(
        [
            values[..., 0],
            *(columns.get(character, average) for character in new),
            *(values[..., -i] for i in range(NUM_RESERVED, 0, -1)),
        ],
        axis=-1,
    )


def _lower_new(bias, old, new):
    is_new = np.array([character not in old for character in new])
    bias[1 : 1 + len(new)] -= is_new * math.log(1 + is_new.sum())
    return bias
