import os
import subprocess
import sys

import pytest

from vitreous.core import machine


def test_free_cores_are_at_least_one_and_at_most_those_allowed():
    assert 1 <= machine.free_cores() <= machine.usable_cores() <= (os.cpu_count() or 1)


def test_a_core_is_busy_where_it_idles_less_than_half_the_time():
    before = {0: (100, 200), 1: (100, 200)}
    after = {0: (101, 205), 1: (104, 205)}
    assert machine._is_busy(before, after, 0)
    assert not machine._is_busy(before, after, 1)
    assert not machine._is_busy(before, after, 7)  # taken away meanwhile


@pytest.mark.parametrize(
    ("seen", "free", "asked"),
    [([0], 4, 1), ([3, 0], 4, 2), ([2, 3, 1], 3, 3), ([4, 4, 4], 1, 3)],
)
def test_a_core_that_is_busy_for_a_moment_is_free(monkeypatch, seen, free, asked):
    looks = iter(seen)
    monkeypatch.setattr(machine, "allowed_cores", lambda: {0, 1, 2, 3})
    monkeypatch.setattr(machine, "usable_cores", lambda: 4)
    monkeypatch.setattr(machine, "_core_ticks", dict)
    monkeypatch.setattr(machine, "_watch", lambda cores: next(looks))
    assert machine.free_cores() == free
    assert len(seen) - len(list(looks)) == asked


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="needs os.sched_setaffinity")
def test_a_process_bound_to_one_core_has_one():
    script = (
        "import os; os.sched_setaffinity(0, {min(os.sched_getaffinity(0))}); "
        "from vitreous.core.machine import free_cores, usable_cores; "
        "print(free_cores(), usable_cores())"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.stdout.split() == ["1", "1"], done.stderr


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_the_cores_of_the_system_are_read():
    ticks = machine._core_ticks()
    assert ticks is not None
    assert machine.allowed_cores() <= set(ticks)
    assert all(0 <= idle <= total for idle, total in ticks.values())


@pytest.mark.parametrize(
    ("files", "cores"),
    [
        ({}, 8),
        ({"cpu.max": "max 100000"}, 8),
        ({"cpu.max": "200000 100000"}, 2),
        ({"cpu.max": "max 100000", "pod/cpu.max": "150000 100000"}, 2),
        ({"cpu.max": "100000 100000", "pod/cpu.max": "400000 100000"}, 1),
        ({"cpu.max": "1000 100000"}, 1),
        ({"cpu.max": "9000000 100000"}, 8),
        ({"other/cpu.max": "100000 100000"}, 8),
        ({"cpu/cpu.cfs_quota_us": "-1", "cpu/cpu.cfs_period_us": "100000"}, 8),
        ({"cpu/cpu.cfs_quota_us": "300000", "cpu/cpu.cfs_period_us": "100000"}, 3),
    ],
)
def test_a_containers_time_is_less_than_its_cores(tmp_path, monkeypatch, files, cores):
    for name, text in {"own": "1:cpu:/x\n0::/pod\n", **files}.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    monkeypatch.setattr(machine, "_OWN_GROUPS", tmp_path / "own")
    monkeypatch.setattr(machine, "_GROUPS", tmp_path)
    monkeypatch.setattr(machine, "allowed_cores", lambda: set(range(8)))
    assert machine.usable_cores() == cores


def test_the_processor_has_a_name():
    assert machine.processor().endswith(f", {os.cpu_count()} cores")
    assert len(machine.processor()) > len(f", {os.cpu_count()} cores")
