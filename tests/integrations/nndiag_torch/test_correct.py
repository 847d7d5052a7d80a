"""What is recorded of PyTorch loops of every kind, against numbers computed independently."""

from __future__ import annotations

import functools
import weakref
from typing import Any

import numpy as np
import pandas as pd
import pytest

import nndiag

torch = pytest.importorskip("torch")
pytestmark = pytest.mark.frameworks

from torch import nn  # noqa: E402
from torch.nn import functional as F  # noqa: E402
from torch.utils.checkpoint import checkpoint  # noqa: E402

from tests.integrations.nndiag_torch import programs  # noqa: E402

CE = nn.CrossEntropyLoss()


@pytest.fixture(autouse=True)
def _seeded():
    torch.manual_seed(0)


def watched(model, optimizer=None, loss=None, **options):
    return nndiag.watch(model, optimizer, loss, every=1, strict=True, **options)


def step(model, optimizer, recorder, x, y, loss_fn=CE):
    """One iteration; the loss."""
    loss = loss_fn(model(x), y)
    recorder.log(loss=loss)
    loss.backward()
    optimizer.step()
    optimizer.zero_grad()
    return loss


def sgd(model, lr=0.1, **settings):
    return torch.optim.SGD(model.parameters(), lr=lr, **settings)


def close(seen, wanted):
    return seen == pytest.approx(float(torch.as_tensor(wanted).detach()), rel=1e-4, abs=1e-7)


# Forward and δ


def test_functions_in_place_leave_what_was_recorded_before_them():
    model, (x, y) = programs.Residual(), programs.batches(8)[0]
    with torch.no_grad():
        first = model.first(x)
        h = torch.relu(first)
        second = model.second(h)
    with watched(model, sgd(model)) as recorder:
        step(model, sgd(model), recorder, x, y)
    run = recorder.run
    assert close(run.activations["mean", "first"].iloc[0], first.mean())
    assert close(run.activations["mean", "second"].iloc[0], second.mean())
    assert run.activations["min", "first"].iloc[0] < 0


def test_delta_is_the_gradient_of_each_output():
    model, (x, y) = programs.Functional(), programs.batches(8)[0]
    a = model.fc1(x)
    b = F.relu(a)
    c = model.fc2(b)
    d = torch.tanh(c)
    out = model.out(d)
    gradients = torch.autograd.grad(CE(out, y), [a, b, c, d, out])
    with watched(model, sgd(model)) as recorder:
        step(model, sgd(model), recorder, x, y)
    activations = recorder.run.activations
    names = ["fc1", "fc1.relu", "fc2", "fc2.tanh", "out"]
    assert list(recorder.run.activations["mean"].columns) == names
    for name, value, gradient in zip(names, [a, b, c, d, out], gradients, strict=True):
        assert close(activations["mean", name].iloc[0], value.mean())
        assert close(activations["variance", name].iloc[0], value.var(correction=0))
        assert close(activations["gradient_rms", name].iloc[0], gradient.square().mean().sqrt())
    slope = 1 - d.detach().square()
    assert close(activations["saturated_fraction", "fc2.tanh"].iloc[0], (slope.mean(0) < 0.1).float().mean())


class Applied(nn.Module):
    """A function as a module of the user's own."""

    def __init__(self, function):
        super().__init__()
        self.function = function

    def forward(self, x):
        return self.function(x)


@pytest.mark.parametrize(
    ("function", "recorded"),
    [
        (lambda x: x.unsqueeze(1).transpose(1, 2).squeeze(2), ["0", "1", "2", "3"]),
        (torch.sigmoid, ["0", "1", "2", "2.sigmoid", "3"]),
        (lambda x: torch.tanh(x).unsqueeze(1).squeeze(1), ["0", "1", "2", "2.tanh", "3"]),
    ],
)
def test_a_module_that_only_reshapes_is_not_taken_for_the_function_before_it(function, recorded):
    model, (x, y) = (
        nn.Sequential(nn.Linear(8, 6), nn.Sigmoid(), Applied(function), nn.Linear(6, 3)),
        programs.batches(8)[0],
    )
    with watched(model, sgd(model)) as recorder:
        step(model, sgd(model), recorder, x, y)
    assert list(recorder.run.activations["mean"].columns) == recorded


