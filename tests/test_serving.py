"""Oracles: `transcribe` and the command line, RFC 6455's and HTTP's numbers,
and clients that other people wrote (httpx, websockets)."""

import asyncio
import contextlib
import html
import html.parser
import importlib.resources
import io
import json
import pathlib
import re
import shutil
import socket
import ssl
import subprocess
import sys
import threading
import time

import keras
import numpy as np
import prometheus_client.parser
import pytest
import soundfile
import soxr
import websockets
import websockets.exceptions
import webvtt
from serving import (
    connect,
    finals,
    from_pcm,
    read,
    send_audio,
    serve,
    stream,
    to_pcm,
)

import keras_ds2
from keras_ds2.cli.main import main
from keras_ds2.decoding.greedy import GreedyStream
from keras_ds2.serving import app as serving_app
from keras_ds2.serving.batch import StreamBatcher
from keras_ds2.serving.guard import RateLimiter
from keras_ds2.serving.limits import Limits
from keras_ds2.serving.metrics import Metrics
from keras_ds2.serving.protocol import talk
from keras_ds2.serving.server import open_socket

DATA = pathlib.Path(__file__).parent / "data"
TINY = str(DATA / "tiny.keras")
CLIP = DATA / "LibriSpeech/train-clips/2412/153948/2412-153948-0005.opus"
TEXT = "i was delighted with the country and the manner of life"


@pytest.fixture(scope="module")
def model():
    return keras.models.load_model(TINY)


@pytest.fixture(scope="module", autouse=True)
def steps():
    """All services here share what is traced."""
    steps = {}

    def make(model):
        if model not in steps:
            steps[model] = keras_ds2.StreamingStep(model)
        return steps[model]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(serving_app, "StreamingStep", make)
        yield steps


@pytest.fixture(scope="module")
def clip():
    return from_pcm(to_pcm(keras_ds2.load_audio(CLIP)))


@pytest.fixture(scope="module")
def service(model):
    with serve(
        model,
        max_streams=3,
        max_requests=10_000,
        max_upload=350_000,
        max_message=50_000,
        max_file_duration=30.0,
        max_stream_duration=15.0,
    ) as service:
        yield service


def post(service, content, name="talk.wav", path="/transcribe", **options):
    return service.http.post(path, files={"file": (name, content)}, **options)


def ask(service, request):
    """The answer to a raw request, until the service closes or says it all."""
    host, port = service.address.split(":")
    with socket.create_connection((host, int(port)), timeout=30) as raw:
        raw.sendall(request)
        answer = b""
        while b"}" not in answer and (content := raw.recv(65536)):
            answer += content
        return answer


def wav(samples, rate=16000, **options):
    file = io.BytesIO()
    soundfile.write(file, samples, rate, format="WAV", **options)
    return file.getvalue()


# === Files ===


@pytest.mark.parametrize("name", ["json", "srt"])
def test_file_is_transcribed_as_by_the_command(
    service, capsys, monkeypatch, model, name
):
    monkeypatch.setattr(keras_ds2.training.device, "use_device", str)
    monkeypatch.setattr(keras.models, "load_model", lambda *_, **__: model)
    options = ["--model", TINY, "--format", name]
    assert main(["transcribe", str(CLIP), *options]) == 0
    expected = capsys.readouterr().out
    answer = post(
        service, CLIP.read_bytes(), CLIP.name, f"/transcribe?format={name}"
    )
    assert answer.status_code == 200
    if name == "json":
        changed = {"file": CLIP.name, "model": "tiny"}
        assert answer.json() == json.loads(expected) | changed
        assert answer.json()["text"] == TEXT
    else:
        assert answer.text == expected
        assert TEXT.split()[0] in answer.text
    kinds = {"json": "application/json", "srt": "application/x-subrip"}
    assert answer.headers["content-type"].startswith(kinds[name])


