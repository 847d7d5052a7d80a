"""Regressions, and networks that are fitted to functions. The error is the share of the variance that is left unexplained."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from benchmarks.diagnosis_torch.programs import Watch
from benchmarks.diagnosis_torch.zoo.sound import X_VAL, Y_VAL, epochs_of, mlp, sound, unexplained, updates, wrong

KIND = "regression"
Adam = torch.optim.Adam


def curved(number: int = 2000, noise: float = 0.3) -> tuple[Tensor, Tensor]:
    """Ten numbers, of which three matter, and noisy targets of about mean 0 and variance 1."""
    x = torch.randn(number, 10)
    y = torch.sin(x[:, 0]) + x[:, 1] * x[:, 2] + noise * torch.randn(number)
    return x, y / math.sqrt(1.43 + noise**2)


def squared(model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
    """Mean of the squared errors of a model with one output."""
    return F.mse_loss(model(x).squeeze(1), y)


@sound(KIND, 0.25)
def huber_loss(watch: Watch) -> float:
    model = mlp(10, 64, 64, 1)

    def loss(model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
        return F.huber_loss(model(x).squeeze(1), y)

    epochs_of(watch, model, Adam(model.parameters(), 1e-3), loss, *curved())
    x, y = curved()
    return unexplained(model(x).squeeze(1), y)


@sound(KIND, 0.06)
def gaussian_likelihood(watch: Watch) -> float:
    """Mean and variance are learned: as the variance shrinks, gradients grow, and the loss falls below 0."""
    model = mlp(10, 64, 64, 2)

    def loss(model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
        means, logs = model(x).unbind(1)
        return F.gaussian_nll_loss(means, y, logs.exp())

    epochs_of(watch, model, Adam(model.parameters(), 1e-3), loss, *curved(noise=0.05), epochs=20)
    x, y = curved(noise=0.05)
    return unexplained(model(x)[:, 0], y)


@sound(KIND, 0.3)
def laplace_likelihood(watch: Watch) -> float:
    """Median and spread are learned, by absolute errors."""
    model = mlp(10, 64, 2)

    def loss(model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
        medians, logs = model(x).unbind(1)
        return ((medians - y).abs() * (-logs).exp() + logs).mean()

    epochs_of(watch, model, Adam(model.parameters(), 1e-3), loss, *curved())
    x, y = curved()
    return unexplained(model(x)[:, 0], y)


@sound(KIND, 0.15)
def mixture_density(watch: Watch) -> float:
    """Three normal distributions, each with its weight (Bishop 1994). What explains is the mean of the mixture."""
    model = mlp(10, 64, 9)

    def loss(model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
        weights, means, logs = model(x).chunk(3, 1)
        log_p = torch.distributions.Normal(means, logs.exp()).log_prob(y[:, None])
        return -torch.logsumexp(F.log_softmax(weights, 1) + log_p, 1).mean()

    epochs_of(watch, model, Adam(model.parameters(), 2e-3), loss, *curved(noise=0.2), epochs=20)
    x, y = curved(noise=0.2)
    weights, means, _ = model(x).chunk(3, 1)
    return unexplained((F.softmax(weights, 1) * means).sum(1), y)


@sound(KIND, 0.25)
def quantiles(watch: Watch) -> float:
    """Three quantiles by the pinball loss (Koenker and Bassett 1978). What explains is the median."""
    model = mlp(10, 64, 64, 3)
    q = torch.tensor([0.1, 0.5, 0.9])

    def loss(model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
        above = y[:, None] - model(x)
        return torch.maximum(q * above, (q - 1) * above).mean()

    epochs_of(watch, model, Adam(model.parameters(), 1e-3), loss, *curved())
    x, y = curved()
    return unexplained(model(x)[:, 1], y)


@sound(KIND, 0.06)
def counts(watch: Watch) -> float:
    """The logarithm of the rate of a Poisson distribution. The error is of that logarithm."""
    model = mlp(4, 32, 1)

    def loss(model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
        return F.poisson_nll_loss(model(x), y)

    x = torch.randn(1200, 4)
    y = torch.poisson(torch.exp(0.5 * x[:, :1] + 1))
    epochs_of(watch, model, Adam(model.parameters(), 3e-3), loss, x, y, epochs=10)
    x = torch.randn(1000, 4)
    return unexplained(model(x), 0.5 * x[:, :1] + 1)


@sound(KIND, 0.06)
def weibull_durations(watch: Watch) -> float:
    """Scale and shape of the distribution of durations. The error is of the logarithm of the scale."""
    model = mlp(5, 32, 2)

    def scale_and_shape(x: Tensor) -> tuple[Tensor, Tensor]:
        scale, shape = model(x).unbind(1)
        return F.softplus(scale) + 0.01, F.softplus(shape) + 0.1

    def loss(_model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
        return -torch.distributions.Weibull(*scale_and_shape(x)).log_prob(y).mean()

    x = torch.randn(2000, 5)
    y = torch.exp(0.5 * x[:, 0]) * torch.distributions.Weibull(1.0, 1.5).sample((2000,)) + 1e-3
    epochs_of(watch, model, Adam(model.parameters(), 1e-3), loss, x, y)
    x = torch.randn(1000, 5)
    return unexplained(scale_and_shape(x)[0].log(), 0.5 * x[:, 0])


@sound(KIND, 0.3)
def proportional_hazards(watch: Watch) -> float:
    """The order of durations, of which some are cut short, by Cox's partial likelihood (Katzman et al. 2018).

    The risk is known but for a constant factor: the error is what its best linear function leaves of the true log-risk.
    """
    model = mlp(10, 32, 1)
    x = torch.randn(500, 10)
    durations = torch.exp(-(x[:, 0] - 0.5 * x[:, 1])) * torch.empty(500).exponential_()
    longest_first, seen = x[durations.argsort(descending=True)], torch.rand(500) < 0.7

    def loss(_: int) -> Tensor:
        risk = model(longest_first).squeeze(1)
        return -(risk - torch.logcumsumexp(risk, 0))[seen].mean()

    updates(watch, model, Adam(model.parameters(), 1e-3), 400, loss)
    x = torch.randn(1000, 10)
    both = torch.stack([model(x).squeeze(1).detach(), x[:, 0] - 0.5 * x[:, 1]])
    return 1 - float(torch.corrcoef(both)[0, 1].square())


class Prices(nn.Module):  # type: ignore[misc]
    """A network that brings its outputs to the scale of the targets by itself."""

    def __init__(self) -> None:
        super().__init__()
        self.body = mlp(10, 64, 64, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.body(x).squeeze(1) * 5_000 + 200_000


@sound(KIND, 0.25)
def scaled_outputs(watch: Watch) -> float:
    model = Prices()

    def loss(model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
        return F.mse_loss(model(x) / 5_000, y / 5_000)

    x, y = curved()
    epochs_of(watch, model, Adam(model.parameters(), 1e-3), loss, x, y * 5_000 + 200_000)
    x, y = curved()
    return unexplained(model(x), y * 5_000 + 200_000)


@sound(KIND, 0.3)
def targets_from_0_to_1(watch: Watch) -> float:
    """Targets brought to the range of the sigmoid at the end."""
    model = nn.Sequential(*mlp(10, 64, 1), nn.Sigmoid())
    x, y = curved()
    lowest, highest = y.aminmax()
    epochs_of(watch, model, Adam(model.parameters(), 2e-3), squared, x, (y - lowest) / (highest - lowest))
    x, y = curved()
    return unexplained(model(x).squeeze(1), (y - lowest) / (highest - lowest))


@sound(KIND, 0.6)
def double_precision(watch: Watch) -> float:
    model = mlp(10, 32, 1, activation=nn.Tanh).double()
    x, y = curved(1000)
    epochs_of(watch, model, Adam(model.parameters(), 2e-3), squared, x.double(), y.double(), epochs=25)
    x, y = curved(1000)
    return unexplained(model(x.double()).squeeze(1), y.double())


@sound(KIND, 0.01)
def all_samples_at_once(watch: Watch) -> float:
    """Every update sees all of the few samples. The error is of these samples."""
    model = mlp(10, 32, 1, activation=nn.Tanh)
    x, y = curved(200)
    updates(watch, model, Adam(model.parameters(), 1e-2), 600, lambda _: squared(model, x, y))
    return unexplained(model(x).squeeze(1), y)


@sound(KIND, 0.01)
def quasi_newton(watch: Watch) -> float:
    """L-BFGS, which evaluates the loss several times for each step. The error is of the samples it is given."""
    model = mlp(10, 16, 1, activation=nn.Tanh)
    x, y = curved(300, noise=0.0)
    optimizer = torch.optim.LBFGS(model.parameters(), lr=0.5, max_iter=5)

    def evaluate() -> Tensor:
        optimizer.zero_grad()
        loss = squared(model, x, y)
        loss.backward()
        return loss

    with watch(model, optimizer) as recorder:
        for _ in range(60):
            recorder.log(loss=optimizer.step(evaluate).item())
    return unexplained(model(x).squeeze(1), y)


def plane(lowest: float) -> Tensor:
    """The points of a grid of 48 × 48 from `lowest` to 1."""
    side = torch.linspace(lowest, 1, 48)
    return torch.cartesian_prod(side, side)


def squared_at_points(model: nn.Module, points: Tensor, values: Tensor) -> Tensor:
    return F.mse_loss(model(points), values)


class Waves(nn.Module):  # type: ignore[misc]
    """Sines and cosines of random frequencies, which are not learned."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("frequencies", 4 * torch.randn(2, 32))

    def forward(self, points: Tensor) -> Tensor:
        angles = 2 * math.pi * points @ self.frequencies
        return torch.cat([angles.sin(), angles.cos()], 1)


