"""The published programs: they are labelled, Keras' arithmetic is Keras', and one of them goes all the way."""

from __future__ import annotations

import math

import numpy as np
import pytest

pytest.importorskip("sklearn")

from benchmarks.faultbench import codes, keras, score
from benchmarks.faultbench.__main__ import jobs
from benchmarks.faultbench.program import Case
from benchmarks.faultbench.programs import CASES
from benchmarks.faultbench.questions import CASES as QUESTIONS
from benchmarks.faultbench.studies import CASES as STUDIES
from nndiag import nn
from nndiag.statistics import Array

RNG = np.random.default_rng(0)
PROBABILITIES = RNG.dirichlet(np.ones(3), 5)
ONE_HOT = np.eye(3)[[0, 2, 1, 1, 0]]


def test_every_fault_is_mapped_or_out_of_reach() -> None:
    known = {*codes.CHECKS, *codes.OUT_OF_REACH, *codes.NO_FAULT}

    assert all(case.faults and known.issuperset(case.faults) for case in CASES.values())
    assert not set(codes.CHECKS) & set(codes.OUT_OF_REACH)


def test_the_map_names_codes_of_checks() -> None:
    assert all(score.CODE.fullmatch(code) for code in codes.DIAGNOSES)


def test_no_two_cases_share_an_id() -> None:
    assert len(CASES) == len(QUESTIONS) + len(STUDIES)


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_every_program_takes_its_own_data(case: Case) -> None:
    for program in filter(None, (case.program, case.fixed_program)):
        x, y = program.data(0)
        loss = program.trainer(x.shape[1], seed=0).step(x[:8], y[:8])

        assert len(x) == len(y)
        assert isinstance(loss, float)
        assert program.epochs * math.ceil(len(x) / program.batch_size) <= 3000


@pytest.mark.parametrize("case", [case for case in CASES.values() if case.role == "control"], ids=lambda case: case.id)
def test_a_control_has_no_fixed_version(case: Case) -> None:
    assert case.fixed is None


# Keras


@pytest.mark.parametrize(
    ("loss", "outputs", "targets"),
    [
        (keras.MeanSquaredError(), PROBABILITIES, ONE_HOT),
        (keras.MeanAbsoluteError(), PROBABILITIES, ONE_HOT),
        (keras.SumSquaredError(), PROBABILITIES, ONE_HOT),
        (keras.BinaryCrossentropy(), PROBABILITIES, ONE_HOT),
        (keras.BinaryCrossentropy(), PROBABILITIES, np.array([0, 1, 1, 0, 1])),
        (keras.CategoricalCrossentropy(), 2 * PROBABILITIES + 0.1, ONE_HOT),
        (keras.CategoricalCrossentropyFromLogits(), 3 * PROBABILITIES, ONE_HOT),
        (keras.CategoricalCrossentropyFromLogits(), 3 * PROBABILITIES, np.array([0, 4, 1, 2, 3])),
        (keras.SparseCategoricalCrossentropy(), PROBABILITIES, np.array([0, 2, 1, 1, 0])),
        (keras.SparseCategoricalCrossentropyFromLogits(), 3 * PROBABILITIES, np.array([0, 2, 1, 1, 0])),
        (keras.UnclippedCrossEntropy(), PROBABILITIES, ONE_HOT),
        (keras.ClippedCrossEntropy(), PROBABILITIES, ONE_HOT),
        (keras.SumSoftmaxCrossEntropy(), 3 * PROBABILITIES, np.array([0, 2, 1, 1, 0])),
    ],
    ids=lambda value: value.name if isinstance(value, nn.Loss) else "",
)
def test_the_gradient_of_a_loss_is_its_slope(loss: nn.Loss, outputs: Array, targets: Array) -> None:
    loss(outputs, targets)
    gradient = loss.backward().copy()

    assert gradient == pytest.approx(slopes(lambda o: loss(o, targets), outputs), rel=1e-5, abs=1e-6)


@pytest.mark.parametrize("layer", [keras.ELU(), keras.Exponential(), keras.Softplus(), keras.HardSigmoid()])
def test_the_gradient_of_an_activation_is_its_slope(layer: nn.Layer) -> None:
    z = 2 * RNG.standard_normal((4, 3))
    layer.forward(z)
    gradient = layer.backward(np.ones_like(z))

    assert gradient == pytest.approx(slopes(lambda x: float(layer.forward(x).sum()), z), abs=1e-6)


def test_a_shared_layer_is_a_layer_at_every_place() -> None:
    layer = keras.SharedAffine(3, 2, places=4, init=nn.he_normal)
    x = RNG.standard_normal((5, 12)).astype(np.float32)
    weight, bias = (parameter.value for parameter in layer.parameters)

    output = layer.forward(x).copy()
    gradient = layer.backward(np.ones_like(output))

    assert output == pytest.approx(np.hstack([part @ weight.T + bias for part in np.split(x, 4, axis=1)]), abs=1e-5)
    assert gradient == pytest.approx(np.tile(weight.sum(axis=0), (5, 4)), abs=1e-5)


def test_categorical_crossentropy_of_one_unit_is_zero() -> None:
    loss = keras.CategoricalCrossentropy()

    assert loss(np.array([[0.2], [0.9]]), np.array([0, 1])) == pytest.approx(0, abs=1e-6)
    assert not loss.backward().any()


def test_binary_crossentropy_of_a_single_softmax_is_the_share_of_zeros() -> None:
    loss = keras.BinaryCrossentropy()

    assert loss(np.ones((4, 1), np.float32), np.array([0, 1, 1, 1])) == pytest.approx(15.4 / 4, abs=0.01)
    assert not loss.backward().any()