def test_files_that_cannot_be_used(service, clip):
    def status(*arguments, **options):
        answer = post(service, *arguments, **options)
        detail = answer.json()["detail"]
        assert "/" not in str(detail).replace("multipart/form-data", "")
        return answer.status_code, str(detail)

    assert status(b"no sound" * 99)[0] == 415
    assert status(b"")[0] == 415
    assert status(wav(clip)[:30])[0] == 415
    code, detail = status(wav(np.zeros(100)))
    assert (code, "less than" in detail) == (422, True)
    assert status(wav(np.zeros(0)))[0] == 422
    nans = wav(np.full(9999, np.nan, "float32"), subtype="FLOAT")
    assert status(nans)[0] == 422
    code, detail = status(wav(np.zeros(31 * 4000), 4000))
    assert (code, "31.0 s" in detail) == (413, True)
    assert post(service, wav(np.zeros(200_000))).status_code == 413
    assert status(wav(clip), path="/transcribe?format=doc")[0] == 422
    http = service.http
    assert http.post("/transcribe", content=wav(clip)).status_code == 415
    for body in ({"data": {"file": "x"}}, {"files": {"sound": wav(clip)}}):
        body.setdefault("files", {"other": ("a.txt", b"")})
        assert http.post("/transcribe", **body).status_code in (400, 422)
    headers = {"content-type": "multipart/form-data"}
    answer = http.post("/transcribe", content=b"x", headers=headers)
    assert answer.status_code == 400
    assert http.get("/transcribe").status_code == 405


def test_what_is_too_large_is_not_read(service):
    kinds = {
        "/transcribe": "multipart/form-data; boundary=b",
        "/subtitles?format=srt": "application/json",
    }
    part = b'--b\r\nContent-Disposition: form-data; name="file"; filename="a"'
    content = part + b"\r\n\r\n" + bytes(400_000)
    for path, kind in kinds.items():
        for body in (content, iter([content])):
            answer = service.http.post(
                path, content=body, headers={"Content-Type": kind}
            )
            assert answer.status_code == 413
            assert "350000 bytes" in answer.json()["detail"]
    # Nor is a client told to go on that asks before it sends.
    answer = ask(
        service,
        b"POST /transcribe HTTP/1.1\r\nHost: localhost\r\n"
        b"Content-Type: multipart/form-data; boundary=b\r\n"
        b"Expect: 100-continue\r\nContent-Length: 400000\r\n\r\n",
    )
    assert answer.startswith(b"HTTP/1.1 413 ")


def test_what_nobody_knows_is_not_passed_over(service, clip):
    file = {"file": ("talk.wav", wav(clip))}
    for path in (
        "/transcribe?fromat=srt",
        "/transcribe?format=srt&language=en",
    ):
        answer = service.http.post(path, files=file)
        assert answer.status_code == 422
        assert re.search("fromat|language", answer.json()["detail"])
    answer = service.http.post(
        "/transcribe", files=file, data={"format": "srt"}
    )
    assert answer.status_code == 422
    assert "'format'" in answer.json()["detail"]
    answer = service.http.post("/subtitles?format=srt&x=1", json={"words": []})
    assert answer.status_code == 422


@pytest.mark.parametrize(
    "charset, code, name",
    [
        ("undefined", 400, None),
        ("raw_unicode_escape", 200, "a?b\xff.wav"),
        ("utf-8", 200, "a\\ud800b\xff.wav"),
    ],
)
def test_names_of_files_in_any_encoding(service, clip, charset, code, name):
    body = b'--b\r\nContent-Disposition: form-data; name="file"; '
    body += b'filename="a\\ud800b\xff.wav"\r\n\r\n' + wav(clip)
    kind = f"multipart/form-data; boundary=b; charset={charset}"
    answer = service.http.post(
        "/transcribe",
        content=body + b"\r\n--b--\r\n",
        headers={"Content-Type": kind},
    )
    assert answer.status_code == code
    assert answer.json().get("file") == name


def test_what_comes_too_slowly_is_given_up(model):
    with serve(model, upload_timeout=0.2) as service:
        for path, kind in (
            ("/transcribe", "multipart/form-data; boundary=b"),
            ("/subtitles?format=srt", "application/json"),
        ):
            answer = ask(
                service,
                f"POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: "
                f"{kind}\r\nContent-Length: 300\r\n\r\n--b".encode(),
            )
            assert answer.startswith(b"HTTP/1.1 408 ")
            assert b'"The request did not come within 0.2 s."' in answer
        assert service.metric("keras_ds2_files_open") == 0


