"""The service: what is answered at which path."""

import asyncio
import contextlib
import importlib.resources
import math
from enum import StrEnum
from typing import Annotated

import pydantic
from fastapi import (
    Depends,
    FastAPI,
    HTTPException,
    Query,
    Request,
    Response,
    WebSocket,
)
from fastapi.exceptions import RequestValidationError
from starlette.middleware.cors import CORSMiddleware
from starlette.responses import JSONResponse

from keras_ds2 import subtitles
from keras_ds2.decoding.hypothesis import TimedText
from keras_ds2.serving.batch import StreamBatcher
from keras_ds2.serving.files import FileTranscriber
from keras_ds2.serving.guard import Guard, RateLimiter
from keras_ds2.serving.limits import Limits
from keras_ds2.serving.metrics import CONTENT_TYPE, Metrics
from keras_ds2.serving.protocol import refuse, talk
from keras_ds2.serving.stream import Refused
from keras_ds2.streaming.step import StreamingStep

_PAGE = {
    "/": ("index.html", "text/html"),
    "/page.css": ("page.css", "text/css"),
    "/page.js": ("page.js", "text/javascript"),
    "/picture.js": ("picture.js", "text/javascript"),
    "/capture.js": ("capture.js", "text/javascript"),
}
_FACTS = ("/model", "/health", "/metrics")

# Bytes: ten hours of words. They are read at once.
_MOST_WORDS = 5_000_000


class _Format(StrEnum):
    JSON = "json"
    TEXT = "text"
    SRT = "srt"
    VTT = "vtt"
    CTM = "ctm"


_MEDIA_TYPES = {
    _Format.JSON: "application/json",
    _Format.TEXT: "text/plain",
    _Format.SRT: "application/x-subrip",
    _Format.VTT: "text/vtt",
    _Format.CTM: "text/plain",
}


class _SubtitleFormat(StrEnum):
    SRT = "srt"
    VTT = "vtt"


class _Query(pydantic.BaseModel):
    model_config = pydantic.ConfigDict(extra="forbid")
    format: _Format = _Format.JSON


class _SubtitleQuery(pydantic.BaseModel):
    model_config = pydantic.ConfigDict(extra="forbid")
    format: _SubtitleFormat


_Seconds = Annotated[float, pydantic.Field(ge=0, le=1e6, allow_inf_nan=False)]


class _Word(pydantic.BaseModel):
    word: Annotated[str, pydantic.Field(max_length=1000)]
    start: _Seconds
    end: _Seconds


class _Words(pydantic.BaseModel):
    words: Annotated[list[_Word], pydantic.Field(max_length=100_000)]


def create_app(model, name, decoder=None, limits=None, allowed_origins=()):
    """Makes the ASGI application of a service.

    Args:
        model: A `DeepSpeech2` or `DeepSpeech`.
        name: String. What the model is called in answers.
        decoder: `BeamSearchDecoder`, or `None`. Defaults to `None`.
        limits: `Limits`. Defaults to `None`, the default ones.
        allowed_origins: Strings, as `"https://example.com"`: whose pages may
            ask, beside the service's own. Defaults to none.

    Returns:
        A `FastAPI`; its `state.batcher` is the `StreamBatcher`, or `None` if
        the model cannot stream.
    """
    limits, metrics = limits or Limits(), Metrics()
    batcher, obstacle = None, None
    try:
        step = StreamingStep(model)
        if decoder is not None:
            decoder.stream(model.frame_duration)
    except ValueError as error:
        obstacle = str(error)
    else:
        batcher = StreamBatcher(step, decoder, limits, metrics)
    files = FileTranscriber(model, name, decoder, limits, metrics)

    @contextlib.asynccontextmanager
    async def lifespan(app):
        tasks = [asyncio.create_task(batcher.run())] if batcher else []
        yield
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        files.close()

    app = FastAPI(
        title="keras_ds2",
        lifespan=lifespan,
        # Their pages come from other sites.
        docs_url=None,
        redoc_url=None,
        openapi_url=None,
    )
    app.state.batcher = batcher
    app.add_exception_handler(RequestValidationError, _explain)
    if allowed_origins:
        app.add_middleware(
            CORSMiddleware,
            allow_origins=allowed_origins,
            allow_methods=["GET", "POST"],
            expose_headers=["Retry-After"],
        )
    app.add_middleware(
        Guard,
        allowed_origins=allowed_origins,
        upload_timeout=limits.upload_timeout,
        metrics=metrics,
        sizes={
            **dict.fromkeys((*_PAGE, *_FACTS), 0),
            "/transcribe": limits.max_upload,
            "/subtitles": min(limits.max_upload, _MOST_WORDS),
        },
    )
    description = {
        "name": name,
        "sampling_rate": model.sampling_rate,
        "can_stream": batcher is not None,
        "obstacle": obstacle,
        "max_upload": limits.max_upload,
        "max_file_duration": limits.max_file_duration,
        "max_stream_duration": limits.max_stream_duration,
    }
    limiter = RateLimiter(limits.max_requests)
    _add_transcription(app, files, limiter)
    _add_streams(app, batcher, description, limiter, limits, metrics)
    _add_facts(app, batcher, description, metrics)
    _add_page(app)
    return app


