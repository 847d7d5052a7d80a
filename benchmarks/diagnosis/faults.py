"""The faults: each makes a faulty program of a sound one, and says which checks name its cause.

`expected` was written down from the catalogue of checks, before any check saw a run: the codes that tell a user the
truth about this fault. A symptom is not enough. Operators follow DeepCrime (Humbatova et al. 2021), TheDeepChecker
(Ben Braiek & Khomh 2023) and DEFault (Jahan et al. 2025), and the faults that users of MLPs report.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial

import numpy as np

from benchmarks.diagnosis import broken
from benchmarks.diagnosis.data import Data, map_inputs
from benchmarks.diagnosis.programs import EditData, EditLayers, Program
from nndiag import nn
from nndiag.nn.activations import Activation
from nndiag.statistics import Array

Inject = Callable[[Program, float], Program]
Applies = Callable[[Program], bool]
Blocks = Callable[[Program, float], set[str]]


@dataclass(frozen=True)
class Fault:
    """A fault with its levels from mild to severe, the codes that name its cause, and where it applies.

    `blocks` gives the names of the layers (`hidden1` stands for its activation function, too) of which one must be
    named, for faults that have a place. A `structural` one is a fault by certainty, however well the program does.
    """

    name: str
    inject: Inject
    expected: frozenset[str]
    levels: tuple[float, ...]
    applies: Applies
    blocks: Blocks | None
    structural: bool

    @property
    def summary(self) -> str:
        """What it does, in a line."""
        return (self.inject.__doc__ or "").partition("\n")[0]


FAULTS: dict[str, Fault] = {}


def fault(*expected: str, levels: tuple[float, ...] = (1,), applies: Applies = lambda program: True,
          blocks: Blocks | None = None, structural: bool = False) -> Callable[[Inject], Inject]:  # fmt: skip
    """Put the function into `FAULTS` under its own name."""

    def register(inject: Inject) -> Inject:
        name = inject.__name__.replace("_", "-")
        FAULTS[name] = Fault(name, inject, frozenset(expected), levels, applies, blocks, structural)
        return inject

    return register


# Which programs a fault applies to


def deep(program: Program) -> bool:
    return len(program.hidden) > 1


def classifies(program: Program) -> bool:
    return program.task == "classes"


def logits(program: Program) -> bool:
    return program.task == "classes" and not program.head


def one_logit(program: Program) -> bool:
    return program.task == "binary"


def regresses(program: Program) -> bool:
    return program.task == "real"


def many_classes(program: Program) -> bool:
    return program.task == "classes" and program.outputs > 2


def labelled(program: Program) -> bool:
    return program.task in ("classes", "binary")


def sgd(program: Program) -> bool:
    return program.optimizer is nn.SGD


def adam(program: Program) -> bool:
    return program.optimizer is nn.Adam


def plain(program: Program) -> bool:
    return program.norm is None


def normed(program: Program) -> bool:
    return program.norm is not None


def rectified(program: Program) -> bool:
    return program.activation == "relu" and program.norm is None


# What is done to data, layers and models


def every_block(program: Program, level: float = 0) -> set[str]:
    """All hidden layers."""
    return {f"hidden{number}" for number in range(1, len(program.hidden) + 1)}


def middle(program: Program) -> int:
    """Number of the hidden layer in the middle, the later one of two."""
    return len(program.hidden) // 2 + 1


def in_block(layer: nn.Layer, *blocks: str) -> bool:
    """Whether `layer` belongs to one of these hidden layers."""
    return layer.name.partition(".")[0] in blocks


def scaled_weights(factor: float, *blocks: str) -> Callable[[nn.Sequential], None]:
    """The initial weights of these blocks, or of all layers, times `factor`."""

    def scale(model: nn.Sequential) -> None:
        for layer in model.layers:
            if isinstance(layer, nn.Affine) and (not blocks or in_block(layer, *blocks)):
                layer.weight.value *= factor

    return scale


def each_activation(make: Callable[[], nn.Layer]) -> EditLayers:
    """Every activation function replaced."""
    return lambda layers: [
        _like(make(), layer) if isinstance(layer, Activation) and layer.name else layer for layer in layers
    ]


def _like(new: nn.Layer, old: nn.Layer) -> nn.Layer:
    new.name = f"{old.name.partition('.')[0]}.{new.kind}"
    return new


def training(change: Callable[[Array, Array, np.random.Generator], tuple[Array, Array]]) -> EditData:
    """An edit of the training part alone."""

    def edit(data: Data, rng: np.random.Generator) -> Data:
        x, y = change(data.x, data.y, rng)
        return data._replace(x=x, y=y)

    return edit


def all_targets(change: Callable[[Array], Array]) -> EditData:
    """An edit of all targets, those of the test too, as for a change of scale."""
    return lambda data, rng: data._replace(y=change(data.y), y_val=change(data.y_val), y_test=change(data.y_test))


def all_inputs(change: Callable[[Array], Array]) -> EditData:
    """An edit of all inputs, those of the test too: preprocessing."""
    return lambda data, rng: data._replace(x=change(data.x), x_val=change(data.x_val), x_test=change(data.x_test))


def keep(rows: Callable[[Array, np.random.Generator], Array]) -> EditData:
    """An edit that keeps some training rows, by the training targets."""

    def change(x: Array, y: Array, rng: np.random.Generator) -> tuple[Array, Array]:
        kept = rows(y, rng)
        return x[kept], y[kept]

    return training(change)


def by_label(y: Array) -> list[Array]:
    """The rows of each class."""
    return [np.flatnonzero(y == label) for label in np.unique(y)]


def stretched(program: Program, factor: float) -> int:
    """Epochs that make as many updates with `factor` times the batches an epoch, 2,000 passes at most."""
    return int(min(2000, max(1, round(program.epochs / factor))))


# Learning rate, schedule, batches, optimiser


@fault("ND501", levels=(3, 10, 30, 100, 1000))
def learning_rate_high(program: Program, level: float) -> Program:
    """Learning rate times the level."""
    return replace(program, lr=program.lr * level)


@fault("ND502", levels=(0.1, 0.01, 1e-3, 1e-5))
def learning_rate_low(program: Program, level: float) -> Program:
    """Learning rate times the level."""
    return replace(program, lr=program.lr * level)


@fault("ND508", "ND505", "ND502", structural=True)
def learning_rate_zero(program: Program, level: float) -> Program:
    """Learning rate 0."""
    return replace(program, lr=0.0)


@fault("ND505", levels=(0.3, 0.15, 0.05))
def schedule_dies(program: Program, level: float) -> Program:
    """The learning rate falls to a ten-thousandth after this share of the run."""
    return replace(program, schedule=lambda lr, updates: lambda step: lr * (1 if step < level * updates else 1e-4))


@fault("ND505", "ND501", levels=(10, 30, 100))
def schedule_jumps(program: Program, level: float) -> Program:
    """The learning rate jumps by this factor after half of the run."""
    return replace(program, schedule=lambda lr, updates: lambda step: lr * (1 if step < updates / 2 else level))


@fault("ND501", levels=(3, 10), applies=lambda program: program.schedule is not None and sgd(program))
def no_warm_up(program: Program, level: float) -> Program:
    """A large learning rate without the warm-up that it needs."""
    return replace(program, schedule=None, lr=program.lr * level)


@fault("ND607", "ND502", levels=(0.5, 0.25, 0.1))
def too_few_epochs(program: Program, level: float) -> Program:
    """Training ends after this share of its epochs."""
    return replace(program, epochs=max(1, round(program.epochs * level)))


@fault("ND607", "ND502", levels=(0.25, 1.0))
def batch_huge(program: Program, level: float) -> Program:
    """A batch of this share of the training set, with as many epochs as before and so few updates."""
    rows = len(program.data(0).x)
    return replace(program, batch_size=max(program.batch_size, round(rows * level)))


@fault("ND501", "ND604", levels=(4, 1), applies=plain)
def batch_tiny(program: Program, level: float) -> Program:
    """Batches of 4 or 1 at the learning rate of much larger ones, for as many updates."""
    shrink = program.batch_size / level
    return replace(program, batch_size=int(level), epochs=stretched(program, shrink))


@fault("ND509", levels=(4, 2), applies=lambda program: program.norm == "batch")
def batch_norm_of_few(program: Program, level: float) -> Program:
    """Batch norm over batches of 4 or 2."""

    def even(y: Array, rng: np.random.Generator) -> Array:
        return np.arange(len(y) - len(y) % 4)

    shrink = program.batch_size / level
    return program.edit_data(keep(even), batch_size=int(level), epochs=stretched(program, shrink))


@fault("ND007", structural=True, applies=lambda program: program.task != "labels")
def unshuffled(program: Program, level: float) -> Program:
    """Training rows sorted by target and never shuffled."""
    return program.edit_data(keep(lambda y, rng: np.argsort(y, kind="stable")), shuffle=False)


@fault("ND501", "ND604", "ND508", levels=(0.98, 0.99, 0.999), applies=sgd)
def momentum_high(program: Program, level: float) -> Program:
    """Momentum close to 1 at the same learning rate."""
    return program.set(momentum=level)


@fault("ND507", levels=(0.01, 0.1, 1.0), applies=adam)
def adam_epsilon_large(program: Program, level: float) -> Program:
    """Adam's epsilon far above its usual 1e-8."""
    return program.set(eps=level)


