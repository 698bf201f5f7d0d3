"""Chromium without a screen, driven over its DevTools protocol."""

import base64
import itertools
import json
import pathlib
import subprocess
import time
import urllib.request

import websockets.sync.client

CHROMIUM = [
    "chromium",
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
# A page that may be spoken to.
LISTENING = [
    "--remote-debugging-port=0",
    "--autoplay-policy=no-user-gesture-required",
    "--use-fake-ui-for-media-stream",
    "--use-fake-device-for-media-stream",
]


class Browser:
    """One page of a browser that has a file as its microphone.

    Args:
        folder: Path of a folder for its profile.
        sound: Path of a WAV file, played once.
    """

    def __init__(self, folder, sound):
        self._process = subprocess.Popen(
            [
                *CHROMIUM,
                *LISTENING,
                f"--user-data-dir={folder}",
                f"--use-file-for-fake-audio-capture={sound}%noloop",
                "about:blank",
            ],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        port_file = pathlib.Path(folder, "DevToolsActivePort")
        deadline = time.monotonic() + 60
        while not port_file.exists() or not port_file.read_text():
            assert time.monotonic() < deadline
            time.sleep(0.1)
        port = port_file.read_text().split()[0]
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/json") as reply:
            [target] = [t for t in json.load(reply) if t["type"] == "page"]
        self._connection = websockets.sync.client.connect(
            target["webSocketDebuggerUrl"], max_size=None, proxy=None
        )
        self._socket = self._connection.__enter__()
        self._ids = itertools.count()
        self.complaints = []  # of the page: errors, what its policy forbade
        self.requests = []
        for domain in ("Page", "Runtime", "Log", "Network", "DOM"):
            self.call(f"{domain}.enable")

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self._connection.__exit__(None, None, None)
        self._process.terminate()
        self._process.wait(30)

    def call(self, method, **parameters):
        """Returns the result of a command; events are noted on the way."""
        number = next(self._ids)
        self._socket.send(
            json.dumps({"id": number, "method": method, "params": parameters})
        )
        while True:
            message = json.loads(self._socket.recv(timeout=60))
            if message.get("id") == number:
                assert "error" not in message, message
                return message["result"]
            self._note(message.get("method"), message.get("params"))

    def _note(self, event, details):
        if event == "Runtime.exceptionThrown":
            self.complaints.append(details["exceptionDetails"])
        elif event == "Log.entryAdded" and details["entry"]["level"] in (
            "error",
            "warning",
        ):
            self.complaints.append(details["entry"])
        elif event == "Network.requestWillBeSent":
            self.requests.append(details["request"]["url"])

    def evaluate(self, expression):
        """Returns the value of a JavaScript expression."""
        result = self.call(
            "Runtime.evaluate",
            expression=expression,
            returnByValue=True,
            awaitPromise=True,
            userGesture=True,
        )
        assert "exceptionDetails" not in result, result
        return result["result"].get("value")

    def wait_for(self, expression, seconds=60):
        """Returns the value as soon as it is true."""
        deadline = time.monotonic() + seconds
        while not (value := self.evaluate(expression)):
            assert time.monotonic() < deadline, expression
            time.sleep(0.1)
        return value

    def open(self, url):
        self.call("Page.navigate", url=url)
        self.wait_for("document.readyState === 'complete'")

    def press(self, key, shift=False):
        """Presses a key and lets it go."""
        codes = {"Tab": 9, "Enter": 13}
        for kind in ("keyDown", "keyUp"):
            self.call(
                "Input.dispatchKeyEvent",
                type=kind,
                key=key,
                code=key,
                windowsVirtualKeyCode=codes[key],
                text="\r" if key == "Enter" and kind == "keyDown" else "",
                modifiers=8 * shift,
            )

    def choose_file(self, selector, path):
        root = self.call("DOM.getDocument")["root"]["nodeId"]
        node = self.call("DOM.querySelector", nodeId=root, selector=selector)
        self.call(
            "DOM.setFileInputFiles", nodeId=node["nodeId"], files=[str(path)]
        )

    def show(self, width, height, scheme):
        """Sets the size of the window, and light or dark."""
        self.call(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=height,
            deviceScaleFactor=1,
            mobile=width < 600,
        )
        self.call(
            "Emulation.setEmulatedMedia",
            features=[{"name": "prefers-color-scheme", "value": scheme}],
        )

    def screenshot(self, path):
        data = self.call("Page.captureScreenshot", captureBeyondViewport=True)[
            "data"
        ]
        pathlib.Path(path).write_bytes(base64.b64decode(data))
