"""A service in a thread of this process, and clients for it."""

import contextlib
import json
import threading
import time

import httpx
import numpy as np
import websockets.exceptions
import websockets.sync.client

from keras_ds2.serving.app import create_app
from keras_ds2.serving.limits import Limits
from keras_ds2.serving.server import Server, open_socket

PIECE = 3200  # samples that are sent at a time


class Service:
    """A service that runs; see `serve`."""

    def __init__(self, app, server, listener, verify):
        self.app = app
        self.server = server
        self.address = f"127.0.0.1:{listener.getsockname()[1]}"
        scheme = "https" if verify else "http"
        self.http = httpx.Client(
            base_url=f"{scheme}://{self.address}",
            timeout=120,
            trust_env=False,
            verify=verify or True,
        )

    def connect(self, **options):
        return connect(self.address, **options)

    def metric(self, name):
        """The value of a line of /metrics."""
        lines = self.http.get("/metrics").text.splitlines()
        [value] = [line.split()[-1] for line in lines if line.startswith(name)]
        return float(value)


@contextlib.contextmanager
def serve(
    model,
    decoder=None,
    allowed_origins=(),
    certificate=None,
    key=None,
    verify=None,
    **limits,
):
    """Runs a service of its own limits; `verify` trusts its certificate."""
    limits = Limits(**limits)
    app = create_app(model, "tiny", decoder, limits, allowed_origins)
    with open_socket("127.0.0.1", 0, limits.send_timeout) as listener:
        server = Server(app, limits, certificate, key)
        thread = threading.Thread(
            target=server.run, kwargs={"sockets": [listener]}
        )
        thread.start()
        while not server.started:
            assert thread.is_alive()
            time.sleep(0.01)
        service = Service(app, server, listener, verify)
        try:
            yield service
        finally:
            service.http.close()
            server.should_exit = True
            thread.join(60)
            assert not thread.is_alive()


def connect(address, path="/stream", **options):
    return websockets.sync.client.connect(
        f"ws://{address}{path}",
        proxy=None,
        ping_interval=None,
        compression=None,
        **options,
    )


def to_pcm(samples):
    """Floats in [-1, 1] as 16-bit integers."""
    return np.round(32768 * samples).clip(-32768, 32767).astype("<i2").tobytes()


def from_pcm(pcm):
    """What arrives of them."""
    return np.frombuffer(pcm, "<i2").astype("float32") / 32768


def send_audio(socket, samples):
    pcm = to_pcm(samples)
    for begin in range(0, len(pcm), 2 * PIECE):
        socket.send(pcm[begin : begin + 2 * PIECE])


def stream(socket, samples, **start):
    """All messages of a whole stream; what is certain is checked to stay."""
    if start:
        socket.send(json.dumps({"type": "start", **start}))
    send_audio(socket, samples)
    socket.send('{"type": "end"}')
    return check(read(socket))


def read(socket):
    """All messages until the socket is closed, for whatever reason."""
    messages = []
    with contextlib.suppress(websockets.exceptions.ConnectionClosed):
        for message in socket:
            messages.append(json.loads(message))
    return messages


def check(messages):
    assert messages[0]["type"] == "ready"
    stable = {}
    for message in messages[1:]:
        number = message["utterance"]
        assert message["text"].startswith(stable.get(number, ""))
        if message["type"] == "partial":
            assert message["text"].startswith(message["stable"])
            stable[number] = message["stable"]
    return messages


def finals(messages):
    return [message for message in messages if message["type"] == "final"]
