"""Training with nndiag is bit for bit training without it, and the model is left as it was found."""

from __future__ import annotations

import copy
import gc
import io
import pickle
import subprocess
import sys
import weakref

import numpy as np
import pytest

import nndiag

torch = pytest.importorskip("torch")
pytestmark = pytest.mark.frameworks

from tests.integrations.nndiag_torch import programs  # noqa: E402

OPTIMIZERS = {
    "sgd": lambda p: torch.optim.SGD(p, lr=0.05, momentum=0.9),
    "adamw": lambda p: torch.optim.AdamW(p, lr=1e-3),
}


def trained(name, optimizer, watched, **options):
    torch.manual_seed(0)
    make, width = programs.MODELS[name]
    model = make()
    stepper = OPTIMIZERS[optimizer](model.parameters())
    data = programs.batches(width)
    recorder = nndiag.watch(model, stepper, **options) if watched else None
    losses = programs.train(model, stepper, data, recorder, evaluate=data[0])
    if recorder:
        recorder.close()
    losses += programs.train(model, stepper, data)
    return losses, [p.detach().clone() for p in model.state_dict().values()], torch.get_rng_state()


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize("name", programs.MODELS)
def test_training_is_bit_for_bit_the_same(name, optimizer):
    bare = trained(name, optimizer, watched=False)
    for options in ({"every": 1}, {"every": 3}, {}):
        seen = trained(name, optimizer, watched=True, **options)
        assert seen[0] == bare[0]
        assert all(torch.equal(one, other) for one, other in zip(seen[1], bare[1], strict=True))
        assert torch.equal(seen[2], bare[2])


def test_the_model_and_pytorch_are_as_they_were_found():
    from torch.amp import GradScaler
    from torch.nn.modules import module
    from torch.nn.utils import clip_grad

    model = programs.mlp()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    watched = [*model.modules()]
    before = [dict(one.__dict__) for one in watched], dict(optimizer.__dict__)
    functions = [clip_grad._clip_grads_with_norm_, clip_grad.clip_grad_value_, torch._foreach_clamp_min_]
    functions += [GradScaler.step, GradScaler.scale]
    hooks = len(module._global_forward_hooks)
    with nndiag.watch(model, optimizer, every=1) as recorder:
        assert not any(one._forward_hooks or one._forward_pre_hooks or one._backward_hooks for one in watched)
        assert len(module._global_forward_hooks) == hooks + 1
        recorder.log(accuracy=1.0)
    assert [one.__dict__.keys() for one in watched] == [one.keys() for one in before[0]]
    assert optimizer.__dict__.keys() == before[1].keys()
    assert len(module._global_forward_hooks) == hooks
    assert functions == [
        clip_grad._clip_grads_with_norm_, clip_grad.clip_grad_value_, torch._foreach_clamp_min_, GradScaler.step, GradScaler.scale
    ]  # fmt: skip


def test_a_watched_model_is_saved_copied_and_pickled_as_if_nobody_watched(tmp_path):
    model = programs.mlp()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    data = programs.batches(8)
    with nndiag.watch(model, optimizer, every=1) as recorder:
        programs.train(model, optimizer, data[:2], recorder)
        torch.save(model, tmp_path / "model.pt")
        average = copy.deepcopy(model)
        pickle.loads(pickle.dumps(optimizer))
        buffer = io.BytesIO()
        torch.save(optimizer.state_dict(), buffer)
        before = recorder.run.activations.shape
        average(data[0][0]).sum().backward()  # passes of the copy are nobody's business
        assert recorder.run.activations.shape == before
        programs.train(model, optimizer, data[2:4], recorder)
    saved = str(tmp_path / "model.pt")
    script = f"import sys, torch; sys.modules['nndiag'] = None; print(torch.load({saved!r}, weights_only=False))"
    assert "Linear" in subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout


