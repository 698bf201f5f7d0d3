"""`keras-ds2 info`: what a model is, as its card and itself say."""

import json

from keras_ds2.cli import shared

_EPILOG = """\
Without MODEL, lists those that are shipped.

examples:
  keras-ds2 info
  keras-ds2 info en-read
  keras-ds2 info runs/100/best.keras
"""


def add_parser(subparsers):
    """Adds the command."""
    parser = subparsers.add_parser(
        "info",
        help="say what a model is, and how good",
        description="Prints what a model's card says and how it is built.",
        epilog=_EPILOG,
    )
    parser.add_argument(
        "model",
        nargs="?",
        metavar="MODEL",
        help="name of a shipped model, card (.json) or .keras file",
    )
    shared.add_device_argument(parser)
    return parser


def run(args):
    """Runs the command."""
    if args.model is None:
        _list_shipped()
        return 0
    name, model = shared.load_model(args.model, args.device)
    with shared.quiet_imports():
        from keras_ds2.pretrained import read_card

    card = {} if name.endswith(".keras") else read_card(name)
    config = model.get_config()
    _show("name", name)
    _show("model", type(model).__name__)
    _show("parameters", f"{model.count_params():,}")
    _show("frame duration", f"{model.frame_duration * 1000:g} ms")
    _show("look-ahead", _describe_look_ahead(model))
    for key, value in card.items():
        if key not in ("model", "arguments"):
            _show(key, value)
    _show("arguments", {k: v for k, v in config.items() if k != "dtype"})
    return 0


def _list_shipped():
    with shared.quiet_imports():
        from keras_ds2.pretrained import pretrained_names, read_card

    for name in pretrained_names():
        default = " (default)" if name == shared.DEFAULT_MODEL else ""
        description = read_card(name).get("description", "")
        print(f"{name}{default}: {description}")


def _show(key, value, depth=0):
    indent = "  " * depth
    if isinstance(value, dict):
        print(f"{indent}{key}:")
        for name, item in value.items():
            _show(name, item, depth + 1)
        return
    if not isinstance(value, str) or depth and value != value.strip():
        value = json.dumps(value, ensure_ascii=False)
    print(f"{indent}{key}: {value}")


def _describe_look_ahead(model):
    seconds = _look_ahead(model)
    if seconds is None:
        return "the whole recording (bidirectional): cannot stream"
    return f"{seconds * 1000:.0f} ms"


def _look_ahead(model):
    """As `StreamingStep.lookahead`; `None` for a bidirectional model."""
    from keras_ds2.streaming.step import StreamingStep

    try:
        step = StreamingStep(model)
    except ValueError:  # has a layer that runs backwards
        return None
    return step.lookahead
