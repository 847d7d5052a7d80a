"""Programs from questions of users, most of them on Stack Overflow: SO-n is question n."""

from __future__ import annotations

import math

import numpy as np

from benchmarks.faultbench import data, keras
from benchmarks.faultbench.data import classification
from benchmarks.faultbench.keras import NORM, SGD, Adam, Dense, RMSprop, drop
from benchmarks.faultbench.program import Case, Program
from nndiag import nn
from nndiag.statistics import Array


def bounded(rng: np.random.Generator, shape: tuple[int, ...]) -> Array:
    """Uniform weights within ±√(3.5 / (fan_in + fan_out)), an initialiser that a user wrote."""
    limit = math.sqrt(3.5 / sum(shape))
    return rng.uniform(-limit, limit, shape)


def nesterov(lr: float) -> SGD:
    """The SGD of many tutorials."""
    return SGD(lr, momentum=0.9, nesterov=True, decay=1e-6)


def xor_net(head: str) -> tuple[Dense, ...]:
    """2-3-1 with sigmoids and tiny weights."""
    return (Dense(2, "sigmoid", "uniform"), Dense(3, "sigmoid", "uniform"), Dense(1, head, "uniform"))


def deep_clusters(head: str) -> tuple[keras.Spec, ...]:
    """Five hidden layers with dropout."""
    hidden = [spec for units in (100, 150, 200, 200, 200) for spec in (Dense(units, "relu", "normal"), drop(0.2))]
    return (*hidden, Dense(4, head, "normal"))


def bounded_net(head: str) -> tuple[Dense, ...]:
    """64-32-1 with the user's initialiser."""
    return (Dense(64, "relu", bounded), Dense(32, "relu", bounded), Dense(1, head, bounded))


def relu_net(*units: int, head: Dense, init: str = "glorot_uniform") -> tuple[Dense, ...]:
    """ReLU layers of these widths, and a head."""
    return (*(Dense(width, "relu", init) for width in units), head)


def tumour_net(head: str) -> tuple[keras.Spec, ...]:
    """Two hidden layers, each followed by batch normalisation."""
    return (Dense(30, "relu"), NORM, Dense(60, "relu"), NORM, Dense(1, head))


def frames_net(head: str) -> tuple[keras.Spec, ...]:
    """A layer that ten frames share, and two layers above it."""
    return (Dense(32, "relu", places=10), Dense(128, "relu"), drop(0.2), Dense(128, "relu"), Dense(1, head))


def widening(rate: float, head: Dense) -> tuple[keras.Spec, ...]:
    """Hidden layers that double in width, with dropout between them."""
    wide = [spec for units in (32, 64, 128, 256) for spec in (Dense(units, "relu"), drop(rate))]
    return (Dense(32, "relu"), *wide, head)


FIVE_CLASSES = classification(1000, 5, n_classes=5, n_informative=4, n_redundant=0)
SIGMOID, SOFTMAX = Dense(1, "sigmoid"), Dense(1, "softmax")

