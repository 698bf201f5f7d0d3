"""Training that goes on to the bit after any interruption."""

import csv
import json
import os
import pathlib
from typing import Any

import keras

from keras_ds2.training.backup_files import read_latest_backup, write_backup

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
        dataset: The `SpeechDataset` whose `stream()` is trained on. Its
            position is set when training begins.
        log_path: CSV file of one row per epoch, in place of `CSVLogger`: rows
            of epochs that are trained again disappear. Defaults to `None`,
            for none.

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

    backed_up_attributes = ()

    def __init__(self, backup_dir, dataset, log_path=None):
        super().__init__(os.fspath(backup_dir), delete_checkpoint=False)
        self.folder = pathlib.Path(backup_dir)
        self.dataset = dataset
        self.log_path = None if log_path is None else pathlib.Path(log_path)
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
                "package."
            )
        os.makedirs(self.folder, exist_ok=True)
        if not self.model.optimizer.built:
            self.model.optimizer.build(self.model.trainable_variables)
        backup = read_latest_backup(self.folder)
        epoch = 0
        if backup:
            epoch, arrays, state = backup
            self._refuse_other(state["description"])
            self._restore(epoch, arrays, state)
        elif self.log_path and self.log_path.exists():
            raise ValueError(
                f"'{self.log_path}' is the log of a training whose backup is "
                f"not in '{self.folder}'. Move it away, or log elsewhere."
            )
        self.dataset.first_step = epoch * self.params["steps"]

    def on_train_batch_end(self, batch, logs=None):
        pass  # Keras's counts batches, to back up between them

    def on_epoch_end(self, epoch, logs=None):
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
            "description": self._description(),
            "rows": self.rows,
            "is_stopped": self.model.stop_training,
            "callbacks": [
                {name: _plain(getattr(callback, name)) for name in names}
                for callback, names in self.companions
                if names
            ],
        }
        arrays = [
            keras.ops.convert_to_numpy(variable)
            for variable in self._variables()
        ]
        write_backup(self.folder, epoch + 1, arrays, state)
        self._write_log()

    def on_train_end(self, logs=None):
        # Or the next `fit`, without this callback, would begin there.
        self.model._initial_epoch = None

    # === State ===

    def _variables(self):
        return [
            *self.model.trainable_variables,
            *self.model.non_trainable_variables,  # random seeds, too
            *self.model.optimizer.variables,
        ]

    def _restore(self, epoch, arrays, state):
        with self.model.distribute_strategy.scope():
            for variable, array in zip(self._variables(), arrays, strict=True):
                variable.assign(array)
        remembering = [item for item, names in self.companions if names]
        for callback, values in zip(
            remembering, state["callbacks"], strict=True
        ):
            for name, value in values.items():
                setattr(callback, name, value)
        self.rows = state["rows"]
        self._write_log()
        if state["is_stopped"]:  # by another callback, for good
            epoch = max(epoch, self.params["epochs"])
        self.model._initial_epoch = epoch
        if epoch >= self.params["epochs"]:
            print(f"Nothing is left to do after epoch {len(self.rows)}.")
        else:
            step = epoch * self.params["steps"]
            print(
                f"Goes on after epoch {epoch}: step {step}, pass "
                f"{1 + step // len(self.dataset)}."
            )

    def _description(self):
        """What must be equal for a training to go on, in plain JSON."""
        return _plain(
            {
                "model": {
                    "class": type(self.model).__name__,
                    **self.model.get_config(),
                },
                "optimizer": keras.saving.serialize_keras_object(
                    self.model.optimizer
                ),
                "dataset": self.dataset.description(),
                "steps_per_epoch": self.params["steps"],
                "callbacks": [
                    type(callback).__name__
                    for callback, names in self.companions
                    if names
                ],
            }
        )

    def _refuse_other(self, description):
        before, now = _flatten(description), _flatten(self._description())
        differences = [
            f"  {name}: {before.get(name)!r} in the backup, "
            f"{now.get(name)!r} now"
            for name in sorted(before.keys() | now.keys())
            if before.get(name) != now.get(name)
        ]
        if differences:
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
        with open(unfinished, "w", newline="") as file:
            writer = csv.DictWriter(file, list(names))
            writer.writeheader()
            writer.writerows(self.rows)
        os.replace(unfinished, self.log_path)


def _plain(value):
    """What JSON gives back: tuples become lists, NumPy's numbers Python's."""
    return json.loads(json.dumps(value, default=float))


def _flatten(value, prefix=""):
    if not isinstance(value, dict):
        return {prefix: value}
    flat: dict[str, Any] = {}
    for name, item in value.items():
        path = f"{prefix}.{name}" if prefix else name
        if path != "optimizer.config.name":  # Keras counts: adam, adam_1 ...
            flat |= _flatten(item, path)
    return flat
