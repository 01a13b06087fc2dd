"""What stands in front of all routes: who may ask, and what browsers are told about answers."""

import asyncio
import hmac
import logging
from collections.abc import Set
from contextlib import suppress
from urllib.parse import urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from vitreous.server.metrics import Metrics
from vitreous.server.patience import LINGER_S
from vitreous.server.settings import Settings, origin_parts

logger = logging.getLogger(__name__)

#: Paths that a key is asked for.
_GUARDED = ("/v1/", "/metrics")
#: Names of this machine; whoever asks by another name was led here by a name server.
_LOCAL_NAMES = frozenset(("localhost", "127.0.0.1", "::1"))

HTML_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob: data:; "
    "media-src 'self' blob:; connect-src 'self'; manifest-src 'self'; base-uri 'none'; "
    "form-action 'none'"
)


def security_headers(settings: Settings) -> dict[str, str]:
    """What every answer says to browsers: run nothing but what this server itself sends."""
    frames = " ".join(settings.allow_frames) or "'none'"
    headers = {
        "Content-Security-Policy": f"{HTML_POLICY}; frame-ancestors {frames}",
        "X-Content-Type-Options": "nosniff",
        "Referrer-Policy": "no-referrer",
        "Cross-Origin-Opener-Policy": "same-origin",
        "Permissions-Policy": "camera=(self), microphone=(), geolocation=()",
        "Cache-Control": "no-store",
    }
    if not settings.allow_frames:
        headers["X-Frame-Options"] = "DENY"
    return headers


class AccessControl:
    """Lets requests through that may ask, counts them, and adds headers to all answers.

    Args:
        app: the routes.
        settings: key, host and origins.
        metrics: told of every answer.
        paths: that are counted by their own names; all others are "other".

    Attributes:
        draining: whether the server is about to end: connections are closed behind each answer.
    """

    def __init__(self, app: ASGIApp, settings: Settings, metrics: Metrics, paths: Set[str]) -> None:
        self._app, self._settings, self._metrics, self._paths = app, settings, metrics, paths
        self._headers = security_headers(settings)
        self._key = settings.api_key.encode() if settings.api_key else None
        self.draining = False

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        route = scope["path"] if scope["path"] in self._paths else "other"
        rest = _Rest(receive, self._settings)

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in self._headers.items():
                    headers.setdefault(name, value)
                if self.draining:
                    headers["Connection"] = "close"
                self._metrics.requests.labels(route, str(message["status"])).inc()
            elif (self.draining or closes) and sends_on and not message.get("more_body"):
                await rest.take()
            await send(message)

        headers = Headers(scope=scope)
        closes = headers.get("connection", "").lower() == "close"
        sends_on = "expect" not in headers  # else it waits for an answer first
        refused = self._refused(headers, scope["path"])
        try:
            await (refused or self._app)(scope, rest.receive, send_with_headers)
        except Exception:  # it has been answered with 500; the connection is as good as before
            logger.exception("%s failed", route)

    def _refused(self, headers: Headers, path: str) -> ASGIApp | None:
        """An answer to a request that may not ask."""
        host = headers.get("host", "")
        if self._settings.is_local and _name_of(host) not in _LOCAL_NAMES | {self._settings.host}:
            return JSONResponse({"detail": f"this server isn't called '{host[:100]}'"}, 403)
        if not path.startswith(_GUARDED):
            return None
        origin = headers.get("origin")
        is_other = origin and origin_parts(origin)[1] != host
        if is_other and origin not in self._settings.allow_origins:
            return JSONResponse({"detail": "other web pages may not ask this server"}, 403)
        if self._key is None:
            return None
        word, _, key = headers.get("authorization", "").partition(" ")
        given = key.strip().encode("latin-1")
        if word.lower() == "bearer" and hmac.compare_digest(given, self._key):
            return None
        return JSONResponse(
            {"detail": "send the API key: Authorization: Bearer KEY"},
            401,
            {"WWW-Authenticate": "Bearer"},
        )


class _Rest:
    """What is left of a request when its answer is ready, where the connection ends behind that.

    A client may read its answer only once it has sent all, and a connection that is closed before
    takes the answer away from it. Where connections are kept, `patience` sees to it.

    Args:
        receive: of the request.
        settings: for how long, and how much.
    """

    def __init__(self, receive: Receive, settings: Settings) -> None:
        self._receive, self._settings = receive, settings
        self._is_over = False

    async def receive(self) -> Message:
        message = await self._receive()
        self._is_over = message["type"] == "http.disconnect" or not message.get("more_body")
        return message

    async def take(self) -> None:
        """Read it, and forget it."""
        left = self._settings.max_bytes
        with suppress(TimeoutError):
            async with asyncio.timeout(self._settings.timeout_s):
                while not self._is_over and left >= 0:
                    async with asyncio.timeout(LINGER_S):
                        left -= len((await self.receive()).get("body", b""))


def _name_of(host: str) -> str:
    """The name in a Host header, without its port."""
    try:
        return urlsplit(f"//{host}").hostname or ""
    except ValueError:
        return ""