def test_failures_are_answered_and_counted(service, clip, monkeypatch):
    def fail(*_):
        raise RuntimeError("secret")

    monkeypatch.setattr("keras_ds2.serving.files.transcribe_file", fail)
    answer = post(service, wav(clip))
    assert answer.status_code == 500
    assert answer.json() == {"detail": "The service failed."}
    assert answer.headers["x-content-type-options"] == "nosniff"
    name = 'keras_ds2_requests_total{path="/transcribe",status="500"}'
    assert service.metric(name) == 1


def test_more_files_than_allowed_are_sent_away(model, clip, monkeypatch):
    may_go_on = threading.Event()
    function = "keras_ds2.serving.files.transcribe_file"
    waits = lambda *_: may_go_on.wait(60) and []  # noqa: E731
    monkeypatch.setattr(function, waits)
    with serve(model, max_files=1, max_requests=3) as service:
        answers = []
        thread = threading.Thread(
            target=lambda: answers.append(post(service, wav(clip)))
        )
        thread.start()
        while not service.metric("keras_ds2_files_open"):
            time.sleep(0.01)
        answer = post(service, wav(clip))
        assert answer.status_code == 503
        assert int(answer.headers["retry-after"]) > 0
        assert service.http.get("/health").status_code == 200
        may_go_on.set()
        thread.join()
        assert answers[0].status_code == 200
        assert post(service, wav(clip)).status_code == 200
        # Three in a minute were allowed.
        answer = post(service, wav(clip))
        assert answer.status_code == 429
        assert 1 <= int(answer.headers["retry-after"]) <= 60
        answer = service.http.post("/subtitles?format=srt", json={"words": []})
        assert answer.status_code == 429
        with service.connect() as socket:
            assert read(socket)[0]["code"] == socket.close_code == 1008


def test_subtitles_of_words(service):
    words = [{"word": "a<b", "start": 0.5, "end": 0.75}] * 2
    words[1] = {"word": "ten", "start": 2.5, "end": 3}
    answer = service.http.post("/subtitles?format=vtt", json={"words": words})
    captions = webvtt.from_string(answer.text)
    texts = [html.unescape(caption.text) for caption in captions]
    assert texts == ["a<b", "ten"]
    assert captions[1].start == "00:00:02.500"
    for wrong in (
        {"words": [{"word": "a", "start": -1, "end": 2}]},
        {"words": "a"},
        [],
    ):
        answer = service.http.post("/subtitles?format=srt", json=wrong)
        assert answer.status_code == 422
    answer = service.http.post("/subtitles?format=doc", json={"words": []})
    assert answer.status_code == 422
    # Found by mutation: neither is text that could be sent back.
    half = b'{"words": [{"word": "\\ud800", "start": 0, "end": 1}]}'
    for content in (b"\x92", half):
        for kind in ("application/json", "application/octet-stream"):
            answer = service.http.post(
                "/subtitles?format=srt",
                content=content,
                headers={"Content-Type": kind},
            )
            assert answer.status_code in (400, 422)
            assert isinstance(answer.json()["detail"], str)


# === Streams ===

NO_TEXT = b"\xff\xfe"


def test_stream_has_the_text_of_the_whole(service, model, clip):
    with service.connect() as socket:
        messages = stream(socket, clip)
    assert socket.close_code == 1000
    assert messages[0] == {
        "type": "ready",
        "model": "tiny",
        "sampling_rate": 16000,
    }
    [final] = finals(messages)
    [expected] = model.recognize([clip])
    assert final["text"] == expected.text == TEXT
    assert (final["start"], final["end"]) == (0.0, round(len(clip) / 16000, 3))
    assert [
        (word["word"], word["start"], word["end"]) for word in final["words"]
    ] == [(w.text, round(w.start, 3), round(w.end, 3)) for w in expected.words]
    assert len(messages) > 10  # it did not come all at once


def test_stream_at_another_rate(service, clip):
    with service.connect() as socket:
        [final] = finals(stream(socket, clip[:0], sampling_rate=48000))
        assert final["text"] == ""
    sound = from_pcm(to_pcm(soxr.resample(clip, 16000, 48000)))
    answer = post(service, wav(sound, 48000, subtype="PCM_16"))
    with service.connect() as socket:
        [final] = finals(stream(socket, sound, sampling_rate=48000))
    assert final["text"] == answer.json()["text"]
    assert len(final["text"]) > 40


