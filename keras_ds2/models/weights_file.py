"""Files of weights: what Keras does not tell of them, and small ones."""

import h5py
import numpy as np

# Of matrices. Fewer than float16 has: what is lost is noise, and noise is all
# that cannot be compressed.
_SIGNIFICANT_BITS = 9
_LARGEST = 2.0**16 - 2.0 ** (16 - _SIGNIFICANT_BITS)


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


def write_16_bit(source, target):
    """Copies a weights file, but for an optimizer.

    Matrices become float16, rounded to 9 significant bits and compressed.

    Args:
        source: `.weights.h5` file.
        target: File to write.

    Raises:
        ValueError: If a weight is not finite or too large for float16.
    """
    with h5py.File(source) as full, h5py.File(target, "w") as half:

        def copy(name, item):
            if name.split("/")[0] == "optimizer":
                return
            if isinstance(item, h5py.Group):
                half.require_group(name).attrs.update(item.attrs)
                return
            values, options = item[()], {}
            _validate(name, values)
            if values.ndim > 1:
                values = _round(values).astype("float16")
                options = {"compression": "gzip", "shuffle": True}
            half.create_dataset(name, data=values, **options).attrs.update(
                item.attrs
            )

        full.visititems(copy)


def _round(values):
    """Leaves no more significant bits than are stored."""
    fraction, exponent = np.frexp(values)
    return np.ldexp(
        np.round(fraction * 2**_SIGNIFICANT_BITS) / 2**_SIGNIFICANT_BITS,
        exponent,
    )


def _validate(name, values):
    largest = np.abs(values).max(initial=0)
    limit = _LARGEST if values.ndim > 1 else np.finfo("float32").max
    if not largest <= limit:  # NaN is not, either
        raise ValueError(
            f"Weights '{name}' hold values up to {largest}: not finite, or too "
            "large for float16."
        )
