"""A file in a request in, its transcript out; `transcribe_file` does it."""

import asyncio
import contextlib
import shutil
import tempfile
import threading
from concurrent.futures import ThreadPoolExecutor

from fastapi import HTTPException
from starlette.requests import ClientDisconnect

from keras_ds2.audio import AudioError, audio_duration
from keras_ds2.transcript import Transcript
from keras_ds2.transcription import transcribe_file

# Seconds after which to try again, where nobody can tell.
_RETRY_AFTER = "10"


class FileTranscriber:
    """Transcribes the files of requests, one after the other.

    That is done in a thread of its own, so that streams and other requests
    go on meanwhile.

    Args:
        model: A `DeepSpeech2` or `DeepSpeech`.
        name: String. What the model is called in answers.
        decoder: `BeamSearchDecoder` or `None`.
        limits: `Limits`.
        metrics: `Metrics`.
    """

    def __init__(self, model, name, decoder, limits, metrics):
        self._model = model
        self._name = name
        self._decoder = decoder
        self._limits = limits
        self._metrics = metrics
        self._num_open = 0
        self._executor = ThreadPoolExecutor(1, thread_name_prefix="files")

    def close(self):
        """Begins no more files."""
        self._executor.shutdown(wait=False, cancel_futures=True)

    async def transcribe(self, request):
        """Returns the `Transcript` of the file in a request.

        Args:
            request: Starlette's `Request`, of `multipart/form-data` with a
                part `file`.

        Raises:
            HTTPException: 400, 413, 415, 422 or 503, with the reason.
        """
        with self._admit():
            kind = request.headers.get("content-type", "")
            if kind.partition(";")[0].strip().lower() != "multipart/form-data":
                raise HTTPException(
                    415, "Send multipart/form-data with a part `file`."
                )
            async with contextlib.AsyncExitStack() as stack:
                form = await _receive(request, stack)
                unknown = sorted(form.keys() - {"file"})
                if unknown:
                    raise HTTPException(
                        422, f"Send only a part `file`, no {unknown[0]!a}."
                    )
                upload = form.get("file")
                if upload is None or isinstance(upload, str):
                    raise HTTPException(
                        422, "There is no part `file` with a file name."
                    )
                return await self._transcribe(request, upload)

    @contextlib.contextmanager
    def _admit(self):
        if self._num_open >= self._limits.max_files:
            raise HTTPException(
                503,
                f"{self._num_open} files are being transcribed. Try again "
                "later.",
                {"Retry-After": _RETRY_AFTER},
            )
        self._num_open += 1
        self._metrics.files_open.set(self._num_open)
        try:
            yield
        finally:
            self._num_open -= 1
            self._metrics.files_open.set(self._num_open)

    async def _transcribe(self, request, upload):
        is_unwanted = threading.Event()
        future = asyncio.get_running_loop().run_in_executor(
            self._executor, self._work, upload, is_unwanted
        )
        try:
            while not future.done():
                await asyncio.wait({future}, timeout=1.0)
                if await request.is_disconnected():
                    is_unwanted.set()
            return future.result()
        finally:
            is_unwanted.set()

    def _work(self, upload, is_unwanted):
        # Its name is none of the client's. It goes with the block.
        with tempfile.NamedTemporaryFile(prefix="keras_ds2-") as file:
            if not is_unwanted.is_set():
                shutil.copyfileobj(upload.file, file)
                file.flush()
            try:
                duration = audio_duration(file.name)
                self._check_duration(duration)
                segments = []
                for segment in transcribe_file(
                    self._model, file.name, self._decoder
                ):
                    segments.append(segment)
                    if is_unwanted.is_set():
                        break
            except AudioError as error:
                raise _answer(error) from error
        self._metrics.audio_seconds.labels("file").inc(duration)
        # A client may have named an encoding that has halves of characters.
        name = (upload.filename or "").encode(errors="replace").decode()
        return Transcript(name, duration, self._name, segments)

    def _check_duration(self, duration):
        longest = self._limits.max_file_duration
        if duration > longest:
            raise HTTPException(
                413,
                f"The file lasts {duration:.1f} s, and may last {longest:g} s "
                "at most.",
            )


async def _receive(request, stack):
    try:
        return await stack.enter_async_context(
            request.form(max_files=1, max_fields=8)
        )
    except ClientDisconnect:
        raise HTTPException(400, "The file did not come.") from None
    except UnicodeError:
        raise HTTPException(400, "The form's names cannot be read.") from None


def _answer(error):
    """The HTTP error of an `AudioError`, whose text has a path of ours."""
    if error.reason == "unreadable":
        return HTTPException(
            415,
            "The file cannot be read as audio. Send WAV, FLAC, Ogg (Opus or "
            "Vorbis) or MP3.",
        )
    return HTTPException(422, f"The file {error.detail}")
