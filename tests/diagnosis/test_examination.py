"""Which folder of a run is looked at: its own, or that of the fold or rung that it ended in."""

import os

import pytest

from vitreous.core.run import RunFolder
from vitreous.diagnosis.examination import newest_part

PARTS = ["folds/1", "folds/2-1", "folds/2-1/rungs/lora", "rungs/full"]


@pytest.fixture
def run(tmp_path) -> RunFolder:
    """With parts that have a log, the first the oldest."""
    for number, part in enumerate(PARTS):
        log = RunFolder(tmp_path / part).metrics
        log.parent.mkdir(parents=True, exist_ok=True)
        log.write_text("{}\n")
        os.utime(log, ns=(number, number))
    return RunFolder(tmp_path)


@pytest.mark.parametrize("newest", PARTS)
def test_a_run_without_a_log_is_looked_at_in_its_newest_part(run, newest):
    os.utime(run.path / newest / "metrics.jsonl", ns=(9, 9))
    part = newest_part(run)
    assert part.path == run.path / newest
    assert part.whole == run.path


def test_a_part_that_has_not_begun_is_none(run):
    part = run.fold("3")
    part.metrics.touch()
    assert newest_part(run).path == run.path / PARTS[-1]


@pytest.mark.parametrize("name", ["metrics", "best"])
def test_what_the_run_has_itself_comes_first(run, name):
    """The head alone that a ladder may keep has no log."""
    getattr(run, name).touch()
    assert newest_part(run) is run


def test_a_run_that_has_not_begun_is_itself(tmp_path):
    assert newest_part(RunFolder(tmp_path)).path == tmp_path