async def _explain(request, error):
    """Says what is wrong; FastAPI would repeat what was sent, be it bytes."""
    problem = error.errors()[0]
    place = ".".join(str(part) for part in problem["loc"])
    detail = f"{place}: {problem['msg']}".encode(errors="replace").decode()
    return JSONResponse({"detail": detail}, 422)


def _add_transcription(app, files, limiter):
    async def count(request: Request):
        wait = limiter.wait(_address(request))
        if wait:
            raise HTTPException(
                429,
                "There were too many requests from your address.",
                {"Retry-After": str(math.ceil(wait))},
            )

    @app.post("/transcribe", dependencies=[Depends(count)])
    async def transcribe(request: Request, query: Annotated[_Query, Query()]):
        transcript = await files.transcribe(request)
        return Response(
            transcript.format(query.format),
            media_type=_MEDIA_TYPES[query.format],
        )

    @app.post("/subtitles", dependencies=[Depends(count)])
    def write_subtitles(
        words: _Words, query: Annotated[_SubtitleQuery, Query()]
    ):
        timed = [
            TimedText(word.word, word.start, word.end, 1.0)
            for word in words.words
        ]
        write = getattr(subtitles, f"format_{query.format}")
        return Response(
            write(timed), media_type=_MEDIA_TYPES[_Format(query.format)]
        )


def _add_streams(app, batcher, description, limiter, limits, metrics):
    @app.websocket("/stream")
    async def stream(socket: WebSocket):
        await socket.accept()
        if batcher is None:
            await refuse(socket, Refused(1008, description["obstacle"]))
        elif limiter.wait(_address(socket)):
            await refuse(
                socket,
                Refused(
                    1008, "There were too many requests from your address."
                ),
            )
        else:
            greeting = {
                "type": "ready",
                "model": description["name"],
                "sampling_rate": description["sampling_rate"],
            }
            await talk(socket, batcher, greeting, limits, metrics)


def _add_facts(app, batcher, description, metrics):
    @app.get("/model")
    async def model():
        return description

    @app.get("/health")
    async def health(response: Response):
        if batcher is not None and batcher.is_draining:
            response.status_code = 503
            return {"status": "ending"}
        return {"status": "ok"}

    @app.get("/metrics")
    async def show_metrics():
        # As it is: Starlette would name the character set twice.
        return Response(
            metrics.render(), headers={"Content-Type": CONTENT_TYPE}
        )


def _add_page(app):
    folder = importlib.resources.files("keras_ds2.serving") / "page"
    for path, (file, media_type) in _PAGE.items():
        content = (folder / file).read_bytes()
        app.get(path)(_show(content, media_type))


def _show(content, media_type):
    async def show():
        return Response(
            content,
            media_type=media_type,
            headers={"Cache-Control": "no-cache"},
        )

    return show


def _address(connection):
    return connection.client.host if connection.client else ""
