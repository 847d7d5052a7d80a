"""What the autograd graph of a loss tells: losses of every kind, their outputs, targets and gradients, and no harm done."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

torch = pytest.importorskip("torch")

from torch import Tensor, nn  # noqa: E402
from torch.nn import functional as F  # noqa: E402

from nndiag_torch import graph, patches  # noqa: E402
from nndiag_torch.graph import nodes  # noqa: E402
from nndiag_torch.graph.axes import mixes  # noqa: E402

pytestmark = pytest.mark.frameworks

N, C = 8, 3
GENERATOR = torch.Generator().manual_seed(0)
X = torch.randn(N, 4, generator=GENERATOR)
IDS = torch.tensor([0, 1, 2, 0, 1, 2, 2, 1])
REAL = torch.randn(N, C, generator=GENERATOR)
BITS = (REAL > 0).float()
SOFT = torch.softmax(REAL, 1)
WEIGHT = torch.tensor([1.0, 2.0, 3.0])


def linear(outputs: int = C) -> nn.Linear:
    torch.manual_seed(1)
    return nn.Linear(4, outputs)


@pytest.fixture
def z() -> Tensor:
    """Logits (N, C) of a model."""
    return linear()(X)


def facts(name: str, task: str, expects: str, reduction: str = "mean", **more: Any) -> dict[str, Any]:
    return {"name": name, "task": task, "expects": expects, "reduction": reduction, **more}


def cross_entropy(reduction: str = "mean", label_smoothing: float = 0.0, **more: Any) -> dict[str, Any]:
    found = facts("CrossEntropyLoss", "classes", "logits", reduction, **more)
    return found | {"label_smoothing": pytest.approx(label_smoothing)}


def same(found: Tensor | None, wanted: Tensor) -> bool:
    return found is not None and not found.requires_grad and torch.equal(found, wanted)


# ------------------------------------------------------------------------------------------------ PyTorch's own losses

MEAN_OF_ALL = {
    "cross_entropy": (lambda z: F.cross_entropy(z, IDS), IDS, cross_entropy()),
    "CrossEntropyLoss": (lambda z: nn.CrossEntropyLoss()(z, IDS), IDS, cross_entropy()),
    "class weights": (lambda z: F.cross_entropy(z, IDS, weight=WEIGHT), IDS, cross_entropy(weight=WEIGHT.tolist())),
    "label smoothing": (lambda z: F.cross_entropy(z, IDS, label_smoothing=0.1), IDS, cross_entropy(label_smoothing=0.1)),
    "label smoothing and weights": (lambda z: F.cross_entropy(z, IDS, WEIGHT, label_smoothing=0.2), IDS,
                                    cross_entropy(label_smoothing=0.2, weight=WEIGHT.tolist())),
    "soft targets": (lambda z: F.cross_entropy(z, SOFT), SOFT, cross_entropy()),
    "nll of log_softmax": (lambda z: F.nll_loss(F.log_softmax(z, 1), IDS), IDS, cross_entropy()),
    "NLLLoss of raw outputs": (lambda z: nn.NLLLoss()(z, IDS), IDS, facts("NLLLoss", "classes", "log_probabilities")),
    "BCEWithLogitsLoss": (lambda z: nn.BCEWithLogitsLoss()(z, BITS), BITS, facts("BCEWithLogitsLoss", "binary", "logits")),
    "pos_weight": (lambda z: nn.BCEWithLogitsLoss(pos_weight=WEIGHT)(z, BITS), BITS,
                   facts("BCEWithLogitsLoss", "binary", "logits", pos_weight=WEIGHT.tolist())),
    "MSELoss": (lambda z: nn.MSELoss()(z, REAL), REAL, facts("MSELoss", "real", "real")),
    "MSELoss, swapped": (lambda z: F.mse_loss(REAL, z), REAL, facts("MSELoss", "real", "real")),
    "L1Loss": (lambda z: nn.L1Loss()(z, REAL), REAL, facts("L1Loss", "real", "real")),
    "HuberLoss": (lambda z: nn.HuberLoss()(z, REAL), REAL, facts("HuberLoss", "real", "real")),
    "SmoothL1Loss": (lambda z: nn.SmoothL1Loss()(z, REAL), REAL, facts("SmoothL1Loss", "real", "real")),
    "MultiMarginLoss": (lambda z: nn.MultiMarginLoss()(z, IDS), IDS, facts("MultiMarginLoss", "classes", "real")),
    "MultiLabelSoftMarginLoss": (lambda z: nn.MultiLabelSoftMarginLoss()(z, BITS), BITS,
                                 facts("MultiLabelSoftMarginLoss", "binary", "logits")),
    "squared by hand": (lambda z: ((z - REAL) ** 2).mean(), REAL, facts("MSELoss", "real", "real")),
    "squared by hand, swapped": (lambda z: torch.square(REAL - z).mean(), REAL, facts("MSELoss", "real", "real")),
    "product by hand": (lambda z: ((z - REAL) * (z - REAL)).mean(), REAL, facts("MSELoss", "real", "real")),
    "absolute by hand": (lambda z: (z - REAL).abs().mean(), REAL, facts("L1Loss", "real", "real")),
    "sum over N": (lambda z: F.cross_entropy(z, IDS, reduction="sum") / N, IDS, cross_entropy()),
    "single losses": (lambda z: F.cross_entropy(z, IDS, reduction="none").mean(), IDS, cross_entropy()),
    "gather by hand": (lambda z: -F.log_softmax(z, 1).gather(1, IDS[:, None]).mean(), IDS,
                       facts("CrossEntropyLoss", "classes", "logits")),
    "index by hand": (lambda z: -F.log_softmax(z, 1)[torch.arange(N), IDS].mean(), IDS,
                      facts("CrossEntropyLoss", "classes", "logits")),
    "one-hot by hand": (lambda z: -(F.one_hot(IDS, C).float() * F.log_softmax(z, -1)).sum(1).mean(),
                        F.one_hot(IDS, C).float(), cross_entropy()),
    "logsumexp by hand": (lambda z: (z.logsumexp(1) - z.gather(1, IDS[:, None]).squeeze(1)).mean(), IDS,
                          facts("CrossEntropyLoss", "classes", "logits")),
    "Categorical": (lambda z: -torch.distributions.Categorical(logits=z, validate_args=False).log_prob(IDS).mean(), None,
                    facts("CrossEntropyLoss", "classes", "logits")),
    "Bernoulli": (lambda z: -torch.distributions.Bernoulli(logits=z, validate_args=False).log_prob(BITS).mean(), BITS,
                  facts("BCEWithLogitsLoss", "binary", "logits")),
}  # fmt: skip


@pytest.mark.parametrize("returned", [True, False], ids=["output known", "output not known"])
@pytest.mark.parametrize("name", MEAN_OF_ALL)
def test_a_loss_its_outputs_and_its_targets_are_those_that_were_put_in(name: str, returned: bool, z: Tensor) -> None:
    loss, targets, told = MEAN_OF_ALL[name]
    found = graph.objective(loss(z), z if returned else None)

    assert found.loss == told
    assert found.head == ""
    if returned:
        assert same(found.outputs, z.detach())
        assert targets is None or torch.allclose(found.targets, targets, atol=1e-6)
        assert found.gradient_source is not None
    elif found.outputs is not None and told["expects"] == "logits":
        assert torch.allclose(found.outputs.log_softmax(1), z.detach().log_softmax(1), atol=1e-6) or same(
            found.outputs, z
        )


@pytest.mark.parametrize(("error", "told"), [
    (lambda z, y: 100 * ((z - y).abs() / y.abs().clamp(1e-7)).mean(), {"scale": 100.0}),
    (lambda z, y: ((y - z) / (y + 1e-8)).abs().mean(), {}),
    (lambda z, y: ((z - y) / y).abs().sum() / y.numel(), {}),
    (lambda z, y: ((z - y).abs() / (y + 1)).mean(), None),
    (lambda z, y: ((z - y) / 20).abs().mean(), None),
    (lambda z, y: ((z - y).abs() / (z.abs() + y.abs())).mean(), None),
])  # fmt: skip
def test_an_error_in_percent_is_divided_by_its_targets(
    error: Callable[[Tensor, Tensor], Tensor], told: dict[str, Any] | None, z: Tensor
) -> None:
    targets = REAL.abs() + 0.1
    found = graph.objective(error(z, targets), z)

    assert found.loss == ({} if told is None else facts("MeanAbsolutePercentageError", "real", "real", **told))
    assert told is None or torch.allclose(found.targets, targets, atol=1e-5)
    assert graph.objective(error(z, targets), None).loss == {}  # the outputs must be known


@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
@pytest.mark.parametrize("name", ["cross_entropy", "binary_cross_entropy_with_logits", "mse_loss", "l1_loss", "huber_loss",
                                  "smooth_l1_loss", "soft", "smoothed"])  # fmt: skip
def test_the_reduction_is_told(name: str, reduction: str, z: Tensor) -> None:
    targets: dict[str, Tensor] = {"cross_entropy": IDS, "binary_cross_entropy_with_logits": BITS}
    if name == "soft":
        loss = F.cross_entropy(z, SOFT, reduction=reduction)
    elif name == "smoothed":
        loss = F.cross_entropy(z, IDS, reduction=reduction, label_smoothing=0.1)
    else:
        loss = getattr(F, name)(z, targets.get(name, REAL), reduction=reduction)
    found = graph.objective(loss, z)

    assert found.loss["reduction"] == reduction
    assert "scale" not in found.loss


@pytest.mark.parametrize(
    ("loss", "reduction", "scale"),
    [
        (lambda z: F.cross_entropy(z, IDS) / 4, "mean", 0.25),
        (lambda z: 2 * F.cross_entropy(z, IDS, reduction="none").sum(), "sum", 2),
        (lambda z: F.mse_loss(z, REAL, reduction="none").sum(1).mean(), "mean", C),
        (lambda z: ((z - REAL) ** 2).sum() / 2 / N, "mean", C / 2),
        (lambda z: F.mse_loss(z, REAL, reduction="none").mean(1).sum(), "sum", 1 / C),
        (lambda z: torch.stack([F.cross_entropy(z, IDS, reduction="sum")] * 2).mean() * 0.5, "sum", 0.5),
        (lambda z: F.cross_entropy(z, IDS) * z.mean(), "mean", None),
        (lambda z: F.cross_entropy(z, IDS) + 0.1 * z.pow(2).mean(), "mean", None),
    ],
)
def test_what_is_no_plain_mean_has_a_scale(
    loss: Callable[[Tensor], Tensor], reduction: str, scale: float | None
) -> None:
    z = linear()(X)
    found = graph.objective(loss(z), z)

    assert found.loss["reduction"] == reduction
    assert found.loss["scale"] == (None if scale is None else pytest.approx(scale))


@pytest.mark.parametrize(
    ("head", "function"),
    [("softmax", lambda z: F.softmax(z, 1)), ("sigmoid", torch.sigmoid), ("relu", F.relu), ("tanh", torch.tanh),
     ("relu", lambda z: z.clamp(min=0)), ("log_softmax", lambda z: F.log_softmax(z, 1)), ("leaky_relu", F.leaky_relu),
     ("softplus", F.softplus), ("exponential", torch.exp), ("unknown", lambda z: 10 * torch.sigmoid(z)),
     ("sigmoid", lambda z: torch.sigmoid(z).view(N, C, 1).squeeze(2)), ("", lambda z: z.view(N, C))],
)  # fmt: skip
@pytest.mark.parametrize("returned", [True, False], ids=["in the model", "in the loop"])
def test_the_function_right_before_the_loss_is_named(
    head: str, function: Callable[[Tensor], Tensor], returned: bool, z: Tensor
) -> None:
    outputs = function(z)
    found = graph.objective(F.cross_entropy(outputs, IDS), outputs if returned else z)

    assert found.head == head
    assert found.loss == cross_entropy()
    if returned or head in ("softmax", "sigmoid", "tanh", "log_softmax", ""):
        assert same(found.outputs, outputs.detach())


def test_a_binary_loss_on_probabilities_has_them_for_outputs(z: Tensor) -> None:
    p = torch.sigmoid(z)
    found = graph.objective(nn.BCELoss()(p, BITS), z)

    assert found.loss == facts("BCELoss", "binary", "probabilities")
    assert same(found.outputs, p.detach())
    assert same(found.targets, BITS)


@pytest.mark.parametrize(
    "loss",
    [
        lambda p: -(BITS * torch.log(p) + (1 - BITS) * torch.log(1 - p)).mean(),
        lambda p: -(BITS * torch.log(p + 1e-8) + (1 - BITS) * torch.log(1 - p + 1e-8)).mean(),
    ],
)
def test_a_binary_loss_by_hand_is_one(loss: Callable[[Tensor], Tensor], z: Tensor) -> None:
    p = torch.sigmoid(z)
    found = graph.objective(loss(p), p)

    assert found.loss | {"unguarded": True} == facts("BCELoss", "binary", "probabilities", unguarded=True)
    assert same(found.outputs, p.detach())
    assert same(found.targets, BITS)


WEIGHED = {
    "halves negated one by one": (lambda p: (-BITS * p.log() - (1 - BITS) * (1 - p).log()).mean(), {}),
    "the half of 0 first": (lambda p: -((1 - BITS) * (1 - p).log() + BITS * p.log()).mean(), {}),
    "minus the half of 0": (lambda p: (-(BITS * p.log()) - ((1 - BITS) * (1 - p).log())).mean(), {}),
    "a weight of 1": (lambda p: -(5 * BITS * p.log() + (1 - BITS) * (1 - p).log()).mean(), {"pos_weight": [5.0]}),
    "a weight of the half": (lambda p: -(5 * (BITS * p.log()) + (1 - BITS) * (1 - p).log()).mean(), {"pos_weight": [5.0]}),
    "two weights": (lambda p: -(0.9 * BITS * p.log() + 0.1 * (1 - BITS) * (1 - p).log()).mean(), {"weight": True}),
    "a weight for each of several": (lambda p: -(WEIGHT * BITS * p.log() + (1 - BITS) * (1 - p).log()).mean(),
                                     {"weight": True}),
    "a weight by label": (lambda p: (-(BITS * p.log() + (1 - BITS) * (1 - p).log()) * (1 + 4 * BITS)).mean(),
                          {"weight": True, "scale": None}),
}  # fmt: skip


@pytest.mark.parametrize("name", WEIGHED)
def test_halves_of_a_binary_loss_may_be_weighed(name: str, z: Tensor) -> None:
    loss, more = WEIGHED[name]
    p = torch.sigmoid(z)
    found = graph.objective(loss(p), p)

    assert found.loss == facts("BCELoss", "binary", "probabilities", unguarded=True, **more)
    assert same(found.outputs, p.detach())
    assert same(found.targets, BITS)


def test_halves_of_labels_that_are_neither_are_no_loss_with_labels(z: Tensor) -> None:
    p, soft = torch.sigmoid(z), 0.8 * BITS + 0.1

    assert graph.objective(-(3 * soft * p.log() + (1 - soft) * (1 - p).log()).mean(), p).loss == {}
    assert graph.objective(-(p.log() + 2 * (1 - p).log()).mean(), p).loss == {}


@pytest.mark.parametrize(
    ("loss", "targets"),
    [
        (lambda p: -torch.log(p.gather(1, IDS[:, None])).mean(), IDS),
        (lambda p: -torch.log(p[torch.arange(N), IDS]).mean(), IDS),
        (lambda p: -torch.log(p[torch.arange(N), IDS] + 1e-9).mean(), IDS),
        (lambda p: -torch.log(p.gather(1, IDS[:, None]).clamp(min=1e-9)).mean(), IDS),
        (lambda p: -(SOFT * torch.log(p + 1e-9)).sum(1).mean(), SOFT),
        (lambda p: -(SOFT * torch.log(p.clamp(1e-7, 1))).sum(1).mean(), SOFT),
        (lambda p: F.nll_loss(torch.log(p), IDS), IDS),
    ],
)
def test_a_logarithm_of_probabilities_by_hand(loss: Callable[[Tensor], Tensor], targets: Tensor, z: Tensor) -> None:
    p = F.softmax(z, 1)
    found = graph.objective(loss(p), p)

    assert found.loss["task"] == "classes"
    assert found.loss["expects"] == "probabilities"
    assert found.loss["reduction"] == "mean"
    assert found.head == "softmax"
    assert same(found.outputs, p.detach())
    assert same(found.targets, targets)


@pytest.mark.filterwarnings("ignore:reduction")
@pytest.mark.parametrize("log_target", [True, False])
@pytest.mark.parametrize("reduction", ["mean", "batchmean", "sum"])
def test_a_divergence_compares_logarithms_with_probabilities(log_target: bool, reduction: str, z: Tensor) -> None:
    log_p = F.log_softmax(z, 1)
    loss = F.kl_div(log_p, SOFT.log() if log_target else SOFT, reduction=reduction, log_target=log_target)
    found = graph.objective(loss, log_p)

    assert found.loss["name"] == "KLDivLoss"
    assert found.loss["expects"] == "log_probabilities"
    assert found.loss["reduction"] == ("sum" if reduction == "sum" else "mean")
    assert same(found.outputs, log_p.detach())
    assert torch.allclose(found.targets, SOFT)


def test_the_models_own_log_softmax_makes_it_a_loss_on_log_probabilities(z: Tensor) -> None:
    log_p = F.log_softmax(z, 1)
    found = graph.objective(F.nll_loss(log_p, IDS), log_p)

    assert found.loss == facts("NLLLoss", "classes", "log_probabilities")
    assert found.head == "log_softmax"
    assert same(found.outputs, log_p.detach())


@pytest.mark.parametrize("full", [True, False])
def test_a_count_is_compared_with_a_logarithm_without_a_task(full: bool, z: Tensor) -> None:
    counts = torch.poisson(torch.ones(N, C), generator=GENERATOR)
    found = graph.objective(F.poisson_nll_loss(z, counts, full=full), z)

    assert found.loss["name"].startswith("PoissonNLLLoss")
    assert "task" not in found.loss
    assert same(found.outputs, z.detach())
    assert same(found.targets, counts)


def test_a_count_is_compared_with_a_rate(z: Tensor) -> None:
    rate, counts = F.softplus(z), torch.ones(N, C)
    found = graph.objective(F.poisson_nll_loss(rate, counts, log_input=False), rate)

    assert found.loss == facts("PoissonNLLLoss", "real", "real")
    assert same(found.outputs, rate.detach())
    assert found.head == "softplus"


@pytest.mark.parametrize("variance", [lambda z: torch.ones(N, C), F.softplus], ids=["given", "learned"])
def test_a_gaussian_likelihood_has_means_for_outputs(variance: Callable[[Tensor], Tensor], z: Tensor) -> None:
    found = graph.objective(F.gaussian_nll_loss(z, REAL, variance(z)), z)

    assert found.loss["name"] == "GaussianNLLLoss"
    assert found.loss["task"] == "real"
    assert same(found.outputs, z.detach())
    assert torch.allclose(found.targets, REAL, atol=1e-6)


def test_margins_of_several_labels(z: Tensor) -> None:
    ids = torch.tensor([[0, 2, -1]] * N)
    found = graph.objective(nn.MultiLabelMarginLoss()(z, ids), z)

    assert found.loss == facts("MultiLabelMarginLoss", "binary", "real")
    assert same(found.targets, torch.tensor([[1.0, 0.0, 1.0]] * N))

    found = graph.objective(nn.SoftMarginLoss()(z, 2 * BITS - 1), z)

    assert found.loss == {"name": "SoftMarginLoss", "expects": "real", "reduction": "mean"}


def test_weights_that_are_no_numbers_are_not_told(z: Tensor) -> None:
    found = graph.objective(F.cross_entropy(z, IDS, weight=torch.tensor([1.0, 2.0, torch.inf])), z)

    assert found.loss["weight"] is True


def test_a_loss_on_sequences_says_what_it_expects() -> None:
    log_p = linear()(torch.randn(5, 2, 4)).log_softmax(2)
    loss = nn.CTCLoss()(log_p, torch.ones(2, 2, dtype=torch.long), torch.tensor([5, 5]), torch.tensor([2, 2]))
    found = graph.objective(loss, log_p)

    assert found.loss["name"] == "CTCLoss"
    assert found.loss["expects"] == "log_probabilities"
    assert "task" not in found.loss
    assert same(found.outputs, log_p.detach())


UNKNOWN: dict[str, Callable[[Tensor], Tensor]] = {
    "triplet": lambda z: F.triplet_margin_loss(z, REAL, z.roll(1, 0)),
    "cosine": lambda z: F.cosine_embedding_loss(z, REAL, torch.ones(N)),
    "ranking": lambda z: F.margin_ranking_loss(z[:, 0], z[:, 1], torch.ones(N)),
    "mean of outputs": lambda z: z.mean(),
    "policy gradient": lambda z: -(F.log_softmax(z, 1)[torch.arange(N), IDS] * torch.linspace(-1, 1, N)).mean(),
    "policy gradient, rewarded": lambda z: (
        -(F.log_softmax(z, 1)[torch.arange(N), IDS] * torch.linspace(0.1, 1, N)).mean()
    ),
    "policy gradient, by torch": lambda z: (
        F.cross_entropy(z, IDS, reduction="none") * torch.linspace(-1, 1, N)
    ).mean(),
    "entropy": lambda z: -(F.softmax(z, 1) * F.log_softmax(z, 1)).sum(1).mean(),
    "uphill, of a critic": lambda z: -F.cross_entropy(z @ torch.eye(C), IDS),
    "uphill, with a factor": lambda z: -0.3 * F.cross_entropy(z, IDS),
    "log p, uphill, among others": lambda z: F.log_softmax(z, 1)[torch.arange(N), IDS].mean() + z.square().mean(),
    "log p, rewarded below 0": lambda z: 0.5 * F.log_softmax(z, 1)[torch.arange(N), IDS].mean(),
    "neighbours": lambda z: F.mse_loss(z[1:], z[:-1]),
    "distances": lambda z: (z[:, None] - z[None]).abs().mean(),
}
EITHER_WAY = ("policy gradient", "policy gradient, by torch")
"""Those of which it is known that samples are weighed by numbers of either sign."""


def test_minus_a_loss_of_what_the_model_returned_is_that_loss(z: Tensor) -> None:
    found = graph.objective(-F.cross_entropy(z, IDS), z)

    assert found.loss == facts("CrossEntropyLoss", "classes", "logits", label_smoothing=0.0)
    assert same(found.outputs, z.detach())
    assert found.gradient_source is not None


@pytest.mark.parametrize("name", UNKNOWN)
def test_what_is_not_known_is_not_guessed(name: str, z: Tensor) -> None:
    found = graph.objective(UNKNOWN[name](z), z)

    assert found.loss == ({"signed_weights": True} if name in EITHER_WAY else {})
    assert found.outputs is None
    assert found.targets is None


SIGNED = torch.linspace(-1, 1, N)


@pytest.mark.parametrize(
    ("signed", "loss"),
    [
        (True, lambda z: -(torch.distributions.Categorical(logits=z).log_prob(IDS) * SIGNED).mean()),
        (True, lambda z: -torch.minimum(z[:, 0].exp() * SIGNED, z[:, 0].exp().clamp(0.8, 1.2) * SIGNED).mean()),
        (True, lambda z: F.mse_loss(z[:, 0], SIGNED) - 0.1 * (F.log_softmax(z, 1)[:, 1] * SIGNED).mean()),
        (True, lambda z: (z[:, :1] * SIGNED[:, None]).mean()),
        (False, lambda z: -(F.log_softmax(z, 1)[:, 1] * SIGNED.abs()).mean()),
        (False, lambda z: 1 - (F.normalize(z) * F.normalize(REAL)).sum(1).mean()),
        (False, lambda z: 1 - (z[:, 0] * SIGNED).sum() / (z[:, 0].norm() * SIGNED.norm())),
        (False, lambda z: F.relu(1 - z[:, 0] * SIGNED.sign()).mean()),
        (False, lambda z: ((z[:, 0] * SIGNED - 1) ** 2).mean()),
    ],
    ids=["likelihood", "clipped", "beside another", "critic", "positive", "cosine", "correlation", "hinge", "squared"],
)
def test_a_loss_whose_samples_are_weighed_either_way_says_so(
    signed: bool, loss: Callable[[Tensor], Tensor], z: Tensor
) -> None:
    assert graph.objective(loss(z), z).loss.get("signed_weights", False) is signed


def test_a_penalty_on_parameters_is_no_objective() -> None:
    model = linear()
    penalty = ((model.weight - 1) ** 2).sum() + model.bias.abs().sum()

    assert graph.objective(penalty, None).loss == {}


# ------------------------------------------------------------------------------------------------------- what is put in


def test_padding_is_left_out() -> None:
    z = linear()(X)
    ids = torch.where(torch.arange(N) < 3, -100, IDS)
    found = graph.objective(F.cross_entropy(z, ids), z)

    assert same(found.outputs, z.detach()[3:])
    assert same(found.targets, IDS[3:])
    assert "ignore_index" not in found.loss

    found = graph.objective(F.cross_entropy(z, IDS, ignore_index=2), z)

    assert found.loss["ignore_index"] == 2
    assert same(found.targets, IDS[IDS != 2])


MASK = torch.tensor([1.0, 1, 0, 1, 0, 1, 1, 1])
MASKED = {
    "times": lambda losses: (losses * MASK).sum() / MASK.sum(),
    "times bool": lambda losses: (losses * MASK.bool()).sum() / 6,
    "index": lambda losses: losses[MASK.bool()].mean(),
    "select": lambda losses: losses.masked_select(MASK.bool()).mean(),
    "fill": lambda losses: losses.masked_fill(MASK == 0, 0.0).sum() / 6,
    "where": lambda losses: torch.where(MASK == 1, losses, 0.0).sum() / 6,
}


@pytest.mark.parametrize("how", MASKED)
def test_what_is_masked_by_hand_is_left_out(how: str, z: Tensor) -> None:
    found = graph.objective(MASKED[how](F.cross_entropy(z, IDS, reduction="none")), z)

    assert found.loss == cross_entropy()
    assert same(found.outputs, z.detach()[MASK.bool()])
    assert same(found.targets, IDS[MASK.bool()])


def test_weights_of_samples_are_told() -> None:
    z = linear()(X)
    found = graph.objective((F.cross_entropy(z, IDS, reduction="none") * torch.linspace(0.1, 1, N)).mean(), z)

    assert found.loss == cross_entropy(weight=True, scale=None)


@pytest.mark.parametrize("shape", [(2, C, 5), (2, C, 4, 5), (2, C, 2, 3, 4), (3, 3, 3), (C,)])
def test_classes_of_any_number_of_axes_come_in_rows(shape: tuple[int, ...]) -> None:
    z = torch.randn(shape, requires_grad=True) * 1.0
    ids = torch.randint(0, C, shape[:1] + shape[2:] if len(shape) > 1 else ())
    found = graph.objective(F.cross_entropy(z, ids), z)
    rows = z.detach().movedim(min(1, z.ndim - 1), -1).reshape(-1, C)

    assert same(found.outputs, rows)
    assert same(found.targets, ids.reshape(-1))
    assert "softmax_axis" not in found.loss
    assert torch.allclose(F.cross_entropy(found.outputs, found.targets), F.cross_entropy(z, ids))


@pytest.mark.parametrize(
    ("outputs", "targets", "axis"),
    [((600, 9000), (600,), -1), ((2, 3, 1000, 1000), (2, 1000, 1000), 1), ((60, 3, 180, 180), (60, 3, 180, 180), None)],
)
def test_of_very_many_values_some_are_taken(
    outputs: tuple[int, ...], targets: tuple[int, ...], axis: int | None
) -> None:
    z = torch.zeros(outputs, requires_grad=True) * 1.0
    y = torch.arange(torch.Size(targets).numel()).reshape(targets)
    y = y.float() if axis is None else torch.where(y % 5 == 0, -100, y % 3)
    loss = F.mse_loss(z, y) if axis is None else F.cross_entropy(z, y)
    found = graph.objective(loss, z)
    (gradient,) = torch.autograd.grad(loss, z)
    delta, share = found.delta(gradient), found.outputs.numel() / z.numel()

    assert 1 << 20 < found.outputs.numel() <= 1.01 * (1 << 22)
    assert 0.1 < share < 1
    assert delta.shape == found.outputs.shape
    assert len(found.targets) == len(found.outputs)
    if axis is None:
        wanted = -2 * found.targets / z.numel()
    else:
        wanted = (torch.full_like(delta, 1 / delta.shape[1]) - F.one_hot(found.targets, delta.shape[1])) / (
            y >= 0
        ).sum()
    assert torch.allclose(delta, wanted, rtol=1e-4, atol=1e-9)


VIEWS: dict[str, Callable[[Tensor], Tensor]] = {
    "flat": lambda z: z.reshape(-1, C),
    "shifted": lambda z: z[:, :-1].contiguous().view(-1, C).float(),
    "last": lambda z: z[:, -1],
    "every second": lambda z: z[::2].flatten(0, 1),
    "turned": lambda z: z.permute(2, 1, 0).transpose(0, 2).reshape(-1, C),
    "one of several": lambda z: z.unbind(1)[2],
    "a part": lambda z: z.split(2, 1)[1].reshape(-1, C),
    "parts": lambda z: z.split([1, 5], 1)[1].reshape(-1, C),
    "rows by index": lambda z: z[torch.tensor([3, 1]), torch.tensor([0, 4])],
    "rows by mask": lambda z: z[torch.arange(24).view(4, 6) % 3 == 0],
    "double": lambda z: z.reshape(-1, C).double(),
    "turned back": lambda z: z[0].T.T.unsqueeze(0).squeeze(0),
    "normalised, then flat": lambda z: z.log_softmax(-1).view(-1, C),
}


@pytest.mark.parametrize("name", VIEWS)
def test_views_of_what_the_model_returned_are_followed(name: str) -> None:
    z = linear()(torch.randn(4, 6, 4))
    seen = VIEWS[name](z)
    ids = torch.randint(0, C, seen.shape[:1])
    loss = F.nll_loss(seen, ids) if "normalised" in name else F.cross_entropy(seen, ids)
    found = graph.objective(loss, {"logits": z, "hidden": (X,)})
    gradients: list[Tensor] = []
    delta = found.delta
    found.gradient_source.register_hook(lambda gradient: gradients.append(delta(gradient)))
    loss.backward()
    wanted = (found.outputs.softmax(1) - F.one_hot(ids, C)) / len(ids)

    assert found.gradient_source is z
    assert found.loss == cross_entropy()
    assert found.outputs.shape == seen.shape
    assert torch.allclose(found.outputs.log_softmax(1), seen.detach().log_softmax(1), atol=1e-6)
    assert torch.allclose(gradients[0].to(wanted.dtype), wanted, atol=1e-6)


@pytest.mark.parametrize("name", [name for name in MEAN_OF_ALL if "swapped" not in name])
def test_a_hook_on_the_source_gets_the_gradient_of_the_outputs(name: str) -> None:
    z = linear()(X)
    loss, _, _ = MEAN_OF_ALL[name]
    value = loss(z)
    found = graph.objective(value, None)
    if found.gradient_source is None:  # without what the model returned the logits themselves are not seen
        assert found.loss["expects"] in ("logits", "real")
        found = graph.objective(value, z)
    gradients: list[Tensor] = []
    delta = found.delta
    found.gradient_source.register_hook(lambda gradient: gradients.append(delta(gradient)))
    (wanted,) = torch.autograd.grad(value, z)

    assert torch.allclose(gradients[0], wanted, atol=1e-7)
    assert gradients[0].shape == found.outputs.shape


def test_gradients_of_padding_are_left_out() -> None:
    z = linear()(X)
    loss = F.cross_entropy(z, torch.where(torch.arange(N) < 3, -100, IDS))
    found = graph.objective(loss, z)
    (gradient,) = torch.autograd.grad(loss, z)

    assert torch.equal(found.delta(gradient), gradient[3:])


def test_time_steps_and_heads_are_joined() -> None:
    z = linear()(torch.randn(4, 6, 4))
    ids = torch.randint(0, C, (4, 6))
    losses = [F.cross_entropy(z[:, t], ids[:, t]) for t in range(6)]
    for loss, scale in (
        (sum(losses), {"scale": pytest.approx(6)}),
        (sum(losses) / 6, {}),
        (torch.stack(losses).mean(), {}),
    ):
        found = graph.objective(loss, z)

        assert found.loss == cross_entropy(**scale)
        assert found.outputs.shape == (24, C)
        assert torch.bincount(found.targets, minlength=C).equal(torch.bincount(ids.reshape(-1), minlength=C))
        assert found.gradient_source is None


def test_of_several_losses_that_of_what_the_model_returned_is_taken(z: Tensor) -> None:
    value = linear(1)(X)
    loss = 0.5 * F.mse_loss(value, torch.zeros(N, 1)) + F.cross_entropy(z, IDS)

    assert graph.objective(loss, z).loss["name"] == "CrossEntropyLoss with other terms"
    assert graph.objective(loss, value).loss["name"] == "MSELoss with other terms"


def test_a_function_of_what_the_model_returned_counts_as_that(z: Tensor) -> None:
    value = linear(1)(X)
    loss = 0.5 * F.mse_loss(value, torch.zeros(N, 1)) + F.cross_entropy(z.softmax(1), IDS)

    found = graph.objective(loss, (z, value))

    assert (found.loss["name"], found.head) == ("CrossEntropyLoss with other terms", "softmax")


@pytest.mark.parametrize(
    ("penalty"),
    [
        lambda model, z: 1e-3 * sum(p.pow(2).sum() for p in model.parameters()),
        lambda model, z: 0.1 * ((model.weight - 1) ** 2).sum(),
        lambda model, z: -0.01 * torch.distributions.Categorical(logits=z).entropy().mean(),
        lambda model, z: -0.5 * torch.sum(1 + z - z.pow(2) - z.exp()),
    ],
    ids=["weights", "distance", "entropy", "VAE"],
)
def test_penalties_are_other_terms(penalty: Callable[[nn.Module, Tensor], Tensor]) -> None:
    model = linear()
    z = model(X)
    found = graph.objective(F.cross_entropy(z, IDS) + penalty(model, z), z)

    assert found.loss == cross_entropy(scale=None) | {"name": "CrossEntropyLoss with other terms"}
    assert same(found.outputs, z.detach())


def test_the_root_of_a_squared_error_has_a_name_of_its_own(z: Tensor) -> None:
    assert graph.objective(torch.sqrt(F.mse_loss(z, REAL) + 1e-8), z).loss == facts("RMSELoss", "real", "real")
    assert graph.objective(torch.sqrt(F.cross_entropy(z, IDS)), z).loss == {}


BROADCAST: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "mse": F.mse_loss,
    "l1": F.l1_loss,
    "huber": F.huber_loss,
    "smooth l1": F.smooth_l1_loss,
    "by hand": lambda z, y: ((z - y) ** 2).mean(),
    "absolute by hand": lambda z, y: (z - y).abs().mean(),
}


@pytest.mark.filterwarnings("ignore:Using a target size")
@pytest.mark.parametrize("name", BROADCAST)
@pytest.mark.parametrize("flat", [False, True], ids=["(N, 1) and (N,)", "(N,) and (N, 1)"])
def test_shapes_that_are_broadcast_are_told_and_undone(name: str, flat: bool) -> None:
    z, y = linear(1)(X), REAL[:, :1]
    z, y = (z.squeeze(1), y) if flat else (z, y.squeeze(1))
    found = graph.objective(BROADCAST[name](z, y), z)

    assert found.loss["broadcast"] == (["(N,)", "(N, 1)"] if flat else ["(N, 1)", "(N,)"])
    assert same(found.outputs, z.detach())
    assert found.targets.shape == y.shape
    assert torch.allclose(found.targets, y, atol=1e-5)


@pytest.mark.filterwarnings("ignore:Using a target size")
@pytest.mark.parametrize(
    ("outputs", "targets"),
    [((N, 1), (N, 1)), ((N, C), (C,)), ((N, C), ()), ((N, C), (N, 1)), ((1, 1), (1,)), ((N, 1, 4), (N, 4, 1)),
     ((8, 1, 8), (8, 8, 1))],
)  # fmt: skip
def test_what_is_meant_to_be_broadcast_is_not_told(outputs: tuple[int, ...], targets: tuple[int, ...]) -> None:
    z = torch.randn(outputs, requires_grad=True) * 1.0
    found = graph.objective(F.mse_loss(z, torch.randn(targets)), z)

    assert found.loss["name"] == "MSELoss"
    assert "broadcast" not in found.loss


LOG_P = {"logits": lambda z: F.log_softmax(z, 1), "probabilities": lambda z: F.softmax(z, 1).log()}


@pytest.mark.parametrize("expects", LOG_P)
def test_ids_that_multiply_log_p_of_all_classes_are_told(expects: str, z: Tensor) -> None:
    found = graph.objective(-(IDS[:, None] * LOG_P[expects](z)).sum(1).mean(), z)

    assert (found.loss["task"], found.loss["expects"], found.loss["ids_multiply"]) == ("classes", expects, C)
    assert same(found.targets, IDS)


@pytest.mark.parametrize(
    "y",
    [torch.ones(N, 1), torch.rand(N, 1), torch.rand(N, 1).round(), 100.0 * IDS[:, None], F.one_hot(IDS, C).float()],
    ids=["ones", "weights", "a mask", "other numbers", "one-hot"],
)
def test_what_else_multiplies_log_p_is_not_taken_for_ids(y: Tensor, z: Tensor) -> None:
    assert "ids_multiply" not in graph.objective(-(y * F.log_softmax(z, 1)).sum(1).mean(), z).loss


UNIT: dict[str, Callable[[Tensor], Tensor]] = {
    "normalize": lambda v: F.normalize(v, dim=1),
    "by hand": lambda v: v / v.norm(dim=1, keepdim=True),
    "kept from 0": lambda v: v / v.norm(dim=1, keepdim=True).clamp(min=1e-6),
}


@pytest.mark.parametrize("unit", UNIT)
def test_products_of_unit_vectors_are_cosines(unit: str, z: Tensor) -> None:
    of_unit_length, ways = UNIT[unit], torch.randn(C, C, requires_grad=True)
    cosines = of_unit_length(z) @ of_unit_length(ways).T

    assert graph.objective(F.cross_entropy(cosines, IDS), cosines).head == "cosine"
    assert graph.objective(F.cross_entropy(F.linear(of_unit_length(z), of_unit_length(ways)), IDS)).head == "cosine"
    assert graph.objective(F.cross_entropy(10 * cosines, IDS)).head == "unknown"
    for other in (z @ of_unit_length(ways).T, of_unit_length(z) @ ways.T, (z / z.detach().norm()) @ ways.T):
        assert graph.objective(F.cross_entropy(other, IDS)).head != "cosine"


@pytest.mark.parametrize(
    "y", [torch.tensor([0.0, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0])[:, None], 1000 + IDS[:, None].float()]
)
def test_whole_targets_of_a_squared_error_by_hand_stay_whole(y: Tensor) -> None:
    z = linear(1)(X)

    assert same(graph.objective(((z - y) ** 2).mean(), z).targets, y)


@pytest.mark.parametrize("n", [3, 4])
def test_places_in_the_batch_are_no_classes(n: int) -> None:
    a, b = linear()(torch.randn(n, 4)), linear()(torch.randn(n, 4))
    found = graph.objective(F.cross_entropy(a @ b.T, torch.arange(n)), (a, b))

    assert ("task" in found.loss) == (n < 4)
    assert (found.targets is None) == (n >= 4)


@pytest.mark.parametrize("size", [(N, C), (C, C)])
def test_a_softmax_over_the_samples_is_told(size: tuple[int, int]) -> None:
    z = linear()(torch.randn(size[0], 4))
    ids = torch.arange(size[0]) % C
    log_p = z.log_softmax(0)

    assert graph.objective(F.nll_loss(log_p, ids), log_p).loss["softmax_axis"] == 0
    assert graph.objective(F.nll_loss(log_p, ids), z).loss["softmax_axis"] == 0
    assert "softmax_axis" not in graph.objective(F.nll_loss(z.log_softmax(-1), ids), z).loss


@pytest.mark.parametrize(("axis", "told"), [(0, 0), (1, None), (-1, None)])
def test_a_softmax_over_the_samples_is_told_of_a_loss_by_hand(axis: int, told: int | None, z: Tensor) -> None:
    p, rows = z.softmax(axis), torch.arange(N)

    for loss in (-torch.log(p[rows, IDS] + 1e-9), -p.log()[rows, IDS], -z.log_softmax(axis)[rows, IDS]):
        assert graph.objective(loss.mean(), z).loss.get("softmax_axis") == told


@pytest.mark.parametrize(
    ("outputs", "targets", "told"),
    [((7, 4), (4, 7), [[7, 4], [4, 7]]), ((4, 7), (4, 7), None), ((4, 4), (4, 4), None), ((28, 1), (1, 28), None),
     ((2, 14), (4, 7), None)],
)  # fmt: skip
def test_outputs_and_targets_that_are_flattened_in_two_orders_are_told(
    outputs: tuple[int, int], targets: tuple[int, int], told: list[list[int]] | None
) -> None:
    z = linear()(torch.randn(*outputs, 4))
    y = torch.arange(targets[0] * targets[1]).reshape(targets) % C

    for ids in (y.view(-1), y.reshape(-1), y.flatten()):
        assert graph.objective(F.cross_entropy(z.view(-1, C), ids), z).loss.get("axes_crossed") == told
    in_order = y.t().reshape(-1) if told else y.reshape(-1)
    assert "axes_crossed" not in graph.objective(F.cross_entropy(z.reshape(-1, C), in_order), z).loss


def test_who_is_told_from_all_others_has_no_axis_of_classes() -> None:
    z = linear(N)(X)
    by_columns = -z.log_softmax(0)[torch.arange(N), torch.arange(N)].mean()

    assert "softmax_axis" not in graph.objective(by_columns, z).loss


SIGNS = 2 * BITS - 1


@pytest.mark.parametrize("labels", [SIGNS, BITS, 1 - 2 * BITS, BITS.long(), BITS.bool()])
def test_a_hinge_by_hand_is_one(labels: Tensor, z: Tensor) -> None:
    for loss in ((1 - labels * z).clamp(min=0), F.relu(1 - z * labels), torch.clamp(1 - z * labels, 0)):
        found = graph.objective(loss.mean(), z)

        assert found.loss == {"name": "HingeLoss", "expects": "real", "reduction": "mean"}
        assert same(found.targets, labels)
        assert same(found.outputs, z.detach())


def test_a_squared_hinge_by_hand_is_one(z: Tensor) -> None:
    found = graph.objective((1 - BITS * z).clamp(min=0).pow(2).mean(), z)

    assert found.loss == {"name": "SquaredHingeLoss", "expects": "real", "reduction": "mean"}
    assert same(found.targets, BITS)


@pytest.mark.parametrize("head", [torch.sigmoid, lambda z: z])
def test_what_is_clipped_before_a_binary_loss_is_seen_as_it_was(head: Callable[[Tensor], Tensor], z: Tensor) -> None:
    p = head(z)
    for returned in (z, p):
        for loss in (F.binary_cross_entropy(p.clamp(1e-7, 1 - 1e-7), BITS),
                     F.binary_cross_entropy_with_logits(torch.logit(p.clamp(1e-7, 1 - 1e-7)), BITS)):  # fmt: skip
            found = graph.objective(loss, returned)

            assert found.loss == facts("BCELoss", "binary", "probabilities")
            assert same(found.outputs, p.detach())
            assert same(found.targets, BITS)


def test_what_is_cut_off_at_zero_without_labels_is_no_hinge(z: Tensor) -> None:
    losses = (F.relu(1 - z), F.relu(1 - REAL * z), F.relu(z[:4] - z[4:] + 1), F.relu(1 - z * z), F.relu(BITS - z))

    assert not any(graph.objective(loss.mean(), z).loss.get("name") == "HingeLoss" for loss in losses)


EPS = 1e-7


def normalized(p: Tensor) -> Tensor:
    """As losses on probabilities do that divide by the sum and clip."""
    return (p / p.sum(-1, keepdim=True)).clamp(EPS, 1 - EPS).log()


def clipped(p: Tensor, bits: Tensor) -> Tensor:
    """The binary one."""
    p = p.clamp(EPS, 1 - EPS)
    return -(bits * (p + EPS).log() + (1 - bits) * (1 - p + EPS).log()).mean()


HEADS: dict[str, Callable[[Tensor], Tensor]] = {
    "": lambda z: z, "sigmoid": torch.sigmoid, "softmax": lambda z: z.softmax(-1), "relu": F.relu,
}  # fmt: skip


@pytest.mark.parametrize("head", HEADS)
def test_a_loss_that_divides_outputs_by_their_sum_is_told(head: str, z: Tensor) -> None:
    p = HEADS[head](z)
    found = graph.objective(-(F.one_hot(IDS, C).float() * normalized(p)).sum(-1).mean(), p)

    assert found.loss == facts("CrossEntropy", "classes", "probabilities", normalizes=True)
    assert found.head == head
    assert same(found.outputs, p.detach())


@pytest.mark.parametrize("head", HEADS)
def test_a_softmax_of_logarithms_takes_probabilities(head: str, z: Tensor) -> None:
    p = HEADS[head](z)
    found = graph.objective(F.cross_entropy(p.clamp(EPS, 1 - EPS).log(), IDS), p)

    assert (found.loss["task"], found.loss["expects"]) == ("classes", "probabilities")
    assert same(found.outputs, p.detach())
    assert same(found.targets, IDS)


@pytest.mark.parametrize("head", HEADS)
@pytest.mark.parametrize("units", [1, C])
def test_a_clipped_binary_loss_of_rows_is_one(head: str, units: int) -> None:
    p = HEADS[head](linear(units)(X))
    bits = BITS[:, :units]
    found = graph.objective(clipped(p, bits), p)

    assert found.loss == facts("BCELoss", "binary", "probabilities")
    assert same(found.outputs, p.detach())
    assert same(found.targets, bits)


def test_a_single_output_divided_by_itself_is_seen_as_one_of_a_loss_over_classes() -> None:
    p = torch.sigmoid(linear(1)(X))
    found = graph.objective(-(BITS[:, :1] * normalized(p)).sum(-1).mean(), p)

    assert found.loss["task"] == "classes"
    assert found.loss["normalizes"] is True
    assert found.outputs is not None
    assert tuple(found.outputs.shape) == (N, 1)


@pytest.mark.parametrize("positive", [torch.exp, F.softplus])
def test_positive_numbers_divided_by_their_sum_are_good_probabilities(
    positive: Callable[[Tensor], Tensor], z: Tensor
) -> None:
    p = positive(z)
    for returned in (z, p):
        assert "normalizes" not in graph.objective(-normalized(p)[torch.arange(N), IDS].mean(), returned).loss


def test_outputs_beyond_all_numbers_leave_nothing_to_tell_the_targets_by() -> None:
    z = linear()(X) * torch.inf
    found = graph.objective(((z - REAL) ** 2).mean(), z)

    assert found.loss["name"] == "MSELoss"
    assert found.targets is None


def test_outputs_of_a_clamped_binary_loss_by_hand_are_those_before_the_clamp() -> None:
    z = linear(1)(3 * torch.randn(N, 4))
    bits, p = (IDS > 0).float(), torch.tanh(z).squeeze(1).clamp(1e-7, 1 - 1e-7)
    found = graph.objective(-(bits * p.log() + (1 - bits) * (1 - p).log()).mean(), z)

    assert found.loss == facts("BCELoss", "binary", "probabilities")
    assert found.head == "tanh"
    assert found.outputs is not None
    assert float(found.outputs.min()) < -0.5


PLACES = torch.arange(20).reshape(4, 5) % C
"""Classes of 5 places of 4 samples."""


@pytest.mark.parametrize(
    ("loss", "told"),
    [
        (lambda z: F.cross_entropy(z.transpose(1, 2), PLACES), {}),
        (lambda z: F.cross_entropy(z.permute(0, 2, 1), PLACES), {}),
        (lambda z: F.cross_entropy(z.reshape(-1, C), PLACES.reshape(-1)), {}),
        (lambda z: F.nll_loss(z.log_softmax(-1).transpose(1, 2), PLACES), {}),
        (lambda z: F.nll_loss(z.log_softmax(1).transpose(1, 2), PLACES), {"softmax_axis": 1}),
        (lambda z: F.nll_loss(z.permute(0, 2, 1).log_softmax(2), PLACES), {"softmax_axis": 2}),
        (lambda z: F.nll_loss(z.log_softmax(1).reshape(-1, C), PLACES.reshape(-1)), {"softmax_axis": 1}),
        (lambda z: F.cross_entropy(z.reshape(4, C, 5), PLACES), {"axes_mixed": [[4, 5, C], [4, C, 5]]}),
        (
            lambda z: F.cross_entropy(z.transpose(1, 2).reshape(-1, C), PLACES.reshape(-1)),
            {"axes_mixed": [[4, C, 5], [20, C]]},
        ),
    ],
)
def test_the_classes_of_places_are_followed_to_their_axis(
    loss: Callable[[Tensor], Tensor], told: dict[str, Any]
) -> None:
    z = linear()(torch.randn(4, 5, 4))
    found = graph.objective(loss(z), z)

    assert {name: found.loss[name] for name in ("softmax_axis", "axes_mixed") if name in found.loss} == told


@pytest.mark.parametrize(
    ("before", "after", "mixed"),
    [
        ((4, 10, 5), (40, 5), False),
        ((4, 50), (4, 5, 10), False),
        ((4, 10, 6), (40, 2, 3), False),
        ((4, 1, 5), (4, 5, 1), False),
        ((4, 5, 5), (4, 5, 5), False),
        ((3,), (3, 1), False),
        ((), (1,), False),
        ((4, 10, 5), (4, 5, 10), True),
        ((4, 3, 8, 8), (256, 3), True),
        ((6, 4), (4, 6), True),
    ],
)
def test_a_reshape_may_split_and_join_axes_and_not_mix_them(
    before: tuple[int, ...], after: tuple[int, ...], mixed: bool
) -> None:
    assert mixes(before, after) == mixed


def test_a_log_likelihood_that_nobody_has_negated_is_a_loss_with_a_wrong_sign(z: Tensor) -> None:
    log_p = z.log_softmax(1)
    mean = graph.objective(log_p[torch.arange(N), IDS].mean(), z)
    total = graph.objective(log_p.gather(1, IDS[:, None]).sum(), z)

    assert (mean.loss["name"], mean.loss["reduction"]) == ("CrossEntropyLoss", "mean")
    assert (total.loss["name"], total.loss["reduction"]) == ("CrossEntropyLoss", "sum")
    assert same(mean.targets, IDS)


BY_HAND: dict[str, Callable[[Tensor], Tensor]] = {
    "picked, then logged": lambda p: -p[torch.arange(N), IDS].log().mean(),
    "logged, then picked": lambda p: -p.log()[torch.arange(N), IDS].mean(),
    "one-hot": lambda p: -(F.one_hot(IDS, C) * p.log()).sum(1).mean(),
    "nll": lambda p: F.nll_loss(p.log(), IDS),
}


@pytest.mark.parametrize("name", BY_HAND)
def test_a_logarithm_that_nothing_keeps_from_zero_is_told(name: str, z: Tensor) -> None:
    p = z.softmax(1)

    assert graph.objective(BY_HAND[name](p), z).loss["unguarded"] is True
    assert graph.objective(BY_HAND[name](p), p).loss["unguarded"] is True
    assert "unguarded" not in graph.objective(BY_HAND[name](p + 1e-7), z).loss
    assert "unguarded" not in graph.objective(BY_HAND[name](p.clamp(1e-7)), z).loss


def test_both_logarithms_of_a_binary_loss_by_hand_are_looked_at() -> None:
    z = linear(1)(torch.randn(N, 4))
    bits = (IDS > 0).float()[:, None]

    def loss(p: Tensor) -> Tensor:
        return -(bits * p.log() + (1 - bits) * (1 - p).log()).mean()

    assert graph.objective(loss(z.sigmoid()), z).loss["unguarded"] is True
    assert "unguarded" not in graph.objective(loss(z.sigmoid().clamp(1e-7, 1 - 1e-7)), z).loss


def test_an_ignored_id_that_is_a_class_is_told_with_its_share(z: Tensor) -> None:
    assert graph.objective(F.cross_entropy(z, IDS, ignore_index=0), z).loss["ignored"] == 0.25
    assert "ignored" not in graph.objective(F.cross_entropy(z, IDS, ignore_index=C), z).loss
    assert "ignored" not in graph.objective(F.cross_entropy(z, IDS.clamp(1), ignore_index=0), z).loss


# ---------------------------------------------------------------------------------------------- settings of the training


@pytest.mark.parametrize(
    "loss", [lambda z: F.cross_entropy(z, IDS), lambda z: F.mse_loss(z, REAL), lambda z: F.l1_loss(z, REAL)]
)
def test_mixed_precision_changes_the_numbers_alone(loss: Callable[[Tensor], Tensor], z: Tensor) -> None:
    told = graph.objective(loss(z), z).loss
    with torch.autocast("cpu", torch.bfloat16):
        z = linear()(X)
        found = graph.objective(loss(z), z)

    assert z.dtype == torch.bfloat16
    assert found.loss == told
    assert found.outputs.dtype == torch.float32
    assert torch.equal(found.outputs, z.detach().float())
    assert found.head == ""


@pytest.mark.parametrize(
    "loss",
    [
        lambda z: F.cross_entropy(z, IDS, label_smoothing=0.1),
        lambda z: F.mse_loss(z, REAL),
        lambda z: F.binary_cross_entropy(z.sigmoid(), BITS),
    ],
)
def test_after_backward_the_structure_is_left(loss: Callable[[Tensor], Tensor], z: Tensor) -> None:
    value = loss(z)
    before = graph.objective(value, None)
    value.backward(retain_graph=True)
    kept = graph.objective(value, None)
    value.backward()
    after = graph.objective(value, None)

    assert kept.targets is not None
    assert after.loss == before.loss
    assert after.head == before.head
    assert after.outputs is None
    assert after.targets is None
    assert after.gradient_source is None


@pytest.fixture(params=[True, False])
def _minded(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Something is watched, with a release in which nodes say whether hooks have packed what they keep, and with another."""
    monkeypatch.setattr(nodes, "TELLS", nodes.TELLS and request.param)
    watcher: Any = object()
    patches.add(watcher)
    yield
    patches.remove(watcher)


