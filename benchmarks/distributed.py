"""Training by several processes: against one alone, with one of them killed, and what a step takes.

    python benchmarks/distributed.py --out DIR [--only first curves] [--seeds 0] [--kills 5]

Drawn faces of 48 px and what the `scratch` recipe chooses for them (a stem of convolutions with
batch norm, Muon, moving average, every augmentation), in float32. `torchrun` starts this file, too,
which is then one of its processes.
"""

import argparse
import hashlib
import json
import os
import random
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from vitreous.core.files import write_json, write_text
from vitreous.core.machine import processor

PARTS = ("steps", "first", "kills", "curves")
FIRST = 20
#: A step is measured in turns of so many, a way after the other.
TURN, TURNS = 6, 5


def launch(count: int, words: Sequence[str], stops: bool = False, **variables: str) -> None:
    """What `torchrun` does with this file; a run that is stopped ends with an error."""
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", str(count)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", **variables}
    command += ["--max-restarts", "0" if stops else "3", __file__, *words]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    if done.returncode and not stops:
        raise SystemExit(done.stderr)


def train_words(faces: Path, out: Path, seed: int, epochs: int) -> list[str]:
    return ["train", str(faces), "--out", str(out), "--seed", str(seed), "--epochs", str(epochs),
            "--model", "compact-48", "--cache", str(faces.parent / "cache"),
            "--set", "train.batch_size=60", "--set", "train.shards=4",
            "--set", "train.precision=float32", "--set", "train.device=cpu"]  # fmt: skip


def losses(run: Path) -> list[float]:
    lines = map(json.loads, (run / "metrics.jsonl").read_text().splitlines())
    return [line["loss"] for line in lines if line["kind"] == "train"]


def accuracy(run: Path) -> float:
    return json.loads((run / "evaluation.json").read_text())["accuracy"]["value"]


def compare(folder: Path, seed: int, epochs: int, stop: int | None) -> list[dict[str, Any]]:
    """The same training by other numbers of processes, and by one from weights hardly different.

    Args:
        folder: for faces and runs.
        seed: of every draw.
        epochs: that are planned.
        stop: steps after which all is known; ``None`` for the end, where accuracy is.
    """
    found, alone = [], []
    for count, disturbed in ((1, False), (1, True), (2, False), (4, False)):
        run = folder / f"run-{seed}-{epochs}-{count}{'-disturbed' * disturbed}"
        variables = {"DISTURB": "1"} if disturbed else {}
        variables |= {"STOP": str(stop)} if stop else {}
        launch(
            count, train_words(folder / "faces", run, seed, epochs), stop is not None, **variables
        )
        alone = alone or losses(run)
        pairs = list(zip(alone, losses(run), strict=True))
        differences = [abs(one - other) / one for one, other in pairs]
        row = {"seed": seed, "processes": count, "disturbed": disturbed, "steps": len(pairs)}
        row |= {"first": max(differences[:FIRST]), "all": max(differences)}
        row |= {} if stop else {"accuracy": round(accuracy(run), 3)}
        found.append(row)
        print(row, flush=True)
    return found


def kill_some(folder: Path, kills: int) -> list[dict[str, Any]]:
    """A process of two is killed at a random step; the run has to end like an unbroken one."""
    rng, found = random.Random(0), []
    straight = folder / "straight"
    launch(2, train_words(folder / "faces", straight, 0, 2))
    steps = len(losses(straight))
    for number in range(kills):
        run, victim, step = folder / f"killed-{number}", rng.randrange(2), rng.randrange(steps)
        words = train_words(folder / "faces", run, 0, 2)
        launch(2, words, VICTIM=str(victim), VICTIM_STEP=str(step))
        same = [
            hashlib.sha256((one / name).read_bytes()).hexdigest()
            == hashlib.sha256((straight / name).read_bytes()).hexdigest()
            for name in ("last.safetensors", "best.safetensors")
            for one in (run,)
        ]
        same.append(losses(run) == losses(straight))
        found.append({"victim": victim, "step": step, "steps": steps, "same": all(same)})
        print(found[-1], flush=True)
    return found


def die_at_step(step: int) -> None:
    """Kill this process where a step is to be taken."""
    from vitreous.training.learner import Learner

    learn = Learner.learn

    def die(self, plan):
        if self.state.step == step:
            os.kill(os.getpid(), signal.SIGKILL)
        return learn(self, plan)

    Learner.learn = die


def change_learning(stop: int | None, disturbed: bool) -> None:
    """Stop this process' run behind a step; change the first weights hardly."""
    import torch

    from vitreous.training.learner import Learner

    learn = Learner.learn

    def changed(self, plan):
        if disturbed and self.state.step == 0:
            noise = torch.Generator().manual_seed(0)
            with torch.no_grad():
                for weight in self.state.model.parameters():
                    weight.mul_(1 + 1e-7 * torch.randn(weight.shape, generator=noise))
        loss = learn(self, plan)
        if self.state.step == stop:
            os.kill(os.getpid(), signal.SIGINT)
        return loss

    Learner.learn = changed


