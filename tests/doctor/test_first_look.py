from dataclasses import replace

import pytest

from vitreous.data.folder import list_labelled
from vitreous.doctor import first_look
from vitreous.doctor.findings import Checkup
from vitreous.doctor.first_look import look_first


def test_it_finds_what_the_command_finds(sick):
    found = look_first(list_labelled(sick.folder), sick.folder, None)
    assert found is not None
    kinds = {finding.kind for finding in found.findings}
    assert {"leak", "label_conflict", "truncated", "duplicate"} <= kinds
    assert kinds <= {finding.kind for finding in sick.checkup.findings}


def test_a_record_is_the_checkup_again(sick):
    record = sick.checkup.to_record()
    assert Checkup.from_record(record) == replace(sick.checkup, proposal=())


def test_what_is_not_listed_is_not_found(sick):
    source = sick.folder
    listing = list_labelled(source)
    dropped = {finding.files[0] for finding in sick.checkup.findings if finding.kind == "empty"}
    assert dropped
    kept = tuple(sample for sample in listing.samples if sample.path not in dropped)
    found = look_first(replace(listing, samples=kept), source, None)
    assert found is not None
    assert "empty" not in {finding.kind for finding in found.findings}


@pytest.mark.parametrize("left_s", [-1.0, 0.0, 1e-6])
def test_no_time_no_look(healthy, left_s):
    assert look_first(list_labelled(healthy), healthy, left_s) is None


def test_a_look_that_takes_longer_than_was_thought_is_given_up(healthy, monkeypatch):
    monkeypatch.setattr(first_look, "_needed_s", lambda listing: 0.0)
    told = []
    listing = list_labelled(healthy)
    assert look_first(listing, healthy, 1e-6, lambda *words: told.append(words)) is None
    assert told == []
    assert look_first(listing, healthy, 1e6, lambda *words: told.append(words)) is not None
    assert told


def test_time_enough(healthy):
    found = look_first(list_labelled(healthy), healthy, left_s=1e6)
    assert found is not None
    assert found.verdict == "Nothing found in 310 pictures."


def test_too_many_pictures_are_left_to_whoever_asks(healthy, monkeypatch):
    monkeypatch.setattr(first_look, "MOST", 309)
    assert look_first(list_labelled(healthy), healthy, None) is None
    monkeypatch.setattr(first_look, "MOST", 310)
    assert look_first(list_labelled(healthy), healthy, None) is not None
