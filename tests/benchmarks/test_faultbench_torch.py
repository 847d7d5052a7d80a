"""The published programs in PyTorch: they are labelled, each of them trains, and what users wrote by hand does what it says."""

from __future__ import annotations

import math
from itertools import islice
from typing import Any

import pytest

pytest.importorskip("sklearn")
pytest.importorskip("torch")

import torch
from torch import nn
from torch.nn import functional

from benchmarks.faultbench import codes, score
from benchmarks.faultbench.program import Case
from benchmarks.faultbench.programs import CASES as NUMPY
from benchmarks.faultbench_torch import layers
from benchmarks.faultbench_torch.program import Program, hold_out, shuffled
from benchmarks.faultbench_torch.programs import CASES
from benchmarks.faultbench_torch.questions import CASES as QUESTIONS
from benchmarks.faultbench_torch.score import Result
from benchmarks.faultbench_torch.studies import CASES as STUDIES
from benchmarks.faultbench_torch.studies import first_hundred, misaligned, spoilt
from nndiag.checklist import Checklist

pytestmark = pytest.mark.frameworks

LOGITS = torch.randn(6, 3, generator=torch.Generator().manual_seed(0))
IDS = torch.tensor([0, 2, 1, 1, 0, 2])
ONE_HOT = functional.one_hot(IDS, 3).float()


def test_every_fault_is_mapped_or_out_of_reach() -> None:
    known = {*codes.CHECKS, *codes.OUT_OF_REACH, *codes.NO_FAULT}

    assert all(case.faults and known.issuperset(case.faults) for case in CASES.values())
    assert all(set(case.left) <= set(case.faults) for case in CASES.values())


def test_faults_are_named_by_codes_of_checks() -> None:
    checks = {check.code for check in Checklist().checks}

    for case in CASES.values():
        assert set(case.faults) <= {*codes.OUT_OF_REACH, *codes.NO_FAULT} or codes.naming(case.faults) & checks


def test_no_two_cases_share_an_id() -> None:
    assert len(CASES) == len(QUESTIONS) + len(STUDIES)
    assert not set(CASES) & set(NUMPY)


def test_published_verdicts_are_of_cases() -> None:
    assert all({*row["yes"], *row["no"]} <= {*CASES, *NUMPY} for row in score.published())


def test_a_control_has_no_fixed_version() -> None:
    assert all(case.fixed is None for case in CASES.values() if case.role == "control")


def versions(case: Case) -> list[Any]:
    """The programs of a case."""
    return [program for program in (case.program, case.fixed_program) if program is not None]


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_every_program_takes_its_own_data(case: Case) -> None:
    for program in versions(case):
        data = program.data(0)
        train, held_out = (data, None) if program.split is None else program.split(data)
        losses = steps(program, train, 3)

        assert all(map(math.isfinite, losses))
        assert held_out is None or len(held_out[0])
        assert 5 <= program.epochs * math.ceil(len(train[0]) / program.batch_size) <= 400


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_data_come_from_the_seed(case: Case) -> None:
    for program in versions(case):
        x, y = program.data(1)
        again, labels = program.data(1)

        assert torch.equal(x, again)
        assert torch.equal(y, labels)
        assert not torch.equal(x, program.data(2)[0])


def steps(program: Program, data: tuple[Any, Any], count: int) -> list[float]:
    """Losses of the first steps of a program, without nndiag."""
    torch.manual_seed(0)
    model = program.model()
    optimizer = program.optimizer(model.parameters())
    losses = []
    for x, y in islice(program.batches(data, program.batch_size, torch.Generator().manual_seed(0)), count):
        loss = program.loss(model(x), y) + (0 if program.penalty is None else program.penalty(model))
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())
    return losses


# What users wrote by hand


def test_an_lstm_by_hand_with_tanh_is_pytorchs() -> None:
    ours, theirs = layers.LSTM(3, 4, nn.Tanh), nn.LSTM(3, 4, batch_first=True)
    take, keep, new, show = torch.cat([theirs.weight_ih_l0, theirs.weight_hh_l0], 1).chunk(4)
    with torch.no_grad():
        ours.cell.weight.copy_(torch.cat([new, take, keep, show]))
        theirs.bias_hh_l0.zero_()
        take, keep, new, show = theirs.bias_ih_l0.chunk(4)
        ours.cell.bias.copy_(torch.cat([new, take, keep, show]))
    x = torch.randn(2, 5, 3)

    torch.testing.assert_close(ours(x), theirs(x)[0])


def test_a_gru_by_hand_keeps_its_state_or_takes_the_candidate() -> None:
    gru, x = layers.GRU(3, 2, nn.ReLU), torch.randn(4, 5, 3)
    with torch.no_grad():
        gru.gates.weight.zero_()
        gru.gates.bias[:] = torch.tensor([-50.0, -50.0, -50.0, -50.0])  # take the candidate, which sees no state
        taken = gru(x)
        gru.gates.bias[:2] = 50.0
        kept = gru(x)
        weight, bias = gru.candidate.weight[:, :3], gru.candidate.bias

    torch.testing.assert_close(taken, torch.relu(x @ weight.T + bias))
    assert not kept.any()


