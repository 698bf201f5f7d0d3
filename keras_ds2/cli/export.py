"""`keras-ds2 export`: a model in, a file for other programs out."""

from pathlib import Path

from keras_ds2.cli import shared

_EPILOG = """\
ONNX needs the packages onnx and onnxruntime: pip install 'keras_ds2[onnx]'.
What the graph takes and gives is in docs/export.md.

examples:
  keras-ds2 export an4
  keras-ds2 export --int8 --output an4-8-bit.onnx an4
  keras-ds2 export --format savedmodel --output an4-tensorflow an4
  keras-ds2 export --streaming --chunk-duration 0.2 --output live.onnx mine.json
"""


def add_parser(subparsers):
    """Adds the command."""
    parser = subparsers.add_parser(
        "export",
        help="write a model for programs without Keras",
        description="Writes a model as ONNX or as a SavedModel, samples in "
        "and logits out.",
        epilog=_EPILOG,
    )
    parser.add_argument(
        "model",
        metavar="MODEL",
        help="name of a shipped model, card (.json) or .keras file",
    )
    parser.add_argument(
        "--format",
        choices=("onnx", "savedmodel"),
        default="onnx",
        help="default: onnx",
    )
    parser.add_argument(
        "--output",
        metavar="PATH",
        help="file, or folder of a SavedModel (default: the model's name with "
        ".onnx or -savedmodel, in the current folder)",
    )
    parser.add_argument(
        "--streaming",
        action="store_true",
        help="one chunk and a state in, the next state out, instead of whole "
        "utterances; for unidirectional models",
    )
    parser.add_argument(
        "--chunk-duration",
        type=float,
        metavar="S",
        help="seconds that a step takes (default: the frames that fit into "
        "0.1)",
    )
    parser.add_argument(
        "--int8",
        action="store_true",
        help="matrices of 8 bits: a quarter of the size; ONNX and LSTMs only",
    )
    return parser


def run(args):
    """Runs the command."""
    if args.chunk_duration is not None and not args.streaming:
        raise ValueError("--chunk-duration is for --streaming. Pass both.")
    suffix = ".onnx" if args.format == "onnx" else "-savedmodel"
    output = args.output or Path(args.model).stem + suffix
    with shared.quiet_imports():
        from keras_ds2.export.export_model import export_model

    # On a GPU TensorFlow would write operations that need one.
    _, model = shared.load_model(args.model, "cpu")
    with shared.quiet_imports():
        export_model(
            model,
            output,
            args.format,
            args.streaming,
            args.chunk_duration,
            args.int8,
        )
    print(f"{output}: {_size(Path(output)) / 1e6:.1f} MB")
    return 0


def _size(path):
    files = path.rglob("*") if path.is_dir() else [path]
    return sum(file.stat().st_size for file in files if file.is_file())