@fault("ND506", levels=(1e-3, 1e-2, 0.1))
def weight_decay_strong(program: Program, level: float) -> Program:
    """Weights lose this share at every update."""
    return program.set(weight_decay=level * (1 - program.settings.get("momentum", 0)) / program.lr)


@fault("ND404", levels=(0.1, 1e-2, 1e-3, 1e-4), applies=sgd)
def clipped_hard(program: Program, level: float) -> Program:
    """Gradients clipped to a norm far below their own."""
    return replace(program, clip_norm=level)


@fault("ND408", structural=True)
def gradient_sign_of_loss(program: Program, level: float) -> Program:
    """A hand-written loss whose gradient has the wrong sign."""
    return replace(program, loss=broken.ascending(_loss_class(program)))


@fault("ND408", structural=True)
def gradient_sign_of_optimizer(program: Program, level: float) -> Program:
    """A hand-written optimiser that climbs."""
    return replace(program, optimizer=broken.ClimbingAdam if adam(program) else broken.ClimbingSGD)


@fault("ND108", "ND501", levels=(1,), applies=sgd)
def summed_loss(program: Program, level: float) -> Program:
    """The loss is summed over the batch instead of averaged."""
    return replace(program, loss=broken.summed(_loss_class(program)))


def _loss_class(program: Program) -> type[nn.Loss]:
    return type(program.loss())


