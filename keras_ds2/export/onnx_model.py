"""A model, or its streaming step, as one ONNX graph."""

import keras
import numpy as np

from keras_ds2.export.metadata import flat_name
from keras_ds2.export.onnx_graph import Graph
from keras_ds2.export.onnx_layers import (
    FRAME_BY_FRAME,
    WINDOWS,
    axes,
    frames_up_to,
    num_frames_of,
    refuse,
    zero_beyond,
)
from keras_ds2.export.onnx_moving_mean import (
    moving_mean,
    stream_moving_mean,
)
from keras_ds2.export.onnx_recurrence import RECURRENT, recurrence
from keras_ds2.layers.log_mel_spectrogram import LogMelSpectrogram
from keras_ds2.layers.moving_mean_normalization import (
    MovingMeanNormalization,
)
from keras_ds2.layers.split_frames import SplitFrames
from keras_ds2.layers.streaming import SlidingWindow
from keras_ds2.streaming.step import layers_of_path


def offline_graph(model):
    """Audio and its lengths in, logits and their lengths out.

    Args:
        model: `SpeechRecognizer`.

    Returns:
        `Graph`.

    Raises:
        ImportError: If onnx is not installed.
        ValueError: If a layer has no counterpart, naming it.
    """
    graph = Graph()
    x = graph.input("audio", "float32", ("batch", "samples"))
    length = graph.input("audio_length", "int32", ("batch",))
    for layer in _path(model):
        graph.scope = layer.name
        if isinstance(layer, RECURRENT):
            x = graph("Transpose", x, perm=[1, 0, 2])
            x, _ = recurrence(graph, layer, x, length)
            x = graph("Transpose", x, perm=[1, 0, 2])
        elif isinstance(layer, MovingMeanNormalization):
            x = moving_mean(graph, layer, x, _is_before_end(graph, x, length))
        elif isinstance(layer, SlidingWindow):
            is_real = _is_before_end(graph, x, length)
            x = zero_beyond(graph, x, is_real, _input_rank(layer))
            x = WINDOWS[type(layer)](graph, layer, x, pad_time=True)
            length = _output_length(graph, layer, length)
        elif isinstance(layer, SplitFrames):
            x = _split(graph, layer, x)
            length = graph("Mul", length, np.int32(layer.factor))
        else:
            x = FRAME_BY_FRAME[type(layer)](graph, layer, x)
    num_symbols = model.output["logits"].shape[-1]
    graph.output("logits", x, "float32", ("batch", "frames", num_symbols))
    graph.output("logit_length", length, "int32", ("batch",))
    return graph


def streaming_graph(step):
    """A chunk and a state in, logits and the next state out.

    Args:
        step: `StreamingStep`.

    Returns:
        `Graph`. Each state, under its `flat_name`, is an input, and comes out
        as `next_` and that name.

    Raises:
        ImportError: If onnx is not installed.
        ValueError: If a layer has no counterpart, naming it.
    """
    _path(step.model)
    graph = Graph()
    size = step.chunk_size
    x = graph.input("samples", "float32", ("batch", size))
    num_samples = graph.input("num_samples", "int32", ("batch",))
    for name, (shape, dtype) in step.state_shapes.items():
        graph.input(flat_name(name), dtype, ("batch", *shape))
    start, count = "position", "length"
    more = graph(
        "Where", graph("Equal", start, count), num_samples, np.int32(0)
    )
    length = count = graph("Add", count, more)
    states: dict[str, str] = {}
    num_frames = size
    for layer in step.layers:
        graph.scope = layer.name
        past = [
            flat_name(name)
            for name in step.state_shapes
            if name.startswith(layer.name + ".")
        ]
        if isinstance(layer, RECURRENT):
            x, new = _stream_recurrence(
                graph, layer, x, start, count, num_frames, past
            )
        elif isinstance(layer, MovingMeanNormalization):
            is_real = _is_real(graph, start, count, num_frames)
            x, new = stream_moving_mean(
                graph, layer, x, is_real, num_frames, *past
            )
        elif isinstance(layer, SlidingWindow):
            is_real = _is_real(graph, start, count, num_frames)
            x = zero_beyond(graph, x, is_real, _input_rank(layer))
            x = graph("Concat", *past, x, axis=1)
            # Of as many frames as the state has.
            new = [graph("Slice", x, axes(num_frames), axes(2**62), axes(1))]
            num_frames //= layer.reach()[-1]
            x = WINDOWS[type(layer)](graph, layer, x, pad_time=False)
            x = graph("Slice", x, axes(0), axes(num_frames), axes(1))
            start = _first_output(graph, layer, start)
            count = _output_length(graph, layer, count)
        elif isinstance(layer, SplitFrames):
            x, new = _split(graph, layer, x), []
            num_frames *= layer.factor
            start, count = (
                graph("Mul", value, np.int32(layer.factor))
                for value in (start, count)
            )
        else:
            x, new = FRAME_BY_FRAME[type(layer)](graph, layer, x), []
        states.update(zip(past, new, strict=True))
    graph.scope = "stream"
    is_real = _is_real(graph, start, count, num_frames)
    states.update(_counters(graph, step, length))
    num_symbols = step.model.output["logits"].shape[-1]
    graph.output("logits", x, "float32", ("batch", num_frames, num_symbols))
    graph.output("is_real", is_real, "bool", ("batch", num_frames))
    for name, (shape, dtype) in step.state_shapes.items():
        name = flat_name(name)
        graph.output(f"next_{name}", states[name], dtype, ("batch", *shape))
    return graph