@sound(KIND, 0.01)
def fourier_features(watch: Watch) -> float:
    """A picture as a function of the place, by random waves (Tancik et al. 2020), with a tiny ε in Adam.

    The error is of the picture.
    """
    model = nn.Sequential(Waves(), *mlp(64, 64, 64, 1))
    points = plane(0)
    picture = torch.sin(6 * points[:, :1]) * torch.cos(9 * points[:, 1:])
    optimizer = Adam(model.parameters(), 1e-3, eps=1e-15)
    epochs_of(watch, model, optimizer, squared_at_points, points, picture, epochs=40, size=256)
    return unexplained(model(points), picture)


class SineLayer(nn.Module):  # type: ignore[misc]
    """Sines of 30 times a linear layer, whose weights start small accordingly."""

    def __init__(self, fan_in: int, fan_out: int, bound: float) -> None:
        super().__init__()
        self.linear = nn.Linear(fan_in, fan_out)
        nn.init.uniform_(self.linear.weight, -bound, bound)

    def forward(self, x: Tensor) -> Tensor:
        return torch.sin(30 * self.linear(x))


@sound(KIND, 0.01)
def sine_activations(watch: Watch) -> float:
    """A picture as a function of the place, by layers of sines (Sitzmann et al. 2020). The error is of the picture."""
    bound = math.sqrt(6 / 64) / 30
    head = nn.Linear(64, 1)
    nn.init.uniform_(head.weight, -bound, bound)
    model = nn.Sequential(SineLayer(2, 64, 1 / 2), SineLayer(64, 64, bound), SineLayer(64, 64, bound), head)
    points = plane(-1)
    picture = torch.sin(5 * points[:, :1]) * torch.cos(7 * points[:, 1:])
    epochs_of(watch, model, Adam(model.parameters(), 1e-4), squared_at_points, points, picture, epochs=60, size=256)
    return unexplained(model(points), picture)