def test_units_of_a_convolution_are_its_channels():
    model, (x, y) = programs.Convolutional(), programs.batches(64)[0]
    with torch.no_grad():
        model.body[1].bias[1] = -100.0  # this channel is silent
        h = model.body[0](x.reshape(-1, 1, 8, 8))
    with watched(model, sgd(model)) as recorder:
        step(model, sgd(model), recorder, x, y)
    activations = recorder.run.activations
    assert activations["dead_fraction", "body.2"].iloc[0] == 0.25
    assert close(activations["batch_variance", "body.0"].iloc[0], h.var(dim=(0, 2, 3), correction=0).mean())
    kinds = [layer.kind for layer in recorder.run.meta.layers]
    assert kinds == ["convolution", "batch_norm", "relu", "max_pooling", "flatten", "affine"]


@pytest.mark.parametrize("name", ["lstm", "gru", "transformer"])
def test_tuples_and_attention(name):
    make, width = programs.MODELS[name]
    model = make()
    (x, y) = programs.batches(width)[0]
    with watched(model, sgd(model)) as recorder:
        step(model, sgd(model), recorder, x, y)
    activations = recorder.run.activations
    assert activations["gradient_rms"].iloc[0].notna().all()
    if name == "lstm":
        with torch.no_grad():
            torch.manual_seed(0)
            states, _ = make().rnn(x.reshape(16, -1, 8))
        assert close(activations["mean", "rnn"].iloc[0], states.mean())


@pytest.mark.parametrize(
    ("shared", "function", "names"),
    [
        (nn.ReLU(), False, ["one", "shared", "two", "three"]),
        (nn.Dropout(0.1), True, ["one", "one.relu", "shared", "two", "two.relu", "three"]),
    ],
    ids=["ReLU", "dropout"],
)
def test_what_follows_a_module_that_is_called_again_stands_behind_all_before(shared, function, names):
    class Twice(nn.Module):
        def __init__(self):
            super().__init__()
            self.one, self.two, self.three, self.shared = nn.Linear(8, 6), nn.Linear(6, 6), nn.Linear(6, 3), shared

        def forward(self, x):
            for layer in (self.one, self.two):
                x = layer(x)
                x = self.shared(torch.relu(x) if function else x)
            return self.three(x)

    model = Twice()
    optimizer = sgd(model)
    with watched(model, optimizer) as recorder:
        for batch in programs.batches(8)[:2]:
            step(model, optimizer, recorder, *batch)

    assert [layer.name for layer in recorder.run.meta.layers] == names


def test_a_shared_module_merges_its_calls():
    class Shared(nn.Module):
        def __init__(self):
            super().__init__()
            self.fc, self.out = nn.Linear(8, 8), nn.Linear(8, 3)

        def forward(self, x):
            return self.out(self.fc(torch.relu(self.fc(x))))

    model, (x, y) = Shared(), programs.batches(8)[0]
    one = model.fc(x)
    other = model.fc(torch.relu(one))
    both = torch.cat([one, other])
    gradients = torch.cat(torch.autograd.grad(CE(model.out(other), y), [one, other]))
    with watched(model, sgd(model)) as recorder:
        step(model, sgd(model), recorder, x, y)
    activations = recorder.run.activations
    assert close(activations["mean", "fc"].iloc[0], both.mean())
    assert close(activations["variance", "fc"].iloc[0], both.var(correction=0))
    assert close(activations["gradient_rms", "fc"].iloc[0], gradients.square().mean().sqrt())


def test_a_tied_weight_is_one_parameter():
    class Tied(nn.Module):
        def __init__(self):
            super().__init__()
            self.embed, self.head = nn.Embedding(11, 6), nn.Linear(6, 11, bias=False)
            self.head.weight = self.embed.weight

        def forward(self, ids):
            return self.head(self.embed(ids).mean(1))

    model, ids, y = Tied(), torch.randint(0, 11, (16, 5)), torch.randint(0, 11, (16,))
    (gradient,) = torch.autograd.grad(CE(model(ids), y), [model.embed.weight])
    with watched(model, sgd(model)) as recorder:
        step(model, sgd(model), recorder, ids, y)
    assert list(recorder.run.gradients["norm"].columns) == ["embed.weight"]
    assert close(recorder.run.gradients["norm", "embed.weight"].iloc[0], gradient.norm())


@pytest.mark.parametrize("reentrant", [True, False])
def test_a_checkpointed_block_counts_once_and_has_its_delta(reentrant):
    class Checkpointed(nn.Module):
        def __init__(self):
            super().__init__()
            self.enter = nn.Linear(8, 8)
            self.block = nn.Sequential(nn.Linear(8, 16), nn.Tanh(), nn.Linear(16, 8))
            self.out = nn.Linear(8, 3)
            self.saves = True

        def forward(self, x):
            h = self.enter(x)
            h = checkpoint(self.block, h, use_reentrant=reentrant) if self.saves else self.block(h)
            return self.out(h)

    model, (x, y) = Checkpointed(), programs.batches(8)[0]
    frames = []
    for saves in (False, True):
        torch.manual_seed(1)
        model.saves = saves
        start = {name: value.clone() for name, value in model.state_dict().items()}
        with watched(model, sgd(model)) as recorder:
            for _ in range(3):
                step(model, sgd(model), recorder, x, y)
        model.load_state_dict(start)
        frames.append(recorder.run.activations)
    assert set(frames[0].columns) == set(frames[1].columns)
    np.testing.assert_allclose(frames[1][frames[0].columns], frames[0], rtol=1e-5, atol=1e-7)


