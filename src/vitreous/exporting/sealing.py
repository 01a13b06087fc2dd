"""From a classifier to a sealed file that has its name only once its answers have been compared."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import torch

from vitreous.core.files import atomic_path, put_in_place, staging_folder
from vitreous.errors import WeightsError
from vitreous.evaluation.calibration import Calibration
from vitreous.evaluation.refusal import Refusal
from vitreous.exporting.card import RunFacts, write_card
from vitreous.exporting.contract import Contract, limits_of, without_promises
from vitreous.exporting.libraries import openvino_core
from vitreous.exporting.onnx import MOST_BYTES, bytes_of
from vitreous.exporting.parity import Parity, check_parity
from vitreous.exporting.sealed import Sealed, write_onnx, write_openvino, write_torch
from vitreous.exporting.sealed_file import open_sealed
from vitreous.training.classifier import Classifier

SealedFormat = Literal["onnx", "torch", "openvino"]


@dataclass(frozen=True)
class Sealing:
    """What a sealed file is made of.

    Args:
        classifier: in evaluation mode, on a CPU.
        calibration: how far it can be trusted, where that is known.
        facts: of its training, for the model card.
        name: of the model, for people.
        license: as its owner says.
    """

    classifier: Classifier
    calibration: Calibration | None
    facts: RunFacts
    name: str
    license: str

    @property
    def refusal(self) -> Refusal | None:
        return self.calibration.refusal if self.calibration else None

    def contract(self, promising: bool = True) -> Contract:
        """What the file will say of itself.

        Args:
            promising: whether what was calibrated holds for its answers.
        """
        classes = self.classifier.classes
        sets, refuse = limits_of(self.calibration, len(classes))
        if not promising:
            sets, refuse = without_promises(sets, refuse)
        return Contract(
            name=self.name,
            classes=classes,
            preprocess=self.classifier.preprocess,
            majority_class=self.classifier.majority_class,
            sets=sets,
            refuse=refuse,
            license=self.license,
            card=write_card(self.name, self.classifier, self.license, self.facts, sets, refuse),
        )


def seal(sealing: Sealing, pictures: Sequence[np.ndarray], path: Path, to: SealedFormat) -> Parity:
    """Write a sealed file; one that answers otherwise than the classifier is not left behind.

    Args:
        sealing: what it is made of.
        pictures: upright RGB of any size, at least one, to compare answers on.
        path: the new file.
        to: its format.

    Raises:
        StorageError: where it can't be written.
        VitreousError: where an answer differs by more than the tolerance.
    """
    write = {"onnx": _seal_onnx, "torch": _seal_torch, "openvino": _seal_openvino}[to]
    return write(sealing, pictures, path)


def _seal_onnx(sealing: Sealing, pictures: Sequence[np.ndarray], path: Path) -> Parity:
    size = bytes_of(sealing.classifier.model)
    if size > MOST_BYTES:
        raise WeightsError(
            f"{path.name} would hold {size / 1e9:.1f} GB of weights, and one ONNX file has room "
            f"for {MOST_BYTES / 1e9:.1f}: these have more, --to torch, openvino or safetensors"
        )
    with atomic_path(path) as staging:
        write_onnx(Sealed(sealing.classifier, sealing.refusal), sealing.contract(), staging)
        answer = open_sealed(staging).answer
        return check_parity(sealing.classifier, sealing.refusal, answer, pictures, path)


def _seal_torch(sealing: Sealing, pictures: Sequence[np.ndarray], path: Path) -> Parity:
    with atomic_path(path) as staging:
        write_torch(Sealed(sealing.classifier, sealing.refusal), sealing.contract(), staging)
        with staging.open("rb") as file:
            module = torch.export.load(file).module()

        def answer(picture: np.ndarray) -> list[np.ndarray]:
            found = module(torch.from_numpy(picture))
            return [one.numpy() for one in (found if isinstance(found, tuple) else (found,))]

        return check_parity(sealing.classifier, sealing.refusal, answer, pictures, path)


def _seal_openvino(sealing: Sealing, pictures: Sequence[np.ndarray], path: Path) -> Parity:
    """By way of ONNX. The weights get their name first: without them there is no file to open."""
    with staging_folder(path) as folder:
        graph, staging = folder / "sealed.onnx", folder / path.name
        contract = sealing.contract()
        write_onnx(Sealed(sealing.classifier, sealing.refusal), contract, graph)
        write_openvino(graph, contract, staging)
        settings = {"INFERENCE_PRECISION_HINT": "f32"}
        compiled = openvino_core().compile_model(staging, "CPU", settings)

        def answer(picture: np.ndarray) -> list[np.ndarray]:
            return list(compiled([picture]).to_tuple())

        parity = check_parity(sealing.classifier, sealing.refusal, answer, pictures, path)
        for part in (staging.with_suffix(".bin"), staging):
            put_in_place(part, path.with_suffix(part.suffix))
        return parity
