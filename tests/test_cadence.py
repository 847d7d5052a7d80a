"""What is not looked at on every step: that nothing is missed, or taken for what it is not, because of it."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest

import nndiag
from nndiag import nn
from nndiag.errors import NndiagError
from nndiag.hooks import (
    ActivationHook,
    DataHook,
    GradientHook,
    LossHook,
    Spacing,
    UpdateHook,
    default_hooks,
    light_hooks,
)
from nndiag.statistics import Array


def data(samples: int = 320, seed: int = 0) -> tuple[Array, Array]:
    rng = np.random.default_rng(seed)
    return rng.standard_normal((samples, 6)).astype(np.float32), rng.integers(3, size=samples)


def trainer(loss: nn.Loss | None = None, outputs: int = 3) -> nn.Trainer:
    return nn.Trainer(nn.MLP([6, 8, outputs]), loss or nn.SoftmaxCrossEntropy(), nn.SGD(lr=0.01))


def test_every_stretch_has_one_step_and_no_place_of_it_is_preferred() -> None:
    spacing = Spacing(10)
    due = [step for step in range(20_000) if spacing.due(step)]

    assert [step // 10 for step in due] == list(range(2000))
    places = Counter(step % 10 for step in due)
    assert min(places.values()) > 150
    for epoch in (2, 5, 10, 15):
        assert len({step % epoch for step in due[5:60]}) == epoch


def test_a_spacing_goes_on_after_training_has_gone_back() -> None:
    spacing = Spacing(10)
    first = [step for step in range(100) if spacing.due(step)]

    assert [step for step in range(100) if spacing.due(step)] == first


def test_looks_are_ten_steps_apart_at_first_and_later_one_to_two_percent_of_the_run() -> None:
    spacing = Spacing("auto", always=50)
    due = np.array([step for step in range(100_000) if spacing.due(step)])

    assert due[:50].tolist() == list(range(50))
    for start, stop, length in ((50, 200, 10), (200, 2000, 20), (2000, 4000, 40), (64_000, 100_000, 1280)):
        inside = due[(due >= start) & (due < stop)]
        assert len(inside) == pytest.approx((stop - start) / length, abs=1)
        assert np.diff(inside).max() < 2 * length


@pytest.mark.parametrize("every", [0, -3, 2.5, "often"])
@pytest.mark.parametrize("hook", [DataHook, ActivationHook, GradientHook, UpdateHook, LossHook])
def test_a_hook_wants_a_number_of_steps(hook: type[nndiag.Hook], every: object) -> None:
    with pytest.raises(ValueError, match="give a number of steps"):
        hook(every)  # type: ignore[call-arg]


@pytest.mark.parametrize("every", [1, 7])
def test_samples_of_the_validation_set_are_found_whatever_the_cadence(every: int) -> None:
    x, y = data(3200)
    held_out = (np.concatenate([x[:20], data(180, seed=1)[0]]), np.concatenate([y[:20], data(180, seed=1)[1]]))
    watched = trainer()
    with nndiag.watch(watched, every=every) as recorder:
        watched.fit(x, y, validation=held_out, epochs=2, batch_size=16)

    assert recorder.run.series("evaluations", "overlap", "validation").iloc[-1] == pytest.approx(0.1)


def test_targets_that_broke_the_loss_are_seen_on_a_step_whose_batch_was_not_looked_at() -> None:
    x, y = data(16)
    real = y.astype(np.float32)[:, None]
    watched = trainer(nn.MSE(), outputs=1)
    recorder = nndiag.watch(watched, every=1)
    looked = Spacing(10, always=50)
    skipped = [step for step in range(80) if not looked.due(step)]
    for step in range(skipped[5] + 1):
        targets = real.copy()
        targets[3] = np.nan if step == skipped[5] else 0.0
        watched.step(x, targets)

    assert recorder.run.data["nonfinite_fraction", "target"][skipped[5]] == pytest.approx(1 / 16)
    assert "ND001" in recorder.check().headlines


def test_reading_goes_on_where_training_goes_back() -> None:
    recorder = nndiag.Recorder(every=10)
    for _ in range(100):
        recorder.activation("h", np.ones((2, 2)))
        recorder.step()
    recorder.start_at(20)
    for _ in range(20):
        recorder.activation("h", np.ones((2, 2)))
        recorder.step()

    assert recorder.run.activations.index.tolist() == [0, 10, 20, 30]


@pytest.mark.parametrize("every", [1, 10, 50])
def test_units_that_speak_seldom_are_not_dead_for_want_of_reads(every: int) -> None:
    recorder = nndiag.Recorder(every=every)
    for epoch in range(10):
        recorder.begin_epoch(epoch)
        for step in range(100):
            speaks = np.zeros((64, 256))
            speaks[np.arange(64), (64 * step + np.arange(64)) % 256] = 1.0
            recorder.activation("h.relu", speaks)
            recorder.log(loss=1.0)
            recorder.step()

    dead = recorder.run.activations["dead_fraction", "h.relu"]
    assert dead.iloc[-1] <= (0.0 if every == 1 else 0.75)
    assert dead.is_monotonic_decreasing or every == 1


def test_micro_batches_have_the_variance_over_inputs_of_the_whole() -> None:
    rng = np.random.default_rng(0)
    whole = rng.standard_normal((64, 5)) * 3 + np.arange(5)
    recorder = nndiag.Recorder(every=1)
    for part in np.split(whole, 4):
        recorder.activation("h", part)
        recorder.activation("h.relu", np.maximum(part, 0))

    row = recorder.run.activations.iloc[0]
    assert row["batch_variance", "h"] == pytest.approx(whole.var(axis=0).mean())
    assert row["batch_variance", "h.relu"] == pytest.approx(np.maximum(whole, 0).var(axis=0).mean())
    assert np.isnan(row["gain", "h"])  # nobody has told what came in


class Projected(nn.SGD):
    """Keeps weights small after every step."""

    def step(self, parameters: list[nn.Parameter]) -> None:  # type: ignore[override]
        super().step(parameters)
        for parameter in parameters:
            parameter.value *= np.float32(0.9)


def test_an_optimiser_that_moves_weights_once_more_is_measured_by_what_it_did() -> None:
    x, y = data(32)
    watched = nn.Trainer(nn.MLP([6, 8, 3]), nn.SoftmaxCrossEntropy(), Projected(lr=0.1))
    recorder = nndiag.watch(watched, every=1)
    moved = []
    for _ in range(5):
        before = watched.model.parameters[0].value.copy()
        watched.step(x, y)
        moved.append(float(np.linalg.norm(watched.model.parameters[0].value - before)))

    np.testing.assert_allclose(recorder.run.updates["update_norm", "hidden1.weight"], moved, rtol=1e-5)


def test_light_hooks_are_not_told_what_they_do_not_look_at() -> None:
    watched = trainer()
    nndiag.watch(watched, hooks=light_hooks(), every=1)

    assert not watched.hooks.listened("on_backward")
    assert not watched.hooks.listened("on_output_gradient")
    assert watched.hooks.listened("on_forward")


def test_a_hook_listens_to_a_loop_once() -> None:
    watched, hook = trainer(), LossHook()
    nndiag.watch(watched, hooks=[hook])

    with pytest.raises(NndiagError, match="listens to this loop already"):
        nndiag.watch(watched, hooks=[hook])


def test_hooks_are_given_as_a_list() -> None:
    with pytest.raises(TypeError, match="wanted a list of hooks"):
        nndiag.watch(trainer(), hooks=light_hooks)  # type: ignore[arg-type]


def test_light_hooks_record_what_the_others_record_of_it() -> None:
    x, y = data()
    runs = []
    for hooks in (default_hooks(), light_hooks()):
        watched = trainer()
        with nndiag.watch(watched, every=1, hooks=hooks) as recorder:
            watched.fit(x, y, batch_size=16)
        runs.append(recorder.run)
    whole, light = runs

    assert set(light.activations.columns.get_level_values(0)) == {"mean", "variance"}
    for frame in ("activations", "gradients"):
        few = getattr(light, frame)
        np.testing.assert_allclose(few, getattr(whole, frame)[few.columns], rtol=1e-5, atol=1e-7)
    assert light.updates.empty
    assert light.outputs.empty


@pytest.mark.parametrize("every", [10, 20, 100, 1000])
def test_what_falls_to_steps_that_are_not_read_falls_to_the_next_that_is(every: int) -> None:
    spacing = Spacing("auto")
    reads = range(0, 50 * every, every)
    looks = [step for step in reads if spacing.due(step)]

    assert max(np.diff(looks)) <= 2 * max(every, 2 * reads[-1] // 100, 20)


def test_reads_further_apart_than_the_spacing_are_all_looks() -> None:
    spacing = Spacing(10)

    assert all(spacing.due(step) for step in range(0, 2_000, 25))
