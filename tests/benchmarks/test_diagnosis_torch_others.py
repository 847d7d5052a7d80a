"""Other tools beside nndiag: what their recorded messages name, how that is scored, and when a tool is told of what.

None of the tools is needed: those that are attached here stand in for them.
"""

from __future__ import annotations

import json
import math
from importlib.metadata import PackageNotFoundError
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("sklearn")
pytestmark = pytest.mark.frameworks

from benchmarks.diagnosis_torch.bases import BASES  # noqa: E402
from benchmarks.diagnosis_torch.loops import Loop  # noqa: E402
from benchmarks.diagnosis_torch.measure import Job  # noqa: E402
from benchmarks.diagnosis_torch.measure import measure as measured_alone  # noqa: E402
from benchmarks.diagnosis_torch.others import __main__ as command  # noqa: E402
from benchmarks.diagnosis_torch.others import score, tools  # noqa: E402
from benchmarks.diagnosis_torch.others.kinds import KINDS, SPEED, codes, kind  # noqa: E402
from benchmarks.diagnosis_torch.others.score import Heard, Result, figures, summary  # noqa: E402
from benchmarks.diagnosis_torch.others.tools import TOOLS, Said, Tool, examine, torcheck, watched  # noqa: E402
from nndiag.catalogue import catalogue  # noqa: E402

SOUND = Job("cancer-binary", 0)
FAULTY = Job("cancer-binary", 100, "init-zero", 1)
STEPS = BASES["cancer-binary"].epochs * math.ceil(len(BASES["cancer-binary"].data(0).x) / 32)

RECORDED = [
    ("torch-audit", "TA200 Linear dims (30 -> 16) not divisible by 8 (FP16 misaligned).", ""),
    ("torch-audit", "TA104 No gradients found in the model. Did you forget `loss.backward()`?", "ND403"),
    ("torchmortem", "Update ratio too low in 0: Median update/weight ratio in 0 is 2.3e-06", "ND502 ND503"),
    ("torchmortem", "Gradient stalling in 0: Layer '0' had near-zero gradient norm (100% of steps).", "ND401 ND403"),
    ("trainpulse", "gradient Gradient explosion: norm=3075.7635 (threshold=100.0)", "ND402"),
    ("trainpulse", "gradient Vanishing gradient: norm=1.00e-08 (threshold=1.00e-07)", "ND401 ND403"),
    ("trainpulse", "nan_detector learning_rate is NaN", "ND801"),
    ("torcheck", "Module model's 0.weight should change.", "ND403 ND503 ND504"),
    ("torcheck", "Module model's output shouldn't all > 0 and < 1", "ND101 ND105"),
    ("torchtest2", "initial_loss: initial loss 10.510 is much larger than ln(10) = 2.303 expected", "ND002 ND201 ND203"),
    ("torchtest2", "loss: the loss (2.3) is not connected to the autograd graph - .detach(), .item()", "ND403"),
    ("torchtest2", "loss: the loss must be a scalar, got shape (16,) (reduction='none' without .mean()?)", ""),
    ("torchtest2", "overfit_batch: raised IndexError: no such row", ""),
    ("torchtest2", "params_change: 4/4 trainable parameter(s) did not change - 4 with an exactly zero gradient: 0.weight",
     "ND403 ND503 ND504"),
]  # fmt: skip
"""Messages as the tools give them, beside what they name."""


@pytest.mark.parametrize(("tool", "text", "names"), RECORDED)
def test_a_recorded_message_names_what_it_says(tool: str, text: str, names: str) -> None:
    assert codes(tool, kind(tool, text)) == set(names.split())


def test_every_tool_has_its_kinds_and_they_are_codes_of_the_catalogue() -> None:
    assert KINDS.keys() == TOOLS.keys()
    assert {code for names in KINDS.values() for text in names.values() for code in text.split()} <= catalogue().keys()
    assert all(KINDS[tool][phrase] == "" for tool, phrase in SPEED)


def test_a_message_of_no_known_kind_is_refused() -> None:
    with pytest.raises(LookupError, match="trainpulse says 'entropy is low', for which KINDS has no phrase"):
        kind("trainpulse", "entropy is low")


def audited(job: Job, *phrases: str, failed: bool = False, trouble: str = "") -> Result:
    """What torch-audit might say."""
    return Result("torch-audit", job, tuple(Heard(phrase, failed, "") for phrase in phrases), trouble)


RESULTS = [
    audited(FAULTY, "TA200", "TA405"),
    audited(FAULTY, "TA200", "TA104"),
    audited(FAULTY, "TA200"),
    audited(FAULTY),
    audited(FAULTY, trouble="TypeError: no tensor"),
    audited(SOUND, "TA100", failed=True),
    audited(SOUND, "TA200"),
    audited(SOUND),
]
"""Of four faulty runs three with an alarm and one with the right one, TA405 (ND202); one more could not be run."""