def test_pauses_end_utterances(service, clip):
    pause = np.zeros(16000, "float32")
    with service.connect() as socket:
        messages = stream(
            socket,
            np.concatenate([clip, pause, clip, pause]),
            endpoint_silence=0.6,
        )
    first, second, *rest = finals(messages)
    assert first["text"].startswith(TEXT[:40])
    assert second["text"][-10:] == first["text"][-10:]
    assert second["start"] == first["end"] > 3.0
    for final in (first, second):
        times = [t for w in final["words"] for t in (w["start"], w["end"])]
        assert times == sorted(times)
        assert final["start"] <= times[0] and times[-1] <= final["end"]
    # How it was cut into messages, and what waited, changes nothing.
    with service.connect() as socket:
        socket.send('{"type": "start", "endpoint_silence": 0.6}')
        pcm = to_pcm(np.concatenate([clip, pause, clip, pause]))
        for begin in range(0, len(pcm), 50_000):
            socket.send(pcm[begin : begin + 50_000])
        socket.send('{"type": "end"}')
        assert finals(read(socket)) == [first, second, *rest]


@pytest.mark.parametrize(
    "said, code, reason",
    [
        (["{"], 1007, "EOF"),
        (["[]"], 1007, ""),
        (['{"type": "begin"}'], 1007, "'start', 'end'"),
        (['{"type": "start", "sampling_rate": 3}'], 1007, "sampling_rate"),
        (['{"type": "start", "sampling_rate": "8000"}'], 1007, "integer"),
        (['{"type": "start", "endpoint_silence": NaN}'], 1007, ""),
        (['{"type": "start", "file": "/etc/passwd"}'], 1007, "file"),
        ([b"abc"], 1007, "3 bytes"),
        ([b"abcd", '{"type": "start"}'], 1008, "precede"),
        (['{"type": "end"}', b"abcd"], 1008, "Nothing may follow"),
        ([b"a" * 50_002], 1009, ""),
        (["a" * 50_002], 1009, ""),
        ([NO_TEXT], 1007, ""),
        ([b"ab" * 25_000] * 12, 1008, "15 s"),
    ],
)
def test_streams_are_closed_with_the_right_code(
    service, said, code, reason, caplog
):
    with service.connect() as socket:
        try:
            for message in said:
                socket.send(message, text=message is NO_TEXT or None)
        except websockets.exceptions.ConnectionClosed:
            pass
        messages = read(socket)
    assert not caplog.records  # nonsense shall not fill a disk
    # After the end was asked for, the last text may win.
    assert socket.close_code in {code, 1000 if "end" in str(said) else code}
    if messages[-1]["type"] == "error":
        assert messages[-1]["code"] == code
        assert reason in messages[-1]["message"]
    elif code == 1008 and "end" not in str(said):
        assert messages[-1]["type"] == "final"  # of all that was allowed
        assert messages[-1]["end"] > 15
        assert reason in socket.close_reason
    with service.connect() as socket:
        assert json.loads(socket.recv())["type"] == "ready"


def test_more_streams_than_allowed_are_sent_away(service, clip):
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(service.connect()) for _ in range(3)]
        for socket in sockets:
            assert json.loads(socket.recv())["type"] == "ready"
        with service.connect() as socket:
            [error] = read(socket)
        assert socket.close_code == error["code"] == 1013
        # One goes without a word, another takes its place.
        send_audio(sockets[0], clip)
        sockets[0].close_socket()
        deadline = time.monotonic() + 30
        while service.metric("keras_ds2_streams_open") == 3:
            assert time.monotonic() < deadline
        with service.connect() as socket:
            assert json.loads(socket.recv())["type"] == "ready"


def test_silent_clients_are_sent_away(model, clip):
    with serve(model, idle_timeout=0.2) as service:
        with service.connect() as socket:
            messages = read(socket)
    assert messages[-1]["code"] == socket.close_code == 1008


