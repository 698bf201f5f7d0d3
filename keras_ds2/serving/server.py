"""The process: a socket, uvicorn, and an end that loses no text."""

import asyncio
import contextlib
import logging
import signal
import socket
import threading
import time

import uvicorn

from keras_ds2.serving.limits import Limits


def open_socket(host: str, port: int, send_timeout: float) -> socket.socket:
    """Binds a socket to listen at.

    Args:
        host: Name or address of an interface of this machine.
        port: Integer, `0` for any that is free.
        send_timeout: Float, seconds: connections whose reader takes nothing
            for so long are dropped by the kernel, with what waits for it.

    Returns:
        The socket.

    Raises:
        ValueError: If that is impossible, as where the port is taken.

    Example:

    >>> from keras_ds2.serving.server import open_socket
    >>> with open_socket("127.0.0.1", 0, send_timeout=10.0) as listener:
    ...     listener.getsockname()[0]
    '127.0.0.1'
    """
    try:
        family, *_, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        listener = socket.create_server(address, family=family)
    except (OSError, UnicodeError) as error:
        raise ValueError(
            f"Cannot listen at {host}, port {port}: {error}. Choose another "
            "--host or --port."
        ) from error
    listener.setsockopt(
        socket.IPPROTO_TCP,
        socket.TCP_USER_TIMEOUT,
        min(max(round(1000 * send_timeout), 1), 2**31 - 1),
    )
    return listener


class Server(uvicorn.Server):
    """uvicorn, but streams are transcribed to their end before it ends.

    SIGTERM and SIGINT end it. Streams get their final text and are closed
    with 1001, files that are being transcribed are answered, new ones are
    refused; whatever takes longer than `limits.shutdown_timeout`, or lasts
    when SIGINT comes again, is cut off.

    Args:
        app: Of `create_app`.
        limits: `Limits`.
        certificate: Path of a file of PEM certificates, for HTTPS, or `None`.
        key: Path of its private key, or `None`.
    """

    def __init__(self, app, limits=None, certificate=None, key=None):
        limits = limits or Limits()
        self._shutdown_timeout = limits.shutdown_timeout
        self._batcher = app.state.batcher
        # What clients send may be nonsense; it shall not fill a disk.
        logging.getLogger("python_multipart").setLevel(logging.ERROR)
        super().__init__(
            uvicorn.Config(
                app,
                log_config=None,
                # Its errors are those of clients; our own are logged by us.
                log_level="critical",
                access_log=False,
                server_header=False,
                # Anyone can write these headers, to pass for somebody else.
                proxy_headers=False,
                ws="websockets-sansio",
                ws_max_size=limits.max_message,
                # Samples do not shrink, and each stream would take 300 kB.
                ws_per_message_deflate=False,
                # An answer would wait behind audio. There are time limits.
                ws_ping_interval=None,
                ssl_certfile=certificate,
                ssl_keyfile=key,
            )
        )

    @contextlib.contextmanager
    def capture_signals(self):
        """Ends on signals; uvicorn would raise them once more afterwards."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        loop = asyncio.get_running_loop()
        signals = (signal.SIGINT, signal.SIGTERM)
        for number in signals:
            loop.add_signal_handler(number, self.handle_exit, number, None)
        try:
            yield
        finally:
            for number in signals:
                loop.remove_signal_handler(number)

    async def shutdown(self, sockets=None):
        """Ends the streams, and then what uvicorn ends."""
        deadline = time.monotonic() + self._shutdown_timeout
        if self._batcher is not None:
            self._batcher.drain()
            while (
                self._batcher.num_open
                and time.monotonic() < deadline
                and not self.force_exit
            ):
                await asyncio.sleep(0.05)
        left = max(deadline - time.monotonic(), 0)
        self.config.timeout_graceful_shutdown = left  # for uvicorn's part
        await super().shutdown(sockets)
