"""The fault matrix and the zoo: what there is, what is held out, and that one goes through from end to end."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("sklearn")

from benchmarks.diagnosis import __main__ as command
from benchmarks.diagnosis import broken, gate, harm, split, tables
from benchmarks.diagnosis.bases import BASES
from benchmarks.diagnosis.faults import FAULTS, pairs
from benchmarks.diagnosis.measure import Job, Outcome, Seen, jobs, measure, named
from benchmarks.diagnosis.programs import SELDOM, Program, train
from benchmarks.diagnosis.zoo import ZOO, examine
from benchmarks.scoring import Share, wilson
from nndiag import nn
from nndiag.check import Finding
from nndiag.report import Report
from nndiag.statistics import Array


def test_there_is_enough_of_everything() -> None:
    assert len(BASES) >= 12
    assert len(FAULTS) >= 35
    assert len(ZOO) >= 100
    assert not ZOO.keys() & BASES.keys()


@pytest.mark.parametrize(("kind", "names"), [("base", BASES), ("fault", FAULTS), ("zoo", ZOO)])
def test_both_halves_hold_about_their_share(kind: str, names: dict[str, object]) -> None:
    held_out = [name for name in names if split.held_out(kind, name)]

    assert abs(len(held_out) / len(names) - split.HELD_OUT[kind]) < 0.12


def test_the_split_has_not_moved() -> None:
    held_out = {name for name in BASES if split.held_out("base", name)}

    assert held_out == {
        "digits-dropout", "diabetes-relu", "wine-layernorm", "spirals-relu", "words-relu", "faint-linear",
        "rare-oversampled",
    }  # fmt: skip
    assert split.pair_held_out("digits-relu", "learning-rate-high")
    assert not split.pair_held_out("digits-relu", "learning-rate-low")


def test_the_parts_share_nothing_and_are_everything() -> None:
    develop, held_out = set(jobs("develop")), set(jobs("held-out"))

    assert develop
    assert held_out
    assert not develop & held_out
    assert develop | held_out == set(jobs("all"))
    assert set(gate.jobs()) <= develop


@pytest.mark.parametrize("name", FAULTS)
def test_a_fault_applies_somewhere_and_does_harm_there(name: str) -> None:
    assert any(harm.harmful(base, fault) for base, fault in pairs(BASES) if fault == name)


@pytest.mark.parametrize("name", FAULTS)
def test_a_fault_says_what_it_does_and_which_codes_name_it(name: str) -> None:
    fault = FAULTS[name]

    assert fault.summary.endswith(".")
    assert 1 <= len(fault.expected) <= 4
    assert all(re.fullmatch(r"ND\d{3}", code) for code in fault.expected)


def test_the_table_of_harm_is_that_of_today() -> None:
    wanted = {f"{base}/{name}" for base, name in pairs(BASES) if not FAULTS[name].structural}

    assert harm.read()["faulty"].keys() == wanted
    assert harm.read()["sound"].keys() == BASES.keys()
    assert all(len(errors) == len(harm.SOUND_SEEDS) >= 6 for errors in harm.read()["sound"].values())
    assert all(
        len(errors) == len(FAULTS[key.partition("/")[2]].levels) for key, errors in harm.read()["faulty"].items()
    )


def test_the_table_of_harm_can_be_measured_again() -> None:
    seen = harm.faulty_errors(("faint-linear", "learning-rate-low"))

    assert seen == pytest.approx(harm.read()["faulty"]["faint-linear/learning-rate-low"], rel=0.02)


def test_only_the_mildest_and_the_worst_harmful_level_are_run() -> None:
    levels = [level for base, name, level in harm.cases() if (base, name) == ("digits-relu", "learning-rate-low")]
    harmful = harm.harmful("digits-relu", "learning-rate-low")

    assert levels == [harmful[0], harmful[-1]]


def test_a_sound_program_learns() -> None:
    name = "faint-linear-linear"
    seen = examine((name, 0))

    assert seen.error < ZOO[name].most
    assert seen.lost < 0.1


def test_a_program_is_the_same_each_time() -> None:
    program = FAULTS["labels-partly-wrong"].inject(BASES["iris-tanh"], 0.5)
    first, second = program.data(3), program.data(3)

    assert all(np.array_equal(a, b) for a, b in zip(first, second, strict=True))
    assert not np.array_equal(first.y, BASES["iris-tanh"].data(3).y)
    assert np.array_equal(first.y_test, BASES["iris-tanh"].data(3).y_test)


def test_what_raises_ends_the_run_and_leaves_its_record() -> None:
    def crash(model: nn.Sequential) -> None:
        def fail(gradient: Array) -> Array:
            raise FloatingPointError

        model.layers[-1].backward = fail  # type: ignore[method-assign]  # as a bug in a user's layer would

    run, error, curve = train(BASES["iris-tanh"].edit_model(crash), 0)

    assert (error, curve) == (np.inf, [])
    assert run.meta.ended == "crashed"


def test_until_holds_what_was_known_after_so_many_updates() -> None:
    run = train(small(BASES["iris-tanh"]), 0).run
    early = run.until(14)

    assert early.steps == 14
    assert early.train.index[-1] == 13
    assert list(early.validation.index) == [7, 14]
    assert early.activations.index[-1] == 13
    assert run.until(run.steps).train.equals(run.train)


def small(program: Program) -> Program:
    """As the program, with three epochs."""
    return Program(**{**vars(program), "epochs": 3})


def test_a_job_goes_through_from_end_to_end() -> None:
    outcome = measure(Job("iris-tanh", 0, "nan-in-inputs", 0.0))

    assert outcome.error == np.inf
    assert outcome.expected == ("ND001",)
    assert outcome.right_headline
    assert outcome.right_among_three
    assert outcome.failed
    assert outcome.steps_to_right is not None
    assert outcome.steps_to_right <= 10


def test_read_seldom_a_run_is_the_same_training_with_the_fewest_reads_of_the_default() -> None:
    whole, seldom = (train(BASES["iris-tanh"], 0, cadence).run for cadence in ({"every": 1}, SELDOM))

    assert seldom.train.equals(whole.train)
    read = seldom.activations.index
    assert read[:50].tolist() == list(range(50))
    assert all(after <= 1.25 * before + 1 for before, after in pairwise(read[49:]))
    assert len(read) < 50 + 20 < len(whole.activations)


def test_the_command_writes_tables_and_outcomes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    markdown, outcomes = tmp_path / "tables.md", tmp_path / "outcomes.json"
    options = ["--base", "iris-tanh", "--fault", "double-softmax", "--jobs", "1", "--verbose"]

    status = command.main(["develop", *options, "--markdown", str(markdown), "--json", str(outcomes)])

    assert status == 0
    assert markdown.read_text(encoding="utf-8") in capsys.readouterr().out
    assert "| double-softmax | ND101 | 1 |" in markdown.read_text(encoding="utf-8")
    assert [outcome["job"]["fault"] for outcome in json.loads(outcomes.read_text())] == ["double-softmax"]


def test_the_list_counts_what_there_is(capsys: pytest.CaptureFixture[str]) -> None:
    command.main(["list"])

    assert f"{len(BASES)} bases, {len(FAULTS)} faults" in capsys.readouterr().out


def outcome(fault: str = "", headlines: tuple[str, ...] = (), verdict: str = "warn") -> Outcome:
    """An outcome that expects ND501 where there is a fault, with a finding for each headline."""
    findings = tuple(Seen(code, verdict, "", "so") for code in headlines)
    expected = ("ND501",) if fault else ()
    return Outcome(Job("digits-relu", 0, fault, 3.0), False, 0.5, 100, headlines, headlines, findings, expected)


def test_the_floors_hold_what_they_say(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gate, "FILE", tmp_path / "floors.json")
    right, wrong = outcome("learning-rate-high", ("ND501",)), outcome("learning-rate-high", ("ND301", "ND501"))
    gate.update([right, wrong, outcome()])

    assert not list(gate.broken([right, wrong, outcome()]))
    assert len(list(gate.broken([wrong, wrong, outcome()]))) == 1
    assert len(list(gate.broken([right, right, outcome(headlines=("ND301",))]))) == 1
    assert len(list(gate.broken([right, right, outcome(headlines=("ND301",), verdict="fail")]))) == 2


def test_precision_counts_every_headline() -> None:
    seen = [outcome("learning-rate-high", ("ND501",)), outcome("learning-rate-high", ("ND301", "ND501"))]

    assert tables.precision(seen) == Share(2, 3)
    assert tables.recall(seen) == Share(1, 2)


def test_misses_and_false_alarms_are_told() -> None:
    told = "\n".join(tables.details([outcome("learning-rate-high", ("ND301",)), outcome(headlines=("ND301",))]))

    assert "MISS digits-relu + learning-rate-high (3)" in told
    assert "FALSE ALARM digits-relu (seed 0)" in told
    assert "warn ND301 : so" in told


def test_names_are_headlines_first_and_then_causes_that_are_codes() -> None:
    report = measure_report(("ND602",), ("ND501", "a bad day", "ND602", "ND002"))

    assert named(report) == ("ND602", "ND501", "ND002")


def measure_report(headlines: tuple[str, ...], causes: tuple[str, ...]) -> Report:
    """A report with one finding."""
    run = train(small(BASES["iris-tanh"]), 0).run
    finding = Finding(headlines[0], "diverging", "it does", "training", causes=causes)
    return Report(run.meta, run.steps, run.reads, None, (), (finding,), headlines)


@pytest.mark.parametrize(
    ("hits", "total", "low", "high"),
    [(8, 10, 0.4902, 0.9433), (0, 10, 0.0, 0.2775), (10, 10, 0.7225, 1.0), (45, 50, 0.7864, 0.9565), (0, 0, 0.0, 1.0)],
)
def test_the_interval_is_that_of_wilson(hits: int, total: int, low: float, high: float) -> None:
    assert wilson(hits, total) == pytest.approx((low, high), abs=1e-4)


def test_a_share_is_written_with_its_interval() -> None:
    assert str(Share(8, 10)) == "80 % [49–94.3 %] (8/10)"
    assert str(Share(0, 0)) == "–"


# The broken parts are broken only where they say so


@pytest.mark.parametrize("layer", [broken.Exponential, broken.BatchSoftmax])
def test_gradients_of_unusual_activations_are_right(layer: Callable[[], nn.Layer]) -> None:
    rng = np.random.default_rng(0)
    x, weights = rng.normal(size=(4, 3)), rng.normal(size=(4, 3))
    function = layer()
    function.forward(x)

    given = function.backward(weights.copy())

    assert given == pytest.approx(numeric(lambda x: float(np.sum(layer().forward(x) * weights)), x), abs=1e-6)


@pytest.mark.parametrize(
    ("loss", "targets"),
    [(broken.BinaryCrossEntropy, np.eye(4, 3)), (broken.OneHotMSE, np.array([0, 1, 2, 1])),
     (broken.summed(nn.MSE), np.ones((4, 3)))],
)  # fmt: skip
def test_gradients_of_hand_written_losses_are_right(loss: Callable[[], nn.Loss], targets: Array) -> None:
    outputs = np.random.default_rng(0).uniform(0.1, 0.9, (4, 3))
    computed = loss()
    computed(outputs, targets)

    assert computed.backward() == pytest.approx(numeric(lambda z: loss()(z, targets), outputs), abs=1e-6)


def test_the_broadcast_loss_is_over_every_pair() -> None:
    outputs, targets = np.random.default_rng(0).normal(size=(2, 5))
    loss = broken.BroadcastMSE()

    assert loss(outputs[:, None], targets) == pytest.approx(np.mean((outputs[:, None] - targets[None, :]) ** 2))
    numbers = numeric(lambda z: broken.BroadcastMSE()(z, targets), outputs[:, None])
    assert loss.backward() == pytest.approx(numbers, abs=1e-6)


def numeric(function: Callable[[Array], float], x: Array) -> Array:
    """Central differences."""
    gradient = np.zeros_like(x)
    for at in np.ndindex(x.shape):
        above, below = x.copy(), x.copy()
        above[at] += 1e-5
        below[at] -= 1e-5
        gradient[at] = (function(above) - function(below)) / 2e-5
    return gradient