@pytest.mark.usefixtures("_minded")
def test_checkpointed_blocks_are_not_computed_again() -> None:
    from torch.utils.checkpoint import checkpoint

    calls = []

    def block(x: Tensor) -> Tensor:
        calls.append(1)
        return linear()(x).softmax(1)

    p = checkpoint(block, X, use_reentrant=False)
    loss = F.cross_entropy(p, IDS)

    assert graph.objective(loss, None).head == "softmax"
    assert same(graph.objective(loss, p).outputs, p.detach())
    assert len(calls) == 1


@pytest.mark.usefixtures("_minded")
def test_what_is_saved_elsewhere_stays_there() -> None:
    fetched = []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: t, lambda t: fetched.append(1) or t):
        z = linear()(X)
        found = graph.objective(F.mse_loss(z, REAL), z)

    assert fetched == []
    assert found.loss["name"] == "MSELoss"
    assert found.targets is None


def test_functions_of_the_users_own_are_passed_by() -> None:
    class Double(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, x: Tensor) -> Tensor:
            return 2 * x

        @staticmethod
        def backward(ctx: Any, gradient: Tensor) -> Tensor:
            return 2 * gradient

    z = Double.apply(linear()(X))

    assert same(graph.objective(F.cross_entropy(z, IDS), z).outputs, z.detach())
    assert graph.objective(Double.apply(F.cross_entropy(z, IDS)), z).loss == {}


