"""What an adapter tells of the loop, and the checks that decide on it: ND901 to ND904, ND504, ND403, ND404, ND801, ND804."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from sound_programs import some_digits

import nndiag
from nndiag import Checklist, Finding, Report, Verdict, nn, synthetic
from nndiag.check import Check
from nndiag.checks import (
    ClippedAlways,
    EvaluationModeTraining,
    GradientSign,
    GradientsNotCleared,
    Nonfinite,
    ScalerSkips,
    StepNeverCalled,
    SymmetricWeights,
    TrainingModeEvaluation,
    UnoptimizedParameter,
    UntouchedParameter,
    ZeroGradient,
)
from nndiag.frames import EVALUATION, LOOP
from nndiag.run import Run
from nndiag.statistics import Array


def findings(check: Check, run: Run) -> list[Finding]:
    assert check.not_checked(run) is None
    return [found for found in check.examine(run) if found.kind != "note"]


def notes(check: Check, run: Run) -> list[str]:
    assert check.not_checked(run) is None
    return [found.message for found in check.examine(run) if found.kind == "note"]


def every(share: float, steps: int = 100) -> Array:
    """1 on about this share of the steps, evenly spread, 0 on the others."""
    return np.diff(np.floor(share * np.arange(steps + 1) + 1e-9))


# ND901


def loop(**flags: Any) -> dict[str, Any]:
    return {"loop": {"backward_passes": 1.0, "updates": 1.0, "skipped_updates": 0.0} | flags}


@pytest.mark.parametrize(("share", "kinds"), [(0.9, ["exact"]), (0.7, ["note"]), (0.2, ["note"]), (0.05, []), (0, [])])
def test_gradients_that_were_kept_on_most_iterations_are_a_fact(share: float, kinds: list[str]) -> None:
    run = synthetic.run(**loop(gradients_kept=every(share)))

    assert GradientsNotCleared().not_checked(run) is None
    assert [found.kind for found in GradientsNotCleared().examine(run)] == kinds


def test_the_first_iteration_has_nothing_to_keep() -> None:
    assert findings(GradientsNotCleared(), synthetic.run(steps=6, **loop(gradients_kept=[0, 1, 1, 1, 1, 1])))
    assert GradientsNotCleared().not_checked(synthetic.run(steps=5, **loop(gradients_kept=[0, 1, 1, 1, 1])))


def test_micro_batches_in_rows_of_their_own_collect_gradients() -> None:
    run = synthetic.run(**loop(gradients_kept=every(0.75), updates=1 - every(0.75)))

    assert not list(GradientsNotCleared().examine(run))


@pytest.mark.parametrize("kept", [0.0, 1.0])
def test_what_the_loop_says_of_kept_gradients_stands_above_what_they_look_like(kept: float) -> None:
    sick = GradientsNotCleared.sick()
    flags = synthetic.run(**loop(gradients_kept=np.r_[0.0, np.full(99, kept)]))

    (*found,) = findings(GradientsNotCleared(), Run(sick.meta, {**sick.tables, **flags.tables}))
    assert ["in 100% of 99 iterations" in finding.message for finding in found] == [True] * int(kept)


def test_a_flag_that_is_not_known_leaves_the_word_to_the_values() -> None:
    sick = GradientsNotCleared.sick()
    flags = synthetic.run(**loop(gradients_kept=np.nan))

    (found,) = findings(GradientsNotCleared(), Run(sick.meta, {**sick.tables, **flags.tables}))
    assert found.parameter == "output.bias"


# ND902 and ND903

DROPOUT = [{"name": "h1", "kind": "affine"}, {"name": "h1.dropout", "kind": "dropout", "rate": 0.5},
           {"name": "output", "kind": "affine"}]  # fmt: skip
NORM = [{"name": "h1", "kind": "affine"}, {"name": "h1.norm", "kind": "batch_norm"}]
PLAIN = [{"name": "h1", "kind": "affine"}, {"name": "h1.norm", "kind": "layer_norm"},
         {"name": "h1.dropout", "kind": "dropout", "rate": 0.0}]  # fmt: skip


@pytest.mark.parametrize("layers", [DROPOUT, NORM])
def test_evaluation_mode_is_told_from_where_it_lasts(layers: list[dict[str, Any]]) -> None:
    run = synthetic.run(**loop(evaluation_mode=np.arange(100) >= 40), layers=layers)

    (found,) = findings(EvaluationModeTraining(), run)
    assert (found.first_step, found.last_step, found.kind) == (40, 99, "exact")
    assert "60 of 100" in found.message


@pytest.mark.parametrize(("frozen", "found"), [(("base", "base.norm"), 0), (("base",), 1), ((), 1)])
def test_a_frozen_base_in_evaluation_mode_is_how_it_should_be(frozen: tuple[str, ...], found: int) -> None:
    """Only behind the first parameter that is trained the mode matters; of a normalisation that trains, too."""
    kinds = {"base": "affine", "base.norm": "batch_norm", "head": "affine"}
    parameters = [{"name": f"{name}.weight", "layer": name, "frozen": name in frozen} for name in kinds]
    layers = [{"name": name, "kind": kind} for name, kind in kinds.items()]
    run = synthetic.run(**loop(evaluation_mode=1.0), layers=layers, parameters=parameters)

    assert len(Checklist(select="ND902").examine(run).findings) == found


def test_a_pass_in_evaluation_mode_now_and_then_is_no_training_in_it() -> None:
    assert not findings(EvaluationModeTraining(), synthetic.run(**loop(evaluation_mode=every(0.5)), layers=DROPOUT))


@pytest.mark.parametrize("check", [EvaluationModeTraining(), TrainingModeEvaluation()])
def test_where_the_mode_makes_no_difference_there_is_nothing_to_check(check: Check) -> None:
    run = synthetic.run(**loop(evaluation_mode=1.0, training_mode=1.0), layers=PLAIN)

    assert "makes no difference" in (check.not_checked(run) or "")


def test_a_layer_in_evaluation_mode_while_the_network_trains_is_a_remark() -> None:
    zeros = {"h1": 0.0, "h1.dropout": 0.0, "output": 0.0}
    run = synthetic.run(**loop(evaluation_mode=0.0), activations={"zero_fraction": zeros}, layers=DROPOUT)

    assert not findings(EvaluationModeTraining(), run)
    assert notes(EvaluationModeTraining(), run) == [
        "h1.dropout drops nothing, on all 100 reads; the network as a whole trains"
    ]


@pytest.mark.parametrize(("share", "kind"), [(1.0, "exact"), (0.5, "exact"), (0.4, "note"), (0.0, None)])
def test_evaluations_in_training_mode_are_counted(share: float, kind: str | None) -> None:
    mode = np.where(np.arange(100) % 10 == 0, np.repeat(every(share, 10), 10), np.nan)
    run = synthetic.run(**loop(training_mode=mode), layers=DROPOUT, evaluations={"dropped": {"validation": 1.0}})

    assert TrainingModeEvaluation().not_checked(run) is None
    assert [found.kind for found in TrainingModeEvaluation().examine(run)] == [kind] * (kind is not None)


def test_batch_norm_in_training_mode_is_told_what_it_does() -> None:
    (found,) = findings(TrainingModeEvaluation(), synthetic.run(**loop(training_mode=1.0), layers=NORM))

    assert "batch normalisation" in found.message
    assert "dropout" not in found.message


# ND904


def idle(steps: int = 30, passes: float = 1.0, **more: Any) -> Run:
    """A loop that makes no update."""
    return synthetic.run(steps=steps, loop={"backward_passes": passes, "updates": 0.0}, **more)


@pytest.mark.parametrize(("steps", "passes", "enough"), [(4, 1, False), (5, 1, True), (1, 19, False), (1, 20, True)])
def test_a_loop_without_updates_is_judged_after_some_passes(steps: int, passes: int, enough: bool) -> None:
    assert (StepNeverCalled().not_checked(idle(steps, passes)) is None) is enough
    assert bool(list(StepNeverCalled().examine(idle(steps, passes)))) or not enough


@pytest.mark.parametrize(
    "more",
    [
        {"updates": {"update_norm": {"w": 1e-3}}},
        {"updates": {"weight_norm": {"w": 1 + 0.01 * np.arange(60)}}},
        {"train": synthetic.decay(60)},
    ],
    ids=["updates", "weights", "loss"],
)
def test_updates_by_other_hands_are_a_remark(more: dict[str, Any]) -> None:
    run = idle(60, **more)

    assert not findings(StepNeverCalled(), run)
    assert "yet the network changes" in notes(StepNeverCalled(), run)[0]


@pytest.mark.parametrize("held", [True, False])
def test_a_step_on_something_else_is_not_a_missing_one(held: bool) -> None:
    parameters = [{"name": "h.weight", "shape": [4, 4], "optimized": held}]
    run = synthetic.run(steps=8, loop={"backward_passes": 1.0, "updates": 0.0}, parameters=parameters)
    assert bool(findings(StepNeverCalled(), run)) is held


def test_updates_that_were_left_out_were_called() -> None:
    run = synthetic.run(loop={"backward_passes": 1.0, "updates": 0.0, "skipped_updates": 1.0})

    assert not list(StepNeverCalled().examine(run))


def test_a_loss_without_gradients_has_other_causes() -> None:
    assert not list(StepNeverCalled().examine(idle(gradients={"norm": {"w": 0.0}})))


class Idle(nn.SGD):
    """Never called."""

    def step(self, parameters: Any) -> None:
        pass


class Loop(nndiag.Hook):
    """Tells of the loop, as an adapter would."""

    frame_name = "loop"

    def __init__(self, **flags: float) -> None:
        self.flags = {"backward_passes": 1, "updates": 1, "skipped_updates": 0, "gradients_kept": 0, "evaluation_mode": 0,
                      "loss_scale": 1} | flags  # fmt: skip

    def on_step_end(self) -> None:
        self.recorder.row.buffers["loop"].put("", LOOP, [self.flags[name] for name in LOOP])

    def on_validation(self, values: Any) -> None:
        self.recorder.row.buffers["loop"].put("", EVALUATION, [0.0])


def trained(optimizer: nn.Optimizer, change: Callable[[nndiag.Recorder], Any] | None = None, **flags: float) -> Report:
    """What the checklist says of a network on digits, whose loop is told of by `Loop`."""
    x, y, x_val, y_val = some_digits()
    trainer = nn.Trainer(nn.MLP([64, 32, 10]), nn.SoftmaxCrossEntropy(), optimizer)
    with nndiag.watch(trainer, every=1, strict=True) as recorder:
        Loop(**flags).attach(trainer, recorder)
        trainer.fit(x, y, validation=(x_val, y_val), epochs=12, batch_size=64)
        if change is not None:
            change(recorder)
    return recorder.check()


def test_a_real_loop_that_never_steps_has_one_headline_that_explains_the_rest() -> None:
    report = trained(Idle(0.1), updates=0)

    assert report.headlines == ("ND904",)
    assert report.verdict is Verdict.FAIL
    assert {"ND601"} <= {found.code for found in report.findings if found.consequence_of == ("ND904",)}
    assert "ND503" not in {found.code for found in report.findings}


def test_a_sound_loop_that_is_told_of_has_no_finding() -> None:
    report = trained(nn.SGD(0.1, momentum=0.9))

    assert report.findings == ()
    passed = {check.code for check in report.checks if check.verdict is Verdict.PASS}
    assert {"ND504", "ND901", "ND904"} <= passed


# ND504


class Half(nn.SGD):
    """Holds the last layer only."""

    def step(self, parameters: Any) -> None:
        super().step([parameter for parameter in parameters if parameter.name.startswith("output")])


class Body(nn.SGD):
    """Holds all but the last layer."""

    def step(self, parameters: Any) -> None:
        super().step([parameter for parameter in parameters if not parameter.name.startswith("output")])


def left_out(scale: float, *names: str, registered: bool = True) -> Callable[[nndiag.Recorder], None]:
    """Says that no optimiser holds parameters whose names begin so, and that their weights began `scale` times as large."""

    def change(recorder: nndiag.Recorder) -> None:
        changed = [
            {"name": p.name, "kind": p.kind, "shape": p.shape, "layer": p.layer, "std": p.std and p.std * scale,
             "optimized": not p.name.startswith(names), "registered": registered or not p.name.startswith(names)}
            for p in recorder.meta.parameters
        ]  # fmt: skip
        recorder.describe(parameters=changed)

    return change


def test_a_layer_that_no_optimiser_holds_is_named_and_not_said_twice() -> None:
    report = trained(Half(0.1, momentum=0.9), left_out(1.0, "hidden1"))

    assert report.headlines == ("ND504",)
    assert [found.parameter for found in report.findings if found.code == "ND504"] == ["hidden1.weight", "hidden1.bias"]
    assert "ND503" not in {found.code for found in report.findings}


def test_a_pretrained_body_that_no_optimiser_holds_is_a_remark() -> None:
    report = trained(Half(0.1, momentum=0.9), left_out(0.6, "hidden1"))

    assert report.findings == ()
    (check,) = (check for check in report.checks if check.code == "ND504")
    assert check.notes == (
        "no optimiser holds hidden1.weight and 1 more: if that is meant, requires_grad = False saves their gradients",
    )


def test_a_head_that_no_optimiser_holds_is_no_fine_tuning() -> None:
    report = trained(Body(0.1, momentum=0.9), left_out(0.6, "output"))

    assert report.headlines == ("ND504",)


def test_layers_that_the_network_uses_and_does_not_have_are_one_finding() -> None:
    report = trained(Half(0.1, momentum=0.9), left_out(1.0, "hidden1", registered=False))

    assert report.headlines == ("ND504",)
    (found,) = (found for found in report.findings if found.code == "ND504")
    assert "layers that are not its own (hidden1)" in found.message
    assert "nn.ModuleList" in found.fix


def test_a_trained_network_that_is_kept_out_of_sight_is_a_remark() -> None:
    report = trained(Half(0.1, momentum=0.9), left_out(0.6, "hidden1", registered=False))

    assert report.findings == ()
    assert any("not its own" in note for check in report.checks for note in check.notes)


def test_an_optimiser_of_another_model_is_one_finding_and_the_headline() -> None:
    report = trained(Idle(0.1), left_out(1.0, "hidden1", "output"))

    assert report.headlines == ("ND504",)
    (found,) = (found for found in report.findings if found.code == "ND504")
    assert "any parameter" in found.message


@pytest.mark.parametrize(
    "more",
    [{"gradients": {"norm": {"w": 0.0}}}, {"updates": {"update_norm": {"w": 1e-3}}, "gradients": {"norm": {"w": 1.0}}}],
    ids=["no gradient", "moves"],
)
def test_a_parameter_that_feels_nothing_or_moves_all_the_same_is_left_alone(more: dict[str, Any]) -> None:
    run = synthetic.run(**more, loop={"updates": 1.0}, parameters=[{"name": "w", "optimized": False}])

    assert not list(UnoptimizedParameter().examine(run))


def test_without_the_loop_nobody_knows_what_the_optimiser_holds() -> None:
    run = synthetic.run(gradients={"norm": {"w": 1.0}}, parameters=[{"name": "w"}])

    assert "loop.updates" in (UnoptimizedParameter().not_checked(run) or "")


def test_iterations_without_an_update_are_no_updates_that_left_a_parameter_untouched() -> None:
    sick = UntouchedParameter.sick()
    never, half = (synthetic.run(**loop(updates=updates)).tables for updates in (0.0, every(0.5)))

    for tables in (never, half):
        assert "needs 100 updates" in (
            UntouchedParameter().not_checked(Run(sick.meta, {**sick.tables, **tables})) or ""
        )


# ND403


def unreached(reached: bool | None, std: float | None, *, called: str = "h1", train: float = 1.0) -> Run:
    """A weight (64, 32) of h1 whose gradient is missing beside one of the output that has one."""
    parameters = [{"name": "h1.weight", "shape": [64, 32], "layer": "h1", "reached": reached, "std": std},
                  {"name": "output.weight", "shape": [3, 64], "layer": "output", "reached": True}]  # fmt: skip
    return synthetic.run(
        train=train, gradients={"norm": {"h1.weight": 0.0, "output.weight": 1.0}}, parameters=parameters,
        activations={"mean": {called: 0.0, "output": 0.0}}, data={"entropy": {"target": 1.1}}, **synthetic.CLASSES,
    )  # fmt: skip


HE = (2 / 32) ** 0.5


@pytest.mark.parametrize(
    ("reached", "called", "words"),
    [
        (False, "h1", "its layer is detached"),
        (False, "h2", "its layer is unused"),
        (True, "h1", "what follows passes nothing back"),
        (None, "h1", "is exactly 0 on all 100 reads"),
    ],
)
def test_a_zero_gradient_says_which(reached: bool | None, called: str, words: str) -> None:
    (found,) = findings(ZeroGradient(), unreached(reached, HE, called=called))

    assert found.message.endswith(words)
    assert found.kind == "exact"
    assert ("ND301" in found.causes) is (reached is not False)


@pytest.mark.parametrize(
    ("passes", "delta", "words"),
    [(0.0, None, "no backward pass"), (1.0, None, "not connected to the network"), (1.0, 0.1, "cleared in between"),
     (1.0, 0.0, "")],
)  # fmt: skip
def test_an_optimiser_that_never_gets_a_gradient_is_told_why(passes: float, delta: float | None, words: str) -> None:
    run = synthetic.run(
        gradients={"norm": {"h.weight": 0.0, "h.bias": 0.0}}, loop={"backward_passes": passes, "updates": 1.0},
        activations=None if delta is None else {"gradient_rms": {"h": delta}},
    )  # fmt: skip
    found = findings(ZeroGradient(), run)
    assert [words in finding.message for finding in found] == [True] * bool(words)


@pytest.mark.parametrize("loop", [{"backward_passes": 1.0, "updates": 1.0}, None], ids=["told", "untold"])
@pytest.mark.parametrize(("variance", "loss", "found"), [(0.0, 0.9, 0), (1e-3, 0.9, 1), (1e-3, 0.0, 0)])
def test_a_loss_that_passes_nothing_back_is_named_where_outputs_vary(
    variance: float, loss: float, found: int, loop: dict[str, float] | None
) -> None:
    run = synthetic.run(
        gradients={"norm": {"h.weight": 0.0}}, loop=loop, train=np.full(100, loss),
        activations={"gradient_rms": {"h": 0.0}, "batch_variance": {"h": variance}},
    )  # fmt: skip

    assert [f.message.startswith("the loss passes nothing back") for f in findings(ZeroGradient(), run)] == [
        True
    ] * found


@pytest.mark.parametrize("recorded", [{"gradient_rms": {"h": 0.1}}, {"batch_variance": {"h": 1e-3}}], ids=str)
def test_a_loop_that_does_not_tell_of_its_updates_may_record_gradients_that_were_cleared(
    recorded: synthetic.Statistics,
) -> None:
    run = synthetic.run(gradients={"norm": {"h.weight": 0.0}}, activations=recorded)

    assert findings(ZeroGradient(), run) == []


@pytest.mark.parametrize(("updated", "found"), [(0.0, 1), (1.0, 0)])
def test_gradients_of_a_pass_that_is_still_open_are_those_of_no_update(updated: float, found: int) -> None:
    last = [0.0] * 99 + [0.5]
    run = synthetic.run(
        gradients={"norm": {"h.weight": last}}, activations={"gradient_rms": {"h": 0.1}},
        loop={"backward_passes": 1.0, "updates": [1.0] * 99 + [updated]},
    )  # fmt: skip

    assert ["cleared in between" in f.message for f in findings(ZeroGradient(), run)] == [True] * found


@pytest.mark.parametrize("bias", [0.0, 0.1])
def test_biases_of_a_dead_network_have_gradients_and_are_not_said_to_lack_them(bias: float) -> None:
    run = synthetic.run(
        gradients={"norm": {"h.weight": 0.0, "h.bias": bias}}, loop={"backward_passes": 1.0, "updates": 1.0},
        activations={"gradient_rms": {"h": 0.1}},
    )  # fmt: skip
    assert bool(findings(ZeroGradient(), run)) is (bias == 0.0)


@pytest.mark.parametrize(
    ("size", "found"), [(0.0, 0), (4.0, 1), (None, 1)]
)  # all weights alike have a spread of 0, too
def test_factors_that_are_both_zero_get_no_gradient_and_nothing_is_cleared(size: float | None, found: int) -> None:
    names = ("base", "a", "b")
    run = synthetic.run(
        gradients={"norm": dict.fromkeys(("a", "b"), 0.0), "identical_rows": dict.fromkeys(("a", "b"), 1.0)},
        loop={"backward_passes": 1.0, "updates": 1.0}, activations={"gradient_rms": {"h": 0.1}},
        updates=None if size is None else {"weight_norm": dict.fromkeys(("a", "b"), size)},
        parameters=[{"name": name, "shape": [8, 8], "layer": "h", "frozen": name == "base", "std": 0.0} for name in names],
    )  # fmt: skip

    assert ["cleared in between" in each.message for each in findings(ZeroGradient(), run)][:1] == [True] * found
    assert [
        "what they are multiplied with is 0, too" in each.message for each in findings(SymmetricWeights(), run)
    ] == [size == 0] * 2


@pytest.mark.parametrize(("linear", "found"), [(0.1, 1), (0.0, 0)])
def test_gradients_that_only_a_last_softmax_receives_are_not_cleared(linear: float, found: int) -> None:
    run = synthetic.run(
        gradients={"norm": {"h.weight": 0.0}}, loop={"backward_passes": 1.0, "updates": 1.0},
        activations={"gradient_rms": {"h": linear, "softmax": 0.1}},
        layers=[{"name": "h", "kind": "affine", "shape": [1]}, {"name": "softmax", "kind": "softmax", "shape": [1]}],
    )  # fmt: skip

    assert len(findings(ZeroGradient(), run)) == found


@pytest.mark.parametrize(("kind", "train", "found"), [("recurrent", 0.5, ""), ("recurrent", 1.2, "training"),
                                                      ("affine", 0.5, "exact")])  # fmt: skip
def test_weights_of_a_state_that_is_always_zero_are_a_remark_while_their_layer_trains(
    kind: str, train: float, found: str
) -> None:
    names = ("lstm.weight_ih", "lstm.weight_hh", "output.weight")
    run = synthetic.run(
        train=train, gradients={"norm": dict(zip(names, (1.0, 0.0, 1.0), strict=True))}, data={"entropy": {"target": 1.1}},
        parameters=[{"name": name, "shape": [32, 8], "layer": name.partition(".")[0], "reached": True} for name in names],
        layers=[{"name": "lstm", "kind": kind, "shape": [8]}, {"name": "output", "kind": "affine", "shape": [3]}],
        **synthetic.CLASSES,
    )  # fmt: skip

    assert [each.kind for each in findings(ZeroGradient(), run)] == [found] * bool(found)
    assert ["what it multiplies is 0" in note for note in notes(ZeroGradient(), run)] == [True] * (not found)


def test_pretrained_weights_out_of_reach_are_a_remark_while_the_rest_trains() -> None:
    assert notes(ZeroGradient(), unreached(False, 0.6 * HE, train=0.5)) == [
        "h1.weight is out of the reach of the loss: it takes no part in the training"
    ]
    (found,) = findings(ZeroGradient(), unreached(False, 0.6 * HE, train=1.2))
    assert found.kind == "training"


@pytest.mark.parametrize(
    ("beside", "found"),
    [
        ({"fc.lora_a": (2, 32), "fc.lora_b": (3, 2)}, 0),
        ({"fc.lora_A.default.weight": (4, 32), "fc.lora_B.default.weight": (3, 4)}, 1),
        ({"fc.lora_A.default.weight": (2, 32), "fc.lora_B.default.weight": (3, 2)}, 0),
        ({"fc.first.weight": (16, 32), "fc.second.weight": (3, 16)}, 1),
        ({"other.weight": (2, 32), "another.weight": (3, 2)}, 1),
        ({"fc2.down": (2, 32), "fc2.up": (3, 2)}, 1),
    ],
    ids=["parameters", "no low rank", "modules", "layers of their own", "elsewhere", "of another name"],
)
def test_a_last_layer_that_is_frozen_under_an_adapter_is_a_remark(
    beside: dict[str, tuple[int, int]], found: int
) -> None:
    weights = {"body.weight": (32, 8), **beside, "fc.base_layer.weight": (3, 32)}
    parameters = [{"name": name, "shape": list(shape), "std": 0.3, "frozen": name.startswith("fc.base")}
                  for name, shape in weights.items()]  # fmt: skip
    run = synthetic.run(gradients={"norm": {name: float(not name.startswith("fc.base")) for name in weights}},
                        parameters=parameters, train=0.5)  # fmt: skip

    assert len([each for each in findings(ZeroGradient(), run) if "layers before it train" in each.message]) == found


def test_a_frozen_body_is_one_remark_even_if_a_weight_of_it_looks_fresh() -> None:
    body = [{"name": f"layer{i}.weight", "shape": [64, 32], "std": HE * (1.0 if i == 2 else 0.6), "frozen": True}
            for i in range(9)]  # fmt: skip
    head = {"name": "head.weight", "shape": [3, 64], "std": 0.1}
    norms = {parameter["name"]: 0.0 for parameter in body} | {"head.weight": 1.0}
    run = synthetic.run(gradients={"norm": norms}, parameters=[*body, head])

    assert not findings(ZeroGradient(), run)
    assert notes(ZeroGradient(), run) == [
        "9 weights, layer0.weight to layer8.weight, are frozen: they take no part in the training"
    ]


# ND404 and ND408


@pytest.mark.parametrize(
    ("clipping", "words"),
    [
        (None, "describes no clipping"),
        ({"gradients": "unknown"}, "is not known"),
        ({"value": 0.5, "gradients": "before"}, "gradients.rms"),
        ({"max_norm": 1.0, "gradients": "after"}, "from before the clipping"),
    ],
)
def test_clipping_that_cannot_be_judged_says_why(clipping: dict[str, Any] | None, words: str) -> None:
    run = synthetic.run(gradients={"norm": {"w": 1e6}}, clipping=clipping)

    assert words in (ClippedAlways().not_checked(run) or "")


def test_clipping_before_there_are_gradients_is_named_whatever_their_norms() -> None:
    run = synthetic.run(gradients={"norm": {"w": 0.1}}, clipping={"max_norm": 1.0, "gradients": "cleared"})
    (found,) = findings(ClippedAlways(), run)

    assert found.kind == "exact"
    assert "before the backward pass" in found.message


@pytest.mark.parametrize(("norm", "found"), [(3.9, 0), (4.1, 1)])
def test_clipping_to_less_than_a_quarter_holds_back_a_loss_that_still_falls(norm: float, found: int) -> None:
    run = synthetic.run(
        steps=200, train=np.linspace(2.3, 1.5, 200), data={"entropy": {"target": 2.3}}, gradients={"norm": {"w": norm}},
        clipping={"max_norm": 1.0, "gradients": "before"}, **synthetic.CLASSES,
    )  # fmt: skip

    assert len(findings(ClippedAlways(), run)) == found
    assert len(notes(ClippedAlways(), run)) == 1 - found


@pytest.mark.parametrize(("value", "found"), [(0.24, 1), (0.26, 0), (2.0, 0)])
def test_values_clipped_to_less_than_a_quarter_of_their_size_hold_back_a_loss_that_still_falls(
    value: float, found: int
) -> None:
    """Of a tensor of 100 values with a root mean square of 1, beside a small one that is not clipped."""
    run = synthetic.run(
        steps=200, train=np.linspace(2.3, 1.5, 200), data={"entropy": {"target": 2.3}},
        gradients={"norm": {"w": 10.0, "b": 1e-3}, "rms": {"w": 1.0, "b": 1e-4}},
        clipping={"value": value, "gradients": "before"}, **synthetic.CLASSES,
    )  # fmt: skip

    assert ["to at most 0.24 of" in each.message for each in findings(ClippedAlways(), run)] == [True] * found
    assert len(notes(ClippedAlways(), run)) == (value < 1) - found


@pytest.mark.parametrize(("left", "found"), [(2.4, 1), (2.6, 0), (10.0, 0)])
@pytest.mark.parametrize("clipping", [None, {"gradients": "unknown"}, {"value": 9.0, "gradients": "before"}])
def test_what_clipping_has_left_goes_before_what_its_limit_says(
    left: float, found: int, clipping: dict[str, Any] | None
) -> None:
    """Of 10, beside a parameter that is never clipped."""
    run = synthetic.run(
        steps=200, train=np.linspace(2.3, 1.5, 200), data={"entropy": {"target": 2.3}},
        gradients={"norm": {"w": 10.0, "b": 1e-3}, "clipped_norm": {"w": left}},
        clipping=clipping, **synthetic.CLASSES,
    )  # fmt: skip

    assert ClippedAlways().not_checked(run) is None
    assert ["to 0.24 of" in each.message for each in findings(ClippedAlways(), run)] == [True] * found
    assert len(notes(ClippedAlways(), run)) == (left < 10) - found


@pytest.mark.parametrize(("left", "limit", "found"), [(2.4, 10.0, 1), (2.6, 10.0, 0), (2.4, 11.0, 0)])
def test_clipping_of_gradients_that_carry_the_loss_scale_is_a_fault_of_the_loop(
    left: float, limit: float, found: int
) -> None:
    """Unless the limit may have been multiplied with it."""
    run = synthetic.run(
        gradients={"norm": {"w": 10.0}, "clipped_norm": {"w": left}}, loop={"loss_scale": 1024.0},
        clipping={"max_norm": limit, "gradients": "before", "scaled": True},
    )  # fmt: skip

    assert [(each.kind, "unscale_" in each.fix) for each in findings(ClippedAlways(), run)] == [("exact", True)] * found


def test_clipping_after_the_step_is_a_fault_of_the_loop() -> None:
    run = synthetic.run(gradients={"norm": {"w": 0.1}}, clipping={"max_norm": 1.0, "gradients": "used"})
    (found,) = findings(ClippedAlways(), run)

    assert (found.kind, "after the optimiser has stepped" in found.message) == ("exact", True)


@pytest.mark.parametrize(("every", "found"), [(3, 1), (4, 0)])
def test_updates_on_gradients_that_were_used_are_named(every: int, found: int) -> None:
    loop = {"backward_passes": (np.arange(100) % every > 0).astype(float), "updates": 1.0, "gradients_kept": 0.0}

    assert len(findings(GradientsNotCleared(), synthetic.run(loop=loop))) == found


def test_a_step_past_the_gradient_scaler_is_named() -> None:
    loop = {"backward_passes": 1.0, "updates": 1.0, "loss_scale": 65536.0}
    run = synthetic.run(loop=loop, optimizer={"name": "SGD", "scaled": True})
    (found,) = findings(StepNeverCalled(), run)

    assert "multiplied by the loss scale, 65536" in found.message


def test_an_optimiser_of_other_parameters_says_nothing_of_the_backward_pass() -> None:
    run = synthetic.run(
        gradients={"norm": {"w": 0.0}}, loop={"backward_passes": 0.0, "updates": 1.0},
        parameters=[{"name": "w", "kind": "weight", "shape": [4, 4], "optimized": False}],
    )  # fmt: skip

    assert not findings(ZeroGradient(), run)


def experts(used: int, train: float, pattern: str = "experts.{}.weight") -> Run:
    """Eight layers alike, of which so many are ever called."""
    names = [pattern.format(i) for i in range(8)]
    parameters = [
        {"name": name, "kind": "weight", "shape": [4, 4], "layer": name.removesuffix(".weight"), "reached": i < used}
        for i, name in enumerate(names)
    ]
    return synthetic.run(
        train=np.linspace(2.3, train, 100), gradients={"norm": {name: float(i < used) for i, name in enumerate(names)}},
        activations={"mean": {name.removesuffix(".weight"): 0.1 for name in names[:used]}}, parameters=parameters,
        data={"entropy": {"target": 2.3}}, **synthetic.CLASSES,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("run", "found"),
    [(experts(4, 0.3), 0), (experts(3, 0.3), 5), (experts(4, 2.3), 4), (experts(4, 0.3, "layer{}.weight"), 4)],
    ids=["half", "fewer", "nothing learned", "no numbers"],
)
def test_of_several_layers_alike_some_may_never_be_chosen(run: Run, found: int) -> None:
    assert len(findings(ZeroGradient(), run)) == found
    assert any("nothing is sent to" in note for note in notes(ZeroGradient(), run)) is not bool(found)


@pytest.mark.parametrize("maximize", [False, True])
def test_an_optimiser_that_is_told_to_maximise_goes_uphill_on_purpose(maximize: bool) -> None:
    run = synthetic.run(
        gradients={"norm": {"w": 1.0}}, updates={"descent": {"w": -1.0}}, optimizer={"maximize": maximize}
    )

    assert len(findings(GradientSign(), run)) == (not maximize)
    assert len(notes(GradientSign(), run)) == maximize


@pytest.mark.parametrize(("direction", "found"), [(-1.0, 1), (1.0, 0)])
def test_a_weight_that_is_left_out_of_every_other_step_goes_uphill_in_the_others(direction: float, found: int) -> None:
    descent = np.where(np.arange(100) % 2, 0.0, direction)
    run = synthetic.run(gradients={"norm": {"w": 1.0}}, updates={"descent": {"w": descent}})

    assert len(findings(GradientSign(), run)) == found


@pytest.mark.parametrize(
    ("along", "maximize", "found"), [(0.2, False, 0), (-0.2, False, 1), (0.2, True, 1), (-0.2, True, 0)]
)
def test_where_the_optimiser_maximises_the_other_direction_is_right(along: float, maximize: bool, found: int) -> None:
    run = synthetic.run(
        gradients={"norm": {"w": 1.0}}, outputs={"alignment": {"outputs": along}}, optimizer={"maximize": maximize}
    )

    assert len(findings(GradientSign(), run)) == found


# ND804 and ND801


def scaled(skipped: Array, **more: Any) -> Run:
    return synthetic.run(steps=len(skipped), loop={"skipped_updates": skipped, "loss_scale": 1024.0}, **more)


def test_skips_are_counted_in_windows_of_two_hundred() -> None:
    burst = np.zeros(1000)
    burst[600:622:2] = 1

    (found,) = findings(ScalerSkips(), scaled(burst))
    assert (found.first_step, found.last_step) == (600, 620)
    assert "11 of 200" in found.message
    burst[620] = 0
    assert not findings(ScalerSkips(), scaled(burst))


def test_skips_of_every_update_need_no_two_hundred() -> None:
    assert findings(ScalerSkips(), scaled(np.ones(30)))
    assert "needs 200" in (ScalerSkips().not_checked(scaled(every(0.1, 30))) or "")


@pytest.mark.parametrize("share", [0.01, 0.03])
def test_a_long_run_with_few_skips_stays_quiet_when_it_is_read_in_part(share: float) -> None:
    rng = np.random.default_rng(0)
    skipped = (rng.random(50_000) < share).astype(float)
    norm = np.exp(rng.standard_normal(50_000))
    made = {"updates": 1 - skipped, "skipped_updates": skipped, "loss_scale": 2.0 ** rng.integers(8, 16, 50_000)}
    run = synthetic.run(steps=50_000, loop=made, gradients={"norm": {"w": norm}}, train=norm).thinned()

    assert len(run.loop) <= 2000
    assert not findings(ScalerSkips(), run)


def test_a_long_run_that_skips_a_quarter_is_found_when_it_is_read_in_part() -> None:
    assert findings(ScalerSkips(), scaled(every(0.25, 50_000)).thinned())


def test_skips_after_the_loss_stopped_being_a_number_are_the_losses_fault() -> None:
    train, skipped = np.where(np.arange(300) < 250, 1.0, np.nan), (np.arange(300) >= 250).astype(float)
    run = scaled(skipped, train=train, first_nonfinite={"step": 250, "what": "loss"})

    assert not findings(ScalerSkips(), run)
    assert Checklist(select="ND8").examine(run).headlines == ("ND801",)


@pytest.mark.parametrize(("scale", "count"), [(1.0, 1), (65536.0, 0)])
def test_gradients_that_overflow_under_a_scaler_are_its_business(scale: float, count: int) -> None:
    run = synthetic.run(
        train=synthetic.decay(), gradients={"nonfinite": {"w": np.r_[3.0, np.zeros(99)]}, "norm": {"w": 1.0}},
        loop={"loss_scale": scale, "skipped_updates": 0.0},
    )  # fmt: skip

    assert len(findings(Nonfinite(), run)) == count


def test_without_a_scaler_there_are_no_skips_to_count() -> None:
    run = synthetic.run(loop={"skipped_updates": 0.0, "loss_scale": 1.0})

    assert ScalerSkips().not_checked(run) == "no gradient scaler is at work"