def test_categorical_crossentropy_divides_by_the_sum() -> None:
    assert keras.CategoricalCrossentropy()(np.array([[0.5, 1.5]]), np.array([[0, 1]])) == pytest.approx(-math.log(0.75))


def test_categorical_crossentropy_of_zeros_is_nan() -> None:
    with np.errstate(all="ignore"):
        assert math.isnan(keras.CategoricalCrossentropy()(np.zeros((1, 3)), np.array([[0, 1, 0]])))


def test_binary_crossentropy_holds_one_label_against_both_units() -> None:
    both = keras.BinaryCrossentropy()(np.array([[0.3, 0.7]]), np.array([1]))

    assert both == pytest.approx(-(math.log(0.3) + math.log(0.7)) / 2, abs=1e-5)


def test_decay_divides_the_rate() -> None:
    assert keras.SGD(0.1, decay=0.5).schedule(4) == pytest.approx(0.1 / 3)


@pytest.mark.parametrize(
    ("optimizer", "first"),
    [
        (keras.SGD(0.1), 0.2),
        (keras.SGD(0.1, momentum=0.9, nesterov=True), 0.38),
        (keras.RMSprop(0.1), 0.1 / math.sqrt(0.1)),
        (keras.Adam(0.1), 0.1),
        (keras.Ascent(0.1), -0.1),
        (keras.Nadam(0.1), 0.1 * (0.9 * 0.2 / 0.19 / 2 + 1)),
    ],
    ids=lambda value: type(value).__name__,
)
def test_the_first_update_for_a_gradient_of_two(optimizer: nn.Optimizer, first: float) -> None:
    parameter = nn.Parameter("w", "weight", np.zeros(1, np.float32))
    parameter.gradient[...] = 2

    optimizer.step([parameter])

    assert parameter.value[0] == pytest.approx(-first, rel=1e-5)


def test_accuracy_holds_one_unit_against_a_half() -> None:
    assert keras.accuracy(np.array([[0.6], [0.4]]), np.array([1, 1])) == 0.5
    assert keras.accuracy(np.array([[0.6, 0.4]]), np.array([[0, 1]])) == 0


# Figures


def test_an_interval_is_wilsons() -> None:
    assert score.Share(8, 10).interval == pytest.approx((0.490, 0.943), abs=0.001)
    assert score.Share(0, 0).interval == (0, 1)


def test_a_wrong_name_lowers_precision_and_a_symptom_only_the_strict_one() -> None:
    result = made(headlines=("ND102", "ND502", "ND601"))

    assert result.right(result.named) == ["ND102"]
    assert score.precision([result], 1, headlines=True, diagnoses=False) == score.Share(1, 3)
    assert score.precision([result], 1, headlines=True, diagnoses=True) == score.Share(1, 2)


def test_what_is_known_of_a_control_is_no_blame() -> None:
    control = made("SO-41372874", alarms={"ND005": "fail", "ND202": "warn"})

    assert control.blamed("warn", "fail") == ["ND202"]


def test_what_a_fix_leaves_is_no_blame() -> None:
    fixed = made("TDC-IPS_5", alarms={"ND002": "warn", "ND502": "warn"}, version="fixed")

    assert fixed.blamed("warn", "fail") == ["ND502"]
    assert all(set(case.left) <= set(case.faults) for case in CASES.values())


def test_each_case_has_one_row_for_what_was_said_of_it() -> None:
    results = [
        made(headlines=("ND102", "ND502")),
        made(headlines=("ND601",)),
        made(alarms={"ND607": "warn"}, version="fixed"),
        made("TDC-regr-CLEAN"),
    ]

    assert list(score.by_case(results)) == [
        ("SO-66407123", "OUT_SOFTMAX1", "1 of 2: ND102 ×1", "ND502 ×1, ND601 ×1", "1 of 1", "ND607 warn ×1"),
        ("TDC-regr-CLEAN", "CLEAN", "–", "–", "1 of 1", "none"),
    ]


def test_jobs_leave_out_what_is_faulty() -> None:
    assert list(jobs([CASES["TDC-IPS_5"], CASES["TDC-regr-CLEAN"]], 1, fixed_only=True)) == [
        ("TDC-IPS_5", "fixed", 0),
        ("TDC-regr-CLEAN", "faulty", 0),
    ]


def test_a_single_softmax_is_named_in_a_published_program() -> None:
    results = [score.judge("SO-34311586", "faulty", 0), score.judge("TDC-IPS_5", "fixed", 0)]

    assert results[0].right(results[0].headlines) == ["ND102"]
    assert results[1].sound
    assert "| a true fault named | 100% (1 of 1; 21%–100%)" in score.to_markdown(results, 1)
    assert score.verbose(results[0]).startswith("SO-34311586 faulty seed 0: loss 0.6667")
    assert '"runs"' in score.to_json(results, 1)


def made(
    case: str = "SO-66407123",
    headlines: tuple[str, ...] = (),
    alarms: dict[str, str] | None = None,
    version: score.Version = "faulty",
) -> score.Result:
    """A result that no run gave."""
    return score.Result(case, version, 0, headlines, (), (), alarms or {}, 0.7, 0.9, 100, 1.0)


def slopes(function: object, at: Array, step: float = 1e-6) -> Array:
    """Central differences of `function` for every element of `at`."""
    gradient = np.empty_like(at)
    for place in np.ndindex(at.shape):
        up, down = at.copy(), at.copy()
        up[place] += step
        down[place] -= step
        gradient[place] = (function(up) - function(down)) / (2 * step)  # type: ignore[operator]
    return gradient
