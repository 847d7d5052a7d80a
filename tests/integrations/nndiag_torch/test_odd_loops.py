"""Loops that somebody wrote to break the record: passes aside, parts that are watched alone, losses that are divided."""

from __future__ import annotations

import copy
import warnings

import numpy as np
import pytest

import nndiag

torch = pytest.importorskip("torch")
pytestmark = pytest.mark.frameworks

from torch import nn  # noqa: E402
from torch.nn import functional as F  # noqa: E402
from torch.utils.checkpoint import checkpoint  # noqa: E402


@pytest.fixture(autouse=True, params=[False, True], ids=["now", "later"])
def told(request, monkeypatch):
    """Events are told at once, or later as on a device."""
    monkeypatch.setattr("nndiag_torch.loop.TorchLoop.deferred", request.param)
    torch.manual_seed(0)


def batches(number, size=16):
    generator = torch.Generator().manual_seed(1)
    for _ in range(number):
        x = torch.randn(size, 8, generator=generator)
        yield x, x[:, :3].argmax(1)


def net():
    return nn.Sequential(nn.Linear(8, 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Linear(16, 3))


def sgd(module, lr=0.1):
    return torch.optim.SGD(module.parameters(), lr=lr)


def update(optimizer, loss):
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()


def codes(recorder):
    return {finding.code for finding in recorder.check().findings if finding.verdict.value == "fail"}


# A model that goes into evaluation mode on the way


@pytest.mark.parametrize("log", ["never", "before", "after"])
@pytest.mark.parametrize(("start", "evaluates"), [(0, False), (1, False), (10, False), (10, True)])
def test_a_model_that_goes_into_evaluation_mode_is_recorded_step_by_step(start, evaluates, log):
    model, losses = net(), []
    optimizer = sgd(model)
    with nndiag.watch(model, optimizer, every=1) as recorder:
        for step, (x, y) in enumerate(batches(30)):
            if step == start:
                model.eval()
                if evaluates:
                    with torch.no_grad():
                        recorder.log(validation_loss=F.cross_entropy(model(x), y).item())
            loss = F.cross_entropy(model(x), y)
            losses.append(loss.item())
            if log == "before":
                recorder.log(loss=loss)
            update(optimizer, loss)
            if log == "after":
                recorder.log(loss=loss.item())

    run = recorder.run
    assert recorder.step_number == 30
    assert run.train.index.tolist() == list(range(30))
    np.testing.assert_allclose(run.train, losses, rtol=1e-6)
    assert (run.loop["backward_passes"] == 1).all()
    assert run.loop["evaluation_mode"].tolist() == [0] * start + [1] * (30 - start)
    assert run.activations["mean"]["0"].notna().sum() >= 28  # the first pass in the other mode may go unheard
    assert codes(recorder) == {"ND902"}


@pytest.mark.parametrize("log", [True, False])
def test_attacks_in_evaluation_mode_between_the_steps_are_no_training(log):
    model, losses = net(), []
    optimizer = sgd(model)
    with nndiag.watch(model, optimizer, every=1) as recorder:
        for x, y in batches(20):
            model.eval()
            attacked = x.clone().requires_grad_()
            F.cross_entropy(model(attacked), y).backward()
            model.train()
            loss = F.cross_entropy(model(x), y)
            losses.append(loss.item())
            if log:
                recorder.log(loss=loss)
            update(optimizer, loss)

    run = recorder.run
    assert recorder.step_number == 20
    np.testing.assert_allclose(run.train, losses, rtol=1e-6)
    assert (run.loop["evaluation_mode"] == 0).all()
    assert not codes(recorder)


# Parts


@pytest.mark.parametrize("function", [nn.Tanh, nn.ReLU, nn.Sigmoid])
def test_a_body_whose_head_is_somebody_elses_does_not_end_in_its_last_function(function):
    body, head = nn.Sequential(nn.Linear(8, 32), function()), nn.Linear(32, 1)
    optimizer = torch.optim.Adam([*body.parameters(), *head.parameters()], 1e-2)
    with nndiag.watch(body, optimizer, every=1) as recorder:
        for x, _ in batches(150):
            loss = F.mse_loss(head(body(x)), x.sum(1, keepdim=True))
            update(optimizer, loss)

    assert recorder.meta.layers[-1].kind == "unknown"
    assert not codes(recorder)


def test_a_function_at_the_end_of_the_whole_is_still_seen():
    model = nn.Sequential(nn.Linear(8, 32), nn.Tanh(), nn.Linear(32, 1), nn.ReLU())
    optimizer = torch.optim.Adam(model.parameters(), 1e-2)
    with nndiag.watch(model, optimizer, every=1) as recorder:
        for x, _ in batches(150):
            loss = F.mse_loss(model(x), x.sum(1, keepdim=True))
            update(optimizer, loss)

    assert "ND104" in codes(recorder)


@pytest.mark.parametrize("out_of_reach", ["no_grad", "detach"])
def test_a_base_that_no_optimizer_holds_and_no_loss_reaches_is_frozen(out_of_reach):
    class Probe(nn.Module):
        def __init__(self):
            super().__init__()
            self.base, self.head = nn.Sequential(nn.Linear(8, 32), nn.ReLU()), nn.Linear(32, 3)

        def forward(self, x):
            if out_of_reach == "detach":
                return self.head(self.base(x).detach())
            with torch.no_grad():
                features = self.base(x)
            return self.head(features)

    model = Probe()
    with torch.no_grad():
        model.base[0].weight.mul_(1.7)  # as of training: no scheme draws it so
    optimizer = sgd(model.head)
    with nndiag.watch(model, optimizer, every=1) as recorder:
        for x, y in batches(150):
            loss = F.cross_entropy(model(x), y)
            update(optimizer, loss)

    assert not codes(recorder)


class Pair(nn.Module):
    def __init__(self):
        super().__init__()
        self.e, self.d = nn.Sequential(nn.Linear(8, 16), nn.ReLU()), nn.Linear(16, 3)

    def forward(self, x):
        return self.d(self.e(x))


@pytest.mark.parametrize("checkpoints", [False, True])
def test_passes_without_gradients_amid_a_step_are_none_of_a_model_called_in_parts(checkpoints):
    def means(aside):
        torch.manual_seed(0)
        model = Pair()
        optimizer = sgd(model)
        with nndiag.watch(model, optimizer, every=1) as recorder:
            for x, y in batches(8):
                x = x.clone().requires_grad_()  # or a checkpoint has nothing to do
                features = checkpoint(model.e, x, use_reentrant=True) if checkpoints else model.e(x)
                outputs = model.d(features)
                if aside:
                    with torch.no_grad():
                        model.d(model.e(10 * x))
                loss = F.cross_entropy(outputs, y)
                update(optimizer, loss)
        return recorder.run.activations["mean"]

    assert means(aside=True).equals(means(aside=False))
    assert list(means(aside=True).columns) == ["e.0", "e.1", "d"]


def test_a_module_that_was_put_in_has_a_name_of_its_own():
    model = nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 3))
    optimizer = sgd(model)
    with nndiag.watch(model, optimizer, every=1) as recorder:
        for step, (x, y) in enumerate(batches(20)):
            if step == 10:
                model.insert(2, nn.Linear(16, 16))
                optimizer = sgd(model)
            loss = F.cross_entropy(model(x), y)
            update(optimizer, loss)

    norms = recorder.run.gradients["norm"].iloc[-1]
    assert norms["2.weight"] == pytest.approx(model[3].weight.grad.norm().item(), rel=1e-5)
    assert norms["2 (2).weight"] == pytest.approx(model[2].weight.grad.norm().item(), rel=1e-5)


