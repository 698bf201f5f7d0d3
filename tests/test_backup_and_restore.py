"""The oracle is the training that nobody interrupts."""

import pathlib
import random
import re
import resource
import shutil
import subprocess
import sys
import time

import h5py
import keras
import numpy as np
import pytest
import resumable

import keras_ds2
from keras_ds2.training.backup_files import read_latest_backup, write_backup

# === Kills ===


def start(folder, epochs, seconds=0.0):
    return subprocess.Popen(
        [
            sys.executable,
            resumable.__file__,
            str(folder),
            str(epochs),
            str(seconds),
        ],
        stdout=subprocess.PIPE,
        text=True,
    )


def finish(child):
    output, _ = child.communicate(timeout=300)
    assert child.returncode == 0
    return output


def kill(child):
    child.kill()
    child.communicate()


def kill_when(child, condition):
    deadline = time.monotonic() + 120
    while not condition():
        assert child.poll() is None, "ended before it was killed"
        assert time.monotonic() < deadline
        time.sleep(0.005)
    kill(child)


def has_backup(folder, epoch):
    return lambda: any((folder / "backup").glob(f"epoch-{epoch:06}-*"))


def is_writing(folder):
    unfinished = folder / "backup" / "unfinished"
    return lambda: unfinished.exists() and unfinished.stat().st_size > 0


def assert_same_result(folder, expected):
    log = (folder / "log.csv").read_bytes()
    assert log == (expected / "log.csv").read_bytes()
    assert log.count(b"\n") > 3
    for arrays in (final_weights, best_weights, backed_up_arrays):
        for one, two in zip(arrays(folder), arrays(expected), strict=True):
            np.testing.assert_array_equal(one, two)


def final_weights(folder):
    arrays = []

    def visit(name, item):
        if isinstance(item, h5py.Dataset):
            arrays.append(item[()])

    with h5py.File(folder / "final.weights.h5") as file:
        file.visititems(visit)
    assert len(arrays) > 15
    return arrays


def best_weights(folder):
    return keras.models.load_model(folder / "best.keras").get_weights()


def backed_up_arrays(folder):
    """Weights, optimizer, random seeds."""
    return read_latest_backup(folder / "backup")[1]


def test_a_kill_while_saving_changes_nothing(tmp_path):
    uninterrupted, killed = tmp_path / "uninterrupted", tmp_path / "killed"
    for folder in (uninterrupted, killed):
        folder.mkdir()
    kill_when(
        start(killed, epochs=3, seconds=2.0),
        lambda: has_backup(killed, 1)() and is_writing(killed)(),
    )
    assert is_writing(killed)()  # what was killed was a save
    child = start(killed, epochs=3)
    resumable.train(uninterrupted, epochs=3)  # at the same time
    output = finish(child)
    assert "Goes on after epoch 1: step 5, pass 2" in output
    assert_same_result(killed, uninterrupted)


@pytest.mark.slow
def test_three_kills_change_nothing(tmp_path):
    uninterrupted, killed = tmp_path / "uninterrupted", tmp_path / "killed"
    for folder in (uninterrupted, killed):
        folder.mkdir()
    whole = start(uninterrupted, epochs=6)  # at the same time
    kill_when(start(killed, epochs=6), has_backup(killed, 1))
    kill_when(start(killed, epochs=6, seconds=5.0), is_writing(killed))
    assert is_writing(killed)()  # what was killed was a save
    kill_when(start(killed, epochs=6), has_backup(killed, 4))
    output = finish(start(killed, epochs=6))
    finish(whole)
    assert re.search(r"Goes on after epoch [45]: step (20|25), pass", output)
    assert_same_result(killed, uninterrupted)


@pytest.mark.slow
def test_twenty_kills_change_nothing(tmp_path):
    uninterrupted, killed = tmp_path / "uninterrupted", tmp_path / "killed"
    for folder in (uninterrupted, killed):
        folder.mkdir()
    finish(start(uninterrupted, epochs=150))
    generator = random.Random(0)
    during_save = 0
    for _ in range(19):
        child = start(killed, epochs=150, seconds=0.4)
        time.sleep(generator.uniform(3.0, 12.0))
        assert child.poll() is None, "ended before it was killed"
        during_save += is_writing(killed)()
        kill(child)
    kill_when(start(killed, epochs=150, seconds=5.0), is_writing(killed))
    print(f"{during_save + 1} of 20 kills hit a save")
    finish(start(killed, epochs=150))
    assert_same_result(killed, uninterrupted)


# === Files ===


ARRAYS = [np.arange(5.0), np.array(3, "int64"), np.zeros((0, 2), "float32")]


