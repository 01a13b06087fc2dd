"""Whether work is lost: runs killed at any moment, faults in every system call of a save, and more.

    python benchmarks/faults.py --out benchmarks/results/DATE_faults

Linux, as root, with `strace`: disks that are full or read-only are real ones (tmpfs). Three parts:

- kills: small runs of every kind are killed by SIGKILL at moments drawn at random, or right at one
  of their operations on files (drawn too, saves are full of them), and resumed until they end.
  Weights, log, plan and scores have to be those of a run that was never stopped.
- saves: a checkpoint is written while `strace` kills the process at one of its system calls, or
  lets that call fail (ENOSPC, EIO, EROFS), for every call. What can be read afterwards has to be
  whole, and the next save goes well.
- places: two processes in one run, a lock left by a dead one, a full disk, a read-only one,
  jumping clocks, pictures that disappear.
"""

import argparse
import os
import platform
import shutil
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

import faults_runs as runs
import numpy as np
from faults_places import PLACES
from faults_saves import measure_saves

from vitreous.core.files import write_json, write_text
from vitreous.core.run import code_fingerprint, versions

#: Sittings of one run, at most.
_MOST_SITTINGS = 60


def import_all() -> None:
    """What a run imports on its way, so that a process forked from here doesn't."""
    # ruff: noqa: F401
    import sklearn.linear_model
    import sklearn.metrics
    import sklearn.neighbors

    import vitreous.api
    import vitreous.doctor.page
    import vitreous.report.collect
    import vitreous.report.page
    import vitreous.report.reconstructions


def measure_kills(folder: Path, kills: int, seconds: float, seed: int) -> dict[str, Any]:
    """Kill runs of all cases in turn until there were enough kills or time is over."""
    rng, ends = np.random.default_rng(seed), time.monotonic() + seconds
    cases = runs.cases(folder)
    straight: dict[str, dict[str, str]] = {}
    found: dict[str, Counter[str]] = {case.name: Counter() for case in cases}
    took, operations, different = {}, {}, []
    for case in cases:
        out, tally = folder / f"{case.name}-straight", folder / "tally"
        tally.unlink(missing_ok=True)
        sitting = runs.sit(case.command(out), runs.count_file_operations(out, None, tally))
        status = sitting.wait()
        took[case.name] = time.monotonic() - sitting.started
        operations[case.name] = tally.stat().st_size
        straight[case.name] = runs.outcome(out)
        print(f"{case.name}: status {status}, {took[case.name]:.1f} s, "
              f"{operations[case.name]} operations on files", flush=True)  # fmt: skip
    turn = 0
    while sum(one["kills"] for one in found.values()) < kills and time.monotonic() < ends:
        case = cases[turn % len(cases)]
        turn += 1
        out, counts = folder / f"{case.name}-killed", found[case.name]
        shutil.rmtree(out, ignore_errors=True)
        for _ in range(_MOST_SITTINGS):
            words = case.resume(out) if (out / "config.toml").exists() else case.command(out)
            if rng.random() < 0.5:
                at = int(rng.integers(1, operations[case.name] + 1))
                aim = runs.count_file_operations(out, at, None)
                status, how = runs.sit(words, aim).wait(), "kills at a file"
            else:
                moment = rng.uniform(0.0, took[case.name])
                status, how = runs.sit(words).kill_after(moment), "kills at a moment"
            if status != -9:
                break
            counts["kills"] += 1
            counts[how] += 1
        counts["runs"] += 1
        same = runs.outcome(out) == straight[case.name]
        counts["same bits"] += same
        if not same:
            mine, theirs = runs.outcome(out), straight[case.name]
            names = [
                name for name in theirs.keys() | mine.keys() if mine.get(name) != theirs.get(name)
            ]
            different.append({"case": case.name, "status": status, "files": names})
            shutil.move(out, folder / f"different-{len(different)}")
        print(f"{case.name}: {dict(counts)}{'' if same else ' DIFFERENT'}", flush=True)
    return {
        "seed": seed,
        "cases": {case.name: {"what": case.what, **found[case.name],
                              "seconds": round(took[case.name], 1),
                              "file operations": operations[case.name],
                              "files compared": len(straight[case.name])} for case in cases},
        "different": different,
    }  # fmt: skip


