"""What is recorded of steps that are read is the same whatever others are, and of the others nothing is missing."""

from __future__ import annotations

import copy
import pickle

import numpy as np
import pandas as pd
import pytest

import nndiag

torch = pytest.importorskip("torch")
pytestmark = pytest.mark.frameworks

from torch.nn import functional as F  # noqa: E402
from torch.nn.modules import module as modules  # noqa: E402

from tests.integrations.nndiag_torch import programs  # noqa: E402

OVER_READS = ("dead_fraction", "saturated_fraction", "samples")
"""Statistics of several reads."""


class Raising(torch.nn.Module):
    """Raises in its forward what it was told to."""

    def __init__(self):
        super().__init__()
        self.layer = torch.nn.Linear(8, 3)
        self.raises = None

    def forward(self, x):
        if self.raises is not None:
            raise self.raises
        return self.layer(x)


def sgd(model):
    return torch.optim.SGD(model.parameters(), lr=0.1)


def step(model, optimizer, batch, recorder):
    loss = F.cross_entropy(model(batch[0]), batch[1])
    recorder.log(loss=loss)
    loss.backward()
    optimizer.step()
    optimizer.zero_grad()


def hooks_on(model):
    """Numbers of forward hooks: on the model, and on all modules of the process, after and before."""
    found = model._forward_hooks, modules._global_forward_hooks, modules._global_forward_pre_hooks
    return [len(hooks) for hooks in found]


def steps(frame):
    """The steps of the rows of a frame."""
    return frame.index.get_level_values("step").unique().tolist()


@pytest.mark.parametrize("name", programs.MODELS)
def test_what_is_read_is_what_is_read_at_every_step(name):
    frames = []
    for every in (1, 4):
        torch.manual_seed(0)
        make, width = programs.MODELS[name]
        model = make()
        optimizer, data = sgd(model), programs.batches(width)
        with nndiag.watch(model, optimizer, every=every, strict=True) as recorder:
            programs.train(model, optimizer, data, recorder, evaluate=data[0])
        frames.append(recorder.run)
    whole, some = frames
    assert whole.losses.equals(some.losses)
    for frame in ("activations", "gradients", "updates", "outputs"):
        found, wanted = getattr(some, frame), getattr(whole, frame)
        assert steps(found) == [0, 4, 8]
        assert steps(wanted) == list(range(12))
        wanted = wanted.loc[found.index]
        left, right = (one[[c for c in one.columns if c[0] not in OVER_READS]] for one in (found, wanted))
        pd.testing.assert_frame_equal(left, right, rtol=1e-12)


@pytest.mark.parametrize("fault", [ValueError("mine"), KeyboardInterrupt()])
def test_an_exception_in_such_a_pass_is_the_users_and_leaves_nothing(fault):
    model = Raising()
    optimizer, data = sgd(model), programs.batches(8)
    with nndiag.watch(model, optimizer, every=4, strict=True) as recorder:
        for batch in data[:2]:
            step(model, optimizer, batch, recorder)
        model.raises = fault
        with pytest.raises(type(fault)) as raised:
            model(data[2][0])
        assert raised.value is fault
        model.raises = None
        for twin in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
            assert torch.equal(twin(data[2][0]), twin.layer(data[2][0]))
        model.eval()
        with torch.no_grad():
            model(data[2][0])
        model.train()
        recorder.log(validation_loss=1.0)
        for batch in data[2:9]:
            step(model, optimizer, batch, recorder)
    assert steps(recorder.run.losses) == list(range(9))
    assert steps(recorder.run.activations) == [0, 4, 8]
    assert recorder.run.loop["training_mode"].dropna().to_dict() == {2: 0.0}
    assert hooks_on(model) == [0, 0, 0]


def test_a_watching_that_ends_within_such_a_pass_leaves_nothing():
    model = Raising()
    optimizer, data = sgd(model), programs.batches(8)
    recorder = nndiag.watch(model, optimizer, every=4, strict=True)
    for batch in data[:2]:
        step(model, optimizer, batch, recorder)
    model.layer.register_forward_hook(lambda *_: recorder.close())
    model(data[2][0])
    assert hooks_on(model) == [0, 0, 0]


def test_batches_that_are_given_by_name_are_seen_where_they_are_read():
    class Named(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = torch.nn.Linear(8, 3)

        def forward(self, *, x):
            return self.layer(x)

    model = Named()
    optimizer, data = sgd(model), programs.batches(8)
    with nndiag.watch(model, optimizer, every=4, strict=True) as recorder:
        for x, y in data[:9]:
            loss = F.cross_entropy(model(x=x), y)
            recorder.log(loss=loss)
            loss.backward()
            optimizer.step()
            optimizer.zero_grad()
    assert steps(recorder.run.data) == [0, 4, 8]
    np.testing.assert_allclose(
        recorder.run.data["mean", "input"], [float(data[i][0].mean()) for i in (0, 4, 8)], rtol=1e-5
    )


def test_a_watched_loss_within_the_model_is_heard_at_every_step():
    loss_module = torch.nn.CrossEntropyLoss()

    class Trains(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = torch.nn.Linear(8, 3)

        def forward(self, x, y):
            return loss_module(self.layer(x), y)

    model = Trains()
    optimizer, losses = sgd(model), []
    with nndiag.watch(model, optimizer, loss_module, every=4, strict=True) as recorder:
        for x, y in programs.batches(8)[:9]:
            loss = model(x, y)
            losses.append(loss.item())
            loss.backward()
            optimizer.step()
            optimizer.zero_grad()
    np.testing.assert_allclose(recorder.run.losses["train"], losses)


def test_steps_within_a_call_of_the_model_are_iterations():
    class Steps(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = torch.nn.Linear(8, 3)

        def forward(self, batches, optimizer, recorder):
            for x, y in batches:
                loss = F.cross_entropy(self.layer(x), y)
                recorder.log(loss=loss)
                loss.backward()
                optimizer.step()
                optimizer.zero_grad()

    model = Steps()
    optimizer, data = sgd(model), programs.batches(8)
    with nndiag.watch(model, optimizer, every=4, strict=True) as recorder:
        for start in (0, 3, 6):
            model(data[start : start + 3], optimizer, recorder)
    assert steps(recorder.run.losses) == list(range(9))
    assert steps(recorder.run.activations) == [0, 4, 8]


def test_two_recorders_of_one_model_read_each_at_its_own_steps():
    model = programs.mlp()
    optimizer, data = sgd(model), programs.batches(8)
    with nndiag.watch(model, optimizer, every=2, strict=True) as one, nndiag.watch(model, optimizer, every=3) as other:
        for x, y in data[:7]:
            loss = F.cross_entropy(model(x), y)
            one.log(loss=loss)
            other.log(loss=loss)
            loss.backward()
            optimizer.step()
            optimizer.zero_grad()
    assert steps(one.run.activations) == [0, 2, 4, 6]
    assert steps(other.run.activations) == [0, 3, 6]
    assert one.run.losses.equals(other.run.losses)


def test_an_evaluation_after_such_a_pass_is_one():
    model = programs.mlp()
    optimizer, data = sgd(model), programs.batches(8)
    with nndiag.watch(model, optimizer, every=5, strict=True) as recorder:
        for number, batch in enumerate(data[:8]):
            step(model, optimizer, batch, recorder)
            if number in (2, 6):
                model.train(number == 6)
                with torch.no_grad():
                    recorder.log(validation_loss=F.cross_entropy(model(batch[0]), batch[1]).item())
                model.train()
    assert recorder.run.loop["training_mode"].dropna().to_dict() == {3: 0.0, 7: 1.0}
