"""Live checks: what is found while a run is recorded, when it is told, and what comes of it."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

import nndiag
from nndiag import Checklist, Finding, Recorder, Verdict, live, nn
from nndiag.check import Kind
from nndiag.checks import NotLearning
from nndiag.datasets import digits
from nndiag.live import LiveChecks, OpenFindings
from nndiag.pace import Pace
from nndiag.statistics import Array

Data = tuple[Array, Array]


def trained(lr: float) -> nn.Trainer:
    """An untrained MLP for `data`, with a rate that is sound at 0.05 and throws the weights off at 5."""
    return nn.Trainer(nn.MLP([8, 16, 12, 3], seed=0), nn.SoftmaxCrossEntropy(), nn.SGD(lr=lr, momentum=0.9))


def fit(trainer: nn.Trainer, data: Data, epochs: int = 20) -> list[dict[str, float]]:
    """Six steps an epoch, with validation."""
    x, y = data
    return trainer.fit(x[30:], y[30:], validation=(x[:30], y[:30]), epochs=epochs, batch_size=11)


def constant(recorder: Recorder, steps: int) -> None:
    """Feed a loss that is the same on every step: a fact (ND606) from the fifth on."""
    for _ in range(steps):
        recorder.log(loss=1.0)
        recorder.step()


def values(trainer: nn.Trainer) -> list[bytes]:
    return [parameter.value.tobytes() for parameter in trainer.model.parameters]


class Reports:
    """An exporter that keeps the reports that it gets."""

    def __init__(self) -> None:
        self.of: dict[int, nndiag.Report] = {}

    def describe(self, meta: Any) -> None: ...

    def write(self, step: int, rows: Any) -> None: ...

    def report(self, report: nndiag.Report, step: int) -> None:
        self.of[step] = report

    def flush(self) -> None: ...

    def close(self) -> None: ...


# What is told


def test_a_rate_that_is_too_high_is_logged_once_with_its_fix(data: Data, caplog: pytest.LogCaptureFixture) -> None:
    sick = trained(lr=5)

    with nndiag.watch(sick, every=1, check_every=50, on_finding="warn"):
        fit(sick, data, epochs=50)

    [said] = caplog.messages
    assert said.startswith("FAIL ND501 learning-rate-high, seen after step 100: the loss rises from 1.94 to")
    assert "fix: Try lr = " in said


def test_consequences_of_what_was_told_are_not_logged(data: Data, caplog: pytest.LogCaptureFixture) -> None:
    sick = trained(lr=5)

    with nndiag.watch(sick, every=1, check_every=50) as recorder:
        fit(sick, data, epochs=30)

    assert len(recorder.findings) > len(caplog.messages)
    assert all(finding.consequence_of for finding in recorder.findings if finding.code not in caplog.text)


def test_a_healthy_run_says_nothing_and_trains_to_the_same_weights(
    data: Data, caplog: pytest.LogCaptureFixture
) -> None:
    plain, watched = trained(lr=0.05), trained(lr=0.05)

    with nndiag.watch(watched, every=1, check_every=10, on_finding="stop") as recorder:
        history = fit(watched, data, epochs=6)

    assert history == fit(plain, data, epochs=6)
    assert values(watched) == values(plain)
    assert (caplog.messages, recorder.findings, recorder.run.meta.ended) == ([], (), "completed")


def test_a_slow_start_is_given_its_time() -> None:
    x, y, *_ = digits()
    slow = nn.Trainer(nn.MLP([64, 128, 64, 10], seed=0), nn.SoftmaxCrossEntropy(), nn.Adam(lr=2e-5))

    with nndiag.watch(slow, every=1, check_every=50, on_finding="stop") as recorder:
        history = slow.fit(x, y, epochs=5, batch_size=16)

    assert len(history) == 5
    assert history[1]["loss"] > np.log(10)  # after 180 steps no better than guessing
    assert recorder.findings == ()


def test_without_its_arguments_nothing_is_looked_at(data: Data, caplog: pytest.LogCaptureFixture) -> None:
    sick = trained(lr=5)

    with nndiag.watch(sick, every=1) as recorder:
        fit(sick, data)

    assert (caplog.messages, recorder.findings, recorder.stopping) == ([], (), False)


@pytest.mark.parametrize("asked", [{"check_every": 100}, {"on_finding": "warn"}])
def test_one_argument_is_enough(asked: dict[str, Any], data: Data, caplog: pytest.LogCaptureFixture) -> None:
    sick = trained(lr=5)

    with nndiag.watch(sick, every=1, **asked):
        fit(sick, data, epochs=40)

    assert "seen after step 200: " in caplog.text


def test_a_loss_that_is_not_finite_is_looked_at_at_once(data: Data, caplog: pytest.LogCaptureFixture) -> None:
    x, y = data
    x[50] = np.nan
    sick = trained(lr=0.05)

    with nndiag.watch(sick, every=1, check_every=10**6) as recorder:
        fit(sick, (x, y))

    assert recorder.meta.first_nonfinite is not None
    assert f"FAIL ND001 nonfinite-input, seen after step {recorder.meta.first_nonfinite['step'] + 1}" in caplog.text
    assert len(caplog.messages) == 1


def test_exporters_show_every_examination_and_it_is_what_the_record_says_offline(data: Data) -> None:
    sick, reports = trained(lr=5), Reports()

    with nndiag.watch(sick, every=1, strict=True, check_every=11) as recorder:
        recorder.add_exporter(reports)
        fit(sick, data)

    assert list(reports.of) == list(range(11, 120, 11))
    for step, report in reports.of.items():
        if step % 6:  # the validation after the last step of an epoch counts at the next examination
            offline = Checklist().examine(recorder.run.until(step))
            assert (report.checks, report.findings, report.headlines) == (
                offline.checks,
                offline.findings,
                offline.headlines,
            )
    assert any(report.findings for report in reports.of.values())


# What comes of it


def test_stop_ends_fit_with_its_history_its_validation_and_the_weights_of_that_step(
    data: Data, caplog: pytest.LogCaptureFixture
) -> None:
    sick, plain = trained(lr=5), trained(lr=5)

    with nndiag.watch(sick, every=1, check_every=50, on_finding="stop") as recorder:
        history = fit(sick, data, epochs=30)

    assert (sick.steps, [epoch["epoch"] for epoch in history]) == (100, list(range(17)))
    assert all("validation_loss" in epoch for epoch in history)
    assert recorder.run.validation.index[-1] == recorder.run.steps == sick.steps
    assert (recorder.run.meta.ended, len(sick.hooks)) == ("stopped", 0)
    assert recorder.run.meta.stopped_by.startswith("ND501 learning-rate-high: ")
    assert f"training is asked to stop at step {sick.steps}: ND501" in caplog.text
    with nndiag.watch(plain, hooks=[StopAt(sick.steps)], every=1):
        fit(plain, data, epochs=30)
    assert values(sick) == values(plain)


def test_the_loss_of_an_epoch_that_was_cut_short_is_the_mean_of_what_was_seen(data: Data) -> None:
    trainer = trained(lr=0.0)

    with nndiag.watch(trainer, hooks=[nndiag.LossHook(), StopAt(8)], every=1) as recorder:
        history = fit(trainer, data)

    assert len(history) == 2
    assert history[1]["loss"] == pytest.approx(recorder.run.train.iloc[6:8].mean())


def test_a_stopped_run_says_so_in_its_folder(data: Data, tmp_path: Path) -> None:
    trainer = trained(lr=0.05)

    with nndiag.watch(trainer, hooks=[nndiag.LossHook(), StopAt(3)], run=tmp_path / "run"):
        fit(trainer, data)

    meta = nndiag.open_run(tmp_path / "run").meta
    assert (meta.ended, meta.stopped_by) == ("stopped", "enough")
    assert str(Checklist().examine(nndiag.open_run(tmp_path / "run"))).startswith("PASS  run: 3 steps, stopped")


def test_what_starts_again_after_a_stop_starts_afresh(data: Data) -> None:
    trainer = trained(lr=0.05)

    with nndiag.watch(trainer, hooks=[StopAt(3)]) as recorder:
        fit(trainer, data)
        assert (recorder.stopping, trainer.steps) == (True, 3)
        fit(trainer, data, epochs=2)

    assert trainer.steps == 3 + 12
    assert (recorder.stopping, recorder.run.meta.ended, recorder.run.meta.stopped_by) == (False, "completed", "")


def test_a_run_that_trains_again_is_running(data: Data) -> None:
    trainer, seen = trained(lr=0.05), list[str]()

    class Look(nndiag.Hook):
        def on_epoch_begin(self, epoch: int) -> None:
            seen.append(self.recorder.run.meta.ended)

    with nndiag.watch(trainer, hooks=[Look()], strict=True):
        fit(trainer, data, epochs=1)
        fit(trainer, data, epochs=1)

    assert seen == ["running", "running"]


def test_a_loop_of_ones_own_asks_whether_to_go_on(caplog: pytest.LogCaptureFixture) -> None:
    with Recorder(every=1, check_every=10, on_finding="stop") as recorder:
        for _ in range(100):
            recorder.log(loss=1.0)  # the same on every step: a fact
            recorder.step()
            if recorder.stopping:
                break

    assert (recorder.step_number, recorder.run.meta.ended) == (10, "stopped")
    assert recorder.run.meta.stopped_by == "ND606 constant-loss: the training loss is 1 on all 10 reads"


def test_a_warning_does_not_stop() -> None:
    warning, failure = found("ND501", Verdict.WARN), found("ND501", Verdict.FAIL)

    assert [live.stop(warning), live.stop(failure)] == ["warn", "stop"]
    assert live.stop(replace(failure, consequence_of=("ND002",))) == "stop"
    assert live.stop(found("ND707", Verdict.FAIL, kind="generalisation")) == "warn"


@pytest.mark.parametrize(
    ("answer", "steps", "lines"), [("stop", 10, 2), ("warn", 30, 1), (None, 30, 0), (np.ones(2), 30, 0)]
)
def test_a_function_chooses_what_is_done(answer: Any, steps: int, lines: int, caplog: pytest.LogCaptureFixture) -> None:
    given: list[Finding] = []

    def choose(finding: Finding) -> Any:
        given.append(finding)
        return answer

    recorder = Recorder(every=1, check_every=10, on_finding=choose)
    while recorder.step_number < 30 and not recorder.stopping:
        recorder.log(loss=1.0)
        recorder.step()

    assert [finding.code for finding in given] == ["ND606"]
    assert (recorder.step_number, len(caplog.messages)) == (steps, lines)


def test_a_function_that_fails_is_given_up_and_its_finding_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    recorder = Recorder(every=1, check_every=10, on_finding=lambda finding: 1 / 0)

    constant(recorder, 30)

    assert [record.levelname for record in caplog.records] == ["ERROR", "WARNING"]
    assert "ZeroDivisionError" in caplog.text
    assert caplog.messages[1].startswith("FAIL ND606 constant-loss")
    assert [fault["part"] for fault in recorder.run.meta.faults] == ["on_finding"]


def test_a_function_that_fails_stops_a_strict_training() -> None:
    recorder = Recorder(every=1, strict=True, check_every=5, on_finding=lambda finding: 1 / 0)

    with pytest.raises(ZeroDivisionError):
        constant(recorder, 5)


@pytest.fixture
def broken_check(monkeypatch: pytest.MonkeyPatch) -> None:
    def examine(self: NotLearning, run: nndiag.Run) -> Any:
        raise RuntimeError("broken on purpose")

    monkeypatch.setattr(NotLearning, "examine", examine)


@pytest.mark.usefixtures("broken_check")
def test_a_check_that_fails_stops_nothing_and_is_told_of_once(data: Data, caplog: pytest.LogCaptureFixture) -> None:
    trainer = trained(lr=0.05)

    with nndiag.watch(trainer, every=1, check_every=20):
        fit(trainer, data)

    assert trainer.steps == 120
    assert caplog.messages == ["ND601 failed: it is not checked"]


@pytest.mark.usefixtures("broken_check")
def test_a_check_that_fails_stops_a_strict_training(data: Data) -> None:
    trainer = trained(lr=0.05)

    with nndiag.watch(trainer, every=1, check_every=20, strict=True), pytest.raises(RuntimeError, match="on purpose"):
        fit(trainer, data)

    assert trainer.steps == 60


def test_an_examination_that_fails_is_the_last_one(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    recorder = Recorder(every=1, check_every=2)
    monkeypatch.setattr(recorder, "check", lambda checklist: 1 / 0)

    constant(recorder, 6)

    assert caplog.messages == ["the live checks failed and are off; training goes on"]
    assert recorder.step_number == 6
    assert [fault["part"] for fault in recorder.run.meta.faults] == ["LiveChecks"]


@pytest.mark.parametrize("every", [0, -1, 2.5, "often", True])
def test_asks_for_a_number_of_steps(every: Any, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"check_every=.*number of steps"):
        Recorder(tmp_path / "run", check_every=every)

    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("action", ["explode", 3, ["warn"]])
def test_asks_for_an_action(action: Any, data: Data) -> None:
    with pytest.raises(ValueError, match=r'on_finding=.*give "warn", "stop", or a function'):
        nndiag.watch(trained(lr=0.05), on_finding=action)


# Patience


def found(code: str, verdict: Verdict = Verdict.WARN, kind: Kind = "training", layer: str | None = None,
          after: tuple[str, ...] = ()) -> Finding:  # fmt: skip
    return Finding(code, code.lower(), "is sick", kind, verdict, layer, consequence_of=after)


def codes(findings: list[Finding]) -> list[str]:
    return [finding.code for finding in findings]


def told(*examinations: list[Finding]) -> list[list[str]]:
    """Codes that open with each examination."""
    findings = OpenFindings(patience=2)
    return [codes(findings.update(examination)) for examination in examinations]


def test_a_finding_opens_when_it_was_seen_twice_in_a_row_and_is_told_once() -> None:
    sick = [found("ND501")]

    assert told(sick, sick, sick, sick) == [[], ["ND501"], [], []]
    assert told(sick, [], sick, []) == [[], [], [], []]


def test_a_fact_opens_at_once_and_so_does_what_explains_it() -> None:
    fact = found("ND801", Verdict.FAIL, kind="exact", after=("ND501",))

    assert told([found("ND501"), found("ND603"), fact]) == [["ND501", "ND801"]]


def test_a_finding_that_comes_back_is_told_again_only_if_it_had_closed() -> None:
    sick = [found("ND501")]

    assert told(sick, sick, [], sick, sick) == [[], ["ND501"], [], [], []]
    assert told(sick, sick, [], [], sick, sick) == [[], ["ND501"], [], [], [], ["ND501"]]


def test_every_place_has_its_own_finding() -> None:
    first, second = found("ND301", layer="h1.relu"), found("ND301", layer="h2.relu")

    assert told([first], [first, second], [first, second]) == [[], ["ND301"], ["ND301"]]


def test_a_warning_that_becomes_a_failure_is_told_once_more() -> None:
    warning, failure = [found("ND501")], [found("ND501", Verdict.FAIL)]

    assert told(warning, warning, failure, failure, failure) == [[], ["ND501"], [], ["ND501"], []]
    assert told(warning, failure, warning, failure, warning) == [[], ["ND501"], [], [], []]
    assert told(failure, failure, warning, warning) == [[], ["ND501"], [], []]


def test_a_finding_is_a_consequence_only_of_what_was_told() -> None:
    findings = OpenFindings(patience=2)
    cause, effect = found("ND501"), found("ND602", after=("ND501", "ND402"))

    findings.update([effect])
    [alone] = findings.update([cause, effect])
    findings.update([cause, effect])

    assert alone.consequence_of == ()
    assert [(finding.code, finding.consequence_of) for finding in findings.open] == [
        ("ND501", ()),
        ("ND602", ("ND501",)),
    ]


def test_what_has_closed_is_forgotten() -> None:
    findings = OpenFindings(patience=2)
    for examination in ([found("ND501")], [found("ND501")], [], []):
        findings.update(examination)

    assert findings.open == ()


def test_a_line_names_the_first_of_several_and_is_one_line() -> None:
    sick = replace(
        found("ND301", layer="h1\n.relu"), message="half of h1 is dead\n", fix="Lower the rate.", first_step=7
    )

    text = live.line([sick, found("ND301", layer="h2.relu")], step=200)

    assert text == (
        "WARN ND301 nd301, seen after step 200: half of h1 is dead\\n (and 1 more); "
        "in h1\\n.relu, at step 7; fix: Lower the rate."
    )


# Cost


class Clock:
    """Stands for `time` and, with a report that takes `cost` seconds, for a recorder whose steps take a millisecond."""

    def __init__(self, cost: float) -> None:
        self.now, self.cost, self.step_number = 0.0, cost, 0
        self.meta, self.pace = SimpleNamespace(broken_at=None), Pace(1, 0.02)
        self.examined: list[int] = []

    def perf_counter(self) -> float:
        return self.now

    def check(self, checklist: Any) -> Any:
        self.now += self.cost
        self.examined.append(self.step_number)
        return SimpleNamespace(findings=())

    def run(self, checks: LiveChecks, steps: int) -> None:
        for _ in range(steps):
            self.now += 1e-3
            self.step_number += 1
            checks.step(self)  # type: ignore[arg-type]


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Callable[[float], Clock]:
    def make(cost: float) -> Clock:
        made = Clock(cost)
        monkeypatch.setattr(live, "time", made)
        return made

    return make


def test_with_a_budget_examinations_take_half_of_it(clock: Callable[[float], Clock]) -> None:
    training = clock(0.1)

    training.run(LiveChecks(every=10, budget=0.02), 30_000)

    assert training.examined[0] == 10
    assert np.diff(training.examined) == pytest.approx([10_000, 10_000], abs=10)
    assert training.pace.spent == pytest.approx(0.3)


def test_cheap_examinations_keep_their_distance(clock: Callable[[float], Clock]) -> None:
    training = clock(1e-5)

    training.run(LiveChecks(every=10, budget=0.02), 40)

    assert training.examined == [10, 20, 30, 40]


def test_without_a_budget_no_clock_decides(clock: Callable[[float], Clock]) -> None:
    training = clock(100.0)

    training.run(LiveChecks(every=10), 40)

    assert training.examined == [10, 20, 30, 40]


def test_examinations_count_as_the_recorders_own_time() -> None:
    recorder = Recorder(every=1, check_every=10)
    constant(recorder, 9)
    before = recorder.cost["seconds"]
    constant(recorder, 1)

    assert recorder.cost["seconds"] > before + 1e-3  # an examination takes some 50 milliseconds


class StopAt(nndiag.Hook):
    """Asks for the end after so many steps."""

    def __init__(self, steps: int) -> None:
        self.steps = steps

    def on_update_end(self, parameters: Any) -> None:
        if self.recorder.step_number + 1 == self.steps:
            self.recorder.stop("enough")


def test_a_hook_can_ask_for_the_end(data: Data, caplog: pytest.LogCaptureFixture) -> None:
    trainer = trained(lr=0.05)

    with caplog.at_level(logging.WARNING), nndiag.watch(trainer, hooks=[StopAt(4)]):
        history = fit(trainer, data)

    assert (trainer.steps, len(history)) == (4, 1)


def test_a_run_that_was_closed_cannot_be_stopped() -> None:
    recorder = Recorder()
    recorder.close()

    with pytest.raises(nndiag.NndiagError, match=r"stop\(\) came after the run was closed"):
        recorder.stop("too late")


def test_a_recorder_can_be_asked_for_some_checks() -> None:
    recorder = Recorder(every=1)
    constant(recorder, 10)

    assert [check.code for check in recorder.check(Checklist(select="ND606")).checks] == ["ND606"]
    with pytest.raises(TypeError, match=r"check\('ND606'\): wanted a checklist"):
        recorder.check("ND606")  # type: ignore[arg-type]