CASES = (
    Case(
        "SO-34311586", ("OUT_SOFTMAX1", "LR_LOW", "EPOCHS_LOW"), "B", "classes",
        Program(data.xor_of_six, xor_net("softmax"), keras.MeanSquaredError, lambda: nesterov(0.001), 20),
        {"layers": xor_net("sigmoid"), "optimizer": lambda: SGD(0.1, momentum=0.9), "epochs": 1000, "batch_size": 4},
        unsound="it took its author 10,000 epochs to get from a loss of 0.22 to 0.17",
    ),
    Case(
        "SO-41999686", ("OUT_SIGMOID_MC", "EPOCHS_LOW"), "I", "classes",
        Program(data.encoded(classification(1000, 283, n_classes=4, n_informative=4), 4), deep_clusters("sigmoid"),
                keras.CategoricalCrossentropy, lambda: nesterov(0.01), 5),
        {"layers": deep_clusters("softmax")}, left=("EPOCHS_LOW",), unsound="five epochs stay too few",
    ),
    Case(
        "SO-46869312", ("OUT_BOUNDED_REG", "LOSS_TASK"), "I", "real",
        Program(data.regression(5000, 64), bounded_net("sigmoid"), keras.BinaryCrossentropy, Adam, 12, 200, 0.2),
        {"layers": bounded_net("tanh"), "loss": keras.MeanSquaredError},
    ),  # 125,000 rows and 3 epochs
    Case(
        "SO-48385830", ("LR_HIGH", "ACT_LINEAR_HIDDEN", "OUT_MISSING_ACT", "LOSS_TASK", "INIT_BAD"), "B", "classes",
        Program(data.encoded(data.digits, 10), tuple(Dense(n, "linear", "normal1", "normal1") for n in (30, 10)),
                keras.MeanSquaredError, lambda: SGD(3.0), 8, 10),
        {"layers": (Dense(30, "sigmoid", "normal1", "normal1"), Dense(10, "softmax", "normal1", "normal1")),
         "loss": keras.CategoricalCrossentropy},
    ),  # MNIST, 30 epochs
    Case(
        "SO-51185079", ("OUT_RELU_CLS",), "I", "classes",
        Program(classification(1000, 34), relu_net(512, 200, 200, 200, 128, head=Dense(1, "relu")),
                keras.BinaryCrossentropy, RMSprop, 2, 200),
        {"layers": relu_net(512, 200, 200, 200, 128, head=SIGMOID)},
    ),
    Case(
        "SO-56218256", ("OUT_SOFTMAX1", "LOSS_TASK"), "I", "classes",
        Program(classification(1000, 400), relu_net(200, 64, 32, head=SOFTMAX), keras.CategoricalCrossentropy, Adam,
                100, 1000),
        {"layers": relu_net(200, 64, 32, head=SIGMOID), "loss": keras.BinaryCrossentropy},
    ),  # 19,900 features, 1,000 units
    Case(
        "SO-57326611", ("LOSS_TASK", "LABEL_ENCODING"), "I", "classes",
        Program(classification(2000, 5), relu_net(50, head=Dense(2, "softmax")), keras.BinaryCrossentropy, Adam, 16,
                metrics={"accuracy": keras.elementwise_accuracy}),
        {"loss": keras.SparseCategoricalCrossentropy, "metrics": None},
    ),  # 10,000 rows, 20 epochs
    Case(
        "SO-57397440", ("OUT_SOFTMAX1", "DATA_INPUT_SCALE"), "I", "classes",
        Program(data.breast_cancer, tumour_net("softmax"), keras.BinaryCrossentropy, Adam, 6),
        {"layers": tumour_net("sigmoid"), "data": data.scaled(data.breast_cancer)},
    ),
    Case(
        "SO-58051767", ("NONE_CLEAR",), "I", "classes",
        Program(classification(1000, 4), relu_net(12, 8, head=SIGMOID), keras.BinaryCrossentropy, Adam, 15, 10),
        role="control",
    ),  # 150 epochs
    Case(
        "SO-58064701", ("BATCH_BAD", "EPOCHS_LOW"), "I", "classes",
        Program(data.patients, relu_net(10, 10, head=Dense(1, "sigmoid", "normal"), init="normal"),
                keras.BinaryCrossentropy, Adam, 10, 2),
        {"batch_size": 32, "epochs": 100},
    ),  # 768 rows
    Case(
        "SO-61234347", ("ACT_SAT_HIDDEN", "EPOCHS_LOW", "DATA_INPUT_SCALE"), "I", "classes",
        Program(data.iris, (*(Dense(n, "tanh") for n in (1000, 500, 250, 125, 64, 32, 9)), Dense(3, "softmax")),
                keras.CategoricalCrossentropy, Adam, 1),
        {"layers": relu_net(64, 32, head=Dense(3, "softmax")), "epochs": 150}, left=("DATA_INPUT_SCALE",),
    ),
    Case(
        "SO-66087653", ("OUT_SOFTMAX1",), "I", "classes",
        Program(data.rows(classification(1000, 1500), 300), frames_net("softmax"), keras.BinaryCrossentropy, Adam, 6, 2),
        {"layers": frames_net("sigmoid")},
    ),  # 1,000 rows, 200 epochs
    Case(
        "SO-66407123", ("OUT_SOFTMAX1",), "I", "classes",
        Program(classification(1000, 5), relu_net(32, 32, head=SOFTMAX), keras.BinaryCrossentropy, SGD, 100, 64, 0.2),
        {"layers": relu_net(32, 32, head=SIGMOID)},
    ),
    Case(
        "SO-66602662", ("OUT_UNITS", "LOSS_TASK"), "I", "classes",
        Program(FIVE_CLASSES, (Dense(32, "relu"), Dense(16, "relu"), drop(0.2), Dense(8, "relu"), drop(0.2), SIGMOID),
                keras.CategoricalCrossentropyFromLogits, Adam, 20, 24),
        {"layers": (Dense(32, "relu"), Dense(16, "relu"), drop(0.2), Dense(8, "relu"), drop(0.2), Dense(5, "softmax")),
         "loss": keras.SparseCategoricalCrossentropy},
    ),
    Case(
        "SO-68458462", ("OUT_BOUNDED_REG", "DATA_TARGET_SCALE", "DATA_FEW"), "I", "real",
        Program(data.few_integers, relu_net(2, 2, head=Dense(4, "sigmoid")), keras.MeanSquaredError, Adam, 100, 16),
        {"layers": relu_net(2, 2, head=Dense(4))}, left=("DATA_FEW",),
        unsound="100 updates of layers with two units stay too few",
    ),
    Case(
        "SO-69787272", ("OUT_RELU_CLS", "ARCH_CAPACITY", "DEAD_RELU"), "I", "classes",
        Program(classification(1000, 31), relu_net(31, 1, head=Dense(1, "relu")), keras.BinaryCrossentropy, SGD, 10, 500),
        {"layers": relu_net(31, 1, head=SIGMOID)}, left=("ARCH_CAPACITY",), unsound="20 updates, and a layer of one unit, stay",
    ),
    Case(
        "SO-69901379", ("DATA_INPUT_SCALE", "DATA_TARGET_SCALE", "LR_LOW", "DATA_UNLEARNABLE"), "I", "real",
        Program(data.unrelated_integers, relu_net(16, 16, 16, 16, head=Dense(1)), keras.MeanSquaredError,
                lambda: Adam(1e-4), 1000),
        {"data": data.scaled(data.unrelated_integers, targets=True), "optimizer": Adam}, left=("DATA_UNLEARNABLE",),
    ),
    Case(
        "SO-31556268", ("LOSS_TASK", "LR_LOW", "EPOCHS_LOW", "OPT_CHOICE"), "B", "classes",
        Program(data.xor, (Dense(4, "sigmoid"), SIGMOID), keras.MeanAbsoluteError,
                lambda: SGD(0.05, momentum=0.11, nesterov=True, decay=1e-6), 1000, 4),
        {"loss": keras.MeanSquaredError, "optimizer": lambda: Adam(0.003), "epochs": 2500},
    ),  # fixed with 10,000 epochs at 0.001
    Case(
        "SO-31627380", ("DATA_INPUT_SCALE", "OPT_CHOICE"), "B", "classes",
        Program(data.passengers, (Dense(512, "relu"), drop(0.5), Dense(2, "softmax")), keras.CategoricalCrossentropy,
                Adam, 10, 4),
        {"layers": (Dense(512, "relu"), drop(0.5), Dense(2, "sigmoid")), "loss": keras.BinaryCrossentropy},
        left=("DATA_INPUT_SCALE",), unsound="the inputs stay unscaled",
    ),
    Case(
        "SO-39525358", ("DATA_INPUT_SCALE",), "B", "classes",
        Program(data.two_patterns, relu_net(12, 3, head=Dense(1, "sigmoid", "uniform"), init="uniform"),
                keras.BinaryCrossentropy, Adam, 100, 1),
        {"data": data.scaled(data.two_patterns)},
    ),  # 150 epochs
    Case(
        "SO-41372874", ("DATA_IMBALANCE",), "B", "classes",
        Program(data.one_class, relu_net(2, 2, head=Dense(1, "sigmoid", "uniform"), init="uniform"),
                keras.BinaryCrossentropy, Adam, 20, 2),
        role="control",
    ),  # 299 rows
    Case(
        "SO-52800582", ("DATA_INPUT_SCALE", "DATA_TARGET_SCALE", "ACT_SAT_HIDDEN"), "B", "real",
        Program(data.fourth_power, (Dense(50, "sigmoid"), Dense(50, "elu"), Dense(1)), keras.MeanSquaredError, Adam,
                1000, 400),
        {"data": data.scaled(data.fourth_power, targets=True)},
    ),
    Case(
        "GH-melbourne", ("DATA_TARGET_SCALE", "ARCH_CAPACITY"), "B", "real",
        Program(data.houses, (Dense(20, "tanh", "glorot_normal"), Dense(20, "tanh", "glorot_normal"), Dense(1)),
                keras.MeanAbsoluteError, Adam, 40),
        {"layers": relu_net(128, 128, 64, head=Dense(1))}, left=("DATA_TARGET_SCALE",),
    ),  # 10,000 rows, 100 epochs
    Case(
        "SO-46642627", ("OUT_BOUNDED_REG", "LOSS_TASK", "DATA_TARGET_SCALE", "INIT_BAD"), "B", "real",
        Program(data.hundred_times, (Dense(50, "relu", "zeros"), Dense(50, "relu"), Dense(1, "sigmoid", "uniform")),
                keras.BinaryCrossentropy, SGD, 100, 100),
        {"data": data.hundred_times_scaled, "loss": keras.MeanSquaredError, "optimizer": Adam,
         "layers": (Dense(50, "relu", "zeros"), Dense(50, "relu"), Dense(1, "linear", "uniform"))},
        left=("INIT_BAD",), unsound="the weights of the first layer still start at zero, where ReLU lets no gradient through",
    ),  # 10,000 rows, 150 epochs
    Case(
        "SO-51181393", ("LR_LOW",), "B", "real",
        Program(data.straight_line, (Dense(1),), keras.MeanSquaredError, RMSprop, 100),
        {"optimizer": lambda: RMSprop(0.1), "metrics": {}},
    ),
    Case(
        "SO-64151679", ("OUT_SOFTMAX1", "LR_HIGH", "REG_TOO_STRONG", "METRIC_WRONG"), "B", "classes",
        Program(data.sign_of_sum(500), widening(0.5, SOFTMAX), keras.BinaryCrossentropy, lambda: Adam(0.1), 25, 16,
                metrics={"accuracy": keras.exact_accuracy}),
        {"data": data.encoded(data.sign_of_sum(500), 2), "layers": widening(0.2, Dense(2, "softmax")),
         "loss": keras.CategoricalCrossentropy, "optimizer": Adam, "metrics": None},
    ),  # 1,000 rows, 50 epochs
    Case(
        "SO-64634468", ("LOSS_TASK",), "B", "classes",
        Program(data.scaled(classification(2000, 2, n_redundant=0)), relu_net(5, 5, head=SIGMOID),
                keras.CategoricalCrossentropy, lambda: Adam(0.001), 25),
        {"loss": keras.BinaryCrossentropy},
    ),  # 100,000 rows, 50 epochs, and a rate of 1e-4 that suits as many updates
    Case(
        "SO-77704108", ("OUT_DOUBLE_ACT", "DATA_INPUT_SCALE", "INIT_BAD"), "B", "classes",
        Program(data.diluted(1000, 20, 5), relu_net(64, head=Dense(5, "softmax", "normal1"), init="normal1"),
                nn.SoftmaxCrossEntropy, Adam, 20),
        {"data": data.scaled(data.diluted(1000, 20, 5)), "layers": relu_net(64, head=Dense(5))},
    ),
)  # fmt: skip
"""What was made smaller stands behind a program."""
