"""What is measured on a device: the same numbers as on the CPU, without a wait for the device; forced here on CPU tensors."""

from __future__ import annotations

import contextlib

import numpy as np
import pandas as pd
import pytest

import nndiag
from nndiag.hooks import ActivationHook, HistogramHook, default_hooks, light_hooks
from nndiag.meters import STEADY

torch = pytest.importorskip("torch")
pytestmark = pytest.mark.frameworks

from torch import nn  # noqa: E402
from torch.utils._python_dispatch import TorchDispatchMode  # noqa: E402

from nndiag_torch import device, measure, tape  # noqa: E402
from nndiag_torch.loop import TorchLoop  # noqa: E402
from tests.integrations.nndiag_torch import programs, test_torch_contract, test_undisturbed  # noqa: E402

CE = nn.CrossEntropyLoss()
FRAMES = (
    "activations", "gradients", "updates", "losses", "metrics", "evaluations", "data", "outputs", "histograms", "loop",
)  # fmt: skip


@pytest.fixture(autouse=True)
def _deferred(monkeypatch):
    monkeypatch.setattr(TorchLoop, "deferred", True)
    torch.manual_seed(0)


def record(make, width, *, hooks=None, steps=6, every=1, batch=16, classes=3, clip=None):
    """The run of a training that begins the same each time."""
    torch.manual_seed(0)
    model = make()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    data = programs.batches(width, count=steps, size=batch, classes=classes)
    with nndiag.watch(model, optimizer, every=every, strict=True, hooks=hooks and hooks()) as recorder:
        programs.train(model, optimizer, data, recorder, clip=clip)
    return recorder.run


def at_once(monkeypatch, *args, **options):
    with monkeypatch.context() as patch:
        patch.setattr(TorchLoop, "deferred", False)
        return record(*args, **options)


def same(wanted, seen, frames=FRAMES, rtol=1e-5, atol=1e-7):
    for name in frames:
        one, other = wanted.frame(name), seen.frame(name)
        assert set(one.columns) == set(other.columns), name
        other = other[one.columns].where(one.notna())  # where one looks at extremes now and then, the other may at each
        pd.testing.assert_frame_equal(one, other, rtol=rtol, atol=atol, obj=name)


@pytest.mark.parametrize(("activation", "task"), [("relu", "classes"), ("tanh", "real"), ("sigmoid", "real")])
def test_the_frames_are_those_of_the_numpy_trainer(activation, task):
    wanted, _ = test_torch_contract.numpy_run(activation, task, 0.9)
    seen = test_torch_contract.torch_run(activation, task, 0.9)
    exact = [name for name in FRAMES[:-1] if name != "updates"]
    same(wanted, seen, exact, rtol=1e-6, atol=1e-9)
    norms, others = wanted.updates, seen.updates[wanted.updates.columns]
    for statistic in ("update_norm", "descent"):
        known = norms[statistic].notna()
        pd.testing.assert_frame_equal(norms[statistic], others[statistic].where(known), rtol=1e-6, atol=1e-9)
    pd.testing.assert_frame_equal(norms.loc[:49], others.loc[:49], rtol=1e-6, atol=1e-9)
    for statistic in ("weight_norm", "ratio"):  # the trainer keeps the norms of weights that have hardly moved
        pd.testing.assert_frame_equal(norms[statistic], others[statistic], rtol=STEADY / (1 - STEADY), atol=0)


@pytest.mark.parametrize("name", programs.MODELS)
def test_the_numbers_in_float32_are_those_of_the_cpu(name, monkeypatch):
    make, width = programs.MODELS[name]
    same(at_once(monkeypatch, make, width), record(make, width))


def test_norms_after_clipping(monkeypatch):
    wanted = at_once(monkeypatch, programs.mlp, 8, clip=1e-2)
    seen = record(programs.mlp, 8, clip=1e-2)
    same(wanted, seen, ("gradients",))
    together = (seen.statistic("gradients", "clipped_norm") ** 2).sum(axis=1) ** 0.5
    assert together.to_numpy() == pytest.approx([1e-2] * 6, rel=1e-4)


