"""The cost of a PyTorch step: the tables have their form, and a tool that is switched off hears nothing."""

from __future__ import annotations

import re
import sys

import pytest

pytest.importorskip("torch")

import torch

from benchmarks.overhead_torch import __main__ as command
from benchmarks.overhead_torch.loop import Block, Tool
from benchmarks.overhead_torch.networks import LanguageModel, Network, adamw, perceptron, samples, sequences, sgd
from benchmarks.overhead_torch.profile import Clock, profile
from benchmarks.overhead_torch.variants import LIMITS, VARIANTS

pytestmark = pytest.mark.frameworks
TINY = Network("A", lambda: perceptron(8, 16, 4), sgd, lambda: samples(4096, 8, 4), block=2)
TEXT = Network("T", lambda: LanguageModel(16, 8, 1, 2, 6), adamw, lambda: sequences(2, 6, 16), block=1)
STEP = "ggggm1p2o3"
"""What a listener hears of a step of TINY: four modules called, the model, the loss, a gradient, all, the update, the end."""


class Listener:
    """A tool with a hook of each kind."""

    def __init__(self) -> None:
        self.heard = ""

    def attach(self, training):
        def hears(letter):
            def hear(*_):
                self.heard += letter

            return hear

        training.model.register_forward_hook(hears("m"))
        training.optimizer.register_step_post_hook(hears("o"))
        next(training.model.parameters()).register_hook(hears("p"))
        everywhere = torch.nn.modules.module.register_module_forward_hook(hears("g"))
        return Tool(hears("1"), hears("2"), hears("3"), everywhere.remove)


def test_a_tool_hears_its_own_steps_and_no_others():
    ours, theirs = Listener(), Listener()
    block = Block(TINY, ours.attach, steps=2, warm_up=1)
    other = Block(TINY, theirs.attach, steps=3, warm_up=0)
    assert (ours.heard, theirs.heard) == (STEP, "")

    other.pair(bare_first=True)
    assert (ours.heard, theirs.heard) == (STEP, 3 * STEP)

    block.pair(bare_first=False)
    assert (ours.heard, theirs.heard) == (3 * STEP, 3 * STEP)

    block.close()
    other.close()


def test_nndiag_records_the_steps_with_its_hooks_and_leaves_nothing():
    block = Block(TINY, VARIANTS["all hooks, every step"], steps=2, warm_up=3)
    recorder = block._tool.close.__self__
    block.pair(bare_first=True)
    block.pair(bare_first=False)
    block.close()

    assert list(recorder.run.losses.index.get_level_values("step")) == list(range(7))
    assert recorder.run.losses.index.is_unique
    assert not torch.nn.modules.module._global_forward_hooks


def test_the_table_has_a_row_for_each_variant_with_its_limit():
    results = {n.name: command.ratios(n, 4, VARIANTS, n.block, warm_up=1) for n in (TINY, TEXT)}

    head, line, bare, *rows = command.table(results, list(VARIANTS))

    assert head == f"| PyTorch {torch.__version__}, float32 | A | T |"
    assert line == "| --- | --- | --- |"
    assert re.fullmatch(r"\| bare step, ms \| \d+\.\d\d \| \d+\.\d\d \|", bare)
    assert [row.split(" | ")[0].removeprefix("| ") for row in rows] == list(VARIANTS)
    ratio = r"[\d.]+ \[[\d.]+, [\d.]+\]"
    for name, row in zip(VARIANTS, rows, strict=True):
        limits = [rf" (≤|\*\*>\*\*) {LIMITS[name][network]:.2f}" if name in LIMITS else "" for network in "AT"]
        assert re.fullmatch(rf"\| {re.escape(name)} \| {ratio}{limits[0]} \| {ratio}{limits[1]} \|", row), row


def test_what_is_not_installed_or_fails_is_said():
    def missing(training):
        import no_such_tool  # noqa: F401

    def broken(training):
        raise RuntimeError("no such\nlayer")

    results = command.ratios(TINY, 4, {"one": missing, "two": broken, "three": lambda _: Tool()}, 1, 1)

    rows = list(command.table({"A": results}, ["one", "two", "three"]))[3:]
    assert rows[:2] == ["| one | not installed: no_such_tool |", "| two | fails: RuntimeError: no such layer |"]
    assert re.fullmatch(r"\| three \| [\d.]+ \[[\d.]+, [\d.]+\] \|", rows[2])


def test_the_profile_names_hooks_and_functions_of_the_adapter_and_adds_up():
    head, _, *rows = profile(TINY, VARIANTS["all hooks, every step"], "all", steps=4, warm_up=2)
    cells = [[cell.strip() for cell in row.strip("|").split("|")] for row in rows]
    micros = {name: float(whole) for name, _, _, whole, _ in cells}
    calls = {name: float(number) for name, number, *_ in cells if number}

    assert head.startswith("| A, all: own time |")
    assert calls["hooks.ActivationHook.on_forward"] == 3
    assert calls["nndiag_torch.loop.TorchLoop._called"] == 4
    assert sum(micros[name] for name in calls) + micros["*functions below the least share*"] == pytest.approx(
        micros["*all of these*"], abs=len(rows)
    )


def test_own_time_is_without_that_of_what_is_called():
    clock = Clock()
    slow = clock.timed("slow", lambda: sum(range(200_000)))
    outer = clock.timed("outer", lambda: slow())

    outer()

    assert clock.own["slow"][0] > 10 * clock.own["outer"][0]


@pytest.mark.parametrize(("options", "tables"), [(["--rounds", "4"], 1), (["--profile"], 2)])
def test_the_command_writes_its_tables(monkeypatch, tmp_path, options, tables):
    monkeypatch.setattr(command, "NETWORKS", {"A": TINY})
    monkeypatch.setattr(sys, "argv", ["overhead_torch", "A", *options, "--markdown", str(tmp_path / "cost.md")])
    monkeypatch.setattr(command, "WARM_UP", 1)
    threads = torch.get_num_threads()
    try:
        status = command.main()
    finally:
        torch.set_num_threads(threads)

    text = (tmp_path / "cost.md").read_text(encoding="utf-8")
    assert sum(line.startswith("| --- |") for line in text.splitlines()) == tables
    assert status == int("**>**" in text)


def test_too_few_rounds_and_what_there_is_not_are_refused(monkeypatch, capsys):
    for arguments, said in (
        (["A", "--rounds", "3"], "wanted 4 or more"),
        (["Z"], "no network Z; there are A, C, B, T"),
        (["A", "--steps", "0"], "--steps 0: wanted 1 or more"),
        (["A", "--only", "none"], "no variant starts with 'none'; there are all hooks"),
    ):
        monkeypatch.setattr(sys, "argv", ["overhead_torch", *arguments])
        with pytest.raises(SystemExit):
            command.main()
        assert said in capsys.readouterr().err
