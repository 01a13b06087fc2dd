"""From start to end: the port, the model, signals, a model in another's place, and the last answer.

SIGTERM and Ctrl-C end a server so that no request is lost: ``/readyz`` says no, whoever is still
connected gets an answer and with it the end of the connection, and only then the port is closed.
Connections that the system has taken and this process hasn't yet end with the port: no process can
tell the system to take no more and still get those.
SIGHUP opens the model anew, beside the old one, which answers until the new one is warm.
"""

import asyncio
import contextlib
import logging
import os
import signal
import socket
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace

import uvicorn

from vitreous.core.console import Console
from vitreous.errors import ConfigError, VitreousError
from vitreous.server.app import Service
from vitreous.server.model import Served, Wanted, open_served
from vitreous.server.patience import Patient, patient
from vitreous.server.settings import Settings

#: Between the signal and the closing of the port; a balancer asks ``/readyz`` once a second or so.
_LAST_CALL_S = 1.0
#: After the port is closed, what has been sent by then may be so late; see `Running.shutdown`.
_LATE_S = 1.0
#: Between two looks at that.
_TURN_S = 0.05
#: An idle connection is kept so long; browsers and balancers keep theirs longer, and open new ones.
_KEEP_ALIVE_S = 15
#: Connections at once, of some kilobytes each; uvicorn tells the next ones 503, in plain text.
_CONNECTIONS = 1000


def serve(
    wanted: Wanted,
    settings: Settings,
    console: Console,
    on_ready: Callable[["Running"], None] | None = None,
) -> None:
    """Answer over HTTP until a signal ends it.

    Args:
        wanted: the model.
        settings: where to listen, and what is allowed.
        console: is told where the page is, how to stop, and of reloads.
        on_ready: is called once requests are answered, with what ends the server.

    Raises:
        ConfigError: for a port that is taken, or a host that isn't this machine.
        UserError: where there is no such model.
    """
    listening = _bind(settings)
    with contextlib.closing(listening), _hangups_kept() as has_hung_up:
        # The service alone has the model, so that none stays in memory behind a reload.
        service = Service(_opened(replace(wanted, workers=settings.workers), console), settings)
        config = uvicorn.Config(
            service.app,  # pyright: ignore[reportArgumentType]
            # uvloop, where it is installed, fails where a client has left, and gains nothing here.
            loop="asyncio",
            http=patient(settings.timeout_s, settings.max_bytes),
            ws="none",
            lifespan="on",
            log_config=None,
            access_log=False,
            server_header=False,
            limit_concurrency=_CONNECTIONS,
            timeout_keep_alive=_KEEP_ALIVE_S,
            timeout_graceful_shutdown=int(3 * settings.timeout_s) + 1,
        )
        _hush()
        port = listening.getsockname()[1]

        def ready(running: Running) -> None:
            if has_hung_up.is_set():
                running.reload()
            if on_ready:
                on_ready(running)

        running = Running(config, service, wanted, settings, console, port, ready)
        running.run(sockets=[listening])


