"""A sealed ONNX file, opened: what it says of itself, and its answers. Needs onnxruntime alone."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from vitreous.errors import ConfigError, RunError, WeightsError, first_line
from vitreous.exporting.contract import PICTURE, PROBABILITIES, STRANGENESS, Contract
from vitreous.exporting.libraries import open_session


@dataclass(frozen=True)
class SealedFile:
    """A graph of `exporting.sealed` in ONNX Runtime.

    Args:
        path: of the file.
        contract: what it says of itself.
        session: ONNX Runtime's.
    """

    path: Path
    contract: Contract
    session: Any

    def answer(self, picture: np.ndarray) -> list[np.ndarray]:
        """The probabilities, and behind them the strangeness where the file has that.

        Shape:
            (height, width, 3) uint8 -> (classes,) float32, (views,) float32
        """
        return self.session.run(None, {PICTURE: picture})


def open_sealed(path: Path, threads: int = 1) -> SealedFile:
    """Open a sealed file; nothing of it is run but its graph, on the processor.

    Args:
        path: the file.
        threads: that one call has.

    Raises:
        ConfigError: where ONNX Runtime isn't installed.
        RunError: where there is no file.
        WeightsError: where it is damaged or no sealed file of vitreous.
    """
    if not path.is_file():
        raise RunError(f"no file at {path}")
    try:
        session = open_session(path, threads)
    except ImportError:
        raise ConfigError(
            f"{path} needs ONNX Runtime: pip install onnxruntime, or vitreous[onnx]"
        ) from None
    except Exception as error:  # ONNX Runtime has errors of its own for each thing that is wrong
        raise WeightsError(f"{path} is damaged or no ONNX file: {first_line(error)}") from None
    contract = Contract.from_metadata(path, session.get_modelmeta().custom_metadata_map)
    shapes = [(one.name, one.type, one.shape) for one in session.get_outputs()]
    wanted = [(PROBABILITIES, "tensor(float)", [len(contract.classes)])]
    if contract.refuse:
        wanted.append((STRANGENESS, "tensor(float)", [len(contract.refuse.views)]))
    inputs = [(one.name, one.type) for one in session.get_inputs()]
    if shapes != wanted or inputs != [(PICTURE, "tensor(uint8)")]:
        raise WeightsError(f"{path} is damaged: its graph is not the one that it speaks of")
    return SealedFile(path, contract, session)
