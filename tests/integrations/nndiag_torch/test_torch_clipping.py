"""Clipping and the scale of mixed precision in PyTorch loops: what is told of them, and norms before and after."""

from __future__ import annotations

import math

import numpy as np
import pytest

import nndiag

torch = pytest.importorskip("torch")
pytestmark = pytest.mark.frameworks

from torch import nn  # noqa: E402
from torch.nn.utils import clip_grad_norm_, clip_grad_value_  # noqa: E402

from tests.integrations.nndiag_torch import programs  # noqa: E402

CE = nn.CrossEntropyLoss()


@pytest.fixture(autouse=True)
def _seeded():
    torch.manual_seed(0)


def watched(model, optimizer=None, **options):
    return nndiag.watch(model, optimizer, every=1, strict=True, **options)


def sgd(model, lr=0.1, **settings):
    return torch.optim.SGD(model.parameters(), lr=lr, **settings)


def close(seen, wanted):
    return seen == pytest.approx(float(torch.as_tensor(wanted).detach()), rel=1e-4, abs=1e-7)


@pytest.mark.parametrize("imported", [True, False], ids=["by name", "by module"])
@pytest.mark.parametrize("how", ["norm", "value"])
def test_clipping_is_seen_and_norms_are_of_before_and_after(how, imported):
    model, (x, y) = programs.mlp(), programs.batches(8)[0]
    optimizer = sgd(model, lr=1.0)
    with watched(model, optimizer) as recorder:
        loss = CE(model(x), y)
        recorder.log(loss=loss)
        loss.backward()
        norm = model[0].weight.grad.norm().clone()
        if how == "norm":
            (clip_grad_norm_ if imported else nn.utils.clip_grad_norm_)(model.parameters(), 1e-3)
        else:
            (clip_grad_value_ if imported else nn.utils.clip_grad_value_)(model.parameters(), 1e-5)
        clipped = model[0].weight.grad.norm().clone()
        optimizer.step()
    run = recorder.run
    assert clipped < norm / 2
    assert close(run.gradients["norm", "0.weight"].iloc[0], norm)
    assert close(run.gradients["clipped_norm", "0.weight"].iloc[0], clipped)
    assert close(run.updates["update_norm", "0.weight"].iloc[0], clipped)
    assert run.meta.clipping["gradients"] == "before"
    assert run.meta.clipping["max_norm" if how == "norm" else "value"] == (1e-3 if how == "norm" else 1e-5)


def test_of_parts_that_are_clipped_alone_the_others_have_no_norm_after_it():
    model, (x, y) = programs.mlp(), programs.batches(8)[0]
    optimizer = sgd(model, lr=1.0)
    with watched(model, optimizer) as recorder:
        for limit in (1e-3, None):
            optimizer.zero_grad()
            CE(model(x), y).backward()
            if limit:
                clip_grad_norm_(model[0].parameters(), limit)
            optimizer.step()
    left = recorder.run.gradients["clipped_norm"]
    assert close((left.iloc[0] ** 2).sum() ** 0.5, 1e-3)
    assert list(left.columns) == ["0.weight", "0.bias"]
    assert left.iloc[1].isna().all()


@pytest.mark.parametrize("told", [True, False])
@pytest.mark.parametrize("unscales", [True, False])
def test_norms_before_and_after_clipping_are_without_the_scale(unscales, told):
    model, (x, y) = programs.mlp(), programs.batches(8)[0]
    optimizer, scaler = sgd(model, lr=1.0), torch.amp.GradScaler("cpu", init_scale=1024.0)
    with watched(model, optimizer if told else None) as recorder:
        scaler.scale(CE(model(x), y)).backward()
        norm = model[0].weight.grad.norm() / 1024
        if unscales:
            scaler.unscale_(optimizer)
        clip_grad_norm_(model.parameters(), 1e-3)
        clipped = model[0].weight.grad.norm() / (1 if unscales else 1024)
        scaler.step(optimizer)
    run = recorder.run
    assert close(run.gradients["norm", "0.weight"].iloc[0], norm)
    assert close(run.gradients["clipped_norm", "0.weight"].iloc[0], clipped)
    assert run.meta.clipping.get("scaled", False) is not unscales