class Running(uvicorn.Server):
    """A server at work.

    Attributes:
        port: that it listens on.
        service: that it runs.
    """

    def __init__(
        self,
        config: uvicorn.Config,
        service: Service,
        wanted: Wanted,
        settings: Settings,
        console: Console,
        port: int,
        on_ready: Callable[["Running"], None],
    ) -> None:
        super().__init__(config)
        self.service, self.port = service, port
        self._wanted, self._settings, self._console = wanted, settings, console
        self._on_ready, self._reloading = on_ready, threading.Lock()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Begin to listen, and say so."""
        await super().startup(sockets)
        _greet(self._settings, self.port, self._console)
        self._on_ready(self)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Close the port, and connections once nothing comes any more.

        Uvicorn closes each that isn't being answered, one whose request has been sent and not been
        read too.
        """
        for server in self.servers:
            server.close()
        until = self._loop.time() + _LATE_S
        await asyncio.sleep(_TURN_S)  # those taken last become connections
        while not self.force_exit and self._loop.time() < until and self._are_arriving():
            await asyncio.sleep(_TURN_S)
        await super().shutdown(sockets)

    def _are_arriving(self) -> bool:
        connections = self.server_state.connections
        return any(isinstance(one, Patient) and one.is_arriving for one in connections)

    def end(self) -> None:
        """End without losing a request; callable from any thread. A second call ends at once."""
        self._loop.call_soon_threadsafe(self._end)

    def reload(self) -> None:
        """Open the model anew, in a thread, and let it take over once it is warm."""
        threading.Thread(target=self._reload, daemon=True).start()

    def _end(self) -> None:
        if self.service.draining:
            self.force_exit = self.should_exit = True
            for one in list(self.server_state.connections):  # asyncio would wait for them
                if one.transport is not None:
                    one.transport.abort()
            return
        self._console.info("ending: answering what has been asked")
        self.service.drain()
        self._loop.call_later(_LAST_CALL_S, setattr, self, "should_exit", True)

    def _reload(self) -> None:
        with self._reloading:
            reloads = self.service.metrics.reloads
            try:
                wanted = replace(self._wanted, workers=self.service.served.workers)
                served = _opened(wanted, self._console)
            except Exception as error:
                reloads.labels("failed").inc()
                self._console.warn(f"the model stays as it was, opening it anew failed: {error}")
                if not isinstance(error, VitreousError):
                    logging.getLogger(__name__).exception("reload")
                return
            self.service.take(served)
            reloads.labels("done").inc()
            self._console.info(f"{served.name} opened anew")

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """End on SIGTERM and Ctrl-C, reload on SIGHUP; exit status 0, as it was asked for."""
        self._loop = asyncio.get_running_loop()
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        actions = {signal.SIGTERM: self.end, signal.SIGINT: self.end}
        if hasattr(signal, "SIGHUP"):
            actions[signal.SIGHUP] = self.reload
        before = {
            number: signal.signal(number, lambda *_, act=act: act())
            for number, act in actions.items()
        }
        try:
            yield
        finally:
            for number, handler in before.items():
                if handler is not None:  # of a C program around this one
                    signal.signal(number, handler)


@contextlib.contextmanager
def _hangups_kept() -> Iterator[threading.Event]:
    """Let a SIGHUP wait until there is a model to open anew, rather than end the process."""
    has_come = threading.Event()
    is_main = threading.current_thread() is threading.main_thread()
    if not is_main or not hasattr(signal, "SIGHUP"):
        yield has_come
        return
    before = signal.signal(signal.SIGHUP, lambda *_: has_come.set())
    try:
        yield has_come
    finally:
        if before is not None:  # of a C program around this one
            signal.signal(signal.SIGHUP, before)


def _opened(wanted: Wanted, console: Console) -> Served:
    served = open_served(wanted, console)
    served.warm_up()
    return served


def _hush() -> None:
    """Let libraries tell of faults alone: they would log bytes of broken requests."""
    logging.getLogger("uvicorn.error").setLevel(logging.ERROR)
    logging.getLogger("python_multipart").setLevel(logging.CRITICAL)


def _bind(settings: Settings) -> socket.socket:
    """A socket of the address; nobody can connect before it listens."""
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            settings.host, settings.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        listening = socket.socket(family, kind, protocol)
        try:
            if os.name == "posix":  # on Windows two servers would share a port
                listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listening.bind(address)
        except OSError:
            listening.close()
            raise
    except (OSError, UnicodeError) as error:
        reason = getattr(error, "strerror", None) or error
        raise ConfigError(
            f"can't listen on {settings.host}, port {settings.port} ({reason}): choose another "
            "--host or --port"
        ) from None
    listening.setblocking(False)
    listening.set_inheritable(False)
    return listening


def _greet(settings: Settings, port: int, console: Console) -> None:
    host = socket.gethostname() if settings.host in ("0.0.0.0", "::") else settings.host
    address = f"http://{f'[{host}]' if ':' in host else host}:{port}"
    if not settings.is_local and settings.api_key is None:
        console.warn(
            f"whoever reaches {address} can ask: give --api-key-file, or listen on this machine "
            "alone"
        )
    console.info(f"page: {address}/  what programs can ask: {address}/docs  (stop: Ctrl-C)")
