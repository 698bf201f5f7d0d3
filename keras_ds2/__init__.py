"""Deep Speech 1 and 2 in Keras: layers, models, training; speech to text."""

import os
import sys

__version__ = "0.1.0"

# Started as `keras-ds2`, it answers `--help` at once: a command imports what it
# needs, and nothing is imported here. Everywhere else all is, so that Keras
# knows the classes it finds in files.
if os.path.basename((sys.argv or [""])[0]) != "keras-ds2":
    from keras_ds2 import data
    from keras_ds2.audio import AudioError, load_audio
    from keras_ds2.decoding.beam_search import BeamSearchDecoder
    from keras_ds2.decoding.decoder_file import load_decoder, save_decoder
    from keras_ds2.decoding.greedy import greedy_decode
    from keras_ds2.decoding.hypothesis import Hypothesis, TimedText
    from keras_ds2.error_rate import CharacterErrorRate, WordErrorRate
    from keras_ds2.export.export_model import export_model
    from keras_ds2.layers.bidirectional_simple_rnn import BidirectionalSimpleRNN
    from keras_ds2.layers.clipped_relu import clipped_relu
    from keras_ds2.layers.context_window import ContextWindow
    from keras_ds2.layers.ctc_layer import CTCLayer
    from keras_ds2.layers.gru import GRU
    from keras_ds2.layers.log_mel_spectrogram import LogMelSpectrogram
    from keras_ds2.layers.lstm import LSTM
    from keras_ds2.layers.moving_mean_normalization import (
        MovingMeanNormalization,
    )
    from keras_ds2.layers.output_length import OutputLength
    from keras_ds2.layers.row_convolution import RowConvolution
    from keras_ds2.layers.sequence_batch_normalization import (
        SequenceBatchNormalization,
    )
    from keras_ds2.layers.sequence_conv2d import SequenceConv2D
    from keras_ds2.layers.sequence_mask import SequenceMask
    from keras_ds2.layers.simple_rnn import SimpleRNN
    from keras_ds2.layers.spec_augment import SpecAugment
    from keras_ds2.layers.split_frames import SplitFrames
    from keras_ds2.layers.symbol_logits import SymbolLogits
    from keras_ds2.models.align import align
    from keras_ds2.models.deepspeech import DeepSpeech
    from keras_ds2.models.deepspeech2 import DeepSpeech2
    from keras_ds2.models.spelling import add_spelling
    from keras_ds2.pretrained import (
        load_pretrained,
        pretrained_weights,
        save_pretrained,
    )
    from keras_ds2.report.page import write_report
    from keras_ds2.streaming.recognizer import StreamingRecognizer
    from keras_ds2.streaming.step import StreamingStep
    from keras_ds2.streaming.utterance import PartialTranscript
    from keras_ds2.training.backup_and_restore import BackupAndRestore
    from keras_ds2.training.device import (
        use_device,
        use_mixed_precision,
        use_strategy,
    )
    from keras_ds2.training.dry_run import dry_run
    from keras_ds2.training.evaluate import evaluate
    from keras_ds2.training.figures import (
        plot_learning_curves,
        plot_transcription,
    )
    from keras_ds2.training.heard_speech import HeardSpeech
    from keras_ds2.training.imagined_speech import ImaginedSpeech
    from keras_ds2.training.spelling_model import SpellingModel
    from keras_ds2.training.training_monitor import TrainingMonitor
    from keras_ds2.training.tuning import tune_decoder
    from keras_ds2.training.warmup_schedule import WarmupSchedule
    from keras_ds2.transcription import Segment, transcribe_file

__all__ = [
    "AudioError",
    "BackupAndRestore",
    "BeamSearchDecoder",
    "BidirectionalSimpleRNN",
    "CTCLayer",
    "CharacterErrorRate",
    "CharacterTokenizer",
    "ContextWindow",
    "DeepSpeech",
    "DeepSpeech2",
    "GRU",
    "HeardSpeech",
    "Hypothesis",
    "ImaginedSpeech",
    "LSTM",
    "LogMelSpectrogram",
    "MovingMeanNormalization",
    "OutputLength",
    "PartialTranscript",
    "RowConvolution",
    "Segment",
    "SequenceBatchNormalization",
    "SequenceConv2D",
    "SequenceMask",
    "SimpleRNN",
    "SpecAugment",
    "SpellingModel",
    "SplitFrames",
    "StreamingRecognizer",
    "StreamingStep",
    "SymbolLogits",
    "TimedText",
    "TrainingMonitor",
    "WarmupSchedule",
    "WordErrorRate",
    "add_spelling",
    "align",
    "clipped_relu",
    "data",
    "dry_run",
    "evaluate",
    "export_model",
    "greedy_decode",
    "load_audio",
    "load_decoder",
    "load_pretrained",
    "plot_learning_curves",
    "plot_transcription",
    "pretrained_weights",
    "save_decoder",
    "save_pretrained",
    "transcribe_file",
    "tune_decoder",
    "use_device",
    "use_mixed_precision",
    "use_strategy",
    "write_report",
]


def __getattr__(name):
    # `keras_nlp` takes seconds to import, and not every program needs text.
    if name == "CharacterTokenizer":
        from keras_ds2.tokenizer import CharacterTokenizer

        return CharacterTokenizer
    raise AttributeError(f"module 'keras_ds2' has no attribute {name!r}")