def test_a_batch_is_what_goes_into_the_model_and_not_into_its_first_module():
    class Cell(nn.Module):
        def __init__(self):
            super().__init__()
            self.gate, self.out = nn.Linear(1 + 8, 8), nn.Linear(8, 3)

        def forward(self, x):
            h = x.new_zeros(len(x), 8)
            for each in x.unbind(1):
                h = torch.tanh(self.gate(torch.cat([each.unsqueeze(1), h], 1)))
            return self.out(h)

    model, data = Cell(), programs.batches(8)
    optimizer = sgd(model)
    held = []
    with watched(model, optimizer) as recorder:
        for x, y in data:
            own = x.clone()
            held.append(weakref.ref(own))
            step(model, optimizer, recorder, own, y)
    entries = recorder.run.data
    np.testing.assert_allclose(entries["variance", "input"], [x.var(correction=0) for x, _ in data], rtol=1e-5)
    assert entries["constant_fraction", "input"].max() == 0
    del own
    assert [ref() for ref in held if ref() is not None] == []


def test_passes_without_gradients_are_not_training():
    model, data = programs.mlp(), programs.batches(8)
    optimizer = sgd(model)
    frames = []
    for evaluates in (False, True):
        torch.manual_seed(1)
        start = {name: value.clone() for name, value in model.state_dict().items()}
        with watched(model, optimizer) as recorder:
            for x, y in data:
                model.train()
                step(model, optimizer, recorder, x, y)
                if evaluates:
                    model.eval()
                    with torch.no_grad():
                        recorder.log(validation_loss=CE(model(50 * x), y))
                    with torch.inference_mode():
                        model(50 * x)
        model.load_state_dict(start)
        frames.append(recorder.run.activations)
    assert frames[0].equals(frames[1])
    validation = recorder.run.validation
    assert list(validation.index) == list(range(1, 13))
    assert recorder.run.tables["loop"].columns[-1][0] == "training_mode"


@pytest.mark.parametrize(
    ("scale", "shift", "found"), [(2.4, 0.0, []), (2.6, 0.0, ["ND009"]), (1.0, 0.9, []), (1.0, 1.2, ["ND009"])]
)
def test_the_inputs_of_passes_without_gradients_are_compared_with_those_of_training(scale, shift, found):
    model, data = programs.mlp(), programs.batches(8, size=200)
    optimizer = sgd(model)
    with watched(model, optimizer) as recorder:
        for x, y in data:
            model.train()
            step(model, optimizer, recorder, x, y)
            model.eval()
            with torch.no_grad():
                recorder.log(validation_loss=CE(model(x.mean(0) + scale * (x - x.mean(0)) + shift * x.std(0)), y))
    report = recorder.check(nndiag.Checklist(select="ND009"))
    assert list(report.headlines) == found
    assert found or "needs the validation set" in report.checks[0].reason


@pytest.mark.parametrize("deferred", [False, True])
@pytest.mark.parametrize(("shared", "found"), [(0, []), (20, ["ND008"])])
@pytest.mark.parametrize("options", [{"every": 1}, {}], ids=str)
def test_training_rows_among_those_of_passes_without_gradients_are_found(monkeypatch, deferred, shared, found, options):
    monkeypatch.setattr("nndiag_torch.loop.TorchLoop.deferred", deferred)
    model, data = programs.mlp(), programs.batches(8, count=12, size=20)
    optimizer = sgd(model)
    (x_val, y_val), data = data[0], data[1:]
    x_val, y_val = torch.cat([data[0][0][:shared], x_val]), torch.cat([data[0][1][:shared], y_val])
    with nndiag.watch(model, optimizer, **options) as recorder:
        for _ in range(3):
            model.train()
            for x, y in data:
                step(model, optimizer, recorder, x, y)
            model.eval()
            with torch.no_grad():
                recorder.log(validation_loss=CE(model(x_val), y_val))
    report = recorder.check(nndiag.Checklist(select="ND008"))
    assert list(report.headlines) == found
    assert found or report.checks[0].verdict == "pass"


