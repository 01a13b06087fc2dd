"""Running a model over pictures, in float32, without gradients."""

import numpy as np
import torch

from vitreous.core.threads import SideBySide
from vitreous.data.loader import PictureSet
from vitreous.data.preprocess import Preprocess, normalise
from vitreous.model.vit import ViT

BATCH_SIZE = 64


@torch.inference_mode()
def predict_pixels(model: ViT, pixels: torch.Tensor, preprocess: Preprocess) -> np.ndarray:
    """Class probabilities of one batch of fitted pictures.

    Shape:
        (batch, height, width, 3) uint8 -> (batch, classes) float32
    """
    device = next(model.parameters()).device
    images = normalise(pixels.to(device), preprocess)
    probabilities = model(images).float().softmax(dim=1)
    if preprocess.mirror:
        mirrored = model(images.flip(-1)).float().softmax(dim=1)
        probabilities = (probabilities + mirrored) / 2
    return probabilities.cpu().numpy()


def predict_set(model: ViT, pictures: PictureSet, preprocess: Preprocess) -> np.ndarray:
    """Class probabilities of every readable picture of a set.

    Shape:
        -> (pictures, classes) float32
    """
    model.eval()
    # On a CPU every thread takes pictures of its own, together no more than a GPU does at once.
    is_cpu = next(model.parameters()).device.type == "cpu"
    threads = SideBySide(min(torch.get_num_threads(), BATCH_SIZE) if is_cpu else 1)
    size = BATCH_SIZE // threads.count
    batches = np.array_split(np.arange(len(pictures)), -(-len(pictures) // size))

    def predict(batch: np.ndarray) -> np.ndarray:
        return predict_pixels(model, pictures.batch(batch)[0], preprocess)

    return np.concatenate(threads.map(predict, batches))
