"""What is said over the WebSocket `/stream`; docs/serving.md describes it."""

import asyncio
import contextlib
import json
import logging
from typing import Annotated, Literal

import pydantic
from starlette.websockets import WebSocketDisconnect

from keras_ds2.serving.stream import FAILURE, Refused

_logger = logging.getLogger(__name__)

# For the last words to a client that may not be listening.
_FAREWELL_TIMEOUT = 1.0


class _Message(pydantic.BaseModel):
    model_config = pydantic.ConfigDict(extra="forbid", strict=True)


_Rate = Annotated[int, pydantic.Field(ge=4000, le=192_000)]
_Silence = Annotated[float, pydantic.Field(ge=0.1, le=60)]


class _Start(_Message):
    type: Literal["start"]
    sampling_rate: _Rate | None = None
    endpoint_silence: _Silence | None = None


class _End(_Message):
    type: Literal["end"]


_MESSAGES: pydantic.TypeAdapter[_Start | _End] = pydantic.TypeAdapter(
    Annotated[_Start | _End, pydantic.Field(discriminator="type")]
)


async def talk(socket, batcher, greeting, limits, metrics):
    """Serves one WebSocket, which was accepted, until it is closed.

    Args:
        socket: Starlette's `WebSocket`.
        batcher: `StreamBatcher`.
        greeting: Dictionary, the first message.
        limits: `Limits`.
        metrics: `Metrics`.
    """
    stream = None
    try:
        stream = batcher.open()
        await _send(socket, greeting, limits.send_timeout)
        code, reason = await _serve(socket, stream, limits)
        await _close(socket, code, reason)
    except Refused as refused:
        code = refused.code
        await refuse(socket, refused)
    except WebSocketDisconnect as disconnect:
        code = disconnect.code
    except Exception:
        _logger.exception("A stream failed")
        code = 1011
        await refuse(socket, Refused(code, FAILURE))
    finally:
        if stream is not None:
            batcher.close(stream)
    # Clients choose among a thousand numbers; some of them are counted.
    known = code in (1000, 1001, 1005, 1006) or 1007 <= code <= 1013
    metrics.streams.labels(str(code) if known else "other").inc()


async def refuse(socket, refused):
    """Says why, and closes."""
    message = {
        "type": "error",
        "code": refused.code,
        "message": refused.reason,
    }
    with contextlib.suppress(Refused, WebSocketDisconnect):
        await _send(socket, message, _FAREWELL_TIMEOUT)
        await _close(socket, refused.code, refused.reason)


async def _serve(socket, stream, limits):
    """Returns the code and reason to close with, once all was sent."""
    reader = asyncio.create_task(_read(socket, stream, limits))
    writer = asyncio.create_task(_write(socket, stream, limits))
    try:
        done, _ = await asyncio.wait(
            {reader, writer}, return_when=asyncio.FIRST_COMPLETED
        )
    finally:
        reader.cancel()
        writer.cancel()
        await asyncio.gather(reader, writer, return_exceptions=True)
    # The reader never returns, it can only fail.
    (writer if writer in done else reader).result()
    return stream.close_code, stream.close_reason


async def _write(socket, stream, limits):
    async for message in stream.messages():
        await _send(socket, message, limits.send_timeout)


async def _read(socket, stream, limits):
    has_audio = has_ended = False
    while True:
        # Messages that are here already come without waiting; others' turn.
        await asyncio.sleep(0)
        await stream.wait_for_room()
        # Whoever has said all that there was to say may wait in silence.
        timeout = None if stream.has_ended else limits.idle_timeout
        try:
            async with asyncio.timeout(timeout):
                message = await socket.receive()
        except TimeoutError:
            if stream.has_ended:
                continue
            raise Refused(
                1008, f"There was no message for {limits.idle_timeout:g} s."
            ) from None
        if message["type"] == "websocket.disconnect":
            raise WebSocketDisconnect(message.get("code", 1005))
        if has_ended:
            raise Refused(1008, 'Nothing may follow {"type": "end"}.')
        data = message.get("bytes")
        if data is not None:
            _take_audio(stream, data, limits)
            has_audio = True
            continue
        command = _parse(message["text"], limits)
        if isinstance(command, _End):
            stream.end()
            has_ended = True
        elif has_audio:
            raise Refused(1008, 'Audio may not precede {"type": "start"}.')
        else:
            stream.configure(command.sampling_rate, command.endpoint_silence)


def _take_audio(stream, data, limits):
    _check_size(data, limits)
    if len(data) % 2:
        raise Refused(
            1007,
            f"Audio has 2 bytes for each sample. Received: {len(data)} bytes.",
        )
    stream.push(data)
    if stream.duration > limits.max_stream_duration:
        stream.end(
            1008,
            f"A stream lasts {limits.max_stream_duration:g} s at most.",
        )


def _parse(text, limits):
    _check_size(text, limits)
    try:
        return _MESSAGES.validate_json(text)
    except pydantic.ValidationError as error:
        problem = error.errors(include_url=False)[0]
        place = ".".join(str(part) for part in problem["loc"])
        text = f"{place}: {problem['msg']}" if place else problem["msg"]
        raise Refused(1007, f"This is no message: {text}.") from None


def _check_size(data, limits):
    if len(data) > limits.max_message:
        raise Refused(
            1009, f"A message has {limits.max_message} bytes at most."
        )


async def _send(socket, message, timeout):
    text = json.dumps(message, ensure_ascii=False)
    try:
        async with asyncio.timeout(timeout):
            await socket.send_text(text)
    except TimeoutError:
        raise Refused(1008, f"Nothing was read for {timeout:g} s.") from None
    except RuntimeError as error:  # Starlette's: it is closed already
        raise WebSocketDisconnect(1006) from error


async def _close(socket, code, reason):
    with contextlib.suppress(RuntimeError, TimeoutError):
        async with asyncio.timeout(_FAREWELL_TIMEOUT):
            # A control frame has 125 bytes, the code is two of them.
            reason = reason.encode()[:123].decode(errors="ignore")
            await socket.close(code, reason)
