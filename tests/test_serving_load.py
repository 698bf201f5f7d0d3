"""Oracles: `transcribe`, a browser, and the kernel's count of memory.

The service is a process of its own, as people start it.
"""

import asyncio
import contextlib
import io
import json
import os
import pathlib
import random
import resource
import shutil
import signal
import socket
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor

import httpx
import keras
import numpy as np
import pytest
import soundfile
import soxr
import websockets
import webvtt
from browser import Browser
from serving import check, connect, finals, from_pcm, read, send_audio, to_pcm

import keras_ds2
from keras_ds2.cli.shared import load_model

pytestmark = pytest.mark.slow

ROOT = pathlib.Path(__file__).parent.parent
TINY = ROOT / "tests" / "data" / "tiny.keras"
CLIP = (
    ROOT
    / "tests/data/LibriSpeech/train-clips/2412/153948/2412-153948-0005.opus"
)


class Process:
    """`keras-ds2 serve`, with flags."""

    def __init__(self, model, *flags):
        code = "import sys; sys.argv[0] = 'keras-ds2'; "
        code += "from keras_ds2.cli.main import main; "
        code += "sys.exit(main(['serve', *sys.argv[1:]]))"
        self.process = subprocess.Popen(
            [sys.executable, "-c", code, "--model", model, "--port=0", *flags],
            cwd=ROOT,
            stderr=subprocess.PIPE,
            env=os.environ | {"TF_CPP_MIN_LOG_LEVEL": "3"},
            text=True,
        )
        for line in self.process.stderr:
            if line.startswith("Listening at http://"):
                break
        self.address = line.split()[2].removeprefix("http://")

    @property
    def megabytes(self):
        """Resident memory."""
        file = pathlib.Path(f"/proc/{self.process.pid}/statm")
        pages = int(file.read_text().split()[1])
        return pages * resource.getpagesize() / 2**20

    def metric(self, name):
        text = httpx.get(f"http://{self.address}/metrics").text
        lines = text.splitlines()
        [value] = [x.split()[-1] for x in lines if x.startswith(name + " ")]
        return float(value)

    def wait_for_peace(self):
        deadline = time.monotonic() + 60
        while self.metric("keras_ds2_streams_open") or self.metric(
            "keras_ds2_files_open"
        ):
            assert time.monotonic() < deadline
            time.sleep(0.2)


@contextlib.contextmanager
def serve(*flags, model=TINY):
    service = Process(model, *flags)
    try:
        yield service
        service.process.send_signal(signal.SIGTERM)
        assert service.process.wait(60) == 0
        errors = service.process.stderr.read()
        assert not errors, errors
    finally:
        service.process.kill()
        service.process.wait()
        service.process.stderr.close()


@pytest.fixture(scope="module")
def model():
    return keras.models.load_model(TINY)


# === Many clients ===


async def speak(address, pcm, begin_at):
    """Speaks as fast as a person; returns messages and seconds of the end."""
    url = f"ws://{address}/stream"
    options = {"proxy": None, "ping_interval": None, "compression": None}
    async with websockets.connect(url, **options) as client:

        async def listen():
            return [json.loads(message) async for message in client]

        listening = asyncio.create_task(listen())
        await asyncio.sleep(begin_at)
        began = time.monotonic()
        for number, begin in enumerate(range(0, len(pcm), 3200), start=1):
            await client.send(pcm[begin : begin + 3200])
            pause = began + 0.1 * number - time.monotonic()
            await asyncio.sleep(max(pause, 0))
        ended = time.monotonic()
        await client.send('{"type": "end"}')
        return check(await listening), time.monotonic() - ended