@pytest.mark.parametrize("deferred", [False, True])
@pytest.mark.parametrize("module", [False, True])
@pytest.mark.parametrize("training", [False, True])
def test_a_validation_with_gradients_on_is_not_training(training, module, deferred, monkeypatch):
    monkeypatch.setattr("nndiag_torch.loop.TorchLoop.deferred", deferred)
    model, data = programs.mlp(), programs.batches(8)
    model[2].p = 0.0
    runs = []
    for evaluates in (False, True):
        start = {name: value.clone() for name, value in model.state_dict().items()}
        optimizer, loss_fn = sgd(model), nn.CrossEntropyLoss()
        with watched(model, optimizer, loss_fn if module else None) as recorder:
            for x, y in data:
                model.train()
                step(model, optimizer, recorder, x, y, loss_fn)
                if evaluates:
                    model.train(training)
                    recorder.log(validation_loss=loss_fn(model(50 * x), y).item())
        model.load_state_dict(start)
        runs.append(recorder.run)
    bare, seen = runs
    statistics = ["mean", "variance", "batch_variance", "min", "max", "zero_fraction", "gradient_rms"]
    pd.testing.assert_frame_equal(seen.activations[statistics].iloc[:12], bare.activations[statistics], rtol=1e-6)
    np.testing.assert_array_equal(seen.losses["train"].iloc[:12], bare.losses["train"])
    assert len(seen.validation) == 12
    if training:
        assert seen.loop["training_mode"].dropna().eq(1.0).all()
        assert len(seen.loop["training_mode"].dropna()) == 12


# Gradients and updates


def test_gradients_and_updates_of_adam():
    model, (x, y) = programs.mlp(), programs.batches(8)[0]
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    with watched(model, optimizer) as recorder:
        for _ in range(3):
            step(model, optimizer, recorder, x, y)
        before = {name: p.detach().clone() for name, p in model.named_parameters()}
        loss = CE(model(x), y)
        recorder.log(loss=loss)
        loss.backward()
        gradients = {name: p.grad.clone() for name, p in model.named_parameters()}
        optimizer.step()
    run = recorder.run
    for name, p in model.named_parameters():
        moved = p.detach() - before[name]
        assert close(run.gradients["norm", name].iloc[-1], gradients[name].norm())
        assert close(run.updates["update_norm", name].iloc[-1], moved.norm())
        assert close(run.updates["weight_norm", name].iloc[-1], before[name].norm())
    assert run.metrics["lr", "train"].iloc[-1] == 1e-2


def test_accumulated_micro_batches_are_one_step():
    model, data = programs.mlp(), programs.batches(8)
    model[2].p = 0.0
    optimizer = sgd(model)
    hidden = torch.cat([model[0](x) for x, _ in data[:4]]).detach()
    with watched(model, optimizer) as recorder:
        losses = []
        for _ in range(3):
            for x, y in data[:4]:
                loss = CE(model(x), y) / 4
                recorder.log(loss=loss)
                loss.backward()
                losses.append(loss.item())
            gradient = model[0].weight.grad.norm()
            optimizer.step()
            optimizer.zero_grad()
    run = recorder.run
    assert run.steps == 3
    assert close(run.losses["train"].iloc[0], np.mean(losses[:4]))
    assert close(run.gradients["norm", "0.weight"].iloc[-1], gradient)
    assert close(run.activations["mean", "0"].iloc[0], hidden.mean())
    assert close(run.activations["variance", "0"].iloc[0], hidden.var(correction=0))
    assert run.frame("loop")["backward_passes"].to_numpy().ravel().tolist() == [4, 4, 4]


class Both(torch.optim.Optimizer):
    """Two optimisers behind one face."""

    def __init__(self, model):
        super().__init__(list(model.parameters()), {"lr": 0.01})
        self.first = torch.optim.Adam(model[0].parameters(), 0.01)
        self.rest = torch.optim.SGD(model[1:].parameters(), 0.01, momentum=0.9)

    def step(self, closure=None):
        self.first.step()
        self.rest.step()


@pytest.mark.parametrize("watches", ["both", "inner too", "none"])
def test_optimizers_within_the_step_of_another_are_no_updates_of_their_own(watches):
    model = programs.mlp()
    both, moved = Both(model), []
    given = {"both": [both], "inner too": [both, both.first, both.rest], "none": []}[watches]
    with watched(model, given or None) as recorder:
        for x, y in programs.batches(8, 4):
            loss = CE(model(x), y)
            recorder.log(loss=loss)
            both.zero_grad()
            loss.backward()
            before = model[0].weight.detach().clone()
            both.step()
            moved.append(float((model[0].weight.detach() - before).norm()))
    run = recorder.run

    assert run.steps == len(moved)
    assert run.updates["update_norm", "0.weight"].to_numpy() == pytest.approx(moved, rel=1e-3)
    assert set(run.loop["updates"]) == {1}