@pytest.mark.parametrize("to_none", [True, False])
@pytest.mark.parametrize(
    ("order", "told"),
    [("zero clip forward backward step", "cleared"), ("forward zero clip backward step", "cleared"),
     ("zero forward backward clip step", "before"), ("forward backward clip step zero", "before")],
)  # fmt: skip
def test_clipping_before_the_backward_pass_is_told_and_norms_are_those_of_the_step(order, told, to_none):
    model, (x, y) = programs.mlp(), programs.batches(8)[0]
    optimizer, norms, losses = sgd(model, lr=0.01), [], []
    with watched(model, optimizer) as recorder:
        for _ in range(8):
            for part in order.split():
                if part == "forward":
                    losses.append(CE(model(x), y))
                elif part == "backward":
                    losses[-1].backward()
                    norms.append(float(model[0].weight.grad.norm()))
                elif part == "clip":
                    nn.utils.clip_grad_norm_(model.parameters(), 1e6)
                elif part == "zero":
                    optimizer.zero_grad(set_to_none=to_none)
                else:
                    optimizer.step()
    assert recorder.run.meta.clipping == {"max_norm": 1e6, "gradients": told}
    assert recorder.run.gradients["norm", "0.weight"].to_numpy() == pytest.approx(norms, rel=1e-4)


@pytest.mark.parametrize(("steps", "told"), [(4, None), (5, "cleared")])
def test_five_iterations_show_that_there_is_nothing_to_clip(steps, told):
    model = programs.mlp()
    optimizer = sgd(model, lr=0.01)
    with watched(model, optimizer) as recorder:
        for x, y in programs.batches(8, steps):
            optimizer.zero_grad()
            nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            CE(model(x), y).backward()
            optimizer.step()
    clipping = recorder.run.meta.clipping or {}
    assert (clipping.get("gradients") if clipping.get("max_norm") else None) == told


@pytest.mark.parametrize("fused", [False, True])
def test_scaled_gradients_are_recorded_without_the_scale_and_skipped_steps_too(fused):
    data = programs.batches(8)
    frames = {}
    for scaled in (False, True):
        torch.manual_seed(0)
        model = nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 3))
        optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, fused=fused)
        scaler = torch.amp.GradScaler("cpu", init_scale=1024.0, enabled=scaled)
        with watched(model, optimizer) as recorder:
            for number, (x, y) in enumerate(data):
                loss = CE(model(x), y)
                recorder.log(loss=loss)
                scaler.scale(loss).backward()
                if number == 5 and scaled:
                    model[0].weight.grad[0, 0] = math.inf
                scaler.step(optimizer)
                scaler.update()
                optimizer.zero_grad()
        frames[scaled] = recorder.run
    bare, seen = frames[False], frames[True]
    assert seen.steps == bare.steps == 12
    np.testing.assert_allclose(seen.gradients["norm"].iloc[:5], bare.gradients["norm"].iloc[:5], rtol=1e-4)
    np.testing.assert_allclose(
        seen.activations["gradient_rms"].iloc[:5], bare.activations["gradient_rms"].iloc[:5], rtol=1e-4
    )
    assert seen.gradients["nonfinite", "0.weight"].iloc[5] == 1
    skipped = seen.frame("loop")["skipped_updates"].to_numpy().ravel()
    assert np.flatnonzero(skipped).tolist() == [5]
    assert seen.frame("loop")["loss_scale"].to_numpy().ravel()[0] == 1024


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_clipping_that_is_compiled_is_left_to_the_compiler():
    from torch._dynamo.testing import CompileCounter

    model, (x, y), counter = programs.mlp(), programs.batches(8)[0], CompileCounter()

    @torch.compile(backend=counter, fullgraph=True)
    def clip(gradients, parameters):
        clip_grad_norm_(parameters, 0.3)
        torch._foreach_clamp_min_(gradients, -1.0)

    with watched(model, sgd(model, lr=0.1)):
        CE(model(x), y).backward()
        clip([p.grad for p in model.parameters()], list(model.parameters()))
    assert counter.frame_count == 1
    assert sum(float(p.grad.norm()) ** 2 for p in model.parameters()) ** 0.5 <= 0.3001