@pytest.mark.parametrize(
    "name", [str(TINY), "en-read"], ids=["tiny", "en-read"]
)
def test_fifty_clients_for_a_minute(name, train_clips, dev_clips):
    _, model = load_model(name, "cpu")
    clips = [*train_clips, *dev_clips]
    recordings = []
    for seed in range(5):
        order = np.random.default_rng(seed).permutation(3 * len(clips))
        sound = np.concatenate([clips[i % len(clips)] for i in order])
        recordings.append(to_pcm(sound[: 60 * 16000]))
    texts = [model.transcribe([from_pcm(pcm)])[0] for pcm in recordings]
    assert all(len(text) > 300 for text in texts)

    async def run():
        return await asyncio.gather(
            *[
                speak(service.address, recordings[i % 5], 0.05 * i)
                for i in range(50)
            ]
        )

    with serve("--max-requests=1000", model=name) as service:
        before = service.megabytes
        results = asyncio.run(run())
        grown = service.megabytes - before
        steps = service.metric("keras_ds2_step_seconds_count")
        chunks = service.metric("keras_ds2_step_streams_sum")
        busy = service.metric("keras_ds2_step_seconds_sum")
    for i, (messages, _) in enumerate(results):
        [final] = finals(messages)
        assert final["end"] == 60.0
        assert final["text"] == texts[i % 5]
    seconds = sorted(seconds for _, seconds in results)
    print(
        f"{chunks / steps:.1f} streams a step, {busy:.1f} s in steps, final "
        f"text after {seconds[25]:.2f} s (median), {seconds[-1]:.2f} s (most), "
        f"{grown:.0f} MB more"
    )
    assert grown < 100
    assert seconds[-1] < 5


# === Clients that do not behave ===


def mutate(generator, content):
    content = bytearray(content)
    for _ in range(generator.randint(1, 8)):
        place = generator.randrange(len(content) + 1)
        kind = generator.randrange(3)
        if kind == 0:
            content[place : place + 1] = generator.randbytes(1)
        elif kind == 1:
            del content[place : place + generator.randint(1, 50)]
        else:
            content[place:place] = generator.randbytes(generator.randint(1, 9))
    return bytes(content)


def ask(address, request, timeout=60):
    """The status of a raw request; `None` if there was no answer in time."""
    host, port = address.split(":")
    with socket.create_connection((host, int(port)), timeout) as raw:
        with contextlib.suppress(ConnectionError, TimeoutError):
            raw.sendall(request)
            answer = raw.recv(65536)
            return int(answer.split()[1]) if answer else None


def test_a_thousand_mutated_requests(model):
    generator = random.Random(0)
    file = io.BytesIO()
    sound = keras_ds2.load_audio(CLIP)[:8000]
    soundfile.write(file, sound, 16000, format="FLAC")
    clip = file.getvalue()
    part = b'Content-Disposition: form-data; name="file"; filename="../../a"'
    form = "multipart/form-data; boundary=b"
    words = b'{"words": [{"word": "a", "start": 1, "end": 2}]}'

    def head(body, path="/transcribe?format=srt", kind=form):
        return (
            f"POST {path} HTTP/1.1\r\nHost: 127.0.0.1\r\n"
            f"Content-Type: {kind}\r\nContent-Length: {len(body)}\r\n"
            "Connection: close\r\n\r\n"
        ).encode()

    def with_file(content):
        return b"--b\r\n" + part + b"\r\n\r\n" + content + b"\r\n--b--\r\n"

    def change(number):
        body = with_file(clip)
        if number % 4 == 0:
            body = mutate(generator, body)
        elif number % 4 == 1:
            return mutate(generator, head(body)) + body
        elif number % 4 == 2:
            body = with_file(mutate(generator, clip))
        else:
            body = mutate(generator, words)
            return (
                head(body, "/subtitles?format=vtt", "application/json") + body
            )
        return head(body) + body

    files = set(os.listdir("/tmp"))
    with serve(
        "--max-requests=100000", "--max-files=16", "--upload-timeout=2"
    ) as service:
        body = with_file(clip)
        assert ask(service.address, head(body) + body) == 200
        requests = [change(number) for number in range(1000)]

        def ask_briefly(request):
            # What is only the beginning of a request waits for the rest.
            return ask(service.address, request, timeout=5)

        with ThreadPoolExecutor(16) as pool:
            statuses = [*pool.map(ask_briefly, requests[:200])]
            before = service.megabytes
            statuses += pool.map(ask_briefly, requests[200:])
        service.wait_for_peace()
        print({code: statuses.count(code) for code in set(statuses)})
        assert service.megabytes - before < 50
        # 5xx would be ours; h11 answers what is no HTTP with 400.
        assert set(statuses) <= {
            None, 200, 400, 403, 404, 405, 408, 413, 415, 422, 426,
        }  # fmt: skip
        assert statuses.count(None) < 200
        assert ask(service.address, head(body) + body) == 200
    left = {name for name in os.listdir("/tmp") if name.startswith("keras_ds2")}
    assert left <= files


