"""Which processor trains, decided once, before the first tensor."""

import re

import keras
import tensorflow as tf


def use_device(name: str = "auto") -> str:
    """Chooses the processor of this program, and never another silently.

    TensorFlow and Keras run on the CPU when a GPU that was asked for is
    missing, and do not know the name `cuda:0`. Call this before any tensor is
    made. A chosen GPU's memory is taken as needed, not all at once.

    Args:
        name: `"cpu"`; `"cuda:N"`, the N-th GPU; or `"auto"`, the first GPU if
            there is one, else the CPU. Defaults to `"auto"`.

    Returns:
        What was chosen: `"cpu"` or `"cuda:N"`.

    Raises:
        ValueError: If there is no such device.
        RuntimeError: If TensorFlow is already in use.

    Example:

    >>> from keras_ds2.training.device import use_device
    >>> use_device("cuda:99")
    Traceback (most recent call last):
        ...
    ValueError: There is no device 'cuda:99'. Available: cpu...
    """
    gpus = tf.config.list_physical_devices("GPU")
    available = ["cpu", *(f"cuda:{i}" for i in range(len(gpus)))]
    if name == "auto":
        name = available[1] if gpus else "cpu"
    if name not in available:
        hint = (
            ""
            if gpus or not re.fullmatch(r"cuda:\d+", name)
            else ". TensorFlow sees no GPU: is the driver installed, and "
            "`pip install 'keras_ds2[gpu]'`?"
        )
        raise ValueError(
            f"There is no device {name!r}. Available: "
            f"{', '.join(available)}{hint}"
        )
    chosen = [] if name == "cpu" else [gpus[int(name.removeprefix("cuda:"))]]
    try:
        tf.config.set_visible_devices(chosen, "GPU")
        for gpu in chosen:
            tf.config.experimental.set_memory_growth(gpu, True)
    except RuntimeError as error:
        raise RuntimeError(
            "The device must be chosen before TensorFlow is first used. Call "
            "`use_device` at the start of the program."
        ) from error
    return name


def use_mixed_precision(name: str = "auto") -> str:
    """Sets Keras's global dtype policy.

    Args:
        name: `"float32"`, `"mixed_bfloat16"`, `"mixed_float16"`, or `"auto"`:
            `mixed_float16` if a GPU is visible (see `use_device`), else
            `float32`. Defaults to `"auto"`.

    Returns:
        The name of the policy.

    Example:

    >>> from keras_ds2.training.device import use_mixed_precision
    >>> use_mixed_precision("float32")
    'float32'
    """
    if name == "auto":
        on_gpu = bool(tf.config.get_visible_devices("GPU"))
        name = "mixed_float16" if on_gpu else "float32"
    keras.config.set_dtype_policy(name)
    return name
