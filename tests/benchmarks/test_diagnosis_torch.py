"""The fault matrix in PyTorch: what there is, what is held out, that every program runs, and that one goes through."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("sklearn")
pytestmark = pytest.mark.frameworks

import nndiag  # noqa: E402
from benchmarks.diagnosis import split  # noqa: E402
from benchmarks.diagnosis.harm import SOUND_SEEDS  # noqa: E402
from benchmarks.diagnosis_torch import __main__ as command  # noqa: E402
from benchmarks.diagnosis_torch import gate, harm, loops, zoo  # noqa: E402
from benchmarks.diagnosis_torch.bases import BASES  # noqa: E402
from benchmarks.diagnosis_torch.faults import FAULTS, pairs  # noqa: E402
from benchmarks.diagnosis_torch.measure import Job, jobs, measure  # noqa: E402
from benchmarks.diagnosis_torch.programs import Program, Slices, train  # noqa: E402
from benchmarks.diagnosis_torch.zoo import ZOO  # noqa: E402
from nndiag.catalogue import catalogue  # noqa: E402

PLANNED = {"ND204", "ND705", "ND803"}
"""Codes of the catalogue whose checks may be missing: a fault that only they would name is not found."""


class Listener:
    """Stands in for a recorder and keeps what is logged."""

    def __init__(self) -> None:
        self.logged: list[dict[str, float]] = []
        self.closed = False

    def log(self, **values: Any) -> None:
        self.logged.append({name: float(value) for name, value in values.items()})

    def close(self) -> None:
        self.closed = True

    def __iter__(self) -> Iterator[dict[str, float]]:
        return iter(self.logged)


def listen(program: Program, epochs: int = 1) -> tuple[float, Listener]:
    """Train for so many epochs: the error, and what was logged."""
    listener = Listener()
    error, _ = train(replace(program, epochs=epochs), 0, lambda model, optimizer: listener)
    return error, listener


def test_there_is_enough_of_everything() -> None:
    assert len(BASES) >= 15
    assert len(FAULTS) >= 60
    assert len(pairs()) >= 45
    assert len(ZOO) >= 100


@pytest.mark.parametrize(("kind", "names"), [("base", BASES), ("fault", FAULTS)])
def test_both_halves_hold_about_their_share(kind: str, names: dict[str, object]) -> None:
    held_out = [name for name in names if split.held_out(kind, name)]

    assert abs(len(held_out) / len(names) - split.HELD_OUT[kind]) < 0.12


def test_the_split_has_not_moved() -> None:
    held_out = {name for name in BASES if split.held_out("base", name)}

    assert held_out == {
        "digits-convnet", "digits-dropout", "digits-logsoftmax", "digits-onecycle", "digits-autoencoder",
        "digits-siamese", "echoes-rnn", "reviews-transformer", "bags-embedding", "masks-segmenter", "spirals-tanh",
    }  # fmt: skip
    assert split.pair_held_out("waves-lstm", "learning-rate-high")
    assert not split.pair_held_out("waves-lstm", "learning-rate-low")


def test_the_parts_share_nothing_and_are_everything() -> None:
    develop, held_out = set(jobs("develop")), set(jobs("held-out"))

    assert develop
    assert held_out
    assert not develop & held_out
    assert develop | held_out == set(jobs("all"))
    assert set(gate.jobs()) <= develop


@pytest.mark.parametrize("name", BASES)
def test_a_base_runs_and_tells_of_its_losses(name: str) -> None:
    error, listener = listen(BASES[name])

    assert math.isfinite(error)
    assert listener.closed
    assert all(math.isfinite(value) for values in listener for value in values.values())
    assert sum("validation_loss" in values for values in listener) == 1
    assert any("validation_accuracy" in values for values in listener) == (BASES[name].task != "real")


@pytest.mark.parametrize("name", FAULTS)
def test_a_fault_is_silent(name: str) -> None:
    fault = FAULTS[name]
    program = fault.inject(BASES[fault.on[-1]], fault.levels[0])

    _, listener = listen(program)

    assert listener.closed, "the loop has raised"


@pytest.mark.parametrize("name", FAULTS)
def test_a_fault_says_what_it_does_and_which_codes_name_it(name: str) -> None:
    fault = FAULTS[name]

    assert fault.summary.endswith(".")
    assert set(fault.on) <= BASES.keys()
    assert 1 <= len(fault.expected) <= 3
    assert fault.expected <= catalogue().keys() | PLANNED
    assert fault.expected & catalogue().keys()


@pytest.mark.parametrize("name", FAULTS)
def test_a_fault_does_harm_somewhere(name: str) -> None:
    assert any(harm.harmful(base, name) for base in FAULTS[name].on)


def test_the_table_of_harm_is_that_of_today() -> None:
    table = harm.read(harm.FILE)

    assert table["faulty"].keys() == {f"{base}/{name}" for base, name in harm.measured_pairs()}
    assert table["sound"].keys() == BASES.keys()
    assert all(len(errors) == len(SOUND_SEEDS) for errors in table["sound"].values())
    assert all(len(errors) == len(FAULTS[key.partition("/")[2]].levels) for key, errors in table["faulty"].items())


def test_the_table_of_harm_can_be_measured_again() -> None:
    """Of a network that hardly moves: where one learns, the last digit of a product may change what it ends at."""
    level = FAULTS["clipped-to-nothing"].levels[-1]

    seen = harm.faulty_error(("friedman-mlp", "clipped-to-nothing", level))

    assert seen == pytest.approx(harm.read(harm.FILE)["faulty"]["friedman-mlp/clipped-to-nothing"][-1], rel=0.02)


def test_a_program_is_the_same_each_time_and_with_a_recorder() -> None:
    program = replace(BASES["digits-dropout"], epochs=1)

    unseen, _ = train(program, 3)
    seen, recorder = train(program, 3, partial(nndiag.watch, every=1))

    assert seen == unseen == train(program, 3)[0]
    assert recorder.run.steps >= 21


def test_slices_give_every_row_once() -> None:
    x = torch.arange(10)

    batches = list(Slices(x, x, 4, shuffle=True))

    assert [len(part) for part, _ in batches] == [4, 4, 2]
    assert sorted(torch.cat([part for part, _ in batches]).tolist()) == list(range(10))


@pytest.mark.parametrize(
    "epoch",
    [loops.step_forgotten, loops.backward_forgotten, loops.zero_before_step, loops.loss_rewrapped,
     loops.decisions_compared],
)  # fmt: skip
def test_loops_that_do_not_learn_leave_the_model_as_it_was(epoch: loops.Epoch) -> None:
    program = BASES["waves-lstm"]
    loop, _ = program.loop(program.data(0), 0, None)
    before = {name: value.clone() for name, value in loop.model.state_dict().items()}

    epoch(loop)

    assert all(torch.equal(value, before[name]) for name, value in loop.model.state_dict().items())


def test_a_loop_that_never_clears_adds_up() -> None:
    program = BASES["cancer-binary"]
    loop, _ = program.loop(program.data(0), 0, None)
    loop.batches = [next(iter(loop.batches))] * 3
    loop.optimizer = torch.optim.SGD(loop.model.parameters(), lr=0.0)

    loops.plain(loop)
    once = [parameter.grad.clone() for parameter in loop.model.parameters()]
    loop.optimizer.zero_grad()
    loops.zero_forgotten(loop)

    for parameter, gradient in zip(loop.model.parameters(), once, strict=True):
        torch.testing.assert_close(parameter.grad, 3 * gradient)


def test_what_raises_ends_the_run_and_leaves_its_record() -> None:
    def fail(loop: loops.Loop) -> None:
        loops.plain(loop)
        raise FloatingPointError

    error, recorder = train(replace(BASES["iris-fullbatch"], epoch=fail), 0, partial(nndiag.watch, every=1))
    recorder.close()

    assert error == math.inf
    assert recorder.run.steps == 1


def test_a_job_goes_through_from_end_to_end() -> None:
    outcome = measure(Job("diabetes-huber", 0, "nan-in-targets", 1))

    assert outcome.error == math.inf
    assert outcome.expected == ("ND001",)
    assert outcome.right_headline
    assert outcome.failed
    assert outcome.steps_to_right is not None


def test_a_program_of_the_zoo_is_the_same_each_time_and_with_a_recorder() -> None:
    outcome = measure(Job("policy-gradient", 0))

    assert (outcome.job.group, outcome.job.kind, outcome.held_out) == ("zoo", "reinforcement learning", False)
    assert outcome.error == zoo.examine(("policy-gradient", 0)) <= ZOO["policy-gradient"].most
    assert not outcome.alarm


def test_a_group_can_be_had_alone() -> None:
    bases, zoo_alone = jobs("all", group="bases"), jobs("all", group="zoo")

    assert {job.base for job in zoo_alone} == ZOO.keys()
    assert [*bases, *zoo_alone] == jobs("all")


def test_names_in_the_zoo_are_those_of_no_base() -> None:
    assert not ZOO.keys() & BASES.keys()
    assert len({program.train for program in ZOO.values()}) == len(ZOO)


def test_what_has_not_learned_is_told(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    program = zoo.sound.Sound("none", 0.5, lambda watch: watch(None, None).log() or float("nan"))
    monkeypatch.setattr(zoo.sound, "ZOO", {"no-way": program})
    monkeypatch.setattr(command, "ZOO", {"no-way": program})

    assert command.main(["zoo", "--jobs", "1"]) == 1
    assert "no-way (seed 2): error inf, at most 0.5" in capsys.readouterr().out


def test_the_command_writes_tables_and_outcomes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    markdown, outcomes = tmp_path / "tables.md", tmp_path / "outcomes.json"
    options = ["--base", "iris-fullbatch", "--fault", "nll-of-logits", "--jobs", "1", "--verbose"]

    status = command.main(["all", *options, "--markdown", str(markdown), "--json", str(outcomes)])

    assert status == 0
    assert markdown.read_text(encoding="utf-8") in capsys.readouterr().out
    assert "| nll-of-logits | ND105, ND608 | 1 |" in markdown.read_text(encoding="utf-8")
    assert [outcome["job"]["fault"] for outcome in json.loads(outcomes.read_text())] == ["nll-of-logits"]


def test_the_list_counts_what_there_is(capsys: pytest.CaptureFixture[str]) -> None:
    command.main(["list"])

    assert f"{len(BASES)} bases, {len(FAULTS)} faults, {len(pairs())} pairs" in capsys.readouterr().out