def test_frozen_bases_and_added_modules():
    model, (x, y) = programs.mlp(), programs.batches(8)[0]
    for p in model[0].parameters():
        p.requires_grad_(False)
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=0.1)
    with watched(model, optimizer) as recorder:
        step(model, optimizer, recorder, x, y)
        model.append(nn.Tanh())
        model.append(nn.Linear(3, 3))
        optimizer.add_param_group({"params": list(model[-1].parameters())})
        step(model, optimizer, recorder, x, y)
    run = recorder.run
    assert set(run.gradients["norm"].columns) == {"3.weight", "3.bias", "5.weight", "5.bias"}
    assert list(run.activations["mean"].columns)[-2:] == ["4", "5"]
    assert [p.name for p in run.meta.parameters if p.frozen] == ["0.weight", "0.bias"]
    assert run.updates["update_norm", "5.weight"].iloc[-1] > 0


def test_two_models_with_two_recorders():
    make = lambda inputs, outputs: nn.Sequential(nn.Linear(inputs, 16), nn.ReLU(), nn.Linear(16, outputs))  # noqa: E731
    generator, critic = make(4, 8), make(8, 1)
    one, other = sgd(generator), sgd(critic)
    binary = nn.BCEWithLogitsLoss()
    with watched(generator, one) as first, watched(critic, other) as second:
        for real, _ in programs.batches(8):
            fake = generator(torch.randn(16, 4))
            loss = binary(critic(real), torch.ones(16, 1)) + binary(critic(fake.detach()), torch.zeros(16, 1))
            second.log(loss=loss)
            other.zero_grad()
            loss.backward()
            gradient = critic[0].weight.grad.norm().clone()
            other.step()
            loss = binary(critic(fake), torch.ones(16, 1))
            first.log(loss=loss)
            one.zero_grad()
            loss.backward()
            one.step()
    assert first.run.steps == 12
    assert second.run.steps == 13  # the generator's last pass through the critic is under way still
    assert close(second.run.gradients["norm", "0.weight"].iloc[11], gradient)
    assert not set(first.run.gradients["norm"].columns) ^ {"0.weight", "0.bias", "2.weight", "2.bias"}


def test_one_recorder_of_two_optimizers():
    model, data = programs.mlp(), programs.batches(8)
    pair = [torch.optim.SGD(model[0].parameters(), lr=0.1), torch.optim.Adam(model[3].parameters())]
    with watched(model, pair) as recorder:
        for x, y in data:
            loss = CE(model(x), y)
            recorder.log(loss=loss)
            loss.backward()
            for optimizer in pair:
                optimizer.step()
                optimizer.zero_grad()
    run = recorder.run
    assert run.steps == 12
    assert run.updates["update_norm"].notna().all().all()
    assert run.gradients["norm"].gt(0).all().all()


# Mixed precision


def test_bfloat16_activations():
    model, (x, y) = programs.mlp(), programs.batches(8)[0]
    with torch.autocast("cpu", torch.bfloat16):
        hidden = model[0](x)
    with watched(model, sgd(model)) as recorder, torch.autocast("cpu", torch.bfloat16):
        step(model, sgd(model), recorder, x, y)
    assert hidden.dtype == torch.bfloat16
    assert close(recorder.run.activations["mean", "0"].iloc[0], hidden.float().mean())
    assert close(recorder.run.activations["max", "0"].iloc[0], hidden.float().max())


# The loss and the loop


def test_a_watched_loss_module_need_not_be_logged():
    model, data = programs.mlp(), programs.batches(8)
    optimizer = sgd(model)
    loss_fn = nn.CrossEntropyLoss()
    losses = []
    with watched(model, optimizer, loss_fn) as recorder:
        for x, y in data:
            loss = loss_fn(model(x), y)
            loss.backward()
            optimizer.step()
            optimizer.zero_grad()
            losses.append(loss.item())
    np.testing.assert_allclose(recorder.run.losses["train"].to_numpy(), losses, rtol=1e-6)
    assert recorder.run.outputs["rows", "targets"].notna().all()


def test_a_logged_loss_with_a_penalty_stands_instead_of_the_watched_one():
    model, (x, y) = programs.mlp(), programs.batches(8)[0]
    loss_fn = nn.CrossEntropyLoss()
    with watched(model, sgd(model), loss_fn) as recorder:
        loss = loss_fn(model(x), y) + 10.0
        recorder.log(loss=loss)
        loss.backward()
        sgd(model).step()
    assert close(recorder.run.losses["train"].iloc[0], loss)


