"""Recurrent layers as ONNX's own operators, which know lengths."""

import keras
import numpy as np

from keras_ds2.export.onnx_layers import array, axes, refuse
from keras_ds2.layers.bidirectional_simple_rnn import BidirectionalSimpleRNN
from keras_ds2.layers.clipped_relu import MAX_VALUE, clipped_relu
from keras_ds2.layers.gru import GRU
from keras_ds2.layers.lstm import LSTM
from keras_ds2.layers.recurrence import Recurrence
from keras_ds2.layers.streaming import LEFT_TO_KERAS

RECURRENT = (Recurrence, keras.layers.Bidirectional)


def recurrence(graph, layer, x, num_frames, state=()):
    """Adds the operator.

    Args:
        graph: `Graph`.
        layer: `LSTM`, `GRU`, `SimpleRNN`, one of these in a `Bidirectional`,
            or `BidirectionalSimpleRNN`.
        x: Value of shape `(frames, batch, features)`.
        num_frames: Value, int32 of shape `(batch,)`: how many frames of each
            row, from the first, are real.
        state: Values of shape `(batch, units)`, before the first frame.
            Defaults to zeros.

    Returns:
        Value of shape `(frames, batch, units)`, and the last states. Frames
        that are not real are zero.
    """
    parts = _directions(layer)
    first, _ = parts[0]
    _check(layer, first)
    operation, gates, attributes = _operator(first)
    weights = [_weights(part, kernel, gates) for part, kernel in parts]
    if "activations" in attributes:
        attributes["activations"] *= len(parts)
    y, *last = graph(
        operation,
        x,
        *(np.stack(arrays) for arrays in zip(*weights, strict=True)),
        num_frames,
        *(graph("Unsqueeze", value, axes(0)) for value in state),
        num_outputs=1 + len(state),
        hidden_size=first.units,
        direction="forward" if len(parts) == 1 else "bidirectional",
        **attributes,
    )
    y = _merge(graph, layer, y, len(parts))
    return y, [graph("Squeeze", value, axes(0)) for value in last]


def _directions(layer):
    """Pairs of a layer that has weights, and its recurrent kernel."""
    if isinstance(layer, keras.layers.Bidirectional):
        if layer.merge_mode not in ("sum", "concat"):
            refuse(layer, "its `merge_mode` must be 'sum' or 'concat'")
        if not isinstance(layer.forward_layer, Recurrence):
            refuse(layer, "it must hold one of keras_ds2's recurrent layers")
        return [
            (part, part.cell.recurrent_kernel)
            for part in (layer.forward_layer, layer.backward_layer)
        ]
    kernels = [layer.cell.recurrent_kernel]
    if isinstance(layer, BidirectionalSimpleRNN):
        kernels.append(layer.backward_recurrent_kernel)
    return [(layer, kernel) for kernel in kernels]


def _check(layer, first):
    if first.go_backwards or not first.return_sequences:
        refuse(layer, "it must run forward and return all its outputs")
    if not first._has_loop():
        refuse(layer, LEFT_TO_KERAS)


def _operator(layer):
    """The operator, Keras's gates in its order, and its attributes."""
    if isinstance(layer, LSTM):
        return "LSTM", (0, 3, 1, 2), {}
    if isinstance(layer, GRU):
        return "GRU", (0, 1, 2), {"linear_before_reset": 1}
    if layer.activation is not clipped_relu:
        return "RNN", (0,), {"activations": ["Tanh"]}
    # Clipped before the activation, which comes to the same.
    return "RNN", (0,), {"activations": ["Relu"], "clip": MAX_VALUE}


def _weights(layer, recurrent_kernel, gates):
    """Kernel, recurrent kernel and biases of one direction, as in ONNX."""
    kernel, recurrent = array(layer.cell.kernel), array(recurrent_kernel)
    input_bias, bias = layer._biases()
    bias = array(bias)
    input_bias = 0 * bias if input_bias is None else array(input_bias)
    if layer.projection_norm is not None:
        factor, offset = layer.projection_norm.factor_and_offset()
        kernel, input_bias = kernel * array(factor), input_bias + array(offset)

    def order(values):
        parts = np.split(values, len(gates), axis=-1)
        return np.concatenate([parts[i] for i in gates], axis=-1)

    return (
        order(kernel).T,
        order(recurrent).T,
        np.concatenate([order(input_bias), order(bias)]),
    )


def _merge(graph, layer, y, num_directions):
    """From `(frames, directions, batch, units)`."""
    if num_directions == 1:
        return graph("Squeeze", y, axes(1))
    if getattr(layer, "merge_mode", "sum") == "sum":
        return graph("ReduceSum", y, axes(1), keepdims=0)
    y = graph("Transpose", y, perm=[0, 2, 1, 3])
    return graph("Reshape", y, axes(0, 0, layer.output.shape[-1]))


def check_8_bit(layer):
    """Refuses what ONNX Runtime has with weights of 32 bits only."""
    first, _ = _directions(layer)[0]
    if not isinstance(first, LSTM):
        refuse(
            layer,
            "ONNX Runtime has 8-bit weights for the LSTM alone; leave `int8` "
            "out",
        )