@sound(KIND, 0.01)
def differential_equation(watch: Watch) -> float:
    """The solution of u' = -u with u(0) = 1, from the equation alone (Raissi et al. 2019): no data, double backward."""
    model = mlp(1, 32, 32, 1, activation=nn.Tanh)

    def loss(_: int) -> Tensor:
        t = (3 * torch.rand(64, 1)).requires_grad_()
        u = model(t)
        (slope,) = torch.autograd.grad(u.sum(), t, create_graph=True)
        return (slope + u).square().mean() + (model(torch.zeros(1, 1)) - 1).square().mean()

    updates(watch, model, Adam(model.parameters(), 2e-3), 800, loss)
    t = torch.linspace(0, 3, 100)[:, None]
    return unexplained(model(t), torch.exp(-t))


class Flow(nn.Module):  # type: ignore[misc]
    """Eight small steps along a learned vector field, each by the same weights."""

    def __init__(self) -> None:
        super().__init__()
        self.enter, self.leave = nn.Linear(64, 32), nn.Linear(32, 10)
        self.field = mlp(32, 32, 32, activation=nn.Tanh)

    def forward(self, x: Tensor) -> Tensor:
        h = self.enter(x)
        for _ in range(8):
            h = h + self.field(h) / 8
        return self.leave(h)


@sound(KIND, 0.1)
def neural_differential_equation(watch: Watch) -> float:
    """Hidden states that follow a learned equation (Chen et al. 2018). The error is the share of digits that are wrong."""
    model = Flow()

    def loss(model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
        return F.cross_entropy(model(x), y)

    epochs_of(watch, model, Adam(model.parameters(), 2e-3), loss)
    return wrong(model)


class TwoTasks(nn.Module):  # type: ignore[misc]
    """The class of a digit and the mean of its pixels, with the log-variances by which the two losses are weighed."""

    def __init__(self) -> None:
        super().__init__()
        self.trunk, self.classes, self.mean = nn.Linear(64, 64), nn.Linear(64, 10), nn.Linear(64, 1)
        self.log_variances = nn.Parameter(torch.zeros(2))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        h = F.relu(self.trunk(x))
        return self.classes(h), self.mean(h).squeeze(1)


@sound(KIND, 0.1)
def learned_weights_of_losses(watch: Watch) -> float:
    """Two losses are weighed by what is learned (Kendall et al. 2018): their sum falls below 0.

    The error is the share of digits that are wrong.
    """
    model = TwoTasks()

    def loss(model: TwoTasks, x: Tensor, y: Tensor) -> Tensor:
        logits, means = model(x)
        losses = torch.stack([F.cross_entropy(logits, y), F.mse_loss(means, x.mean(1))])
        return ((-model.log_variances).exp() * losses + model.log_variances).sum()

    epochs_of(watch, model, Adam(model.parameters(), 1e-3), loss, epochs=20)
    return float((model(X_VAL)[0].argmax(1) != Y_VAL).double().mean())
