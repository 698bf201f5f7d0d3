"""What is decided about a request before anyone answers it."""

import asyncio
import ipaddress
import logging
import time
from collections import OrderedDict
from urllib.parse import urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse

_logger = logging.getLogger(__name__)

# Nothing from elsewhere, nothing inline, in nobody's frame.
_POLICY = "; ".join(
    [
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self'",
        "connect-src 'self'",
        "img-src data:",
        "base-uri 'none'",
        "form-action 'none'",
        "frame-ancestors 'none'",
    ]
)
_HEADERS = {
    "Content-Security-Policy": _POLICY,
    "Cross-Origin-Opener-Policy": "same-origin",
    "Permissions-Policy": "microphone=(self), camera=(), geolocation=()",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}

# Addresses that a `RateLimiter` remembers.
_MOST_ADDRESSES = 10_000


class Guard:
    """ASGI middleware: no other site's pages, nothing too large or too slow.

    It also counts answers, gives them strict headers, and answers 500 itself
    where anything fails: what fails inside is all that is logged.

    A browser says with `Origin` whose page asks. That has to be this
    service's own, or one of `allowed_origins`. Its own is what `Host` says,
    but only where that is `localhost` or a bare address: any name may have
    been made to lead here by the other site itself (DNS rebinding).

    Args:
        app: ASGI application.
        allowed_origins: Strings, as `"https://example.com"`.
        upload_timeout: Float, seconds in which a request has to come.
        metrics: `Metrics`.
        sizes: Dictionary, each path that there is to the most bytes that a
            request has there. Other paths are counted as one.
    """

    def __init__(self, app, allowed_origins, upload_timeout, metrics, sizes):
        self._app = app
        self._allowed_origins = frozenset(allowed_origins)
        self._upload_timeout = upload_timeout
        self._metrics = metrics
        self._sizes = sizes

    async def __call__(self, scope, receive, send):
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        may_pass = self._may_pass(headers.get("origin"), headers.get("host"))
        if scope["type"] == "websocket":
            if may_pass:
                await self._app(scope, receive, send)
            else:  # before it is accepted: the answer is 403
                await receive()
                await send({"type": "websocket.close", "code": 1008})
            return
        send = self._marked(scope, send)
        if not may_pass:
            await _FORBIDDEN(scope, receive, send)
            return
        if scope["method"] == "HEAD":  # uvicorn leaves the body out
            scope = {**scope, "method": "GET"}
        try:
            await self._app(scope, self._limited(scope, receive), send)
        except Exception:
            _logger.exception("A request failed")
            await _FAILED(scope, receive, send)

    def _may_pass(self, origin, host):
        if origin is None or origin in self._allowed_origins:
            return True
        try:
            return urlsplit(origin).netloc == host and _is_address(host)
        except ValueError:  # it is no URL
            return False

    def _limited(self, scope, receive):
        most = self._sizes.get(scope["path"], 0)
        size = int(Headers(scope=scope).get("content-length", 0))
        num_received = 0
        is_whole = False
        deadline = asyncio.get_running_loop().time() + self._upload_timeout

        async def limited():
            nonlocal num_received, is_whole
            if is_whole:  # whoever waits now waits for the client to go
                return await receive()
            try:
                if size <= most:
                    async with asyncio.timeout_at(deadline):
                        message = await receive()
                    num_received += len(message.get("body", b""))
                    is_whole = not message.get("more_body")
            except TimeoutError:
                raise HTTPException(
                    408,
                    "The request did not come within "
                    f"{self._upload_timeout:g} s.",
                    {"Connection": "close"},
                ) from None
            if max(size, num_received) > most:
                raise HTTPException(
                    413, f"A request has {most} bytes at most here."
                )
            return message

        return limited

    def _marked(self, scope, send):
        path = scope["path"] if scope["path"] in self._sizes else "other"

        async def marked(message):
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in _HEADERS.items():
                    headers[name] = value
                self._metrics.requests.labels(path, message["status"]).inc()
            await send(message)

        return marked


_FORBIDDEN = JSONResponse(
    {"detail": "Pages of other sites may not ask. See --allow-origin."}, 403
)
_FAILED = JSONResponse({"detail": "The service failed."}, 500)


def _is_address(host):
    try:
        name = urlsplit(f"//{host}").hostname or ""
        return name == "localhost" or bool(ipaddress.ip_address(name))
    except ValueError:
        return False


class RateLimiter:
    """So many requests a minute of one address, as many of them at once.

    Args:
        per_minute: Integer.

    Example:

    >>> from keras_ds2.serving.guard import RateLimiter
    >>> limiter = RateLimiter(per_minute=1)
    >>> limiter.wait("127.0.0.1"), round(limiter.wait("127.0.0.1"))
    (0.0, 60)
    """

    def __init__(self, per_minute):
        self._burst = per_minute
        self._rate = per_minute / 60
        self._left = OrderedDict()  # address: requests left, and when

    def wait(self, address):
        """Counts a request; returns seconds to wait, 0 if it may pass."""
        now = time.monotonic()
        left, before = self._left.pop(address, (self._burst, now))
        left = min(self._burst, left + self._rate * (now - before))
        wait = 0.0 if left >= 1 else (1 - left) / self._rate
        self._left[address] = (left - (not wait), now)
        if len(self._left) > _MOST_ADDRESSES:
            self._left.popitem(last=False)
        return wait
