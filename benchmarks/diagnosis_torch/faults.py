"""The faults: each makes a faulty program of a sound one, and says which checks name its cause.

`expected` was written down from the catalogue of checks, before any check saw a run: the codes that tell a user the
truth about this fault. A symptom is not enough. Nothing here raises: these are the mistakes that forums are full of.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Literal

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.optim import SGD, AdamW
from torch.optim.lr_scheduler import ExponentialLR

from benchmarks.diagnosis.data import Data, map_inputs
from benchmarks.diagnosis.faults import all_inputs, all_targets, by_label, keep, permuted, training, with_wrong_labels
from benchmarks.diagnosis_torch import bases, loops, models
from benchmarks.diagnosis_torch.programs import EditModel, Program, head_parameters
from nndiag.statistics import Array

Inject = Callable[[Program, float], Program]
Place = Literal["head", "body"]


@dataclass(frozen=True)
class Fault:
    """A fault with its levels from mild to severe, the codes that name its cause, and the bases that it is put into.

    `place` says where it sits, for faults that have a place: in the head, or anywhere but there. A `structural` one is a
    fault by certainty, however well the program does.
    """

    name: str
    inject: Inject
    expected: frozenset[str]
    on: tuple[str, ...]
    levels: tuple[float, ...]
    place: Place | None
    structural: bool

    @property
    def summary(self) -> str:
        """What it does, in a line."""
        return (self.inject.__doc__ or "").partition("\n")[0]


FAULTS: dict[str, Fault] = {}


def fault(*expected: str, on: str, levels: tuple[float, ...] = (1,), place: Place | None = None,
          structural: bool = False) -> Callable[[Inject], Inject]:  # fmt: skip
    """Put the function into `FAULTS` under its own name, for the bases that `on` names."""

    def register(inject: Inject) -> Inject:
        name = inject.__name__.replace("_", "-")
        FAULTS[name] = Fault(name, inject, frozenset(expected), tuple(on.split()), levels, place, structural)
        return inject

    return register


def pairs() -> list[tuple[str, str]]:
    """Every base with every fault that is put into it."""
    return [(base, name) for base in bases.BASES for name, fault in FAULTS.items() if base in fault.on]


# What is done to models, outputs and data


def appended(make: Callable[[], nn.Module]) -> EditModel:
    """An edit that puts a module behind the last one."""
    return lambda model: nn.Sequential(*(model if isinstance(model, nn.Sequential) else [model]), make())


def outputs_through(function: Callable[[Tensor], Tensor]) -> EditModel:
    """An edit that ends `forward` with a function."""

    def edit(model: nn.Module) -> nn.Module:
        forward = model.forward
        model.forward = lambda x: function(forward(x))
        return model

    return edit


def features_through(function: Callable[[Callable[[Tensor], Tensor], Tensor], Tensor]) -> EditModel:
    """An edit that lets a function call `features`."""

    def edit(model: nn.Module) -> nn.Module:
        features = model.features
        model.features = lambda x: function(features, x)
        return model

    return edit


def headed(outputs: int) -> EditModel:
    """An edit that gives the model another head."""

    def edit(model: nn.Module) -> nn.Module:
        model.head = nn.Linear(model.head.in_features, outputs)
        return model

    return edit


def each_activation(make: Callable[[], nn.Module]) -> EditModel:
    """An edit that replaces the activation functions of a Sequential."""
    return lambda model: nn.Sequential(*(make() if isinstance(layer, nn.ReLU | nn.Tanh) else layer for layer in model))


def initialised(function: Callable[[Tensor], object]) -> EditModel:
    """An edit that begins all linear and convolutional weights by a function, and their biases at 0."""

    def edit(model: nn.Module) -> nn.Module:
        for layer in models.weighted(model):
            function(layer.weight)
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)
        return model

    return edit


def of_head(name: str) -> bool:
    """Whether a parameter belongs to the head."""
    return name.startswith("head.")


def body_parameters(model: nn.Module) -> list[Tensor]:
    """All but those of the head."""
    return [value for name, value in model.named_parameters() if not of_head(name)]


def as_many_updates(program: Program, rows: int) -> int:
    """Epochs that make as many updates with this many rows, 400 at most."""
    updates = program.epochs * -(-len(program.data(0).x) // program.batch_size)
    return min(400, -(-updates // -(-rows // program.batch_size)))


def ends_in(program: Program, module: Callable[[], nn.Module], function: Callable[[Tensor], Tensor],
            level: float) -> Program:  # fmt: skip
    """A module at the end where the level is 0, a function in `forward` where it is 1."""
    return program.edit_model(outputs_through(function) if level else appended(module))


# The loop


@fault("ND901", structural=True,
       on="digits-convnet digits-batchnorm waves-lstm friedman-mlp cancer-binary phrases-tagger")  # fmt: skip
def zero_grad_forgotten(program: Program, level: float) -> Program:
    """Nothing clears the gradients."""
    return replace(program, epoch=loops.zero_forgotten)


@fault("ND403", "ND503", structural=True, on="digits-convnet waves-lstm friedman-mlp")
def zero_grad_before_step(program: Program, level: float) -> Program:
    """Gradients are cleared between backward and step."""
    return replace(program, epoch=loops.zero_before_step)


@fault("ND904", "ND503", structural=True, on="digits-convnet waves-lstm friedman-mlp ratings-factors")
def step_forgotten(program: Program, level: float) -> Program:
    """The optimiser never takes a step."""
    return replace(program, epoch=loops.step_forgotten)


@fault("ND403", structural=True, on="digits-convnet bags-embedding friedman-mlp")
def backward_forgotten(program: Program, level: float) -> Program:
    """backward() is never called."""
    return replace(program, epoch=loops.backward_forgotten)


@fault("ND403", structural=True, on="digits-convnet waves-lstm cancer-binary")
def loss_rewrapped(program: Program, level: float) -> Program:
    """The loss is made into a new tensor that knows nothing of the model."""
    return replace(program, epoch=loops.loss_rewrapped)


@fault("ND403", "ND105", structural=True, on="digits-convnet waves-lstm")
def decisions_compared(program: Program, level: float) -> Program:
    """The loss compares the argmax of the outputs with the labels."""
    return replace(program, epoch=loops.decisions_compared)


@fault("ND902", structural=True, on="digits-batchnorm digits-dropout wine-batchnorm reviews-transformer")
def left_in_evaluation_mode(program: Program, level: float) -> Program:
    """After the first validation the model stays in evaluation mode."""
    return replace(program, epoch=loops.mode_forgotten, schedule=None)


@fault("ND903", structural=True, on="digits-batchnorm digits-dropout wine-batchnorm reviews-transformer")
def validated_in_training_mode(program: Program, level: float) -> Program:
    """eval() is never called."""
    return replace(program, evaluate=loops.evaluated_in_training_mode)


@fault("ND903", structural=True, on="digits-dropout")
def functional_dropout_always_on(program: Program, level: float) -> Program:
    """F.dropout without `training=self.training`."""
    return replace(program, build=models.AlwaysDropoutNet)


@fault("ND408", structural=True, on="digits-convnet friedman-mlp waves-lstm phrases-tagger")
def loss_negated(program: Program, level: float) -> Program:
    """Goes along the gradient of minus the loss."""
    return replace(program, epoch=loops.climbing)


@fault("ND408", structural=True, on="digits-batchnorm cancer-binary reviews-transformer")
def maximised(program: Program, level: float) -> Program:
    """The optimiser is told to maximise."""
    return program.set(maximize=True)


@fault("ND501", levels=(4, 16), on="digits-accumulate")
def accumulated_undivided(program: Program, level: float) -> Program:
    """The gradients of this many batches are added up, not averaged."""
    return replace(program, epoch=partial(loops.accumulating_undivided, parts=int(level)))


@fault("ND404", levels=(1e-2, 1e-4), on="digits-convnet echoes-rnn digits-logsoftmax diabetes-huber friedman-mlp")
def clipped_to_nothing(program: Program, level: float) -> Program:
    """Gradients are clipped to a norm far below their own."""
    return replace(program, epoch=partial(loops.clipped, most=level))


@fault("ND404", "ND502", on="digits-autocast digits-convnet diabetes-huber")
def clipped_while_scaled(program: Program, level: float) -> Program:
    """Gradients are clipped while the factor of the scaler is still in them."""
    return replace(program, epoch=loops.clipped_while_scaled)


@fault("ND904", "ND501", "ND402", on="digits-autocast digits-convnet diabetes-huber")
def scaled_step(program: Program, level: float) -> Program:
    """The optimiser steps with gradients that still hold the factor of the scaler."""
    return replace(program, epoch=loops.scaled_step)


@fault("ND507", "ND801", on="friedman-mlp cancer-binary digits-batchnorm")
def half_precision(program: Program, level: float) -> Program:
    """All of the model in float16, where Adam's eps of 1e-8 is 0."""
    return program.edit_model(_in_precision(torch.float16))