def test_passes_of_a_copy_are_not_recorded():
    model, data = programs.mlp(), programs.batches(8)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    rows = []
    for copies in (False, True):
        torch.manual_seed(0)
        twin = copy.deepcopy(model)
        optimizer = torch.optim.SGD(twin.parameters(), lr=0.1)
        with nndiag.watch(twin, optimizer, every=1) as recorder:
            average = copy.deepcopy(twin)
            for x, y in data:
                if copies:
                    state = torch.get_rng_state()
                    average(100 * x)
                    torch.set_rng_state(state)
                programs.train(twin, optimizer, [(x, y)], recorder)
        rows.append(recorder.run.activations)
    assert rows[0].equals(rows[1])


@pytest.mark.parametrize("logged", [True, False])
def test_nothing_keeps_an_activation(logged):
    model, (x, y) = programs.Functional(), programs.batches(8)[0]
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    outputs = []
    handle = model.fc2.register_forward_hook(lambda module, args, output: outputs.append(weakref.ref(output)))
    with nndiag.watch(model, optimizer, every=1) as recorder:
        for _ in range(3):
            outputs.append(weakref.ref(out := model(x)))
            loss = torch.nn.functional.cross_entropy(out, y)
            outputs.append(weakref.ref(loss))
            del out
            if logged:
                recorder.log(loss=loss)
            loss.backward()
            optimizer.step()
            optimizer.zero_grad()
            del loss
            gc.collect()
            assert [ref() for ref in outputs if ref() is not None] == []
    handle.remove()


def test_a_hook_on_a_gradient_is_called_in_its_order_among_the_users_own() -> None:
    from nndiag_torch.arrays import on_gradient

    heard: list[str] = []
    x = torch.ones(2, requires_grad=True)
    first, second = 2 * x, 3 * x
    first.register_hook(lambda gradient: heard.append("user before"))
    on_gradient(first, lambda gradient: heard.append("ours"))
    on_gradient(second, lambda gradient: heard.append("ours"))
    removed = second.register_hook(lambda gradient: heard.append("removed"))
    second.register_hook(lambda gradient: heard.append(f"user after {gradient.tolist()}"))
    removed.remove()
    first.sum().backward()
    second.sum().backward()
    assert heard == ["user before", "ours", "ours", "user after [1.0, 1.0]"]
    assert x.grad.tolist() == [5.0, 5.0]


def test_what_an_optimiser_has_subtracted_is_read_without_a_new_entry_in_its_state() -> None:
    model = torch.nn.Sequential(torch.nn.Linear(2, 2), torch.nn.Linear(2, 2))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    with nndiag.watch(model, optimizer, every=1) as recorder:
        for _ in range(2):  # the second layer gets no gradient
            loss = model[0](torch.ones(3, 2)).square().mean()
            recorder.log(loss=loss)
            loss.backward()
            optimizer.step()
            optimizer.zero_grad()
    assert [parameter in optimizer.state for parameter in model.parameters()] == [True, True, False, False]


class Shared(torch.nn.Module):
    """A layer and functions that are called more than once in a pass: tanh and sigmoid, whose slopes are looked at."""

    def __init__(self):
        super().__init__()
        self.shared, self.tanh, self.sigmoid = torch.nn.Linear(6, 6), torch.nn.Tanh(), torch.nn.Sigmoid()
        self.norm, self.head = torch.nn.BatchNorm1d(6), torch.nn.Linear(6, 3)

    def forward(self, x):
        x = self.sigmoid(self.shared(self.tanh(self.shared(x))))
        return self.head(torch.relu(self.norm(self.tanh(self.shared(x)))))


@pytest.mark.parametrize("scale", [1e38, 1e300, 1e-45, 1e-300, float("inf"), float("nan")])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_inputs_at_the_ends_of_what_a_number_can_be_are_no_trouble(optimizer, dtype, scale):
    """Strict, with NumPy set to raise, which it is again afterwards: what happens here is a fact to record."""
    torch.manual_seed(0)
    model = Shared().to(dtype)
    stepper = OPTIMIZERS[optimizer](model.parameters())
    x, y = torch.ones(40, 6, dtype=dtype), torch.arange(40) % 3
    x[::3] *= scale
    with np.errstate(all="raise"), nndiag.watch(model, stepper, every=1, strict=True) as recorder:
        programs.train(model, stepper, [(x, y)] * 4, recorder)
        recorder.check()
        assert set(np.geterr().values()) == {"raise"}
    assert recorder.run.steps == 4
