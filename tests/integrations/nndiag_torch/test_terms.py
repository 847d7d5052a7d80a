"""Losses of several terms: what the one that is named is worth, and where others decide what is learned."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from torch import Tensor, nn  # noqa: E402
from torch.nn import functional as F  # noqa: E402

import nndiag  # noqa: E402
from nndiag import losses  # noqa: E402

pytestmark = pytest.mark.frameworks

ANY = torch.Generator().manual_seed(0)
LOGITS, IDS = torch.randn(12, 4, generator=ANY), torch.arange(12) % 4
LABELS, REAL = (torch.rand(12, 4, generator=ANY) > 0.5).float(), torch.randn(12, 4, generator=ANY)

LOSSES: dict[str, tuple[str, str, Tensor, Tensor, Callable[[Tensor, Tensor], Tensor]]] = {
    "MSELoss": ("real", "real", LOGITS, REAL, F.mse_loss),
    "L1Loss": ("real", "real", LOGITS, REAL, F.l1_loss),
    "CrossEntropyLoss": ("classes", "logits", LOGITS, IDS, F.cross_entropy),
    "CrossEntropy": ("classes", "probabilities", LOGITS.softmax(1), IDS, lambda p, y: F.nll_loss(p.log(), y)),
    "BCEWithLogitsLoss": ("binary", "logits", LOGITS, LABELS, F.binary_cross_entropy_with_logits),
    "BCELoss": ("binary", "probabilities", LOGITS.sigmoid(), LABELS, F.binary_cross_entropy),
}


@pytest.mark.parametrize("name", LOSSES)
def test_a_term_is_worth_what_its_loss_says(name: str) -> None:
    task, expects, outputs, targets, loss = LOSSES[name]
    facts = {"name": f"{name}{losses.OTHER_TERMS}", "task": task, "expects": expects}

    assert losses.term(outputs.numpy(), targets.numpy(), facts) == pytest.approx(
        float(loss(outputs, targets)), rel=1e-5
    )


def test_logits_of_any_size_have_a_term() -> None:
    facts = {"name": f"CrossEntropyLoss{losses.OTHER_TERMS}", "expects": "logits"}
    large = 1e4 * LOGITS.numpy()
    assert losses.term(large, IDS.numpy(), facts) == pytest.approx(float(F.cross_entropy(1e4 * LOGITS, IDS)), rel=1e-5)
    facts["name"] = f"BCEWithLogitsLoss{losses.OTHER_TERMS}"
    assert np.isfinite(losses.term(large, LABELS.numpy(), facts))


@pytest.mark.parametrize("name", ["HuberLoss", "CTCLoss", ""])
def test_a_term_of_another_kind_is_not_measured(name: str) -> None:
    assert np.isnan(losses.term(LOGITS.numpy(), REAL.numpy(), {"name": f"{name}{losses.OTHER_TERMS}"}))


def test_a_single_output_and_soft_targets_have_no_cross_entropy_over_classes() -> None:
    facts = {"name": f"CrossEntropyLoss{losses.OTHER_TERMS}", "expects": "logits"}
    assert np.isnan(losses.term(LOGITS[:, :1].numpy(), (IDS % 2).numpy(), facts))
    assert np.isnan(losses.term(LOGITS.numpy(), LOGITS.softmax(1).numpy(), facts))
    hot = F.one_hot(IDS).float()
    assert losses.term(LOGITS.numpy(), hot.numpy(), facts) == pytest.approx(
        float(F.cross_entropy(LOGITS, hot)), rel=1e-5
    )


def test_targets_of_another_shape_have_no_term() -> None:
    for name in ("MSELoss", "L1Loss", "BCEWithLogitsLoss", "CrossEntropyLoss"):
        assert np.isnan(losses.term(LOGITS.numpy(), REAL[:, :2].numpy(), {"name": f"{name}{losses.OTHER_TERMS}"}))


def test_a_weak_signal_beside_a_small_penalty_is_not_swamped() -> None:
    torch.manual_seed(0)
    x = torch.randn(2000, 8, generator=ANY)
    y = 0.1 * x[:, :1] + torch.randn(2000, 1, generator=ANY)
    model = nn.Linear(8, 1)
    optimizer = torch.optim.Adam(model.parameters(), 1e-2)
    with nndiag.watch(model, optimizer) as recorder:
        for _ in range(300):
            rows = torch.randperm(2000, generator=ANY)[:64]
            loss = F.mse_loss(model(x[rows]), y[rows]) + 1e-4 * model.weight.square().sum()
            recorder.log(loss=loss)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()

    assert recorder.run.meta.loss["name"] == "MSELoss with other terms"
    assert not [f for f in recorder.check().findings if f.code == "ND702" and "other terms" in f.message]


class Coder(nn.Module):
    """A variational autoencoder."""

    def __init__(self) -> None:
        super().__init__()
        self.into, self.back = nn.Linear(12, 4), nn.Linear(2, 12)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        mean, log_variance = self.into(x).chunk(2, 1)
        z = mean + torch.randn(mean.shape, generator=ANY) * (0.5 * log_variance).exp()
        return self.back(z), mean, log_variance


@pytest.mark.parametrize(("weight", "found"), [(100.0, 1), (1e-3, 0)])
def test_a_divergence_that_swamps_the_reconstruction_is_named(weight: float, found: int) -> None:
    torch.manual_seed(0)
    x = torch.randn(512, 2, generator=ANY) @ torch.randn(2, 12, generator=ANY)  # in a plane
    model = Coder()
    optimizer = torch.optim.Adam(model.parameters(), 1e-2)
    with nndiag.watch(model, optimizer) as recorder:
        for _ in range(400):
            batch = x[torch.randperm(512, generator=ANY)[:384]]
            back, mean, log_variance = model(batch)
            divergence = -0.5 * (1 + log_variance - mean**2 - log_variance.exp()).sum(1).mean()
            loss = F.mse_loss(back, batch) + weight * divergence
            recorder.log(loss=loss)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    report = recorder.check()
    said = [f.message for f in report.findings if f.code == "ND702"]

    assert recorder.run.meta.loss["name"] == "MSELoss with other terms"
    assert ["other terms decide" in message for message in said] == [True] * found
