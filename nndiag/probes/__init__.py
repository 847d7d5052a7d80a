"""Active experiments on copies of the model: called as `probe(model, x, y, …)`, each leaves everything as it was."""

from __future__ import annotations

from typing import Any

from nndiag.check import Check
from nndiag.probes.batch_independence import BatchIndependence as BatchIndependence
from nndiag.probes.determinism import Determinism as Determinism
from nndiag.probes.dropout_dominates import DropoutDominates as DropoutDominates
from nndiag.probes.gradient_check import GradientCheck as GradientCheck
from nndiag.probes.input_independence import InputIndependence as InputIndependence
from nndiag.probes.lr_range import LrRange as LrRange
from nndiag.probes.overfit_tiny_batch import OverfitTinyBatch as OverfitTinyBatch
from nndiag.probes.probe import Probe as Probe
from nndiag.probes.shapes import Shapes as Shapes
from nndiag.probes.signal_propagation import SignalPropagation as SignalPropagation
from nndiag.probes.subject import find_subject
from nndiag.recorder import Recorder

gradient_check = GradientCheck()
overfit_tiny_batch = OverfitTinyBatch()
shapes = Shapes()
input_independence = InputIndependence()
batch_independence = BatchIndependence()
lr_range = LrRange()
determinism = Determinism()
dropout_dominates = DropoutDominates()
signal_propagation = SignalPropagation()

ALL: tuple[Probe, ...] = (
    gradient_check,
    overfit_tiny_batch,
    shapes,
    input_independence,
    batch_independence,
    lr_range,
    determinism,
    dropout_dominates,
    signal_propagation,
)
PROBES: tuple[type[Check], ...] = tuple(type(probe) for probe in ALL)


def run_all(target: Any, x: Any, y: Any, recorder: Recorder, *, loss: Any = None, optimizer: Any = None) -> None:
    """Run every probe and keep what it measured in the run that `recorder` writes, for the checklist.

    The other arguments are those of a single probe.
    """
    subject = find_subject(target, x, y, loss, optimizer)
    for probe in ALL:
        recorder.probe(probe.code, probe.experiment(subject))