def test_a_masked_lstm_stops_where_a_sequence_ends() -> None:
    lstm = layers.MaskedLSTM(1, 2)
    x = torch.rand(2, 4, 1)
    x[1, 2:] = layers.MASK

    torch.testing.assert_close(lstm(x)[1:], lstm(x[1:, :2]))


def test_cross_entropies_by_hand_are_right_for_what_they_are_meant_for() -> None:
    right, p = functional.cross_entropy(LOGITS, IDS), LOGITS.softmax(1)

    torch.testing.assert_close(layers.one_hot_cross_entropy(LOGITS, ONE_HOT), right)
    torch.testing.assert_close(layers.clamped_cross_entropy(p, ONE_HOT), right)
    torch.testing.assert_close(layers.nll_of_probabilities(p, IDS), right)
    torch.testing.assert_close(layers.sum_of_logs(p, ONE_HOT), 6 * right)


def test_their_faults_are_in_them() -> None:
    right = functional.cross_entropy(LOGITS, IDS)
    broadcast = -(IDS * LOGITS.log_softmax(1).sum(1)).mean()
    wrong_axis = functional.nll_loss((LOGITS - LOGITS.logsumexp(0)), IDS)

    assert layers.sum_of_logs(torch.tensor([[0.0, 1.0]]), torch.tensor([[0.0, 1.0]])).isnan()
    torch.testing.assert_close(layers.one_hot_cross_entropy(LOGITS, IDS.unsqueeze(1)), broadcast)
    torch.testing.assert_close(layers.softmax_over_the_batch(LOGITS, IDS), wrong_axis)
    assert not torch.isclose(wrong_axis, right)


def test_a_head_in_forward_is_in_no_optimiser() -> None:
    model = layers.HeadInForward(nn.Flatten(), nn.Linear(4, 3))

    assert model(torch.ones(2, 1, 4)).shape == (2, 10)
    assert [tuple(p.shape) for p in model.parameters()] == [(3, 4), (3,)]
    assert not torch.equal(model(torch.ones(1, 4)), model(torch.ones(1, 4)))


# What is done to data


def test_batches_are_shuffled_rows() -> None:
    x = torch.arange(10)
    batches = list(shuffled((x, 2 * x), 4, torch.Generator().manual_seed(0)))

    assert [len(part) for part, _ in batches] == [4, 4, 2]
    assert all(torch.equal(2 * part, y) for part, y in batches)
    assert sorted(torch.cat([part for part, _ in batches]).tolist()) == list(range(10))
    assert not torch.equal(torch.cat([part for part, _ in batches]), x)


def test_misaligned_batches_keep_the_labels_where_they_were() -> None:
    x = torch.arange(10)
    inputs, labels = (
        torch.cat(part) for part in zip(*misaligned((x, x), 4, torch.Generator().manual_seed(0)), strict=True)
    )

    assert torch.equal(labels, x)
    assert not torch.equal(inputs, x)
    assert sorted(inputs.tolist()) == list(range(10))


def test_spoilt_batches_are_noisy_and_erased() -> None:
    x = torch.ones(50, 1, 8, 8)
    ((spoilt_x, _),) = spoilt((x, torch.zeros(50)), 50, torch.Generator().manual_seed(0))

    assert (spoilt_x == 0).all(0).sum() == 16
    assert (spoilt_x - 1).abs()[spoilt_x != 0].max() <= 0.5
    assert float((spoilt_x == 1).float().mean()) == pytest.approx(0.375, abs=0.03)
    assert torch.equal(x, torch.ones(50, 1, 8, 8))


def test_splits() -> None:
    x = torch.arange(200)
    (train, _), (held_out, _) = hold_out(0.25)((x, x))

    assert (train[-1], held_out[0], len(held_out)) == (149, 150, 50)
    assert len(first_hundred((x, x))[0][0]) == 200
    assert torch.equal(first_hundred((x, x))[1][0], x[:100])


# Judged


def test_a_single_softmax_is_named_in_a_published_program() -> None:
    result = score.judge("SO-70148149", "faulty", 0, Result)

    assert isinstance(result, Result)
    assert result.right(result.headlines) == ["ND102"]
    assert "| SO-70148149 | OUT_SOFTMAX1 LR_LOW REG_TOO_STRONG | 1 of 1: ND102 ×1 |" in score.to_markdown([result], 1)


def test_two_runs_from_one_seed_are_the_same() -> None:
    first, second = (score.judge("SO-51901386", "faulty", 1, Result) for _ in range(2))

    assert (first.loss, first.skill, first.messages, first.alarms) == (
        second.loss, second.skill, second.messages, second.alarms,
    )  # fmt: skip
