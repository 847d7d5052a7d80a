"""Compiled models: as many graphs as without nndiag, and the numbers of the model that is not compiled."""

from __future__ import annotations

import copy
import gc
import logging
import shutil
import warnings

import numpy as np
import pandas as pd
import pytest

import nndiag

torch = pytest.importorskip("torch")
pytestmark = [
    pytest.mark.frameworks,
    pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor"),  # of PyTorch where a part is compiled
]

import torch._dynamo as dynamo  # noqa: E402
from torch import nn  # noqa: E402

from nndiag_torch import compiled as compiled_regions  # noqa: E402
from nndiag_torch.compiled import MEASURES, Surcharge  # noqa: E402
from nndiag_torch.loop import TorchLoop  # noqa: E402
from tests.integrations.nndiag_torch import programs  # noqa: E402

measured = pytest.mark.skipif(not MEASURES, reason="what is compiled is not measured with this release of PyTorch")
BACKENDS = ["eager", "aot_eager"]
CE = nn.CrossEntropyLoss()


class Block(nn.Module):
    def __init__(self, width=16):
        super().__init__()
        self.norm, self.fc, self.relu = nn.LayerNorm(width), nn.Linear(width, width), nn.ReLU(inplace=True)

    def forward(self, x):
        return x + self.relu(self.fc(self.norm(x)))


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.enter, self.block, self.drop, self.out = nn.Linear(8, 16), Block(), nn.Dropout(0.1), nn.Linear(16, 3)

    def forward(self, x):
        return self.out(self.drop(self.block(self.enter(x))))


@pytest.fixture(autouse=True)
def _fresh():
    dynamo.reset()
    dynamo.utils.counters.clear()
    torch.manual_seed(0)
    yield
    dynamo.reset()
    gc.collect()


def compiled(model, how, backend):
    """What to call instead of `model`, of which a part or the whole is compiled."""
    if how == "torch.compile":
        return torch.compile(model, backend=backend)
    if how == "compile":
        model.compile(backend=backend)
    elif how == "part":
        model.block = torch.compile(model.block, backend=backend)
    elif how == "part in place":
        model.block.compile(backend=backend)
    return model


HOW = ["torch.compile", "compile", "part", "part in place"]


def trained(how, backend, options, count=9, dropout=0.1):
    """Losses, weights and record of a training; `options` None is one without nndiag."""
    dynamo.reset()
    dynamo.utils.counters.clear()
    torch.manual_seed(0)
    model = Net()
    model.drop.p = dropout
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    called = compiled(model, how, backend)
    recorder = None if options is None else nndiag.watch(model, optimizer, strict=True, **options)
    losses = programs.train(called, optimizer, programs.batches(8, count=count), recorder)
    if recorder:
        recorder.close()
    return losses, [p.detach().clone() for p in model.parameters()], recorder and recorder.run


def graphs():
    """Graphs that were compiled, and what has broken any."""
    return dynamo.utils.counters["stats"]["unique_graphs"], list(dynamo.utils.counters["graph_break"])


@measured
@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("how", HOW)
def test_graphs_are_as_many_and_training_is_bit_for_bit_the_same(how, backend):
    bare = trained(how, backend, None)
    wanted, none = graphs()
    assert wanted > 0
    assert none == []
    for options, more in (({"every": 1}, 0), ({"every": 3}, wanted)):
        seen = trained(how, backend, options)
        assert graphs() == (wanted + more, [])
        if backend == "eager":
            assert seen[0] == bare[0]
            assert all(torch.equal(one, other) for one, other in zip(seen[1], bare[1], strict=True))


@measured
@pytest.mark.parametrize("backend", BACKENDS)
def test_a_model_of_a_class_of_pytorch_is_heard_from_its_first_pass(backend):
    """What is inlined into the graph, as those classes are, is never called by itself."""

    def run(compiles):
        torch.manual_seed(0)
        model = nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 3), nn.ReLU())
        called = torch.compile(model, backend=backend) if compiles else model
        optimizer = torch.optim.SGD(model.parameters(), 0.1)
        with nndiag.watch(called, optimizer, every=1) as recorder:
            for _ in range(25):
                x = torch.randn(12, 8)
                loss = CE(called(x), x[:, :3].argmax(dim=1))
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
        return recorder.run, recorder.check().headlines

    (bare, wanted), (seen, found) = run(compiles=False), run(compiles=True)

    assert found == wanted
    assert "ND106" in found
    for frame in ("data", "outputs", "activations", "gradients"):
        pd.testing.assert_frame_equal(seen.frame(frame), bare.frame(frame), rtol=1e-4, atol=1e-6)


