"""Other tools that check the training of a PyTorch model, each in the same loops as its own documentation says.

Installed into an environment that has nndiag and PyTorch, without their dependencies, since torcheck asks for a PyTorch
before 2.0; the second line is what two of them need besides:

    pip install --no-deps torch-audit==0.3.0 torchmortem==0.1.1 trainpulse==0.4.0 torcheck==1.0.1 torchtest2==0.1.0
    pip install rich==15.0.0 plotly==7.1.0 jinja2==3.1.6

Every threshold is a tool's own default. What a tool calls information, not a warning, is not counted.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from importlib import import_module
from itertools import count
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

import nndiag
from benchmarks.diagnosis_torch import bases
from benchmarks.diagnosis_torch.bases import BASES
from benchmarks.diagnosis_torch.loops import Batches, Loop
from benchmarks.diagnosis_torch.measure import Job
from benchmarks.diagnosis_torch.others.kinds import known
from benchmarks.diagnosis_torch.programs import head_parameters
from nndiag.check import Verdict
from nndiag.checklist import Checklist


@dataclass(frozen=True)
class Said:
    """A warning, or an error if `failed`, with the tool's own name of it first."""

    text: str
    failed: bool


class Tool:
    """A tool in a loop: what it does with the values that the loop logs, after each batch, and at the end."""

    loss = 0.0

    def __init__(self, loop: Loop, job: Job) -> None:
        """Attach it to the loop's model and optimiser."""

    def log(self, **values: Any) -> None:
        """Keep the loss of the batch."""
        if "loss" in values:
            self.loss = values["loss"].item()

    def step(self) -> None:
        """A batch has been gone through."""

    def said(self) -> Iterable[Said]:
        """Its warnings and errors, after training."""
        return ()


class Nndiag(Tool):
    """`nndiag.watch(model, optimizer, every=1)`, as in the fault matrix."""

    def __init__(self, loop: Loop, job: Job) -> None:
        self.recorder = nndiag.watch(loop.model, loop.optimizer, every=1)

    def log(self, **values: Any) -> None:
        self.recorder.log(**values)

    def said(self) -> Iterator[Said]:
        self.recorder.close()
        for finding in Checklist().examine(self.recorder.run).findings:
            yield Said(f"{finding.code} {finding.message}", finding.verdict is Verdict.FAIL)


class TorchAudit(Tool):
    """`autopatch(model, optimizer=…)`, which needs no other line in a loop, at every step; ERROR is a failure."""

    def __init__(self, loop: Loop, job: Job) -> None:
        self.auditor = import_module("torch_audit").autopatch(loop.model, optimizer=loop.optimizer, every_n_steps=1)

    def said(self) -> Iterator[Said]:
        for finding in self.auditor.finish().findings:
            if finding.severity.value != "INFO":
                yield Said(f"{finding.rule_id} {finding.message}", finding.severity.value != "WARN")


class Torchmortem(Tool):
    """`Autopsy(model, optimizer=…)` and `autopsy.step(loss=loss.item())` after each batch; CRITICAL is a failure."""

    def __init__(self, loop: Loop, job: Job) -> None:
        self.autopsy = import_module("torchmortem").Autopsy(loop.model, optimizer=loop.optimizer)
        self.autopsy.attach()

    def step(self) -> None:
        self.autopsy.step(loss=self.loss)

    def said(self) -> Iterator[Said]:
        self.autopsy.detach()
        for finding in self.autopsy.get_report().findings:
            if finding.severity.name != "INFO":
                yield Said(f"{finding.title}: {finding.summary}", finding.severity.name == "CRITICAL")


class Trainpulse(Tool):
    """`TrainingCallback`, told of the loss, the norm of the gradients that the optimiser gets, and its learning rate.

    Its step times are left out: they say nothing of a fault, and something else on every computer. A critical alert is
    a failure.
    """

    def __init__(self, loop: Loop, job: Job) -> None:
        self.callback = import_module("trainpulse").TrainingCallback()
        self.model, self.optimizer, self.steps = loop.model, loop.optimizer, count()
        self.norm: float | None = None
        self.optimizer.register_step_pre_hook(self._measure)

    def _measure(self, *_: Any) -> None:
        self.norm = gradient_norm(self.model.parameters())

    def step(self) -> None:
        if self.norm is None:
            self._measure()
        rate = self.optimizer.param_groups[0]["lr"]
        self.callback.on_step_end(next(self.steps), loss=self.loss, grad_norm=self.norm, lr=rate)
        self.norm = None

    def said(self) -> Iterator[Said]:
        for alert in self.callback.report().alerts:
            yield Said(f"{alert.detector} {alert.message}", alert.severity.value == "critical")