def test_what_is_logged_after_the_step_belongs_to_it():
    model, data = programs.mlp(), programs.batches(8)
    optimizer = sgd(model)
    losses = []
    with watched(model, optimizer) as recorder:
        for x, y in data:
            loss = CE(model(x), y)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            recorder.log(loss=loss, accuracy=0.5)
            losses.append(loss.item())
    run = recorder.run
    assert run.steps == 12
    np.testing.assert_allclose(run.losses["train"].to_numpy(), losses, rtol=1e-6)
    assert run.meta.loss["name"]


def test_the_optimizer_is_found_when_it_steps():
    model, data = programs.mlp(), programs.batches(8)
    with watched(model) as recorder:
        optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
        for x, y in data:
            step(model, optimizer, recorder, x, y)
    assert recorder.run.steps == 12
    assert recorder.run.meta.optimizer["name"] == "AdamW"


def test_a_loop_that_never_steps_is_recorded_all_the_same():
    model, data = programs.mlp(), programs.batches(8, count=160)
    optimizer = sgd(model)
    with watched(model, optimizer) as recorder:
        for x, y in data:
            loss = CE(model(x), y)
            recorder.log(loss=loss)
            optimizer.zero_grad()
            loss.backward()
    loop = recorder.run.frame("loop")
    assert recorder.run.steps > 50
    assert loop["updates"].to_numpy().max() == 0
    assert loop["backward_passes"].to_numpy().sum() == 160


def test_updates_by_hand_are_not_called_missing():
    model, data = programs.mlp(), programs.batches(8, count=160)
    with watched(model) as recorder:
        for x, y in data:
            loss = CE(model(x), y)
            recorder.log(loss=loss)
            model.zero_grad()
            loss.backward()
            with torch.no_grad():
                for p in model.parameters():
                    p -= 0.1 * p.grad
    assert np.isnan(recorder.run.frame("loop")["updates"].to_numpy()).all()


def test_gradients_that_were_not_cleared_and_training_in_evaluation_mode_are_told():
    model, data = programs.mlp(), programs.batches(8)
    optimizer = sgd(model)
    model.eval()
    with watched(model, optimizer) as recorder:
        for x, y in data:
            loss = CE(model(x), y)
            recorder.log(loss=loss)
            loss.backward()
            optimizer.step()
    loop = recorder.run.frame("loop")
    assert loop["gradients_kept"].to_numpy().ravel()[2:].min() == 1
    assert loop["evaluation_mode"].to_numpy().ravel()[1:].min() == 1
    assert recorder.run.activations["mean"].iloc[2:].notna().all().all()


@pytest.mark.parametrize("deferred", [False, True])
@pytest.mark.parametrize("critics", [1, 3])
@pytest.mark.parametrize("clears", [True, False])
def test_of_two_optimisers_each_clears_its_own_gradients_before_its_own_pass(clears, critics, deferred, monkeypatch):
    monkeypatch.setattr("nndiag_torch.loop.TorchLoop.deferred", deferred)
    generator, critic = nn.Linear(4, 8), nn.Sequential(nn.Linear(8, 8), nn.Tanh(), nn.Linear(8, 1))
    ours, theirs = sgd(generator), sgd(critic)
    with watched(nn.ModuleList([generator, critic]), [ours, theirs]) as recorder:
        for _ in range(20):
            for _ in range(critics):
                if clears:
                    theirs.zero_grad()
                loss = critic(generator(torch.randn(16, 4)).detach()).mean() - critic(torch.randn(16, 8)).mean()
                loss.backward()
                theirs.step()
            ours.zero_grad()
            loss = -critic(generator(torch.randn(16, 4))).mean()
            recorder.log(loss=loss)
            loss.backward()
            ours.step()
    assert (recorder.run.frame("loop")["gradients_kept"].iloc[1:].mean().item() > 0.5) is not clears
    assert ("ND901" in recorder.check(nndiag.Checklist(select="ND901")).headlines) is not clears


@pytest.mark.filterwarnings("ignore:Converting a tensor with requires_grad=True")  # of PyTorch's own LBFGS, before 2.9
def test_lbfgs_steps_on_a_closure():
    model, (x, y) = programs.mlp(), programs.batches(8)[0]
    model[2].p = 0.0
    optimizer = torch.optim.LBFGS(model.parameters(), lr=0.5, max_iter=4)
    with watched(model, optimizer) as recorder:
        for _ in range(5):

            def closure():
                optimizer.zero_grad()
                loss = CE(model(x), y)
                recorder.log(loss=loss)
                loss.backward()
                return loss

            optimizer.step(closure)
    run = recorder.run
    assert run.steps == 5
    assert run.gradients["norm"].notna().all().all()
    assert run.losses["train"].iloc[-1] < run.losses["train"].iloc[0]


