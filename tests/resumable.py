"""A small real training that tests kill: `resumable.py FOLDER EPOCHS SECONDS`.

Each backup takes SECONDS to write.
"""

import builtins
import os
import sys
import time

import keras
import numpy as np

import keras_ds2
from keras_ds2.training import backup_files

CLIPS = os.path.join(os.path.dirname(__file__), "data", "LibriSpeech")
STEPS_PER_EPOCH = 5


class SlowFile:
    """Writes in ten pieces."""

    def __init__(self, file, seconds):
        self.file, self.seconds = file, seconds

    def __enter__(self):
        return self

    def __exit__(self, *args):
        self.file.close()

    def __getattr__(self, name):
        return getattr(self.file, name)

    def write(self, content):
        for piece in np.array_split(np.frombuffer(content, "uint8"), 10):
            self.file.write(piece.tobytes())
            self.file.flush()
            time.sleep(self.seconds / 10)


def train(folder, epochs, seconds=0.0):
    if seconds:
        backup_files.open = lambda *args: SlowFile(  # type: ignore
            builtins.open(*args), seconds
        )
    keras.utils.set_random_seed(1)
    model = keras_ds2.DeepSpeech2(
        conv_filters=(4,),
        conv_kernel_sizes=((5, 9),),
        conv_strides=((4, 4),),
        num_rnn_layers=1,
        rnn_units=8,
        dense_units=8,
        dropout=0.3,
        spec_augment=True,
    )
    augmentation = keras_ds2.data.Augmentation(speeds=(0.9, 1.0, 1.1))
    dataset = keras_ds2.data.prepare_dataset(
        CLIPS, ["train-clips"], model, batch_size=2, augmentation=augmentation
    )
    validation = keras_ds2.data.prepare_dataset(
        CLIPS, ["dev-clips"], model, batch_size=2
    )
    model.adapt(validation.one_pass())
    model.compile(
        keras.optimizers.Adam(keras_ds2.WarmupSchedule(warmup_steps=20))
    )
    model.fit(
        dataset.stream(),
        steps_per_epoch=STEPS_PER_EPOCH,
        epochs=epochs,
        validation_data=validation.one_pass(),
        verbose=0,
        callbacks=[
            keras_ds2.TrainingMonitor(dataset),
            keras.callbacks.ModelCheckpoint(
                f"{folder}/best.keras", "val_loss", save_best_only=True
            ),
            keras_ds2.BackupAndRestore(
                f"{folder}/backup", dataset, f"{folder}/log.csv"
            ),
        ],
    )
    model.save_weights(f"{folder}/final.weights.h5")


if __name__ == "__main__":
    train(sys.argv[1], int(sys.argv[2]), float(sys.argv[3]))