def test_light_hooks(monkeypatch):
    same(
        at_once(monkeypatch, programs.mlp, 8, hooks=light_hooks),
        record(programs.mlp, 8, hooks=light_hooks),
        ("activations", "gradients", "losses"),
    )


def test_histograms_are_those_of_the_steps_that_want_them(monkeypatch):
    hooks = lambda: [*default_hooks()[:-1], HistogramHook(every=4)]  # noqa: E731
    wanted = at_once(monkeypatch, programs.mlp, 8, hooks=hooks, steps=20)
    seen = record(programs.mlp, 8, hooks=hooks, steps=20)
    assert list(seen.histograms.index) == list(wanted.histograms.index)
    same(wanted, seen, ("histograms",))


@pytest.mark.parametrize("every", [3, "auto"])
def test_the_steps_that_are_read_are_those_that_the_cadence_had(every, monkeypatch):
    wanted = at_once(monkeypatch, programs.mlp, 8, every=3, steps=40)
    seen = record(programs.mlp, 8, every=every, steps=40)
    reads = seen.activations["mean"].dropna(how="all").index
    assert list(reads) == (list(range(0, 40, 3)) if every == 3 else list(range(40)))
    pd.testing.assert_frame_equal(wanted.losses, seen.losses, rtol=1e-6)
    if every == 3:
        same(wanted, seen)


@pytest.mark.parametrize("name", programs.MODELS)
def test_training_is_bit_for_bit_the_same(name):
    bare = test_undisturbed.trained(name, "adamw", watched=False)
    seen = test_undisturbed.trained(name, "adamw", watched=True, every=2)
    assert seen[0] == bare[0]
    assert all(torch.equal(one, other) for one, other in zip(seen[1], bare[1], strict=True))
    assert torch.equal(seen[2], bare[2])


# The measures


def output(rows, kind="affine"):
    parts = measure.chunks(rows)
    return measure.as_output([(len(part), measure.output(part).numpy()) for part in parts], kind)


@pytest.mark.parametrize("chunk", [1 << 24, 1000])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_outputs_in_one_chunk_or_many(dtype, chunk, monkeypatch):
    monkeypatch.setattr(measure, "CHUNK", chunk)
    rows = (torch.randn(300, 40) * 2 + 1).relu().to(dtype)
    rows[:, 3] = 0
    exact = rows.double().numpy()
    seen = output(rows)
    assert seen.summary.mean == pytest.approx(exact.mean(), rel=1e-6)
    assert seen.summary.variance == pytest.approx(exact.var(), rel=1e-5)
    assert seen.within == pytest.approx(exact.var(axis=0).mean(), rel=1e-5)
    assert (seen.summary.min, seen.summary.max) == (exact.min(), exact.max())
    assert seen.summary.zeros == np.count_nonzero(exact == 0)
    assert np.flatnonzero(seen.silent).tolist() == [3]
    np.testing.assert_allclose(seen.sums, exact.sum(axis=0), rtol=1e-6)


def test_a_large_mean_in_float32_keeps_its_digits():
    rows = torch.randn(4096, 64) + 1e4
    exact = rows.double().numpy()
    seen = output(rows)
    assert seen.summary.mean == pytest.approx(exact.mean(), rel=1e-8)
    assert seen.summary.variance == pytest.approx(exact.var(), rel=1e-5)
    assert seen.within == pytest.approx(exact.var(axis=0).mean(), rel=1e-5)


@pytest.mark.parametrize("positive", [False, True])
def test_values_that_are_not_finite_are_counted_and_left_out(positive):
    rows = torch.randn(200, 8)
    rows = rows.abs() + 1 if positive else rows
    rows[3, 1], rows[5, 2], rows[7, 2] = torch.nan, torch.inf, -torch.inf
    finite = rows[rows.isfinite()].double().numpy()
    seen = output(rows).summary
    assert (seen.count, seen.nonfinite, seen.zeros) == (1597, 3, 0)
    assert seen.mean == pytest.approx(finite.mean(), rel=1e-5)
    assert seen.variance == pytest.approx(finite.var(), rel=1e-5)
    assert seen.max == finite.max()
    assert np.isnan(seen.min) if positive else seen.min == finite.min()
    gradient = measure.as_magnitude(measure.magnitude(rows.reshape(-1)).numpy(), 1600)
    assert gradient.norm == pytest.approx(np.linalg.norm(finite), rel=1e-5)
    assert (gradient.count, gradient.nonfinite) == (1597, 3)
    assert gradient.largest == np.abs(finite).max()