# Losses that are divided


@pytest.mark.parametrize(
    "more",
    [
        lambda outputs, model: 0.0,
        lambda outputs, model: 1e-3 * sum((p**2).sum() for p in model.parameters()),
        lambda outputs, model: outputs.logsumexp(1).pow(2).mean() + outputs.tanh().mean(),
    ],
)
def test_the_loss_of_micro_batches_is_whole_whatever_is_added_to_it(more):
    model, losses = net(), []
    optimizer = sgd(model)
    with nndiag.watch(model, optimizer, every=1) as recorder:
        for x, y in batches(12, size=64):
            optimizer.zero_grad()
            parts = []
            for rows, labels in zip(x.chunk(4), y.chunk(4), strict=True):
                outputs = model(rows)
                loss = (F.cross_entropy(outputs, labels) + more(outputs, model)) / 4
                parts.append(loss.item())
                loss.backward()
            losses.append(sum(parts))
            optimizer.step()

    np.testing.assert_allclose(recorder.run.train, losses, rtol=1e-5)
    assert recorder.meta.loss.get("class_weights") is None


def test_a_sum_divided_by_the_samples_of_all_micro_batches_is_a_mean():
    model = net()
    optimizer = sgd(model)
    with nndiag.watch(model, optimizer, every=1) as recorder:
        for x, y in batches(80, size=64):
            optimizer.zero_grad()
            for rows, labels in zip(x.chunk(4), y.chunk(4), strict=True):
                (F.cross_entropy(model(rows), labels, reduction="sum") / 64).backward()
            optimizer.step()

    assert "ND108" not in {finding.code for finding in recorder.check().findings}


