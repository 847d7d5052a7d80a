"""A trainer that is copied or pickled while it is watched: the copy trains alone, and the record is the original's."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from programs import every_layer, fit, state

import nndiag
from nndiag import nn
from nndiag.exporters import TensorBoard
from nndiag.frames import FRAMES
from nndiag.hooks import Hook, default_hooks

COPIES: dict[str, Callable[[nn.Trainer], nn.Trainer]] = {
    "deepcopy": copy.deepcopy,
    "pickle": lambda trainer: pickle.loads(pickle.dumps(trainer)),
    "inside another": lambda trainer: copy.deepcopy({"best": trainer})["best"],
}


@pytest.mark.parametrize("exported", [False, True], ids=["", "exported"])
@pytest.mark.parametrize("stored", [False, True], ids=["in memory", "in a folder"])
@pytest.mark.parametrize("way", COPIES)
def test_a_copy_of_a_watched_trainer_trains_alone(way: str, stored: bool, exported: bool, tmp_path: Path) -> None:
    alone, watched = every_layer(), every_layer()
    with nndiag.watch(watched, run=tmp_path / "run" if stored else None, every=1, strict=True) as recorder:
        if exported:
            recorder.add_exporter(TensorBoard(tmp_path / "logs"))
        fit(watched)
        copied = COPIES[way](watched)
        fit(copied)
        recorder.flush()
        before = {frame: getattr(recorder.run, frame) for frame in FRAMES}
        fit(copied)
        assert all(getattr(recorder.run, frame).equals(before[frame]) for frame in FRAMES)
        fit(watched, 4)

    fit(alone, 6)
    assert state(watched) == state(alone)
    assert state(copied) == state(alone)
    assert recorder.run.steps == 24
    if stored:
        assert nndiag.open_run(tmp_path / "run").steps == 24
    assert not len(copied.hooks)


@pytest.mark.parametrize("way", COPIES)
def test_a_copy_can_be_watched_itself(way: str) -> None:
    watched = every_layer()
    with nndiag.watch(watched, every=1, strict=True) as recorder:
        copied = COPIES[way](watched)
        with nndiag.watch(copied, every=1, strict=True) as other:
            fit(copied)
        fit(watched)

    for frame in FRAMES:
        assert getattr(recorder.run, frame).equals(getattr(other.run, frame))


def test_a_copy_in_the_middle_of_a_step_is_no_trouble() -> None:
    """What keeps the best model so far: a copy made within an event."""

    class Keeps(Hook):
        def on_train_begin(self, loop: nn.Trainer) -> None:
            self.loop = loop
            self.best: list[nn.Trainer] = []

        def on_epoch_end(self, epoch: int) -> None:
            self.best.append(copy.deepcopy(self.loop))

    alone, watched, keeps = every_layer(), every_layer(), Keeps()
    with nndiag.watch(watched, hooks=[*default_hooks(), keeps], every=1, strict=True) as recorder:
        fit(watched, 3)
    fit(alone, 3)

    assert state(watched) == state(alone)
    assert len(keeps.best) == 3
    assert recorder.run.steps == 12


@pytest.mark.parametrize("hook", default_hooks(), ids=lambda hook: type(hook).__name__)
def test_a_model_whose_trainer_is_watched_is_copied_as_ever(hook: Hook) -> None:
    watched = every_layer()
    hook.attach(watched)
    fit(watched)
    model = pickle.loads(pickle.dumps(copy.deepcopy(watched.model)))

    for a, b in zip(model.parameters, watched.model.parameters, strict=True):
        np.testing.assert_array_equal(a.value, b.value)
