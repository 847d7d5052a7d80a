"""Rewards: policy gradients, actors with critics, and Q-learning. The error is the share of the reward that is missed."""

from __future__ import annotations

import copy
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from benchmarks.diagnosis_torch.programs import Watch
from benchmarks.diagnosis_torch.zoo.sound import follow, mlp, sound, update, updates

KIND = "reinforcement learning"
Adam = torch.optim.Adam


def rewarded(states: Tensor, actions: Tensor) -> Tensor:
    """1 where the action says whether the first number of the state is above 0."""
    return ((states[:, 0] > 0).long() == actions).float()


def played(policy: nn.Module) -> tuple[Tensor, Tensor, Tensor]:
    """States, log-probabilities of the actions that `policy` has drawn in them, and rewards."""
    states = torch.randn(64, 4)
    chosen = torch.distributions.Categorical(logits=policy(states))
    actions = chosen.sample()
    return states, chosen.log_prob(actions), rewarded(states, actions)


def missed(policy: Callable[[Tensor], Tensor]) -> float:
    """Share of states in which the likeliest action is the wrong one; a half is chance."""
    states = torch.randn(1000, 4)
    return 1 - float(rewarded(states, policy(states).argmax(1)).mean())


@sound(KIND, 0.1)
def policy_gradient(watch: Watch) -> float:
    policy = mlp(4, 32, 2, activation=nn.Tanh)

    def loss(_: int) -> Tensor:
        _, log_p, rewards = played(policy)
        return -(log_p * (rewards - rewards.mean())).mean()

    updates(watch, policy, Adam(policy.parameters(), 5e-3), 300, loss)
    return missed(policy)


@sound(KIND, 0.1)
def actor_and_critic(watch: Watch) -> float:
    actor, critic = mlp(4, 32, 2), mlp(4, 32, 1)

    def loss(_: int) -> Tensor:
        states, log_p, rewards = played(actor)
        values = critic(states).squeeze(1)
        return -(log_p * (rewards - values.detach())).mean() + 0.5 * F.mse_loss(values, rewards)

    both = nn.ModuleDict({"actor": actor, "critic": critic})
    updates(watch, both, Adam(both.parameters(), 3e-3), 400, loss)
    return missed(actor)


class SharedTrunk(nn.Module):  # type: ignore[misc]
    """Logits of actions and values of states, from the same hidden layer."""

    def __init__(self) -> None:
        super().__init__()
        self.trunk, self.policy, self.value = nn.Linear(4, 32), nn.Linear(32, 2), nn.Linear(32, 1)

    def forward(self, states: Tensor) -> tuple[Tensor, Tensor]:
        h = torch.tanh(self.trunk(states))
        return self.policy(h), self.value(h).squeeze(1)


@sound(KIND, 0.1)
def advantage_actor_critic(watch: Watch) -> float:
    """One network acts and judges; entropy is rewarded, and gradients are clipped (Mnih et al. 2016)."""
    model = SharedTrunk()

    def loss(_: int) -> Tensor:
        states = torch.randn(64, 4)
        logits, values = model(states)
        chosen = torch.distributions.Categorical(logits=logits)
        actions = chosen.sample()
        rewards = rewarded(states, actions)
        policy_loss = -(chosen.log_prob(actions) * (rewards - values.detach())).mean()
        return policy_loss + 0.5 * F.mse_loss(values, rewards) - 0.01 * chosen.entropy().mean()

    updates(watch, model, Adam(model.parameters(), 3e-3), 400, loss, clip=0.5)
    return missed(lambda states: model(states)[0])


@sound(KIND, 0.1)
def clipped_policy_gradient(watch: Watch) -> float:
    """Each set of actions is learned from four times, with clipped ratios of probabilities (Schulman et al. 2017)."""
    policy = mlp(4, 32, 2, activation=nn.Tanh)
    optimizer = Adam(policy.parameters(), 3e-3)
    with watch(policy, optimizer) as recorder:
        for _ in range(60):
            states = torch.randn(256, 4)
            with torch.no_grad():
                chosen = torch.distributions.Categorical(logits=policy(states))
                actions = chosen.sample()
                old_log_p = chosen.log_prob(actions)
            rewards = rewarded(states, actions)
            advantages = (rewards - rewards.mean()) / (rewards.std() + 1e-6)
            for rows in (rows for _ in range(4) for rows in torch.randperm(256).split(64)):
                log_p = torch.distributions.Categorical(logits=policy(states[rows])).log_prob(actions[rows])
                ratio = (log_p - old_log_p[rows]).exp()
                gains = torch.minimum(ratio * advantages[rows], ratio.clamp(0.8, 1.2) * advantages[rows])
                update(recorder, optimizer, -gains.mean())
    return missed(policy)


@sound(KIND, 0.1)
def q_learning_with_a_slow_copy(watch: Watch) -> float:
    """The targets come from a copy that follows slowly (Lillicrap et al. 2016). The number that is chosen is the reward.

    The error is the share of the largest rewards that is missed.
    """
    network = mlp(4, 64, 3)
    slow = copy.deepcopy(network)

    def loss(_: int) -> Tensor:
        states, actions = torch.randn(64, 4), torch.randint(3, (64, 1))
        with torch.no_grad():
            later = slow(0.9 * states + 0.1 * torch.randn_like(states)).amax(1, keepdim=True)
        return F.smooth_l1_loss(network(states).gather(1, actions), states.gather(1, actions) + 0.9 * later)

    def after(_: int) -> None:
        follow(slow, network, 0.02)

    updates(watch, network, Adam(network.parameters(), 1e-3), 600, loss, after=after)
    states = torch.randn(1000, 4)
    gained = states.gather(1, network(states).argmax(1, keepdim=True)).mean()
    return 1 - float(gained / states[:, :3].amax(1).mean())


@sound(KIND, 0.1)
def q_learning_with_a_copy(watch: Watch) -> float:
    """The targets come from a copy that is made anew every 100 steps: the loss jumps with each."""
    network = mlp(4, 32, 2)
    copied = copy.deepcopy(network)

    def loss(_: int) -> Tensor:
        states, actions = torch.randn(64, 4), torch.randint(2, (64,))
        with torch.no_grad():
            targets = rewarded(states, actions) + 0.9 * copied(torch.randn(64, 4)).amax(1)
        return F.smooth_l1_loss(network(states).gather(1, actions[:, None]).squeeze(1), targets)

    def after(step: int) -> None:
        if step % 100 == 99:
            copied.load_state_dict(network.state_dict())

    updates(watch, network, Adam(network.parameters(), 1e-3), 600, loss, after=after)
    return missed(network)
