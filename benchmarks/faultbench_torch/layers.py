"""Modules and losses that users write by hand: recurrent cells with another activation, cross-entropies, and glue."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils.rnn import pack_padded_sequence

from benchmarks.faultbench_torch.data import MASK

# Recurrent layers


class GRU(nn.Module):  # type: ignore[misc]
    """A gated recurrent unit whose candidate has `activation`, from (N, T, inputs) to (N, T, units) (Cho et al. 2014)."""

    def __init__(self, inputs: int, units: int, activation: type[nn.Module]) -> None:
        super().__init__()
        self.units = units
        self.gates = nn.Linear(inputs + units, 2 * units)
        self.candidate = nn.Linear(inputs + units, units)
        self.activation = activation()

    def forward(self, x: Tensor) -> Tensor:
        h, outputs = x.new_zeros(len(x), self.units), []
        for step in x.unbind(1):
            update, reset = torch.sigmoid(self.gates(torch.cat([step, h], 1))).chunk(2, 1)
            candidate = self.activation(self.candidate(torch.cat([step, reset * h], 1)))
            h = update * h + (1 - update) * candidate
            outputs.append(h)
        return torch.stack(outputs, 1)


class LSTM(nn.Module):  # type: ignore[misc]
    """A long short-term memory with `activation` in place of tanh, from (N, T, inputs) to (N, T, units)."""

    def __init__(self, inputs: int, units: int, activation: type[nn.Module]) -> None:
        super().__init__()
        self.units = units
        self.cell = nn.Linear(inputs + units, 4 * units)
        self.activation = activation()

    def forward(self, x: Tensor) -> Tensor:
        h, outputs = x.new_zeros(len(x), self.units), []
        c = h
        for step in x.unbind(1):
            new, rest = self.cell(torch.cat([step, h], 1)).tensor_split([self.units], 1)
            take, keep, show = torch.sigmoid(rest).chunk(3, 1)
            c = keep * c + take * self.activation(new)
            h = show * self.activation(c)
            outputs.append(h)
        return torch.stack(outputs, 1)


class Outputs(nn.Module):  # type: ignore[misc]
    """The outputs (N, T, units) of a recurrent layer of PyTorch, without its state."""

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, x: Tensor) -> Tensor:
        outputs: Tensor = self.layer(x)[0]
        return outputs


class MaskedLSTM(nn.Module):  # type: ignore[misc]
    """The last state (N, units) of an LSTM over the steps that are not masked."""

    def __init__(self, inputs: int, units: int) -> None:
        super().__init__()
        self.lstm = nn.LSTM(inputs, units, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        lengths = (x[:, :, 0] != MASK).sum(1)
        _, (state, _) = self.lstm(pack_padded_sequence(x, lengths, batch_first=True, enforce_sorted=False))
        last: Tensor = state[-1]
        return last


class HeadInForward(nn.Module):  # type: ignore[misc]
    """A network whose last layer is made anew in every pass, so that no optimiser ever has it."""

    def __init__(self, *layers: nn.Module) -> None:
        super().__init__()
        self.features = nn.Sequential(*layers)

    def forward(self, x: Tensor) -> Tensor:
        features = self.features(x)
        outputs: Tensor = nn.Linear(features.shape[1], 10)(features)
        return outputs


class Apply(nn.Module):  # type: ignore[misc]
    """A function as a module."""

    def __init__(self, function: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: Tensor) -> Tensor:
        return self.function(x)


def last() -> Apply:
    """The last step of sequences (N, T, units)."""
    return Apply(lambda x: x[:, -1])


def swap() -> Apply:
    """(N, T, channels) to (N, channels, T) and back."""
    return Apply(lambda x: x.transpose(1, 2))


# Losses by hand; y is one-hot unless said otherwise


def sum_of_logs(p: Tensor, y: Tensor) -> Tensor:
    """Cross-entropy of probabilities, not kept from log 0, summed over the batch."""
    return -(y * p.log()).sum()


def one_hot_cross_entropy(z: Tensor, y: Tensor) -> Tensor:
    """Cross-entropy of logits; ids (N, 1) are broadcast without a word."""
    return -(y * functional.log_softmax(z, dim=1)).sum(1).mean()


def clamped_cross_entropy(p: Tensor, y: Tensor) -> Tensor:
    """Cross-entropy of what is clamped to 1e-32 … 1 and called probabilities."""
    return -(y * p.clamp(1e-32, 1).log()).sum(1).mean()


def softmax_over_the_batch(z: Tensor, y: Tensor) -> Tensor:
    """Cross-entropy of logits and ids with the softmax along the wrong axis."""
    return functional.nll_loss(functional.log_softmax(z, dim=0), y)


def nll_of_probabilities(p: Tensor, y: Tensor) -> Tensor:
    """Cross-entropy of probabilities and ids."""
    return functional.nll_loss(p.log(), y)


# Initial weights


def initialised(model: nn.Sequential, weight: Callable[[Tensor], Any], bias: float = 0.0) -> nn.Sequential:
    """`model` with the weights of its convolutions and linear layers filled by `weight`, and their biases by `bias`."""
    for layer in model:
        if isinstance(layer, nn.Conv2d | nn.Linear):
            weight(layer.weight)
            nn.init.constant_(layer.bias, bias)
    return model


def he(model: nn.Sequential) -> nn.Sequential:
    """`model` with He's normal weights and zero biases."""
    return initialised(model, lambda weight: nn.init.kaiming_normal_(weight, nonlinearity="relu"))
