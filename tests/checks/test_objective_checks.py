"""Sick and sound objectives, data, gradients and loops of real trainings: what is named, where, and what keeps quiet."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import nndiag
from nndiag import Checklist, Finding, Report, Run, Verdict, nn, synthetic
from nndiag.checks import ClassImbalance, ConstantOutput, InitialLoss, NoGeneralization, SumReduction
from nndiag.statistics import Array

RNG = np.random.default_rng(0)
Y = np.arange(480) % 3
X = (RNG.standard_normal((480, 8)) + 2.0 * np.eye(3, 8)[Y]).astype(np.float32)
REAL = (X @ RNG.standard_normal((8, 1)) / 3).astype(np.float32)
TAGS = (X[:, :3] > 0.5).astype(np.float32)


def report(model: nn.Sequential, loss: nn.Loss, y: Array = Y, *, x: Array = X, optimizer: nn.Optimizer | None = None,
           validate: bool = True, **options: Any) -> Report:  # fmt: skip
    """What the checklist says of 4 epochs on four fifths of the data, validated on the rest."""
    trainer = nn.Trainer(model, loss, optimizer or nn.SGD(0.05, momentum=0.9), metrics={})
    held_out = (x[384:], y[384:]) if validate else None
    with nndiag.watch(trainer, every=1) as recorder:
        trainer.fit(x[:384], y[:384], validation=held_out, **{"epochs": 4, "batch_size": 16} | options)
    return recorder.check()


def body(outputs: int, *head: nn.Layer) -> nn.Sequential:
    return nn.Sequential([nn.Affine(8, 16), nn.ReLU(), nn.Affine(16, outputs, init="xavier_normal"), *head], seed=0)


class Summed(nn.SoftmaxCrossEntropy):
    def __call__(self, outputs: Array, targets: Array) -> float:
        return super().__call__(outputs, targets) * len(outputs)

    def backward(self) -> Array:
        return super().backward() * np.float32(len(self._p))


class SummedProbabilities(nn.CrossEntropy):
    def __call__(self, outputs: Array, targets: Array) -> float:
        self._count = np.float32(len(outputs))
        return super().__call__(outputs, targets) * len(outputs)

    def backward(self) -> Array:
        return super().backward() * self._count


class OverTheBatch(nn.SoftmaxCrossEntropy):
    """Softmax along the batch instead of along the classes."""

    def __call__(self, outputs: Array, targets: Array) -> float:
        shifted = np.exp(outputs - outputs.max(axis=0))
        self._p, self._q = shifted / shifted.sum(axis=0), np.eye(outputs.shape[1], dtype=np.float32)[targets]
        return float(-np.sum(self._q * np.log(self._p)) / len(outputs))

    def backward(self) -> Array:
        return np.asarray((self._p * self._q.sum(axis=0) - self._q) / len(self._q), np.float32)


class Broadcast(nn.MSE):
    """Outputs (N, 1) against targets (N,): all pairs."""

    def __call__(self, outputs: Array, targets: Array) -> float:
        difference = outputs - targets.ravel()
        self._gradient = np.asarray(2 * difference.mean(axis=1, keepdims=True) / len(outputs), np.float32)
        return float(np.mean(difference.astype(np.float64) ** 2))

    def backward(self) -> Array:
        return self._gradient


class Uphill(nn.SoftmaxCrossEntropy):
    def backward(self) -> Array:
        return -super().backward()


class Climbing(nn.SGD):
    def _update(self, parameter: nn.Parameter, lr: float, decay: float) -> None:
        super()._update(parameter, -lr, decay)


class Accumulating(nn.Affine):
    def backward_parameters(self, gradient: Array) -> None:
        before = [parameter.gradient.copy() for parameter in self.parameters]
        super().backward_parameters(gradient)
        for parameter, old in zip(self.parameters, before, strict=True):
            parameter.gradient += old


class Asleep(nn.Dropout):
    def forward(self, x: Array, training: bool = True) -> Array:
        return super().forward(x, training=False)


class Awake(nn.Dropout):
    def forward(self, x: Array, training: bool = True) -> Array:
        return super().forward(x, training=True)


SICK: dict[str, Callable[[], Report]] = {
    "ND101": lambda: report(body(1, nn.Sigmoid()), nn.BCEWithLogits(), (Y > 0).astype(np.float32)),
    "ND102": lambda: report(body(1, nn.Softmax()), nn.BCEWithLogits(), (Y > 0).astype(np.float32)),
    "ND104": lambda: report(body(1, nn.Sigmoid()), nn.MSE(), REAL),
    "ND105": lambda: report(body(3), nn.CrossEntropy()),
    "ND106": lambda: report(body(3, nn.ReLU()), nn.SoftmaxCrossEntropy()),
    "ND107": lambda: report(body(1), Broadcast(), REAL[:, 0]),
    "ND108": lambda: report(body(3), Summed()),
    "ND110": lambda: report(body(1), nn.BCEWithLogits(), np.where(Y > 0, 1.0, -1.0).astype(np.float32)),
    "ND111": lambda: report(body(3), OverTheBatch()),
    "ND112": lambda: report(
        nn.Sequential([nn.Affine(8, 16), nn.Softmax(), nn.Affine(16, 3)]), nn.SoftmaxCrossEntropy()
    ),
    "ND113": lambda: report(body(3, nn.Dropout(0.5)), nn.SoftmaxCrossEntropy()),
    "ND005": lambda: report(body(3), nn.SoftmaxCrossEntropy(), np.zeros(480, int)),
    "ND007": lambda: report(body(3), nn.SoftmaxCrossEntropy(), np.sort(Y), shuffle=False, validate=False),
    "ND008": lambda: report(
        body(3), nn.SoftmaxCrossEntropy(), x=np.concatenate([X[:384], X[:96]]), y=np.r_[Y[:384], Y[:96]]
    ),
    "ND009": lambda: report(body(3), nn.SoftmaxCrossEntropy(), x=np.concatenate([X[:384], 20 * X[384:]])),
    "ND203": lambda: report(nn.MLP([8, 32, 32, 3], init=nn.normal(1.5)), nn.SoftmaxCrossEntropy()),
    "ND307": lambda: report(nn.MLP([8, 16, 1, 3]), nn.SoftmaxCrossEntropy(), optimizer=nn.SGD(0.01), epochs=6),
    "ND408": lambda: report(body(3), Uphill()),
    "ND901": lambda: report(
        nn.Sequential([Accumulating(8, 16), nn.ReLU(), Accumulating(16, 3)]),
        nn.SoftmaxCrossEntropy(),
        optimizer=nn.SGD(1e-3),
    ),
    "ND902": lambda: report(
        nn.Sequential([nn.Affine(8, 16), nn.Tanh(), Asleep(0.5), nn.Affine(16, 3)]), nn.SoftmaxCrossEntropy()
    ),
    "ND903": lambda: report(
        nn.Sequential([nn.Affine(8, 16), nn.Tanh(), Awake(0.5), nn.Affine(16, 3)]), nn.SoftmaxCrossEntropy()
    ),
}


@pytest.mark.parametrize("code", SICK)
def test_a_real_training_with_the_fault_has_its_headline(code: str) -> None:
    found = SICK[code]()

    assert found.headlines[0] == code
    assert found.verdict in (Verdict.WARN, Verdict.FAIL)


def test_a_climbing_optimiser_is_seen_by_its_updates() -> None:
    found = report(body(3), nn.SoftmaxCrossEntropy(), optimizer=Climbing(0.01))

    assert found.headlines == ("ND408",)
    assert "uphill" in found.findings[0].message


def test_a_log_of_zero_is_named_where_it_appears_first() -> None:
    class Unclipped(nn.CrossEntropy):
        clip = 0.0

    model = nn.Sequential([nn.Affine(8, 3, init=nn.normal(30.0)), nn.Softmax()])
    trainer = nn.Trainer(model, Unclipped(), nn.SGD(0.1), metrics={})
    with nndiag.watch(trainer, every=1) as recorder:
        trainer.fit(X, Y, epochs=1)

    assert "ND801" in [finding.code for finding in recorder.check().findings]


SOUND: dict[str, Callable[[], Report]] = {
    "logits": lambda: report(body(3), nn.SoftmaxCrossEntropy()),
    "probabilities": lambda: report(body(3, nn.Softmax()), nn.CrossEntropy()),
    "label smoothing": lambda: report(body(3), nn.SoftmaxCrossEntropy(label_smoothing=0.1)),
    "labels": lambda: report(body(3), nn.BCEWithLogits(), TAGS, optimizer=nn.Adam(0.02), epochs=8),
    "real": lambda: report(body(1), nn.MSE(), REAL, epochs=8),
    "real, flat targets": lambda: report(body(1), nn.MSE(), REAL[:, 0], epochs=8),
    "dropout": lambda: report(
        nn.MLP([8, 32, 3], dropout=0.3), nn.SoftmaxCrossEntropy(), optimizer=nn.Adam(0.01), epochs=8
    ),
    "batch norm": lambda: report(nn.MLP([8, 32, 3], norm="batch"), nn.SoftmaxCrossEntropy(), epochs=6),
}


@pytest.mark.parametrize("what", SOUND)
def test_sound_objectives_have_no_finding_in_these_families(what: str) -> None:
    found = [finding for finding in SOUND[what]().findings if finding.code[:3] in ("ND0", "ND1", "ND4", "ND8", "ND9")]

    assert found == []


def test_frozen_weights_are_judged_by_what_there_was_to_preserve() -> None:
    def verdict(value: Callable[[Array], Array]) -> Verdict:
        model = nn.MLP([8, 64, 64, 3], seed=0)
        model.parameters[0].value[...] = value(model.parameters[0].value)
        model.parameters[0].frozen = True
        found = report(model, nn.SoftmaxCrossEntropy(), epochs=3)
        return next(check.verdict for check in found.checks if check.code == "ND403")

    assert verdict(lambda fresh: fresh) is Verdict.WARN
    assert verdict(lambda fresh: 0.75 * fresh) is Verdict.PASS


def test_causes_that_were_looked_at_and_not_found_are_ruled_out() -> None:
    rng = np.random.default_rng(1)
    found = report(body(3), nn.SoftmaxCrossEntropy(), rng.permutation(Y), epochs=12)
    finding = next(finding for finding in found.findings if finding.code == "ND707")

    assert "ND009" in finding.ruled_out
    assert "ND009" not in finding.causes
    assert "not:      ND009 validation-shift (checked)" in found.to_text()


def test_what_stands_without_evidence_is_left_to_the_user() -> None:
    finding = Checklist(select="ND707").examine(NoGeneralization.sick()).findings[0]

    assert "ND009" in finding.causes  # not among the checks that were asked


@pytest.mark.parametrize(
    ("weight", "counts", "found"),
    [
        ([0.9, 0.1], (90.0, 10.0), 1),
        ([0.1, 0.9], (90.0, 10.0), 0),
        ([1.0, 1.0], (90.0, 10.0), 0),
        ([0.7, 0.3], (70.0, 30.0), 0),
        ([0.8, 0.15, 0.05], (80.0, 15.0, 5.0), 1),
        (True, (90.0, 10.0), 0),
    ],
)
def test_weights_that_rise_with_the_samples_of_a_class_are_upside_down(
    weight: object, counts: tuple[float, ...], found: int
) -> None:
    labels = {f"label {i}": count for i, count in enumerate(counts)}
    data: synthetic.Statistics = {"entropy": {"target": 0.5}, "count": labels}
    loss = {"name": "CrossEntropyLoss", "task": "classes", "reduction": "mean", "weight": weight}
    run = synthetic.run(train=synthetic.decay(end=0.3), data=data, loss=loss)

    assert ["upside down" in finding.message for finding in findings("ND005", run)] == [True] * found


@pytest.mark.parametrize(("share", "copies", "distinct", "found"), [
    (0.1, 0.4, 0.91, 1), (0.1, 0.4, 0.89, 0), (0.1, 0.02, 0.5, 1), (0.005, 0.4, 1.0, 0), (0.1, 0.4, np.nan, 0),
])  # fmt: skip
def test_copies_of_rows_that_are_measured_are_no_chance(
    share: float, copies: float, distinct: float, found: int
) -> None:
    values = {"overlap": share, "samples": 400.0, "duplicates": copies, "distinct": distinct}
    run = synthetic.run(evaluations={name: {"validation": value} for name, value in values.items()})

    assert len(findings("ND008", run)) == found


@pytest.mark.parametrize(("kind", "found"), [("affine", 1), ("recurrent", 0), ("attention", 0), ("embedding", 0)])
def test_features_of_steps_at_which_sequences_pause_are_a_remark(kind: str, found: int) -> None:
    data: synthetic.Statistics = {"constant_fraction": {"input": 0.8}, "samples": {"input": 640.0}}

    assert len(findings("ND003", synthetic.run(data=data, layers=[{"name": "0", "kind": kind}]))) == found


def test_an_imbalance_that_is_made_up_for_is_sound() -> None:
    run = ClassImbalance.sick()
    named = synthetic.run(
        data={"entropy": {"target": 0.15}, "classes": {"target": 2.0}, "count": {"label 0": 62.0, "label 1": 2.0}},
        outputs={"hits": {"label 0": 60.0, "label 1": 2.0}}, **synthetic.CLASSES,
    )  # fmt: skip

    assert Checklist(select="ND005").examine(run).headlines == ("ND005",)
    assert Checklist(select="ND005").examine(named).verdict is Verdict.PASS


@pytest.mark.parametrize(
    ("entropy", "validation", "label_shift", "headlines"),
    [
        (0.33, 0.5, None, ("ND005",)),  # 48 % of the entropy of two equal classes
        (0.36, 0.5, None, ()),
        (0.33, 0.3, None, ()),
        (0.33, 0.5, 0.3, ("ND005",)),
        (0.33, 0.5, 0.05, ()),
    ],
)
def test_an_imbalance_shows_in_a_validation_that_gains_nothing(
    entropy: float, validation: float, label_shift: float | None, headlines: tuple[str, ...]
) -> None:
    run = synthetic.run(
        train=synthetic.decay(100, start=0.4, end=0.05), validation=dict.fromkeys(range(10, 100, 10), validation),
        data={"entropy": {"target": entropy}, "classes": {"target": 2.0}},
        evaluations={} if label_shift is None else {"label_shift": {"validation": label_shift}}, **synthetic.CLASSES,
    )  # fmt: skip

    assert Checklist(select="ND005").examine(run).headlines == headlines


@pytest.mark.parametrize(
    ("name", "first", "last", "headlines"),
    [
        ("accuracy", 0.970, 0.974, ("ND005",)),
        ("accuracy", 0.970, 0.976, ()),  # it moves
        ("accuracy", 0.945, 0.945, ("ND109",)),  # another share than that of the most common class
        ("auc", 0.970, 0.974, ()),
    ],
)
def test_a_rare_class_that_is_never_named_harms_who_goes_by_accuracy(
    name: str, first: float, last: float, headlines: tuple[str, ...]
) -> None:
    values = np.full(100, np.nan)
    values[9::10] = np.linspace(first, last, 10)
    run = synthetic.run(
        train=synthetic.decay(start=0.14, end=0.08), metrics={name: {"validation": values}},
        data={"entropy": {"target": 0.135}, "classes": {"target": 2.0}, "count": {"label 0": 62.0, "label 1": 2.0}},
        outputs={"hits": {"label 0": 62.0, "label 1": 0.0}}, **synthetic.CLASSES,
    )  # fmt: skip

    assert Checklist(select="ND005,ND109").examine(run).headlines == headlines


@pytest.mark.parametrize(("entropy", "headlines"), [(0.2, ("ND005",)), (0.22, ("ND707",))])
def test_a_training_that_settles_at_the_shares_of_few_labels_has_an_imbalance(
    entropy: float, headlines: tuple[str, ...]
) -> None:
    """29 and 32 % of the entropy of two equal classes."""
    run = synthetic.run(
        steps=200, train=np.full(200, entropy), validation=dict.fromkeys(range(20, 200, 20), 0.4),
        updates={"ratio": {"w": 1e-3}}, data={"entropy": {"target": entropy}, "classes": {"target": 2.0}},
        **synthetic.CLASSES,
    )  # fmt: skip

    assert Checklist(select="ND005,ND707").examine(run).headlines == headlines


def test_a_bad_start_explains_a_loss_that_ends_high() -> None:
    train = np.r_[40.0, np.full(99, 2.5)]
    run = synthetic.run(train=train, data={"entropy": {"target": 2.3}}, **synthetic.CLASSES)
    found = Checklist(select="ND201,ND702").examine(run)

    assert InitialLoss().not_checked(run) is None
    assert found.headlines == ("ND201",)


def told(loss: dict[str, Any], outputs: dict[str, float] | None = None, targets: dict[str, float] | None = None,
         **meta: Any) -> Run:  # fmt: skip
    """A run of which an adapter has seen what the loss is made of; statistics of outputs and targets by name."""
    seen = {"width": 3.0, "rows": 64.0, "min": -3.0, "max": 3.0, "row_sum_min": -2.0, "row_sum_max": 2.0}
    wanted = {"width": 1.0, "integer": 1.0, "min": 0.0, "max": 2.0}
    frame: dict[str, dict[str, Any]] = {}
    for column, values in (("outputs", seen | (outputs or {})), ("targets", wanted | (targets or {}))):
        for statistic, value in values.items():
            frame.setdefault(statistic, {})[column] = value
    return synthetic.run(outputs=frame, loss=loss, **meta)


def findings(code: str, run: Run) -> list[Finding]:
    return list(Checklist(select=code).examine(run).findings)


@pytest.mark.parametrize(
    ("head", "width", "outputs", "found"),
    [
        ("tanh", 10, (-0.9, 0.99), ["ND104"]),
        ("tanh", 2, (-0.9, 0.99), ["ND104"]),
        ("tanh", 1, (-0.9, 0.99), ["ND104"]),
        ("tanh", 10, (-3.6, 3.9), []),  # scaled since
        ("affine", 10, (-0.9, 0.99), []),
        ("softplus", 10, (0.0, 0.99), []),
    ],
)
def test_logits_that_end_at_one_are_named_where_nothing_scales_them(
    head: str, width: int, outputs: tuple[float, float], found: list[str]
) -> None:
    values = {"width": {"outputs": float(width)}, "min": {"outputs": outputs[0]}, "max": {"outputs": outputs[1]}}
    loss = synthetic.CLASSES["loss"] if width > 1 else {"name": "BCEWithLogits", "task": "binary", "expects": "logits"}
    run = synthetic.run(outputs=values, layers=[{"name": "output", "kind": head}], loss=loss)

    assert [finding.code for finding in findings("ND104", run)] == found


def test_logits_behind_tanh_are_named_by_the_least_that_their_loss_can_be() -> None:
    (finding,) = (f for f in report(body(3, nn.Tanh()), nn.SoftmaxCrossEntropy()).findings if f.code == "ND104")

    assert finding.value == pytest.approx(np.log(1 + 2 * np.exp(-2)), rel=1e-6)
    assert "cannot fall below 0.24" in finding.message


@pytest.mark.parametrize(
    ("before", "code", "words"),
    [
        (nn.Sigmoid, "ND101", "the softmax at the end is taken of what a sigmoid puts out"),
        (nn.Softmax, "ND101", "the softmax at the end is taken of what a softmax puts out"),
        (nn.ReLU, "ND106", "a ReLU sits before the softmax at the end"),
        (nn.Tanh, "ND104", "logits from -1 to 1 only (tanh): CrossEntropy cannot fall below 0.24"),
        (nn.LeakyReLU, "", ""),
    ],
)
def test_what_stands_before_a_softmax_at_the_end_is_named(before: type[nn.Layer], code: str, words: str) -> None:
    found = [f for f in report(body(3, before(), nn.Softmax()), nn.CrossEntropy()).findings if f.code.startswith("ND1")]

    assert [each.code for each in found] == [code] * bool(code)
    assert all(words in each.message for each in found)


@pytest.mark.parametrize(
    ("after", "shape", "found"),
    [(None, 1, ["ND104"]), ("output.tanh", 1, ["ND104"]), ("", 1, []), (None, 2, [])],
    ids=["in order", "told", "something between", "of another shape"],
)
def test_logits_of_a_sigmoid_are_those_right_before_it(after: str | None, shape: int, found: list[str]) -> None:
    layers = [{"name": "output.tanh", "kind": "tanh", "shape": [shape]},
              {"name": "output.sigmoid", "kind": "sigmoid", "shape": [1], "after": after}]  # fmt: skip
    values = {"width": {"outputs": 1.0}, "min": {"outputs": 0.3}, "max": {"outputs": 0.7}}
    loss = {"name": "BCELoss", "task": "binary", "expects": "probabilities"}
    run = synthetic.run(outputs=values, layers=layers, loss=loss)

    assert [finding.code for finding in findings("ND104", run)] == found


@pytest.mark.parametrize(
    ("mean", "now", "bias", "layer", "still", "found"),
    [(0.6, 0.6, "weight", "3", 0.0, 1), (0.4, 0.6, "weight", "3", 0.0, 0), (0.6, 0.4, "weight", "3", 0.0, 0),
     (0.6, 0.6, "bias", "3", 0.0, 0), (0.6, 0.6, "weight", "", 0.0, 0), (0.6, 0.6, "weight", "3", 0.1, 0)],
    ids=["without", "of targets around 0", "that has learned", "with", "with one of its own", "with a column of ones"],
)  # fmt: skip
def test_a_network_without_biases_is_named_where_targets_are_off(
    mean: float, now: float, bias: str, layer: str, still: float, found: int
) -> None:
    layers = [{"name": name, "kind": kind} for name, kind in (("1", "affine"), ("2", "relu"), ("3", "affine"))]
    parameters = [{"name": "1.weight", "kind": "weight", "layer": "1"}, {"name": "3.w", "kind": bias, "layer": layer}]
    run = synthetic.run(
        train=np.full(100, now), layers=layers,
        data={"mean": {"target": mean}, "total_variance": {"target": 1.0}, "constant_fraction": {"input": still}},
        outputs={name: {"outputs": 1.0, "targets": 1.0} for name in ("width", "min", "max")},
        parameters=parameters, loss={"name": "MSE", "task": "real", "expects": "real", "reduction": "mean"},
    )  # fmt: skip

    assert ["no layer has a bias" in each.message for each in findings("ND104", run)] == [True] * found


def test_labels_that_are_all_the_same_want_a_look_at_where_they_are_made() -> None:
    (found,) = (f for f in report(body(1), nn.BCEWithLogits(), np.zeros(480)).findings if f.code == "ND005")

    assert "every label is the same" in found.message
    assert found.fix.startswith("Look at where labels are made")


@pytest.mark.parametrize(
    ("name", "low", "found"),
    [
        ("MeanAbsolutePercentageError", 0.0, 1),
        ("MAPE", -1.0, 1),
        ("MeanAbsolutePercentageError", 0.5, 0),
        ("MAE", 0.0, 0),
    ],
)
def test_an_error_in_percent_wants_targets_that_are_never_zero(name: str, low: float, found: int) -> None:
    outputs = {"width": {"outputs": 1.0, "targets": 1.0}, "integer": {"targets": 0.0}, "min": {"targets": low, "outputs": 0.1},
               "max": {"targets": 3.0, "outputs": 1.0}}  # fmt: skip
    run = synthetic.run(outputs=outputs, loss={"name": name, "task": "real", "expects": "real"})

    assert len(findings("ND105", run)) == found


@pytest.mark.parametrize(
    ("end", "scale", "found"), [(95.0, 100.0, 1), (85.0, 100.0, 0), (0.95, 1.0, 1), (0.85, 1.0, 0), (95.0, None, 0)]
)
def test_an_error_in_percent_that_ends_where_zero_everywhere_is_as_good_is_named(
    end: float, scale: float | None, found: int
) -> None:
    loss = {"name": "MAPE", "task": "real", "expects": "real", "reduction": "mean"}
    loss |= {} if scale is None else {"scale": scale}
    run = told(loss, {"min": 0.1, "max": 1.0}, {"min": 1e-5, "integer": 0.0}, train=np.full(100, end))

    assert len(findings("ND105", run)) == found


@pytest.mark.parametrize(("end", "kinds"), [(0.6, ["training"]), (0.02, [])])
def test_a_binary_loss_of_a_softmax_is_a_remark_where_it_has_learned(end: float, kinds: list[str]) -> None:
    loss = {"name": "BCELoss", "task": "binary", "expects": "probabilities", "reduction": "mean"}
    sums = {"min": 0.0, "max": 1.0, "row_sum_min": 1.0, "row_sum_max": 1.0}
    run = told(loss, sums, {"width": 3.0, "max": 1.0, "row_sum_min": 1.0, "row_sum_max": 1.0},
               train=synthetic.decay(start=0.7, end=end), data={"entropy": {"target": 0.64}})  # fmt: skip

    assert [finding.kind for finding in findings("ND105", run)] == kinds


@pytest.mark.parametrize(("accuracy", "rare", "found"), [(0.97, 10.0, 1), (0.99, 10.0, 0), (0.99, 1.0, 1)])
def test_an_accuracy_that_stands_still_is_named_unless_few_are_left(accuracy: float, rare: float, found: int) -> None:
    """And not where all are taken for the most common class."""
    run = synthetic.run(train=synthetic.decay(end=0.2), metrics={"accuracy": {"validation": accuracy}},
                        data={"count": {"label 0": 100 - rare, "label 1": rare}})  # fmt: skip

    assert len(findings("ND109", run)) == found


@pytest.mark.parametrize(("end", "words"), [(2.29, "too small a network"), (0.5, "from another distribution")])
def test_nothing_learned_at_all_may_be_a_weak_network(end: float, words: str) -> None:
    validation = {20 * (i + 1): 2.3 + 0.02 * i for i in range(10)}
    run = synthetic.run(
        steps=200, train=synthetic.decay(200, end=end, start=2.31), validation=validation, data={"entropy": {"target": 2.3}},
        updates={"ratio": {"a.weight": 1e-3}}, parameters=[{"name": "a.weight", "shape": [3, 3]}], **synthetic.CLASSES,
    )  # fmt: skip
    (finding,) = findings("ND707", run)

    assert any(words in cause for cause in finding.causes)


@pytest.mark.parametrize(("ratio", "end", "rate", "found"), [
    (0.02, 15.0, 1e-3, 0), (0.04, 15.0, 1e-3, 1), (0.02, 60.0, 1e-3, 1), (0.02, 15.0, 2e-3, 1),
])  # fmt: skip
def test_a_sum_whose_rate_was_chosen_for_it_is_a_remark(ratio: float, end: float, rate: float, found: int) -> None:
    loss = {"name": "CrossEntropyLoss", "task": "classes", "expects": "logits", "reduction": "sum"}
    run = told(loss, train=synthetic.decay(start=160.0, end=end), updates={"ratio": {"a.weight": ratio}},
               metrics={"lr": {"train": rate}}, optimizer={"name": "SGD"},
               parameters=[{"name": "a.weight", "shape": [3, 3]}])  # fmt: skip

    assert len(findings("ND108", run)) == found


@pytest.mark.parametrize(("kind", "spread", "inputs", "batch", "found"), [
    ("embedding", 0.9e-6, 0.1, 32.0, 1), ("embedding", 1.1e-6, 0.1, 32.0, 0), ("embedding", 0.0, 0.0, 32.0, 0),
    ("embedding", 0.0, 0.1, 1.0, 0), ("affine", 0.0, 0.1, 32.0, 0),
])  # fmt: skip
def test_an_embedding_that_gets_one_id_alone_is_named(
    kind: str, spread: float, inputs: float, batch: float, found: int
) -> None:
    run = synthetic.run(
        layers=[{"name": "e", "kind": kind}, {"name": "o", "kind": "affine"}],
        activations={"batch_variance": {"e": spread, "o": spread}, "variance": {"e": 1.0, "o": 1.0}},
        data={"variance": {"input": inputs}, "constant_fraction": {"input": 0.0},
              "samples": {"input": batch * np.arange(1.0, 101)}},
    )  # fmt: skip

    assert len(findings("ND003", run)) == found


def test_an_embedding_beside_another_may_get_one_id_alone() -> None:
    run = synthetic.run(
        layers=[{"name": "kind", "kind": "embedding"}, {"name": "o", "kind": "affine"}],
        activations={"batch_variance": {"kind": 0.0, "o": 1.0}, "variance": {"kind": 1.0, "o": 1.0}},
        data={"variance": {"input": 0.1}, "constant_fraction": {"input": 0.0}, "samples": {"input": 640.0}},
    )  # fmt: skip

    assert findings("ND003", run) == []


NLL = {"name": "NLLLoss", "task": "classes", "expects": "log_probabilities", "reduction": "mean"}


@pytest.mark.parametrize(
    ("outputs", "words"),
    [
        ({"min": -3.0, "max": 0.0015}, "fed with outputs from -3 to 0.0015"),
        ({"min": 0.0, "max": 1.0, "row_sum_min": 1.0, "row_sum_max": 1.0}, "fed with the probabilities themselves"),
    ],
)
def test_a_loss_on_logarithms_of_probabilities_takes_nothing_above_zero(outputs: dict[str, float], words: str) -> None:
    (finding,) = findings("ND105", told(NLL, outputs))

    assert words in finding.message
    assert finding.kind == "exact"
    assert findings("ND105", told(NLL, {"min": -3.0, "max": 0.0007})) == []


@pytest.mark.parametrize(
    ("outputs", "kinds"),
    [
        ({"min": 0.0, "max": 7.0, "row_sum_min": 2.0, "row_sum_max": 9.0}, []),
        ({"min": -0.1, "max": 7.0, "row_sum_min": 2.0, "row_sum_max": 9.0}, ["exact"]),
        ({"min": 0.0, "max": 1.0, "row_sum_min": 0.5, "row_sum_max": 1.8}, ["training"]),
    ],
)
def test_outputs_that_the_loss_divides_by_their_sum_may_be_large(outputs: dict[str, float], kinds: list[str]) -> None:
    loss = {"name": "CrossEntropy", "task": "classes", "expects": "probabilities", "normalizes": True}
    run = told(loss, outputs, train=synthetic.decay(end=1.0), data={"entropy": {"target": 2.3}})

    assert [finding.kind for finding in findings("ND105", run)] == kinds


def test_labels_apart_that_have_learned_nearly_all_the_same_are_a_remark() -> None:
    loss = {"name": "CrossEntropy", "task": "classes", "expects": "probabilities", "normalizes": True}
    outputs = {"min": 0.0, "max": 1.0, "row_sum_min": 0.5, "row_sum_max": 1.8}
    run = told(loss, outputs, train=synthetic.decay(end=0.05), data={"entropy": {"target": 2.3}})
    [result] = Checklist(select="ND105").examine(run).checks

    assert result.verdict is Verdict.PASS
    assert "instead of 1" in result.notes[0]


def test_raw_logits_into_a_loss_on_sequences_are_seen_without_a_task() -> None:
    ctc = {"name": "CTCLoss", "expects": "log_probabilities"}

    assert len(findings("ND105", told(ctc))) == 1
    assert findings("ND105", told(ctc, {"max": 0.0})) == []


@pytest.mark.parametrize(("kind", "optimizer"), [("training", "SGD"), ("note", "AdamW"), ("note", "RMSprop")])
def test_a_loss_seen_to_be_a_sum_is_one_whatever_its_gradient(kind: str, optimizer: str) -> None:
    run = told({"name": "BCELoss", "task": "binary", "reduction": "sum"}, optimizer={"name": optimizer})
    (finding,) = SumReduction().examine(run)

    assert finding.kind == kind
    assert "64 times" in finding.message


@pytest.mark.parametrize(
    ("end", "clipping", "kind"),
    [
        (0.9, {"max_norm": 1.0, "gradients": "before"}, "note"),
        (1.4, {"max_norm": 1.0, "gradients": "before"}, "training"),
        (0.9, {"value": 1.0, "gradients": "before"}, "training"),
        (0.9, None, "training"),
    ],
)
def test_a_sum_of_which_clipping_takes_the_scale_off_is_a_remark_where_it_learns(
    end: float, clipping: dict[str, Any] | None, kind: str
) -> None:
    loss = {"name": "CrossEntropyLoss", "task": "classes", "reduction": "sum"}
    run = told(loss, train=64 * synthetic.decay(end=end), optimizer={"name": "SGD"}, clipping=clipping)
    (finding,) = SumReduction().examine(run)

    assert finding.kind == kind


def test_a_loss_seen_to_be_a_mean_is_no_sum_however_large_its_gradient() -> None:
    loss = {"name": "CrossEntropyLoss", "task": "classes", "expects": "logits"}
    large = {"gradient_mass": 6400.0}

    assert len(findings("ND108", told(loss, large))) == 1
    assert findings("ND108", told(loss | {"reduction": "mean"}, large)) == []


def test_a_sum_over_probabilities_is_one_by_its_measured_weights() -> None:
    found = report(body(3, nn.Softmax()), SummedProbabilities(), optimizer=nn.SGD(0.01))

    assert found.headlines == ("ND108",)
    assert "is a sum over the 16 samples" in found.findings[0].message


@pytest.mark.parametrize(("samples", "found"), [(7.0, 0), (8.0, 1)])
def test_a_sum_over_a_handful_is_not_judged(samples: float, found: int) -> None:
    run = told({"name": "MSELoss", "task": "real", "reduction": "sum"}, {"rows": samples})

    assert len(findings("ND108", run)) == found


def test_shapes_that_were_seen_to_be_broadcast_are_named() -> None:
    loss = {"name": "L1Loss", "task": "real", "expects": "real", "broadcast": ["(N, 1)", "(N,)"]}
    (finding,) = findings("ND107", told(loss))

    assert "(N, 1) meet targets of shape (N,)" in finding.message
    assert finding.kind == "exact"


@pytest.mark.parametrize(
    ("facts", "words"),
    [
        ({"over_samples": "logsumexp"}, "a logsumexp on the way to the loss runs over axis 0"),
        ({"scrambled": [[8, 60, 6], [8, 6, 60]]}, "(8, 60, 6) is reshaped to (8, 6, 60)"),
        ({"axes_crossed": [[7, 4], [4, 7]]}, "outputs are flattened from (7, 4) and targets from (4, 7)"),
        ({"axes_mixed": [[8, 5, 3], [8, 3, 5]]}, "outputs (8, 5, 3) are reshaped to (8, 3, 5)"),
    ],
)
def test_axes_seen_to_be_taken_for_others_are_named_whatever_the_loss(facts: dict[str, object], words: str) -> None:
    (finding,) = findings("ND111", told(facts, {}))

    assert words in finding.message
    assert finding.kind == "exact"


def test_a_softmax_seen_along_another_axis_is_named() -> None:
    (finding,) = findings("ND111", told(NLL | {"softmax_axis": 0}, {"max": 0.0}))

    assert "runs over axis 0" in finding.message


@pytest.mark.parametrize(("scale", "found"), [(64.0, 1), (32.0, 0), (1.0, 0), (None, 0)])
def test_a_mean_times_the_samples_is_a_sum(scale: float | None, found: int) -> None:
    loss = {"name": "HuberLoss", "task": "real", "expects": "real", "reduction": "mean", "scale": scale}

    assert len(findings("ND108", told(loss))) == found


@pytest.mark.parametrize(("classes", "code"), [(2.0, "ND110"), (3.0, "ND103")])
def test_two_classes_that_are_counted_from_one_want_other_targets_and_no_more_units(classes: float, code: str) -> None:
    loss = {"name": "BCEWithLogitsLoss", "task": "binary", "expects": "logits"}
    run = told(loss, {"width": 1.0}, {"min": 1.0, "max": 2.0}, data={"classes": {"target": classes}})

    assert Checklist(select="ND103,ND110").examine(run).headlines[0] == code


def test_axes_that_a_reshape_mixes_up_are_named() -> None:
    (finding,) = findings("ND111", told(NLL | {"axes_mixed": [[32, 10, 5], [32, 5, 10]]}, {"max": 0.0}))

    assert "outputs (32, 10, 5) are reshaped to (32, 5, 10)" in finding.message
    assert "transpose" in finding.fix


@pytest.mark.parametrize(("rows", "ignored", "found"), [(64.0, 0.1, 1), (65.0, 0.1, 0), (64.0, None, 0)])
def test_a_class_that_the_loss_ignores_is_named_where_each_input_has_one_label(
    rows: float, ignored: float | None, found: int
) -> None:
    loss = {"name": "CrossEntropyLoss", "task": "classes", "expects": "logits", "ignore_index": 0}
    samples = {"samples": {"input": 64.0 * np.arange(1, 101)}}
    run = told(loss if ignored is None else loss | {"ignored": ignored}, {"rows": rows}, data=samples)

    assert ["10%" in finding.message for finding in findings("ND110", run)] == [True] * found


def test_words_that_are_ignored_are_counted_by_the_first_batch() -> None:
    """Later reads of the samples are several batches apart."""
    loss = {"name": "CrossEntropyLoss", "task": "classes", "expects": "logits", "ignore_index": 0, "ignored": 0.3}
    samples = {"samples": {"input": np.append(32.0, 320.0 * np.arange(1, 100))}}

    assert not findings("ND110", told(loss, {"rows": 300.0}, data=samples))


@pytest.mark.parametrize(("low", "found"), [(0.0, 1), (-0.1, 0)])
def test_no_relu_has_put_out_what_is_negative(low: float, found: int) -> None:
    layers = [{"name": "output", "kind": "affine"}, {"name": "output.relu", "kind": "relu"}]
    run = told(NLL, {"min": low, "max": 2.0, "zero_fraction": 0.0}, layers=layers)

    assert len(findings("ND106", run)) == found


def test_clipped_logarithms_of_probabilities_want_a_log_softmax() -> None:
    layers = [{"name": "output", "kind": "affine"}, {"name": "output.relu", "kind": "relu"}]
    (finding,) = findings("ND106", told(NLL, {"min": 0.0, "zero_fraction": 0.5}, layers=layers))

    assert "Put a log-softmax in place" in finding.fix


@pytest.mark.parametrize(
    ("outputs", "targets", "task", "found"),
    [(1.0, 4.0, "real", 1), (1.0, 1.0, "real", 0), (4.0, 4.0, "real", 0), (1.0, 4.0, "binary", 1)],
)
def test_a_single_output_against_rows_of_targets_is_named(
    outputs: float, targets: float, task: str, found: int
) -> None:
    loss = {"name": "MSELoss", "task": task, "expects": "real"}
    run = told(loss, {"width": outputs, "dimensions": 2.0}, {"width": targets, "dimensions": 2.0, "integer": 0.0})

    assert len(findings("ND103", run)) == found


def test_sequences_of_single_values_are_no_rows_of_targets() -> None:
    loss = {"name": "MSELoss", "task": "real", "expects": "real"}
    run = told(loss, {"width": 1.0, "dimensions": 3.0}, {"width": 4.0, "dimensions": 2.0})

    assert Checklist(select="ND103").examine(run).checks[0].verdict is Verdict.NOT_CHECKED


@pytest.mark.parametrize(("column", "row", "found"), [(1.0, 0.5, 1), (1.0, 1.0, 0), (1.01, 0.5, 0)])
def test_labels_as_columns_that_sum_to_one_come_from_a_softmax_over_the_batch(
    column: float, row: float, found: int
) -> None:
    loss = {"name": "BCELoss", "task": "binary", "expects": "probabilities"}
    sums = {"row_sum_min": row, "row_sum_max": row, "column_sum_min": column, "column_sum_max": column}
    run = told(loss, {"width": 2.0, "min": 0.0, "max": 0.5, "rows": 32.0, **sums}, {"width": 2.0})

    assert len(findings("ND111", run)) == found


@pytest.mark.parametrize(("low", "found"), [(1.0, True), (0.999, False)])
def test_a_softmax_over_a_single_channel_is_the_cause_of_a_high_first_loss(low: float, found: bool) -> None:
    outputs = {"batch_variance": 0.0, "width": 400.0, "rows": 16.0, "min": low, "max": 1.0}
    run = synthetic.run(
        train=np.full(100, 89.0), outputs={name: {"outputs": value} for name, value in outputs.items()},
        data={"entropy": {"target": 0.3}}, loss={"name": "BCELoss", "task": "binary", "expects": "probabilities"},
    )  # fmt: skip
    report = Checklist(select="ND102,ND201").examine(run)

    assert (report.headlines == ("ND102",)) is found
    assert any("always 1" in finding.message for finding in report.findings) is found


@pytest.mark.parametrize(
    ("scales", "found"),
    [
        ((1.0, 1.0, 1.5), 0),  # two small weights that fit a scheme by chance, and a large one that fits none
        ((1.0, 1.0, 1.0), 3),
        ((1.5, 1.5, 1.0), 1),
    ],
)
def test_most_numbers_of_frozen_weights_say_whether_there_was_something_to_preserve(
    scales: tuple[float, ...], found: int
) -> None:
    shapes = ([6, 25], [12, 54], [64, 108])
    frozen = [
        {"name": f"w{i}", "shape": shape, "frozen": True, "std": scale * (1 / (3 * shape[1])) ** 0.5}
        for i, (shape, scale) in enumerate(zip(shapes, scales, strict=True))
    ]
    run = synthetic.run(
        train=synthetic.decay(), gradients={"norm": {"head": 1.0, **{p["name"]: 0.0 for p in frozen}}},
        parameters=[*frozen, {"name": "head", "shape": [10, 64]}], data={"entropy": {"target": 2.3}}, **synthetic.CLASSES,
    )  # fmt: skip

    assert len(findings("ND403", run)) == found


@pytest.mark.parametrize(("errors", "found"), [(0.0, 1), (3.5, 1), (-4.5, 0), (None, 1)])
def test_frozen_weights_whose_mean_is_not_0_were_trained(errors: float | None, found: int) -> None:
    std = (1 / (3 * 48)) ** 0.5
    base = {"name": "base", "shape": [64, 48], "frozen": True, "std": std}
    run = synthetic.run(
        train=synthetic.decay(), gradients={"norm": {"head": 1.0, "base": 0.0}},
        parameters=[base | {"mean": errors and errors * std / (64 * 48) ** 0.5}, {"name": "head", "shape": [10, 64]}],
        data={"entropy": {"target": 2.3}}, **synthetic.CLASSES,
    )  # fmt: skip

    assert len(findings("ND403", run)) == found


@pytest.mark.parametrize(("std", "found"), [(1.0, 1), (0.9, 0)])
def test_a_frozen_embedding_at_its_random_initial_values_is_named(std: float, found: int) -> None:
    run = synthetic.run(
        train=synthetic.decay(), gradients={"norm": {"head": 1.0, "table": 0.0}},
        parameters=[{"name": "table", "kind": "embedding", "shape": [100, 24], "frozen": True, "std": std},
                    {"name": "head", "shape": [2, 24]}],
        data={"entropy": {"target": 2.3}}, **synthetic.CLASSES,
    )  # fmt: skip

    assert len(findings("ND403", run)) == found


@pytest.mark.parametrize(
    ("more", "words"),
    [
        ({"awakened": 30.0}, "a feature that has one value throughout training goes 30 times as far"),
        ({"awakened": 10.0}, ""),
        ({"target_mean": 6.5}, "the mean of the validation targets lies 1.2 standard deviations"),
        ({"target_mean": 5.5}, ""),
    ],
)
def test_features_that_awaken_and_targets_that_lie_elsewhere_are_another_validation(
    more: dict[str, float], words: str
) -> None:
    evaluations = {"shift": 0.1, "scale": 1.0, "samples": 400.0} | more
    run = synthetic.run(
        train=synthetic.decay(), evaluations={name: {"validation": value} for name, value in evaluations.items()},
        data={"mean": {"target": 4.0}, "total_variance": {"target": 4.0}},
        loss={"name": "MSE", "task": "real", "expects": "real"},
    )  # fmt: skip

    assert [words in each.message for each in findings("ND009", run)] == [True] * bool(words)


@pytest.mark.parametrize(("shift", "scale", "end", "found"),
                         [(1.5, 1.0, 0.2, 0), (1.5, 1.0, 0.6, 1), (0.9, 1.0, 0.6, 0), (0.0, 3.0, 0.2, 1)])  # fmt: skip
def test_a_series_with_a_trend_is_a_remark_where_validation_comes_most_of_its_way(
    shift: float, scale: float, end: float, found: int
) -> None:
    evaluations = {"shift": shift, "scale": scale, "label_shift": np.nan, "samples": 400.0}
    run = synthetic.run(
        train=synthetic.decay(start=1.0, end=0.05), validation={20 * (i + 1): end + 0.02 * (4 - i) for i in range(5)},
        evaluations={name: {"validation": value} for name, value in evaluations.items()},
        data={"total_variance": {"target": 1.0}}, loss={"name": "MSELoss", "task": "real", "expects": "real"},
    )  # fmt: skip

    assert len(findings("ND009", run)) == found


@pytest.mark.parametrize(("last", "found"), [(0.9, 0), (0.99, 1)])
def test_an_even_fall_of_few_validations_is_no_noise(last: float, found: int) -> None:
    fall = {40 * (i + 1): 1.2 - (1.2 - last) * (1 - 0.5**i) / (1 - 0.5**5) for i in range(6)}
    run = synthetic.run(
        steps=240, train=synthetic.decay(240, start=1.1, end=0.8), validation=fall,
        data={"total_variance": {"target": 1.0}}, loss={"name": "MSELoss", "task": "real", "expects": "real"},
    )  # fmt: skip

    assert len(findings("ND707", run)) == found


@pytest.mark.parametrize(
    ("accuracy", "part", "loss", "rows", "found"),
    [
        (0.64, "validation", {}, 32.0, 1),  # ln 2 / 4 allows a quarter of wrong decisions
        (0.66, "validation", {}, 32.0, 0),
        (0.64, "train", {}, 32.0, 1),  # with a training loss no higher
        (0.2, "train", {"train": 0.6}, 32.0, 0),  # of augmented batches
        (0.64, "validation", {"label_smoothing": 0.1}, 32.0, 0),
        (0.64, "validation", {"weight": [1, 2]}, 32.0, 0),
        (0.64, "validation", {"reduction": "sum"}, 32.0, 0),
        (0.64, "validation", {"name": "MSELoss"}, 32.0, 0),
        (0.64, "validation", {}, 320.0, 0),  # one for each word
        (65.0, "validation", {}, 32.0, 0),  # per cent
    ],
)
def test_an_accuracy_below_what_its_loss_allows_is_none_of_its_decisions(
    accuracy: float, part: str, loss: dict[str, Any], rows: float, found: int
) -> None:
    about = {"name": "CrossEntropyLoss", "task": "classes", "expects": "logits", "reduction": "mean", **loss}
    train = about.pop("train", np.log(2) / 4)
    values = np.full(100, np.nan)
    values[[24, 49, 74, 99]] = accuracy
    run = synthetic.run(
        train=np.full(100, train), validation=dict.fromkeys((24, 49, 74, 99), np.log(2) / 4),
        metrics={"accuracy": {part: values}}, data={"samples": {"input": 32.0}},
        outputs={"rows": {"outputs": rows}, "width": {"outputs": 3.0, "targets": 1.0}, "integer": {"targets": 1.0}},
        loss=about,
    )  # fmt: skip

    assert len(findings("ND109", run)) == found


@pytest.mark.parametrize(
    ("looked", "different", "classes", "validates", "found", "remarks"),
    [
        (512.0, 2.0, 1.0, True, ["ND006"], 0),  # all of one class: the harm is plain
        (512.0, 2.0, 1.0, False, ["ND005"], 1),
        (512.0, 19.0, 2.0, True, [], 1),
        (512.0, 21.0, 2.0, True, [], 0),
        (150.0, 19.0, 2.0, True, [], 0),  # each has come less than eight times
        (512.0, 500.0, 2.0, True, [], 0),
        (np.nan, np.nan, 2.0, True, [], 0),
    ],
)
def test_a_few_samples_that_are_drawn_time_and_again_are_few(
    looked: float, different: float, classes: float, validates: bool, found: list[str], remarks: int
) -> None:
    run = synthetic.run(
        train=synthetic.decay(), validation={50: 0.5, 100: 0.3} if validates else None,
        data={"samples": {"input": np.arange(100) * 32.0}, "examined": {"input": looked}, "distinct": {"input": different},
              "classes": {"target": classes}, "width": {"target": 1.0}, "entropy": {"target": math.log(classes)}},
        loss={"name": "CrossEntropyLoss", "task": "classes"},
    )  # fmt: skip
    examined = Checklist(select=["ND005", "ND006"]).examine(run)
    notes = [note for check in examined.checks for note in check.notes]

    assert list(examined.headlines) == found
    assert ["drawn time and again" in note for note in notes] == [True] * remarks


HE = math.sqrt(2 / 32)


@pytest.mark.parametrize(("low", "found"), [(0.0, ["ND110"]), (-1.0, [])])
def test_a_soft_margin_wants_labels_of_both_signs(low: float, found: list[str]) -> None:
    outputs = {"integer": {"targets": 1.0}, "width": {"outputs": 1.0, "targets": 1.0},
               "min": {"targets": low}, "max": {"targets": 1.0}}  # fmt: skip
    run = synthetic.run(outputs=outputs, loss={"name": "SoftMarginLoss", "expects": "real", "reduction": "mean"})

    assert [finding.code for finding in findings("ND110", run)] == found


@pytest.mark.parametrize(("rate", "found"), [(0.95, ["ND508"]), (0.5, []), (None, [])])
def test_inputs_that_are_dropped_count_where_the_layer_says_how_many(rate: float | None, found: list[str]) -> None:
    layers = [{"name": "0", "kind": "dropout", "rate": rate}, {"name": "1", "kind": "affine"}]
    run = synthetic.run(activations={"zero_fraction": {"0": 0.95, "1": 0.0}}, layers=layers)

    assert [finding.code for finding in findings("ND508", run)] == found


@pytest.mark.parametrize(("rate", "found", "remarks"), [(0.4, 0, 0), (0.99, 1, 0), (1.0, 0, 1), (None, 0, 0)])
def test_running_statistics_of_the_latest_batch_are_named(rate: float | None, found: int, remarks: int) -> None:
    layers = [{"name": "0", "kind": "affine"}, {"name": "1", "kind": "batch_norm", "rate": rate}]
    run = synthetic.run(train=synthetic.decay(), optimizer={"name": "SGD", "lr": 0.1}, layers=layers)
    [result] = (examined := Checklist(select="ND508").examine(run)).checks

    assert (len(examined.findings), len(result.notes)) == (found, remarks)


@pytest.mark.parametrize(
    ("rate", "steps", "mode", "std", "found"),  # of the mode 1 is evaluation, and below 0 are passes an update
    [
        (0.001, 100, 0.0, HE, 1),
        (0.01, 100, -8.0, HE, 0),  # eight passes an update
        (0.02, 30, 0.0, HE, 1),  # 0.98^30 = 0.55
        (0.02, 40, 0.0, HE, 0),  # 0.98^40 = 0.45
        (0.03, 20, 0.0, HE, 0),
        (0.0, 100, 0.0, HE, 0),  # kept as they are
        (0.001, 100, 1.0, HE, 0),  # a normalisation that is evaluated does not gather
        (0.001, 100, 0.0, 0.6 * HE, 0),  # pretrained: they began with what was gathered elsewhere
    ],
)
def test_running_statistics_that_hardly_move_are_named(
    rate: float, steps: int, mode: float, std: float, found: int
) -> None:
    layers = [{"name": "0", "kind": "affine"}, {"name": "1", "kind": "batch_norm", "rate": rate}]
    run = synthetic.run(
        train=synthetic.decay(steps), steps=steps, optimizer={"name": "SGD", "lr": 0.1}, layers=layers,
        loop={"evaluation_mode": max(0.0, mode), "backward_passes": max(1.0, -mode)},
        parameters=[{"name": "0.weight", "shape": [64, 32], "layer": "0", "std": std}],
    )  # fmt: skip

    assert ["still the 0 and 1" in finding.message for finding in findings("ND508", run)] == [True] * found


@pytest.mark.parametrize(
    ("head", "told", "low", "found"),
    [("softplus", True, 0.0, 1), ("relu", True, 0.0, 1), ("affine", True, 0.0, 0), ("tanh", True, 0.0, 0),
     ("softplus", False, 0.0, 0), ("softplus", True, 1.0, 0)],
)  # fmt: skip
def test_rates_where_the_loss_takes_their_logarithms_are_named(head: str, told: bool, low: float, found: int) -> None:
    run = synthetic.run(
        outputs={"integer": {"targets": 1.0}, "width": {"outputs": 1.0, "targets": 1.0}, "min": {"targets": low},
                 "max": {"targets": 9.0}},
        layers=[{"name": "0", "kind": "affine"}, {"name": "1", "kind": head}],
        loss={"name": "PoissonNLLLoss", **({"log_rates": True} if told else {})},
    )  # fmt: skip

    assert ["logarithms of rates" in finding.message for finding in findings("ND105", run)] == [True] * found


def test_the_rate_of_a_batch_norm_is_known_of_the_trainer() -> None:
    model = nn.Sequential([nn.Affine(8, 16), nn.BatchNorm(16, momentum=0.9), nn.ReLU(), nn.Affine(16, 3)], seed=0)

    assert "ND508" in {finding.code for finding in report(model, nn.SoftmaxCrossEntropy()).findings}


@pytest.mark.parametrize(("end", "first"), [(2.3, "ND601"), (0.2, "ND009")])
def test_training_that_comes_to_nothing_is_not_explained_by_the_validation_set(end: float, first: str) -> None:
    run = synthetic.run(
        train=synthetic.decay(end=end), validation={50: 3.0, 75: 3.0, 100: 3.0},
        evaluations={"shift": {"unknown": 1.5}, "scale": {"unknown": 1.0}},
        data={"entropy": {"target": 2.3}}, loss={"name": "CrossEntropyLoss", "task": "classes", "expects": "logits"},
    )  # fmt: skip

    assert Checklist(select="ND009,ND601").examine(run).headlines[0] == first


@pytest.mark.parametrize(
    ("behind", "found"),
    [("flatten", True), ("dropout", True), ("identity", True), ("affine", False), ("average_pooling", False)],
)
def test_what_hands_values_on_is_no_head(behind: str, found: bool) -> None:
    outputs: synthetic.Statistics = {
        "min": {"outputs": 0.0, "targets": -0.8}, "max": {"outputs": 1.0, "targets": 1.8}, "rows": {"outputs": 64.0},
        "width": {"outputs": 64.0, "targets": 64.0}, "dimensions": {"outputs": 2.0, "targets": 2.0},
    }  # fmt: skip
    kinds = {"0": "convolution", "1": "sigmoid", "2": behind}
    run = synthetic.run(
        train=0.6, outputs=outputs, loss={"name": "MSELoss", "task": "real", "expects": "real"},
        data={"total_variance": {"target": 1.0}}, layers=[{"name": name, "kind": kind} for name, kind in kinds.items()],
    )  # fmt: skip

    assert [finding.layer for finding in findings("ND104", run)] == ["1"] * found


@pytest.mark.parametrize(("variance", "found"), [(0.0, True), (1e-9, False)])
def test_a_last_layer_of_ones_is_a_constant_output_where_outputs_are_not_recorded(variance: float, found: bool) -> None:
    """A softmax over a single unit, in a loop that tells of layers alone."""
    activations = {"mean": {"h": 0.4, "p": 1.0}, "variance": {"h": 0.2, "p": variance}}
    report = Checklist("ND102").examine(synthetic.run(activations=activations))

    assert [finding.layer for finding in report.findings] == ["p"] * found
    assert report.checks[0].verdict.name == ("FAIL" if found else "NOT_CHECKED")


# ND102 and ND707


@pytest.mark.parametrize(
    ("within", "whole", "delta", "before"),
    [(0.0011, 1.0, 1e-9, "h1.relu"), (0.0009, 1.0, 1e-9, ""), (0.0009, 0.001, 1e-9, ""), (0.0021, 2.2, 1e-9, ""),
     (0.0011, 1.0, 0.0, "")],
)  # fmt: skip
def test_what_makes_all_samples_alike_lies_behind_the_last_layer_that_varies(
    within: float, whole: float, delta: float, before: str
) -> None:
    layers = {"h1": 0.5, "h1.relu": within, "output": 0.0}
    run = synthetic.run(
        outputs={name: {"outputs": value} for name, value in {"batch_variance": 0.0, "width": 3, "rows": 64}.items()},
        activations={"batch_variance": layers, "variance": dict.fromkeys(layers, whole),
                     "gradient_rms": {"h1": delta, "h1.relu": delta, "output": 1.0}},
        layers=[{"name": "h1", "kind": "affine"}, {"name": "h1.relu", "kind": "relu"}, {"name": "output", "kind": "affine"}],
        **synthetic.CLASSES,
    )  # fmt: skip
    (found,) = ConstantOutput().examine(run)

    assert (f"though what {before} puts out does" in found.message) is bool(before)
    assert bool(found.place) is bool(before)


@pytest.mark.parametrize(
    ("validations", "last", "found"), [(8, 1.86, 1), (8, 1.7, 0), (7, 1.86, 0)], ids=["behind", "coming", "few"]
)
def test_what_is_evaluated_follows_training_from_afar(validations: int, last: float, found: int) -> None:
    steps = 25 * np.arange(1, validations + 1)
    validation = dict(zip(steps.tolist(), np.linspace(2.29, last, validations).tolist(), strict=True))
    run = synthetic.run(
        steps=200, train=synthetic.decay(200, end=0.01), validation=validation, data={"entropy": {"target": 2.3}},
        **synthetic.CLASSES,
    )  # fmt: skip

    assert ["falls each time" in each.message for each in NoGeneralization().examine(run)] == [True] * found


def test_a_loss_that_overflows_says_nothing_of_its_reduction() -> None:
    """In float64 the outputs grow for long before a loss is no number, and the mass of δ is infinite on the way."""
    rng = np.random.default_rng(0)
    x = rng.standard_normal((256, 8))
    trainer = nn.Trainer(nn.MLP([8, 16, 1], dtype=np.float64, seed=0), nn.MSE(), nn.SGD(2.0))
    with np.errstate(all="ignore"), nndiag.watch(trainer, every=1) as recorder:
        trainer.fit(x, x @ rng.standard_normal((8, 1)), epochs=20, batch_size=64)

    assert np.isinf(recorder.run.series("outputs", "gradient_mass", "outputs")).any()
    assert SumReduction().found(recorder.run) == []


@pytest.mark.parametrize(("first", "found"), [(0.1, 1), (0.0, 0)])
def test_outputs_that_become_0_when_hidden_units_die_were_not_dropped(first: float, found: int) -> None:
    zeros = np.r_[first, np.full(99, 0.1)]
    outputs = {"width": 10.0, "min": -3.0, "max": 3.0, "zero_fraction": zeros}
    run = synthetic.run(outputs={name: {"outputs": value} for name, value in outputs.items()}, **synthetic.CLASSES)

    assert len(findings("ND113", run)) == found