# --------------------------------------------------------------------------------------------------------- no harm done


@pytest.mark.parametrize("returned", [True, False])
def test_no_reference_is_kept(returned: bool) -> None:
    z = linear()(torch.randn(4, 6, 4))
    loss = F.cross_entropy(z[:, 1:].reshape(-1, C), torch.randint(0, C, (20,)))
    found = graph.objective(loss, z if returned else None)
    if found.gradient_source is not None:
        delta = found.delta
        found.gradient_source.register_hook(lambda gradient: delta(gradient) and None)
        del delta
    dead = weakref.ref(z), weakref.ref(loss)
    gc.disable()
    try:
        del found, loss, z

        assert [reference() for reference in dead] == [None, None]
    finally:
        gc.enable()


def test_neither_loss_nor_gradients_change() -> None:
    def gradients(look: bool) -> list[Tensor]:
        model = linear()
        z = model(X)
        loss = F.cross_entropy(z, IDS) + 0.1 * ((z - REAL) ** 2).mean()
        if look:
            graph.objective(loss, z)
            graph.reached(loss)
        loss.backward()
        return [p.grad for p in model.parameters()]

    assert all(torch.equal(a, b) for a, b in zip(gradients(True), gradients(False), strict=True))


@pytest.mark.parametrize("loss", [torch.tensor(1.0), torch.tensor(1.0, requires_grad=True), 1.0, None])
def test_what_has_no_graph_tells_nothing(loss: Any) -> None:
    assert graph.objective(loss, None) == graph.Found()
    assert graph.reached(loss) == set()


