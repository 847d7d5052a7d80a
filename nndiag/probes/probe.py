"""Probe: a check that makes its own measurement, on copies of a model."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from nndiag import synthetic
from nndiag.check import Check
from nndiag.errors import NndiagError
from nndiag.interrupts import propagates
from nndiag.meta import Meta
from nndiag.probes.subject import Subject, find_subject, seeded
from nndiag.recorder import Recorder
from nndiag.report import Report
from nndiag.run import Run

log = logging.getLogger("nndiag")


@dataclass(frozen=True)
class Probe(Check):
    """A check in two halves: `measure` experiments on copies and gives plain numbers, `examine` judges them.

    The numbers travel in the run's metadata, so that the checklist on a recorded run speaks of the probes too. Calling a
    probe on a model and data does both. The model, its optimiser and all random numbers stay as they are.
    """

    wants: ClassVar[tuple[str, ...]] = ("loss",)
    """What it cannot do without: "loss", "optimizer"."""

    def measure(self, subject: Subject) -> dict[str, Any]:
        """What the experiment gave, as plain JSON; {"reason": why} where it cannot be made."""
        raise NotImplementedError(f"{type(self).__name__} has no measure()")

    def __call__(
        self,
        target: Any,
        x: Any,
        y: Any,
        *,
        loss: Any = None,
        optimizer: Any = None,
        recorder: Recorder | None = None,
    ) -> Report:
        """The verdict of this probe on `target` with training data `x`, `y`; with `recorder` it goes into that run.

        `target` is an `nndiag.nn.Trainer`, or a model with its `loss`, called as loss(outputs, targets), and its
        `optimizer`. The first axis of inputs and targets is the batch. Raises UnknownName for any other target, and
        NndiagError when the samples do not fit each other or none is finite.
        """
        from nndiag.checklist import Checklist

        measurement = self.experiment(find_subject(target, x, y, loss, optimizer))
        if recorder is not None:
            recorder.probe(self.code, measurement)
        meta = Meta(name=self.name, ended="completed", probes={self.code: measurement})
        return Checklist(select=self.code, checks=[self]).examine(Run(meta))

    def experiment(self, subject: Subject) -> dict[str, Any]:
        """What `measure` gives with seeded random numbers, which are as before afterwards; the reason where it fails."""
        if lacking := [what for what in self.wants if what in subject.lacks]:
            return {"reason": f"needs {' and '.join(f'{what}={what}' for what in lacking)} beside the model"}
        try:
            with seeded(subject):
                return self.measure(subject)
        except NndiagError as fault:
            return {"reason": str(fault)}
        except Exception as fault:
            if propagates(fault):
                raise
            log.error("%s failed: it is not checked", self.code, exc_info=fault)
            return {"reason": f"the experiment failed: {type(fault).__name__}: {fault}"}

    def measured(self, run: Run) -> Mapping[str, Any]:
        """The numbers that `measure` gave; empty if it was not run."""
        return run.meta.probes.get(self.code, {})

    def not_checked(self, run: Run) -> str | None:
        measured = self.measured(run)
        if not measured:
            given = "model, x, y, loss=…, optimizer=…" if "torch" in run.meta.versions else "trainer, x, y"
            return f"the probe was not run: nndiag.probes.{self.name.replace('-', '_')}({given}, recorder=recorder)"
        return str(measured["reason"]) if "reason" in measured else super().not_checked(run)

    @classmethod
    def example(cls, **measurement: Any) -> Run:
        """A run that holds this measurement."""
        return synthetic.run(steps=0, probes={cls.code: measurement})
