"""How long it will take, said while one can still change one's mind."""

import time

import keras

# The first steps compile.
_FIRST_STEP, _LAST_STEP = 5, 25


class TimeEstimate(keras.callbacks.Callback):
    """Prints how long all steps will take, after the first 25.

    The shortest utterances come first, so it counts seconds of speech, not
    steps.

    Args:
        dataset: The `SpeechDataset` that is trained on.
        num_steps: Integer. Steps of the whole training.

    Example:

    >>> import keras_ds2
    >>> model = keras_ds2.DeepSpeech2(num_rnn_layers=1, rnn_units=8)
    >>> dataset = keras_ds2.data.prepare_dataset(
    ...     "tests/data/LibriSpeech", ["train-clips"], model, batch_size=2
    ... )
    >>> callback = keras_ds2.TimeEstimate(dataset, num_steps=120)
    """

    def __init__(self, dataset, num_steps):
        super().__init__()
        self.dataset = dataset
        self.num_steps = num_steps
        self.count = 0

    def on_train_batch_end(self, batch, logs=None):
        self.count += 1
        if self.count == _FIRST_STEP:
            self.start = time.monotonic()
        if self.count == _LAST_STEP:
            elapsed = time.monotonic() - self.start
            now = int(self.model.optimizer.iterations.numpy())
            speech = sum(
                row.duration
                for step in range(now - _LAST_STEP + _FIRST_STEP, now)
                for row in self.dataset.batch_at(step)
            )
            steps_left = self.num_steps - now
            speech_left = self.dataset.duration * steps_left / len(self.dataset)
            minutes = elapsed / speech * speech_left / 60
            left = (
                f"{minutes:.0f} min"
                if minutes < 120
                else f"{minutes / 60:.0f} h"
            )
            print(
                f"\n{speech / elapsed:.0f} s of speech per second: about "
                f"{left} for the {steps_left:,} steps that are left"
            )