def measure_steps(out: Path) -> None:
    """Seconds of a step: gradients summed up behind the way back, or by PyTorch's DDP meanwhile."""
    import numpy as np
    import torch
    from torch.nn.parallel import DistributedDataParallel

    from vitreous.data.config import AugmentConfig, DataConfig
    from vitreous.data.loader import PictureSet
    from vitreous.data.preprocess import Preprocess
    from vitreous.model.presets import preset
    from vitreous.training.config import RunConfig, TrainConfig
    from vitreous.training.distributed import join
    from vitreous.training.learner import ClassLearner
    from vitreous.training.plan import plan_epochs

    team, plan = join(), plan_epochs(100, 10)
    noise = np.random.default_rng(0).integers(0, 256, (600, 48, 48, 3), dtype=np.uint8)
    pictures = PictureSet(noise, np.arange(600), torch.arange(600) % 3, ())
    config = RunConfig(
        recipe="benchmark",
        data=DataConfig(source="noise"),
        model=preset("compact-48"),
        preprocess=Preprocess(image_size=(48, 48)),
        augment=AugmentConfig(),
        train=TrainConfig(batch_size=60, precision="float32", device="cpu"),
    )
    # Each process does all of this by itself: none leads.
    ways = {name: ClassLearner(config, pictures, ("a", "b", "c")) for name in ("ours", "DDP")}
    other = ways["DDP"]
    wrapped = DistributedDataParallel(
        other.state.model, broadcast_buffers=False, gradient_as_bucket_view=True
    )
    # It takes the mean over the processes and sums up by itself, as FSDP does.
    other.shards._models, other.shards._sharded = [wrapped], True
    quiet = type(team).tell
    type(team).tell = lambda self, what, **more: None
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    for turn in range(TURNS + 1):
        for name, learner in ways.items():
            for _ in range(TURN):
                started = time.perf_counter()
                learner.learn(plan)
                if turn:
                    seconds[name].append(time.perf_counter() - started)
    type(team).tell = quiet
    if team.leads:
        same = [
            torch.allclose(one, two, atol=1e-5)
            for one, two in zip(
                *(way.state.model.parameters() for way in ways.values()), strict=True
            )
        ]
        medians = {name: statistics.median(values) for name, values in seconds.items()}
        write_json(out, {"seconds": medians, "same_weights": all(same)})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--only", nargs="+", choices=PARTS, default=PARTS)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--epochs", type=int, default=12)
    parser.add_argument("--kills", type=int, default=5)
    asked = parser.parse_args()
    asked.out.mkdir(parents=True, exist_ok=True)
    from vitreous.data.faces import write_faces

    folder, file = Path(tempfile.mkdtemp()), asked.out / "distributed.json"
    found = json.loads(file.read_text()) if file.exists() else {"machine": processor()}
    try:
        for seed, (split, per_class) in enumerate({"train": 200, "valid": 50, "test": 100}.items()):
            write_faces(folder / "faces" / split, per_class, size=48, seed=seed)
        for part in asked.only:
            print(f"== {part}", flush=True)
            if part == "steps":
                launch(2, ["steps", str(folder / "steps.json")])
                found[part] = json.loads((folder / "steps.json").read_text())
            elif part == "kills":
                found[part] = kill_some(folder, asked.kills)
            else:
                epochs, stop = (300, FIRST) if part == "first" else (asked.epochs, None)
                found[part] = [
                    row for seed in asked.seeds for row in compare(folder, seed, epochs, stop)
                ]
            write_json(file, found)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    if set(PARTS) <= found.keys():
        write_text(asked.out / "README.md", page(found))
        print((asked.out / "README.md").read_text())


def page(found: dict[str, Any]) -> str:
    """The results as a page."""
    rows = {"first": "", "curves": ""}
    for part in rows:
        for row in found[part]:
            name = "1, disturbed" if row["disturbed"] else row["processes"]
            score = f" {row.get('accuracy', '')} |" if part == "curves" else ""
            rows[part] += (
                f"| {row['seed']} | {name} | {row['first']:.0e} | {row['all']:.0e} |{score}\n"
            )
    kills, steps = found["kills"], found["steps"]["seconds"]
    same, total = sum(kill["same"] for kill in kills), found["curves"][0]["steps"]
    return f"""# Several processes against one

`python benchmarks/distributed.py --out DIR`, on {found["machine"]}, one thread each, beside other
work. 600 drawn faces of 48 px, `compact-48`, Muon, every augmentation, batches of 60 in four parts,
float32. Largest relative difference of the training loss from that of one process. "Disturbed" is
one process whose first weights were changed by 1e-7 of themselves: what rounding alone becomes.

The first {FIRST} steps of a run of 300 epochs, the recipe's length:

| seed | processes | first {FIRST} steps | all steps |
| --- | --- | --- | --- |
{rows["first"]}
A whole short run, {total} steps, whose rate is at its highest within the first {FIRST}; accuracy on
300 faces:

| seed | processes | first {FIRST} steps | all steps | accuracy |
| --- | --- | --- | --- | --- |
{rows["curves"]}
One of two processes killed (SIGKILL) at a random step, started again by `torchrun --max-restarts`:
{len(kills)} times, of which {same} ended with the same sha256 of the last and best weights and the
same losses as an unbroken run.

A step of two processes, median, in turns: {1000 * steps["ours"]:.0f} ms with the gradient summed up
behind the way back, {1000 * steps["DDP"]:.0f} ms with PyTorch's DistributedDataParallel.
"""


def work() -> None:
    """One of the processes."""
    if sys.argv[1] == "steps":
        measure_steps(Path(sys.argv[2]))
        return
    from vitreous.cli import main as command
    from vitreous.training import diary

    diary.CHECKPOINT_INTERVAL_S = 0.0
    diary.LINES_PER_RUN = 1_000_000  # one for each step
    is_first_try = os.environ["TORCHELASTIC_RESTART_COUNT"] == "0"
    if is_first_try and os.environ["RANK"] == os.environ.get("VICTIM"):
        die_at_step(int(os.environ["VICTIM_STEP"]))
    if {"STOP", "DISTURB"} & os.environ.keys():
        stop = int(os.environ.get("STOP", "0")) or None
        change_learning(stop if os.environ["RANK"] == "0" else None, "DISTURB" in os.environ)
    command()


if __name__ == "__main__":
    work() if "TORCHELASTIC_RUN_ID" in os.environ else main()
