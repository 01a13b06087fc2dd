"""`audit` of a run, as a person asks for it: look at the labels, write page and proposal.

Part of `api`, where pictures that no run has learned from yet are trained on first.
"""

from dataclasses import replace
from functools import partial
from pathlib import Path

from vitreous.core.run import RunFolder
from vitreous.data.folder import check_beside
from vitreous.labels.audit import Audit, audit_folds
from vitreous.pages.proposal import write_proposal


def audit_run(run: Path, out: Path | None) -> Audit:
    """Say which labels of a run with folds are probably wrong.

    Args:
        run: the run's folder.
        out: a new folder for the page ``index.html`` and the proposal ``overlay.csv``; without it
            nothing is written.

    Raises:
        RunError: where it is no run with folds, something stands at `out`, or that lies among the
            pictures.
        StorageError: where the disk is full.
    """
    audit = audit_folds(RunFolder.open(run))
    if out is None:
        return audit
    check_beside(out, audit.source)
    from vitreous.labels.page import render_audit

    page, overlay = write_proposal(out, partial(render_audit, audit), audit.proposal)
    return replace(audit, page=page, overlay=overlay)
