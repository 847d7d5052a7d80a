"""What can be attached to a trainer: nothing, nndiag in its cadences, and what people write themselves."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from tensorboardX import SummaryWriter

import nndiag
from nndiag import nn
from nndiag.hooks import Hook, LayerLike, ParameterLike, light_hooks
from nndiag.statistics import Array


class NaiveHook(Hook):
    """What a first version looks like: NumPy's own functions, values appended to lists."""

    def __init__(self) -> None:
        self.values: dict[str, list[float]] = {}

    def _add(self, name: str, value: Any) -> None:
        self.values.setdefault(name, []).append(float(value))

    def on_forward(self, layer: LayerLike, x: Array, output: Array) -> None:
        for statistic in (np.mean, np.var, np.min, np.max):
            self._add(f"{layer.name}.{statistic.__name__}", statistic(output))
        self._add(f"{layer.name}.zeros", np.mean(output == 0))
        self._add(f"{layer.name}.dead", np.mean(np.all(output == 0, axis=0)))

    def on_backward(self, layer: LayerLike, gradient: Array) -> None:
        self._add(f"{layer.name}.delta", np.sqrt(np.mean(np.square(gradient))))

    def on_gradients(self, parameters: Sequence[ParameterLike]) -> None:
        for parameter in parameters:
            self._add(f"{parameter.name}.norm", np.linalg.norm(parameter.gradient))
            self._add(f"{parameter.name}.max", np.max(np.abs(parameter.gradient)))
            self._add(f"{parameter.name}.zeros", np.mean(parameter.gradient == 0))

    def on_update_begin(self, parameters: Sequence[ParameterLike], lr: float) -> None:
        self._before = [parameter.value.copy() for parameter in parameters]

    def on_update_end(self, parameters: Sequence[ParameterLike]) -> None:
        for parameter, before in zip(parameters, self._before, strict=True):
            change = np.linalg.norm(parameter.value - before)
            self._add(f"{parameter.name}.update", change / np.linalg.norm(before))


class SilentHook(Hook):
    """Hears every event of a step and does nothing: what handing the events over costs."""

    def on_step_begin(self, x: Array, y: Array | None) -> None: ...
    def on_forward(self, layer: LayerLike, x: Array, output: Array) -> None: ...
    def on_loss(self, outputs: Array, targets: Array | None, loss: float) -> None: ...
    def on_output_gradient(self, gradient: Array) -> None: ...
    def on_backward(self, layer: LayerLike, gradient: Array) -> None: ...
    def on_gradients(self, parameters: Sequence[ParameterLike]) -> None: ...
    def on_update_begin(self, parameters: Sequence[ParameterLike], lr: float) -> None: ...
    def on_update(self, parameter: ParameterLike, update: Array | None, factor: float = 1.0) -> None: ...
    def on_update_end(self, parameters: Sequence[ParameterLike]) -> None: ...


class HistogramsOfTensorboardX(Hook):
    """`add_histogram` of every activation, gradient and weight, as tutorials do."""

    def __init__(self, writer: SummaryWriter) -> None:
        self._writer = writer

    def on_forward(self, layer: LayerLike, x: Array, output: Array) -> None:
        self._writer.add_histogram(f"activations/{layer.name}", output, self.recorder.step_number)

    def on_gradients(self, parameters: Sequence[ParameterLike]) -> None:
        for parameter in parameters:
            self._writer.add_histogram(f"gradients/{parameter.name}", parameter.gradient, self.recorder.step_number)
            self._writer.add_histogram(f"weights/{parameter.name}", parameter.value, self.recorder.step_number)


def _naive(trainer: nn.Trainer) -> None:
    nndiag.watch(trainer, hooks=[NaiveHook()], every=1)


def _silent(trainer: nn.Trainer) -> None:
    nndiag.watch(trainer, hooks=[SilentHook()], every=1)


def _tensorboard(trainer: nn.Trainer) -> None:
    folder = tempfile.mkdtemp(prefix="overhead-")
    nndiag.watch(trainer, hooks=[HistogramsOfTensorboardX(SummaryWriter(folder))], every=1)


def _all(trainer: nn.Trainer) -> None:
    nndiag.watch(trainer, every=1)


def _stored(trainer: nn.Trainer) -> None:
    nndiag.watch(trainer, every=1, run=f"{tempfile.mkdtemp(prefix='overhead-')}/run")


def _light(trainer: nn.Trainer) -> None:
    nndiag.watch(trainer, hooks=light_hooks(), every=1)


def _default(trainer: nn.Trainer) -> None:
    nndiag.watch(trainer)


def _idle(trainer: nn.Trainer) -> None:
    nndiag.watch(trainer, hooks=[], every=10**9)


Attach = Callable[[nn.Trainer], None]

VARIANTS: dict[str, Attach] = {
    "all hooks, every step": _all,
    "all hooks, every step, into a run folder": _stored,
    "light hooks, every step": _light,
    'default (every="auto", budget=0.02)': _default,
    "attached, nothing recorded": _idle,
    "a hook that hears everything and does nothing": _silent,
}
OTHERS: dict[str, Attach] = {
    "naive NumPy hooks, every step": _naive,
    "tensorboardX histograms, every step": _tensorboard,
}
