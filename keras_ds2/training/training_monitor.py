"""What a person watches while a model trains, and when to worry."""

import time

import keras

from keras_ds2.data.checks import describe_rejected

# The first steps compile.
_FIRST_STEP, _LAST_STEP = 5, 25
# Loss scaling overflows now and then by design.
_USUAL_OVERFLOWS = 3


class TrainingMonitor(keras.callbacks.Callback):
    """Adds what matters to the logs, and stops a training that is lost.

    Progress bar, TensorBoard and other callbacks see `learning_rate`; `pass`,
    how many passes over the corpus are done; and `speech_per_second`, seconds
    of speech that are learned from per second. After the first 25 steps it
    prints how long all of them will take (the shortest utterances come first,
    so it counts seconds of speech).

    A step that the model skipped, because its loss or gradient was not
    finite, is told with its utterances. Many in a row end the training. Files
    that could not be read while training are counted at the end.

    Args:
        dataset: The `SpeechDataset` whose `stream()` is trained on.
        patience: Integer. Skipped steps in a row that end the training.
            Defaults to `20`.

    Raises:
        ValueError: When training begins without `steps_per_epoch`.
        RuntimeError: While training: after `patience` skipped steps in a row.

    Example:

    >>> import keras_ds2
    >>> model = keras_ds2.DeepSpeech2(num_rnn_layers=1, rnn_units=8)
    >>> dataset = keras_ds2.data.prepare_dataset(
    ...     "tests/data/LibriSpeech", ["train-clips"], model, batch_size=2
    ... )
    >>> callback = keras_ds2.TrainingMonitor(dataset)
    """

    # For `fit`: before the others, which are to see what it adds.
    fit_order = -1
    # For `BackupAndRestore`: nothing to keep, and what a repetition changes.
    backed_up_attributes = ()
    unrepeatable_logs = ("speech_per_second",)

    def __init__(self, dataset, patience=20):
        super().__init__()
        self.dataset = dataset
        self.patience = patience

    def on_train_begin(self, logs=None):
        if self.params["steps"] is None or self.model.steps_per_execution > 1:
            raise ValueError(
                "`TrainingMonitor` needs `model.fit(dataset.stream(), "
                "steps_per_epoch=...)`, and `steps_per_execution=1`."
            )
        self.count = 0
        self.skipped_in_a_row = 0

    def on_epoch_begin(self, epoch, logs=None):
        self.first_step = epoch * self.params["steps"]
        self.skipped = 0.0
        self.start, self.speech = time.monotonic(), 0.0

    def on_train_batch_end(self, batch, logs=None):
        step = self.first_step + batch
        if self.count == _FIRST_STEP:
            self.start, self.speech = time.monotonic(), 0.0
        self.count += 1
        self.speech += sum(row.duration for row in self.dataset.batch_at(step))
        elapsed = max(time.monotonic() - self.start, 1e-9)
        self.speed = self.speech / elapsed
        self._watch_skipped(step, float(logs["skipped"]))
        if self.count == _LAST_STEP:
            self._estimate(step + 1)
        self._add_to(logs, step + 1)

    def on_epoch_end(self, epoch, logs=None):
        if self.skipped >= self.params["steps"]:
            logs["loss"] = float("nan")  # not the 0 of an empty mean
        self._add_to(logs, self.first_step + self.params["steps"])

    def on_train_end(self, logs=None):
        if bad := list(self.dataset.bad_audio.values()):
            print(describe_rejected(bad))

    def _add_to(self, logs, num_steps):
        logs["learning_rate"] = float(
            keras.ops.convert_to_numpy(self.model.optimizer.learning_rate)
        )
        logs["pass"] = num_steps / len(self.dataset)
        logs["speech_per_second"] = self.speed

    def _estimate(self, num_steps):
        steps_left = self.params["epochs"] * self.params["steps"] - num_steps
        speech_left = self.dataset.duration * steps_left / len(self.dataset)
        minutes = speech_left / self.speed / 60
        left = (
            f"{minutes:.0f} min" if minutes < 120 else f"{minutes / 60:.0f} h"
        )
        print(
            f"\n{self.speed:.0f} s of speech per second: about {left} for "
            f"the {steps_left:,} steps that are left"
        )

    def _watch_skipped(self, step, skipped):
        if skipped <= self.skipped:
            self.skipped_in_a_row = 0
            return
        self.skipped = skipped
        self.skipped_in_a_row += 1
        scales = isinstance(
            self.model.optimizer, keras.optimizers.LossScaleOptimizer
        )
        if not scales or self.skipped_in_a_row > _USUAL_OVERFLOWS:
            names = ", ".join(row.audio for row in self.dataset.batch_at(step))
            print(
                f"\nStep {step:,}: loss or gradient is not finite, the step is "
                f"skipped. Utterances: {names}"
            )
        if self.skipped_in_a_row >= self.patience:
            raise RuntimeError(
                f"{self.patience} steps in a row had a loss or gradient that "
                "is not finite. The weights are as before them. Lower the "
                "learning rate (`max_lr`, or a longer warmup), clip gradients "
                "(`global_clipnorm`), train in float32 instead of float16; if "
                "the same utterances return above, listen to them."
            )