class Decoder:
    """Decodes greedily, and fails when it is told to."""

    def __init__(self, model):
        self._alphabet = model.alphabet
        self.fails_at = None
        self.may_go_on = threading.Event()
        self.may_go_on.set()

    def stream(self, frame_duration):
        if self.fails_at == "beginning":
            raise RuntimeError("secret")
        stream = GreedyStream(self._alphabet, frame_duration)
        step = stream.step

        def fail_or_step(log_probs):
            assert self.may_go_on.wait(60)
            if self.fails_at == "step":
                raise RuntimeError("secret")
            step(log_probs)

        stream.step = fail_or_step
        return stream


def test_failures_of_a_stream_are_its_own(model, clip):
    decoder = Decoder(model)
    with serve(model, decoder, max_streams=2) as service:
        decoder.fails_at = "beginning"
        for _ in range(3):
            with service.connect() as socket:
                [error] = read(socket)
            assert error["code"] == socket.close_code == 1011
        decoder.fails_at = None
        with service.connect() as socket:
            assert json.loads(socket.recv())["type"] == "ready"
            decoder.fails_at = "step"
            with contextlib.suppress(websockets.exceptions.ConnectionClosed):
                send_audio(socket, clip)
            assert read(socket)[-1] == {
                "type": "error",
                "code": 1011,
                "message": "The service failed.",
            }
            decoder.fails_at = None
        # The next utterance of one cannot begin; the other goes on.
        with service.connect() as socket, service.connect() as other:
            socket.send('{"type": "start", "endpoint_silence": 0.3}')
            assert json.loads(other.recv())["type"] == "ready"
            send_audio(socket, clip[:32000])
            for message in socket:
                if json.loads(message).get("text"):
                    break
            decoder.fails_at = "beginning"
            with contextlib.suppress(websockets.exceptions.ConnectionClosed):
                send_audio(socket, np.zeros(16000, "float32"))
            assert read(socket)[-1]["code"] == 1011
            decoder.fails_at = None
            send_audio(other, clip)
            other.send('{"type": "end"}')
            assert finals(read(other))[0]["text"] == TEXT
        closed = 'keras_ds2_streams_total{code="1011"}'
        assert service.metric(closed) == 5


def test_decoder_that_cannot_stream_is_for_files(model, clip):
    decoder = keras_ds2.BeamSearchDecoder(model.alphabet, beam_width=4)
    with serve(model, decoder) as service:
        assert "lexicon" in service.http.get("/model").json()["obstacle"]
        with service.connect() as socket:
            assert read(socket)[0]["code"] == socket.close_code == 1008


def test_streams_with_a_lexicon(model, clip):
    decoder = keras_ds2.BeamSearchDecoder(
        model.alphabet, lexicon=TEXT.split(), beam_width=16
    )
    clip = clip[:16000]
    [expected] = model.recognize([clip], decoder=decoder)
    with serve(model, decoder) as service, service.connect() as socket:
        [final] = finals(stream(socket, clip))
    assert final["text"] == expected.text
    assert "delighted" in final["text"]


def test_the_least_backlog_is_a_chunk(model, clip):
    with serve(model, max_backlog=0.001) as service:
        with service.connect() as socket:
            pcm = to_pcm(clip[:8000])
            for begin in range(0, len(pcm), 2000):
                socket.send(pcm[begin : begin + 2000])
            socket.send('{"type": "end"}')
            assert finals(read(socket))[0]["end"] == 0.5


def test_many_small_messages_do_not_keep_others_waiting(model):
    class Socket:
        left = 2000

        async def receive(self):
            self.left -= 1
            if not self.left:
                return {"type": "websocket.disconnect", "code": 1005}
            return {"type": "websocket.receive", "bytes": b""}

        async def send_text(self, text):
            pass

    async def run():
        step = serving_app.StreamingStep(model)
        batcher = StreamBatcher(step, limits=Limits(max_streams=1))
        talking = asyncio.create_task(
            talk(Socket(), batcher, {}, Limits(), Metrics())
        )
        turns = 0
        while not talking.done():
            await asyncio.sleep(0)
            turns += 1
        return turns

    assert asyncio.run(run()) >= 2000