def _path(model):
    """The layers from samples to logits, each fed by the one before."""
    layers = layers_of_path(model)
    before = model.input["audio"]
    known = {MovingMeanNormalization, SplitFrames, *WINDOWS, *FRAME_BY_FRAME}
    for layer in layers:
        if not isinstance(layer, RECURRENT) and type(layer) not in known:
            refuse(layer, "there is no rule for layers of this type")
        if not any(before is x for x in keras.tree.flatten(layer.input)):
            refuse(layer, "its input is not the output of the layer before it")
        before = layer.output
    if before is not model.output["logits"]:
        refuse(layers[-1], "what it gives are not the logits")
    return layers


def _split(graph, layer, x):
    return graph("Reshape", x, axes(0, -1, layer.output.shape[-1]))


def _input_rank(layer):
    return len(keras.tree.flatten(layer.input)[0].shape)


def _output_length(graph, layer, length):
    """`SlidingWindow.compute_length`, and `lengths.output_length`."""
    before, after, stride = layer.reach()
    window = before + after + 1
    padding = 0 if isinstance(layer, LogMelSpectrogram) else window - 1
    length = graph("Add", length, np.int32(padding - window + stride))
    # Nothing below zero is divided: ONNX rounds it up.
    return graph("Div", graph("Max", length, np.int32(0)), np.int32(stride))


def _first_output(graph, layer, start):
    """`SlidingWindow.first_output`."""
    before, after, stride = layer.reach()
    ahead = graph("Sub", np.int32(after), start)
    first = graph("Neg", _floor_division(graph, ahead, stride))
    if before + after + 1 >= stride:
        return first
    behind = graph("Add", start, np.int32(before))
    return graph("Min", first, _floor_division(graph, behind, stride))


def _floor_division(graph, number, divisor):
    rest = graph("Mod", number, np.int32(divisor))
    return graph("Div", graph("Sub", number, rest), np.int32(divisor))


def _is_before_end(graph, x, length):
    index = frames_up_to(graph, num_frames_of(graph, x))
    return graph("Less", index, graph("Unsqueeze", length, axes(1)))


def _is_real(graph, start, count, num_frames):
    index = np.arange(num_frames, dtype="int32")
    index = graph("Add", graph("Unsqueeze", start, axes(1)), index)
    return graph(
        "And",
        graph("GreaterOrEqual", index, np.int32(0)),
        graph("Less", index, graph("Unsqueeze", count, axes(1))),
    )


def _stream_recurrence(graph, layer, x, start, count, num_frames, state):
    """The operator knows ends, not beginnings.

    So the frames before the first go behind the last, and back afterwards.
    """
    limits = np.int32(0), np.int32(num_frames)
    ahead = graph("Clip", graph("Neg", start), *limits)
    real = graph("Clip", graph("Sub", count, start), *limits)
    real = graph("Max", graph("Sub", real, ahead), np.int32(0))
    ahead = graph("Unsqueeze", graph("Cast", ahead, to=7), axes(0))  # INT64
    index = np.arange(num_frames)[:, None]
    shifted = graph("Mod", graph("Add", index, ahead), axes(num_frames))
    rows = graph("Shape", start)
    rows = graph("Range", np.int64(0), graph("Squeeze", rows), np.int64(1))
    rows = graph("Unsqueeze", rows, axes(0))
    rows = graph("Expand", rows, axes(num_frames, 1))

    def take(values, first, second):
        first = graph("Unsqueeze", first, axes(2))
        second = graph("Unsqueeze", second, axes(2))
        index = graph("Concat", first, second, axis=2)
        return graph("GatherND", values, index)

    x, new = recurrence(graph, layer, take(x, rows, shifted), real, state)
    back = graph("Mod", graph("Sub", index, ahead), axes(num_frames))
    return graph("Transpose", take(x, back, rows), perm=[1, 0, 2]), new


def _counters(graph, step, length):
    """Whole chunks are forgotten, as in `StreamingStep`."""
    size = np.int32(step.chunk_size)
    position = graph("Add", "position", size)
    is_settled = graph("Greater", position, np.int32(step.settled_size))
    old = graph("Where", is_settled, size, np.int32(0))
    return {
        "position": graph("Sub", position, old),
        "length": graph("Max", graph("Sub", length, old), np.int32(0)),
    }
