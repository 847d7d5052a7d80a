"""The loop that PyTorch's hooks let one see: what a user's own code does, told as the events of a training loop."""

from __future__ import annotations

import logging
import math
import weakref
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial, wraps
from time import perf_counter
from typing import Any, Concatenate, ParamSpec

import numpy as np
import torch
from torch import nn
from torch.nn.modules.module import register_module_forward_hook
from torch.optim import Optimizer
from torch.optim.optimizer import register_optimizer_step_post_hook, register_optimizer_step_pre_hook

from nndiag.frames import EVALUATION, FRAMES, LOOP
from nndiag.hooks import Hooks
from nndiag.recorder import Recorder
from nndiag.statistics import Array
from nndiag_torch import description, graph, patches
from nndiag_torch.arrays import as_array, first_tensor
from nndiag_torch.layers import (
    ALIKE,
    CHANNELS_FIRST,
    PASSING,
    Layer,
    Parameter,
    function_before,
    kind_of,
    layers_of,
    parameters_of,
)
from nndiag_torch.optimizers import subtracted

log = logging.getLogger("nndiag")

ENDLESS = 100
"""Backward passes without any update after which each counts as an iteration of its own: nobody accumulates so many."""


_P = ParamSpec("_P")


def guarded(method: Callable[Concatenate[TorchLoop, _P], None]) -> Callable[Concatenate[TorchLoop, _P], None]:
    """Counts the time that `method`, which PyTorch calls, takes; a fault in it ends the watching, not the training."""

    def run(self: TorchLoop, *args: _P.args, **kwargs: _P.kwargs) -> None:
        pace = self.recorder.pace
        begun, spent = perf_counter(), pace.spent
        try:
            method(self, *args, **kwargs)
        except Exception as fault:
            self._fail(method.__name__.lstrip("_"), fault)
        finally:
            pace.spent = spent + perf_counter() - begun

    return wraps(method)(run)  # type: ignore[return-value]  # still a method of TorchLoop


MANY, LOOKED = 8, 5
"""Kinds of loss of one loop that are told apart, and iterations in which it is seen which parameters the loss reaches."""

TENSORS = ("loss", "outputs", "targets")
"""What may be logged as a tensor."""


