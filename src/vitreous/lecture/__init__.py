"""The from-scratch lecture's ViT under its own names, built from this library's parts.

    from vitreous.lecture import extract_patches, PatchEncoder, TransformerEncoder, ViT

Pictures are (batch, height, width, channels) here, as in TensorFlow, and `ViT` answers with
probabilities. Nothing is implemented twice: the classes are the model's own parts with the
lecture's settings, and the tests hold them against real TensorFlow and Keras. The way through all
of it is docs/lecture/walkthrough.md.
"""

from vitreous.lecture.drawing import draw_patches
from vitreous.lecture.files import load_keras, save_keras
from vitreous.lecture.steps import PatchEncoder, TransformerEncoder, ViT, extract_patches

__all__ = [
    "PatchEncoder",
    "TransformerEncoder",
    "ViT",
    "draw_patches",
    "extract_patches",
    "load_keras",
    "save_keras",
]