# The loop


@fault("ND901", structural=True)
def gradients_not_cleared(program: Program, level: float) -> Program:
    """Every layer adds to its gradients, and nothing clears them."""

    def accumulating(layers: list[nn.Layer]) -> list[nn.Layer]:
        for layer in layers:
            if isinstance(layer, nn.Affine):
                layer.__class__ = broken.AccumulatingAffine
        return layers

    return program.edit_layers(accumulating)


@fault("ND902", structural=True, applies=lambda program: program.norm == "batch" or program.dropout > 0,
       blocks=every_block)  # fmt: skip
def evaluation_mode_in_training(program: Program, level: float) -> Program:
    """Batch norm and dropout are in evaluation mode while the model is trained."""
    return program.edit_layers(_turned({nn.BatchNorm: broken.NeverBatchNorm, nn.Dropout: broken.NeverDropout}))


@fault("ND903", structural=True, applies=lambda program: program.norm == "batch" or program.dropout > 0)
def training_mode_in_evaluation(program: Program, level: float) -> Program:
    """Batch norm and dropout are in training mode while the model is evaluated."""
    return program.edit_layers(_turned({nn.BatchNorm: broken.AlwaysBatchNorm, nn.Dropout: broken.AlwaysDropout}))


def _turned(classes: dict[type[nn.Layer], type[nn.Layer]]) -> EditLayers:
    """Layers of some classes made into those of others."""

    def turn(layers: list[nn.Layer]) -> list[nn.Layer]:
        for layer in layers:
            layer.__class__ = classes.get(type(layer), type(layer))
        return layers

    return turn


