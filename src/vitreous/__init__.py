"""Vision Transformers for your own pictures.

    >>> import vitreous
    >>> vitreous.__version__
    '0.1.0'

Importing the package does nothing but define these names; PyTorch is imported when one is used.
"""

from typing import TYPE_CHECKING

__version__ = "0.1.0"

if TYPE_CHECKING:
    from vitreous.api import (
        Model,
        Run,
        audit,
        calibrate,
        check,
        compare,
        demo,
        diagnose,
        evaluate,
        explain,
        export,
        pack,
        patches,
        predict,
        pretrain,
        resume,
        serve,
        summary,
        train,
        tune,
    )
    from vitreous.errors import VitreousError

__all__ = [
    "Model",
    "Run",
    "VitreousError",
    "__version__",
    "audit",
    "calibrate",
    "check",
    "compare",
    "demo",
    "diagnose",
    "evaluate",
    "explain",
    "export",
    "pack",
    "patches",
    "predict",
    "pretrain",
    "resume",
    "serve",
    "summary",
    "train",
    "tune",
]


def __getattr__(name: str) -> object:
    if name not in __all__:
        raise AttributeError(f"module 'vitreous' has no attribute {name!r}")
    from importlib import import_module

    module = "vitreous.errors" if name == "VitreousError" else "vitreous.api"
    return getattr(import_module(module), name)


def __dir__() -> list[str]:
    return __all__
