"""NDP03 shapes."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import zip_longest
from typing import Any

import numpy as np

from nndiag.check import Finding
from nndiag.interrupts import propagates
from nndiag.probes.probe import Probe
from nndiag.probes.subject import Form, Shape, Subject
from nndiag.run import Run


@dataclass(frozen=True)
class Shapes(Probe):
    """Every layer puts out what it declares, for any batch size.

    A layer that mixes up the batch axis with another works for one batch size and breaks, or worse, does something else,
    for the next.

    Sends the first sample, and the first three, through a copy of the model in evaluation mode, and compares the shape
    of each layer's output with the width that the layer declares, and of the model's outputs with the batch size and with
    those of the other batch. An error on the way counts too. What shows only with a single sample, as where an axis of
    length one is squeezed away, is a warning.
    """

    code = "NDP03"
    name = "shapes"
    kind = "exact"
    wants = ()
    advice = "Correct the layer named: its forward pass, or the width that it declares."
    confirm = "print(nndiag.probes.shapes(trainer, x, y))"
    passed = "forward shapes match the declared dimensions"

    batches: tuple[int, ...] = (1, 3)

    def measure(self, subject: Subject) -> dict[str, Any]:
        mismatches: list[dict[str, Any]] = []
        seen: list[Shape] = []
        for batch in sorted(self.batches, reverse=True):
            rows = np.resize(np.arange(subject.samples), batch)
            try:
                found = subject.copy().shapes(rows)
            except Exception as fault:
                if propagates(fault):
                    raise
                found = []
                mismatches.append({"layer": "", "got": str(fault), "wanted": "", "batch": batch})
            mismatches += [
                {"layer": shape.name, "got": str(shape.got), "wanted": _text(shape.wanted), "batch": batch}
                for shape in _alike(found, seen)
                if not _fits(shape)
            ]
            seen = seen or found
        return {"layers": len(seen), "mismatches": mismatches}

    def examine(self, run: Run) -> Iterator[Finding]:
        mismatches = self.measured(run)["mismatches"]
        alone = all(mismatch.get("batch") == 1 for mismatch in mismatches)
        for mismatch in mismatches:
            layer, got, wanted = (mismatch[key] for key in ("layer", "got", "wanted"))
            gave = f"{layer or 'the model'} gave {got}, wanted {wanted}"
            yield self.finding(
                gave if wanted else f"a batch of {mismatch['batch']} fails: {got}",
                kind="training" if alone else "exact", layer=layer or None, steps=0,
            )  # fmt: skip

    @classmethod
    def healthy(cls) -> Run:
        return cls.example(layers=3, mismatches=[])

    @classmethod
    def sick(cls) -> Run:
        return cls.example(layers=3, mismatches=[{"layer": "h1", "got": "(64, 3)", "wanted": "(3, 64)"}])


def _alike(found: list[Shape], seen: list[Shape]) -> Iterator[Shape]:
    """`found`, where the whole model's outputs are to be of the same shape as those `seen` with another batch."""
    before = next((shape.got for shape in seen if not shape.name), None)
    for shape in found:
        yield shape if shape.name or before is None else Shape("", shape.got, (*shape.wanted[:1], *before[1:]))


def _fits(shape: Shape) -> bool:
    pairs = zip_longest(shape.got, shape.wanted, fillvalue=-1)
    return all(wanted in (None, got) and got != -1 for got, wanted in pairs)


def _text(form: Form) -> str:
    sizes = ["any" if size is None else str(size) for size in form]
    return f"({sizes[0]},)" if len(sizes) == 1 else f"({', '.join(sizes)})"