def gradient_norm(parameters: Iterable[Tensor]) -> float:
    """L2 norm of all gradients together; 0 where there is none."""
    norms = [float(parameter.grad.norm()) for parameter in parameters if parameter.grad is not None]
    return math.hypot(*norms)


LOGITS = (F.cross_entropy, bases.by_word, bases.by_letter, bases.binary, bases.weighted_binary, bases.labels)
"""Losses that take logits."""


class Torcheck(Tool):
    """`register(optimizer)` and `add_module(model, changing=True, check_nan=True, check_inf=True)`.

    Where only a head is meant to be trained, only the head is added; where the loss takes logits, the check that outputs
    are not all within 0 and 1 is, "aka softmax hasn't been applied before loss calculation".
    """

    def __init__(self, loop: Loop, job: Job) -> None:
        registry = type(import_module("torcheck").registry)()  # a fresh one: the module's own never forgets a model
        registry.register(loop.optimizer)
        trained = loop.model.head if BASES[job.base].optimised is head_parameters else loop.model
        registry.add_module(trained, "model", changing=True, check_nan=True, check_inf=True)
        if loop.loss in LOGITS:
            registry.add_module_output_range_check(loop.model, (0, 1), negate_range=True)


def watched(tool: Callable[[Loop, Job], Tool]) -> Callable[[Job], Iterator[Said]]:
    """Trains the program of a job under the eyes of a tool, and gives what the tool says."""

    def run(job: Job) -> Iterator[Said]:
        program, loop = job.program, loop_of(job)
        watcher = tool(loop, job)
        loop.log, loop.batches = watcher.log, Told(loop.batches, watcher.step)
        for _ in range(program.epochs):
            program.epoch(loop)
            program.evaluate(loop)
        yield from watcher.said()

    return run


def loop_of(job: Job) -> Loop:
    """What its program's loop works with, with nobody listening."""
    return job.program.loop(job.program.data(job.seed), job.seed, None)[0]


@dataclass(frozen=True)
class Told:
    """Batches that tell when a loop is done with one."""

    batches: Batches
    done: Callable[[], None]

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        for batch in self.batches:
            yield batch
            self.done()


def torcheck(job: Job) -> Iterator[Said]:
    """Torcheck says what it finds in an exception, a line for each, and training ends there."""
    try:
        yield from watched(Torcheck)(job)
    except RuntimeError as problem:
        lines = [line for line in str(problem).splitlines() if known("torcheck", line)]
        if not lines:
            raise
        yield from (Said(line, failed=True) for line in lines)


def torchtest2(job: Job) -> Iterator[Said]:
    """`check_model(model, inputs, targets, loss_fn=…, optimizer=…)` with the first batch, before any training."""
    loop = loop_of(job)
    x, y = next(iter(loop.batches))
    report = import_module("torchtest2").check_model(loop.model, x, y, loss_fn=loop.loss, optimizer=loop.optimizer)
    for result in (*report.failures, *report.warnings):
        yield Said(f"{result.name}: {result.message}", result.status.value == "FAIL")


TOOLS: dict[str, Callable[[Job], Iterator[Said]]] = {
    "nndiag": watched(Nndiag),
    "torch-audit": watched(TorchAudit),
    "torchmortem": watched(Torchmortem),
    "trainpulse": watched(Trainpulse),
    "torcheck": torcheck,
    "torchtest2": torchtest2,
}


def examine(tool: str, job: Job) -> tuple[list[Said], str]:
    """What the tool says of a job's program; and where it could not be run, the error (no program raises by itself)."""
    torch.set_num_threads(1)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what PyTorch warns of is none of the tools'
        try:
            return list(TOOLS[tool](job)), ""
        except ModuleNotFoundError:
            raise
        except Exception as problem:  # whatever breaks in a tool, the others go on
            return [], f"{type(problem).__name__}: {problem}".partition("\n")[0]
