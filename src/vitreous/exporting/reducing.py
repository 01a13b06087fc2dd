"""A sealed file in fewer bits, which has its name only where it passes the gate."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from vitreous.core.files import atomic_path, staging_folder
from vitreous.errors import VitreousError
from vitreous.exporting.contract import Contract
from vitreous.exporting.gate import Gate, ask_both
from vitreous.exporting.parity import Parity
from vitreous.exporting.precision import Reduced, reduce_precision, write_metadata
from vitreous.exporting.sealed_file import SealedFile, open_sealed
from vitreous.exporting.sealing import Sealing, seal


@dataclass(frozen=True)
class Terms:
    """On what terms fewer bits are taken.

    Args:
        precision: of the network.
        max_drop: points of accuracy that may be lost.
        tested: pictures to lose them on, upright RGB of any size, each with its class.
        learned: others, to see the network's values at.
        on_gate: is told what it costs, before anything is refused.
    """

    precision: Reduced
    max_drop: float
    tested: Iterable[tuple[np.ndarray, str]]
    learned: Sequence[np.ndarray]
    on_gate: Callable[[Gate], None] | None = None


def seal_reduced(
    sealing: Sealing, pictures: Sequence[np.ndarray], path: Path, terms: Terms
) -> Parity:
    """Write a sealed ONNX file in fewer bits; what surely costs too much is not left behind.

    Args:
        sealing: what it is made of.
        pictures: to compare the same in float32 with the classifier on, as in `sealing.seal`.
        path: the new file.
        terms: on which it is taken.

    Returns:
        How far the same in float32 is from the classifier.

    Raises:
        DataError: where no picture is there to lose accuracy on.
        StorageError: where it can't be written.
        VitreousError: where too much accuracy is lost, or the same in float32 differs.
    """
    with staging_folder(path) as folder:
        whole = folder / "whole.onnx"
        parity = seal(sealing, pictures, whole, "onnx")
        with atomic_path(path) as staging:
            reduce_precision(whole, staging, terms.precision, terms.learned)
            gate = _examine(open_sealed(whole), open_sealed(staging), path, terms)
            if terms.on_gate:
                terms.on_gate(gate)
            if gate.verdict == "refused":
                raise VitreousError(f"{path} is not written: {gate.in_words()}")
            # What was calibrated is another network's answers.
            contract = _told(sealing.contract(promising=False), gate)
            write_metadata(staging, contract.to_metadata())
    return parity


def _examine(whole: SealedFile, reduced: SealedFile, path: Path, terms: Terms) -> Gate:
    comparison, milliseconds = ask_both(
        lambda picture: whole.answer(picture)[0],
        lambda picture: reduced.answer(picture)[0],
        terms.tested,
        whole.contract.classes,
    )
    sizes = (file.path.stat().st_size / 1e6 for file in (whole, reduced))
    return Gate(
        path, terms.precision, terms.max_drop, comparison, milliseconds, (next(sizes), next(sizes))
    )


def _told(contract: Contract, gate: Gate) -> Contract:
    """What the file says of itself, with what its precision costs."""
    cost = (
        f"## Precision\n\n{gate.precision} instead of float32. On {gate.comparison.n:,} pictures: "
        f"{gate.in_words()}. What is said above was measured in float32.\n"
    )
    return replace(
        contract,
        precision=gate.precision,
        tolerance=1.0,  # what was held to a limit is accuracy, no single probability
        card=f"{contract.card.rstrip()}\n\n{cost}",
    )