def measure_places(folder: Path) -> list[dict[str, Any]]:
    """Each place with what happened there."""
    found = []
    for name, promised, try_it in PLACES:
        said = try_it(folder / name.replace(" ", "-"))
        kept = said is None
        print(f"{name}: {'kept' if kept else said}", flush=True)
        found.append({"place": name, "promised": promised, "kept": kept, "said": said})
    return found


def page(result: dict[str, Any], command: str) -> str:
    lines = ["# Faults", "", f"`{command}`; {result['where']}.", ""]
    if kills := result.get("kills"):
        total: Counter[str] = Counter()
        for case in kills["cases"].values():
            total.update({key: value for key, value in case.items() if isinstance(value, int)})
        lines += [
            f"**Kills**: {total['kills']} by SIGKILL, {total['kills at a file']} of them right "
            f"at an operation on a file; {total['runs']} runs resumed until they ended, "
            f"{total['same bits']} of them in the same bits as one that was never stopped (every "
            "file of weights by SHA-256, log, plan, scores).",
            "",
            "| run | what is on | kills | runs | same bits | files compared |",
            "| --- | --- | --- | --- | --- | --- |",
            *(
                f"| {name} | {case['what']} | {case.get('kills', 0)} | {case.get('runs', 0)} "
                f"| {case.get('same bits', 0)} | {case['files compared']} |"
                for name, case in kills["cases"].items()
            ),
            "",
        ]
    if saves := result.get("saves"):
        lines += [
            f"**Saves**: {sum(row['tried'] for row in saves)} faults, one in each system "
            f"call of a save (`strace -e inject`); in {sum(row['whole'] for row in saves)} cases "
            "the newest checkpoint that can be read was whole and the next save went well.",
            "",
            "| fault | tried | save failed | new one there | whole, and on |",
            "| --- | --- | --- | --- | --- |",
            *(
                f"| {row['fault']} | {row['tried']} | {row['failed']} | {row['new']} "
                f"| {row['whole']} |"
                for row in saves
            ),
            "",
        ]
    if places := result.get("places"):
        lines += [
            "| place | promised | kept |",
            "| --- | --- | --- |",
            *(
                f"| {row['place']} | {row['promised']} | {'yes' if row['kept'] else row['said']} |"
                for row in places
            ),
        ]
    return "\n".join(lines).rstrip() + "\n"


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--kills", type=int, default=200, help="0 leaves that part out")
    parser.add_argument("--minutes", type=float, default=60.0, help="for the kills, at most")
    parser.add_argument("--only", choices=["kills", "saves", "places"])
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, help="folder for table and figures")
    arguments = parser.parse_args()
    import_all()
    result: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        os.environ["XDG_CACHE_HOME"] = str(folder / "user-cache")
        # The saves first: their processes are forked before anything has started a thread.
        if arguments.only in (None, "saves"):
            result["saves"] = measure_saves(folder / "saves")
        if arguments.only in (None, "kills"):
            (folder / "kills").mkdir()
            seconds = 60 * arguments.minutes
            result["kills"] = measure_kills(
                folder / "kills", arguments.kills, seconds, arguments.seed
            )
        if arguments.only in (None, "places"):
            result["places"] = measure_places(folder)
    found = versions()
    result["where"] = (
        f"{platform.system()} {platform.machine()}, {os.cpu_count()} cores, "
        f"Python {found['python']}, torch {found['torch']}, "
        f"safetensors {found['safetensors']}, code {code_fingerprint()}"
    )
    command = f"python {' '.join(sys.argv)}"
    text = page(result, command)
    print(text)
    if arguments.out:
        arguments.out.mkdir(parents=True, exist_ok=True)
        name = arguments.only or "faults"
        write_json(arguments.out / f"{name}.json", result)
        write_text(arguments.out / f"{'README' if name == 'faults' else name}.md", text)


if __name__ == "__main__":
    main()