# What is given wrongly


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ((None, "adam"), "wanted a torch.optim.Optimizer"),
        ((None, None, 3), "wanted a loss module or a function"),
    ],
)
def test_wrong_arguments_are_named(arguments, said):
    model = programs.mlp()
    with pytest.raises(TypeError, match=said):
        nndiag.watch(model, *arguments[1:])


def test_a_loss_that_is_no_number_is_refused():
    model = programs.mlp()
    with watched(model) as recorder:
        with pytest.raises(TypeError, match="wanted a number"):
            recorder.log(loss="low")
        with pytest.raises(TypeError, match=r"mean\(\)"):
            recorder.log(accuracy=torch.ones(3))


def test_a_pass_without_gradients_before_the_backward_pass_is_no_part_of_it():
    model, data = programs.mlp(), programs.batches(8)
    model[2].p = 0.0
    frames = []
    for bootstraps in (False, True):
        start = {name: value.clone() for name, value in model.state_dict().items()}
        optimizer = sgd(model)
        with watched(model, optimizer) as recorder:
            for x, y in data:
                outputs = model(x)
                if bootstraps:
                    with torch.no_grad():
                        model(100 * x)
                loss = CE(outputs, y)
                recorder.log(loss=loss)
                loss.backward()
                optimizer.step()
                optimizer.zero_grad()
        model.load_state_dict(start)
        frames.append(recorder.run.activations)
    assert frames[0].equals(frames[1])


def test_transforms_of_functions_pass_unseen():
    model, (x, y) = programs.mlp(), programs.batches(8)[0]
    with watched(model, sgd(model)) as recorder:
        torch.func.vmap(model, randomness="different")(x)
        step(model, sgd(model), recorder, x, y)
    assert recorder.run.steps == 1


def test_a_fault_of_the_adapter_ends_the_watching_and_not_the_training(monkeypatch, caplog):
    model, data = programs.mlp(), programs.batches(8)
    optimizer = sgd(model)
    with nndiag.watch(model, optimizer, every=1) as recorder:
        programs.train(model, optimizer, data[:3], recorder)
        monkeypatch.setattr("nndiag_torch.telling.as_array", None)
        programs.train(model, optimizer, data[3:], recorder)
        assert len(caplog.records) == 1
    assert "TorchLoop" in str(recorder.run.meta.faults)
    assert len(recorder.run.activations) == 3


def test_losses_made_anew_at_every_step_are_nobodys_layers():
    model, data = programs.mlp(), programs.batches(8)
    optimizer = sgd(model)
    with watched(model, optimizer) as recorder:
        for x, y in data:
            step(model, optimizer, recorder, x, y, nn.CrossEntropyLoss())
    assert list(recorder.run.activations["mean"].columns) == ["0", "1", "2", "3"]


# Layers that the model calls and does not have


