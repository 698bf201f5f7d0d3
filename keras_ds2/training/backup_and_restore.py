"""Training that goes on to the bit after any interruption."""

import csv
import os
import pathlib
import tempfile
from typing import Any

import keras

from keras_ds2.training.backup_files import read_latest_backup, write_backup
from keras_ds2.training.differences import (
    describe_training,
    find_differences,
    to_plain,
)
from keras_ds2.training.state import read_state, write_state

# What Keras's own callbacks have to remember.
_STATE: dict[type, tuple[str, ...]] = {
    keras.callbacks.EarlyStopping: ("best", "best_epoch", "wait"),
    keras.callbacks.History: (),
    keras.callbacks.LearningRateScheduler: (),
    keras.callbacks.ModelCheckpoint: ("best",),
    keras.callbacks.ProgbarLogger: (),
    keras.callbacks.ReduceLROnPlateau: ("best", "wait", "cooldown_counter"),
    keras.callbacks.TensorBoard: (),
    keras.callbacks.TerminateOnNaN: (),
}


class BackupAndRestore(keras.callbacks.BackupAndRestore):
    """Backs up everything at the end of an epoch, and restores it exactly.

    A training that was killed and started again ends with the weights and the
    log of one that ran through, bit for bit on one machine's CPU. Keras's own
    callback starts an interrupted epoch again on weights of its middle,
    forgets the order of the data, random numbers and other callbacks, and
    writes over its only file.

    Kept are weights, optimizer, loss scale, random seeds, the position in the
    stream of batches, the log, and what the other callbacks remember (such as
    the best value of `ModelCheckpoint`). An epoch is `steps_per_epoch` steps
    of `dataset.stream()`, which has no end; it need not be a whole pass.

    A backup is written beside the last one, then renamed; the last two stay.
    A damaged one is told from a sound one by its SHA-256, which is its name.

    Args:
        backup_dir: Folder of the backups.
        dataset: The `SpeechDataset` or `ImaginedSpeech` whose `stream()` is
            trained on. Its position is set when training begins.
        log_path: CSV file of one row per epoch, in place of `CSVLogger`: rows
            of epochs that are trained again disappear. Defaults to `None`,
            for none.
        same_start: Boolean. Whether a training may only go on if it begins
            with the same weights, as it does when given again: for
            fine-tuning, where another model of the same kind would go on
            with what the first has become. Defaults to `False`: initial
            weights may be random.

    Other callbacks are found by `fit` of this package's models. Those whose
    state is not known are refused: give them an attribute
    `backed_up_attributes`, a tuple of the names of the attributes to keep
    (numbers, strings or `None`), which may be empty.

    Raises:
        ValueError: When training begins: if the model, optimizer, data set or
            `steps_per_epoch` are not those of the backup (the difference is
            named), or a callback's state is unknown.
        OSError: If a backup cannot be written, or none of them can be read.

    Example:

    >>> import os, tempfile
    >>> import keras
    >>> import keras_ds2
    >>> folder = tempfile.mkdtemp()
    >>> for epochs in (1, 2):  # the second goes on after the first epoch
    ...     model = keras_ds2.DeepSpeech2(
    ...         num_rnn_layers=1, rnn_units=8, normalize=False
    ...     )
    ...     model.compile("adam")
    ...     dataset = keras_ds2.data.prepare_dataset(
    ...         "tests/data/LibriSpeech", ["train-clips"], model, batch_size=2
    ...     )
    ...     log = os.path.join(folder, "log.csv")
    ...     backup = keras_ds2.BackupAndRestore(folder, dataset, log)
    ...     history = model.fit(
    ...         dataset.stream(),
    ...         steps_per_epoch=1,
    ...         epochs=epochs,
    ...         callbacks=[backup],
    ...         verbose=0,
    ...     )
    Goes on after epoch 1: step 1, pass 1.
    >>> int(model.optimizer.iterations)
    2
    """

    # For `fit`: after the others, whose state it keeps.
    fit_order = 1
    backed_up_attributes = ()

    def __init__(self, backup_dir, dataset, log_path=None, same_start=False):
        super().__init__(os.fspath(backup_dir), delete_checkpoint=False)
        self.folder = pathlib.Path(backup_dir)
        self.dataset = dataset
        self.log_path = None if log_path is None else pathlib.Path(log_path)
        self.same_start = same_start
        self.rows: list[dict[str, Any]] = []
        self.companions: list[tuple[Any, tuple[str, ...]]] = []

    def set_companions(self, callbacks):
        """Takes all callbacks of `fit`, which calls this before it begins."""
        self.companions = []
        for callback in callbacks:
            if isinstance(callback, keras.callbacks.CSVLogger):
                raise ValueError(
                    "`CSVLogger` would keep rows of epochs that are trained "
                    "again. Use `BackupAndRestore(..., log_path=...)`."
                )
            names = getattr(
                callback, "backed_up_attributes", _STATE.get(type(callback))
            )
            if getattr(callback, "restore_best_weights", False):
                names = None
            if names is None:
                raise ValueError(
                    f"What {type(callback).__name__} remembers cannot be "
                    "backed up. Name the attributes to keep (numbers, strings "
                    "or None) in `callback.backed_up_attributes`, () for none"
                    "; instead of `restore_best_weights` use "
                    "`ModelCheckpoint`."
                )
            self.companions.append((callback, names))

    # === What Keras calls ===

    def on_train_begin(self, logs=None):
        if not self.companions or self.params["steps"] is None:
            raise ValueError(
                "`BackupAndRestore` needs `model.fit(dataset.stream(), "
                "steps_per_epoch=..., callbacks=[...])` of a model of this "
                "package, with a list of callbacks."
            )
        self._check_folders()
        self.rows = []
        # Now, and not at every backup: callbacks may change learning rates.
        self.description = describe_training(
            self.model,
            self.dataset,
            self.params["steps"],
            self.companions,
            self.same_start,
        )
        backup = read_latest_backup(self.folder)
        self.next_epoch = 0
        if backup:
            self.next_epoch, arrays, state = backup
            self._refuse_other(state["description"])
            self._restore(arrays, state)
        elif self.log_path and self.log_path.exists():
            raise ValueError(
                f"'{self.log_path}' is the log of a training whose backup is "
                f"not in '{self.folder}'. Move it away, or log elsewhere."
            )
        self.dataset.first_step = self.next_epoch * self.params["steps"]

    def on_epoch_begin(self, epoch, logs=None):
        if epoch != self.next_epoch:
            raise ValueError(
                "`initial_epoch` is not for a training with a backup, which "
                f"knows where it was: at epoch {self.next_epoch}. Received: "
                f"initial_epoch={epoch}."
            )
        self.steps_left = self.params["steps"]

    def on_train_batch_end(self, batch, logs=None):
        # Keras's own would back up between batches. (A batch is here what
        # Keras calls one: as many steps as it executes together.)
        self.steps_left = self.params["steps"] - batch - 1

    def on_epoch_end(self, epoch, logs=None):
        if self.steps_left:  # stopped before its end, to be trained again
            return
        self.next_epoch = epoch + 1
        unrepeatable = {
            name
            for callback, _ in self.companions
            for name in getattr(callback, "unrepeatable_logs", ())
        }
        values = {
            name: float(value)
            for name, value in logs.items()
            if name not in unrepeatable
        }
        self.rows.append({"epoch": epoch, **values})
        state = {
            "description": self.description,
            "rows": self.rows,
            "is_stopped": self.model.stop_training,
            "callbacks": [
                {name: to_plain(getattr(callback, name)) for name in names}
                for callback, names in self.companions
                if names
            ],
        }
        write_backup(self.folder, epoch + 1, read_state(self.model), state)
        self._write_log()

    def on_train_end(self, logs=None):
        # Or the next `fit`, without this callback, would begin there.
        self.model._initial_epoch = None

    # === State ===

    def _check_folders(self):
        """Finds out before the first epoch, not after it."""
        for folder in (self.folder, self.log_path and self.log_path.parent):
            if folder:
                try:
                    os.makedirs(folder, exist_ok=True)
                    with tempfile.TemporaryFile(dir=folder):
                        pass
                except OSError as error:
                    raise OSError(
                        f"Nothing can be written to '{folder}': "
                        f"{error.strerror}. Choose another folder."
                    ) from error

    def _restore(self, arrays, state):
        write_state(self.model, arrays)
        remembering = [item for item, names in self.companions if names]
        for callback, values in zip(
            remembering, state["callbacks"], strict=True
        ):
            for name, value in values.items():
                setattr(callback, name, value)
        self.rows = state["rows"]
        self._write_log()
        # Keras's own callback sets it, too: there is no public way.
        self.model._initial_epoch = self.next_epoch
        done = f"epoch {self.next_epoch}"
        if state["is_stopped"]:
            self.model._initial_epoch = self.params["epochs"]
            print(f"Nothing is left to do: a callback ended it after {done}.")
        elif self.next_epoch >= self.params["epochs"]:
            print(f"Nothing is left to do after {done}.")
        else:
            step = self.next_epoch * self.params["steps"]
            print(
                f"Goes on after {done}: step {step}, pass "
                f"{1 + step // len(self.dataset)}."
            )

    def _refuse_other(self, description):
        if differences := find_differences(description, self.description):
            raise ValueError(
                f"The backup in '{self.folder}' is of another training:\n"
                + "\n".join(differences)
                + "\nStart with the same settings, or with another folder; "
                "`model.load_weights` starts a new training from old weights."
            )

    def _write_log(self):
        """All rows again, so that the file never has more than the backup."""
        if self.log_path is None:
            return
        names = dict.fromkeys(name for row in self.rows for name in row)
        unfinished = self.log_path.with_suffix(".unfinished")
        try:
            with open(unfinished, "w", newline="") as file:
                writer = csv.DictWriter(file, list(names))
                writer.writeheader()
                writer.writerows(self.rows)
            os.replace(unfinished, self.log_path)
        except OSError as error:
            raise OSError(
                f"The log '{self.log_path}' could not be written: "
                f"{error.strerror}. The backup holds it, too. Make room, and "
                "start the same training again."
            ) from error