def test_a_long_sum_is_cut_short(z: Tensor) -> None:
    loss = sum(F.mse_loss(z + i, REAL) for i in range(2000))
    found = graph.objective(loss, None)

    assert found.loss["name"] == "MSELoss with other terms"
    assert len(found.outputs) == 32 * N


OPERATIONS: list[Callable[[Tensor, Tensor], Tensor]] = [
    torch.add, torch.sub, torch.mul, lambda a, b: a / (b.abs() + 1), lambda a, b: -a, lambda a, b: a.exp(), lambda a, b: a.abs(),
    lambda a, b: a.pow(2), lambda a, b: a.log_softmax(-1), lambda a, b: a.softmax(0), lambda a, b: a.sigmoid().log(),
    lambda a, b: a.T, lambda a, b: a[:, :1].expand_as(a), lambda a, b: a.view(-1).view_as(a), lambda a, b: a * BITS,
    lambda a, b: a - REAL, lambda a, b: a.masked_fill(BITS.bool(), 0.0), lambda a, b: torch.where(BITS.bool(), a, b),
    lambda a, b: torch.cat([a, b])[: len(a)], lambda a, b: torch.stack([a, b]).mean(0), lambda a, b: a.relu(),
    lambda a, b: a.clamp(min=0), lambda a, b: F.mse_loss(a, b, reduction="none"), lambda a, b: a.double().float(),
    lambda a, b: F.mse_loss(a, b.detach()) * b, lambda a, b: a.gather(1, IDS[: len(a), None] % a.shape[1]).expand_as(a),
    lambda a, b: a.logsumexp(-1, keepdim=True) - b, lambda a, b: a.nan_to_num(), lambda a, b: a.unbind(0)[0] + b,
    lambda a, b: F.cross_entropy(a, IDS[: len(a)] % a.shape[1]) + b, lambda a, b: a.detach(),
]  # fmt: skip
ENDS: list[Callable[[Tensor], Tensor]] = [
    torch.mean, torch.sum, lambda a: a.norm(), lambda a: a.max(), lambda a: a[0, 0],
    lambda a: F.cross_entropy(a, IDS[: len(a)] % a.shape[1]),
    lambda a: F.mse_loss(a, a.detach() + 1), lambda a: a, lambda a: a.mean(1),
    lambda a: -a.log_softmax(1).mean(), lambda a: a.logsumexp((0, 1)),
]  # fmt: skip