def test_nothing_changes_a_stream_that_has_ended(model):
    async def run():
        step = serving_app.StreamingStep(model)
        batcher = StreamBatcher(step, limits=Limits(max_streams=1))
        opened = batcher.open()
        batcher.drain()
        opened.configure(sampling_rate=8000)
        running = asyncio.create_task(batcher.run())
        async with asyncio.timeout(30):
            messages = [message async for message in opened.messages()]
        running.cancel()
        return messages

    [final] = asyncio.run(run())
    assert final["type"] == "final"


def test_what_passed_for_a_word_is_taken_back(model):
    async def run():
        step = serving_app.StreamingStep(model)
        opened = StreamBatcher(step, limits=Limits(max_streams=1)).open()
        for text in ("", "a", ""):
            if text:
                opened.deliver(keras_ds2.PartialTranscript(text, ""))
            opened.deliver(keras_ds2.Hypothesis("", 0.0, acoustic_score=0.0))
        opened.end()
        opened.deliver(keras_ds2.Hypothesis("", 0.0, acoustic_score=0.0))
        return [message["utterance"] async for message in opened.messages()]

    assert asyncio.run(run()) == [0, 1]


def test_asked_twice_the_service_does_not_wait(model, clip):
    decoder = Decoder(model)
    with serve(model, decoder, shutdown_timeout=60) as service:
        with service.connect() as socket:
            assert json.loads(socket.recv())["type"] == "ready"
            decoder.may_go_on.clear()
            send_audio(socket, clip)
            service.server.should_exit = True
            time.sleep(0.2)
            service.server.force_exit = True
            assert not finals(read(socket))
        decoder.may_go_on.set()


def test_end_of_the_service_is_an_end_of_streams(model, clip):
    with serve(model) as service:
        with service.connect() as socket:
            send_audio(socket, clip)
            # Until all was received.
            for message in socket:
                if len(json.loads(message).get("text", "")) > 40:
                    break
            service.server.should_exit = True
            messages = read(socket)
        assert socket.close_code == 1001
        [final] = finals(messages)
        assert final["text"].startswith(TEXT[:40])


def test_streams_share_steps(model, train_clips, dev_clips):
    """Whatever the others do; and the step is traced once for all batches."""
    clips = [from_pcm(to_pcm(clip)) for clip in (*train_clips[:3], *dev_clips)]
    clips = [clip[:32000] for clip in clips]
    step = serving_app.StreamingStep(model)

    async def listen(batcher, clip, size):
        opened = batcher.open()

        async def speak():
            pcm = to_pcm(clip)
            for begin in range(0, len(pcm), size):
                await opened.wait_for_room()
                opened.push(pcm[begin : begin + size])
                await asyncio.sleep(0)
            opened.end()

        speaking = asyncio.create_task(speak())
        messages = [message async for message in opened.messages()]
        await speaking
        batcher.close(opened)
        return messages[-1]["text"]

    async def run():
        batcher = StreamBatcher(step, limits=Limits(max_streams=4))
        running = asyncio.create_task(batcher.run())
        texts = await asyncio.gather(
            *[
                listen(batcher, clip, size)
                for clip, size in zip(
                    clips[:4], (3200, 78, 7000, 64000), strict=True
                )
            ]
        )
        # The rows are free, and begin anew.
        texts.append(await listen(batcher, clips[4], 3200))
        running.cancel()
        return texts, batcher._metrics

    texts, metrics = asyncio.run(run())
    assert texts == [model.transcribe([clip])[0] for clip in clips]
    assert step._function.experimental_get_tracing_count() == 1
    samples = {
        (sample.name, sample.labels.get("le")): sample.value
        for family in prometheus_client.parser.text_string_to_metric_families(
            metrics.render().decode()
        )
        for sample in family.samples
    }
    name = "keras_ds2_step_streams"
    shared = samples[f"{name}_count", None] - samples[f"{name}_bucket", "1.0"]
    assert shared > 20  # of 20 chunks and the end, most of them


# === Whose pages may ask ===