@fault("ND403", "ND503", levels=(1, 2), blocks=lambda program, level: _frozen(program, level))
def frozen_layers(program: Program, level: float) -> Program:
    """The first hidden layer, or everything but the first, is frozen."""
    blocks = _frozen(program, level)

    def freeze(model: nn.Sequential) -> None:
        for parameter in model.parameters:
            parameter.frozen = parameter.name.partition(".")[0] in blocks

    return program.edit_model(freeze)


def _frozen(program: Program, level: float) -> set[str]:
    return {"hidden1"} if level == 1 else {*every_block(program), "output"} - {"hidden1"}


@fault("ND403", structural=True, blocks=lambda program, level: _cut(program))
def gradient_cut(program: Program, level: float) -> Program:
    """No gradient comes back through a layer in the middle: what lies before it stays as it was."""

    def cut(layers: list[nn.Layer]) -> list[nn.Layer]:
        last = max(number for number, layer in enumerate(layers) if in_block(layer, *_cut(program)))
        detached = broken.Detached()
        detached.name = f"{layers[last].name.partition('.')[0]}.detached"
        return [*layers[: last + 1], detached, *layers[last + 1 :]]

    return program.edit_layers(cut)


def _cut(program: Program) -> set[str]:
    return {f"hidden{number}" for number in range(1, middle(program) + 1)} & every_block(program)


# Initialisation


@fault("ND202", levels=(0.0,), structural=True)
def init_zero(program: Program, level: float) -> Program:
    """All weights zero."""
    return replace(program, init=nn.constant(0.0))


@fault("ND202", levels=(0.01, 0.5), structural=True)
def init_constant(program: Program, level: float) -> Program:
    """All weights the same."""
    return replace(program, init=nn.constant(level))


@fault("ND203", "ND204", "ND401", levels=(0.3, 0.1, 0.01), applies=lambda program: deep(program) and plain(program))
def init_small(program: Program, level: float) -> Program:
    """All initial weights times the level."""
    return program.edit_model(scaled_weights(level))


@fault("ND203", "ND201", "ND302", levels=(3, 10, 30, 100), applies=plain)
def init_large(program: Program, level: float) -> Program:
    """All initial weights times the level."""
    return program.edit_model(scaled_weights(level))


@fault("ND203", "ND204", "ND302", levels=(10, 100, 1000), applies=lambda program: deep(program) and plain(program),
       blocks=lambda program, level: {f"hidden{middle(program)}"})  # fmt: skip
def init_of_one_layer_large(program: Program, level: float) -> Program:
    """The initial weights of one hidden layer times the level."""
    return program.edit_model(scaled_weights(level, f"hidden{middle(program)}"))


@fault("ND203", "ND204", levels=(0.1, 0.01, 1e-4), applies=lambda program: deep(program) and plain(program),
       blocks=lambda program, level: {f"hidden{middle(program)}"})  # fmt: skip
def init_of_one_layer_small(program: Program, level: float) -> Program:
    """The initial weights of one hidden layer times the level."""
    return program.edit_model(scaled_weights(level, f"hidden{middle(program)}"))


@fault("ND205", "ND301", levels=(1, 3, 10), applies=rectified, blocks=every_block)
def biases_negative(program: Program, level: float) -> Program:
    """Hidden biases start at minus the level, so that ReLU is silent."""

    def lower(model: nn.Sequential) -> None:
        for parameter in model.parameters:
            if parameter.kind == "bias" and parameter.name.startswith("hidden"):
                parameter.value[...] = -level

    return program.edit_model(lower)


