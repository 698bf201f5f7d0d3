"""`keras-ds2 serve`: a service that listens, and a page for it."""

import argparse
import dataclasses
import math
import ssl
import sys
from pathlib import Path

from keras_ds2.cli import shared

_EPILOG = """\
examples:
  keras-ds2 serve                         then open http://127.0.0.1:8000
  keras-ds2 serve --model mine.json --decoder decoder.json --port 9000
  curl -F file=@talk.wav 'http://127.0.0.1:8000/transcribe?format=srt'

paths:
  /            a page: speak, or drop a file
  /transcribe  POST a file, get JSON, text, SRT, VTT or CTM
  /stream      WebSocket: samples in, partial and final text out
  /health, /metrics, /model

Only programs of this machine are served, unless --host says otherwise; and
browsers give pages the microphone only from this machine or by HTTPS
(--certificate and --key, or a proxy before it). There are no accounts.
Ctrl-C or SIGTERM end the service: open streams get their final text first.
"""


def add_parser(subparsers):
    """Adds the command."""
    from keras_ds2.serving.limits import Limits

    parser = subparsers.add_parser(
        "serve",
        help="transcribe files and microphones of browsers and programs",
        description="Starts a service for files and streams.",
        epilog=_EPILOG,
    )
    shared.add_model_arguments(parser)
    parser.add_argument(
        "--host",
        default="127.0.0.1",
        help="where to listen (default: 127.0.0.1, this machine only)",
    )
    parser.add_argument(
        "--port", type=int, default=8000, help="(default: 8000; 0: any)"
    )
    parser.add_argument(
        "--allow-origin",
        action="append",
        default=[],
        metavar="ORIGIN",
        help="whose pages may ask, beside its own under a bare address or "
        "localhost: https://example.com; may be repeated",
    )
    parser.add_argument(
        "--certificate", metavar="FILE", help="PEM certificates, for HTTPS"
    )
    parser.add_argument("--key", metavar="FILE", help="their private key")
    group = parser.add_argument_group("limits")
    for limit in dataclasses.fields(Limits):
        group.add_argument(
            f"--{limit.name.replace('_', '-')}",
            type=_positive(limit.type),
            default=limit.default,
            metavar="N",
            help=f"{limit.metadata['help']} (default: {limit.default:.12g})",
        )
    return parser


def run(args):
    """Runs the command."""
    _check(args)
    with shared.quiet_imports():
        create_app, Server, open_socket = _import_serving()
    from keras_ds2.serving.limits import Limits

    limits = Limits(
        **{f.name: getattr(args, f.name) for f in dataclasses.fields(Limits)}
    )
    # Before the model is loaded, which takes longer than to find out.
    with open_socket(args.host, args.port, limits.send_timeout) as listener:
        name, model = shared.load_model(args.model, args.device)
        decoder = shared.load_decoder_for(model, args.decoder)
        app = create_app(
            model,
            Path(name).stem,  # where it lies is nobody's business
            decoder,
            limits,
            args.allow_origin,
        )
        server = Server(app, limits, args.certificate, args.key)
        scheme = "https" if args.certificate else "http"
        host, port = listener.getsockname()[:2]
        host = f"[{host}]" if ":" in host else host
        print(
            f"Listening at {scheme}://{host}:{port} (Ctrl-C ends)",
            file=sys.stderr,
            flush=True,
        )
        server.run(sockets=[listener])
    return 0


def _import_serving():
    try:
        from keras_ds2.serving.app import create_app
        from keras_ds2.serving.server import Server, open_socket
    except ImportError as error:
        if (error.name or "").startswith("keras_ds2"):
            raise
        raise ImportError(
            "The service needs FastAPI and uvicorn: pip install "
            f"'keras_ds2[serve]' ({error})"
        ) from error
    return create_app, Server, open_socket


def _check(args):
    # The system would take the rest of a division by 65,536.
    if not 0 <= args.port <= 65535:
        raise ValueError(
            f"--port must be from 0 to 65535. Received: {args.port}"
        )
    if bool(args.certificate) != bool(args.key):
        raise ValueError("--certificate and --key go together. Pass both.")
    for path in filter(None, (args.certificate, args.key)):
        if not Path(path).is_file():
            raise ValueError(f"'{path}' does not exist. Check the path.")
    if args.certificate:
        _check_certificate(args.certificate, args.key)
    for origin in args.allow_origin:
        scheme, _, rest = origin.partition("://")
        if scheme not in ("http", "https") or not rest or "/" in rest:
            raise ValueError(
                "--allow-origin must be as a browser says it, "
                f"https://example.com or http://host:8080. Received: {origin}"
            )


def _check_certificate(certificate, key):
    try:
        # OpenSSL would ask the terminal for a password that it lacks.
        ssl.create_default_context().load_cert_chain(
            certificate, key, password=""
        )
    except (OSError, ValueError) as error:
        raise ValueError(
            f"'{certificate}' and '{key}' cannot be used: {error}. Pass PEM "
            "certificates and the private key of the first, without a password."
        ) from error


def _positive(kind):
    def parse(text):
        value = kind(text)
        if not value > 0 or math.isinf(value):
            raise argparse.ArgumentTypeError("must be a positive number")
        return value

    parse.__name__ = kind.__name__
    return parse
