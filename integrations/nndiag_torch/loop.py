"""The loop that PyTorch's hooks let one see: what a user's own code does, told as the events of a training loop."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import Any
from weakref import WeakSet

import torch
from torch import nn
from torch.nn.modules.module import register_module_forward_hook
from torch.optim import Optimizer
from torch.optim.optimizer import register_optimizer_step_post_hook, register_optimizer_step_pre_hook

from nndiag.frames import EVALUATION
from nndiag.hooks import Hooks
from nndiag.recorder import Recorder
from nndiag_torch import compiled, description, graph, patches
from nndiag_torch.arrays import first_tensor
from nndiag_torch.device import Later, is_for
from nndiag_torch.layers import (
    ALIKE,
    PASSING,
    Layer,
    Parameter,
    function_before,
    kind_of,
    layers_of,
    parameters_of,
)
from nndiag_torch.telling import Now

log = logging.getLogger("nndiag")

ENDLESS = 100
"""Backward passes without any update after which each counts as an iteration of its own: nobody accumulates so many."""


class TorchLoop:
    """A model, its optimisers and its loss in a loop of the user's own.

    The model itself is left alone: the forward hook is one for all modules of the process, and those of the optimisers are,
    too. An iteration begins with the first training pass (gradients on) after the last one ended, and ends when every
    optimiser has stepped. It stays open until the next begins, for what is logged late.
    Hooks are told of events as they happen, or later where the model lies on another device than the CPU (`deferred`).
    """

    deferred: bool | None = None

    def __init__(
        self, model: nn.Module, optimizers: Sequence[Optimizer], loss: Callable[..., Any] | None, recorder: Recorder
    ) -> None:
        self.model, self.loss, self.recorder = model, loss, recorder
        self.hooks = Hooks(self)
        self.teller: Now | Later = Now(self)
        self.steps = recorder.step_number
        self.optimizers: dict[Optimizer, int] = dict.fromkeys(optimizers, 0)
        self.objective: Mapping[str, Any] = {}
        self.clipping_limit: dict[str, Any] = {"gradients": "unknown"}
        self._layers: dict[int, Layer] = {}
        self._parameters: dict[int, Parameter] = {}
        self._order: dict[str, Layer] = {}
        self._parts: dict[int, nn.Module] = {}
        self._roots: dict[int, nn.Module] = {id(model): model}
        self.compiled = compiled.Compiled(self._layers, self._traced)
        self._foreign: WeakSet[nn.Module] = WeakSet()
        self._described = self._unheard = 0
        self._began = self._never_steps = False
        self._trains_in_evaluation_mode = False
        self._evaluated_in_training_mode: bool | None = None
        self._output: torch.Tensor | None = None
        self._handles: list[Any] = []
        self._survey()
        self._sums = self._checksum()
        self._new_iteration()

    # Listening

    def listen(self) -> None:
        """Hear what PyTorch does from now on."""
        compiled.forget(self.model)
        compiled.quiet()
        self.compiled.reading = self.teller.wants("on_forward")
        self._handles = [
            register_module_forward_hook(self._called),
            register_optimizer_step_pre_hook(self._before_step),
            register_optimizer_step_post_hook(self._after_step),
        ]
        patches.add(self)
        self.recorder.on_log(self._logged)

    def leave(self) -> None:
        """Hear no more, and leave nothing behind."""
        for handle in self._handles:
            handle.remove()
        self._handles.clear()
        self.compiled.reading = False
        compiled.loud()
        patches.remove(self)
        self._finish()
        self.teller.leave()
        self.hooks.remove(self.recorder)
        self._output = None

    def describe(self) -> dict[str, Any]:
        """What is known of the loop by now, fit for JSON."""
        return description.loop(self)

    @property
    def layers(self) -> list[Layer]:
        """The layers that have put something out in a training pass, in forward order."""
        return list(self._order.values())

    @property
    def parameters(self) -> list[Parameter]:
        """Every parameter of the model, once."""
        return list(self._parameters.values())

    def _survey(self) -> None:
        """Find the layers and parameters of the model, also those that it has got since."""
        self._parts |= {id(module): module for module in self.model.modules()}
        for module, name in layers_of(self.model):
            if id(module) not in self._layers:
                self._layers[id(module)] = Layer(name, kind_of(module), module)
        self._parameters = {id(p.tensor): p for p in parameters_of(self.model, self._parameters)}

    # The iteration

    def _new_iteration(self) -> None:
        self._passing = self._in_backward = self._finished = False
        self._stepped: set[Optimizer] = set()
        self._told: set[int] = set()
        self._backward_passes = self._updates = 0
        self._gradients_kept: Any = math.nan
        self._evaluation_mode = 0.0
        self._skips: list[Any] = []
        self._scale: Any = 1.0
        self._output = None
        self._previous: Layer | None = None
        self._function = ""
        self._loss_is_in = self._collected = False
        self.compiled.reading = self.teller.wants("on_forward")

    def _begin_pass(self, args: Any) -> None:
        """A training pass begins: of a new iteration, or one more of the iteration under way."""
        if self._finished or self._backward_passes >= (1 if self._never_steps else ENDLESS):
            self._finish()
        self._collect_gradients()
        self._passing, self._in_backward, self._loss_is_in, self._collected = True, False, False, False
        self._previous = self._output = None
        self._function = ""
        self._evaluation_mode = max(self._evaluation_mode, float(not self.model.training))
        self._begin()
        if self.teller.wants("on_step_begin") and (x := first_tensor(args, floating=False)) is not None:
            self.teller.batch(x)

    def _begin(self) -> None:
        """Training begins, unless it has."""
        if not self._began:
            self._began = True
            self.teller.fire("on_train_begin", self)
            if is_for(self) if self.deferred is None else self.deferred:
                self.teller = Later(self)

    def _finish(self) -> None:
        """The iteration under way is over, if there is one."""
        if not (self._finished or self._backward_passes):
            return
        if not self._finished:
            self._never_steps = not self._updates
            self._tell_gradients(self.parameters)
            self._collect_gradients()
        self._mind_silence()
        self.teller.iteration(self._backward_passes, self._updates, self._skips, self._gradients_kept,
                              self._evaluation_mode, self._scale, by_hand=self._never_steps)  # fmt: skip
        if self._described != len(self._order):
            self._described = len(self._order)
            self.recorder.describe(**self.describe())
        self.steps += 1
        self.teller.iteration_ends()
        self._new_iteration()

    def _mind_silence(self) -> None:
        """Say so, once, where iterations go by without any layer that was heard."""
        if not self._order and self.teller.wants("on_forward"):
            self._unheard += 1
            if self._unheard == 2:
                log.warning(
                    "no layer of %s was heard: of what torch.compile has compiled by then, nothing can be; nndiag.watch before "
                    "the first call, or call torch.compiler.reset() after it", type(self.model).__name__
                )  # fmt: skip

    def moved(self) -> bool:
        """Whether a parameter is not what it was at first."""
        return self._checksum() != self._sums

    def _checksum(self) -> list[float]:
        """Sums that change when somebody updates the parameters without an optimiser."""
        return [float(tensor.detach().double().sum()) for tensor in self._smallest()]

    # Forward

    def _called(self, module: nn.Module, args: tuple[Any, ...], output: Any) -> Any:
        """Any module of the process has been called. While a graph is traced, what this gives back is handed on instead."""
        if torch.compiler.is_compiling():
            return self.compiled.passed(module, output)
        if id(module) in self._parts:
            self._part_called(module, args, output)
        elif module is self.loss:
            self._take_loss_module(args, output)
        elif module not in self._foreign:
            self._meet(module, args, output)
        return None

    def _part_called(self, module: nn.Module, args: tuple[Any, ...], output: Any) -> None:
        """A module of the model, or the model itself, has been called."""
        root = id(module) in self._roots
        if not torch.is_grad_enabled() and (root or not self._passing):
            self._evaluates()
        elif self.model.training or self._trains_in_evaluation_mode:
            self._train_forward(self._layers.get(id(module)), root, args, output)
            if compiled.is_region(module):
                self.compiled.collect(self.teller.measured, "output", among=module)
                self._collected = self._collected or root
        elif (tensor := first_tensor(output)) is not None and tensor.requires_grad:
            tensor.register_hook(self._evaluation_pass_goes_back)

    def _meet(self, module: nn.Module, args: tuple[Any, ...], output: Any) -> None:
        """A module that was not there when the model was surveyed: a new part of it, or none of ours."""
        self._survey()
        if getattr(module, "_orig_mod", None) is self.model:  # what torch.compile has made of it
            self._parts[id(module)] = self._roots[id(module)] = module
        if id(module) in self._parts:
            self._part_called(module, args, output)
        else:
            self._foreign.add(module)

    def _evaluates(self) -> None:
        """A pass without gradients."""
        self._evaluated_in_training_mode = self.model.training

    def _evaluation_pass_goes_back(self, gradient: torch.Tensor) -> None:
        """A pass in evaluation mode was one of training after all."""
        self._trains_in_evaluation_mode = True
        self._evaluation_mode = 1.0

    def _train_forward(self, layer: Layer | None, root: bool, args: tuple[Any, ...], output: Any) -> None:
        if _recomputing():
            if layer is not None:
                self._await_gradient(layer, first_tensor(output))
            return
        if not self._passing or self._in_backward:
            self._begin_pass(args)
        tensor = first_tensor(output)
        if layer is not None and tensor is not None and self.teller.wants("on_forward"):
            self._layer_forward(layer, first_tensor(args), tensor)
        if root:
            self._output = tensor

    def _traced(self, layer: Layer) -> None:
        """`layer` is part of a compiled region, which is traced just now."""
        self._order.setdefault(layer.name, layer)

    def _collect_outputs(self) -> None:
        """Take over what compiled regions have measured in this pass."""
        if not self._collected:
            self._collected = True
            self.compiled.collect(self.teller.measured, "output", among=None)

    def _collect_gradients(self) -> None:
        """Take over δ, as compiled regions have measured it in the last pass."""
        if self._in_backward:
            self.compiled.collect(self.teller.measured_backward, "gradient", self._scale, among=None)

    def _layer_forward(self, layer: Layer, x: torch.Tensor | None, output: torch.Tensor) -> None:
        if x is not None and x.data_ptr() != output.data_ptr():  # what works in place has overwritten its input
            self._function_forward(x)
        self._order.setdefault(layer.name, layer)
        self._tell_forward(layer, x, output)

    def _function_forward(self, x: torch.Tensor) -> None:
        """A function without a module may lie between the layer before and this one, whose input shows what it put out."""
        before, kind = self._previous, function_before(x)
        if before is None or kind in ("", self._function):
            return
        name = f"{before.name}.{kind}"
        layer = self._order.get(name)
        if layer is None:
            layer = Layer(name, kind, None)
            self._order = _inserted(self._order, before.name, layer)
        self._tell_forward(layer, None, x)

    def _tell_forward(self, layer: Layer, x: torch.Tensor | None, output: torch.Tensor) -> None:
        self._previous = layer
        if layer.kind not in PASSING:
            self._function = ALIKE.get(layer.kind, layer.kind)
        if layer.shape is None:
            layer.shape = tuple(output.shape[1:])
        self.teller.forward(layer, x, output)
        self._await_gradient(layer, output)

    def _await_gradient(self, layer: Layer, output: torch.Tensor | None) -> None:
        if output is not None and output.requires_grad and self.teller.wants("on_backward"):
            output.register_hook(partial(self._goes_back, layer))

    # The loss

    def _take_loss_module(self, args: tuple[Any, ...], output: Any) -> None:
        if isinstance(output, torch.Tensor) and output.requires_grad and len(args) > 1:
            self._take_loss(output, args[0], args[1])

    def _logged(self, values: dict[str, Any]) -> dict[str, Any]:
        """Take from what is logged the tensors and what belongs elsewhere; the rest are numbers."""
        validates = any(name.startswith(("validation_", "val_")) for name in values)
        if validates:
            self._validated()
        loss, outputs, targets = (values.pop(name, None) for name in ("loss", "outputs", "targets"))
        if isinstance(loss, torch.Tensor):
            self._take_loss(loss, outputs, targets)
        elif loss is not None:
            values["loss"] = loss
        values = self.teller.logged(values)
        if validates:
            self.teller.catch_up()
        return values

    def _validated(self) -> None:
        """Numbers of a validation: they belong to the iteration that comes, and tell of the passes just made."""
        if self._finished:
            self._finish()
        self.teller.catch_up()
        if self._evaluated_in_training_mode is not None:
            self.recorder.row.buffers["loop"].put("", EVALUATION, (float(self._evaluated_in_training_mode),))
            self._evaluated_in_training_mode = None

    def _take_loss(self, loss: torch.Tensor, outputs: Any, targets: Any) -> None:
        if self._finished and self._loss_is_in and self.compiled.traced:
            self._begin_pass(())  # one that was compiled as a whole
        self._begin()
        self._collect_outputs()
        value, again, self._loss_is_in = loss.detach().mean(), self._loss_is_in, True
        if not self.teller.reading or not self.teller.wants("on_loss"):
            self.teller.loss(value, None, None, again=again)
            return
        found = graph.objective(loss, self._output)
        self._output = None
        if found.loss and found.loss != self.objective:
            self.objective = found.loss
            self.recorder.describe(loss=found.loss)
        given = first_tensor(outputs), first_tensor(targets, floating=False)
        seen = found.outputs if given[0] is None else given[0]
        wanted = found.targets if given[1] is None else given[1]
        if seen is not None:
            self._head(found.head, seen)
        self.teller.loss(value, seen, wanted, again=again)
        if seen is not None and found.gradient_source is not None and self.teller.wants("on_output_gradient"):
            found.gradient_source.register_hook(self._output_goes_back)
        if loss.requires_grad and not self._in_backward:
            loss.register_hook(self._loss_goes_back)

    def _head(self, kind: str, outputs: torch.Tensor) -> None:
        """A function between the last layer and the loss is a layer, too."""
        before = self._previous
        if before is not None and kind not in ("", self._function):
            layer = self._order.setdefault(f"{before.name}.{kind}", Layer(f"{before.name}.{kind}", kind, None))
            self._tell_forward(layer, None, outputs)

    # Backward

    def _loss_goes_back(self, gradient: torch.Tensor) -> None:
        self._begin_backward()

    def _output_goes_back(self, gradient: torch.Tensor) -> None:
        self._begin_backward()
        self.teller.output_gradient(gradient, self._scale)

    def _goes_back(self, layer: Layer, gradient: torch.Tensor) -> None:
        self._begin_backward()
        self.teller.backward(layer, gradient, self._scale)

    def _begin_backward(self) -> None:
        if self._in_backward and not self._finished:
            return
        if self._finished:
            self._begin_pass(())  # one that was compiled as a whole
        self._collect_outputs()
        self._in_backward, self._output, self._collected = True, None, False
        self._backward_passes += 1
        if self._backward_passes == 1 and self.teller.reading:
            self._gradients_kept = self.teller.any_nonzero(p.grad for p in self._smallest() if p.grad is not None)

    def _smallest(self) -> list[nn.Parameter]:
        """A few parameters that are quickly looked through, to see whether gradients were cleared."""
        trainable = [p.tensor for p in self._parameters.values() if p.tensor.requires_grad]
        return sorted(trainable, key=torch.Tensor.numel)[:4]

    def clipping(self, tensors: list[torch.Tensor], limit: dict[str, float]) -> None:
        """Gradients are about to be clipped."""
        ours = [found for tensor in tensors if (found := self._parameters.get(id(tensor)))]
        if ours:
            if self.clipping_limit != (clipping := {**limit, "gradients": "before"}):
                self.clipping_limit = clipping
                self.recorder.describe(clipping=clipping)
            self._tell_gradients(ours)

    def scaled(self, scale: Any) -> None:
        """The loss of this iteration is scaled, for mixed precision."""
        self._scale = self.teller.number(scale)

    def steps_of(self, optimizer: Optimizer) -> int | None:
        """Steps of one of our optimisers so far."""
        return self.optimizers.get(optimizer)

    def skipped(self, optimizer: Optimizer) -> None:
        """Gradients were not finite, and the scaler has left out the step."""
        self._collect_gradients()
        self._tell_gradients(self._owned(optimizer))
        self._updates += 1
        self._skips.append(True)
        self._stepped_with(optimizer)

    def _tell_gradients(self, parameters: Iterable[Parameter]) -> None:
        new = [p for p in parameters if id(p.tensor) not in self._told]
        if new:
            self._told |= {id(p.tensor) for p in new}
            if self.teller.wants("on_gradients"):
                self.teller.gradients(new)

    # The update

    def _before_step(self, optimizer: Optimizer, args: Any, kwargs: Any) -> None:
        parameters = self._ours(optimizer)
        if not parameters:
            return
        if optimizer in self._stepped:
            self._finish()
        self._collect_gradients()
        scale = getattr(optimizer, "grad_scale", None)  # fused optimisers take the scale off themselves
        for parameter in parameters:
            parameter.scale = 1.0 if scale is None else self.teller.number(scale)
        self._tell_gradients(parameters if self._stepped else [*parameters, *self._unowned()])
        self.teller.update_begins(parameters, optimizer.param_groups[0]["lr"])

    def _after_step(self, optimizer: Optimizer, args: Any, kwargs: Any) -> None:
        if not (parameters := self._ours(optimizer)):
            return
        self.teller.update_ends(parameters)
        self.optimizers[optimizer] += 1
        self._updates += 1
        skipped = getattr(optimizer, "found_inf", None)  # fused optimisers leave a step out themselves
        if skipped is not None:
            self._skips.append(self.teller.number(skipped))
        self._never_steps = False
        self._stepped_with(optimizer)

    def _stepped_with(self, optimizer: Optimizer) -> None:
        self._stepped.add(optimizer)
        self._finished = len(self._stepped) >= len(self.optimizers)
        if self._finished:
            self._passing = False

    def _ours(self, optimizer: Optimizer) -> list[Parameter]:
        """Parameters of the model that `optimizer` updates; one that has some is one of ours from now on."""
        owned = self._owned(optimizer)
        if owned and optimizer not in self.optimizers:
            self.optimizers[optimizer] = 0
            self.recorder.describe(**self.describe())
        return owned

    def _owned(self, optimizer: Optimizer) -> list[Parameter]:
        tensors = (tensor for group in optimizer.param_groups for tensor in group["params"])
        return [found for tensor in tensors if (found := self._parameters.get(id(tensor)))]

    def _unowned(self) -> list[Parameter]:
        """Parameters that no optimiser updates."""
        held = {
            id(tensor)
            for optimizer in self.optimizers
            for group in optimizer.param_groups
            for tensor in group["params"]
        }
        return [p for key, p in self._parameters.items() if key not in held]


def _inserted(order: dict[str, Layer], before: str, layer: Layer) -> dict[str, Layer]:
    """`order` with `layer` behind the one called `before`."""
    items: list[tuple[str, Layer]] = []
    for name, each in order.items():
        items.append((name, each))
        if name == before:
            items.append((layer.name, layer))
    return dict(items)


def _recomputing() -> bool:
    """Whether this forward pass is a checkpoint's second, within a backward pass."""
    return bool(torch._C._current_graph_task_id() != -1)


compiled.keep_out(TorchLoop._called.__code__)