# Hidden layers


@fault("ND401", "ND203", "ND204", levels=(4, 6, 8), applies=plain)
def deep_sigmoid(program: Program, level: float) -> Program:
    """This many hidden layers of sigmoids."""
    return replace(program, hidden=(program.hidden[0],) * int(level), activation="sigmoid", init=None)


@fault("ND112", applies=plain, blocks=every_block)
def hidden_softmax(program: Program, level: float) -> Program:
    """Softmax as the activation function of the hidden layers."""
    return program.edit_layers(each_activation(nn.Softmax))


@fault("ND305", "ND702")
def no_activation(program: Program, level: float) -> Program:
    """No activation functions: a linear model."""
    return replace(program, activation=None)


@fault("ND303", "ND203", "ND201", applies=plain)
def hidden_exponential(program: Program, level: float) -> Program:
    """eᶻ as the activation function of the hidden layers."""
    return program.edit_layers(each_activation(broken.Exponential))


@fault("ND702", "ND304", "ND307", levels=(2, 1))
def bottleneck(program: Program, level: float) -> Program:
    """The last hidden layer has 2 units, or 1."""
    return replace(program, hidden=(*program.hidden[:-1], int(level)))


# Outputs and loss


def _before_loss(program: Program, layer: Callable[[], nn.Layer]) -> Program:
    return replace(program, head=(*program.head, layer))


@fault("ND101", structural=True, applies=logits)
def double_softmax(program: Program, level: float) -> Program:
    """Softmax before a loss that takes logits."""
    return _before_loss(program, nn.Softmax)


@fault("ND101", structural=True, applies=lambda program: program.task in ("binary", "labels"))
def double_sigmoid(program: Program, level: float) -> Program:
    """Sigmoid before a loss that takes logits."""
    return replace(_before_loss(program, nn.Sigmoid), decide="half")


@fault("ND106", structural=True, applies=lambda program: program.task != "real" and not program.head)
def relu_on_logits(program: Program, level: float) -> Program:
    """ReLU before a loss that takes logits."""
    return _before_loss(program, nn.ReLU)


@fault("ND104", structural=True, applies=regresses)
def sigmoid_for_regression(program: Program, level: float) -> Program:
    """Sigmoid outputs for targets outside 0 to 1."""
    return _before_loss(program, nn.Sigmoid)


@fault("ND104", structural=True, applies=regresses)
def tanh_for_regression(program: Program, level: float) -> Program:
    """Tanh outputs for targets outside −1 to 1."""
    return _before_loss(program, nn.Tanh)


@fault("ND104", structural=True, applies=regresses)
def relu_for_regression(program: Program, level: float) -> Program:
    """ReLU outputs for targets of both signs."""
    return _before_loss(program, nn.ReLU)


@fault("ND105", "ND103", structural=True, applies=many_classes)
def mse_on_class_ids(program: Program, level: float) -> Program:
    """One output, squared error against the ids of the classes."""
    return replace(program, outputs=1, head=(), loss=nn.MSE, decide="round")


@fault("ND105", applies=logits)
def mse_on_logits(program: Program, level: float) -> Program:
    """Squared error of the plain outputs against one-hot targets."""
    return replace(program, loss=broken.OneHotMSE)


@fault("ND105", structural=True, applies=logits)
def logits_as_probabilities(program: Program, level: float) -> Program:
    """Plain outputs go into a loss that takes probabilities."""
    return replace(program, loss=nn.CrossEntropy)


@fault("ND102", structural=True, applies=one_logit)
def softmax_over_one_unit(program: Program, level: float) -> Program:
    """Softmax over a single output, which is then always 1."""
    return replace(_before_loss(program, nn.Softmax), loss=broken.BinaryCrossEntropy, decide="half")


