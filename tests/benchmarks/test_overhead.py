"""The cost of a step of the NumPy trainer: what there is can be chosen, and what there is not is refused."""

from __future__ import annotations

import sys

import pytest

from benchmarks.overhead import __main__ as command
from benchmarks.overhead.networks import NETWORKS
from benchmarks.overhead.variants import VARIANTS


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["T"], "no network T; there are A, "),
        (["B", "--steps", "0"], "--steps 0: wanted 1 or more"),
        (["B", "--only", "none"], "no variant starts with 'none'; there are all hooks"),
    ],
)
def test_what_there_is_not_is_refused(
    arguments: list[str], said: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["overhead", *arguments])

    with pytest.raises(SystemExit):
        command.main()
    assert said in capsys.readouterr().err


def test_bare_blocks_are_no_steps_of_the_trainer() -> None:
    attach = VARIANTS["attached, nothing recorded"]
    block = command.Block(NETWORKS["B"], "float32", attach, 4)

    block.pair(bare_first=True)
    block.pair(bare_first=False)

    (keeper,) = block._attached
    assert block.trainer.steps == keeper.recorder.step_number == command.WARM_UP + 8
