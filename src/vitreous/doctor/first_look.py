"""The doctor's visit before training: what is wrong is told before it is learned.

`job` asks for it and keeps what was found with the run, for its report.
"""

import math
import time
from pathlib import Path

import numpy as np

from vitreous.data.cache import Progress
from vitreous.data.folder import Listing
from vitreous.data.remote import is_remote
from vitreous.doctor.checkup import check_listing
from vitreous.doctor.examine import examine
from vitreous.doctor.findings import Checkup

#: Pictures that are looked at unasked, and the share of a time budget that this may take.
MOST, SHARE = 50_000, 0.05
#: Pictures that tell how long all take, and how much longer a visit is than looking at them.
_TRIED, _MARGIN = 32, 1.5


def look_first(
    listing: Listing, source: Path, left_s: float | None, on_progress: Progress | None = None
) -> Checkup | None:
    """Look at the pictures that a run is about to learn from, where that is cheap.

    Args:
        listing: the pictures, an overlay applied.
        source: the folder or table.
        left_s: seconds that the whole run may still take; ``None`` for any.
        on_progress: called with a description, the parts done and their total.

    Returns:
        What was found; ``None`` where looking would take too long.
    """
    count = len(listing.samples)
    if count > MOST or is_remote(source):
        return None
    if left_s is not None and _needed_s(listing) > SHARE * left_s:
        return None
    deadline = time.monotonic() + SHARE * left_s if left_s is not None else math.inf

    def in_time(description: str, done: int, total: int) -> None:
        if time.monotonic() > deadline:
            raise _TooLongError
        if on_progress:
            on_progress(description, done, total)

    try:
        return check_listing(listing, source, in_time)
    except _TooLongError:
        return None


class _TooLongError(Exception):
    """Comparing all pairs takes longer than the few pictures that were tried could tell."""


def _needed_s(listing: Listing) -> float:
    """How long a visit takes, from a few pictures spread over all."""
    count = len(listing.samples)
    tried = np.unique(np.linspace(0, count - 1, _TRIED).astype(int))
    began = time.monotonic()
    examine([listing.samples[at].path for at in tried])
    return _MARGIN * (time.monotonic() - began) * count / len(tried)