@fault("ND103", "ND105", "ND110", structural=True, applies=many_classes)
def one_sigmoid_for_many_classes(program: Program, level: float) -> Program:
    """One sigmoid output and binary cross-entropy against the ids of several classes."""
    return replace(program, outputs=1, head=(nn.Sigmoid,), loss=broken.BinaryCrossEntropy, decide="round")


@fault("ND105", structural=True, applies=many_classes)
def sigmoids_for_one_of_many(program: Program, level: float) -> Program:
    """Sigmoid outputs into the cross-entropy over classes, which rewards them all for being 1."""
    return replace(program, head=(nn.Sigmoid,), loss=nn.CrossEntropy)


@fault("ND105", structural=True, applies=lambda program: program.task == "labels")
def softmax_for_labels(program: Program, level: float) -> Program:
    """Softmax over labels of which several are on."""
    return replace(_before_loss(program, nn.Softmax), loss=broken.BinaryCrossEntropy, decide="half")


@fault("ND105", "ND102", structural=True, applies=regresses)
def cross_entropy_for_regression(program: Program, level: float) -> Program:
    """Cross-entropy over a single output, against real numbers."""
    column = all_targets(lambda y: y.reshape(-1, 1))
    return program.edit_data(column, loss=nn.SoftmaxCrossEntropy)


@fault("ND110", structural=True, applies=one_logit)
def binary_targets_of_both_signs(program: Program, level: float) -> Program:
    """Targets −1 and 1 for binary cross-entropy, which takes 0 and 1."""

    def signs(data: Data, rng: np.random.Generator) -> Data:
        return data._replace(y=2.0 * data.y - 1, y_val=2.0 * data.y_val - 1)

    return program.edit_data(signs)


@fault("ND111", structural=True, applies=classifies)
def softmax_over_batch(program: Program, level: float) -> Program:
    """Softmax along the batch instead of along the classes."""
    return replace(program, head=(broken.BatchSoftmax,), loss=nn.CrossEntropy)


@fault("ND107", structural=True, applies=regresses)
def broadcast_loss(program: Program, level: float) -> Program:
    """Outputs (N, 1) minus targets (N,): a loss over N × N differences."""
    return replace(program, loss=broken.BroadcastMSE)


# Regularisation


@fault("ND508", "ND702", levels=(0.8, 0.9, 0.95))
def dropout_strong(program: Program, level: float) -> Program:
    """Dropout of nearly everything."""
    return replace(program, dropout=level)


@fault("ND113", levels=(0.3, 0.6), structural=True)
def dropout_on_outputs(program: Program, level: float) -> Program:
    """Dropout behind the last layer."""
    return _before_loss(program, lambda: nn.Dropout(level))


@fault("ND701", "ND006", levels=(100, 50), applies=labelled)
def no_regularisation(program: Program, level: float) -> Program:
    """This many training rows, a wide network, no dropout or decay, and 150 epochs or more."""

    def few(y: Array, rng: np.random.Generator) -> Array:
        return rng.permutation(len(y))[: int(level)]

    wide = replace(program, hidden=(128,) * len(program.hidden), dropout=0.0, epochs=150, batch_size=25)
    return wide.edit_data(keep(few), training(partial(with_wrong_labels, 0.2))).set(weight_decay=0.0)


# Data


def with_wrong_labels(share: float, x: Array, y: Array, rng: np.random.Generator) -> tuple[Array, Array]:
    """The same inputs, with this share of the labels turned into others."""
    return x, _wrong(y, share, rng)


def _wrong(y: Array, share: float, rng: np.random.Generator) -> Array:
    """`y` with this share of its labels turned into others."""
    y, classes = y.copy(), int(y.max()) + 1
    rows = rng.permutation(len(y))[: round(share * len(y))]
    y[rows] = (y[rows] + rng.integers(1, classes, len(rows))) % classes
    return y


def permuted(y: Array, rng: np.random.Generator) -> Array:
    """`y` in an order in which no more of it stands right than by chance."""
    tries = [rng.permutation(len(y)) for _ in range(50)]
    order: Array = min(tries, key=lambda order: abs(_agreement(y, y[order])))
    return y[order]


