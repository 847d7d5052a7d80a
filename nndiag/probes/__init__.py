"""Active experiments on a copy of the model: each is called as `probe(trainer, x, y)` and leaves everything as it was."""

from __future__ import annotations

from numpy.typing import ArrayLike

from nndiag.check import Check
from nndiag.nn import Trainer
from nndiag.probes.gradient_check import GradientCheck as GradientCheck
from nndiag.probes.overfit_tiny_batch import OverfitTinyBatch as OverfitTinyBatch
from nndiag.probes.probe import Probe as Probe
from nndiag.probes.probe import finite
from nndiag.probes.shapes import Shapes as Shapes
from nndiag.recorder import Recorder

gradient_check = GradientCheck()
overfit_tiny_batch = OverfitTinyBatch()
shapes = Shapes()

PROBES: tuple[type[Check], ...] = (GradientCheck, OverfitTinyBatch, Shapes)


def run_all(trainer: Trainer, x: ArrayLike, y: ArrayLike, recorder: Recorder) -> None:
    """Run every probe and keep what it measured in the run that `recorder` writes, for the checklist."""
    samples = finite(x, y)
    for probe in (gradient_check, overfit_tiny_batch, shapes):
        recorder.probe(probe.code, probe.measure(trainer, *samples))