def test_pages_of_other_sites_are_refused(service, clip):
    port = service.address.rpartition(":")[2]

    def status(origin, host=service.address):
        headers = {"Origin": origin, "Host": host}
        answer = service.http.post(
            "/subtitles?format=srt", json={"words": []}, headers=headers
        )
        return answer.status_code

    for host in (service.address, f"localhost:{port}", f"[::1]:{port}"):
        assert status(f"http://{host}", host) == 200
        assert status(f"https://{host}", host) == 200  # a proxy before it
    others = ("http://evil.example", "null", "http://127.0.0.1:1")
    for origin in (*others, "[", "http://[", "http://[::1"):
        assert status(origin) == 403
        with pytest.raises(websockets.exceptions.InvalidStatus) as refused:
            service.connect(origin=origin)
        assert refused.value.response.status_code == 403
    # A name that leads here may be anybody's (DNS rebinding).
    for evil in (f"evil.example:{port}", "[::1", "["):
        assert status(f"http://{evil}", evil) == 403
    with service.connect(origin=f"http://{service.address}") as socket:
        assert json.loads(socket.recv())["type"] == "ready"


def test_allowed_origins(model):
    origin = "https://friend.example"
    with serve(model, allowed_origins=[origin]) as service:
        answer = service.http.get("/model", headers={"Origin": origin})
        assert answer.headers["access-control-allow-origin"] == origin
        with service.connect(origin=origin) as socket:
            assert json.loads(socket.recv())["type"] == "ready"
        # Before a page sends JSON, its browser asks whether it may.
        asks = {
            "Origin": origin,
            "Access-Control-Request-Method": "POST",
            "Access-Control-Request-Headers": "content-type",
        }
        answer = service.http.options("/subtitles", headers=asks)
        assert answer.status_code == 200
        assert "POST" in answer.headers["access-control-allow-methods"]
        other = {"Origin": "https://other.example"}
        assert service.http.get("/model", headers=other).status_code == 403


def test_rate_limiter_forgets():
    limiter = RateLimiter(per_minute=600)
    assert not any(limiter.wait("a") for _ in range(600))
    assert 0 < limiter.wait("a") <= 0.1
    assert limiter.wait("b") == 0
    time.sleep(0.15)
    assert limiter.wait("a") == 0
    for number in range(20_000):
        limiter.wait(str(number))
    assert len(limiter._left) == 10_000


# === The page, and facts ===


def test_page_needs_nothing_from_elsewhere(service):
    class Page(html.parser.HTMLParser):
        ids, links = set(), []

        def handle_starttag(self, tag, attributes):
            attributes = dict(attributes)
            assert "style" not in attributes and "onclick" not in attributes
            self.ids.add(attributes.get("id"))
            for name in ("src", "href"):
                self.links += [attributes[name]] if name in attributes else []
            for name in ("for", "aria-labelledby", "aria-describedby"):
                self.references.add(attributes.get(name))

        references = set()

    answer = service.http.get("/")
    assert answer.headers["content-type"] == "text/html; charset=utf-8"
    page = Page()
    page.feed(answer.text)
    assert page.references <= page.ids
    assert sorted(page.links) == ["data:,", "page.css", "page.js"]
    folder = importlib.resources.files("keras_ds2.serving") / "page"
    for file in folder.iterdir():
        path = "/" if file.name == "index.html" else f"/{file.name}"
        answer = service.http.get(path)
        assert answer.text == file.read_text()
        policy = answer.headers["content-security-policy"]
        assert policy.startswith("default-src 'none'; script-src 'self';")
        assert "unsafe" not in policy
        assert "//" not in re.sub(r"(?m)(^|\s)//.*$", "", answer.text)
    script = (folder / "page.js").read_text()
    used = re.findall(r"""\$\("([a-z-]+)"\)""", script)
    assert len(used) > 20 and set(used) <= page.ids


def test_paths_that_are_none(service):
    for path in ("/../pyproject.toml", "/page/..%2f..%2fapp.py", "/docs"):
        assert service.http.get(path).status_code == 404
    assert service.http.get("/stream").status_code == 404
    with pytest.raises(websockets.exceptions.InvalidStatus):
        connect(service.address, "/elsewhere")


def test_head_is_get_without_a_body(service):
    for path in ("/", "/health", "/nothing"):
        head, get = service.http.head(path), service.http.get(path)
        assert head.status_code == get.status_code
        length = "content-length"
        assert head.headers[length] == get.headers[length]
        assert not head.content