def test_streams_that_break_off_or_make_no_sense(model):
    generator = random.Random(1)
    pcm = to_pcm(keras_ds2.load_audio(CLIP))
    start = '{"type": "start", "sampling_rate": 8000}'
    with serve("--max-requests=100000", "--max-streams=8") as service:
        for number in range(300):
            with (
                contextlib.suppress(
                    websockets.exceptions.ConnectionClosed, ConnectionError
                ),
                connect(service.address) as client,
            ):
                for _ in range(generator.randint(0, 4)):
                    kind = generator.randrange(4)
                    if kind == 0:
                        client.send(mutate(generator, start.encode()))
                    elif kind == 1:
                        text = mutate(generator, start.encode())
                        client.send(text.decode("latin-1"))
                    else:
                        size = generator.randrange(len(pcm))
                        client.send(pcm[:size])
                if number % 2:
                    client.socket.shutdown(socket.SHUT_RDWR)
            if number == 60:
                before = service.megabytes
        service.wait_for_peace()
        assert service.megabytes - before < 50
        with connect(service.address) as client:
            send_audio(client, from_pcm(pcm))
            client.send('{"type": "end"}')
            [final] = finals(read(client))
        assert final["text"] == model.transcribe([from_pcm(pcm)])[0]


def raw_stream(address):
    """A WebSocket of which nothing is read, by hand; the least buffer."""
    host, port = address.split(":")
    raw = socket.socket()
    raw.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    raw.connect((host, int(port)))
    raw.sendall(
        b"GET /stream HTTP/1.1\r\nHost: 127.0.0.1\r\nUpgrade: websocket\r\n"
        b"Connection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
        b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
    )
    return raw


def frame(payload, opcode=2):
    """A frame with a mask of zeros."""
    head = bytes([0x80 | opcode, 0x80 | 127])
    return head + len(payload).to_bytes(8) + bytes(4) + payload


def test_slow_readers_and_blocked_writers():
    """They cost a bounded amount, for a bounded time; others go on."""
    pcm = to_pcm(keras_ds2.load_audio(CLIP))
    begin = frame(b'{"type": "start", "endpoint_silence": 0.1}', opcode=1)
    pause = bytes(16000)
    with serve("--send-timeout=2", "--max-requests=1000") as service:
        service.wait_for_peace()
        before = service.megabytes
        raws = [raw_stream(service.address) for _ in range(20)]
        sent = 0
        for raw in raws:
            raw.setblocking(False)
            with contextlib.suppress(OSError):
                raw.sendall(begin)
        until = time.monotonic() + 30
        content = 20 * frame(pcm + pause)
        while time.monotonic() < until:
            for raw in raws:
                # As much as the service takes, and never a byte read.
                with contextlib.suppress(OSError):
                    sent += raw.send(content)
            time.sleep(0.02)
        grown = service.megabytes - before
        print(f"{sent / 2**20:.0f} MB sent, {grown:.0f} MB more")
        assert grown < 100
        for raw in raws:
            raw.close()
        service.wait_for_peace()


# === The end ===


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_signals_end_streams_with_their_text(model, number):
    clip = from_pcm(to_pcm(keras_ds2.load_audio(CLIP)))
    with serve() as service:
        with connect(service.address) as client:
            send_audio(client, clip)
            # Until all is surely there.
            for message in client:
                if len(json.loads(message).get("text", "")) > 40:
                    break
            time.sleep(2)
            service.process.send_signal(number)
            messages = read(client)
        assert client.close_code == 1001
        [final] = finals(messages)
        assert [final["text"]] == model.transcribe([clip])
        assert service.process.wait(30) == 0


# === In a browser ===