@pytest.fixture
def folder(tmp_path):
    """Three backups were made, two are left."""
    for epoch in (8, 9, 10):
        write_backup(tmp_path, epoch, ARRAYS, {"number": epoch / 3})
    names = sorted(path.name[:12] for path in tmp_path.iterdir())
    assert names == ["epoch-000009", "epoch-000010"]
    return tmp_path


def path_of(folder, epoch):
    [path] = folder.glob(f"epoch-{epoch:06}-*")
    return path


def test_backup_round_trip(folder):
    epoch, arrays, state = read_latest_backup(folder)
    assert (epoch, state) == (10, {"number": 10 / 3})
    for array, expected in zip(arrays, ARRAYS, strict=True):
        np.testing.assert_array_equal(array, expected, strict=True)


def test_no_backup_yet(tmp_path):
    assert read_latest_backup(tmp_path) is None
    (tmp_path / "unfinished").write_bytes(b"abc")
    assert read_latest_backup(tmp_path) is None


def truncate(content):
    return content[: len(content) // 2]


def empty(content):
    return b""


def flip_a_bit(content):
    middle = len(content) // 2
    return (
        content[:middle] + bytes([content[middle] ^ 4]) + content[middle + 1 :]
    )


@pytest.mark.parametrize("damage", [truncate, empty, flip_a_bit])
def test_damaged_backup_falls_back_to_the_one_before(damage, folder):
    path = path_of(folder, 10)
    path.write_bytes(damage(path.read_bytes()))
    with pytest.warns(UserWarning, match="epoch-000010-.* is damaged"):
        epoch, _, state = read_latest_backup(folder)
    assert (epoch, state) == (9, {"number": 3.0})
    path = path_of(folder, 9)
    path.write_bytes(damage(path.read_bytes()))
    with (
        pytest.warns(UserWarning, match="is damaged"),
        pytest.raises(OSError, match="Every backup in .* is damaged"),
    ):
        read_latest_backup(folder)


def test_full_disk_leaves_the_backups_that_are_there(folder):
    before = sorted(folder.iterdir())
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (5000, hard))
    try:
        with pytest.raises(OSError, match="epoch 11 .*Earlier backups are in"):
            write_backup(folder, 11, [np.zeros(10_000)], {})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert sorted(folder.iterdir()) == before
    assert read_latest_backup(folder)[0] == 10


def test_epoch_that_is_made_again_takes_the_place_of_the_damaged(folder):
    path_of(folder, 10).write_bytes(b"damaged")
    write_backup(folder, 10, ARRAYS, {"number": -1})
    assert len(list(folder.iterdir())) == 2
    assert read_latest_backup(folder)[2] == {"number": -1}
    path_of(folder, 10).unlink()
    assert read_latest_backup(folder)[2] == {"number": 3.0}


# === What goes on, and what is refused ===

DATA = pathlib.Path(__file__).parent / "data"


def make(batch_size=2, names=("an4_train",), **kwargs):
    keras.utils.set_random_seed(1)
    model = keras_ds2.DeepSpeech2(
        conv_filters=(2,),
        conv_kernel_sizes=((5, 9),),
        conv_strides=((4, 4),),
        num_rnn_layers=1,
        dense_units=4,
        normalize=False,
        **{"rnn_units": 4} | kwargs,
    )
    dataset = keras_ds2.data.prepare_dataset(DATA, names, model, batch_size)
    return model, dataset


def fit(
    folder,
    model,
    dataset,
    callbacks=(),
    rate=1e-3,
    steps=2,
    run_eagerly=True,  # two steps take less than to compile them
    **kwargs,
):
    model.compile(keras.optimizers.Adam(rate), run_eagerly=run_eagerly)
    backup = keras_ds2.BackupAndRestore(
        folder / "backup", dataset, folder / "log.csv"
    )
    history = model.fit(
        dataset.stream(),
        steps_per_epoch=steps,
        callbacks=[backup, *callbacks],
        verbose=0,
        **{"epochs": 1} | kwargs,
    )
    return history.history["loss"] if history.history else []


@pytest.fixture(scope="module")
def trained_once(tmp_path_factory):
    folder = tmp_path_factory.mktemp("trained")
    fit(folder, *make())
    return folder


@pytest.fixture
def trained(trained_once, tmp_path):
    """A folder that holds backup and log of one epoch."""
    return shutil.copytree(trained_once, tmp_path / "trained")


def contents(folder):
    return {
        path: path.read_bytes() for path in folder.rglob("*") if path.is_file()
    }