def two_phases(steps, switch):
    """An autoencoder whose encoder is a classifier afterwards, from step `switch` on."""
    encoder, decoder, head = nn.Sequential(nn.Linear(8, 16), nn.ReLU()), nn.Linear(16, 8), nn.Linear(16, 3)
    model = nn.ModuleDict({"encoder": encoder, "decoder": decoder, "head": head})
    optimizer = torch.optim.Adam(model.parameters(), 1e-2)
    with nndiag.watch(model, optimizer, every=1) as recorder:
        for step, (x, y) in enumerate(batches(steps)):
            loss = F.mse_loss(decoder(encoder(x)), x) if step < switch else F.cross_entropy(head(encoder(x)), y)
            update(optimizer, loss)
    return recorder


def test_the_loss_of_a_second_phase_is_not_held_against_the_targets_of_the_first():
    recorder = two_phases(120, switch=60)

    assert recorder.meta.loss["name"] == "CrossEntropyLoss"
    assert recorder.meta.loss["since"] == 60
    assert not codes(recorder)
    curve = next(check for check in recorder.check().checks if check.code == "ND601")
    assert "another one from step 60 on" in curve.reason


def test_a_few_batches_with_another_loss_are_no_phase():
    recorder = two_phases(120, switch=118)

    assert "since" not in recorder.meta.loss


# Passes, steps and clipping


@pytest.mark.parametrize("first", ["penalty", "loss"])
def test_gradients_asked_for_are_no_backward_pass_wherever_their_forward_pass_comes(first):
    model = nn.Sequential(nn.Linear(8, 16), nn.Tanh(), nn.Linear(16, 3))
    optimizer = sgd(model)

    def penalty(x):
        x = x.clone().requires_grad_()
        (gradient,) = torch.autograd.grad(model(x).sum(), x, create_graph=True)
        return 0.01 * gradient.pow(2).mean()

    with nndiag.watch(model, optimizer, every=1) as recorder:
        for x, y in batches(12):
            terms = [lambda x=x, y=y: F.cross_entropy(model(x), y), lambda x=x: penalty(x)]
            loss = sum(term() for term in (reversed(terms) if first == "penalty" else terms))
            update(optimizer, loss)

    assert recorder.run.loop["backward_passes"].tolist() == [1.0] * 12


@pytest.mark.parametrize("every", [1, 7])
def test_a_backward_pass_without_an_update_at_the_end_is_no_step(every):
    model = net()
    optimizer = sgd(model)
    with nndiag.watch(model, optimizer, every=every) as recorder:
        for x, y in batches(20):
            loss = F.cross_entropy(model(x), y)
            update(optimizer, loss)
        F.cross_entropy(model(x), y).backward()

    assert recorder.step_number == 20


@pytest.mark.parametrize("every", [1, 7])
def test_clipping_by_its_two_halves_is_seen(every):
    if not hasattr(nn.utils, "clip_grads_with_norm_"):
        pytest.skip("of a later PyTorch")
    model, norms = net(), []
    optimizer = sgd(model)
    with nndiag.watch(model, optimizer, every=every) as recorder:
        for x, y in batches(15):
            loss = F.cross_entropy(model(x), y)
            optimizer.zero_grad()
            loss.backward()
            norms.append(model[0].weight.grad.norm().item())
            total = nn.utils.get_total_norm([p.grad for p in model.parameters()])
            nn.utils.clip_grads_with_norm_(model.parameters(), 0.05, total)
            optimizer.step()

    recorded = recorder.run.gradients["norm"]["0.weight"]
    np.testing.assert_allclose(recorded, np.array(norms)[recorded.index], rtol=1e-5)
    assert recorder.meta.clipping == {"max_norm": 0.05, "gradients": "before"}


# Evaluations


def test_dropout_that_is_asked_for_after_a_validation_is_no_training_mode():
    model = nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Dropout(0.3), nn.Linear(16, 3))
    optimizer = sgd(model)
    with nndiag.watch(model, optimizer, every=1) as recorder:
        for epoch in range(6):
            for x, y in batches(10):
                loss = F.cross_entropy(model(x), y)
                update(optimizer, loss)
            with torch.no_grad():
                model.eval()
                validation = F.cross_entropy(model(x), y).item()
                model.train()
                spread = torch.stack([model(x) for _ in range(5)]).std(0).mean().item()  # Monte-Carlo dropout
            recorder.log(validation_loss=validation, validation_spread=spread, epoch=epoch)

    assert recorder.run.loop["training_mode"].dropna().tolist() == [0.0] * 6
    assert "ND903" not in codes(recorder)


def test_who_is_still_watched_keeps_the_filters_of_warnings():
    before = copy.copy(warnings.filters)
    with nndiag.watch(first := net(), sgd(first)):
        while_one = copy.copy(warnings.filters)
        with nndiag.watch(second := net(), sgd(second)):
            pass
        assert warnings.filters == while_one
    assert warnings.filters == before