@pytest.mark.parametrize("late", [True, False])
def test_clipping_after_the_step_is_told(late):
    model = programs.mlp()
    optimizer = sgd(model, lr=0.1)
    with watched(model, optimizer) as recorder:
        for x, y in programs.batches(8, 8):
            optimizer.zero_grad()
            CE(model(x), y).backward()
            if not late:
                clip_grad_norm_(model.parameters(), 1e-4)
            optimizer.step()
            if late:
                clip_grad_norm_(model.parameters(), 1e-4)
    assert recorder.run.meta.clipping == {"max_norm": 1e-4, "gradients": "used" if late else "before"}


def test_of_two_optimisers_each_has_its_scale_taken_off_by_itself():
    model, (x, y) = programs.mlp(), programs.batches(8)[0]
    first, rest = sgd(model[0], lr=0.1), sgd(model[1:], lr=0.1)
    scaler = torch.amp.GradScaler("cpu", init_scale=1024.0)
    with watched(model, [first, rest]) as recorder:
        scaler.scale(CE(model(x), y)).backward()
        norms = {name: float(p.grad.norm()) / 1024 for name, p in model.named_parameters()}
        scaler.unscale_(first)
        clip_grad_norm_(model[0].parameters(), 0.05)
        scaler.step(first)
        clip_grad_norm_(model[1:].parameters(), 0.05 * 1024)
        scaler.step(rest)
    assert recorder.run.gradients["norm"].iloc[0].to_dict() == pytest.approx(norms, rel=1e-4)


def test_clipping_at_each_micro_batch_keeps_the_norms_of_the_last():
    model, optimizer = (made := programs.mlp()), sgd(made, lr=0.1)
    with watched(model, optimizer) as recorder:
        for x, y in programs.batches(8, 4):
            CE(model(x), y).div(4).backward()
            norm = float(model[0].weight.grad.norm())
            clip_grad_norm_(model.parameters(), 0.05)
        left = float(model[0].weight.grad.norm())
        optimizer.step()
    run = recorder.run
    assert close(run.gradients["norm", "0.weight"].iloc[0], norm)
    assert close(run.gradients["clipped_norm", "0.weight"].iloc[0], left)


@pytest.mark.parametrize("steps", [4, 5])
def test_a_step_past_the_scaler_is_told(steps):
    model = programs.mlp()
    optimizer, scaler = sgd(model, lr=1e-4), torch.amp.GradScaler("cpu", init_scale=64.0)
    with watched(model, optimizer) as recorder:
        for x, y in programs.batches(8, steps):
            optimizer.zero_grad()
            scaler.scale(CE(model(x), y)).backward()
            clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
    run = recorder.run
    assert run.meta.optimizer.get("scaled", False) is (steps == 5)
    assert (run.statistic("gradients", "clipped_norm") <= run.statistic("gradients", "norm") * (1 + 1e-5)).all(
        axis=None
    )


@pytest.mark.parametrize("when", ["cleared", "used"])
def test_what_is_known_of_clipping_stays_when_more_is_told(when):
    model = programs.mlp()
    optimizer = sgd(model)
    with watched(model, optimizer) as recorder:
        for number, (x, y) in enumerate(programs.batches(8, 8)):
            optimizer.zero_grad()
            if when == "cleared":
                clip_grad_norm_(model.parameters(), 1.0)
            CE(model(x), y).backward()
            optimizer.step()
            if when == "used":
                clip_grad_norm_(model.parameters(), 1.0)
            if number == 6:
                recorder.describe(loss={"class_weights": [1.0, 1.0, 2.0]})
    assert recorder.run.meta.clipping == {"max_norm": 1.0, "gradients": when}