def test_facts(service):
    assert service.http.get("/health").json() == {"status": "ok"}
    facts = service.http.get("/model").json()
    assert facts["can_stream"] is True and facts["obstacle"] is None
    text = service.http.get("/metrics").text
    families = prometheus_client.parser.text_string_to_metric_families(text)
    names = {family.name for family in families}
    assert {
        "keras_ds2_requests",
        "keras_ds2_streams_open",
        "keras_ds2_step_seconds",
    } <= names
    assert service.metric("keras_ds2_files_open") == 0


def test_bidirectional_model_takes_files_only(clip):
    model = keras_ds2.DeepSpeech2(
        num_rnn_layers=1, rnn_units=4, bidirectional=True, normalize=False
    )
    with serve(model) as service:
        assert post(service, wav(clip[:8000])).status_code == 200
        facts = service.http.get("/model").json()
        assert facts["can_stream"] is False
        assert "unidirectional" in facts["obstacle"]
        with service.connect() as socket:
            [error] = read(socket)
        assert socket.close_code == error["code"] == 1008
        assert "unidirectional" in error["message"]


# === The command ===


def test_command_without_its_extra(monkeypatch, capsys):
    for name in [m for m in sys.modules if m.startswith("keras_ds2.serving")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "fastapi", None)
    assert main(["serve"]) == 2
    out, err = capsys.readouterr()
    assert not out and err.count("\n") == 1
    assert "pip install 'keras_ds2[serve]'" in err


@pytest.mark.parametrize(
    "arguments, message",
    [
        (["--port", "99999"], "--port must be"),
        (["--host", "no.such.host.invalid"], "no.such.host.invalid"),
        (["--allow-origin", "example.com"], "--allow-origin must be"),
        (["--key", "k.pem"], "--certificate and --key go together"),
        (["--key", "k", "--certificate", "c"], "'c' does not exist"),
        (["--key", TINY, "--certificate", TINY], "cannot be used"),
        (["--host", "."], "Cannot listen at ."),
    ],
)
def test_command_refuses_early(capsys, arguments, message):
    assert main(["serve", *arguments]) == 2
    err = capsys.readouterr().err
    assert message in err and err.count("\n") == 1


def test_every_limit_is_a_flag(capsys):
    with pytest.raises(SystemExit) as stopped:
        main(["serve", "--help"])
    assert stopped.value.code == 0
    flags = capsys.readouterr().out
    for name in vars(Limits()):
        assert f"--{name.replace('_', '-')} " in flags
    assert "(default: 100000000)" in " ".join(flags.split())
    for wrong in ("0", "-1", "nan", "x"):
        with pytest.raises(SystemExit):
            main(["serve", "--max-backlog", wrong])


def test_any_timeout_can_be_set():
    for seconds in (1e-9, 1e12):
        open_socket("127.0.0.1", 0, seconds).close()


@pytest.mark.skipif(not shutil.which("openssl"), reason="needs openssl")
def test_https(model, clip, tmp_path):
    certificate, key = str(tmp_path / "c.pem"), str(tmp_path / "k.pem")
    command = "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 "
    command += "-nodes -days 2 -subj /CN=a -addext subjectAltName=IP:127.0.0.1 "
    command += f"-keyout {key} -out {certificate}"
    subprocess.run(command.split(), check=True, capture_output=True)
    trust = ssl.create_default_context(cafile=certificate)
    with serve(
        model, certificate=certificate, key=key, verify=trust
    ) as service:
        assert post(service, wav(clip)).json()["text"] == TEXT
        # Not the client with threads, which once waited for ever.
        asyncio.run(asyncio.wait_for(end_with_stream(service, trust, clip), 60))


async def end_with_stream(service, trust, clip):
    """Ends the service while a stream of HTTPS is open."""
    async with websockets.connect(
        f"wss://{service.address}/stream",
        origin=f"https://{service.address}",
        ssl=trust,
        proxy=None,
    ) as socket:
        await socket.send(to_pcm(clip))
        async for message in socket:
            if len(json.loads(message).get("text", "")) > 40:
                break
        service.server.should_exit = True
        rest = [json.loads(message) async for message in socket]
    assert finals(rest)[0]["text"].startswith(TEXT[:40])
    assert socket.close_code == 1001
