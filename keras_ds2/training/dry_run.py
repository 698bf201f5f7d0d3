"""The longest batch first: what does not fit shows in the first minute."""

import resource
import time

import tensorflow as tf

from keras_ds2.training.state import read_state, write_state


def dry_run(model, dataset):
    """Trains on the longest batch, then takes the step back.

    Batches go from short to long, so that memory would run out at the end of
    the first pass. This is a real step, of the same compiled function, after
    which weights, optimizer and random seeds are as before.

    Args:
        model: A compiled `DeepSpeech2`.
        dataset: A `SpeechDataset`.

    Returns:
        What was seen, as a sentence: size, seconds, peak of memory.

    Raises:
        MemoryError: If the batch does not fit, and the fix.

    Example:

    >>> import keras_ds2
    >>> model = keras_ds2.DeepSpeech2(
    ...     num_rnn_layers=1, rnn_units=8, normalize=False
    ... )
    >>> model.compile("adam")
    >>> dataset = keras_ds2.data.prepare_dataset(
    ...     "tests/data/LibriSpeech", ["train-clips"], model, batch_size=2
    ... )
    >>> keras_ds2.dry_run(model, dataset)  # doctest: +ELLIPSIS
    'The longest batch (2 utterances of up to 5.5 s) fits: ...'
    """
    before = read_state(model)
    batch = max(dataset.batches, key=lambda b: len(b) * b[-1].duration)
    size = (
        f"The longest batch ({len(batch)} utterances of up to "
        f"{batch[-1].duration:.1f} s)"
    )
    start = time.monotonic()
    try:
        model.fit(dataset.longest_batch(), verbose=0)
    except tf.errors.ResourceExhaustedError as error:
        raise MemoryError(
            f"{size} does not fit into memory. Lower `batch_size`, "
            "`max_frames_per_batch` or `max_duration`."
        ) from error
    finally:
        write_state(model, before)
    return (
        f"{size} fits: {time.monotonic() - start:.0f} s with compilation, "
        f"{_peak_memory()} at most"
    )


def _peak_memory():
    if tf.config.get_visible_devices("GPU"):
        peak = tf.config.experimental.get_memory_info("GPU:0")["peak"]
    else:
        peak = 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return f"{peak / 2**30:.1f} GiB"
