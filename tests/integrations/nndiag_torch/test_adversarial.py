"""Networks that are trained against each other: their losses are no measure of progress. And several that work together."""

from __future__ import annotations

from collections.abc import Callable

import pytest

torch = pytest.importorskip("torch")

from torch import Tensor, nn  # noqa: E402
from torch.nn import functional as F  # noqa: E402

import nndiag  # noqa: E402

pytestmark = pytest.mark.frameworks

N = 16
BCE = F.binary_cross_entropy_with_logits
Adam = torch.optim.Adam


def data() -> Tensor:
    return torch.randn(512, 8, generator=torch.Generator().manual_seed(0)) * 0.3 + 1.0


def labels(made_up: bool) -> Tensor:
    return torch.zeros(N, 1) if made_up else torch.ones(N, 1)


CRITICS: dict[str, Callable[[nn.Module, Tensor, Tensor], Tensor]] = {
    "cross-entropy": lambda d, x, made: BCE(d(x), labels(False)) + BCE(d(made), labels(True)),
    "one batch": lambda d, x, made: BCE(d(torch.cat([x, made])), torch.cat([labels(False), labels(True)])),
    "Wasserstein": lambda d, x, made: d(made).mean() - d(x).mean(),
    "hinge": lambda d, x, made: F.relu(1 - d(x)).mean() + F.relu(1 + d(made)).mean(),
}
"""The loss of a discriminator, of samples and of what a generator has made up."""


def adversaries(critic: str, watched: str, logged: bool, rounds: int = 1) -> nndiag.Run:
    """Generator and discriminator in turns, `rounds` steps of the latter for one of the former."""
    torch.manual_seed(0)
    g = nn.Sequential(nn.Linear(4, 32), nn.ReLU(), nn.Linear(32, 8))
    d = nn.Sequential(nn.Linear(8, 32), nn.LeakyReLU(0.2), nn.Linear(32, 1))
    of_g, of_d = Adam(g.parameters(), 2e-3), Adam(d.parameters(), 2e-3)
    model, optimizers = {"g": (g, of_g), "d": (d, of_d), "both": (nn.ModuleDict({"g": g, "d": d}), [of_g, of_d])}[
        watched
    ]
    with nndiag.watch(model, optimizers, every=1) as recorder:
        for number, x in enumerate(data().repeat(4, 1).split(N)):
            made = g(torch.randn(N, 4))
            loss = CRITICS[critic](d, x, made.detach())
            if logged and watched == "d":
                recorder.log(loss=loss)
            of_d.zero_grad()
            loss.backward()
            of_d.step()
            if number % rounds:
                continue
            loss = BCE(d(made), labels(False)) if critic in ("cross-entropy", "one batch") else -d(made).mean()
            if logged and watched != "d":
                recorder.log(loss=loss)
            of_g.zero_grad()
            loss.backward()
            of_g.step()
    return recorder.run


@pytest.mark.parametrize("logged", [True, False])
@pytest.mark.parametrize("watched", ["g", "d", "both"])
@pytest.mark.parametrize("critic", CRITICS)
def test_sound_adversaries_have_no_finding(critic: str, watched: str, logged: bool) -> None:
    run = adversaries(critic, watched, logged)
    report = nndiag.Checklist().examine(run)

    assert run.meta.loss["adversarial"] is True
    assert report.verdict is nndiag.Verdict.PASS, report.headlines
    not_checked = {each.code for each in report.checks if each.verdict is nndiag.Verdict.NOT_CHECKED}
    assert {"ND005", "ND601", "ND602", "ND603", "ND604", "ND605", "ND607"} <= not_checked


def test_a_discriminator_of_five_steps_for_one_of_the_generator_is_known_all_the_same() -> None:
    assert adversaries("Wasserstein", "d", logged=True, rounds=5).meta.loss["adversarial"] is True


def test_what_is_learned_of_the_loss_later_leaves_it_adversarial() -> None:
    torch.manual_seed(0)
    g, d = nn.Linear(4, 8), nn.Linear(8, 3)
    of_g, of_d = Adam(g.parameters(), 2e-3), Adam(d.parameters(), 2e-3)
    with nndiag.watch(g, of_g, every=1) as recorder:
        for number in range(30):
            made, ids = g(torch.randn(N, 4)), torch.arange(N) % (3 if number > 10 else 2)
            of_d.zero_grad()
            F.cross_entropy(d(made.detach()), ids).backward()
            of_d.step()
            loss = F.cross_entropy(d(made), ids, ignore_index=2)
            recorder.log(loss=loss)
            of_g.zero_grad()
            loss.backward()
            of_g.step()
    loss = recorder.run.meta.loss

    assert loss["ignored"] > 0
    assert loss["adversarial"] is True


class Together(nn.Module):
    """An encoder and a decoder."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder, self.decoder = nn.Sequential(nn.Linear(8, 16), nn.ReLU()), nn.Linear(16, 3)
        self.centres = nn.Parameter(torch.zeros(3, 16))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        h = self.encoder(x)
        return self.decoder(h), h


def cross_entropy(model: Together, x: Tensor, y: Tensor) -> Tensor:
    return F.cross_entropy(model(x)[0], y)


def with_centres(model: Together, x: Tensor, y: Tensor) -> Tensor:
    z, h = model(x)
    return F.cross_entropy(z, y) + 0.1 * (h - model.centres[y]).square().mean()


WATCHED: dict[str, Callable[[Together], nn.Module]] = {
    "whole": lambda model: model,
    "encoder": lambda model: model.encoder,
    "decoder": lambda model: model.decoder,
}


@pytest.mark.parametrize("watched", WATCHED)
@pytest.mark.parametrize("loss_of", [cross_entropy, with_centres])
def test_optimisers_that_work_together_are_no_adversaries(
    watched: str, loss_of: Callable[[Together, Tensor, Tensor], Tensor]
) -> None:
    torch.manual_seed(0)
    model = Together()
    one, other = Adam(model.encoder.parameters(), 1e-3), Adam([*model.decoder.parameters(), model.centres], 1e-3)
    optimizers = {"whole": [one, other], "encoder": one, "decoder": other}[watched]
    with nndiag.watch(WATCHED[watched](model), optimizers, every=1) as recorder:
        for x in data().split(N):
            loss = loss_of(model, x, torch.arange(N) % 3)
            recorder.log(loss=loss)
            one.zero_grad()
            other.zero_grad()
            loss.backward()
            one.step()
            other.step()

    assert "adversarial" not in recorder.run.meta.loss


def test_parts_of_a_batch_that_reach_parts_of_a_model_are_no_adversaries() -> None:
    torch.manual_seed(0)
    model, stranger = Together(), nn.Linear(8, 1)
    ours, theirs = Adam(model.parameters(), 1e-3), Adam(stranger.parameters(), 1e-3)
    with nndiag.watch(model, ours, every=1) as recorder:
        for x in data().split(N):
            ours.zero_grad()
            theirs.zero_grad()
            cross_entropy(model, x, torch.arange(N) % 3).backward()
            model.encoder(x).square().mean().backward()
            stranger(x).mean().backward()
            ours.step()
            theirs.step()

    assert "adversarial" not in recorder.run.meta.loss
