"""How long a connection may take over one request: clients that dawdle don't keep their places.

Uvicorn has a timeout for idle connections, none for a request that arrives a byte at a time and
none for an answer that nobody fetches.
"""

import asyncio
from typing import TYPE_CHECKING, Any

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

if TYPE_CHECKING:
    from asyncio.events import TimerHandle


#: A client that was told no may send on for so long, so that it gets to reading the answer.
_LINGER_S = 2.0


def patient(head_s: float, whole_s: float) -> type[asyncio.Protocol]:
    """A protocol for uvicorn that gives up on a connection.

    Args:
        head_s: for the first line and the headers of a request, from its first byte on, and for
            that byte itself on a new connection.
        whole_s: for all of a request and its answer.
    """

    class Patient(HttpToolsProtocol):
        """Closes a connection whose request isn't over in time."""

        _timer: "TimerHandle | None" = None
        #: Whether the last byte of the request has come.
        _complete = True

        def connection_made(self, transport: Any) -> None:
            super().connection_made(transport)
            self._expect(head_s)

        def data_received(self, data: bytes) -> None:
            if self._timer is None:
                self._expect(head_s)
            super().data_received(data)

        def on_headers_complete(self) -> None:
            self._complete = False
            self._expect(whole_s)
            super().on_headers_complete()

        def on_message_complete(self) -> None:
            self._complete = True
            super().on_message_complete()
            self._rest()

        def on_response_complete(self) -> None:
            super().on_response_complete()
            self._rest()

        def connection_lost(self, exc: Exception | None) -> None:
            self._expect(None)
            super().connection_lost(exc)

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
