"""Whether a sealed file answers as the model that it was made of, on pictures of all sizes."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F

from vitreous.data.preprocess import fit
from vitreous.errors import VitreousError
from vitreous.evaluation.inference import TorchNetwork, probabilities_of
from vitreous.evaluation.refusal import Refusal
from vitreous.evaluation.seeing import see_pixels
from vitreous.exporting.contract import TOLERANCE
from vitreous.model.features import WithFeatures
from vitreous.training.classifier import Classifier

#: Heights and widths that pictures are scaled to: odd ones, tiny ones, and two that are so long
#: that their ends are never seen.
_SIZES = ((1, 1), (2, 3), (7, 5), (31, 33), (97, 61), (225, 223), (480, 641), (1201, 807),
          (3, 500), (1, 20_000), (9_000, 2))  # fmt: skip

Answer = Callable[[np.ndarray], Sequence[np.ndarray]]


@dataclass(frozen=True)
class Parity:
    """How far a sealed file's answers are from the model's.

    Args:
        pictures: that were compared, at all sizes.
        largest: difference of a probability.
    """

    pictures: int
    largest: float


def check_parity(
    classifier: Classifier,
    refusal: Refusal | None,
    answer: Answer,
    pictures: Sequence[np.ndarray],
    path: Path,
) -> Parity:
    """Ask both about the same pictures, as they are and rescaled.

    Args:
        classifier: in evaluation mode, on a CPU.
        refusal: what the file's second output was made of.
        answer: of the file: probabilities, and strangeness where it has that.
        pictures: upright RGB of any size, at least one.
        path: of the file, for messages.

    Raises:
        VitreousError: where a probability differs by more than the tolerance, or a strangeness by
            more than that and two of the pictures that it is a share of.
    """
    model = classifier.model
    network = TorchNetwork(WithFeatures(model) if refusal else model)
    count, largest = 0, 0.0
    for picture in _at_all_sizes(pictures):
        pixels = torch.from_numpy(fit(picture, classifier.preprocess))[None]
        seen = see_pixels(network, pixels, classifier.preprocess, len(classifier.classes))
        found = answer(picture)
        off = np.abs(found[0] - probabilities_of(seen.logits)[0]).max().item()
        if not off <= TOLERANCE:  # not a number is no answer either
            raise _differs(path, "a probability", off, TOLERANCE, picture)
        if refusal:
            numbers = {name: torch.from_numpy(row) for name, row in seen.numbers.items()}
            wanted = refusal.strangeness(numbers)[0].numpy()
            allowed = TOLERANCE + 2 / refusal.calibrated_on
            strange = np.abs(found[1] - wanted).max().item()
            if not strange <= allowed:
                raise _differs(path, "how strange it is", strange, allowed, picture)
        count, largest = count + 1, max(largest, off)
    return Parity(count, largest)


def _at_all_sizes(pictures: Sequence[np.ndarray]) -> Iterator[np.ndarray]:
    yield from pictures
    for at, size in enumerate(_SIZES):
        picture = torch.from_numpy(pictures[at % len(pictures)]).permute(2, 0, 1)[None]
        scaled = F.interpolate(picture, size, mode="bilinear", antialias=True)
        yield np.ascontiguousarray(scaled[0].permute(1, 2, 0).numpy())


def _differs(
    path: Path, what: str, off: float, allowed: float, picture: np.ndarray
) -> VitreousError:
    height, width = picture.shape[:2]
    return VitreousError(
        f"{path} is not written: of a picture of {width} x {height} px it differs from the model "
        f"by {off:.1e} in {what}, more than {allowed:.1e}"
    )
