"""Sound programs of kinds that make tools cry wolf, trained for a few seconds: not one finding in any of them."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from itertools import pairwise

import pytest

torch = pytest.importorskip("torch")

from torch import Tensor, nn  # noqa: E402
from torch.nn import functional as F  # noqa: E402

import nndiag  # noqa: E402
from nndiag.datasets import digits  # noqa: E402

pytestmark = pytest.mark.frameworks

SPLIT = digits()
X, Y = torch.tensor(SPLIT.x, dtype=torch.float32), torch.tensor(SPLIT.y)
Adam = torch.optim.Adam


def batches(x: Tensor, y: Tensor, epochs: int, size: int = 32) -> Iterator[tuple[Tensor, Tensor]]:
    """Batches in a new order in each epoch."""
    for _ in range(epochs):
        for rows in torch.randperm(len(x)).split(size):
            yield x[rows], y[rows]


def train(
    model: nn.Module, loss_of: Callable[[nn.Module, Tensor, Tensor], Tensor], x: Tensor = X, y: Tensor = Y, *,
    epochs: int = 6, lr: float = 2e-3, size: int = 32, after: Callable[[], None] | None = None,
) -> nndiag.Report:  # fmt: skip
    """The report on a training with Adam, in a loop that logs its loss and nothing else."""
    optimizer = Adam([p for p in model.parameters() if p.requires_grad], lr)
    with nndiag.watch(model, optimizer, every=1) as recorder:
        for inputs, targets in batches(x, y, epochs, size):
            loss = loss_of(model, inputs, targets)
            recorder.log(loss=loss)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            if after is not None:
                after()
    return recorder.check()


def mlp(*sizes: int) -> nn.Sequential:
    layers: list[nn.Module] = []
    for fan_in, fan_out in pairwise(sizes):
        layers += [nn.Linear(fan_in, fan_out), nn.ReLU()]
    return nn.Sequential(*layers[:-1])


class Unit(nn.Module):
    """Cosines between features and a learned vector for each class."""

    def __init__(self) -> None:
        super().__init__()
        self.features, self.ways = mlp(64, 64, 16), nn.Parameter(torch.randn(10, 16))

    def forward(self, x: Tensor) -> Tensor:
        return F.normalize(self.features(x), dim=1) @ F.normalize(self.ways, dim=1).T


def scaled_cosines() -> nndiag.Report:
    return train(Unit(), lambda model, x, y: F.cross_entropy(16 * model(x), y))


def contrastive() -> nndiag.Report:
    def loss_of(model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
        one, other = (F.normalize(model(x + 0.1 * torch.randn_like(x)), dim=1) for _ in range(2))
        return F.cross_entropy(one @ other.T / 0.1, torch.arange(len(x)))

    return train(mlp(64, 64, 32), loss_of)


class Prototypes(nn.Module):
    """Minus the squared distances of features to a point for each class."""

    def __init__(self) -> None:
        super().__init__()
        self.features, self.points = mlp(64, 64, 16), nn.Parameter(torch.randn(10, 16))

    def forward(self, x: Tensor) -> Tensor:
        return -(self.features(x)[:, None] - self.points).square().sum(2)


def prototypes() -> nndiag.Report:
    return train(Prototypes(), lambda model, x, y: F.cross_entropy(model(x), y), lr=3e-3)


class LowRank(nn.Module):
    """A frozen linear layer with an update of low rank beside it."""

    def __init__(self, base: nn.Linear) -> None:
        super().__init__()
        self.down = nn.Parameter(0.1 * torch.randn(4, base.in_features))
        self.up = nn.Parameter(torch.zeros(base.out_features, 4))
        self.base = base.requires_grad_(False)

    def forward(self, x: Tensor) -> Tensor:
        h: Tensor = self.base(x) + x @ self.down.T @ self.up.T
        return h


def low_rank() -> nndiag.Report:
    trained = mlp(64, 64, 32, 10)
    optimizer = Adam(trained.parameters(), 3e-3)
    for x, y in batches(X, Y, 6):
        optimizer.zero_grad()
        F.cross_entropy(trained(x), y, label_smoothing=0.3).backward()
        optimizer.step()
    model = nn.Sequential(*(LowRank(layer) if isinstance(layer, nn.Linear) else layer for layer in trained))
    return train(model, lambda model, x, y: F.cross_entropy(model(x), (y + 1) % 10), epochs=12, lr=2e-3)


def counts() -> nndiag.Report:
    x = torch.randn(1200, 4)
    y = torch.poisson(torch.exp(0.5 * x[:, :1] + 1))
    return train(mlp(4, 32, 1), lambda model, x, y: F.poisson_nll_loss(model(x), y), x, y, epochs=10, lr=3e-3)


def q_learning() -> nndiag.Report:
    model = mlp(4, 64, 3)
    target = copy.deepcopy(model)

    def loss_of(model: nn.Module, state: Tensor, action: Tensor) -> Tensor:
        reward = state.gather(1, action[:, None])[:, 0]
        with torch.no_grad():
            value = reward + 0.9 * target(0.9 * state + 0.1 * torch.randn_like(state)).amax(1)
        return F.smooth_l1_loss(model(state).gather(1, action[:, None])[:, 0], value)

    def after() -> None:
        with torch.no_grad():
            for slow, fast in zip(target.parameters(), model.parameters(), strict=True):
                slow.lerp_(fast, 0.02)

    x, actions = torch.randn(38_400, 4), torch.randint(3, (38_400,))
    return train(model, loss_of, x, actions, epochs=1, lr=1e-3, size=64, after=after)


class Pooled(nn.Module):
    """Rows of a picture, in a mean whose weights are learned."""

    def __init__(self) -> None:
        super().__init__()
        self.score, self.softmax = nn.Linear(8, 1), nn.Softmax(1)
        self.each, self.head = nn.Linear(8, 64), nn.Linear(64, 10)

    def forward(self, x: Tensor) -> Tensor:
        rows = x.view(-1, 8, 8)
        logits: Tensor = self.head(F.relu(self.each(rows) * self.softmax(self.score(rows))).sum(1))
        return logits


def attention() -> nndiag.Report:
    return train(Pooled(), lambda model, x, y: F.cross_entropy(model(x), y), epochs=12, lr=5e-3)


class StepsFirst(nn.Module):
    """An LSTM that takes steps first, over the rows of a picture."""

    def __init__(self) -> None:
        super().__init__()
        self.lstm, self.head = nn.LSTM(8, 32), nn.Linear(32, 10)

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.head(self.lstm(x.view(-1, 8, 8).transpose(0, 1))[0][-1])
        return logits


def steps_first() -> nndiag.Report:
    return train(StepsFirst(), lambda model, x, y: F.cross_entropy(model(x), y), lr=5e-3)


class Gated(nn.Module):
    """A convolution whose channels are weighed by sigmoids of their means."""

    def __init__(self) -> None:
        super().__init__()
        self.convolution, self.head = nn.Conv2d(1, 16, 3, padding=1), nn.Linear(256, 10)
        self.gate = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), *mlp(16, 4, 16), nn.Sigmoid())

    def forward(self, x: Tensor) -> Tensor:
        h = F.relu(self.convolution(x.view(-1, 1, 8, 8)))
        logits: Tensor = self.head(F.max_pool2d(h * self.gate(h)[:, :, None, None], 2).flatten(1))
        return logits


def gates() -> nndiag.Report:
    return train(Gated(), lambda model, x, y: F.cross_entropy(model(x), y), lr=3e-3)


def sigmoids() -> nndiag.Report:
    model = nn.Sequential(nn.Linear(64, 64), nn.Sigmoid(), nn.Linear(64, 64), nn.Sigmoid(), nn.Linear(64, 10))
    return train(model, lambda model, x, y: F.cross_entropy(model(x), y), epochs=10, lr=1e-2)


def loop(
    model: nn.Module, optimizer: torch.optim.Optimizer, steps: int, loss_of: Callable[[int], Tensor],
    after: Callable[[int], None] | None = None,
) -> nndiag.Report:  # fmt: skip
    """The report on so many updates of what `loss_of(step)` gives, read as the default has it."""
    with nndiag.watch(model, optimizer) as recorder:
        for step in range(steps):
            loss = loss_of(step)
            recorder.log(loss=loss)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            if after is not None:
                after(step)
    return recorder.check()


def played(policy: nn.Module) -> tuple[Tensor, Tensor, Tensor]:
    """Log-probabilities of actions, and whether each was right, which the sign of the first of four numbers says."""
    states = torch.randn(64, 4)
    chosen = torch.distributions.Categorical(logits=policy(states))
    actions = chosen.sample()
    return chosen.log_prob(actions), ((states[:, 0] > 0).long() == actions).float(), states


def policy_gradient() -> nndiag.Report:
    policy = nn.Sequential(nn.Linear(4, 32), nn.Tanh(), nn.Linear(32, 2))

    def loss(_: int) -> Tensor:
        log_p, rewards, _ = played(policy)
        return -(log_p * (rewards - rewards.mean())).mean()

    return loop(policy, Adam(policy.parameters(), 5e-3), 300, loss)


def actor_and_critic() -> nndiag.Report:
    actor, critic = mlp(4, 32, 2), mlp(4, 32, 1)

    def loss(_: int) -> Tensor:
        log_p, rewards, states = played(actor)
        values = critic(states).squeeze(1)
        return -(log_p * (rewards - values.detach())).mean() + 0.5 * F.mse_loss(values, rewards)

    both = nn.ModuleDict({"actor": actor, "critic": critic})
    return loop(both, Adam(both.parameters(), 3e-3), 400, loss)


def q_learning_with_a_copy() -> nndiag.Report:
    """The targets come from a copy that is made anew every 100 steps: the loss jumps with each."""
    network = mlp(4, 32, 2)
    copied = copy.deepcopy(network)

    def loss(_: int) -> Tensor:
        states, actions = torch.randn(64, 4), torch.randint(2, (64,))
        rewards = ((states[:, 0] > 0).long() == actions).float()
        with torch.no_grad():
            targets = rewards + 0.9 * copied(torch.randn(64, 4)).max(1).values
        return F.smooth_l1_loss(network(states).gather(1, actions[:, None]).squeeze(1), targets)

    def after(step: int) -> None:
        if step % 100 == 99:
            copied.load_state_dict(network.state_dict())

    return loop(network, Adam(network.parameters(), 1e-3), 600, loss, after)


class StochasticDepth(nn.Module):
    """Residual blocks that are left out at random (Huang et al. 2016); the ReLU before the head is a function."""

    def __init__(self) -> None:
        super().__init__()
        self.enter, self.leave = nn.Linear(64, 48), nn.Linear(48, 10)
        self.blocks = nn.ModuleList([mlp(48, 48, 48) for _ in range(4)])

    def forward(self, x: Tensor) -> Tensor:
        h = self.enter(x)
        for block in self.blocks:
            if not self.training or torch.rand(()) > 0.3:
                h = h + block(F.relu(h))
        logits: Tensor = self.leave(F.relu(h))
        return logits


def stochastic_depth() -> nndiag.Report:
    return train(StochasticDepth(), lambda model, x, y: F.cross_entropy(model(x), y), epochs=8, lr=1e-3)


class Masked(nn.Module):
    """Logits of twelve classes of which the last two cannot be."""

    def __init__(self) -> None:
        super().__init__()
        self.body = mlp(64, 64, 12)

    def forward(self, x: Tensor) -> Tensor:
        return self.body(x).masked_fill(torch.arange(12) > 9, -torch.inf)


def masked_logits() -> nndiag.Report:
    return train(Masked(), lambda model, x, y: F.cross_entropy(model(x), y), epochs=8)


def regression() -> tuple[Tensor, Tensor]:
    x = torch.randn(2000, 10)
    y = torch.sin(x[:, 0]) + x[:, 1] * x[:, 2] + 0.05 * torch.randn(2000)
    return x, (y - y.mean()) / y.std()


def density() -> nndiag.Report:
    """Mean and variance are learned: as the variance shrinks, gradients grow, and the loss falls below 0."""
    x, y = regression()
    model = mlp(10, 64, 64, 2)
    rows = list(batches(x, y, 20))

    def loss(step: int) -> Tensor:
        means, logs = model(rows[step][0]).unbind(1)
        return F.gaussian_nll_loss(means, rows[step][1], logs.exp())

    return loop(model, Adam(model.parameters(), 1e-3), len(rows), loss)


class Prices(nn.Module):
    """A network that scales its outputs to what is wanted by itself."""

    def __init__(self) -> None:
        super().__init__()
        self.body = mlp(10, 64, 64, 1)

    def forward(self, x: Tensor) -> Tensor:
        scaled: Tensor = self.body(x).squeeze(1) * 5_000 + 200_000
        return scaled


def scaled_outputs() -> nndiag.Report:
    x, y = regression()
    return train(
        Prices(),
        lambda model, x, y: F.mse_loss(model(x) / 5_000, y / 5_000),
        x,
        y * 5_000 + 200_000,
        epochs=12,
        lr=1e-3,
    )


def kept_base() -> nndiag.Report:
    """The base rests, by a learning rate of 0 for its group, until the head has learned."""
    model = nn.Sequential(*mlp(64, 64, 64), nn.ReLU(), nn.Linear(64, 10))
    optimizer = Adam([{"params": model[:-1].parameters(), "lr": 0.0}, {"params": model[-1].parameters()}], 3e-3)
    rows = list(batches(X, Y, 12))

    def after(step: int) -> None:
        if step == 400:
            optimizer.param_groups[0]["lr"] = 1e-3

    return loop(model, optimizer, len(rows), lambda step: F.cross_entropy(model(rows[step][0]), rows[step][1]), after)


PROGRAMS = (
    scaled_cosines,
    contrastive,
    prototypes,
    low_rank,
    counts,
    q_learning,
    attention,
    steps_first,
    gates,
    sigmoids,
    policy_gradient,
    actor_and_critic,
    q_learning_with_a_copy,
    stochastic_depth,
    masked_logits,
    density,
    scaled_outputs,
    kept_base,
)


@pytest.mark.parametrize("program", PROGRAMS, ids=lambda program: program.__name__)
def test_a_sound_program_has_no_finding(program: Callable[[], nndiag.Report]) -> None:
    torch.manual_seed(0)
    report = program()

    assert report.verdict is nndiag.Verdict.PASS, report.headlines
