"""What a server allows, and where it listens."""

import math
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from vitreous.data.decode import MAX_IMAGE_PIXELS
from vitreous.errors import ConfigError

#: Where a key is looked for that nobody named a file of.
KEY_VARIABLE = "VITREOUS_API_KEY"
#: Of a key that nobody can guess.
_KEY_LENGTH = 16


@dataclass(frozen=True)
class Settings:
    """What a server allows, and where it listens.

    Args:
        host: address or name; by default this machine alone can ask.
        port: 0 for any that is free.
        workers: threads that read and classify a picture at a time; by default one for each core.
            On a GPU they read, and one more classifies.
        queue: pictures that may wait for a worker before others are turned away (429); by default
            one for each worker, on a GPU two batches.
        max_bytes: of the body of a request.
        max_pixels: of a picture, before it is decoded.
        max_pictures: of a request.
        timeout_s: for a request to arrive, and again for its answer.
        batch: pictures that are classified at once; by default 1, on a GPU 32.
        batch_wait_ms: how long the first picture of a batch waits for others.
        api_key: that a request has to know; ``None`` for none.
        allow_origins: of other web pages that may ask, such as ``https://example.org``.
        allow_frames: of other web pages that may show this one inside them.

    Raises:
        ConfigError: for a value that makes no sense.
    """

    host: str = "127.0.0.1"
    port: int = 8000
    workers: int | None = None
    queue: int | None = None
    max_bytes: int = 32_000_000
    max_pixels: int = 50_000_000
    max_pictures: int = 32
    timeout_s: float = 30.0
    batch: int | None = None
    batch_wait_ms: float = 2.0
    api_key: str | None = None
    allow_origins: tuple[str, ...] = ()
    allow_frames: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for name in ("workers", "queue", "max_bytes", "max_pixels", "max_pictures", "batch"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ConfigError(f"{name} is {value}: it is 1 or more")
        if self.max_pixels > MAX_IMAGE_PIXELS:
            raise ConfigError(
                f"max_pixels is {self.max_pixels}: nothing above {MAX_IMAGE_PIXELS:,} is decoded"
            )
        if not 0 <= self.port < 2**16:
            raise ConfigError(f"port is {self.port}: it lies between 0 and 65535")
        if not 0 < self.timeout_s < math.inf:
            raise ConfigError(f"timeout is {self.timeout_s}: it is a number of seconds above 0")
        if not 0 <= self.batch_wait_ms < math.inf:
            raise ConfigError(f"batch_wait_ms is {self.batch_wait_ms}: it is 0 or more")
        if self.api_key is not None and len(self.api_key) < _KEY_LENGTH:
            raise ConfigError(f"the API key has less than {_KEY_LENGTH} characters: take a longer")
        if self.api_key is not None and not (self.api_key.isascii() and self.api_key.isprintable()):
            raise ConfigError("the API key should be plain letters, digits and signs on one line")
        _check_origins("allow_origins", self.allow_origins)
        _check_origins("allow_frames", self.allow_frames)

    @property
    def is_local(self) -> bool:
        """Whether this machine alone can ask."""
        return self.host in ("localhost", "::1") or self.host.startswith("127.")


def read_key(file: Path | None) -> str | None:
    """The API key in a file, or else in the environment variable ``VITREOUS_API_KEY``.

    Raises:
        ConfigError: where the file can't be read or is empty, or the variable is empty.
    """
    if file is None:
        key = os.environ.get(KEY_VARIABLE)
        if key is not None and not key.strip():  # as of a secret that was forgotten
            raise ConfigError(f"{KEY_VARIABLE} is set and empty: give it the API key, or unset it")
        return key.strip() if key else None
    try:
        key = file.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "it isn't text"
        raise ConfigError(f"can't read the API key in {file}: {reason}") from None
    if not key:
        raise ConfigError(f"{file} is empty: it should hold the API key")
    return key


def origin_parts(origin: str) -> tuple[str, str]:
    """Scheme, and host with its port; both empty for what can't be taken apart."""
    try:
        parts = urlsplit(origin)
    except ValueError:
        return "", ""
    return parts.scheme, parts.netloc


def _check_origins(name: str, origins: Sequence[str]) -> None:
    for origin in origins:
        scheme, host = origin_parts(origin)
        # Both end up in headers, so nothing but scheme, host and port.
        if scheme not in ("http", "https") or f"{scheme}://{host}" != origin:
            raise ConfigError(
                f"{name} '{origin}': an origin is scheme, host and port, as in https://example.org"
            )
        if not host or any(sign in origin for sign in " ;,'\"*"):
            raise ConfigError(f"{name} '{origin}': name one host, without signs around it")