@settings(max_examples=300, deadline=None)
@given(
    steps=st.lists(st.tuples(st.integers(0, len(OPERATIONS) - 1), st.integers(0, 9), st.integers(0, 9)), max_size=8),
    end=st.integers(0, len(ENDS) - 1),
    freed=st.booleans(),
)
def test_no_graph_makes_it_raise(steps: list[tuple[int, int, int]], end: int, freed: bool) -> None:
    model = linear()
    made = [model(X), torch.zeros(N, C)]
    for operation, first, second in steps:
        try:
            made.append(OPERATIONS[operation](made[first % len(made)], made[second % len(made)]))
        except (RuntimeError, IndexError):  # shapes that do not fit
            continue
    try:
        loss = ENDS[end](made[-1])
    except (RuntimeError, IndexError):
        return
    if freed and loss.requires_grad:
        loss.sum().backward()
    read = graph.objective.__wrapped__  # without the net

    for output in (made[0], None, {"a": made[:2], "b": made[-1]}):
        found = read(loss, output)
        assert found.targets is None or found.loss
        assert found.outputs is None or not found.outputs.requires_grad
        assert found.gradient_source is None or found.delta(found.gradient_source).shape == found.outputs.shape
    assert graph.reached(loss) <= {id(p) for p in model.parameters()}


def test_every_parameter_that_takes_part_is_reached() -> None:
    model = nn.Sequential(nn.Linear(4, 5), nn.ReLU(), nn.Linear(5, C), nn.Linear(C, C))
    model[0].bias.requires_grad_(False)
    loss = F.cross_entropy(model[:3](X), IDS) + model[2].weight.pow(2).sum()

    assert graph.reached(loss) == {id(model[0].weight), id(model[2].weight), id(model[2].bias)}


def test_reached_goes_through_deep_graphs() -> None:
    scale = torch.ones((), requires_grad=True)
    x = scale
    for _ in range(5000):
        x = x * 1.0 + scale

    assert graph.reached(x) == {id(scale)}