@measured
@pytest.mark.parametrize("deferred", [False, True])
@pytest.mark.parametrize("how", HOW)
def test_the_numbers_are_those_of_the_model_that_is_not_compiled(how, deferred, monkeypatch):
    monkeypatch.setattr(TorchLoop, "deferred", deferred)
    wanted = trained("", "", {"every": 1})[2]
    seen = trained(how, "aot_eager", {"every": 1})[2]
    for name in ("activations", "gradients", "updates", "losses", "data", "outputs"):
        one, other = getattr(wanted, name), getattr(seen, name)
        assert set(one.columns) == set(other.columns)
        pd.testing.assert_frame_equal(one, other[one.columns], rtol=2e-4, atol=1e-6, check_exact=False, obj=name)
    assert [layer.name for layer in seen.meta.layers] == [layer.name for layer in wanted.meta.layers]
    assert [p.name for p in seen.meta.parameters] == [p.name for p in wanted.meta.parameters]


@measured
def test_unread_steps_have_a_graph_of_their_own_and_evaluation_has_one_as_ever():
    model = Net()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    called = torch.compile(model, backend="aot_eager")
    data = programs.batches(8, count=12)
    with nndiag.watch(model, optimizer, every=3, strict=True) as recorder:
        programs.train(called, optimizer, data, recorder, evaluate=data[0])
    assert graphs() == (3, [])
    mean = recorder.run.activations["mean"].dropna(how="all")
    assert list(mean.index) == [0, 3, 6, 9]
    assert mean.notna().all().all()


@measured
def test_micro_batches_merge():
    def run(how):
        torch.manual_seed(0)
        model = Net()
        model.drop.p = 0.0
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        called = compiled(model, how, "aot_eager")
        with nndiag.watch(model, optimizer, every=1, strict=True) as recorder:
            for number, (x, y) in enumerate(programs.batches(8, count=8)):
                loss = CE(called(x), y) / 4
                recorder.log(loss=loss)
                loss.backward()
                if number % 4 == 3:
                    optimizer.step()
                    optimizer.zero_grad()
        return recorder.run.activations

    wanted = run("")
    for how in HOW:
        seen = run(how)
        pd.testing.assert_frame_equal(wanted, seen[wanted.columns], rtol=1e-4, atol=1e-6)


@measured
@pytest.mark.parametrize("how", ["torch.compile", "compile"])
def test_what_was_compiled_and_called_before_is_compiled_anew(how):
    model, data = Net(), programs.batches(8)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    called = compiled(model, how, "aot_eager")
    programs.train(called, optimizer, data[:2])
    with nndiag.watch(model, optimizer, every=1, strict=True) as recorder:
        programs.train(called, optimizer, data, recorder)
    assert recorder.run.activations["gradient_rms"].notna().all().all()
    assert graphs() == (2, [])
    programs.train(called, optimizer, data)
    assert graphs() == (3, [])  # once more, without what nndiag has measured


@measured
def test_a_step_that_is_compiled_as_a_whole():
    model, data = Net(), programs.batches(8)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    forward = torch.compile(lambda x, y: CE(model(x), y), backend="aot_eager", fullgraph=True)
    with nndiag.watch(model, optimizer, every=1, strict=True) as recorder:
        losses = []
        for x, y in data:
            loss = forward(x, y)
            recorder.log(loss=loss)
            loss.backward()
            optimizer.step()
            optimizer.zero_grad()
            losses.append(loss.item())
    run = recorder.run
    assert run.steps == len(data)
    np.testing.assert_allclose(run.losses["train"], losses, rtol=1e-6)
    assert run.activations["gradient_rms"].notna().all().all()
    assert run.gradients["norm"].notna().all().all()


@measured
def test_dynamic_sizes():
    model = nn.Sequential(nn.ReLU(), nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 3))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    called = torch.compile(model, backend="aot_eager", dynamic=True, fullgraph=True)
    means = []
    with nndiag.watch(model, optimizer, every=1, strict=True) as recorder:
        for size in (4, 6, 9):
            x, y = programs.batches(8, count=1, size=size)[0]
            means.append(torch.relu(x).mean().item())
            programs.train(called, optimizer, [(x, y)], recorder)
    np.testing.assert_allclose(recorder.run.activations["mean", "0"], means, rtol=1e-5)


def test_pytorch_warns_of_nothing(recwarn):
    def filters(options):
        with warnings.catch_warnings():
            warnings.simplefilter("always")
            trained("torch.compile", "eager", options, count=2)
            return list(warnings.filters)

    assert filters({"every": 1}) == filters(None)
    assert not [warning for warning in recwarn if "global hooks" in str(warning.message)]


