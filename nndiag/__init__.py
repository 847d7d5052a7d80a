"""nndiag: the health checker of neural-network training.

`watch` a trainer, read the `Run` it records, let the `Checklist` say what is unhealthy and why. Every name below loads
its module when it is first used, so that `import nndiag` itself is as good as free; the way from `watch` to a recorded
run needs NumPy only.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from nndiag import checks as checks
    from nndiag import datasets as datasets
    from nndiag import exporters as exporters
    from nndiag import hooks as hooks
    from nndiag import nn as nn
    from nndiag import plots as plots
    from nndiag import probes as probes
    from nndiag import synthetic as synthetic
    from nndiag import testing as testing
    from nndiag.adapters import watch as watch
    from nndiag.check import Check as Check
    from nndiag.check import Finding as Finding
    from nndiag.check import Verdict as Verdict
    from nndiag.checklist import Checklist as Checklist
    from nndiag.errors import NndiagError as NndiagError
    from nndiag.errors import RunError as RunError
    from nndiag.errors import ShapeError as ShapeError
    from nndiag.errors import UnknownName as UnknownName
    from nndiag.errors import WatchError as WatchError
    from nndiag.hooks import ActivationHook as ActivationHook
    from nndiag.hooks import DataHook as DataHook
    from nndiag.hooks import GradientHook as GradientHook
    from nndiag.hooks import HistogramHook as HistogramHook
    from nndiag.hooks import Hook as Hook
    from nndiag.hooks import LossHook as LossHook
    from nndiag.hooks import UpdateHook as UpdateHook
    from nndiag.recorder import Recorder as Recorder
    from nndiag.report import Report as Report
    from nndiag.run import Run as Run
    from nndiag.run import open_run as open_run

_NAMES = {
    "adapters": ("watch",),
    "check": ("Check", "Finding", "Verdict"),
    "checklist": ("Checklist",),
    "errors": ("NndiagError", "RunError", "ShapeError", "UnknownName", "WatchError"),
    "hooks": ("ActivationHook", "DataHook", "GradientHook", "HistogramHook", "Hook", "LossHook", "UpdateHook"),
    "recorder": ("Recorder",),
    "report": ("Report",),
    "run": ("Run", "open_run"),
}
_MODULES = ("checks", "datasets", "exporters", "hooks", "nn", "plots", "probes", "synthetic", "testing")
_HOME = {name: module for module, names in _NAMES.items() for name in names}

__all__ = [*_MODULES, *_HOME]


def __getattr__(name: str) -> Any:
    if name in _MODULES:
        return importlib.import_module(f"nndiag.{name}")
    if name in _HOME:
        value = globals()[name] = getattr(importlib.import_module(f"nndiag.{_HOME[name]}"), name)
        return value
    raise AttributeError(f"module 'nndiag' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
