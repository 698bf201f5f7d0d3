"""Nodes in, an ONNX model out: what is not about speech."""

import numpy as np

# Old enough for every runtime of the last years; LSTM, GRU and RNN have been
# as they are since 14.
_OPSET, _IR_VERSION = 17, 8


def import_onnx():
    """Returns the modules `onnx` and `onnxruntime.quantization`.

    Raises:
        ImportError: If they are not installed, saying how.
    """
    try:
        import onnx
        from onnxruntime import quantization
    except ImportError as error:
        raise ImportError(
            "ONNX files need the packages onnx and onnxruntime. Install them: "
            "pip install 'keras_ds2[onnx]'."
        ) from error
    return onnx, quantization


class Graph:
    """Grows by one node with every call.

    A value is a string, the name of what a node gives; arrays and numbers
    among the inputs of a node become constants of the file.
    """

    def __init__(self):
        self._onnx, _ = import_onnx()
        self._nodes, self._inputs, self._outputs = [], [], []
        self._constants: dict[tuple, tuple] = {}
        self._count = 0
        # Begins the names of nodes: the layer that they belong to.
        self.scope = ""

    def __call__(self, operation, *inputs, num_outputs=None, **attributes):
        """Adds a node, and returns its output, or a list of `num_outputs`."""
        self._count += 1
        name = f"{self.scope}/{operation}_{self._count}"
        outputs = [f"{name}:{i}" for i in range(num_outputs or 1)]
        names = [
            value if isinstance(value, str) else self._constant(value)
            for value in inputs
        ]
        self._nodes.append(
            self._onnx.helper.make_node(
                operation, names, outputs, name, **attributes
            )
        )
        return outputs[0] if num_outputs is None else outputs

    def _constant(self, value):
        value = np.asarray(value)
        key = (value.dtype.str, value.shape, value.tobytes())
        if key not in self._constants:
            name = f"{self.scope}/constant_{len(self._constants)}"
            self._constants[key] = name, value
        return self._constants[key][0]

    def input(self, name, dtype, shape):
        """Declares an input; a string in the shape is an open size."""
        self._inputs.append(self._declare(name, dtype, shape))
        return name

    def output(self, name, value, dtype, shape):
        """Declares an output, and gives a value its name."""
        self._nodes.append(
            self._onnx.helper.make_node("Identity", [value], [name], name)
        )
        self._outputs.append(self._declare(name, dtype, shape))

    def _declare(self, name, dtype, shape):
        kind = self._onnx.helper.np_dtype_to_tensor_dtype(np.dtype(dtype))
        return self._onnx.helper.make_tensor_value_info(name, kind, shape)

    def to_model(self, name, metadata):
        """Returns the `onnx.ModelProto`, checked.

        Args:
            name: String. Name of the graph.
            metadata: Dictionary of strings, to be read beside the graph.
        """
        helper = self._onnx.helper
        model = helper.make_model(
            helper.make_graph(
                self._nodes,
                name,
                self._inputs,
                self._outputs,
                [
                    self._onnx.numpy_helper.from_array(value, name)
                    for name, value in self._constants.values()
                ],
            ),
            opset_imports=[helper.make_opsetid("", _OPSET)],
            ir_version=_IR_VERSION,
            producer_name="keras_ds2",
        )
        helper.set_model_props(model, metadata)
        self._onnx.checker.check_model(model, full_check=True)
        return model
