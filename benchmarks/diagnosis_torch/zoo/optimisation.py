"""Optimisers, and loops that use them in ways of their own. The error is the share of wrong validation digits."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from benchmarks.diagnosis_torch.programs import Watch
from benchmarks.diagnosis_torch.zoo.sound import (
    X,
    Y,
    batches,
    classified,
    epochs_of,
    mlp,
    sound,
    unexplained,
    updates,
    wrong,
)

KIND = "optimisation"
Adam, AdamW, SGD = torch.optim.Adam, torch.optim.AdamW, torch.optim.SGD


@sound(KIND, 0.1)
def adagrad(watch: Watch) -> float:
    """Its rates fall by themselves (Duchi et al. 2011)."""
    model = mlp(64, 64, 10)
    epochs_of(watch, model, torch.optim.Adagrad(model.parameters(), 1e-2), classified)
    return wrong(model)


@sound(KIND, 0.1)
def rmsprop(watch: Watch) -> float:
    model = mlp(64, 64, 10)
    epochs_of(watch, model, torch.optim.RMSprop(model.parameters(), 1e-3), classified)
    return wrong(model)


@sound(KIND, 0.1)
def strong_weight_decay(watch: Watch) -> float:
    model = mlp(64, 128, 10)
    optimizer = AdamW(model.parameters(), 2e-3, weight_decay=0.1)
    epochs_of(watch, model, optimizer, classified, validate=lambda: classified(model).item())
    return wrong(model)


@sound(KIND, 0.1)
def high_rate_behind_batch_norm(watch: Watch) -> float:
    """A rate of 0.5, which batch normalisation stands."""
    model = nn.Sequential(nn.Linear(64, 64), nn.BatchNorm1d(64), nn.ReLU(), nn.Linear(64, 10))
    epochs_of(watch, model, SGD(model.parameters(), 0.5), classified, size=64)
    return wrong(model)


@sound(KIND, 0.15)
def rates_by_depth(watch: Watch) -> float:
    """The first layer hardly moves, as in careful fine-tuning."""
    model = mlp(64, 128, 128, 10)
    rates = {0: 1e-5, 2: 1e-4, 4: 2e-3}
    optimizer = AdamW([{"params": model[layer].parameters(), "lr": rate} for layer, rate in rates.items()])
    epochs_of(watch, model, optimizer, classified)
    return wrong(model)


@sound(KIND, 0.1)
def two_optimizers(watch: Watch) -> float:
    """Each has a layer of its own, and both follow the same loss."""
    body, head = nn.Linear(64, 64), nn.Linear(64, 10)
    model = nn.Sequential(body, nn.ReLU(), head)
    optimizers = [SGD(body.parameters(), 0.05, momentum=0.9), Adam(head.parameters(), 1e-3)]
    with watch(model, optimizers) as recorder:
        for x, y in batches(X, Y, 12):
            loss = classified(model, x, y)
            recorder.log(loss=loss)
            for optimizer in optimizers:
                optimizer.zero_grad()
            loss.backward()
            for optimizer in optimizers:
                optimizer.step()
    return wrong(model)


@sound(KIND, 0.1)
def accumulated_gradients(watch: Watch) -> float:
    """An update for each four batches; what is logged is a quarter of the loss of one."""
    model = mlp(64, 64, 10)
    optimizer = Adam(model.parameters(), 2e-3)
    with watch(model, optimizer) as recorder:
        for number, (x, y) in enumerate(batches(X, Y, 24)):
            loss = classified(model, x, y) / 4
            recorder.log(loss=loss)
            loss.backward()
            if number % 4 == 3:
                optimizer.step()
                optimizer.zero_grad()
    return wrong(model)


@sound(KIND, 0.1)
def sharpness_aware(watch: Watch) -> float:
    """The gradient is taken a little uphill of the weights, which are put back before the step (Foret et al. 2021)."""
    model = mlp(64, 64, 10)
    parameters = list(model.parameters())
    optimizer = SGD(parameters, 0.1, momentum=0.9)
    with watch(model, optimizer) as recorder:
        for x, y in batches(X, Y, 10):
            loss = classified(model, x, y)
            recorder.log(loss=loss)
            optimizer.zero_grad()
            loss.backward()
            norm = torch.stack([parameter.grad.norm() for parameter in parameters]).norm() + 1e-12
            uphill = [0.05 * parameter.grad / norm for parameter in parameters]
            with torch.no_grad():
                for parameter, move in zip(parameters, uphill, strict=True):
                    parameter.add_(move)
            optimizer.zero_grad()
            classified(model, x, y).backward()
            with torch.no_grad():
                for parameter, move in zip(parameters, uphill, strict=True):
                    parameter.sub_(move)
            optimizer.step()
    return wrong(model)


@sound(KIND, 0.4)
def meta_learning(watch: Watch) -> float:
    """Waves are to be learned from ten points in one step, through which the gradient goes (Finn et al. 2017).

    The error is the share of variance that new waves leave unexplained after that step.
    """
    model = mlp(1, 32, 1, activation=nn.Tanh)

    def adapted() -> tuple[Tensor, Tensor]:
        """Predictions for ten points of a new wave after a step on ten others, and what they should be."""
        amplitude, phase = 2 * torch.rand(()) + 0.5, 3 * torch.rand(())
        x = 6 * torch.rand(20, 1) - 3
        y = amplitude * torch.sin(x + phase)
        weights = dict(model.named_parameters())
        loss = F.mse_loss(torch.func.functional_call(model, weights, (x[:10],)), y[:10])
        gradients = torch.autograd.grad(loss, list(weights.values()), create_graph=True)
        moved = {
            name: weight - 0.05 * gradient for (name, weight), gradient in zip(weights.items(), gradients, strict=True)
        }
        return torch.func.functional_call(model, moved, (x[10:],)), y[10:]

    def loss(_: int) -> Tensor:
        return torch.stack([F.mse_loss(*adapted()) for _ in range(4)]).mean()

    updates(watch, model, Adam(model.parameters(), 2e-3), 300, loss)
    waves = [adapted() for _ in range(100)]
    predicted, wanted = torch.cat([wave[0] for wave in waves]), torch.cat([wave[1] for wave in waves])
    return unexplained(predicted, wanted)


@sound(KIND, 0.3)
def cross_validation(watch: Watch) -> float:
    """A network for each of three folds, watched one after the other. The error is that of the worst."""
    fold = torch.arange(len(X)) % 3
    errors: list[float] = []
    for number in range(3):
        rest, held = fold != number, fold == number
        model = mlp(64, 64, 10)
        optimizer = Adam(model.parameters(), 2e-3)

        def validate(model: nn.Module = model, held: Tensor = held) -> float:
            return float(classified(model, X[held], Y[held]))

        epochs_of(watch, model, optimizer, classified, X[rest], Y[rest], epochs=4, validate=validate)
        errors.append(wrong(model, X[held], Y[held]))
    return max(errors)


@sound(KIND, 0.1)
def maximised_likelihood(watch: Watch) -> float:
    """The optimiser maximises the logarithm of the likelihood, as it is told to."""
    model = mlp(64, 64, 10)

    def log_likelihood(model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
        return torch.distributions.Categorical(logits=model(x)).log_prob(y).mean()

    epochs_of(watch, model, Adam(model.parameters(), 2e-3, maximize=True), log_likelihood)
    return wrong(model)