@fault("ND503", "ND502", "ND803", levels=(1, 0.1), on="digits-convnet digits-logsoftmax text-transformer")
def bfloat16_weights(program: Program, level: float) -> Program:
    """All of the model in bfloat16, which rounds small updates away; learning rate times the level."""
    return program.edit_model(_in_precision(torch.bfloat16), lr=program.lr * level)


def _in_precision(dtype: torch.dtype) -> EditModel:
    """An edit that turns parameters and numbers that go in into `dtype`, and outputs back."""

    def edit(model: nn.Module) -> nn.Module:
        forward = model.to(dtype).forward
        model.forward = lambda x: forward(x.to(dtype) if x.is_floating_point() else x).float()
        return model

    return edit


# What the optimiser gets


@fault(
    "ND504", "ND503", structural=True, place="head", on="digits-convnet waves-lstm reviews-transformer bags-embedding"
)
def head_not_optimised(program: Program, level: float) -> Program:
    """The optimiser gets all parameters but those of the head."""
    return replace(program, optimised=body_parameters)


@fault(
    "ND504", "ND503", structural=True, place="body", on="digits-convnet digits-dropout phrases-tagger text-transformer"
)
def body_not_optimised(program: Program, level: float) -> Program:
    """The optimiser gets the parameters of the head alone."""
    return replace(program, optimised=head_parameters)


