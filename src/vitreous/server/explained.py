"""One picture's explanation as JSON: a heat map to lay over the picture, and what it is worth."""

import base64
from dataclasses import replace
from pathlib import Path
from typing import Any

from vitreous.data.preprocess import fit, seen_part
from vitreous.errors import RunError
from vitreous.explanation.pictures import Question, explain_pictures
from vitreous.explanation.render import draw_heat
from vitreous.server.bodies import Picture
from vitreous.server.model import Served, stamp_of
from vitreous.training.classifier import Classifier, load_classifier, unmap
from vitreous.training.device import choose_device


class Explainer:
    """Explains pictures with the model as it was trained, which is opened when first asked.

    Gradients need the PyTorch module itself, whatever computes the answers. It belongs to one
    thread.

    Args:
        max_pixels: of a picture, before it is decoded.
    """

    def __init__(self, max_pixels: int) -> None:
        self._max_pixels = max_pixels
        self._opened: tuple[tuple[Path, tuple[int, ...]], Classifier] | None = None

    def forget(self) -> None:
        """Let go of the model, as another is about to be asked; callable from any thread."""
        self._opened = None

    def explain(self, served: Served, picture: Picture, question: Question) -> dict[str, Any]:
        """Explain a picture.

        Raises:
            ConfigError: for a class that the model doesn't know.
            RunError: where the model's file has been replaced since it was opened, or is gone.
            UnreadablePicture: for anything that isn't a whole picture within the limits.
        """
        classifier = self._classifier(served)
        question.check(classifier)
        preprocess = classifier.preprocess
        upright = served.upright(picture.data, self._max_pixels)
        box = seen_part(upright.shape[0], upright.shape[1], preprocess)
        explained, _ = explain_pictures(
            classifier, [picture.name], [fit(upright, preprocess)], question
        )
        explanation = explained[0]
        method, found = next(iter(explanation.maps.items()))
        check = explanation.checks[method]
        values = explanation.to_json()
        return {
            "file": picture.name,
            "class": explanation.label,
            "probability": values["explained_probability"],
            "method": method,
            "passed": check.passed,
            "verdict": str(check),
            "box": list(box),
            "heatmap": base64.b64encode(draw_heat(method, found.values)).decode("ascii"),
            "scores": {**values["methods"][method], "alike": check.alike},
        }

    def _classifier(self, served: Served) -> Classifier:
        # By what it was made of: the served model itself needn't stay for it after a reload.
        key, opened = (served.weights, served.stamp), self._opened
        if opened is not None and opened[0] == key:
            return opened[1]
        if not _is_as_opened(served):
            raise RunError("the model has been replaced: it takes a reload to explain it")
        classifier = load_classifier(served.weights)
        device = choose_device(served.engine.device)
        classifier = replace(classifier, model=classifier.model.to(device).eval())
        unmap(classifier.model)
        self._opened = key, classifier
        return classifier


def _is_as_opened(served: Served) -> bool:
    try:
        return stamp_of(served.weights) == served.stamp
    except OSError:
        return False
