"""nndiag: the health checker of neural-network training.

`watch` a trainer, read the `Run` it records, let the `Checklist` say what is unhealthy and why. Importing this costs
NumPy only; frames, checks, plots and exporters load when they are used.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

from nndiag.adapters import watch as watch
from nndiag.errors import NndiagError as NndiagError
from nndiag.errors import RunError as RunError
from nndiag.errors import ShapeError as ShapeError
from nndiag.errors import UnknownName as UnknownName
from nndiag.hooks import ActivationHook as ActivationHook
from nndiag.hooks import DataHook as DataHook
from nndiag.hooks import GradientHook as GradientHook
from nndiag.hooks import HistogramHook as HistogramHook
from nndiag.hooks import Hook as Hook
from nndiag.hooks import LossHook as LossHook
from nndiag.hooks import UpdateHook as UpdateHook
from nndiag.recorder import Recorder as Recorder

if TYPE_CHECKING:
    from nndiag import checks as checks
    from nndiag import exporters as exporters
    from nndiag import nn as nn
    from nndiag import plots as plots
    from nndiag import probes as probes
    from nndiag import synthetic as synthetic
    from nndiag.check import Check as Check
    from nndiag.check import Finding as Finding
    from nndiag.check import Verdict as Verdict
    from nndiag.checklist import Checklist as Checklist
    from nndiag.report import Report as Report
    from nndiag.run import Run as Run
    from nndiag.run import open_run as open_run

_LAZY = {
    "Check": "nndiag.check",
    "Finding": "nndiag.check",
    "Verdict": "nndiag.check",
    "Checklist": "nndiag.checklist",
    "Report": "nndiag.report",
    "Run": "nndiag.run",
    "open_run": "nndiag.run",
}
_MODULES = ("checks", "exporters", "nn", "plots", "probes", "synthetic")

__all__ = [
    "ActivationHook",
    "Check",
    "Checklist",
    "DataHook",
    "Finding",
    "GradientHook",
    "HistogramHook",
    "Hook",
    "LossHook",
    "NndiagError",
    "Recorder",
    "Report",
    "Run",
    "RunError",
    "ShapeError",
    "UnknownName",
    "UpdateHook",
    "Verdict",
    "checks",
    "exporters",
    "nn",
    "open_run",
    "plots",
    "probes",
    "synthetic",
    "watch",
]


def __getattr__(name: str) -> Any:
    if name in _MODULES:
        return importlib.import_module(f"nndiag.{name}")
    if name in _LAZY:
        return getattr(importlib.import_module(_LAZY[name]), name)
    raise AttributeError(f"module 'nndiag' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