@pytest.mark.skipif(
    not shutil.which("chromium"), reason="chromium is not installed"
)
def test_page_in_a_browser(model, tmp_path):
    from matplotlib import image

    rate = 44100  # Chromium's own, where there is no sound card
    clip = soxr.resample(keras_ds2.load_audio(CLIP), 16000, rate)
    clip = np.pad(clip, rate)
    microphone = tmp_path / "microphone.wav"
    soundfile.write(microphone, clip, rate, subtype="PCM_16")
    with (
        serve() as service,
        Browser(tmp_path / "profile", microphone) as browser,
    ):
        url = f"http://{service.address}/"
        browser.show(1100, 1000, "light")
        browser.open(url)
        browser.wait_for("!document.getElementById('listen').disabled")
        browser.evaluate(
            "window.sent = []; window.send = WebSocket.prototype.send;"
            "WebSocket.prototype.send = function (data) {"
            "  if (typeof data !== 'string')"
            "    window.sent.push(...new Int16Array(data));"
            "  return window.send.call(this, data);"
            "}"
        )
        browser.evaluate("document.getElementById('pauses').click()")
        # By keyboard.
        focus = []
        for _ in range(3):
            browser.press("Tab")
            focus.append(browser.evaluate("document.activeElement.id"))
        assert focus == ["listen", "pauses", "file"]
        browser.press("Tab", shift=True)
        browser.press("Tab", shift=True)
        browser.press("Enter")
        browser.wait_for("document.getElementById('guess').textContent")
        browser.screenshot(tmp_path / "listening.png")
        browser.wait_for(f"window.sent.length > {len(clip)}")
        browser.press("Enter")
        browser.wait_for(
            "document.getElementById('status').textContent === 'Done.'"
        )
        sent = np.array(browser.evaluate("window.sent"), "<i2")
        heard = tmp_path / "heard.wav"
        soundfile.write(heard, sent, rate)
        # A busy Chromium leaves out pieces of its microphone. What it hands
        # over is the recording, and the service got all of it...
        played, _ = soundfile.read(microphone, dtype="int16")
        whole = played.tobytes()
        pieces = sent[: len(sent) // 64 * 64].reshape(-1, 64)
        loud = [p.tobytes() for p in pieces if np.abs(p).max() > 300]
        assert sum(piece in whole for piece in loud) > 0.8 * len(loud) > 400
        seconds = 'keras_ds2_audio_seconds_total{source="stream"}'
        assert abs(service.metric(seconds) - len(sent) / rate) < 0.01
        # ... and the text is that of what it got.
        [hypothesis] = model.recognize([heard])
        text = browser.evaluate("document.getElementById('said').innerText")
        assert text.strip() == hypothesis.text
        assert len(text) > 20
        times = browser.evaluate("document.getElementById('words').innerText")
        for word in hypothesis.words:
            assert f"{word.start:.2f}–{word.end:.2f}" in times

        # What is downloaded is what the command line writes.
        browser.call(
            "Browser.setDownloadBehavior",
            behavior="allow",
            downloadPath=str(tmp_path),
        )
        for kind in ("txt", "srt", "vtt"):
            browser.evaluate(
                f"document.querySelector('[data-format={kind}]').click()"
            )
            file = tmp_path / f"microphone.{kind}"
            deadline = time.monotonic() + 20
            while not file.exists() or not file.stat().st_size:
                assert time.monotonic() < deadline
                time.sleep(0.1)
            if kind == "txt":
                assert file.read_text() == hypothesis.text + "\n"
            elif kind == "vtt":
                captions = webvtt.read(file)
                words = " ".join(" ".join(c.text.split()) for c in captions)
                assert words == hypothesis.text

        # A file.
        [expected] = model.transcribe([CLIP])
        browser.choose_file("#file", CLIP)
        browser.wait_for(
            "document.getElementById('status').textContent.endsWith('done.')"
        )
        text = browser.evaluate("document.getElementById('said').innerText")
        assert text == expected
        no_sound = tmp_path / "no.wav"
        no_sound.write_bytes(b"no sound")
        screens = {}
        for width, scheme in ((1100, "light"), (390, "dark")):
            browser.show(width, 1000, scheme)
            path = tmp_path / f"{width}.png"
            browser.screenshot(path)
            screens[width] = image.imread(path)[..., :3]
            wide = "document.documentElement.scrollWidth"
            assert browser.evaluate(wide) == width  # nothing sticks out
        assert screens[1100][2, 2].mean() > 0.9
        assert screens[390][2, 2].mean() < 0.2
        for pixels in screens.values():
            differs = np.abs(pixels - pixels[2, 2]).max(axis=-1) > 0.2
            assert 0.01 < differs.mean() < 0.6
        assert browser.complaints == []
        browser.choose_file("#file", no_sound)
        message = browser.wait_for(
            "document.getElementById('error').textContent"
        )
        assert "cannot be read as audio" in message
        assert all(
            request.startswith((url, "blob:", "data:"))
            for request in browser.requests
        )