class TorchLoop:
    """A model, its optimisers and its loss in a loop of the user's own.

    The model itself is left alone: the forward hook is one for all modules of the process, and those of the optimisers are,
    too. An iteration begins with the first training pass (gradients on) after the last one ended, and ends when every
    optimiser has stepped. It stays open until the next begins, for what is logged late.
    """

    def __init__(
        self, model: nn.Module, optimizers: Sequence[Optimizer], loss: Callable[..., Any] | None, recorder: Recorder
    ) -> None:
        self.model, self.loss, self.recorder = model, loss, recorder
        self.hooks = Hooks(self)
        self.steps = recorder.step_number
        self.optimizers: dict[Optimizer, int] = dict.fromkeys(optimizers, 0)
        self.reached: set[int] = set()
        self._objectives: list[dict[str, Any]] = []
        self.clipping_limit: dict[str, Any] = {"gradients": "unknown"}
        self._layers: dict[int, Layer] = {}
        self._parameters: dict[int, Parameter] = {}
        self._order: dict[str, Layer] = {}
        self._foreign: weakref.WeakSet[nn.Module] = weakref.WeakSet()
        self._described = (0, 0)
        self._began = self._never_steps = False
        self._trains_in_evaluation_mode = False
        self._evaluated_in_training_mode: bool | None = None
        self._output: Any = None
        self._handles: list[Any] = []
        self._survey()
        self._sums = self._checksum()
        self._new_iteration()

    # Listening

    def listen(self) -> None:
        """Hear what PyTorch does from now on."""
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
        patches.remove(self)
        self._finish()
        self.hooks.remove(self.recorder)
        self._output = None

    def _fail(self, where: str, fault: Exception) -> None:
        """Something here is broken: hear no more, and say so."""
        if self.recorder.strict:
            raise fault
        log.error("the PyTorch adapter failed in %s and is detached; training goes on", where, exc_info=fault)
        for handle in self._handles:
            handle.remove()
        self._handles.clear()
        patches.remove(self)
        self.recorder.fault("TorchLoop", where, fault, FRAMES)

    def describe(self) -> dict[str, Any]:
        """What is known of the loop by now, fit for JSON."""
        return description.loop(self)

    @property
    def objective(self) -> Mapping[str, Any]:
        """What the loss is made of, as its graph has shown last."""
        return self._objectives[-1] if self._objectives else {}

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
        for module, name in layers_of(self.model):
            if id(module) not in self._layers:
                self._layers[id(module)] = Layer(name, kind_of(module), module)
        known = self._parameters
        self._parameters = {id(p.tensor): known.get(id(p.tensor), p) for p in parameters_of(self.model)}

    # The iteration

    def _new_iteration(self) -> None:
        self._passing = self._inside = self._in_backward = self._finished = False
        self._surveyed = False
        self._stepped: set[Optimizer] = set()
        self._told: set[int] = set()
        self._backward_passes = self._updates = self._skipped = 0
        self._gradients_kept = math.nan
        self._evaluation_mode = 0.0
        self._scale = 1.0
        self._output = None
        self._previous: Layer | None = None
        self._function = ""
        self._latest: tuple[Callable[[], torch.Tensor | None], int] = (_nothing, 0)
        self._loss_is_in = False

    def _begin_pass(self, args: Any) -> None:
        """A training pass begins: of a new iteration, or one more of the iteration under way."""
        if self._finished or self._backward_passes >= (1 if self._never_steps else ENDLESS):
            self._finish()
        self._passing, self._in_backward, self._loss_is_in = True, False, False
        self._previous = self._output = None
        self._function = ""
        self._reads = self.recorder.recording
        self._evaluation_mode = max(self._evaluation_mode, float(not self.model.training))
        if not self._began:
            self._began = True
            self._fire("on_train_begin", self)
        if self.hooks.listened("on_step_begin") and (x := first_tensor(args, floating=False)) is not None:
            self._fire("on_step_begin", as_array(x), None)

    def _finish(self) -> None:
        """The iteration under way is over, if there is one."""
        if not (self._finished or self._backward_passes):
            return
        if not self._finished:
            self._never_steps = not self._updates
            self._tell_gradients(self.parameters)
        self._put_loop()
        known = len(self._order), len(self.reached)
        if self._described != known:
            self._described = known
            self.recorder.describe(**self.describe())
        self.steps += 1
        self._fire("on_step_end")
        self._new_iteration()

    def _put_loop(self) -> None:
        """What this iteration did, for the checks of the loop."""
        if self.recorder.recording:
            updates = math.nan if self._never_steps and self._checksum() != self._sums else self._updates
            self.recorder.row.buffers["loop"].put("", LOOP, (
                self._backward_passes, updates, self._skipped, self._gradients_kept, self._evaluation_mode, self._scale,
            ))  # fmt: skip

    def _checksum(self) -> list[float]:
        """Sums that change when somebody updates the parameters without an optimiser."""
        return [float(tensor.detach().double().sum()) for tensor in self._smallest()]

    def _fire(self, event: str, *arguments: Any) -> None:
        with np.errstate(all="ignore"):
            self.hooks.fire(event, *arguments)

    # Forward

    @guarded
    def _called(self, module: nn.Module, args: tuple[Any, ...], output: Any) -> None:
        """Any module of the process has been called."""
        if torch.compiler.is_compiling() or torch._C._functorch.peek_interpreter_stack() is not None:
            return  # what is traced, and what runs under vmap and the like, has no values
        layer = self._layers.get(id(module))
        if layer is None and module is not self.model:
            if module is self.loss:
                self._take_loss_module(args, output)
            elif module not in self._foreign:
                self._meet(module, args, output)
            return
        if not torch.is_grad_enabled() and not self._inside:
            self._evaluates()
        elif self.model.training or self._trains_in_evaluation_mode:
            self._train_forward(layer, module, args, output)
        elif (tensor := first_tensor(output)) is not None and tensor.requires_grad:
            tensor.register_hook(self._evaluation_pass_goes_back)

    def _meet(self, module: nn.Module, args: tuple[Any, ...], output: Any) -> None:
        """A module that was not there when the model was surveyed: a new part of it, or none of ours."""
        if self._surveyed or isinstance(module, LOSSES):
            return
        self._surveyed = True  # once in an iteration: some loops make a new module at every step
        self._survey()
        if id(module) in self._layers:
            self._called(module, args, output)
        else:
            self._foreign.add(module)

    def _evaluates(self) -> None:
        """A pass without gradients."""
        self._evaluated_in_training_mode = self.model.training

    @guarded
    def _evaluation_pass_goes_back(self, gradient: torch.Tensor) -> None:
        """A pass in evaluation mode was one of training after all."""
        self._trains_in_evaluation_mode = True
        self._evaluation_mode = 1.0

    def _train_forward(self, layer: Layer | None, module: nn.Module, args: tuple[Any, ...], output: Any) -> None:
        if _recomputing():
            if layer is not None:
                self._await_gradient(layer, first_tensor(output))
            return
        if not self._passing or self._in_backward:
            self._begin_pass(args)
        ends = module is self.model
        self._inside = not ends
        if not self._reads:
            return
        tensor = first_tensor(output)
        if layer is not None and tensor is not None:
            self._layer_forward(layer, first_tensor(args), tensor)
        if ends:
            self._output = output

    def _layer_forward(self, layer: Layer, x: torch.Tensor | None, output: torch.Tensor) -> None:
        if x is not None and x.data_ptr() != output.data_ptr():  # what works in place has overwritten its input
            self._function_forward(x)
            if layer.after is None:
                layer.after = self._source(x)
        self._order.setdefault(layer.name, layer)
        self._tell_forward(layer, x, output)

    def _source(self, x: torch.Tensor) -> str:
        """Name of the layer before, if `x` is what it put out, untouched but perhaps reshaped; "" otherwise."""
        latest, version = self._latest
        output = latest()
        if self._previous is None or output is None or output._version != version:
            return ""
        base = output if output._base is None else output._base
        return self._previous.name if x is output or x._base is base else ""

    def _function_forward(self, x: torch.Tensor) -> None:
        """A function without a module may lie between the layer before and this one, whose input shows what it put out."""
        before, kind = self._previous, function_before(x)
        if before is None or kind in ("", self._function):
            return
        name = f"{before.name}.{kind}"
        layer = self._order.get(name)
        if layer is None:
            layer = Layer(name, kind, None)
            layer.after = before.name
            self._order = _inserted(self._order, before.name, layer)
        self._tell_forward(layer, None, x)

    def _tell_forward(self, layer: Layer, x: torch.Tensor | None, output: torch.Tensor) -> None:
        self._previous, self._latest = layer, (weakref.ref(output), output._version)
        if layer.kind not in PASSING:
            self._function = ALIKE.get(layer.kind, layer.kind)
        if layer.shape is None:
            layer.shape = tuple(output.shape[1:])
        if self.hooks.listened("on_forward"):
            array = self._unit_last(layer, as_array(output))
            layer.latest = array
            self._fire("on_forward", layer, array if x is None else as_array(x), array)
            layer.latest = None
        self._await_gradient(layer, output)

    def _unit_last(self, layer: Layer, array: Array) -> Array:
        """An output with its units in the last axis: those of images and of what convolutions put out are channels."""
        if array.ndim < 3:
            return array
        channels = array.ndim > 3 or layer.kind in CHANNELS_FIRST
        return np.moveaxis(array, 1, -1) if channels else array

    def _await_gradient(self, layer: Layer, output: torch.Tensor | None) -> None:
        if output is not None and output.requires_grad and self.hooks.listened("on_backward"):
            output.register_hook(partial(self._goes_back, layer))

    # The loss

    def _take_loss_module(self, args: tuple[Any, ...], output: Any) -> None:
        if isinstance(output, torch.Tensor) and output.requires_grad and len(args) > 1:
            self._take_loss(output, args[0], args[1])

    def _logged(self, values: dict[str, Any]) -> dict[str, Any]:
        """The numbers in what is logged; the loss and what comes with it are taken out where they are tensors.

        After a fault there is nothing: without the steps of the loop, a row would have no end.
        """
        numbers = {name: _number(name, value) for name, value in values.items() if name not in TENSORS}
        self._take_logged(values, numbers)
        return numbers if self._handles else {}

    @guarded
    def _take_logged(self, values: dict[str, Any], numbers: dict[str, Any]) -> None:
        if not self._handles:
            return
        if any(name.startswith(("validation_", "val_")) for name in values):
            self._validated()
        loss, outputs, targets = (values.get(name) for name in TENSORS)
        if isinstance(loss, torch.Tensor):
            self._take_loss(loss, outputs, targets)
        elif loss is not None:
            numbers["loss"] = loss

    def _validated(self) -> None:
        """Numbers of a validation: they belong to the iteration that comes, and tell of the passes just made."""
        if self._finished:
            self._finish()
        if self._evaluated_in_training_mode is not None:
            self.recorder.row.buffers["loop"].put("", EVALUATION, (float(self._evaluated_in_training_mode),))
            self._evaluated_in_training_mode = None

    def _take_loss(self, loss: torch.Tensor, outputs: Any, targets: Any) -> None:
        value = float(loss.detach().mean())
        recorder = self.recorder
        if self._loss_is_in:
            recorder.row.train[-1:] = []
        self._loss_is_in = True
        if not recorder.recording or not self.hooks.listened("on_loss"):
            recorder.loss(value)
            return
        found = graph.objective(loss, self._output)
        self._output = None
        self._know(found.loss, loss)
        given = first_tensor(outputs), first_tensor(targets, floating=False)
        seen = found.outputs if given[0] is None else given[0]
        wanted = found.targets if given[1] is None else given[1]
        if seen is None:
            recorder.loss(value)
        else:
            self._head(found.head, seen)
            self._fire("on_loss", as_array(seen), None if wanted is None else as_array(wanted), value)
            if found.gradient_source is not None and self.hooks.listened("on_output_gradient"):
                found.gradient_source.register_hook(partial(self._output_goes_back, found.delta))
        if loss.requires_grad and not self._in_backward:
            loss.register_hook(self._loss_goes_back)

    def _know(self, objective: dict[str, Any], loss: torch.Tensor) -> None:
        """Describe the loss where it is new, and which parameters it reaches where that may still grow."""
        names = [known.get("name") for known in self._objectives]  # a last batch of a single sample says less
        if objective and objective.get("name") not in names and len(names) < MANY:
            self._objectives.append(objective)
            self.recorder.describe(loss=objective)
        if self.steps < LOOKED:
            self.reached |= graph.reached(loss)

    def _head(self, kind: str, outputs: torch.Tensor) -> None:
        """A function between the last layer and the loss is a layer, too."""
        before = self._previous
        if before is not None and kind not in ("", self._function):
            layer = self._order.setdefault(f"{before.name}.{kind}", Layer(f"{before.name}.{kind}", kind, None))
            self._tell_forward(layer, None, outputs)

    # Backward

    @guarded
    def _loss_goes_back(self, gradient: torch.Tensor) -> None:
        self._begin_backward()

    @guarded
    def _output_goes_back(self, delta: Callable[[torch.Tensor], torch.Tensor], gradient: torch.Tensor) -> None:
        self._begin_backward()
        self._fire("on_output_gradient", self._unscaled(delta(gradient)))

    @guarded
    def _goes_back(self, layer: Layer, gradient: torch.Tensor) -> None:
        self._begin_backward()
        self._fire("on_backward", layer, self._unscaled(gradient))

    def _unscaled(self, gradient: torch.Tensor) -> Array:
        array = as_array(gradient)
        return array if self._scale == 1.0 else array / self._scale

    def _begin_backward(self) -> None:
        if self._in_backward:
            return
        self._in_backward, self._inside, self._output = True, False, None
        self._backward_passes += 1
        if self._backward_passes == 1:
            self._gradients_kept = float(any(bool(p.grad.any()) for p in self._smallest() if p.grad is not None))

    def _smallest(self) -> list[nn.Parameter]:
        """A few parameters that are quickly looked through, to see whether gradients were cleared."""
        trainable = [p.tensor for p in self._parameters.values() if p.tensor.requires_grad]
        return sorted(trainable, key=torch.Tensor.numel)[:4]

    @guarded
    def clipping(self, tensors: list[torch.Tensor], limit: dict[str, float]) -> None:
        """Gradients are about to be clipped."""
        ours = [found for tensor in tensors if (found := self._parameters.get(id(tensor)))]
        if ours:
            if self.clipping_limit != (clipping := {**limit, "gradients": "before"}):
                self.clipping_limit = clipping
                self.recorder.describe(clipping=clipping)
            self._tell_gradients(ours)

    @guarded
    def scaled(self, scale: float) -> None:
        """The loss of this iteration is scaled, for mixed precision."""
        self._scale = scale

    def steps_of(self, optimizer: Optimizer) -> int | None:
        """Steps of one of our optimisers so far."""
        return self.optimizers.get(optimizer)

    @guarded
    def skipped(self, optimizer: Optimizer) -> None:
        """Gradients were not finite, and the scaler has left out the step."""
        self._tell_gradients(self._owned(optimizer))
        self._skipped += 1
        self._stepped_with(optimizer)

    def _tell_gradients(self, parameters: Iterable[Parameter]) -> None:
        new = [p for p in parameters if id(p.tensor) not in self._told]
        if new:
            self._told |= {id(p.tensor) for p in new}
            self._fire("on_gradients", new)

    # The update

    @guarded
    def _before_step(self, optimizer: Optimizer, args: Any, kwargs: Any) -> None:
        parameters = self._ours(optimizer)
        if not parameters:
            return
        if optimizer in self._stepped:
            self._finish()
        scale = getattr(optimizer, "grad_scale", None)  # fused optimisers take the scale off themselves
        for parameter in parameters:
            parameter.scale = 1.0 if scale is None else float(scale)
        self._tell_gradients(parameters if self._stepped else [*parameters, *self._unowned()])
        if self.hooks.listened("on_update_begin"):
            self._fire("on_update_begin", parameters, float(optimizer.param_groups[0]["lr"]))

    @guarded
    def _after_step(self, optimizer: Optimizer, args: Any, kwargs: Any) -> None:
        if not (parameters := self._ours(optimizer)):
            return
        if self.hooks.listened("on_update"):
            taken = subtracted(optimizer)
            for parameter in parameters:
                self._fire("on_update", parameter, *taken.get(id(parameter.tensor), (None, 1.0)))
        if self.hooks.listened("on_update_end"):
            self._fire("on_update_end", parameters)
        self.optimizers[optimizer] += 1
        skipped = getattr(optimizer, "found_inf", None)  # fused optimisers leave a step out themselves
        if skipped is not None and float(skipped):
            self._skipped += 1
        else:
            self._updates += 1
        self._never_steps = False
        self._stepped_with(optimizer)

    def _stepped_with(self, optimizer: Optimizer) -> None:
        self._stepped.add(optimizer)
        self._finished = len(self._stepped) >= len(self.optimizers)
        if self._finished:
            self._passing = self._inside = False

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


def _nothing() -> None:
    """A weak reference to no tensor."""


LOSSES = (nn.modules.loss._Loss, nn.modules.loss._WeightedLoss)


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


def _number(name: str, value: Any) -> Any:
    """A tensor of one value as a number; anything else as it is, for `log` to judge."""
    if isinstance(value, torch.Tensor):
        if value.numel() != 1:
            raise TypeError(
                f"log({name}=tensor of shape {tuple(value.shape)}): wanted a single number; take its mean()"
            )
        return value.item()
    return value