class Listed(nn.Module):
    """Keeps its hidden layers in a plain list."""

    def __init__(self) -> None:
        super().__init__()
        self.hidden = [nn.Linear(12, 16), nn.Linear(16, 16)]
        self.head = nn.Linear(16, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for layer in self.hidden:
            x = layer(x).relu()
        return self.head(x)

    def everything(self) -> list[torch.Tensor]:
        return [*self.parameters(), *(p for layer in self.hidden for p in layer.parameters())]


class MadeAnew(nn.Module):
    """Makes a layer in every pass."""

    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Linear(16, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(nn.Linear(12, 16)(x).relu())


class Taught(nn.Module):
    """Hides a teacher from those who ask for its parameters, on purpose, and learns nothing into it."""

    def __init__(self) -> None:
        super().__init__()
        self.teacher = [nn.Linear(12, 3)]
        self.head = nn.Linear(12, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        with torch.no_grad():
            taught = self.teacher[0](x)
        return self.head(x) + taught


@pytest.mark.parametrize(
    ("kind", "optimised", "names"),
    [
        (Listed, nn.Module.parameters, ["linear 0.weight", "linear 0.bias", "linear 1.weight", "linear 1.bias"]),
        (MadeAnew, nn.Module.parameters, [f"linear {i}.{name}" for i in range(8) for name in ("weight", "bias")]),
        (Listed, Listed.everything, []),
        (Taught, nn.Module.parameters, []),
    ],
    ids=["in a list", "made anew", "in a list, optimised", "a teacher"],
)
def test_layers_that_a_model_calls_and_does_not_have_are_seen(kind: Any, optimised: Any, names: list[str]) -> None:
    torch.manual_seed(0)
    model = kind()
    optimizer = torch.optim.SGD(optimised(model), 0.1)
    with nndiag.watch(model, optimizer, every=1) as recorder:
        for _ in range(10):
            loss = nn.functional.cross_entropy(model(torch.randn(16, 12)), torch.randint(0, 3, (16,)))
            recorder.log(loss=loss)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    others = [p.name for p in recorder.run.meta.parameters if not p.registered and not p.optimized]
    headlines = recorder.check(nndiag.Checklist(select="ND504")).headlines

    assert others == names
    assert headlines == (("ND504",) if names else ())


@pytest.mark.parametrize("thaws", [True, False])
def test_what_is_thawed_or_frozen_on_the_way_is_said_to_be_so(thaws):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 3))
    optimizer = torch.optim.Adam(model.parameters(), 1e-3)
    model[0].requires_grad_(not thaws)
    with watched(model, optimizer) as recorder:
        for number in range(60):
            if number == 30:
                model[0].requires_grad_(thaws)
            step(model, optimizer, recorder, *programs.batches(8)[number % 3])
    run = recorder.run

    assert [run.meta.parameter(f"0.{name}").frozen for name in ("weight", "bias")] == [not thaws] * 2
    assert nndiag.Checklist(select="ND403").examine(run).findings == ()


def test_what_was_trained_is_in_the_folder_when_a_validation_begins(tmp_path, monkeypatch):
    monkeypatch.setattr("nndiag.recorder.RECENT", 0.0)
    model, data = programs.mlp(), programs.batches(8, 4)
    optimizer = sgd(model, lr=0.1)
    with nndiag.watch(model, optimizer, run=tmp_path / "run", every=1):
        for x, y in data:
            optimizer.zero_grad()
            CE(model(x), y).backward()
            optimizer.step()
        with torch.no_grad():
            model(data[0][0])
        seen = nndiag.open_run(tmp_path / "run").train
    assert len(seen) == 3  # the last iteration is open for what is logged late


@pytest.mark.filterwarnings("ignore")
def test_a_step_that_is_compiled_is_heard():
    model = programs.mlp()
    optimizer = torch.optim.Adam(model.parameters(), 1e-3)
    step = torch.compile(optimizer.step, backend="eager")
    with watched(model, optimizer) as recorder:
        for x, y in programs.batches(8, 6):
            optimizer.zero_grad()
            CE(model(x), y).backward()
            step()
    assert recorder.run.loop["updates"].tolist() == [1] * 6


def train_twice(wrapped):
    losses = []
    for _ in range(2):
        torch.manual_seed(0)
        model = programs.mlp()
        optimizer = sgd(model, lr=0.1)
        with nndiag.watch(model, optimizer, every=1) as recorder:
            programs.train(model, optimizer, programs.batches(8, 3))
            wrapped()
        losses.append(recorder.run.train.tolist())
    return losses


def test_what_another_tool_has_wrapped_hears_once():
    before = torch.autograd.backward
    plain = train_twice(lambda: None)

    def wraps():
        if len(wrappers) < 1:
            inner = torch.autograd.backward
            wrappers.append(functools.wraps(inner)(lambda *args, **options: inner(*args, **options)))
            torch.autograd.backward = wrappers[0]

    wrappers = []
    try:
        assert train_twice(wraps) == plain
        assert torch.autograd.backward is wrappers[0]
        assert train_twice(lambda: None) == plain
    finally:
        torch.autograd.backward = before


def test_complex_parameters_are_watched_without_a_warning(recwarn):
    model = nn.Sequential(nn.Linear(16, 4, dtype=torch.cfloat))
    with nndiag.watch(model, sgd(model, lr=0.1)):
        pass
    assert not [warning for warning in recwarn if "complex" in str(warning.message)]


@pytest.mark.parametrize(("slope", "linear"), [(True, True), (0.2, False)])
def test_a_leaky_relu_of_slope_1_leaves_the_network_linear(slope: float, linear: bool) -> None:
    """`LeakyReLU(True)` is what becomes of `ReLU(True)` where the name alone is changed."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 8), nn.LeakyReLU(slope), nn.Linear(8, 3))
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    x, y = torch.randn(64, 4), torch.randint(0, 3, (64,))
    with nndiag.watch(model, optimizer, every=1) as recorder:
        for _ in range(10):
            loss = nn.functional.cross_entropy(model(x), y)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()

    assert any(found.code == "ND305" for found in recorder.check().findings) is linear