@pytest.mark.parametrize("scale", [1e-38, 1e-25, 1.0, 1e30])
def test_magnitudes_of_any_size(scale):
    values = torch.randn(10_000) * scale
    seen = measure.as_magnitude(measure.magnitude(values).numpy(), 10_000)
    assert seen.norm == pytest.approx(np.linalg.norm(values.double().numpy()), rel=1e-5)


def test_nothing_but_zeros_and_nothing_finite():
    zeros = measure.as_magnitude(measure.magnitude(torch.zeros(5)).numpy(), 5)
    assert (zeros.norm, zeros.zeros, zeros.nonfinite) == (0, 5, 0)
    broken = measure.as_magnitude(measure.magnitude(torch.full((5,), torch.nan)).numpy(), 5)
    assert (broken.count, broken.nonfinite) == (0, 5)
    assert output(torch.full((5, 2), torch.nan)).summary.nonfinite == 10


def test_identical_rows():
    rows = torch.ones(4, 6) * torch.arange(6)
    assert measure.same_rows(measure.rows_apart(rows).numpy(), 1e-6)
    rows[3, 2] += 1e-3
    assert not measure.same_rows(measure.rows_apart(rows).numpy(), 1e-6)


def test_equal_weights_beside_different_gradients(monkeypatch):
    def zero_head():
        model = nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 3))
        nn.init.zeros_(model[2].weight)
        return model

    wanted, seen = at_once(monkeypatch, zero_head, 8), record(zero_head, 8)

    assert wanted.gradients["identical_rows", "2.weight"].iloc[0] == 0.5
    same(wanted, seen, ("gradients",))


def test_updates_of_large_models_are_measured_on_a_part(monkeypatch):
    whole = record(lambda: nn.Linear(400, 300), 400, classes=300).updates
    monkeypatch.setattr(device, "COPIED", 100_000)
    part = record(lambda: nn.Linear(400, 300), 400, classes=300).updates
    np.testing.assert_allclose(part["ratio", "weight"], whole["ratio", "weight"], rtol=0.03)
    assert set(part["descent", "weight"]) == {1.0}


def test_of_large_batches_a_sample_is_looked_at(monkeypatch):
    whole = record(programs.mlp, 8, batch=64)
    monkeypatch.setattr(device, "SAMPLE", 400)
    seen = record(programs.mlp, 8, batch=64)
    for column in [
        ("rows", "outputs"),
        ("gradient_sum", "outputs"),
        ("gradient_mass", "outputs"),
        ("width", "outputs"),
    ]:
        np.testing.assert_allclose(seen.outputs[column], whole.outputs[column], rtol=1e-5)
    assert seen.data["samples", "input"].tolist() == whole.data["samples", "input"].tolist()
    assert seen.data["mean", "input"].tolist() != whole.data["mean", "input"].tolist()
    assert seen.outputs["squared_error"].isna().all().all()


@pytest.mark.parametrize(
    ("shape", "channels", "wanted"),
    [
        ((64, 10), False, (16, 10)),
        ((8, 32, 10), False, (2, 8, 10)),
        ((8, 10, 6, 6), True, (2, 10, 2, 3)),
        ((3,), False, (3,)),
    ],
)
def test_samples_are_thinned_along_the_batch_first(shape, channels, wanted):
    tensor = torch.zeros(shape)
    assert tuple(tensor[measure.thinned(tensor, 640, channels=channels)].shape) == wanted


