"""What counts as one iteration, and what does not end the watching: loops that are written otherwise than most."""

from __future__ import annotations

import copy
import gc
import logging
import weakref

import numpy as np
import pytest

import nndiag
from nndiag import progress

torch = pytest.importorskip("torch")
pytestmark = pytest.mark.frameworks

from torch import nn  # noqa: E402
from torch._subclasses.fake_tensor import FakeTensorMode  # noqa: E402
from torch.nn import functional as F  # noqa: E402

STEPS = 90
"""More than the 50 that are read whatever they cost."""

SELDOM = [{"every": 1}, {"every": 7}, {}]
"""Cadences: steps that are not read count, too."""

cadences = pytest.mark.parametrize("options", SELDOM, ids=str)


@pytest.fixture(autouse=True, params=[False, True], ids=["now", "later"])
def told(request, monkeypatch):
    """Events are told at once, or later as on a device."""
    monkeypatch.setattr("nndiag_torch.loop.TorchLoop.deferred", request.param)
    torch.manual_seed(0)


def net():
    return nn.Sequential(nn.Linear(8, 16), nn.Softplus(), nn.Linear(16, 3))


def sgd(module, lr=0.05):
    return torch.optim.SGD(module.parameters(), lr=lr)


def batch():
    x = torch.randn(16, 8)
    return x, x[:, :3].argmax(1)


def step(model, optimizer, recorder, **also):
    x, y = batch()
    loss = F.cross_entropy(model(x), y)
    recorder.log(loss=loss, **also)
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    return loss.item()


def headlines(recorder):
    return set(recorder.check().headlines)


@cadences
def test_the_loss_of_an_accumulated_step_is_the_mean_of_its_micro_batches(options):
    model = net()
    optimizer = sgd(model)
    means = []
    with nndiag.watch(model, optimizer, **options) as recorder:
        for _ in range(STEPS):
            optimizer.zero_grad()
            each = []
            for _ in range(4):
                x, y = batch()
                loss = F.cross_entropy(model(x), y)
                recorder.log(loss=loss)
                (loss / 4).backward()
                each.append(loss.item())
            optimizer.step()
            means.append(np.mean(each))
    assert recorder.run.losses["train"].to_numpy().ravel() == pytest.approx(means)


@cadences
@pytest.mark.parametrize("logged", ["number", "after backward"])
def test_micro_batches_are_seen_where_no_tensor_of_the_loss_is_logged_in_time(options, logged):
    model = net()
    optimizer = sgd(model)
    with nndiag.watch(model, optimizer, **options) as recorder:
        for _ in range(STEPS):
            optimizer.zero_grad()
            means = []
            for _ in range(2):
                x, y = batch()
                loss = F.cross_entropy(model(x), y)
                if logged == "number":
                    recorder.log(loss=loss.item())
                (loss / 2).backward()
                if logged != "number":
                    recorder.log(loss=loss)
                means.append(loss.item())
            optimizer.step()
    assert recorder.step_number == STEPS
    assert recorder.run.losses["train"].iloc[-1].item() == pytest.approx(np.mean(means))


