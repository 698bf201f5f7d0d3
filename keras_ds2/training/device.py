"""Which processor trains, decided once, before the first tensor."""

import os
import re

import keras
import tensorflow as tf


def use_device(name: str = "auto", num_cpu_devices: int = 1) -> str:
    """Chooses the processor of this program, and never another silently.

    TensorFlow and Keras run on the CPU when a GPU that was asked for is
    missing, and do not know the name `cuda:0`. Call this before any tensor is
    made. A chosen GPU's memory is taken as needed, not all at once.

    Args:
        name: `"cpu"`; `"cuda:N"`, the N-th GPU; `"all"`, every GPU, for
            `use_strategy`; or `"auto"`, the first GPU. `"all"` and `"auto"`
            are the CPU where there is no GPU. Defaults to `"auto"`.
        num_cpu_devices: Integer. Devices that share the CPU's cores, for
            `use_strategy`. A recurrent layer hardly gains from a second core,
            but two devices train two halves of a batch on two cores at once:
            with as many devices as cores, and a batch that is as many times
            larger, training is the fastest. Defaults to `1`.

    Returns:
        What was chosen: `"cpu"`, `"cuda:N"`, or several by commas.

    Raises:
        ValueError: If there is no such device, or `num_cpu_devices` is no
            number of cores, or not `1` although a GPU was chosen.
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
    if name in ("auto", "all"):
        names = available[1:] or ["cpu"]
        name = names[0] if name == "auto" else ",".join(names)
        chosen = gpus[: len(name.split(","))]
    elif name in available:
        chosen = [] if name == "cpu" else [gpus[available.index(name) - 1]]
    else:
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
    num_cores = len(os.sched_getaffinity(0))
    if not 1 <= num_cpu_devices <= (1 if chosen else num_cores):
        raise ValueError(
            "`num_cpu_devices` must be from 1 to the number of cores, "
            f"{num_cores}, and 1 if a GPU is used. Received: "
            f"num_cpu_devices={num_cpu_devices}, on {name}."
        )
    try:
        if num_cpu_devices > 1:
            _divide_cpu(num_cpu_devices, num_cores)
        tf.config.set_visible_devices(chosen, "GPU")
        for gpu in chosen:
            tf.config.experimental.set_memory_growth(gpu, True)
    except RuntimeError as error:
        raise RuntimeError(
            "The device must be chosen before TensorFlow is first used. Call "
            "`use_device` at the start of the program."
        ) from error
    return name


def _divide_cpu(num_devices, num_cores):
    [cpu] = tf.config.list_physical_devices("CPU")
    part = tf.config.LogicalDeviceConfiguration()
    tf.config.set_logical_device_configuration(cpu, [part] * num_devices)
    # With more threads, loops of two devices wait for each other: measured.
    tf.config.threading.set_inter_op_parallelism_threads(num_devices)
    tf.config.threading.set_intra_op_parallelism_threads(
        num_cores // num_devices
    )


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


def use_strategy(name: str = "none") -> tf.distribute.Strategy:
    """Chooses how many devices share a training.

    The weights are those of one device, to rounding: batches, statistics and
    gradients are shared exactly, as long as every batch divides evenly. To
    that end give `prepare_dataset` the strategy's `num_replicas_in_sync`,
    which then leaves out the few utterances that are left over; and divide
    `global_clipnorm` by it, for Keras clips each replica's share. Dropout and
    SpecAugment draw other numbers than one device does.

    Args:
        name: `"none"` for one device, or `"mirrored"` for all that are visible
            (see `use_device`). Defaults to `"none"`.

    Returns:
        `tf.distribute.Strategy`. Build and compile the model within its
        `scope()`.

    Raises:
        ValueError: If the name is unknown, or there is only one device.

    Example:

    >>> import keras_ds2
    >>> strategy = keras_ds2.use_strategy("none")
    >>> with strategy.scope():
    ...     model = keras_ds2.DeepSpeech2(num_rnn_layers=1, rnn_units=8)
    """
    if name == "none":
        return tf.distribute.get_strategy()
    if name != "mirrored":
        raise ValueError(
            f"`name` must be 'none' or 'mirrored'. Received: name={name!r}"
        )
    devices = tf.config.list_logical_devices("GPU")
    devices = devices or tf.config.list_logical_devices("CPU")
    if len(devices) < 2:
        raise ValueError(
            "The mirrored strategy needs two devices or more; there is "
            f"{devices[0].name}. Train without a strategy, or show more GPUs "
            "by `use_device('all')`."
        )
    return tf.distribute.MirroredStrategy([device.name for device in devices])
