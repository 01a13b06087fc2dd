"""ONNX Runtime and OpenVINO, imported without their telemetry.

Both write an identifier into the home folder when they are imported and report to their makers
over the network. Asking for an answer is no leave for that, so what turns it off is in place during
the import; where a program has imported them itself, its own choice stands.
"""

import os
import sys
from functools import cache
from pathlib import Path
from typing import Any

_SWITCH = "ORT_DISABLE_TELEMETRY"
_REPORTER = "openvino_telemetry"


def import_onnxruntime() -> Any:
    """The module `onnxruntime`; since 1.32 it reports unless a variable forbids it."""
    named = _SWITCH in os.environ
    os.environ.setdefault(_SWITCH, "1")
    try:
        import onnxruntime
    finally:
        if not named:
            del os.environ[_SWITCH]
    return onnxruntime


def open_session(path: Path | bytes, threads: int) -> Any:
    """An ONNX file in ONNX Runtime, on the processor, set as vitreous uses it everywhere.

    Args:
        path: the file, or its content.
        threads: that one call has.
    """
    onnxruntime = import_onnxruntime()
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    # A thread that spins while it waits holds up its partners beside a busy neighbour.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])


def import_openvino() -> Any:
    """The module `openvino`; it reports by a package that it does without where that is missing."""
    hide = _REPORTER not in sys.modules
    if hide:
        sys.modules[_REPORTER] = None  # pyright: ignore[reportArgumentType]
    try:
        import openvino
    finally:
        if hide:
            del sys.modules[_REPORTER]
    return openvino


@cache
def openvino_core() -> Any:
    """One for the process, never given back.

    Its processor plugin gives a thread a stack for signals and takes it back from whichever thread
    drops the last core: the first one then ends at its next signal, a Ctrl-C say, with a crash.
    """
    return import_openvino().Core()