@measured
def test_a_copy_of_a_watched_model_is_nobodys_business():
    model, data = Net(), programs.batches(8)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    called = torch.compile(model, backend="aot_eager")
    with nndiag.watch(model, optimizer, every=1, strict=True) as recorder:
        twin = copy.deepcopy(model)
        programs.train(called, optimizer, data[:2], recorder)
        torch.compile(twin, backend="aot_eager")(100 * data[0][0]).sum().backward()
        programs.train(called, optimizer, data[2:4], recorder)
    assert recorder.run.activations["max"].max().max() < 20


class Auto:
    """A cadence that adapts, after its first steps."""

    adapts = True


def test_what_the_graph_measures_is_charged_by_how_much_longer_read_steps_take():
    surcharge = Surcharge()
    assert surcharge.of(True, 2.0, Auto) == pytest.approx(0.5)  # a guess, until some steps are not read
    for seconds in (60.0, 1.0, 1.1):  # the first of them compiles
        assert surcharge.of(False, seconds, Auto) == 0
    assert surcharge.of(True, 1.5, Auto) == pytest.approx(1.75 - 1.1)


@measured
def test_the_budget_counts_what_the_graph_measures(monkeypatch):
    monkeypatch.setattr(Surcharge, "of", lambda self, read, seconds, pace: 0.01 * read)
    model, data = Net(), programs.batches(8, count=4)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    called = torch.compile(model, backend="eager")
    with nndiag.watch(model, optimizer, every=1, strict=True) as recorder:
        programs.train(called, optimizer, data, recorder)
        assert recorder.cost["seconds"] > 0.02


@measured
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of PyTorch itself, while inductor is imported
@pytest.mark.skipif(shutil.which("g++") is None, reason="inductor needs a C++ compiler")
def test_inductor():
    wanted = trained("", "", {"every": 1}, count=3, dropout=0.0)[2]
    bare = trained("torch.compile", "inductor", None, count=3, dropout=0.0)
    number = graphs()
    seen = trained("torch.compile", "inductor", {"every": 1}, count=3, dropout=0.0)
    assert graphs() == number == (1, [])
    np.testing.assert_allclose(seen[0], bare[0], rtol=1e-5)
    one, other = wanted.activations, seen[2].activations
    pd.testing.assert_frame_equal(one, other[one.columns], rtol=1e-3, atol=1e-6)


def test_a_part_that_cannot_be_heard_is_told(caplog):
    model, data = Net(), programs.batches(8)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    step = torch.compile(lambda x: model(x), backend="eager")
    step(data[0][0])
    with caplog.at_level(logging.WARNING, "nndiag"), nndiag.watch(model, optimizer, every=1) as recorder:
        for x, y in data:
            loss = CE(step(x), y)
            recorder.log(loss=loss)
            loss.backward()
            optimizer.step()
            optimizer.zero_grad()
    assert "layers of Net were not heard" in caplog.text
    assert recorder.run.gradients["norm"].notna().all().all()


@pytest.mark.parametrize("how", HOW)
def test_where_regions_cannot_be_measured_that_is_said_and_nothing_is_traced(how, monkeypatch, caplog):
    monkeypatch.setattr(compiled_regions, "MEASURES", False)
    bare = trained(how, "eager", None)
    wanted = graphs()
    with caplog.at_level(logging.WARNING, "nndiag"):
        losses, weights, run = trained(how, "eager", {"every": 1})

    assert graphs() == wanted
    assert losses == bare[0]
    assert all(map(torch.equal, weights, bare[1]))
    assert caplog.text.count("is measured from PyTorch 2.11 on") == 1
    assert run.gradients["norm"].notna().all().all()


@pytest.mark.parametrize("how", HOW)
def test_two_passes_before_one_backward_pass(how):
    def run(watch):
        torch.manual_seed(0)
        dynamo.reset()
        model, data = Net(), programs.batches(8, count=8)
        model.drop.p = 0.0
        called = compiled(model, how, "aot_eager")
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        recorder = nndiag.watch(model, optimizer, every=1, strict=True) if watch else None
        for (x, y), (other, labels) in zip(data[::2], data[1::2], strict=True):
            (CE(called(x), y) + CE(called(other), labels)).backward()
            optimizer.step()
            optimizer.zero_grad()
        if recorder:
            recorder.close()
        return list(model.parameters())

    assert all(map(torch.equal, run(watch=False), run(watch=True)))
