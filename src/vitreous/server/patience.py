"""What a connection may take over one request: clients that dawdle don't keep their places.

Uvicorn has a timeout for idle connections, none for a request that arrives a byte at a time and
none for an answer that nobody fetches. Of a request's head it takes whatever comes.
"""

import asyncio
import json
from typing import TYPE_CHECKING, Any

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

if TYPE_CHECKING:
    from asyncio.events import TimerHandle

#: A client that was told no may send on for so long, so that it gets to reading the answer.
_LINGER_S = 2.0
#: Bytes in a row that bring nothing of a body: a head, trailers, or the frame of a chunk. It is
#: checked whenever some have been read, so it may be exceeded by as many as are read at once.
_HEAD_BYTES = 65_536

_TOO_LONG = json.dumps({"detail": f"the request's head has more than {_HEAD_BYTES} bytes"}).encode()
_TOO_LONG_ANSWER = (
    b"HTTP/1.1 431 Request Header Fields Too Large\r\nContent-Type: application/json\r\n"
    b"Content-Length: %d\r\nConnection: close\r\n\r\n%s" % (len(_TOO_LONG), _TOO_LONG)
)


def patient(head_s: float, whole_s: float) -> type[asyncio.Protocol]:
    """A protocol for uvicorn that gives up on a connection.

    Args:
        head_s: for the first line and the headers of a request, from its first byte on, and for
            that byte itself on a new connection.
        whole_s: for all of a request and its answer.
    """

    class Patient(HttpToolsProtocol):
        """Closes a connection whose request isn't over in time, or has too long a head."""

        _timer: "TimerHandle | None" = None
        #: Whether the last byte of the request has come.
        _complete = True
        #: Bytes since the last ones of a body.
        _without_body = 0

        def connection_made(self, transport: Any) -> None:
            super().connection_made(transport)
            self._expect(head_s)

        def data_received(self, data: bytes) -> None:
            if self._timer is None:
                self._expect(head_s)
            self._without_body += len(data)
            super().data_received(data)
            if self._without_body > _HEAD_BYTES and not self.transport.is_closing():
                self._refuse()

        def on_headers_complete(self) -> None:
            self._complete = False
            self._expect(whole_s)
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

        def connection_lost(self, exc: Exception | None) -> None:
            self._expect(None)
            super().connection_lost(exc)

        def _refuse(self) -> None:
            """Nothing more is read of a head without an end."""
            if self._complete and (self.cycle is None or self.cycle.response_complete):
                self.transport.write(_TOO_LONG_ANSWER)
                self.transport.close()
            else:  # this request, or the one before, has an answer already or is about to get it
                self.transport.abort()

        def _rest(self) -> None:
            """Once a request is over, uvicorn's own timeout counts."""
            if self.cycle is not None and self.cycle.response_complete:
                self._expect(None if self._complete else _LINGER_S)

        def _expect(self, within_s: float | None) -> None:
            if self._timer is not None:
                self._timer.cancel()
                self._timer = None
            if within_s is not None:
                self._timer = self.loop.call_later(within_s, self.transport.abort)

    return Patient
