"""A trained model in, a file for other programs out."""

import os
import tempfile
from pathlib import Path

from keras_ds2.export.metadata import metadata_of
from keras_ds2.export.onnx_graph import import_onnx
from keras_ds2.export.onnx_model import offline_graph, streaming_graph
from keras_ds2.export.onnx_recurrence import RECURRENT, check_8_bit
from keras_ds2.export.saved_model import export_saved_model
from keras_ds2.models.speech_recognizer import SpeechRecognizer
from keras_ds2.streaming.step import StreamingStep

FORMATS = ("onnx", "savedmodel")

_PARTS_OF_SAVED_MODEL = {
    "assets",
    "assets.extra",
    "fingerprint.pb",
    "saved_model.pb",
    "variables",
}


def export_model(
    model: SpeechRecognizer,
    path: str | os.PathLike[str],
    format: str = "onnx",
    streaming: bool = False,
    chunk_duration: float | None = None,
    int8: bool = False,
) -> None:
    """Writes a model for programs that have no Keras.

    The whole utterance: `audio`, float32 of shape `(batch, samples)`, and
    `audio_length`, int32 of shape `(batch,)`, to `logits` and `logit_length`,
    as the model itself; padding changes no answer. With `streaming=True`,
    `keras_ds2.StreamingStep`: `samples`, `num_samples` and a state, all
    zeros at first, to `logits`, `is_real` and the next state; what goes in as
    `conv_1_0` comes out as `next_conv_1_0`.

    An ONNX file is computed in float32, whatever the dtype policy. What a
    program has to know is in its metadata: `alphabet`, `blank_index`,
    `sampling_rate`, `frame_duration`, `min_samples`, and of a stream
    `chunk_size`, `delay` (frames) and `state`, JSON of shapes without the
    batch. A SavedModel has them in `assets.extra/metadata.json`.

    Args:
        model: `DeepSpeech2`, `DeepSpeech`, or another `SpeechRecognizer` of
            the layers of these, one after the other.
        path: File (`.onnx`) or folder (SavedModel) to write. What is there is
            replaced once the new one is whole, but not a file of another
            ending, nor a folder that holds anything but a SavedModel.
        format: String, `"onnx"` or `"savedmodel"`. Defaults to `"onnx"`.
        streaming: Boolean. Whether to write the step of a stream. Defaults to
            `False`.
        chunk_duration: Float, seconds that a step takes. Defaults to `None`,
            that of `StreamingStep`: the longest frames that fit into 0.1 s.
        int8: Boolean. Whether matrices of an ONNX file have 8 bits: a
            quarter of the size, and not quite the same logits, which may then
            depend on the neighbors in the batch. Only for LSTMs. Defaults to
            `False`.

    Raises:
        ImportError: If onnx or onnxruntime is not installed.
        ValueError: If an argument is out of range, or the model has a layer
            that cannot be exported, naming it.

    Example:

    >>> import os, tempfile
    >>> import keras_ds2
    >>> model = keras_ds2.DeepSpeech2(num_rnn_layers=1, rnn_units=8)
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = os.path.join(folder, "model.onnx")
    ...     keras_ds2.export_model(model, path)
    ...     print(os.listdir(folder))
    ['model.onnx']
    """
    if not isinstance(model, SpeechRecognizer):
        raise ValueError(
            f"`model` must be a SpeechRecognizer. Received: {model!r}."
        )
    if format not in FORMATS:
        raise ValueError(
            f"`format` must be one of {list(FORMATS)}. Received: "
            f"format={format!r}."
        )
    if int8 and format != "onnx":
        raise ValueError("`int8=True` is for ONNX. Pass format='onnx'.")
    path = Path(os.path.abspath(path))
    _check_place(path, format)
    step = StreamingStep(model, chunk_duration) if streaming else None
    # On the same disk, so that one move makes it appear.
    with tempfile.TemporaryDirectory(dir=path.parent) as folder:
        new = os.path.join(folder, "new")
        if format == "onnx":
            _write_onnx(model, new, step, int8)
        else:
            export_saved_model(model, new, step)
        if path.is_dir():
            os.rename(path, os.path.join(folder, "old"))
        os.replace(new, path)


def _check_place(path, format):
    """Refuses what cannot be written, or would cost other files."""
    problem = None
    if not path.parent.is_dir():
        problem = f"there is no folder '{path.parent}'. Make it first"
    elif format == "onnx":
        if path.is_dir():
            problem = "it is a folder. Pass a file"
        elif path.exists() and path.suffix != ".onnx":  # perhaps the model
            problem = "it is there, and not named .onnx. Pass another"
    elif path.is_dir():
        if others := set(os.listdir(path)) - _PARTS_OF_SAVED_MODEL:
            problem = f"the folder holds '{min(others)}'. Pass another"
    elif path.exists():
        problem = "it is a file. Pass a folder"
    if problem:
        raise ValueError(f"'{path}' cannot be written: {problem}.")


def _write_onnx(model, path, step, int8):
    onnx, quantization = import_onnx()
    if int8:
        for layer in model.layers:
            if isinstance(layer, RECURRENT):
                check_8_bit(layer)
    graph = offline_graph(model) if step is None else streaming_graph(step)
    proto = graph.to_model(model.name, metadata_of(model, step))
    if not int8:
        onnx.save(proto, path)
        return
    # Without this mark a warning asks, through the root logger, for what
    # `Graph` has no need of.
    proto.metadata_props.add(
        key="onnx.quant.pre_process", value="onnxruntime.quant"
    )
    quantization.quantize_dynamic(
        proto,
        path,
        op_types_to_quantize=["LSTM", "MatMul"],
        # Powers span ten orders of magnitude.
        nodes_to_exclude=[
            node.name
            for node in proto.graph.node
            if node.name.startswith("log_mel/")
        ],
        per_channel=True,
        weight_type=quantization.QuantType.QInt8,
    )
