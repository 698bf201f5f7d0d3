"""What Keras does not tell about a file of weights."""

import h5py


def refuse_deeper(filepath, num_weights):
    """Raises a `ValueError` if a file is of a model with more layers.

    Args:
        filepath: `.weights.h5` file.
        num_weights: Integer. Arrays of the model.
    """
    stored = _count_arrays(filepath)
    if stored > num_weights:
        raise ValueError(
            f"The weights file '{filepath}' holds {stored} arrays, the model "
            f"has {num_weights}: it belongs to a model with more layers. Build "
            "the model with the arguments that the weights were saved with."
        )


def _count_arrays(filepath):
    count = 0

    def visit(name, item):
        nonlocal count
        count += name.startswith("layers/") and isinstance(item, h5py.Dataset)

    with h5py.File(filepath, "r") as file:
        file.visititems(visit)
    return count
