"""What all tests share: seeds, and real speech."""

import gc
from pathlib import Path

import pytest

# TensorFlow is imported by fixtures only: it takes seconds, and the process
# that hands tests to others reads this file, too.

CLIPS = Path(__file__).parent / "data" / "LibriSpeech"


def pytest_configure(config):
    # Keras's own: its variables do not know NumPy 2's `copy` yet.
    config.addinivalue_line(
        "filterwarnings",
        "ignore:__array__ implementation doesn't accept:DeprecationWarning",
    )


@pytest.fixture(autouse=True, scope="session")
def freeze_imports():
    """`fit` collects garbage; what imports made is none, and is much."""
    import keras_ds2  # noqa: F401

    gc.freeze()


@pytest.fixture(autouse=True)
def reset_global_state():
    import keras

    keras.utils.set_random_seed(20)
    keras.config.set_dtype_policy("float32")


def load_clips(folder):
    import keras_ds2

    paths = sorted((CLIPS / folder).rglob("*.opus"))
    return [keras_ds2.load_audio(path) for path in paths]


@pytest.fixture(scope="session")
def train_clips():
    """Six utterances, 3 to 6 s, as sample arrays."""
    clips = load_clips("train-clips")
    assert len(clips) == 6
    return clips


@pytest.fixture(scope="session")
def dev_clips():
    """Two utterances of other speakers."""
    clips = load_clips("dev-clips")
    assert len(clips) == 2
    return clips