def _agreement(y: Array, other: Array) -> float:
    """Covariance of the one-hot labels, or of the numbers."""
    if y.ndim == 1 and y.dtype.kind in "iu":
        chance = float(np.sum((np.bincount(y) / len(y)) ** 2))
        return float(np.mean(y == other)) - chance
    return float(np.mean((y - y.mean(axis=0)) * (other - other.mean(axis=0))))


@fault("ND707", structural=True)
def labels_shuffled(program: Program, level: float) -> Program:
    """Training targets in another order than the inputs."""
    return program.edit_data(training(lambda x, y, rng: (x, permuted(y, rng))))


@fault("ND707", structural=True)
def features_shuffled(program: Program, level: float) -> Program:
    """Every feature of the training inputs in another order than the targets."""
    return program.edit_data(training(lambda x, y, rng: (rng.permuted(x, axis=0), y)))


@fault("ND707", "ND701", levels=(0.3, 0.5, 0.8), applies=labelled)
def labels_partly_wrong(program: Program, level: float) -> Program:
    """This share of the training labels is wrong; of two classes, half of that."""
    share = level if program.outputs > 2 else level / 2
    return program.edit_data(training(partial(with_wrong_labels, share)))


@fault("ND006", "ND701", levels=(5, 2), applies=labelled)
def few_samples(program: Program, level: float) -> Program:
    """This many training rows a class, for as many updates as before."""

    def few(y: Array, rng: np.random.Generator) -> Array:
        return np.concatenate([rng.permutation(rows)[: int(level)] for rows in by_label(y)])

    data = program.data(0)
    updates, rows = program.updates(len(data.x)), int(level) * len(by_label(data.y))
    return program.edit_data(keep(few), epochs=-(-updates // -(-rows // program.batch_size)))


@fault("ND005", structural=True, applies=labelled)
def one_class_only(program: Program, level: float) -> Program:
    """All training rows are of one class."""
    data = program.data(0)
    rows = int(np.sum(data.y == 0))
    epochs = -(-program.updates(len(data.x)) // -(-rows // program.batch_size))
    return program.edit_data(keep(lambda y, rng: np.flatnonzero(y == 0)), epochs=epochs)


@fault("ND005", "ND705", "ND009", levels=(0.1, 0.03, 0.01), applies=labelled)
def imbalance(program: Program, level: float) -> Program:
    """Of all classes but the first only this share of the training rows is kept, and one row at least."""

    def rarely(y: Array, rng: np.random.Generator) -> Array:
        first, *others = by_label(y)
        kept = [rng.permutation(rows)[: max(1, round(level * len(first)))] for rows in others]
        return np.concatenate([first, *kept])

    data = program.data(0)
    rows = len(rarely(data.y, np.random.default_rng(0)))
    epochs = -(-program.updates(len(data.x)) // -(-rows // program.batch_size))
    return program.edit_data(keep(rarely), epochs=epochs)


@fault("ND008", levels=(0.3, 1.0), structural=True)
def validation_overlaps(program: Program, level: float) -> Program:
    """This share of the validation rows are training rows."""

    def overlap(data: Data, rng: np.random.Generator) -> Data:
        count = round(level * len(data.x_val))
        rows = rng.permutation(len(data.x))[:count]
        x_val = np.concatenate([data.x[rows], data.x_val[len(rows) :]])
        return data._replace(x_val=x_val, y_val=np.concatenate([data.y[rows], data.y_val[len(rows) :]]))

    return program.edit_data(overlap)


@fault("ND707", "ND009", levels=(3, 30, 255))
def validation_scaled_otherwise(program: Program, level: float) -> Program:
    """Validation inputs are this many times as large, and off by one, where the training inputs are not."""

    def otherwise(data: Data, rng: np.random.Generator) -> Data:
        return data._replace(x_val=data.x_val * level + 1, x_test=data.x_test * level + 1)

    return program.edit_data(otherwise)


@fault("ND002", levels=(16, 255, 1e4), applies=plain)
def inputs_large(program: Program, level: float) -> Program:
    """All inputs times the level."""
    return program.edit_data(all_inputs(lambda x: x * level))


@fault("ND002", levels=(1 / 16, 1 / 255, 1e-4))
def inputs_small(program: Program, level: float) -> Program:
    """All inputs times the level."""
    return program.edit_data(all_inputs(lambda x: x * level))


@fault("ND002", levels=(10, 100, 1000))
def inputs_shifted(program: Program, level: float) -> Program:
    """The level is added to all inputs."""
    return program.edit_data(all_inputs(lambda x: x + level))


@fault("ND002", levels=(100, 1e3, 1e4))
def one_feature_large(program: Program, level: float) -> Program:
    """The feature that varies most times the level."""

    def enlarge(data: Data, rng: np.random.Generator) -> Data:
        scale = np.ones(data.x.shape[1])
        scale[data.x.var(axis=0).argmax()] = 1 / level
        return map_inputs(data, 0.0, scale)

    return program.edit_data(enlarge)


@fault("ND002")
def inputs_normalised_twice(program: Program, level: float) -> Program:
    """The mean 128 and the deviation 64 of raw bytes applied to inputs that are normalised already."""
    return program.edit_data(all_inputs(lambda x: (x - 128) / 64))


@fault("ND003", levels=(0.7, 0.9, 0.97), applies=lambda program: program.data(0).x.shape[1] >= 8)
def features_constant(program: Program, level: float) -> Program:
    """This share of the features is zero in every row."""

    def silence(data: Data, rng: np.random.Generator) -> Data:
        width = data.x.shape[1]
        kept = np.ones(width)
        kept[rng.permutation(width)[: min(width - 1, round(level * width))]] = 0
        return data._replace(x=data.x * kept, x_val=data.x_val * kept, x_test=data.x_test * kept)

    return program.edit_data(silence)


@fault("ND001", levels=(0.0, 0.05), structural=True)
def nan_in_inputs(program: Program, level: float) -> Program:
    """One training row holds a NaN, or one row in twenty."""

    def spoil(x: Array, y: Array, rng: np.random.Generator) -> tuple[Array, Array]:
        x = x.astype(float)
        x[rng.permutation(len(x))[: max(1, round(level * len(x)))], 0] = np.nan
        return x, y

    return program.edit_data(training(spoil))


@fault("ND001", levels=(0.0, 0.05), structural=True, applies=regresses)
def nan_in_targets(program: Program, level: float) -> Program:
    """One training target is NaN, or one in twenty."""

    def spoil(x: Array, y: Array, rng: np.random.Generator) -> tuple[Array, Array]:
        y = y.copy()
        y[rng.permutation(len(y))[: max(1, round(level * len(y)))]] = np.nan
        return x, y

    return program.edit_data(training(spoil))


@fault("ND004", levels=(30, 100, 1000), applies=regresses)
def targets_large(program: Program, level: float) -> Program:
    """Targets times the level."""
    return program.edit_data(all_targets(lambda y: y * level))


@fault("ND004", levels=(30, 1000), applies=regresses)
def targets_shifted(program: Program, level: float) -> Program:
    """The level is added to all targets."""
    return program.edit_data(all_targets(lambda y: y + level))


@fault("ND104", "ND110", structural=True, applies=regresses)
def sigmoid_for_scaled_targets(program: Program, level: float) -> Program:
    """Sigmoid outputs for targets of about 0 to 100, as for raw prices or percentages."""
    return _before_loss(program.edit_data(all_targets(lambda y: 20 * y + 50)), nn.Sigmoid)


def pairs(bases: dict[str, Program]) -> list[tuple[str, str]]:
    """Every base with every fault that applies to it."""
    return [(base, name) for base, program in bases.items() for name, fault in FAULTS.items() if fault.applies(program)]