def test_the_shares_are_of_the_runs_that_a_tool_got_through() -> None:
    shares = [text.partition(" [")[0] for text in figures(RESULTS)]

    assert shares == ["4", "75 %", "25 %", "20 %", "3", "33.3 %", "66.7 %", "1"]


def test_what_is_said_of_speed_is_counted_in_a_row_of_its_own() -> None:
    _, _, whole, rest = summary(RESULTS).splitlines()

    assert "| 75 % [30.1–95.4 %] (3/4) |" in whole
    assert rest.startswith("| develop | torch-audit, rules on speed left out | 4 | 50 % ")
    assert summary([audited(FAULTY, "TA405")]).count("\n") == 2


def test_messages_of_a_kind_are_heard_once_with_their_severest_verdict() -> None:
    said = [Said("TA100 a", False), Said("TA102 b", False), Said("TA100 c", True)]

    assert list(score.heard("torch-audit", said)) == [Heard("TA100", True, "TA100 a"), Heard("TA102", False, "TA102 b")]


class Listener(Tool):
    """Keeps the losses, and the number of batches by which each was heard."""

    def __init__(self, loop: Loop, job: Job) -> None:
        self.heard: list[float] = []

    def step(self) -> None:
        self.heard.append(self.loss)

    def said(self) -> list[Said]:
        return [Said(f"TA100 {value}", False) for value in self.heard]


def test_a_tool_is_told_of_every_batch_after_its_loss_and_not_of_validation() -> None:
    losses = [float(said.text.split()[1]) for said in watched(Listener)(SOUND)]

    assert len(losses) == STEPS
    assert len(set(losses)) == STEPS
    assert losses[0] == pytest.approx(math.log(2), abs=0.3)
    assert losses[-1] < 0.5 * losses[0]


def test_trainpulse_hears_the_gradients_that_the_optimiser_gets_though_the_loop_clears_them(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    steps: list[dict[str, Any]] = []

    def callback() -> SimpleNamespace:
        alert = SimpleNamespace(
            detector="nan_detector", message="loss is NaN", severity=SimpleNamespace(value="critical")
        )
        return SimpleNamespace(
            on_step_end=lambda step, **values: steps.append({"step": step, **values}),
            report=lambda: SimpleNamespace(alerts=[alert]),
        )

    monkeypatch.setattr(tools, "import_module", lambda name: SimpleNamespace(TrainingCallback=callback))
    said, trouble = examine("trainpulse", SOUND)

    assert (said, trouble) == ([Said("nan_detector loss is NaN", True)], "")
    assert [values["step"] for values in steps] == list(range(STEPS))
    assert all(values["grad_norm"] > 0 and values["lr"] == 3e-3 for values in steps)


@pytest.mark.parametrize(("message", "finds"), [("The tensor doesn't belong to any optimizer. Register it.", True),
                                                ("shape mismatch", False)])  # fmt: skip
def test_torcheck_finds_by_raising_and_other_errors_are_its_own(
    monkeypatch: pytest.MonkeyPatch, message: str, finds: bool
) -> None:
    class Registry:
        def register(self, optimizer: Any) -> None:
            raise RuntimeError(message)

    monkeypatch.setattr(tools, "import_module", lambda name: SimpleNamespace(registry=Registry()))

    if finds:
        assert list(torcheck(SOUND)) == [Said(message, True)]
    else:
        assert examine("torcheck", SOUND) == ([], "RuntimeError: shape mismatch")


def test_nndiag_says_what_it_says_in_the_fault_matrix_and_the_command_writes_it(tmp_path: Path) -> None:
    tables, everything = tmp_path / "tools.md", tmp_path / "tools.json"
    arguments = ["--tool", "nndiag", "--base", "cancer-binary", "--fault", "init-zero", "--jobs", "1"]

    assert command.main([*arguments, "--markdown", str(tables), "--json", str(everything)]) == 0

    alone = measured_alone(FAULTY)
    (result,) = json.loads(everything.read_text(encoding="utf-8"))
    assert {heard["phrase"] for heard in result["heard"]} == {finding.code for finding in alone.findings}
    assert "| develop | nndiag | 1 | 100 % [20.7–100 %] (1/1) | 100 % " in tables.read_text(encoding="utf-8")


def test_a_tool_that_is_not_installed_is_named(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def version(name: str) -> str:
        raise PackageNotFoundError(name)

    monkeypatch.setattr(command, "version", version)
    with pytest.raises(SystemExit):
        command.main(["--tool", "torcheck"])

    assert "torcheck is not installed; tools.py says how" in capsys.readouterr().err