def test_goes_on_at_the_batch_after_the_last(trained):
    seen = []
    model, dataset = make()
    read = dataset.stream()

    class Spy(keras.callbacks.Callback):
        backed_up_attributes = ()

        def on_train_batch_end(self, batch, logs):
            seen.append(batch)

    assert len(fit(trained, model, dataset, [Spy()], epochs=3)) == 2
    # Every epoch after the resumption has all its batches.
    assert seen == [0, 1] * 2
    assert int(model.optimizer.iterations.numpy()) == 6
    assert dataset.first_step == 2
    inputs, _ = next(iter(read))
    longest = max(row.duration for row in dataset.batch_at(2))
    assert inputs["audio"].shape[1] == round(16000 * longest)
    # Nothing is left to do, and a later `fit` without backup is a new one.
    before = model.get_weights()
    assert fit(trained, model, dataset, epochs=3) == []
    for one, two in zip(before, model.get_weights(), strict=True):
        np.testing.assert_array_equal(one, two)
    dataset.first_step = 0
    history = model.fit(dataset.stream(), steps_per_epoch=1, verbose=0)
    assert history.epoch == [0]


@pytest.mark.parametrize(
    "make_other, message",
    [
        (
            lambda: (*make(rnn_units=5), {}),
            r"model.rnn_units: 4 in the backup, 5 now",
        ),
        (
            lambda: (*make(), {"rate": 2e-3}),
            r"optimizer.config.learning_rate: 0.001.* in the backup, 0.002",
        ),
        (
            lambda: (*make(batch_size=3), {}),
            r"dataset.batch_size: 2 in the backup, 3 now",
        ),
        (
            lambda: (*make(names=["dev-clips"]), {}),
            r"dataset.utterances: 7 in the backup, 2 now",
        ),
        (lambda: (*make(), {"steps": 3}), r"steps_per_epoch: 2 in the b.*3 n"),
    ],
    ids=["model", "optimizer", "batches", "corpus", "epoch"],
)
def test_backup_of_another_training_is_refused(make_other, message, trained):
    files = contents(trained)
    assert len(files) == 2  # backup and log
    model, dataset, kwargs = make_other()
    before = model.get_weights()
    with pytest.raises(ValueError, match=message) as error:
        fit(trained, model, dataset, **kwargs)
    assert "rnn_type" not in str(error.value)  # only what differs
    for one, two in zip(before, model.get_weights(), strict=True):
        np.testing.assert_array_equal(one, two)
    assert contents(trained) == files


def test_callbacks_are_restored(tmp_path):
    model, dataset = make(batch_size=4)

    def callbacks():
        stopping = keras.callbacks.EarlyStopping("loss", patience=2)
        checkpoint = keras.callbacks.ModelCheckpoint(
            tmp_path / "best.keras", "loss", save_best_only=True
        )
        return [stopping, checkpoint]

    # The learning rate is 0: what follows is not better than the first.
    kwargs = {"rate": 0.0, "steps": len(dataset)}
    first = callbacks()
    fit(tmp_path, model, dataset, first, **kwargs)
    second = callbacks()
    model, dataset = make(batch_size=4)
    losses = fit(tmp_path, model, dataset, second, epochs=9, **kwargs)
    assert len(losses) == 2  # patience ran out, counted from the first
    assert second[1].best == pytest.approx(first[1].best)
    # It was stopped for good.
    model, dataset = make(batch_size=4)
    assert fit(tmp_path, model, dataset, callbacks(), epochs=9, **kwargs) == []


def test_callbacks_of_unknown_state_are_refused(tmp_path):
    class Counter(keras.callbacks.Callback):
        count = 0

        def on_epoch_end(self, epoch, logs=None):
            self.count += 1

    model, dataset = make()
    with pytest.raises(ValueError, match="What Counter remembers cannot be"):
        fit(tmp_path, model, dataset, [Counter()])
    stopping = keras.callbacks.EarlyStopping(restore_best_weights=True)
    with pytest.raises(ValueError, match="EarlyStopping .*`ModelCheckpoint`"):
        fit(tmp_path, model, dataset, [stopping])
    with pytest.raises(ValueError, match="Use `BackupAndRestore.*log_path"):
        fit(
            tmp_path,
            model,
            dataset,
            [keras.callbacks.CSVLogger(tmp_path / "b.csv")],
        )
    Counter.backed_up_attributes = ("count",)
    fit(tmp_path, model, dataset, [Counter()], epochs=2)
    counter = Counter()
    fit(tmp_path, model, dataset, [counter], epochs=3)
    assert counter.count == 3


def test_needs_a_stream_and_no_older_log(tmp_path):
    model, dataset = make()
    model.compile("sgd")
    backup = keras_ds2.BackupAndRestore(tmp_path, dataset, tmp_path / "log.csv")
    (tmp_path / "log.csv").write_text("epoch,loss\n0,1.0\n")
    with pytest.raises(ValueError, match="log.csv' is the log of a training"):
        model.fit(
            dataset.stream(), steps_per_epoch=1, verbose=0, callbacks=[backup]
        )
    assert (tmp_path / "log.csv").read_text() == "epoch,loss\n0,1.0\n"


