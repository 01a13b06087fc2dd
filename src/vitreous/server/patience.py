"""What a connection may take over one request: clients that dawdle don't keep their places.

Uvicorn has a timeout for idle connections, none for a request that arrives a byte at a time and
none for an answer that nobody fetches. Of a request's head it takes whatever comes.
"""

import json
from typing import TYPE_CHECKING, Any

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

if TYPE_CHECKING:
    from asyncio.events import TimerHandle

#: A client that was told no before it had sent all may pause for so long; see `Patient._linger`.
LINGER_S = 2.0
#: Bytes in a row that bring nothing of a body: a head, trailers, or the frame of a chunk. It is
#: checked whenever some have been read, so it may be exceeded by as many as are read at once.
_HEAD_BYTES = 65_536

#: Requests that may wait behind one another on a connection; each takes memory as it is read.
_PIPELINED = 16

_TOO_LONG = json.dumps({"detail": f"the request's head has more than {_HEAD_BYTES} bytes"}).encode()
_TOO_LONG_ANSWER = (
    b"HTTP/1.1 431 Request Header Fields Too Large\r\nContent-Type: application/json\r\n"
    b"Content-Length: %d\r\nConnection: close\r\n\r\n%s" % (len(_TOO_LONG), _TOO_LONG)
)


class Patient(HttpToolsProtocol):
    """Closes a connection whose request isn't over in time, or has too long a head."""

    timeout_s: float
    max_bytes: int
    _timer: "TimerHandle | None" = None
    #: Whether the last byte of the request has come.
    _complete = True
    #: Bytes since the last ones of a body.
    _without_body = 0
    #: Until when the rest of a request that has its answer may come, and how much of it.
    _until, _rest_bytes = 0.0, 0

    def connection_made(self, transport: Any) -> None:
        super().connection_made(transport)
        self._expect(self.timeout_s)

    def data_received(self, data: bytes) -> None:
        if self._timer is None:
            self._expect(self.timeout_s)
        if self._is_answered_early():
            self._linger(len(data))
        self._without_body += len(data)
        super().data_received(data)
        if self._without_body > _HEAD_BYTES and not self.transport.is_closing():
            self._refuse()

    def on_message_begin(self) -> None:
        if len(self.pipeline) >= _PIPELINED:
            raise ValueError  # nothing after it is parsed; the answer is 400, and the end
        super().on_message_begin()

    def on_headers_complete(self) -> None:
        self._complete = False
        self._expect(3 * self.timeout_s)
        super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        self._without_body = 0
        super().on_body(body)

    def on_message_complete(self) -> None:
        self._complete, self._without_body = True, 0
        super().on_message_complete()
        self._rest()

    def on_response_complete(self) -> None:
        super().on_response_complete()
        self._rest()

    def timeout_keep_alive_handler(self) -> None:
        super().timeout_keep_alive_handler()
        # Closing waits for what has been written and perhaps is never fetched.
        self._expect(self.timeout_s)

    def connection_lost(self, exc: Exception | None) -> None:
        self._expect(None)
        super().connection_lost(exc)

    @property
    def is_arriving(self) -> bool:
        """Whether bytes of a request are likely to come that nobody is at work on yet."""
        return self._timer is not None and (self.cycle is None or self.cycle.response_complete)

    def _refuse(self) -> None:
        """Nothing more is read of a head without an end."""
        if self._complete and (self.cycle is None or self.cycle.response_complete):
            self.transport.write(_TOO_LONG_ANSWER)
            self.transport.close()
        else:  # this request, or the one before, has an answer already or is about to get it
            self.transport.abort()

    def _rest(self) -> None:
        """Once a request is over, uvicorn's own timeout counts, or ours where it set none."""
        if self._is_answered_early():
            self._until, self._rest_bytes = self.loop.time() + self.timeout_s, self.max_bytes
            self._linger(0)
        elif self.cycle is not None and self.cycle.response_complete:
            # It sets one behind an answer, and takes it back when more of the body comes.
            is_set = self.timeout_keep_alive_task is not None
            self._expect(None if is_set else self.timeout_s)

    def _is_answered_early(self) -> bool:
        return not self._complete and self.cycle.response_complete

    def _linger(self, count: int) -> None:
        """Let a client send on, for it may read the answer only once it has sent all."""
        self._rest_bytes -= count
        if self._rest_bytes >= 0:
            self._expect(min(LINGER_S, self._until - self.loop.time()))

    def _expect(self, within_s: float | None) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if within_s is not None:
            self._timer = self.loop.call_later(within_s, self.transport.abort)


def patient(timeout_s: float, max_bytes: int) -> type[Patient]:
    """A protocol for uvicorn that gives up on a connection.

    Args:
        timeout_s: for the first line and the headers of a request, from its first byte on, and for
            that byte itself on a new connection; for what is left of a body once it is answered;
            for fetching the last answer; three times that for all of a request and its answer.
        max_bytes: of what is left of a body once it is answered.
    """
    return type("Patient", (Patient,), {"timeout_s": timeout_s, "max_bytes": max_bytes})