def test_targets_of_a_sample_are_those_of_its_outputs(monkeypatch):
    monkeypatch.setattr(device, "SAMPLE", 2000)
    told = []

    class Pairs(ActivationHook):
        def on_loss(self, outputs, targets, loss):
            told.append((outputs, targets))

    Pairs.__module__ = "nndiag.hooks"

    class Dense(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = nn.Conv2d(1, 5, 1)

        def forward(self, x):
            return self.conv(x)

    model = Dense()
    x = torch.arange(16.0).reshape(16, 1, 1, 1).expand(16, 1, 6, 7) + torch.arange(7.0) / 10
    with torch.no_grad():
        model.conv.weight.fill_(1.0)
        model.conv.bias.zero_()
    targets = (10 * x[:, 0]).round().long() % 5
    with nndiag.watch(model, every=1, strict=True, hooks=[Pairs()]) as recorder:
        outputs = model(x)
        recorder.log(loss=CE(outputs, targets), outputs=outputs, targets=targets)
    ((outputs, ids),) = told
    assert outputs.nbytes <= 2000
    assert ids.shape == (outputs.shape[0], *outputs.shape[2:])
    np.testing.assert_array_equal((10 * outputs[:, 0]).round() % 5, ids)


# Nothing waits


class NoWait(TorchDispatchMode):
    """Raises on everything that would wait for a GPU, and so does what reads values from Python."""

    FORBIDDEN = ("_local_scalar_dense", "nonzero", "is_nonzero", "equal", "item", "unique", "masked_select")

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        name = function._schema.name.removeprefix("aten::").removesuffix(".default")
        assert name not in self.FORBIDDEN, f"{name} waits for the device"
        if name == "_to_copy":
            assert (kwargs or {}).get("device") is None, "a copy to another device"
        return function(*args, **(kwargs or {}))


@contextlib.contextmanager
def nothing_waits(monkeypatch):
    """Values of tensors may only be read where a parcel has arrived."""
    allowed = []

    def guarded(owner, name):
        original = getattr(owner, name)

        def read(self, *args, **kwargs):
            assert allowed, f"{name} waits for the device"
            return original(self, *args, **kwargs)

        patch.setattr(owner, name, read)

    def arriving(name):
        original = getattr(tape.Tape, name)

        def arrives(self, *args, **kwargs):
            allowed.append(1)
            try:
                return original(self, *args, **kwargs)
            finally:
                allowed.pop()

        patch.setattr(tape.Tape, name, arrives)

    with monkeypatch.context() as patch:
        for name in ("numpy", "tolist", "item", "__bool__", "__float__", "__int__", "cpu", "__array__"):
            guarded(torch.Tensor, name)
        arriving("send")
        arriving("play")
        with NoWait():
            yield


@pytest.mark.parametrize("name", programs.MODELS)
def test_nothing_waits_for_the_device(name, monkeypatch):
    make, width = programs.MODELS[name]
    model = make()
    optimizer = torch.optim.AdamW(model.parameters(), lr=torch.tensor(1e-2), fused=True)
    data = programs.batches(width, count=20)
    scaler = torch.amp.GradScaler("cpu", init_scale=8.0)
    with nndiag.watch(model, optimizer, every=2, strict=True) as recorder:
        programs.train(model, optimizer, data[:2], recorder)  # by then it is described what the loop consists of
        with nothing_waits(monkeypatch):
            for x, y in data[2:]:
                loss = CE(model(x), y)
                recorder.log(loss=loss, accuracy=(loss.detach() < 1).float())
                scaler.scale(loss).backward()
                nn.utils.clip_grad_norm_(model.parameters(), 1.0)
                optimizer.step()
                optimizer.zero_grad()
        assert 0 < recorder.step_number < 20
        assert recorder.run.steps == 20
        assert recorder.step_number == 19  # the last iteration is open for what is logged late
    run = recorder.run
    assert run.activations["mean"].dropna(how="all").index.tolist() == list(range(0, 20, 2))
    assert run.losses["train"].notna().all()
    assert run.metrics["accuracy", "train"].iloc[2:].notna().all()


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_cuda_itself_sees_nothing_wait(monkeypatch):
    monkeypatch.setattr(TorchLoop, "deferred", None)
    model = programs.Transformer().cuda()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    data = [(x.cuda(), y.cuda()) for x, y in programs.batches(40, count=40)]
    with nndiag.watch(model, optimizer, every=1, strict=True) as recorder:
        losses = []
        torch.cuda.set_sync_debug_mode("error")
        try:
            for x, y in data:
                with torch.autocast("cuda", torch.bfloat16):
                    loss = CE(model(x), y)
                recorder.log(loss=loss)
                loss.backward()
                optimizer.step()
                optimizer.zero_grad()
                losses.append(loss.detach())
        finally:
            torch.cuda.set_sync_debug_mode("default")
    np.testing.assert_allclose(recorder.run.losses["train"], [loss.item() for loss in losses], rtol=1e-4)
    assert recorder.run.activations["gradient_rms"].notna().all().all()


# What is told when


def test_numbers_and_validations_belong_to_their_steps(monkeypatch):
    def run():
        torch.manual_seed(0)
        model = programs.mlp()
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        data = programs.batches(8, count=30)
        with nndiag.watch(model, optimizer, every=1, strict=True) as recorder:
            for number, (x, y) in enumerate(data):
                if number % 10 == 0:
                    recorder.begin_epoch(number // 10)
                programs.train(model, optimizer, [(x, y)], recorder)
                recorder.log(number=number)
                if number % 7 == 6:
                    with torch.no_grad():
                        recorder.log(validation_loss=CE(model(x), y), validation_number=number)
        return recorder.run

    seen = run()
    with monkeypatch.context() as patch:
        patch.setattr(TorchLoop, "deferred", False)
        wanted = run()
    same(wanted, seen)
    assert seen.metrics["number", "train"].tolist() == list(range(30))


def test_a_loss_that_is_not_finite_is_noticed():
    model, data = programs.mlp(), programs.batches(8, count=30)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with nndiag.watch(model, optimizer, every=5, strict=True) as recorder:
        for number, (x, y) in enumerate(data):
            programs.train(model, optimizer, [(x * torch.inf if number == 7 else x, y)], recorder)
    assert recorder.run.meta.first_nonfinite["step"] == 7


@pytest.mark.parametrize("half", ["output", "as_output"])  # on the device, on the host
def test_what_fails_is_switched_off_and_training_goes_on(half, monkeypatch, caplog):
    def fails(*args):
        raise RuntimeError("out of memory")

    monkeypatch.setattr(measure, half, fails)
    model, data = programs.mlp(), programs.batches(8)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with nndiag.watch(model, optimizer, every=1) as recorder:
        programs.train(model, optimizer, data, recorder)
    run = recorder.run
    assert run.steps == len(data)
    assert [fault["lost"] for fault in run.meta.faults] == [["activations"]]
    assert run.gradients["norm"].notna().all().all()
    assert caplog.text.count("switched off") == 1


def test_a_run_folder_holds_everything(tmp_path):
    model, data = programs.mlp(), programs.batches(8, count=20)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with nndiag.watch(model, optimizer, run=tmp_path / "run", every=1, strict=True) as recorder:
        programs.train(model, optimizer, data, recorder)
        recorder.flush()
        assert nndiag.open_run(tmp_path / "run").steps == 19
    assert nndiag.open_run(tmp_path / "run").steps == 20


def test_memory_on_the_device_is_bounded(monkeypatch):
    monkeypatch.setattr(tape, "BYTES", 20_000)
    waiting = []
    original = tape.Tape.add

    def add(self, *args):
        original(self, *args)
        waiting.append(self._waiting)

    monkeypatch.setattr(tape.Tape, "add", add)
    seen = record(programs.Transformer, 40, steps=5)
    assert 10_000 < max(waiting) <= 20_000
    monkeypatch.undo()
    monkeypatch.setattr(TorchLoop, "deferred", True)
    same(record(programs.Transformer, 40, steps=5), seen)


def test_another_hook_gets_its_arrays_at_once(monkeypatch, caplog):
    seen = []

    class Mine(nndiag.Hook):
        def on_forward(self, layer, x, output):
            seen.append(output)

    monkeypatch.setattr(TorchLoop, "deferred", None)
    model = programs.mlp()
    with nndiag.watch(model, hooks=[Mine()], every=1, strict=True):
        model(torch.ones(4, 8))
    assert isinstance(seen[0], np.ndarray)