@fault("ND504", "ND503", structural=True, place="head", on="digits-finetune digits-convnet waves-lstm")
def head_replaced_late(program: Program, level: float) -> Program:
    """The head is replaced after the optimiser has been made."""

    def replace_head(model: nn.Module) -> nn.Module:
        return headed(model.head.out_features)(model)

    return replace(program, late_edits=(*program.late_edits, replace_head))


@fault("ND504", "ND503", structural=True, on="digits-dropout digits-onecycle")
def layers_in_a_list(program: Program, level: float) -> Program:
    """Hidden layers in a list instead of a ModuleList: the optimiser never hears of them."""
    return replace(program, build=models.ListNet)


@fault("ND403", "ND503", place="body", on="digits-convnet waves-lstm bags-embedding phrases-tagger")
def body_frozen(program: Program, level: float) -> Program:
    """All but the head is frozen, though it has learned nothing yet."""

    def freeze(model: nn.Module) -> nn.Module:
        for parameter in body_parameters(model):
            parameter.requires_grad = False
        return model

    return program.edit_model(freeze)


@fault("ND403", structural=True, place="body", levels=(0, 1, 2, 3),
       on="digits-convnet waves-lstm reviews-transformer phrases-tagger digits-siamese")  # fmt: skip
def features_cut(program: Program, level: float) -> Program:
    """The features lose their graph: by detach(), no_grad(), .data, or NumPy."""
    ways = (_detached, _without_grad, _by_data, _by_numpy)
    return program.edit_model(features_through(ways[int(level)]))


