"""`MovingMeanNormalization` as products of matrices, as it computes itself."""

import numpy as np

from keras_ds2.export.onnx_layers import (
    array,
    axes,
    num_frames_of,
    zero_beyond,
)
from keras_ds2.layers.moving_mean_normalization import (
    BLOCK_SIZE,
    weights_of_past,
    weights_within,
)


def moving_mean(graph, layer, x, is_real):
    """Adds the nodes for whole utterances; returns the outputs."""
    x = _centered(graph, layer, x, is_real)
    num_frames = num_frames_of(graph, x)
    num_blocks = graph("Add", num_frames, np.array([BLOCK_SIZE - 1], "int32"))
    num_blocks = graph("Div", num_blocks, np.array([BLOCK_SIZE], "int32"))
    padded = graph("Mul", num_blocks, np.array([BLOCK_SIZE], "int32"))
    missing = graph("Cast", graph("Sub", padded, num_frames), to=7)  # INT64
    pads = graph("Concat", axes(0, 0, 0, 0), missing, axes(0), axis=0)
    num_features = layer.initial_mean.shape[0]
    blocks = graph(
        "Reshape",
        graph("Pad", x, pads),
        axes(0, -1, BLOCK_SIZE, num_features),
    )
    mean = graph("MatMul", weights_within(BLOCK_SIZE, layer.momentum), blocks)
    last = graph("Gather", mean, np.int64(-1), axis=2)
    number = graph(
        "Range", np.int32(0), graph("Squeeze", num_blocks), np.int32(1)
    )
    number = graph("Cast", number, to=1)  # FLOAT
    age = graph(
        "Sub",
        graph("Unsqueeze", number, axes(1)),
        graph("Add", number, np.float32(1)),
    )
    weights = graph(
        "Where",
        graph("Less", age, np.float32(0)),
        np.float32(0),
        graph(
            "Pow",
            np.float32(layer.momentum**BLOCK_SIZE),
            graph("Max", age, np.float32(0)),
        ),
    )
    before = graph("Unsqueeze", graph("MatMul", weights, last), axes(2))
    past = graph("Mul", before, weights_of_past(BLOCK_SIZE, layer.momentum))
    mean = graph("Reshape", graph("Add", mean, past), axes(0, -1, num_features))
    end = graph("Cast", num_frames, to=7)
    return graph("Sub", x, graph("Slice", mean, axes(0), end, axes(1)))


def stream_moving_mean(graph, layer, x, is_real, num_frames, state):
    """Adds the nodes for a chunk; returns the outputs and the next state."""
    x = _centered(graph, layer, x, is_real)
    past = graph(
        "Mul",
        graph("Unsqueeze", state, axes(1)),
        weights_of_past(num_frames, layer.momentum),
    )
    mean = graph(
        "Add",
        graph("MatMul", weights_within(num_frames, layer.momentum), x),
        past,
    )
    last = graph("Gather", mean, np.int64(num_frames - 1), axis=1)
    return graph("Sub", x, mean), [last]


def _centered(graph, layer, x, is_real):
    x = graph("Sub", x, array(layer.initial_mean))
    return zero_beyond(graph, x, is_real, rank=3)