@cadences
def test_a_new_optimiser_takes_the_place_of_the_one_whose_parameters_it_has(options):
    model = net()
    old = sgd(model[-1])
    gone = weakref.ref(old)
    with nndiag.watch(model, old, **options) as recorder:
        for _ in range(STEPS // 2):
            step(model, old, recorder)
        del old
        new = torch.optim.Adam(model.parameters(), 1e-3)
        for _ in range(STEPS // 2):
            step(model, new, recorder)
        gc.collect()
        assert gone() is None
    assert recorder.step_number == STEPS
    assert {*recorder.run.updates["update_norm"].columns} == {"0.weight", "0.bias", "2.weight", "2.bias"}


@cadences
@pytest.mark.parametrize("clears", [True, False])
def test_where_optimisers_step_in_turn_each_step_is_an_iteration(options, clears):
    """Five steps of a critic for one of its generator: but for the first, whose end shows late, rows hold one pass each."""
    model = nn.ModuleDict({"generator": nn.Linear(4, 8), "critic": nn.Linear(8, 1)})
    ours, theirs = sgd(model["generator"]), sgd(model["critic"])
    losses = []
    with nndiag.watch(model, [ours, theirs], **options) as recorder:
        for k in range(STEPS):
            made = model["generator"](torch.randn(16, 4)).detach()
            loss = F.softplus(model["critic"](made)).mean() + F.softplus(-model["critic"](batch()[0])).mean()
            recorder.log(loss=loss)
            losses.append(loss.item())
            if clears:
                theirs.zero_grad()
            loss.backward()
            theirs.step()
            if k % 5 == 4:
                loss = F.softplus(-model["critic"](model["generator"](torch.randn(16, 4)))).mean()
                recorder.log(loss=loss)
                losses.append(loss.item())
                ours.zero_grad()
                loss.backward()
                ours.step()
    seen = recorder.run.losses["train"].to_numpy().ravel()
    assert seen[1:] == pytest.approx(losses[2:])
    loop = recorder.run.loop
    assert loop["backward_passes"].to_numpy().ravel()[1:].max() == 1
    assert loop["updates"].to_numpy().max() == 1
    assert (loop["gradients_kept"].iloc[2:].mean().item() == 0) is clears
    assert ("ND901" in headlines(recorder)) is not clears
    assert progress.takes_turns(recorder.run)


@cadences
def test_an_optimiser_that_steps_seldom_beside_another_makes_no_rows_of_its_own(options):
    model = net()
    often, seldom = sgd(model[0]), sgd(model[2])
    with nndiag.watch(model, [often, seldom], **options) as recorder:
        for k in range(STEPS):
            x, y = batch()
            loss = F.cross_entropy(model(x), y)
            recorder.log(loss=loss)
            loss.backward()
            often.step()
            often.zero_grad()
            if k % 3 == 2:
                seldom.step()
                seldom.zero_grad()
    assert recorder.step_number == STEPS
    assert not progress.takes_turns(recorder.run)


@pytest.mark.parametrize("without", [torch.no_grad, torch.inference_mode])
def test_a_base_that_is_called_without_gradients_in_the_midst_of_a_pass_is_part_of_it(without):
    class Tuned(nn.Module):
        def __init__(self):
            super().__init__()
            self.base, self.head = net().requires_grad_(False), nn.Linear(3, 3)

        def forward(self, x):
            with without():
                features = self.base(x)
            return self.head(features.clone())

    model = Tuned()
    optimizer = sgd(model.head)
    with nndiag.watch(model, optimizer, every=1, strict=True) as recorder:
        for _ in range(6):
            step(model, optimizer, recorder)
        recorder.log(val_loss=1.0)
    assert [*recorder.run.activations["mean"].columns] == ["base.0", "base.1", "base.2", "head"]
    assert recorder.run.activations["mean"].notna().all().all()
    assert recorder.run.steps == 6
    assert "ND903" not in headlines(recorder)


@pytest.mark.parametrize("broken", [0, 2])
def test_an_evaluation_after_a_pass_that_failed_is_no_training(broken):
    model = net()
    optimizer = sgd(model)
    with nndiag.watch(model, optimizer, every=1, strict=True) as recorder:
        for _ in range(6):
            step(model, optimizer, recorder)
            weight, model[broken].weight = model[broken].weight, nn.Parameter(torch.zeros(1, 1))
            with pytest.raises(RuntimeError):
                model(torch.zeros(4, 8))
            model[broken].weight = weight
            with torch.no_grad():
                held_out = F.cross_entropy(model(torch.full((16, 8), 1e3)), batch()[1])
            recorder.log(val_loss=held_out)
    assert recorder.run.activations["max"].max().max() < 100
    assert recorder.run.loop["training_mode"].iloc[1:].eq(1).all().all()


@cadences
def test_updates_by_hand_are_iterations_but_for_the_first_few(options):
    model = net()
    with nndiag.watch(model, **options) as recorder:
        for _ in range(STEPS):
            x, y = batch()
            loss = F.cross_entropy(model(x), y)
            recorder.log(loss=loss)
            loss.backward()
            with torch.no_grad():
                for parameter in model.parameters():
                    parameter -= 0.05 * parameter.grad
                    parameter.grad = None
    assert recorder.step_number == STEPS - 2
    assert (recorder.run.gradients["norm"].dropna() > 0).all().all()
    assert len(recorder.run.gradients["norm"].dropna()) > 10
    assert headlines(recorder) <= {"ND607"}


def test_updates_by_hand_of_gradients_that_are_kept_nowhere_are_iterations_too():
    model = net()
    with nndiag.watch(model, every=1, strict=True) as recorder:
        for _ in range(30):
            x, y = batch()
            loss = F.cross_entropy(model(x), y)
            recorder.log(loss=loss)
            parameters = list(model.parameters())
            with torch.no_grad():
                for parameter, gradient in zip(parameters, torch.autograd.grad(loss, parameters), strict=True):
                    parameter -= 0.05 * gradient
    assert recorder.step_number == 28


@cadences
def test_a_step_that_is_never_called_is_seen_whatever_is_read(options):
    model = net()
    optimizer = sgd(model)
    with nndiag.watch(model, optimizer, **options) as recorder:
        for _ in range(200):
            optimizer.zero_grad()
            x, y = batch()
            loss = F.cross_entropy(model(x), y)
            recorder.log(loss=loss)
            loss.backward()
    assert (recorder.run.gradients["norm"].iloc[1:] > 0).all().all()
    assert "ND904" in headlines(recorder)


def test_looks_in_training_mode_between_the_steps_are_no_validations():
    """The accuracy of a step or a pseudo-label; what is validated is an average of the weights, which nobody watches."""
    model = nn.Sequential(nn.Linear(8, 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Linear(16, 3))
    average, optimizer = copy.deepcopy(model).eval(), sgd(model)
    with nndiag.watch(model, optimizer, every=1) as recorder:
        for at in range(30):
            x, y = batch()
            step(model, optimizer, recorder)
            with torch.no_grad():
                assert len(model(x).argmax(dim=1)) == len(y)
                if at % 5 == 4:
                    recorder.log(validation_loss=F.cross_entropy(average(x), y))
    assert "ND903" not in headlines(recorder)
    assert recorder.run.series("loop", "training_mode", "").empty


@pytest.mark.parametrize("evaluates", [False, True])
def test_of_a_model_that_is_called_in_parts_the_mode_of_those_counts(evaluates):
    class Weights(nn.Module):
        def __init__(self):
            super().__init__()
            self.of = nn.Parameter(torch.zeros(2))

    network = nn.Sequential(nn.Linear(8, 16), nn.Dropout(0.5), nn.ReLU(), nn.Linear(16, 3))
    whole = nn.ModuleDict({"network": network, "weights": Weights()})
    optimizer = sgd(whole)
    with nndiag.watch(whole, optimizer, every=1) as recorder:
        for _ in range(30):
            x, y = batch()
            network.train()
            loss = F.cross_entropy(network(x), y) + whole["weights"].of.square().sum()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            network.train(not evaluates)
            with torch.no_grad():
                recorder.log(validation_loss=F.cross_entropy(network(x), y))
    assert ("ND903" in headlines(recorder)) is not evaluates


def test_a_validation_loss_that_comes_with_that_of_training_takes_nothing_back():
    model = nn.Sequential(nn.Linear(8, 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Linear(16, 3))
    optimizer, losses = sgd(model), []
    with nndiag.watch(model, optimizer, every=1) as recorder:
        for _ in range(12):
            model.eval()
            with torch.no_grad():
                x, y = batch()
                held_out = F.cross_entropy(model(x), y)
            model.train()
            losses.append(step(model, optimizer, recorder, val_loss=held_out))
    assert recorder.run.losses["train"].to_numpy().ravel() == pytest.approx(losses)
    assert not recorder.run.loop["training_mode"].to_numpy().any()
    assert recorder.run.activations["mean"].notna().all().all()
    assert "ND903" not in headlines(recorder)


def penalised(model, x, y):
    x.requires_grad_()
    loss = F.cross_entropy(model(x), y)
    (slope,) = torch.autograd.grad(loss, x, create_graph=True)
    return loss + 0.1 * slope.square().sum(1).mean()


def matched(model, x, y):
    x.requires_grad_()
    (force,) = torch.autograd.grad(model(x).sum(), x, create_graph=True)
    return (force + x).square().mean()


@pytest.mark.parametrize("loss_of", [penalised, matched])
@pytest.mark.parametrize("clears", [True, False])
def test_a_pass_of_autograd_grad_says_nothing_of_the_gradients_that_are_kept(loss_of, clears):
    model = net()
    optimizer = sgd(model, lr=0.01)
    with nndiag.watch(model, optimizer, every=1, strict=True) as recorder:
        for _ in range(12):
            loss = loss_of(model, *batch())
            recorder.log(loss=loss)
            if clears:
                optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    assert recorder.step_number == 12
    assert ("ND901" in headlines(recorder)) is not clears


def test_gradients_that_autograd_grad_gives_and_the_user_sets_are_none_that_were_kept():
    model = net()
    optimizer = sgd(model)
    with nndiag.watch(model, optimizer, every=1, strict=True) as recorder:
        for _ in range(12):
            x, y = batch()
            loss = F.cross_entropy(model(x), y)
            recorder.log(loss=loss)
            parameters = list(model.parameters())
            for parameter, gradient in zip(parameters, torch.autograd.grad(loss, parameters), strict=True):
                parameter.grad = gradient
            optimizer.step()
    assert recorder.step_number == 12
    assert recorder.run.gradients["norm"].notna().all().all()
    assert "ND901" not in headlines(recorder)


@pytest.mark.parametrize("when", [0, 6])
def test_parameters_that_are_replaced_are_seen(when):
    model = net()
    optimizer = sgd(model)
    with nndiag.watch(model, optimizer, every=1, strict=True) as recorder:
        for k in range(12):
            if k == when:
                model.load_state_dict({name: one.clone() for name, one in model.state_dict().items()}, assign=True)
                optimizer = sgd(model)
            step(model, optimizer, recorder)
    assert recorder.step_number == 12
    assert recorder.run.updates["update_norm"].notna().all().all()


def test_steps_of_an_optimiser_that_was_given_count_whatever_it_holds():
    """A prompt before a model that is kept as it is."""
    model, prompt = net().requires_grad_(False), nn.Parameter(torch.zeros(8))
    optimizer = torch.optim.SGD([prompt], 0.1)
    with nndiag.watch(model, optimizer, every=1, strict=True) as recorder:
        for _ in range(12):
            x, y = batch()
            loss = F.cross_entropy(model(x + prompt), y)
            recorder.log(loss=loss)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    assert recorder.step_number == len(recorder.run.losses) == 12


def test_losses_of_a_model_whose_modules_nobody_calls_have_steps_of_their_own(caplog):
    model = net()
    optimizer, losses = sgd(model), []
    names = [name for name, _ in model.named_parameters()]

    def loss_of(values, x, y):
        return F.cross_entropy(torch.func.functional_call(model, values, (x,)), y)

    with caplog.at_level(logging.CRITICAL), nndiag.watch(model, optimizer, every=1, strict=True) as recorder:
        for _ in range(12):
            gradients, loss = torch.func.grad_and_value(loss_of)(dict(model.named_parameters()), *batch())
            recorder.log(loss=loss)
            losses.append(loss.item())
            for name, parameter in zip(names, model.parameters(), strict=True):
                parameter.grad = gradients[name].detach()
            optimizer.step()
    assert recorder.run.losses["train"].to_numpy().ravel() == pytest.approx(losses)


# What does not end the watching


class Convolved(nn.Module):
    """Two layers over the neighbours of a graph, whose first argument is a sparse matrix."""

    def __init__(self):
        super().__init__()
        self.first, self.second = Neighbours(8, 16), Neighbours(16, 3)

    def forward(self, x):
        neighbours = torch.eye(len(x)).to_sparse()
        return self.second(neighbours, torch.relu(self.first(neighbours, x)))


class Neighbours(nn.Module):
    def __init__(self, fan_in, fan_out):
        super().__init__()
        self.weight = nn.Parameter(0.3 * torch.randn(fan_in, fan_out))

    def forward(self, neighbours, x):
        return torch.sparse.mm(neighbours, x @ self.weight)


class Ragged(nn.Module):
    """Rows of several lengths, as tensors of tensors, through a layer that nothing is known of but its parameters."""

    def __init__(self, layout):
        super().__init__()
        self.inner, self.outer, self.layout = nn.Linear(8, 8), nn.Linear(8, 3), layout

    def forward(self, x):
        rows = torch.nested.nested_tensor(
            [one[None].repeat(1 + i % 3, 1) for i, one in enumerate(x)], layout=self.layout
        )
        return self.outer(torch.stack([one.mean(0) for one in self.inner(rows).unbind()]))


class OwnRate(torch.optim.Optimizer):
    """An optimiser whose groups have a learning rate that is None, or none at all."""

    def __init__(self, parameters, **defaults):
        super().__init__(parameters, defaults)

    @torch.no_grad()
    def step(self, closure=None):
        for group in self.param_groups:
            for parameter in group["params"]:
                parameter.add_(parameter.grad, alpha=-0.05)


MODELS = {
    "sparse": Convolved,
    "ragged": lambda: Ragged(torch.strided),
    "jagged": lambda: Ragged(torch.jagged),
    "lazy": lambda: nn.Sequential(nn.LazyLinear(16), nn.ReLU(), nn.LazyLinear(3)),
    "scripted": lambda: nn.Sequential(torch.jit.script(net()), nn.Linear(3, 3)),
    "traced": lambda: torch.jit.trace(net(), torch.zeros(4, 8)),
}


@pytest.mark.filterwarnings("ignore:.*nested tensors:UserWarning", "ignore:.*torch.jit:Warning")
@pytest.mark.parametrize("name", MODELS)
def test_odd_tensors_and_modules_do_not_end_the_watching(name, caplog):
    model = MODELS[name]()
    optimizer = sgd(model) if name != "lazy" else torch.optim.SGD(model.parameters(), 0.05)
    with nndiag.watch(model, optimizer, every=1, strict=True) as recorder:
        for _ in range(6):
            step(model, optimizer, recorder)
        recorder.check()
    run = recorder.run
    assert run.steps == 6
    assert run.gradients["norm"].notna().all().all()
    assert all(parameter.shape for parameter in recorder.meta.parameters)
    assert ("were not heard" in caplog.text) is (name == "traced")


def test_parameters_of_lazy_modules_are_what_others_are():
    model = MODELS["lazy"]()
    optimizer = torch.optim.SGD(model.parameters(), 0.05)
    with nndiag.watch(model, optimizer, every=1, strict=True) as recorder:
        step(model, optimizer, recorder)
        step(model, optimizer, recorder)
    found = {parameter.name: parameter for parameter in recorder.meta.parameters}
    assert {name: one.kind for name, one in found.items()} == {
        "0.weight": "weight", "0.bias": "bias", "2.weight": "weight", "2.bias": "bias"
    }  # fmt: skip
    assert found["0.weight"].shape == (16, 8)
    assert found["0.weight"].std > 0


@pytest.mark.parametrize("defaults", [{"lr": None}, {"eta": 0.1}], ids=str)
def test_an_optimiser_need_not_have_a_learning_rate(defaults):
    model = net()
    optimizer = OwnRate(model.parameters(), **defaults)
    with nndiag.watch(model, optimizer, every=1, strict=True) as recorder:
        for _ in range(6):
            step(model, optimizer, recorder)
        recorder.check()
    assert recorder.run.steps == 6
    assert "lr" not in recorder.meta.optimizer


def test_a_pass_of_fake_tensors_is_none():
    model = net()
    optimizer = sgd(model)
    with nndiag.watch(model, optimizer, every=1, strict=True) as recorder:
        with FakeTensorMode(allow_non_fake_inputs=True) as fakes:
            model(fakes.from_tensor(torch.zeros(4, 8)))
        step(model, optimizer, recorder)
    assert recorder.run.steps == 1


def test_a_model_without_values_can_be_watched():
    with nndiag.watch(net().to("meta"), every=1, strict=True) as recorder:
        recorder.log(accuracy=0.5)
    assert recorder.run.metrics["accuracy"].to_numpy().ravel().tolist() == [0.5]
    assert not recorder.meta.faults


@pytest.mark.filterwarnings("ignore:.*torch.jit:Warning")
def test_what_traces_a_watched_model_finds_the_model_alone():
    model = net()
    optimizer = sgd(model)
    bare = [str(node.target) for node in torch.export.export(model, (torch.zeros(4, 8),)).graph.nodes]
    with nndiag.watch(model, optimizer, every=1, strict=True) as recorder:
        traced = torch.jit.trace(model, torch.zeros(4, 8))
        exported = torch.export.export(model, (torch.zeros(4, 8),))
        assert torch.equal(traced(torch.ones(4, 8)), model(torch.ones(4, 8)))
        step(model, optimizer, recorder)
    assert [str(node.target) for node in exported.graph.nodes] == bare
    assert recorder.run.steps == 1


def test_what_was_frozen_later_has_the_gradients_of_before():
    model = net()
    optimizer = sgd(model)
    with nndiag.watch(model, optimizer, every=1, strict=True) as recorder:
        for k in range(12):
            model[0].requires_grad_(k < 8)
            step(model, optimizer, recorder)
    norms = recorder.run.gradients["norm"]["0.weight"]
    assert norms.iloc[:8].notna().all()
    assert norms.iloc[8:].isna().all()


def test_outputs_are_saved_without_a_word_of_hooks(tmp_path, recwarn):
    model = net()
    optimizer = sgd(model)
    with nndiag.watch(model, optimizer, every=3) as recorder:
        for k in range(6):
            outputs = model(batch()[0])
            torch.save(outputs, tmp_path / f"{k}.pt")
            step(model, optimizer, recorder)
    assert not [one for one in recwarn if "hook" in str(one.message)]


def test_training_in_evaluation_mode_is_heard_without_a_word_of_warning(caplog):
    model = net().eval()
    optimizer = sgd(model)
    with nndiag.watch(model, optimizer, every=1, strict=True) as recorder:
        for _ in range(8):
            step(model, optimizer, recorder)
    assert recorder.run.activations["mean"].iloc[2:].notna().all().all()
    assert not caplog.text


@pytest.mark.parametrize(("width", "warns"), [(16, False), (32, True)])
def test_who_goes_on_with_another_model_is_told(width, warns, tmp_path, caplog):
    for units, resume in ((16, False), (width, True)):
        model = nn.Sequential(nn.Linear(8, units), nn.Softplus(), nn.Linear(units, 3))
        optimizer = sgd(model)
        with nndiag.watch(model, optimizer, run=tmp_path / "run", resume=resume, every=1, strict=True) as recorder:
            for _ in range(4):
                step(model, optimizer, recorder)
    assert recorder.run.steps == 8
    assert caplog.text.count("with other layers than the one that resumes it") == warns


def test_layers_that_come_later_stand_where_they_are_called():
    class Grows(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.last = nn.Linear(8, 8), nn.Linear(8, 3)
            self.between = nn.ModuleList([nn.Linear(8, 8), nn.Linear(8, 8)])
            self.passes = 0

        def forward(self, x):
            self.passes += 1
            x = self.first(x) if self.passes < 4 else x
            for layer in [self.between[-1:], self.between[-1:], self.between][min(self.passes - 1, 2)]:
                x = F.relu(layer(x))
            return self.last(x)

    model = Grows()
    optimizer = sgd(model)
    with nndiag.watch(model, optimizer, every=1, strict=True) as recorder:
        for _ in range(4):
            step(model, optimizer, recorder)
    assert [layer.name for layer in recorder.meta.layers] == [
        "first", "between.0", "between.0.relu", "between.1", "between.1.relu", "last",
    ]  # fmt: skip


def test_a_layer_that_is_first_in_a_later_pass_stands_before_those_that_are_known():
    class Either(nn.Module):
        def __init__(self):
            super().__init__()
            self.one, self.other, self.head = nn.Linear(8, 8), nn.Linear(8, 8), nn.Linear(8, 3)
            self.passes = 0

        def forward(self, x):
            self.passes += 1
            return self.head((self.one if self.passes % 2 else self.other)(x))

    model = Either()
    optimizer = sgd(model)
    with nndiag.watch(model, optimizer, every=1, strict=True) as recorder:
        for _ in range(4):
            step(model, optimizer, recorder)
    assert [layer.name for layer in recorder.meta.layers] == ["other", "one", "head"]


@pytest.mark.parametrize("make", [torch.optim.SGD, torch.optim.Adam])
@pytest.mark.parametrize("rates", [(0.0, 0.1), (0.1, 0.0), (0.0, 0.0), (0.1, 0.2)])
def test_a_group_that_rests_beside_others_has_no_updates(make, rates):
    model = net()
    weights = [[p] for p in model.parameters()][:2]
    optimizer = make([{"params": ps, "lr": lr} for ps, lr in zip(weights, rates, strict=True)])
    with nndiag.watch(model, optimizer, every=1, strict=True) as recorder:
        for _ in range(6):
            step(model, optimizer, recorder)
    names = [name for name, _ in model.named_parameters()][:2]
    moved = [name for name, lr in zip(names, rates, strict=True) if lr or not any(rates)]
    assert set(recorder.run.updates["update_norm"].dropna(axis=1)) == set(moved)
    assert recorder.run.metrics["lr", "train"].unique().tolist() == [next(filter(None, rates), 0.0)]
    assert recorder.meta.optimizer["lr"] == next(filter(None, rates), 0.0)


class Around(torch.Tensor):
    """A tensor whose values lie in another."""

    @staticmethod
    def __new__(cls, values):
        return torch.Tensor._make_wrapper_subclass(cls, values.shape, dtype=values.dtype, device=values.device)

    def __init__(self, values):
        self.values_ = values

    @classmethod
    def __torch_dispatch__(cls, function, types, args=(), kwargs=None):
        return function(*(one.values_ if isinstance(one, Around) else one for one in args), **(kwargs or {}))


def test_a_batch_that_is_no_array_is_left_out():
    model = net()
    optimizer = sgd(model)
    with nndiag.watch(model, optimizer, every=1, strict=True) as recorder:
        for _ in range(10):
            x, y = batch()
            optimizer.zero_grad()
            F.cross_entropy(model(Around(x)), y).backward()
            optimizer.step()
    assert len(recorder.run.gradients) == 10
    assert not recorder.run.meta.faults


@pytest.mark.parametrize("anew", [False, True], ids=["in its group", "with a new optimiser"])
def test_a_parameter_that_takes_the_place_of_another_is_recorded(anew):
    model = nn.Sequential(nn.Linear(8, 6), nn.ReLU(), nn.Linear(6, 3))
    optimizer = sgd(model)
    with nndiag.watch(model, optimizer, every=1) as recorder:
        for at in range(8):
            if at == 4:
                model[0].weight = nn.Parameter(model[0].weight.detach()[:, :8].clone())
                if anew:
                    optimizer = sgd(model)
                else:
                    optimizer.param_groups[0]["params"] = list(model.parameters())
            step(model, optimizer, recorder)
            norm = float(model[0].weight.grad.norm())
            assert recorder.run.gradients["norm", "0.weight"].iloc[-1] == pytest.approx(norm, rel=1e-5)