def _detached(features: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    return features(x).detach()


def _without_grad(features: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    with torch.no_grad():
        return features(x)


def _by_data(features: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    return features(x).data


def _by_numpy(features: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    return torch.from_numpy(features(x).detach().numpy().copy())


# Outputs and loss


@fault("ND101", structural=True, levels=(0, 1),
       on="digits-convnet waves-lstm reviews-transformer bags-embedding phrases-tagger")  # fmt: skip
def softmax_before_cross_entropy(program: Program, level: float) -> Program:
    """Softmax, as a module or in `forward`, before a loss that takes logits."""
    return ends_in(program, lambda: nn.Softmax(dim=-1), lambda z: torch.softmax(z, -1), level)


@fault("ND101", structural=True, levels=(0, 1), on="cancer-binary tags-multilabel digits-siamese masks-segmenter")
def sigmoid_before_bce_with_logits(program: Program, level: float) -> Program:
    """Sigmoid, as a module or in `forward`, before a loss that takes logits."""
    return ends_in(program, nn.Sigmoid, torch.sigmoid, level)


@fault("ND105", "ND101", structural=True, levels=(0, 1), on="digits-convnet reviews-transformer")
def sigmoid_before_cross_entropy(program: Program, level: float) -> Program:
    """Sigmoid, as a module or in `forward`, before the cross-entropy over classes."""
    return ends_in(program, nn.Sigmoid, torch.sigmoid, level)


@fault("ND106", structural=True, levels=(0, 1), on="digits-convnet waves-lstm tags-multilabel cancer-binary")
def relu_on_logits(program: Program, level: float) -> Program:
    """ReLU, as a module or in `forward`, before a loss that takes logits."""
    return ends_in(program, nn.ReLU, F.relu, level)


@fault("ND105", "ND608", structural=True, on="digits-convnet waves-lstm iris-fullbatch")
def nll_of_logits(program: Program, level: float) -> Program:
    """nll_loss of plain outputs, which are no log probabilities."""
    return replace(program, loss=F.nll_loss)


@fault("ND105", "ND608", structural=True, on="digits-convnet waves-gru bags-embedding")
def nll_of_probabilities(program: Program, level: float) -> Program:
    """nll_loss of probabilities, whose logarithm nobody took."""
    return program.edit_model(appended(lambda: nn.Softmax(dim=1)), loss=F.nll_loss)


@fault("ND408", "ND608", structural=True, on="digits-convnet waves-lstm")
def minus_forgotten(program: Program, level: float) -> Program:
    """A cross-entropy by hand without its minus."""
    return replace(program, loss=lambda outputs, y: F.log_softmax(outputs, 1)[torch.arange(len(y)), y].mean())


@fault("ND111", structural=True, levels=(0, 1), on="digits-convnet waves-lstm")
def softmax_over_batch(program: Program, level: float) -> Program:
    """log_softmax, as a module or in `forward`, along the batch."""
    return replace(
        ends_in(program, lambda: nn.LogSoftmax(dim=0), lambda z: F.log_softmax(z, 0), level), loss=F.nll_loss
    )


@fault("ND111", structural=True, on="phrases-tagger text-transformer")
def softmax_over_words(program: Program, level: float) -> Program:
    """log_softmax along the words of (N, T, C) instead of along the classes."""
    by_place = program.edit_model(appended(lambda: nn.LogSoftmax(dim=1)))
    return replace(by_place, loss=lambda outputs, y: F.nll_loss(outputs.transpose(1, 2), y))


@fault("ND111", structural=True, on="phrases-tagger text-transformer")
def axes_confused(program: Program, level: float) -> Program:
    """(N, T, C) is reshaped to (N, C, T) where it should be transposed."""

    def loss(outputs: Tensor, y: Tensor) -> Tensor:
        return F.cross_entropy(outputs.reshape(len(y), -1, y.shape[1]), y)

    return replace(program, loss=loss)


def _nearest(outputs: Tensor, y: Tensor) -> float:
    """Share of samples of another class than the nearest id."""
    return float((outputs.squeeze(1).round() != y).float().mean())


@fault("ND105", "ND103", structural=True, on="digits-convnet waves-lstm bags-embedding")
def mse_on_class_ids(program: Program, level: float) -> Program:
    """One output, squared error against the ids of the classes."""
    return program.edit_model(headed(1), loss=lambda z, y: F.mse_loss(z.squeeze(1), y.float()), judge=_nearest)


@fault("ND103", "ND105", "ND110", structural=True, on="digits-convnet waves-lstm")
def bce_on_many_classes(program: Program, level: float) -> Program:
    """One output and binary cross-entropy against the ids of several classes."""
    return program.edit_model(headed(1), loss=bases.binary, judge=_nearest)


@fault("ND105", structural=True, on="tags-multilabel")
def softmax_for_labels(program: Program, level: float) -> Program:
    """Softmax over labels of which several are on."""
    end = appended(lambda: nn.Softmax(dim=1))
    return program.edit_model(end, loss=lambda outputs, y: F.binary_cross_entropy(outputs, y.float()))


@fault("ND105", "ND110", structural=True, on="tags-multilabel")
def cross_entropy_for_labels(program: Program, level: float) -> Program:
    """Cross-entropy over labels of which several are on."""
    return replace(program, loss=lambda outputs, y: F.cross_entropy(outputs, y.float()))


@fault("ND102", structural=True, on="cancer-binary digits-siamese")
def softmax_over_one_unit(program: Program, level: float) -> Program:
    """Softmax over a single output, which is then always 1."""
    end = appended(lambda: nn.Softmax(dim=1))
    return program.edit_model(end, loss=lambda outputs, y: F.binary_cross_entropy(outputs.squeeze(1), y.float()))


@fault("ND102", "ND105", structural=True, on="cancer-binary skewed-weighted")
def cross_entropy_over_one_unit(program: Program, level: float) -> Program:
    """Cross-entropy over a single output: the loss is 0 whatever comes."""
    return replace(program, loss=lambda outputs, y: F.cross_entropy(outputs, y.float().unsqueeze(1)))


@fault("ND105", "ND102", structural=True, on="friedman-mlp echoes-rnn")
def cross_entropy_for_regression(program: Program, level: float) -> Program:
    """Cross-entropy over a single output, against real numbers."""
    return replace(program, loss=lambda outputs, y: F.cross_entropy(outputs, y.unsqueeze(1)))


@fault("ND107", structural=True, levels=(0, 1), on="friedman-mlp echoes-rnn diabetes-huber")
def loss_broadcast(program: Program, level: float) -> Program:
    """Outputs (N, 1) against targets (N,), in mse_loss or by hand."""
    return replace(program, loss=(lambda z, y: torch.mean((z - y) ** 2)) if level else F.mse_loss)


@fault("ND104", structural=True, on="friedman-mlp echoes-rnn diabetes-huber")
def sigmoid_for_regression(program: Program, level: float) -> Program:
    """Sigmoid outputs for targets of both signs."""
    return program.edit_model(appended(nn.Sigmoid))


@fault("ND104", structural=True, on="friedman-mlp echoes-rnn diabetes-huber")
def relu_for_regression(program: Program, level: float) -> Program:
    """ReLU in `forward` on outputs for targets of both signs."""
    return program.edit_model(outputs_through(F.relu))


@fault("ND104", structural=True, on="digits-autoencoder")
def pixels_of_both_signs(program: Program, level: float) -> Program:
    """Images from −1 to 1 for a decoder that ends in a sigmoid."""
    return program.edit_data(all_inputs(lambda x: 2 * x - 1), all_targets(lambda y: 2 * y - 1))


@fault("ND110", structural=True, on="masks-segmenter")
def masks_of_bytes(program: Program, level: float) -> Program:
    """Masks of 0 and 255 for binary cross-entropy."""
    return program.edit_data(all_targets(lambda y: 255 * y))


@fault("ND110", structural=True, levels=(0, 1), on="cancer-binary digits-siamese tags-multilabel")
def binary_targets_of_other_numbers(program: Program, level: float) -> Program:
    """Targets −1 and 1, or 1 and 2, for binary cross-entropy, which takes 0 and 1."""

    def other(data: Data, rng: np.random.Generator) -> Data:
        y, y_val = (part + 1 if level else 2 * part - 1 for part in (data.y, data.y_val))
        return data._replace(y=y, y_val=y_val)

    return program.edit_data(other)


@fault("ND110", structural=True, on="digits-convnet text-transformer bags-embedding")
def class_ignored(program: Program, level: float) -> Program:
    """ignore_index=0, where 0 is a class."""

    def loss(outputs: Tensor, y: Tensor) -> Tensor:
        return F.cross_entropy(outputs.reshape(-1, outputs.shape[-1]), y.reshape(-1), ignore_index=0)

    return replace(program, loss=loss)


@fault("ND110", structural=True, levels=(0, 1), on="cancer-binary digits-siamese")
def hinge_of_zeros_and_ones(program: Program, level: float) -> Program:
    """A hinge, or a soft margin where the level is 1, of labels 0 and 1 instead of -1 and 1."""

    def loss(outputs: Tensor, y: Tensor) -> Tensor:
        z, y = outputs.squeeze(1), y.float()
        return F.soft_margin_loss(z, y) if level else (1 - y * z).clamp(min=0).mean()

    return replace(program, loss=loss)


@fault("ND108", "ND501", on="digits-convnet digits-logsoftmax diabetes-huber waves-lstm digits-onecycle")
def loss_summed(program: Program, level: float) -> Program:
    """The loss is summed over the batch instead of averaged."""
    return replace(program, loss=lambda outputs, y: program.loss(outputs, y) * len(y))


@fault("ND113", structural=True, on="digits-convnet waves-lstm friedman-mlp reviews-transformer")
def dropout_on_outputs(program: Program, level: float) -> Program:
    """Dropout behind the last layer."""
    return program.edit_model(appended(lambda: nn.Dropout(0.5)))


@fault("ND801", levels=(1, 3, 10, 30), on="cancer-binary digits-siamese digits-convnet")
def log_of_zero(program: Program, level: float) -> Program:
    """Cross-entropy by hand, with the logarithm of a probability that becomes 0; learning rate times the level."""

    def binary(outputs: Tensor, y: Tensor) -> Tensor:
        p = torch.sigmoid(outputs.squeeze(1))
        return -(y * torch.log(p) + (1 - y) * torch.log(1 - p)).mean()

    def classes(outputs: Tensor, y: Tensor) -> Tensor:
        return -(F.one_hot(y, outputs.shape[1]) * torch.log(torch.softmax(outputs, 1))).sum(1).mean()

    return replace(program, loss=binary if program.task == "binary" else classes, lr=program.lr * level)


@fault("ND801", on="digits-siamese")
def root_of_zero(program: Program, level: float) -> Program:
    """The root of a distance that is 0 for pairs of the same image."""
    return replace(program, build=models.RootSiamese)


# Learning rate, schedule, optimiser, batches


@fault("ND501", levels=(10, 100),
       on="digits-convnet digits-dropout digits-residual waves-lstm waves-gru echoes-rnn reviews-transformer "
          "text-transformer bags-embedding friedman-mlp wine-batchnorm ratings-factors digits-autoencoder")  # fmt: skip
def learning_rate_high(program: Program, level: float) -> Program:
    """Learning rate times the level."""
    return replace(program, lr=program.lr * level)


@fault("ND502", levels=(0.1, 0.01, 1e-4),
       on="digits-convnet text-transformer waves-gru phrases-tagger friedman-mlp tags-multilabel digits-autoencoder "
          "cancer-binary masks-segmenter")  # fmt: skip
def learning_rate_low(program: Program, level: float) -> Program:
    """Learning rate times the level."""
    return replace(program, lr=program.lr * level)


@fault("ND505", on="digits-convnet digits-dropout waves-lstm friedman-mlp phrases-tagger digits-autoencoder")
def epoch_schedule_each_batch(program: Program, level: float) -> Program:
    """A schedule of 0.8 an epoch takes a step with every batch."""

    def decay(optimizer: Any, batches: int) -> Any:
        return ExponentialLR(optimizer, 0.8)

    return replace(program, epoch=loops.scheduled_each_batch, schedule=decay)


@fault("ND505", "ND502", on="reviews-transformer digits-onecycle")
def schedule_never_steps(program: Program, level: float) -> Program:
    """scheduler.step() is forgotten, so that the rate stays where its warm-up begins."""
    return replace(program, epoch=loops.clipped)


@fault("ND506", levels=(1e-3, 1e-2, 0.1),
       on="digits-convnet digits-residual text-transformer reviews-transformer friedman-mlp echoes-rnn")  # fmt: skip
def weight_decay_strong(program: Program, level: float) -> Program:
    """Weights lose this share at every update; of Adam, whose decay is part of the gradient, 100 times as much is asked."""
    if program.optimizer is AdamW:
        return program.set(weight_decay=level / program.lr)
    plain = level * (1 - program.settings.get("momentum", 0)) / program.lr
    return program.set(weight_decay=plain if program.optimizer is SGD else 100 * level)


@fault("ND501", "ND604", "ND508", levels=(0.99, 0.999), on="digits-convnet digits-logsoftmax diabetes-huber")
def momentum_high(program: Program, level: float) -> Program:
    """Momentum close to 1 at the same learning rate."""
    return program.set(momentum=level)


@fault("ND507", levels=(0.1, 1.0), on="digits-batchnorm waves-lstm friedman-mlp cancer-binary text-transformer")
def adam_epsilon_large(program: Program, level: float) -> Program:
    """Adam's eps far above its usual 1e-8."""
    return program.set(eps=level)


@fault(
    "ND607", "ND502", levels=(0.25, 0.1), on="digits-convnet waves-gru phrases-tagger friedman-mlp digits-autoencoder"
)
def too_few_epochs(program: Program, level: float) -> Program:
    """Training ends after this share of its epochs."""
    return replace(program, epochs=max(1, round(program.epochs * level)))


@fault("ND607", "ND502", on="digits-convnet waves-lstm digits-autoencoder masks-segmenter")
def batch_of_everything(program: Program, level: float) -> Program:
    """A batch of the whole training set, with as many epochs as before."""
    return replace(program, batch_size=len(program.data(0).x))


@fault("ND501", "ND604", on="digits-convnet digits-logsoftmax echoes-rnn")
def batch_of_one(program: Program, level: float) -> Program:
    """Batches of one sample at the learning rate of much larger ones, for as many samples as fit into 1,000 updates."""
    return program.edit_data(keep(lambda y, rng: rng.permutation(len(y))[:500]), batch_size=1, epochs=2)


@fault("ND509", levels=(4, 2), on="wine-batchnorm")
def batch_norm_of_few(program: Program, level: float) -> Program:
    """Batch norm over batches of 4 or 2."""
    return replace(program, batch_size=int(level), epochs=round(program.epochs * level / program.batch_size))


@fault("ND508", structural=True, levels=(0.99, 0.9), on="digits-batchnorm wine-batchnorm")
def batch_norm_of_the_latest(program: Program, level: float) -> Program:
    """The momentum of batch norm is the share of the past, as elsewhere; here it is that of the latest batch."""

    def port(model: nn.Module) -> nn.Module:
        for module in model.modules():
            if isinstance(module, nn.modules.batchnorm._BatchNorm):
                module.momentum = level
        return model

    return program.edit_model(port)


# Initialisation and layers


@fault("ND202", structural=True, on="digits-convnet friedman-mlp cancer-binary bags-embedding")
def init_zero(program: Program, level: float) -> Program:
    """All weights zero."""
    return program.edit_model(initialised(nn.init.zeros_))


@fault("ND202", structural=True, levels=(0.02, 0.5), on="digits-convnet friedman-mlp cancer-binary tags-multilabel")
def init_constant(program: Program, level: float) -> Program:
    """All weights the same."""
    return program.edit_model(initialised(lambda weight: nn.init.constant_(weight, level)))


@fault("ND203", "ND204", "ND401", levels=(1e-2, 1e-4), on="digits-onecycle tags-multilabel friedman-mlp digits-convnet")
def init_tiny(program: Program, level: float) -> Program:
    """Normal weights of this standard deviation."""
    return program.edit_model(initialised(lambda weight: nn.init.normal_(weight, std=level)))


@fault("ND203", "ND201", "ND302", levels=(1, 3),
       on="digits-convnet digits-onecycle tags-multilabel friedman-mlp digits-dropout digits-autoencoder")  # fmt: skip
def init_large(program: Program, level: float) -> Program:
    """Normal weights of this standard deviation, 1 being the default of nn.init.normal_."""
    return program.edit_model(initialised(lambda weight: nn.init.normal_(weight, std=level)))


@fault(
    "ND205", "ND301", levels=(1, 10), on="digits-convnet digits-onecycle tags-multilabel friedman-mlp digits-dropout"
)
def biases_negative(program: Program, level: float) -> Program:
    """Hidden biases start at minus the level, so that ReLU is silent."""

    def lower(model: nn.Module) -> nn.Module:
        *hidden, _ = models.weighted(model)
        for layer in hidden:
            nn.init.constant_(layer.bias, -level)
        return model

    return program.edit_model(lower)


@fault("ND401", "ND203", "ND204", levels=(5, 8), on="digits-onecycle friedman-mlp tags-multilabel")
def deep_sigmoid(program: Program, level: float) -> Program:
    """This many hidden layers of sigmoids."""
    inputs, outputs = {"digits-onecycle": (64, 10), "friedman-mlp": (10, 1), "tags-multilabel": (16, 6)}[program.name]
    deep = partial(models.mlp, [inputs, *[48] * int(level), outputs], nn.Sigmoid)
    return replace(program, build=(lambda: bases.flat(deep())) if inputs == 64 else deep)


@fault("ND401", "ND203", "ND204", levels=(5, 8), on="digits-residual")
def skips_lost(program: Program, level: float) -> Program:
    """This many blocks without their skip connections and norms."""
    return replace(program, build=partial(models.ResidualNet, int(level), skip=False))


@fault("ND402", "ND203", levels=(1.5, 2, 3), on="echoes-rnn")
def recurrence_explodes(program: Program, level: float) -> Program:
    """Recurrent ReLUs whose weights begin at the level times the identity, and no clipping."""
    return replace(program, build=partial(models.ReluEchoNet, level), epoch=loops.plain)


@fault("ND112", on="digits-onecycle friedman-mlp tags-multilabel spirals-tanh")
def hidden_softmax(program: Program, level: float) -> Program:
    """Softmax as the activation function of the hidden layers."""
    return program.edit_model(each_activation(lambda: nn.Softmax(dim=1)))


@fault("ND305", "ND702", on="digits-onecycle friedman-mlp tags-multilabel spirals-tanh")
def no_activation(program: Program, level: float) -> Program:
    """No activation functions: a linear model."""
    return program.edit_model(each_activation(nn.Identity))


@fault("ND307", "ND702", "ND304", levels=(2, 1), on="digits-convnet waves-lstm tags-multilabel")
def bottleneck(program: Program, level: float) -> Program:
    """A layer of 2 units, or 1, before the last layer."""

    def narrow(model: nn.Module) -> nn.Module:
        width = int(level)
        if isinstance(model, nn.Sequential):
            return nn.Sequential(*model[:-1], nn.Linear(48, width), nn.ReLU(), nn.Linear(width, 6))
        head = model.head
        model.head = nn.Sequential(nn.Linear(head.in_features, width), nn.ReLU(), nn.Linear(width, head.out_features))
        return model

    return program.edit_model(narrow)


@fault("ND508", "ND702", levels=(0.9, 0.95), on="digits-dropout reviews-transformer")
def dropout_strong(program: Program, level: float) -> Program:
    """Dropout of nearly everything."""

    def drop(model: nn.Module) -> nn.Module:
        for layer in model.modules():
            if isinstance(layer, nn.Dropout):
                layer.p = level
        return model

    return program.edit_model(drop)


# Data


@fault("ND707", structural=True, on="digits-convnet waves-lstm bags-embedding cancer-binary friedman-mlp")
def labels_shuffled(program: Program, level: float) -> Program:
    """Training targets in another order than the inputs."""
    return program.edit_data(training(lambda x, y, rng: (x, permuted(y, rng))))


@fault("ND707", "ND701", levels=(0.5, 0.8), on="digits-convnet waves-lstm bags-embedding")
def labels_partly_wrong(program: Program, level: float) -> Program:
    """This share of the training labels is wrong."""
    return program.edit_data(training(partial(with_wrong_labels, level)))


@fault("ND707", "ND009", structural=True, on="digits-convnet waves-lstm bags-embedding")
def labels_off_by_one(program: Program, level: float) -> Program:
    """Training labels count from 1, those of validation from 0; the model has an output more."""

    def wider(model: nn.Module) -> nn.Module:
        return headed(model.head.out_features + 1)(model)

    return program.edit_data(training(lambda x, y, rng: (x, y + 1))).edit_model(wider)


@fault(
    "ND007", structural=True, on="digits-convnet digits-batchnorm waves-lstm bags-embedding cancer-binary friedman-mlp"
)
def unshuffled(program: Program, level: float) -> Program:
    """Training rows sorted by target and never shuffled."""
    return program.edit_data(keep(lambda y, rng: np.argsort(y, kind="stable")), shuffle=False)


@fault("ND001", structural=True, on="digits-convnet friedman-mlp waves-lstm masks-segmenter")
def nan_in_inputs(program: Program, level: float) -> Program:
    """One number of the training inputs is NaN."""

    def spoil(x: Array, y: Array, rng: np.random.Generator) -> tuple[Array, Array]:
        x = x.astype(float)
        x.reshape(len(x), -1)[rng.integers(len(x)), 0] = np.nan
        return x, y

    return program.edit_data(training(spoil))


@fault("ND001", structural=True, on="friedman-mlp echoes-rnn diabetes-huber ratings-factors")
def nan_in_targets(program: Program, level: float) -> Program:
    """One training target is NaN."""

    def spoil(x: Array, y: Array, rng: np.random.Generator) -> tuple[Array, Array]:
        y = y.copy()
        y[rng.integers(len(y))] = np.nan
        return x, y

    return program.edit_data(training(spoil))


@fault("ND001", structural=True, on="digits-logsoftmax digits-dropout digits-convnet")
def divided_by_zero_deviation(program: Program, level: float) -> Program:
    """Every pixel is divided by its standard deviation, which is 0 at the edges."""

    def standardise(data: Data, rng: np.random.Generator) -> Data:
        with np.errstate(invalid="ignore", divide="ignore"):
            return map_inputs(data, data.x.mean(axis=0), data.x.std(axis=0))

    return program.edit_data(standardise)


@fault(
    "ND002", levels=(16, 255), on="digits-convnet digits-logsoftmax digits-siamese cancer-binary friedman-mlp waves-gru"
)
def inputs_large(program: Program, level: float) -> Program:
    """All inputs times the level."""
    return program.edit_data(all_inputs(lambda x: x * level))


@fault("ND002", levels=(1 / 255, 1 / 65025), on="digits-convnet digits-logsoftmax friedman-mlp waves-lstm")
def inputs_small(program: Program, level: float) -> Program:
    """All inputs times the level, as when bytes are divided by 255 once too often."""
    return program.edit_data(all_inputs(lambda x: x * level))


@fault("ND002", levels=(100, 1e4), on="cancer-binary diabetes-huber friedman-mlp iris-fullbatch")
def one_feature_large(program: Program, level: float) -> Program:
    """The first feature times the level, as for columns of a table in their own units."""

    def enlarge(x: Array) -> Array:
        return x * np.where(np.arange(x.shape[1]) == 0, level, 1.0)

    return program.edit_data(all_inputs(enlarge))


@fault("ND004", levels=(30, 1000), on="friedman-mlp echoes-rnn diabetes-huber ratings-factors")
def targets_large(program: Program, level: float) -> Program:
    """Targets times the level."""
    return program.edit_data(all_targets(lambda y: y * level))


@fault("ND004", levels=(100, 1000), on="friedman-mlp echoes-rnn diabetes-huber")
def targets_shifted(program: Program, level: float) -> Program:
    """The level is added to all targets."""
    return program.edit_data(all_targets(lambda y: y + level))


@fault("ND009", "ND707", levels=(3, 255), on="digits-convnet digits-batchnorm friedman-mlp waves-lstm")
def validation_scaled_otherwise(program: Program, level: float) -> Program:
    """Validation inputs are this many times as large, and off by one."""

    def otherwise(data: Data, rng: np.random.Generator) -> Data:
        return data._replace(x_val=data.x_val * level + 1, x_test=data.x_test * level + 1)

    return program.edit_data(otherwise)


@fault("ND009", "ND707", "ND005", on="digits-convnet waves-lstm bags-embedding")
def split_by_class(program: Program, level: float) -> Program:
    """The file was sorted by class: the last classes are in validation alone, the others in training alone."""

    def divide(data: Data, rng: np.random.Generator) -> Data:
        first = int(0.75 * (data.y.max() + 1))
        rows, val = data.y < first, data.y_val >= first
        return data._replace(x=data.x[rows], y=data.y[rows], x_val=data.x_val[val], y_val=data.y_val[val])

    return program.edit_data(divide)


@fault("ND008", structural=True, on="digits-convnet friedman-mlp bags-embedding waves-lstm")
def validation_overlaps(program: Program, level: float) -> Program:
    """Half of the validation rows are training rows."""

    def overlap(data: Data, rng: np.random.Generator) -> Data:
        half = len(data.x_val) // 2
        rows = rng.permutation(len(data.x))[:half]
        x_val, y_val = data.x_val.copy(), data.y_val.copy()
        x_val[:half], y_val[:half] = data.x[rows], data.y[rows]
        return data._replace(x_val=x_val, y_val=y_val)

    return program.edit_data(overlap)


@fault("ND006", "ND701", levels=(5, 2), on="digits-convnet digits-logsoftmax bags-embedding")
def few_samples(program: Program, level: float) -> Program:
    """This many training rows a class, for as many updates as before."""

    def few(y: Array, rng: np.random.Generator) -> Array:
        return np.concatenate([rng.permutation(rows)[: int(level)] for rows in by_label(y)])

    rows = int(level) * len(by_label(program.data(0).y))
    return program.edit_data(keep(few), epochs=as_many_updates(program, rows))


@fault("ND701", "ND006", on="digits-convnet digits-logsoftmax bags-embedding cancer-binary friedman-mlp")
def learned_by_heart(program: Program, level: float) -> Program:
    """100 training rows, of whose labels one in five is wrong, or noisy, for 100 epochs and more."""

    def few(y: Array, rng: np.random.Generator) -> Array:
        return rng.permutation(len(y))[:100]

    noisy = partial(with_wrong_labels, 0.2) if program.task != "real" else _noisy
    epochs = max(100, as_many_updates(program, 100))
    return program.edit_data(keep(few), training(noisy), epochs=epochs).set(weight_decay=0)


def _noisy(x: Array, y: Array, rng: np.random.Generator) -> tuple[Array, Array]:
    return x, y + rng.normal(size=y.shape)


@fault("ND005", "ND705", "ND009", levels=(0.03, 0.01), on="digits-convnet waves-lstm bags-embedding cancer-binary")
def classes_imbalanced(program: Program, level: float) -> Program:
    """Of all classes but the first only this share of the training rows is kept, and one row at least."""

    def rarely(y: Array, rng: np.random.Generator) -> Array:
        first, *others = by_label(y)
        kept = [rng.permutation(rows)[: max(1, round(level * len(first)))] for rows in others]
        return np.concatenate([first, *kept])

    rows = len(rarely(program.data(0).y, np.random.default_rng(0)))
    return program.edit_data(keep(rarely), epochs=as_many_updates(program, rows))


@fault("ND005", "ND705", on="skewed-weighted")
def weight_of_rare_class_lost(program: Program, level: float) -> Program:
    """One sample in ten is positive, and nothing makes up for it."""
    return replace(program, loss=bases.binary)


@fault("ND005", structural=True, on="skewed-weighted")
def weights_upside_down(program: Program, level: float) -> Program:
    """One sample in ten is positive, and weighs a ninth of the others instead of nine times as much."""

    def loss(outputs: Tensor, y: Tensor) -> Tensor:
        return F.binary_cross_entropy_with_logits(outputs.squeeze(1), y.float(), pos_weight=torch.tensor(1 / 9))

    return replace(program, loss=loss)


@fault("ND005", structural=True, on="digits-convnet cancer-binary bags-embedding")
def one_class_only(program: Program, level: float) -> Program:
    """All training rows are of one class."""
    rows = int(np.sum(program.data(0).y == 0))
    return program.edit_data(keep(lambda y, rng: np.flatnonzero(y == 0)), epochs=as_many_updates(program, rows))
