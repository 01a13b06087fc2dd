"""Pages from templates: whole HTML documents that load nothing, and run nothing that isn't named.

Each room that has a page keeps its own templates, which extend ``page.html.jinja`` of this one. A
script, where there is one, is named by its hash in the block ``policy``.
"""

from collections.abc import Mapping
from functools import cache
from typing import Any

from jinja2 import ChoiceLoader, Environment, PackageLoader, StrictUndefined, Template


@cache
def environment(package: str) -> Environment:
    """Templates of a package, and those that all pages share; a missing value is an error.

    Args:
        package: its dotted name; the templates lie in its folder ``templates``.
    """
    return Environment(
        loader=ChoiceLoader([PackageLoader(package), PackageLoader("vitreous.pages")]),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )


def render(page: Template, values: Mapping[str, Any]) -> str:
    """The page as text that any file can hold; equal values give equal text."""
    html = page.render(values)
    # A file name that is no UTF-8 reaches us with lone surrogates, which no file can hold.
    return html.encode("utf-8", "replace").decode("utf-8")
