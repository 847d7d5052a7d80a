"""Programs from the studies of other tools: AT AUTOTRAINER, TC TrainCheck, TDC TheDeepChecker, R a mutant of DeepCrime."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

from benchmarks.faultbench import data, keras
from benchmarks.faultbench.keras import NORM, SGD, Adam, Ascent, Dense, Spec, drop
from benchmarks.faultbench.program import Case, Program
from nndiag import nn


def blob_net(head: str) -> tuple[Dense, ...]:
    """Four ReLU layers of 50."""
    return (*(Dense(50, "relu", "he_uniform") for _ in range(4)), Dense(3, head, "he_uniform"))


def narrow(depth: int, activation: str, head: Dense, normalised: bool = False) -> tuple[Spec, ...]:
    """`depth` layers of 5 units."""
    block: list[Spec] = [Dense(5, activation, "he_uniform"), *([NORM] if normalised else [])]
    return (*(block * depth), head)


def tower(activation: str) -> tuple[Spec, ...]:
    """34 narrow layers under ten classes."""
    return (*(Dense(10, activation, "he_uniform") for _ in range(34)), Dense(10, "softmax"))


def translator(stuck: bool) -> tuple[Spec, ...]:
    """A network with dropout that may stay on in evaluation."""
    return (Dense(64, "relu"), drop(0.3, stuck), Dense(64, "relu"), drop(0.3, stuck), Dense(10))


def wide(init: str, bias: str = "zeros") -> tuple[Dense, ...]:
    """Three ReLU layers under ten logits."""
    return (*(Dense(300, "relu", init, bias) for _ in range(3)), Dense(10, "linear", init, bias))


def news_net(head: str) -> tuple[Spec, ...]:
    """A hidden layer with dropout under 46 classes."""
    return (Dense(128, "relu"), drop(0.5), Dense(46, head))


BLOB_HEAD = Dense(3, "sigmoid", "he_uniform")
CIRCLE_HEAD = Dense(1, "sigmoid", "he_uniform")

CARS = Program(
    data.diabetes, (Dense(64, "relu", "he_normal"), Dense(64, "relu", "he_normal"), Dense(1)), keras.MeanSquaredError,
    partial(Adam, 0.001, eps=1e-8, l2=1e-5), 10, metrics={},
)  # fmt: skip
"""The sound program that TheDeepChecker plants faults into: a regression on cars, here on patients."""


def tenfold(seed: int) -> data.Data:
    """The same data with targets of 0 … 10."""
    x, y = data.diabetes(seed)
    return x, 10 * y


def planted(name: str, fault: str, program: Program) -> Case:
    """A fault in `CARS`; the fixed program is CARS itself, a case of its own."""
    return Case(f"TDC-regr-{name}", (fault,), "B", "real", program)


CASES = (
    Case(
        "AT-improper-activation", ("OUT_RELU_CLS",), "B", "classes",
        Program(data.blobs, blob_net("relu"), keras.CategoricalCrossentropy, lambda: Adam(1e-4), 300, 256),
        {"layers": blob_net("softmax")},
    ),
    Case(
        "AT-dying-relu", ("DEAD_RELU", "ACT_SAT_HIDDEN"), "B", "classes",
        Program(data.encoded(data.digits, 10), tower("relu"), keras.CategoricalCrossentropy, Adam, 8),
        {"layers": tower("leaky_relu")}, chance=True,
    ),  # MNIST, 50 epochs, unknown widths
    Case(
        "AT-circle-explode-8", ("EXPLODING", "ACT_HIDDEN_WRONG"), "I", "classes",
        Program(data.circles, narrow(8, "exponential", CIRCLE_HEAD), keras.BinaryCrossentropy, SGD, 30),
        {"layers": narrow(8, "relu", CIRCLE_HEAD, normalised=True)},
    ),
    Case(
        "AT-blob-explode-9", ("EXPLODING", "ACT_HIDDEN_WRONG", "OUT_SIGMOID_MC"), "I", "classes",
        Program(data.blobs, narrow(9, "exponential", BLOB_HEAD), keras.CategoricalCrossentropy, SGD, 30),
        {"layers": narrow(9, "relu", BLOB_HEAD, normalised=True)},
        left=("OUT_SIGMOID_MC",),
    ),
    Case(
        "TC-transformers-33844", ("FRAMEWORK",), "B", "classes",
        Program(data.digits, translator(True), nn.SoftmaxCrossEntropy, Adam, 15, validation=0.2),
        {"layers": translator(False)},
    ),
    Case(
        "TDC-IPS_4", ("INIT_BAD",), "I", "classes",
        Program(data.digits, wide("normal1", "normal1"), nn.SoftmaxCrossEntropy, lambda: Adam(0.003), 10, 100),
        {"layers": wide("he_normal")},
    ),  # MNIST, layers of 500
    Case(
        "TDC-IPS_5", ("LR_HIGH", "DATA_INPUT_SCALE"), "I", "real",
        Program(data.eight_points, (Dense(1, "linear", "zeros"),), keras.MeanSquaredError, lambda: SGD(0.1), 100, 8),
        {"optimizer": lambda: SGD(0.01)}, left=("DATA_INPUT_SCALE",),
    ),
    Case(
        "TDC-GH-TFE_333", ("LOSS_IMPL", "LR_LOW"), "I", "classes",
        Program(data.encoded(data.digits, 10), (Dense(10, "softmax"),), keras.UnclippedCrossEntropy,
                lambda: SGD(0.001), 25),
        {"layers": (Dense(10),), "loss": nn.SoftmaxCrossEntropy, "optimizer": lambda: SGD(0.01)},
    ),  # MNIST, 10 epochs
    Case(
        "TDC-GH-TFE_bc09f95", ("LOSS_IMPL", "LR_HIGH"), "I", "classes",
        Program(data.digits, (Dense(256, "relu"), Dense(256, "relu"), Dense(10)), keras.SumSoftmaxCrossEntropy,
                lambda: SGD(0.01), 40, 100),
        {"loss": nn.SoftmaxCrossEntropy},
    ),  # MNIST, 10 epochs
    planted("low_adam_epsilon", "OPT_EPS", replace(CARS, optimizer=partial(Adam, 0.001, eps=1e-16, l2=1e-5))),
    planted("flipped_sign", "GRAD_SIGN", replace(CARS, optimizer=partial(Ascent, 0.001, eps=1e-8, l2=1e-5))),
    planted("wrong_loss_selection", "LOSS_TASK", replace(CARS, loss=keras.ClippedCrossEntropy)),
    planted("wrong_loss_function", "LOSS_IMPL", replace(CARS, loss=keras.SumSquaredError, data=tenfold)),
    planted("missing_regularization", "REG_MISSING", replace(CARS, optimizer=partial(Adam, 0.001, eps=1e-8, l2=1e-12))),
    Case("TDC-regr-CLEAN", ("CLEAN",), "B", "real", CARS, role="control"),
    Case(
        "R7", ("OUT_MISSING_ACT",), "B", "classes",
        Program(data.news, news_net("linear"), keras.CategoricalCrossentropy, Adam, 8),
        {"layers": news_net("softmax")},
    ),  # 8,982 texts of 1,000 words, 512 units, 5 epochs
)  # fmt: skip
"""What was made smaller stands behind a program."""
