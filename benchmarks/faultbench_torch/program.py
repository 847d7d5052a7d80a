"""A training program as a PyTorch user writes it: data, model, loss, optimiser, and a loop with nndiag in it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

import nndiag
from benchmarks.faultbench.program import Outcome
from benchmarks.faultbench_torch.data import Data, Recipe

Loss = Callable[[Tensor, Tensor], Tensor]
Batches = Callable[[Data, int, torch.Generator], Iterator[Data]]
Split = Callable[[Data], tuple[Data, Data]]


def shuffled(data: Data, size: int, order: torch.Generator) -> Iterator[Data]:
    """Batches of `size` rows in a new order, as a DataLoader gives them."""
    x, y = data
    for rows in torch.randperm(len(x), generator=order).split(size):
        yield x[rows], y[rows]


def hold_out(share: float) -> Split:
    """Training data, and the last `share` of the rows for validation."""

    def split(data: Data) -> tuple[Data, Data]:
        x, y = data
        kept = len(x) - round(share * len(x))
        return (x[:kept], y[:kept]), (x[kept:], y[kept:])

    return split


@dataclass(frozen=True)
class Program:
    """What a user wrote. `penalty` is what the loss has added to it, `clip` the norm that gradients are clipped to."""

    data: Recipe
    model: Callable[[], nn.Module]
    loss: Loss
    optimizer: Callable[[Iterable[nn.Parameter]], Optimizer]
    epochs: int
    batch_size: int = 32
    split: Split | None = None
    batches: Batches = shuffled
    penalty: Callable[[nn.Module], Tensor] | None = None
    clip: float | None = None

    def run(self, seed: int) -> Outcome:
        """Train it from `seed`, and examine what was recorded."""
        torch.set_num_threads(1)
        torch.manual_seed(seed)
        data = self.data(seed)
        train, held_out = (data, None) if self.split is None else self.split(data)
        model = self.model()
        optimizer = self.optimizer(model.parameters())
        with nndiag.watch(model, optimizer, self.loss, every=1) as recorder:
            for epoch in range(self.epochs):
                loss = self._epoch(model, optimizer, recorder, train, epoch, seed)
                if held_out is not None:
                    recorder.log(validation_loss=self._evaluate(model, held_out))
        return self._outcome(recorder.check(), loss, model, train)

    def _epoch(
        self, model: nn.Module, optimizer: Optimizer, recorder: nndiag.Recorder, data: Data, epoch: int, seed: int
    ) -> float:
        """One pass over the data; gives back the mean loss."""
        model.train()
        order = torch.Generator().manual_seed(1000 * seed + epoch)
        losses = []
        for x, y in self.batches(data, self.batch_size, order):
            loss = self.loss(model(x), y)
            if self.penalty is not None:
                loss = loss + self.penalty(model)
            recorder.log(loss=loss, epoch=epoch)
            loss.backward()
            if self.clip is not None:
                nn.utils.clip_grad_norm_(model.parameters(), self.clip)
            optimizer.step()
            optimizer.zero_grad()
            losses.append(loss.item())
        return float(sum(losses) / len(losses))

    def _evaluate(self, model: nn.Module, data: Data) -> float:
        model.eval()
        with torch.no_grad():
            return float(self.loss(model(data[0]), data[1]))

    def _outcome(self, report: nndiag.Report, loss: float, model: nn.Module, data: Data) -> Outcome:
        model.eval()
        with torch.no_grad():
            outputs = model(data[0]).flatten(1)
        threshold = 0.0 if isinstance(self.loss, nn.BCEWithLogitsLoss) else 0.5
        return Outcome(report, loss, outputs.numpy(), data[1].flatten(1).numpy() if data[1].ndim > 1 else data[1].numpy(),
                       threshold)  # fmt: skip