@pytest.mark.parametrize(
    "dtype, with_plateau",
    [
        pytest.param("float32", False, marks=pytest.mark.slow),
        ("mixed_float16", True),
    ],
)
def test_parts_equal_the_whole(dtype, with_plateau, tmp_path):
    results = []
    for name, epochs in (("whole", [3]), ("parts", [2, 3])):
        for count in epochs:
            model, dataset = make(dtype=dtype, dropout=0.3, spec_augment=True)
            plateau = keras.callbacks.ReduceLROnPlateau(
                "loss", patience=1, min_delta=1e6
            )
            folder = tmp_path / name
            callbacks = [plateau] if with_plateau else []
            fit(
                *(folder, model, dataset, callbacks),
                epochs=count,
                run_eagerly=False,
            )
        if with_plateau:
            rate = model.optimizer.learning_rate
            assert float(rate) < 5e-4  # it was lowered
        state = [*model.variables, *model.optimizer.variables]
        state = [np.array(variable) for variable in state]
        results.append((state, (folder / "log.csv").read_text()))
    (whole, whole_log), (parts, parts_log) = results
    assert parts_log == whole_log
    for one, two in zip(whole, parts, strict=True):
        np.testing.assert_array_equal(two, one)


def test_epoch_that_was_cut_short_is_trained_again(tmp_path):
    class Stop(keras.callbacks.Callback):
        backed_up_attributes = ()

        def on_train_batch_end(self, batch, logs=None):
            self.model.stop_training = batch == 0

    model, dataset = make()
    fit(tmp_path, model, dataset, [Stop()], epochs=2)
    assert not list((tmp_path / "backup").iterdir())
    model, dataset = make()
    assert len(fit(tmp_path, model, dataset, epochs=2)) == 2
    assert int(model.optimizer.iterations.numpy()) == 4


def test_what_would_fail_after_an_epoch_fails_before(tmp_path):
    model, dataset = make()
    model.compile("sgd")
    read = dataset.stream()
    (tmp_path / "file").touch()
    for path in (tmp_path / "file", "/dev/null/folder"):
        for backup in (
            keras_ds2.BackupAndRestore(path, dataset),
            keras_ds2.BackupAndRestore(
                tmp_path / "a", dataset, f"{path}/log.csv"
            ),
        ):
            with pytest.raises(OSError, match="Nothing can be written to"):
                model.fit(
                    read, steps_per_epoch=1, verbose=0, callbacks=[backup]
                )
    backup = keras_ds2.BackupAndRestore(tmp_path / "a", dataset)
    with pytest.raises(ValueError, match="Received: initial_epoch=3"):
        model.fit(
            read,
            steps_per_epoch=1,
            epochs=4,
            initial_epoch=3,
            verbose=0,
            callbacks=[backup],
        )
    with pytest.raises(ValueError, match="needs `model.fit"):
        data = dataset.one_pass().filter(lambda x, y: True)  # unknown length
        model.fit(data, verbose=0, callbacks=[backup])


def test_the_same_callback_begins_anew(tmp_path):
    model, dataset = make()
    model.compile("sgd", run_eagerly=True)
    backup = keras_ds2.BackupAndRestore(
        tmp_path / "backup", dataset, tmp_path / "log.csv"
    )
    for _ in range(2):
        model.fit(
            dataset.stream(), steps_per_epoch=1, verbose=0, callbacks=[backup]
        )
        for path in (tmp_path / "backup").iterdir():
            path.unlink()
        (tmp_path / "log.csv").rename(tmp_path / "moved.csv")
    assert len((tmp_path / "moved.csv").read_text().splitlines()) == 2


def test_another_monitor_or_frozen_layer_is_refused(tmp_path):
    def checkpoint(monitor):
        return keras.callbacks.ModelCheckpoint(
            tmp_path / "best.keras", monitor, mode="min", save_best_only=True
        )

    model, dataset = make()
    fit(tmp_path, model, dataset, [checkpoint("wer")])
    model, dataset = make()
    with pytest.raises(ValueError, match="callbacks: .*'wer'.* in the backup"):
        fit(tmp_path, model, dataset, [checkpoint("loss")], epochs=2)
    model, dataset = make()
    model.get_layer("dense").trainable = False
    message = "weights.dense/kernel: 'trained' in the backup, 'fixed' now"
    with pytest.raises(ValueError, match=message) as error:
        fit(tmp_path, model, dataset, [checkpoint("wer")], epochs=2)
    assert "conv_1" not in str(error.value)
