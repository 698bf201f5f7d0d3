"""From corpora on disk to batches."""

from keras_ds2.data.an4 import read_an4
from keras_ds2.data.augment import Augmentation
from keras_ds2.data.checks import (
    Rejected,
    check_utterances,
    describe_rejected,
)
from keras_ds2.data.corpus import CorpusError, Utterance
from keras_ds2.data.dataset import SpeechDataset
from keras_ds2.data.durations import add_durations
from keras_ds2.data.librispeech import read_librispeech
from keras_ds2.data.manifest import read_manifest
from keras_ds2.data.prepare import prepare_dataset

__all__ = [
    "Augmentation",
    "CorpusError",
    "Rejected",
    "SpeechDataset",
    "Utterance",
    "add_durations",
    "check_utterances",
    "describe_rejected",
    "prepare_dataset",
    "read_an4",
    "read_librispeech",
    "read_manifest",
]
