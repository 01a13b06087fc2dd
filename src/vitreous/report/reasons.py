"""Where the most confident mistakes come from, and whether that can be believed.

Called by `collect` at the end of a run, so it takes one cheap method and checks it on some of them.
"""

from collections.abc import Sequence
from dataclasses import replace

from vitreous.explanation.methods import Named
from vitreous.explanation.pictures import Explainer
from vitreous.explanation.render import is_signed, overlay
from vitreous.report.parts import Mistake
from vitreous.training.classifier import Classifier

#: Mistakes on which the method is checked.
_CHECKED = 8


def cost_in_pictures(mistakes: int) -> int:
    """What all of it costs at most, counted in pictures answered.

    About four for a map, seventy for measuring one, and a dozen maps of shuffled weights.
    """
    return 4 * mistakes + 70 * _CHECKED + 4 * 12


def with_reasons(mistakes: Sequence[Mistake], classifier: Classifier) -> tuple[list[Mistake], str]:
    """Mistakes with a map of what their answer comes from.

    Args:
        mistakes: the most confident first.
        classifier: that made them, in evaluation mode.

    Returns:
        The mistakes, and in a sentence what the maps are and how far they can be believed; empty
        where there are none.
    """
    if not mistakes:
        return [], ""
    explainer = Explainer(classifier)
    method = Named("relevance", mirror=classifier.preprocess.mirror)
    targets = [classifier.classes.index(mistake.answer) for mistake in mistakes]
    pictures = [mistake.picture for mistake in mistakes]
    maps, measured = [], []
    for picture, target in zip(pictures, targets, strict=True):
        if len(measured) < _CHECKED:
            found = explainer.maps([method], picture, target)[method.name]
            measured.append(found.faithfulness)
            maps.append(found.values)
        else:
            maps.append(explainer.map(method, picture, target))
    check = explainer.check(method, pictures, targets, measured)
    explained = [
        replace(mistake, overlay=overlay(mistake.picture, values))
        for mistake, values in zip(mistakes, maps, strict=True)
    ]
    against = ", violet what speaks against it" if any(map(is_signed, maps)) else ""
    what = (
        "Beside each, in colour, where the answer comes from by relevance (gradient-weighted "
        f"attention){against}"
    )
    over = f"on {len(measured)} of them" if len(measured) < len(mistakes) else "on them"
    if check.passed:
        return explained, f"{what}; checked {over}: {check}."
    return explained, f"{what}. It failed its check {over}, so don't trust it: {check}."
