"""The loop that PyTorch's hooks let one see: what a user's own code does, told as the events of a training loop."""

from __future__ import annotations

import logging
import math
import weakref
from collections.abc import Callable, Mapping, Sequence
from functools import wraps
from threading import get_ident
from time import perf_counter
from typing import Any, Concatenate, ParamSpec

import torch
from torch import nn
from torch.nn.modules.module import register_module_forward_hook, register_module_forward_pre_hook
from torch.optim import Optimizer
from torch.optim.optimizer import register_optimizer_step_post_hook, register_optimizer_step_pre_hook

from nndiag.frames import EVALUATION, FRAMES
from nndiag.held_out import SharedRows
from nndiag.hooks import ALWAYS, Hooks
from nndiag.interrupts import propagates
from nndiag.recorder import Recorder
from nndiag.row import Origin
from nndiag_torch import compiled, description, graph, patches
from nndiag_torch.arrays import first_tensor, hook_of, on_gradient, same_start, version_of
from nndiag_torch.device import Later, is_for
from nndiag_torch.dropping import FunctionalDropout
from nndiag_torch.evaluations import Evaluations
from nndiag_torch.gradients import Gradients, is_cleared
from nndiag_torch.iteration import Aside, Iteration, Pass
from nndiag_torch.layers import ALIKE, PASSING, Layer, Parameter, function_before, reshapes
from nndiag_torch.objectives import LOOKED, Objectives
from nndiag_torch.optimizers import moving, moving_group
from nndiag_torch.parts import Holders, Parts
from nndiag_torch.telling import Now

log = logging.getLogger("nndiag")

ENDLESS, BY_HAND = 100, 3
"""Backward passes without any update after which each counts as an iteration of its own: nobody accumulates so many; and those
after each of which the parameters were others, though no optimiser has ever stepped: somebody updates them by hand."""


_P = ParamSpec("_P")


def guarded(method: Callable[Concatenate[TorchLoop, _P], None]) -> Callable[Concatenate[TorchLoop, _P], None]:
    """Counts the time that `method`, which PyTorch calls, takes; a fault in it ends the watching, not the training."""

    def run(self: TorchLoop, *args: _P.args, **kwargs: _P.kwargs) -> None:
        pace = self.recorder.pace
        begun, spent = perf_counter(), pace.spent - pace.owed
        try:
            method(self, *args, **kwargs)
        except Exception as fault:
            self._fail(method.__name__.lstrip("_"), fault)
        finally:
            pace.spent = spent + pace.owed + perf_counter() - begun

    run.__torch_unserializable__ = True  # type: ignore[attr-defined]  # as a hook of a tensor that is saved: no warning
    return wraps(method)(run)  # type: ignore[return-value]  # still a method of TorchLoop


SILENT = 2
"""Iterations without any layer after which that is said."""

TENSORS = ("loss", "outputs", "targets")
"""What may be logged as a tensor."""

MODAL = ("dropout", "batch_norm")
"""Kinds of layers to which the mode makes a difference: of a model that is called in parts, its own mode says nothing."""

LOSSES = (nn.modules.loss._Loss, nn.modules.loss._WeightedLoss)
"""What is never a part of a model."""


class TorchLoop:
    """A model, its optimisers and its loss in a loop of the user's own.

    The model itself is left alone: the forward hook is one for all modules of the process, and those of the optimisers are,
    too. A loss that nobody logs is seen as it goes back. An iteration begins with the first training pass (gradients on)
    after the last one ended, and ends when every optimiser has stepped. It stays open until the next begins, for what is
    logged late.
    Hooks are told of events as they happen, or later where the model lies on another device than the CPU (`deferred`).
    """

    deferred: bool | None = None

    def __init__(
        self, model: nn.Module, optimizers: Sequence[Optimizer], loss: Callable[..., Any] | None, recorder: Recorder
    ) -> None:
        self.model, self.loss, self.recorder = model, loss, recorder
        recorder.row.shared = SharedRows()
        self.hooks = Hooks(self)
        self.teller: Now | Later = Now(self)
        self.steps = recorder.step_number
        self.parts = Parts(model)
        self.holders = Holders(self.parts, dict.fromkeys(optimizers, 0))
        self.reached: set[int] = set()
        self._objectives = Objectives(self)
        self.gradients = Gradients(self)
        self.compiled = compiled.Compiled(self.parts.layers, self._traced)
        self._description = description.Description(self)
        self._unheard = 0
        """Iterations in which no layer was heard."""
        self._by_hand = 0
        """Passes in turn before which parameters were written to, though no optimiser ever steps."""
        self._turns: dict[Optimizer | None, Any] = {}
        """Whether the gradients of each optimiser were kept when it stepped last."""
        self._strangers: weakref.WeakSet[Optimizer] = weakref.WeakSet()
        """Optimisers that hold no parameter of ours."""
        self._loss_tells = False
        """Whether losses are logged in time to say when they go back; else outputs do, on steps that are not read."""
        self.in_turn = self._several = False
        """Whether not all optimisers step in each iteration, and whether each has a loss of its own."""
        self._parts = False
        """Whether the losses that go back in one iteration are parts of one."""
        self._ends_elsewhere = False
        """Whether what goes into the loss comes from a part that is not the model's."""
        self._told_in_time = self._passes_through = False
        """Whether a loss was ever logged before it went back, and whether one passed through to parameters of another model."""
        self._epoch: Any = 0
        self._began = self._failed = False
        self._never_steps = False
        """Whether no optimiser stepped in the latest iteration."""
        self._trains_in_evaluation_mode = False
        """Whether passes in evaluation mode are heard as those of training."""
        self._aside: Aside | None = None
        """Passes in evaluation mode that may turn out to be of training, if there were any since the latest iteration."""
        self._reads = False
        """Whether the latest pass is read."""
        self._evaluations = Evaluations()
        self._dropout = FunctionalDropout()
        self._entering: tuple[Any, ...] = ()
        """What the model was called with, until its first module has been called."""
        self._within, self._thread = False, 0
        """Whether the model is being called with gradients on, and in which thread it was called last."""
        self._handles: list[Any] = []
        self._new_iteration()

    # Listening

    def listen(self) -> None:
        """Hear what PyTorch does from now on."""
        compiled.forget(self.model)
        compiled.quiet()
        self.compiled.reading = self.teller.wants("on_forward")
        self._handles = [
            register_module_forward_pre_hook(self._entered),
            register_module_forward_hook(self._called),
            register_optimizer_step_pre_hook(self._before_step),
            register_optimizer_step_post_hook(self._after_step),
        ]
        patches.add(self)
        self.recorder.on_log(self._logged)

    def leave(self) -> None:
        """Hear no more, and leave nothing behind."""
        self._take_off()
        self.compiled.reading = False
        compiled.loud()
        if self.iteration.finished or self.iteration.stepped or not any(self.optimizers.values()):
            self._finish()
        else:
            self._settle_losses()  # nothing has come of the passes under way
        self.teller.leave()
        self.hooks.remove(self.recorder)
        self._pass.output = None

    def _take_off(self) -> None:
        """Take every hook off."""
        for handle in self._handles:
            handle.remove()
        self._handles.clear()
        patches.remove(self)

    def _fail(self, where: str, fault: Exception) -> None:
        """Something here is broken: hear no more, and say so."""
        if propagates(fault, self.recorder.strict):
            raise fault
        log.error("the PyTorch adapter failed in %s and is detached; training goes on", where, exc_info=fault)
        self._failed = True
        self._take_off()
        self.recorder.fault("TorchLoop", where, fault, FRAMES)

    def describe(self) -> dict[str, Any]:
        """What is known of the loop by now, fit for JSON."""
        return description.loop(self)

    @property
    def objective(self) -> Mapping[str, Any]:
        """What the loss is: what its graph has shown last, whether it is one of several that are at odds, and what was told."""
        return self._objectives.latest

    @property
    def layers(self) -> list[Layer]:
        """The layers that have put something out in a training pass, in forward order."""
        return list(self.parts.order.values())

    @property
    def parameters(self) -> list[Parameter]:
        """Every parameter of the model, and of what it calls and does not have, once."""
        return list(self.parts.parameters.values())

    @property
    def optimizers(self) -> dict[Optimizer, int]:
        """The optimisers of this loop, with their steps so far."""
        return self.holders.steps

    # The iteration

    def _new_iteration(self) -> None:
        self.iteration, self._pass = Iteration(), Pass()
        if self._trains_in_evaluation_mode:
            self.iteration.evaluation_mode = 1.0
        self.gradients.new_iteration()
        self.compiled.reading = self.teller.wants("on_forward")

    def _begin_pass(self, args: Any) -> None:
        """A training pass begins: of a new iteration, or one more of the iteration under way."""
        if self._is_over():
            self._finish()
        self._aside = None
        self._evaluations.training_goes_on()
        self._collect_gradients()
        self._pass = Pass(begun=True)
        self._reads = self.teller.reading
        self.iteration.evaluation_mode = min(self.iteration.evaluation_mode, float(self.parts.in_evaluation_mode))
        self._begin()
        given, self._entering = self._entering, ()
        self._objectives.enters(given, args)
        # Of the model, where a tensor is passed by place, or of its first module.
        if self.teller.wants("on_step_begin") and (x := first_tensor((given, args), floating=False)) is not None:
            self._objectives.batch(x)
            self.teller.batch(x)

    def _is_over(self) -> bool:
        """Whether a pass that begins is one of the next iteration."""
        now = self.iteration
        if now.finished or now.stepped or not now.went_back:
            return now.finished or (self.in_turn and bool(now.stepped))
        by_hand = not (now.stepping or any(self.optimizers.values())) and now.versions != self.holders.versions
        self._by_hand = self._by_hand + 1 if by_hand else 0
        return self._never_steps or self._by_hand >= BY_HAND or now.went_back >= ENDLESS

    def _begin(self) -> None:
        """Training begins, unless it has."""
        if not self._began:
            self._began = True
            self.teller.fire("on_train_begin", self)
            if is_for(self) if self.deferred is None else self.deferred:
                self.teller = Later(self)

    def _finish(self) -> None:
        """The iteration under way is over, if there is one."""
        now = self.iteration
        if not (now.finished or now.went_back or now.stepped):
            return
        if not now.finished:
            now.backward_passes = now.backward_passes or now.went_back
            self._never_steps = not now.updates
            if not (now.updates and self.in_turn) and any(p.tensor.grad is not None for p in self.parameters):
                self.gradients.tell(self.parameters)
            self._collect_gradients()
        self._mind_silence()
        if not now.finished:
            self._settle_losses()
        if math.isinf(now.evaluation_mode):  # without a pass in training mode: this loop trains in the other
            self._trains_in_evaluation_mode = now.goes_back_in_evaluation_mode
            now.evaluation_mode = float(now.goes_back_in_evaluation_mode)
            now.backward_passes = max(now.backward_passes, int(now.goes_back_in_evaluation_mode and now.finished))
        self._trains_in_evaluation_mode &= now.evaluation_mode > 0
        if self.teller.reading:
            self.teller.iteration(now, self._gradients_kept(), self.gradients.scale, by_hand=self._never_steps)
        self._description.keep(read=self.teller.reading)
        self.steps += 1
        self.teller.iteration_ends()
        self._new_iteration()

    def _settle_losses(self) -> None:
        """What was seen to go back counts where an optimiser has stepped, if any ever does; of micro-batches it may be a part."""
        now = self.iteration
        if self._several or (not now.updates and any(self.optimizers.values())):
            self.teller.losses_seen(0)
        elif now.backward_passes > 1 and now.witness is not None:
            self._parts = self._parts or self._objectives.are_parts(now.backward_passes)
            if self._parts:
                self.teller.losses_seen(now.backward_passes)

    def _mind_silence(self) -> None:
        """Say so, once, where iterations go by without any layer that was heard, or without those that are compiled."""
        in_evaluation_mode = self.iteration.goes_back_in_evaluation_mode  # heard from the next but one iteration on
        heard = self.parts.order or in_evaluation_mode
        silent = not heard or (self.steps < LOOKED and compiled.misses(self.parts.modules.values()))
        if silent and self._unheard < SILENT and self.teller.wants("on_forward"):
            self._unheard += 1
            if self._unheard == SILENT:
                compiled.silent(type(self.model).__name__)

    # Forward

    def _entered(self, module: nn.Module, args: tuple[Any, ...]) -> None:
        """Any module of the process is about to be called; of the model, what goes in is a batch."""
        if torch.compiler.is_compiling():
            return
        if id(module) in self.parts.roots or ("_orig_mod" in module._modules and self.parts.is_compiled(module)):
            self._pass.inside, self._within = (
                False,
                torch.is_grad_enabled(),
            )  # a pass before may have ended in an exception
            self._thread = get_ident()
            self._entering = args if self._within else ()
            if not (self._within or self.model.training):
                self._dropout.evaluation_begins()

    def _called(self, module: nn.Module, args: tuple[Any, ...], output: Any) -> Any:
        """Any module of the process has been called. While a graph is traced, what this gives back is handed on instead."""
        if torch.compiler.is_compiling():
            return None if compiled.exporting() else self.compiled.passed(module, output)
        if self._pass.inside and not (self._reads or self.teller.reading) and id(module) in self.parts.inner:
            return None  # within a pass that is not read
        if torch._C._functorch.peek_interpreter_stack() is None and not torch.jit.is_tracing():
            self._really_called(module, args, output)  # what runs under vmap and the like has no values
        return None

    @guarded
    def _really_called(self, module: nn.Module, args: tuple[Any, ...], output: Any) -> None:
        if id(module) in self.parts.modules:
            self._part_called(module, args, output)
        elif module is self.loss:
            self._take_loss_module(args, output)
        elif not self.parts.is_foreign(module):
            self._meet(module, args, output)

    def _part_called(self, module: nn.Module, args: tuple[Any, ...], output: Any) -> None:
        """A module of the model, or the model itself, has been called."""
        if root := id(module) in self.parts.roots:
            self._entering, self._within = (), False
        if not torch.is_grad_enabled() and (root or not (self._within or patches.is_checkpointing())):
            if root:
                self._evaluates(first_tensor(args, floating=False))
            elif (layer := self.parts.layers.get(id(module))) and layer.kind in MODAL:
                self._evaluations.passed(training=module.training)
        elif self.model.training or self._trains_in_evaluation_mode or not self.parts.in_evaluation_mode:
            self._train_forward(self.parts.layers.get(id(module)), root, args, output)
            if compiled.is_region(module):
                self.compiled.collect(self.teller.measured, "output", among=module)
                self._pass.collected = self._pass.collected or root
        elif (tensor := first_tensor(output)) is not None and tensor.requires_grad:
            if self.iteration.finished and self._aside is None:
                self._aside = Aside()
            tensor.register_hook(self._evaluation_pass_goes_back)

    def _meet(self, module: nn.Module, args: tuple[Any, ...], output: Any) -> None:
        """A module that was not there when the model was surveyed: a new part of it, or none of ours."""
        if self.iteration.surveyed or isinstance(module, LOSSES) or self._thread not in (0, get_ident()):
            return
        self.iteration.surveyed = True  # once in an iteration: some loops make a new module at every step
        own = self.parts.meet(module)
        if not own and self._within and (tensor := first_tensor(output)) is not None and tensor.requires_grad:
            self.parts.borrow(module)
        self.holders.forget()
        if own:
            self._part_called(module, args, output)

    def _evaluates(self, x: torch.Tensor | None) -> None:
        """A pass of the whole model without gradients; `x` is what went in, if that is a tensor."""
        self._evaluations.passed(training=self.model.training)
        self.recorder.pause()
        if x is None:
            return
        if (dropped := self._dropout.evaluation_ends()) is not None:
            self.recorder.row.dropped(dropped)
        self.teller.evaluated(x)

    @guarded
    def _evaluation_pass_goes_back(self, gradient: torch.Tensor) -> None:
        """A pass in evaluation mode was one of training after all, or will have been once an optimiser steps."""
        if self.iteration.finished and self._aside is not None:
            self._aside.goes_back = True
        else:
            self.iteration.goes_back_in_evaluation_mode = True

    def _was_training(self, aside: Aside) -> None:
        """An optimiser steps on passes in evaluation mode: they are of an iteration of their own, and those to come are heard."""
        self._finish()
        self._trains_in_evaluation_mode = True
        self.iteration.evaluation_mode, self.iteration.backward_passes = 1.0, 1
        if aside.loss is not None:
            self.teller.loss(aside.loss, Origin(told=False, seen=True), None, None)

    def _train_forward(self, layer: Layer | None, root: bool, args: tuple[Any, ...], output: Any) -> None:
        if _backward_under_way() != -1:
            if layer is not None:
                self._await_gradient(layer, first_tensor(output))
            return
        if not self._pass.begun or self._pass.in_backward:
            self._begin_pass(args)
        self._pass.inside = not root
        if not self._reads:
            if root and not self._loss_tells and (tensor := first_tensor(output)) is not None and tensor.requires_grad:
                on_gradient(tensor, self._loss_goes_back)
            return
        if layer is not None and self.teller.wants("on_forward") and (tensor := first_tensor(output)) is not None:
            self._layer_forward(layer, first_tensor(args), tensor)
        if root:
            self._pass.output = output

    def _traced(self, layer: Layer) -> None:
        """`layer` is part of a compiled region, which is traced just now."""
        self.parts.order.setdefault(layer.name, layer)

    def _collect_outputs(self) -> None:
        """Take over what compiled regions have measured in this pass."""
        if not self._pass.collected:
            self._pass.collected = True
            self.compiled.collect(self.teller.measured, "output", among=None)

    def _collect_gradients(self) -> None:
        """Take over δ, as compiled regions have measured it in the last pass."""
        if self._pass.in_backward:
            self.compiled.collect(self.teller.measured_backward, "gradient", self.gradients.scale, among=None)

    def _layer_forward(self, layer: Layer, x: torch.Tensor | None, output: torch.Tensor) -> None:
        if x is not None and not self._follows(layer, x) and not same_start(x, output):  # or it worked in place
            self._function_forward(x)
            if layer.after is None:
                layer.after = self._source(x)
        if layer.name not in self.parts.order:
            self.parts.place(layer, self._pass.heard)
        self._tell_forward(layer, x, output)

    def _follows(self, layer: Layer, x: torch.Tensor) -> bool:
        """Whether a layer that is known to come right after another got `x` from it: most do, and nothing lies between."""
        latest, version = self._pass.latest
        return layer.after is not None and latest() is x and version_of(x) == version

    def _source(self, x: torch.Tensor) -> str:
        """Name of the layer before, if `x` is what it put out, untouched but perhaps reshaped; "" otherwise."""
        current = self._pass
        latest, version = current.latest
        output = latest()
        if current.previous is None or output is None or version_of(output) != version:
            return ""
        base = output if output._base is None else output._base
        return current.previous.name if x is output or x._base is base else ""

    def _function_forward(self, x: torch.Tensor) -> None:
        """A function without a module may lie between the layer before and this one, whose input shows what it put out."""
        before, kind = self._pass.previous, function_before(x)
        if before is None or kind in ("", self._pass.function):
            return
        self._tell_forward(self.parts.function(before, kind), None, x)

    def _tell_forward(self, layer: Layer, x: torch.Tensor | None, output: torch.Tensor) -> None:
        current = self._pass
        current.previous, current.latest = layer, (weakref.ref(output), version_of(output))
        current.heard.add(layer.name)
        if layer.kind not in PASSING and not (layer.kind == "unknown" and reshapes(x, output)):
            current.function = ALIKE.get(layer.kind, layer.kind)
        if layer.shape is None:
            layer.shaped(x, output)
        self.teller.forward(layer, x, output)
        self._await_gradient(layer, output)

    def _await_gradient(self, layer: Layer, output: torch.Tensor | None) -> None:
        if output is not None and output.requires_grad and self.teller.wants("on_backward"):
            if layer.goes_back is None:
                layer.goes_back = hook_of(self._goes_back, layer)
            on_gradient(output, layer.goes_back)

    # The loss

    def _take_loss_module(self, args: tuple[Any, ...], output: Any) -> None:
        if self._pass.begun and isinstance(output, torch.Tensor) and output.requires_grad and len(args) > 1:
            self._take_loss(output, args[0], args[1])

    def _logged(self, values: dict[str, Any]) -> dict[str, Any]:
        """The numbers in what is logged; the loss and what comes with it are taken out where they are tensors.

        After a fault there is nothing: without the steps of the loop, a row would have no end.
        """
        numbers = {name: value for name, value in values.items() if name not in TENSORS}
        validates = any(name.startswith(("validation_", "val_")) for name in values)
        self._take_logged(values, numbers, validates)
        numbers = self.teller.logged(numbers)
        if validates:
            self.teller.catch_up()
        return {} if self._failed else numbers

    @guarded
    def _take_logged(self, values: dict[str, Any], numbers: dict[str, Any], validates: bool) -> None:
        if self._failed:
            return
        if values.keys() == {"epoch"} and values["epoch"] != self._epoch:  # by itself, it is said of what comes
            self._epoch = values["epoch"]
            if self.iteration.finished and not self.teller.retelling:
                self._finish()
        if validates and not self.teller.retelling:
            self._validated(trains=isinstance(values.get("loss"), torch.Tensor))
        loss, outputs, targets = (values.get(name) for name in TENSORS)
        beside = first_tensor(outputs)
        if isinstance(loss, torch.Tensor):
            self._take_loss(loss, outputs, targets)
        elif (
            isinstance(loss, float | int) and beside is not None and (self.iteration.finished or self._pass.in_backward)
        ):
            number = torch.full((), loss, dtype=torch.float64, device=beside.device)
            self._take_loss(number, outputs, targets)
        else:
            if beside is not None and self._pass.begun:
                self._pass.given = outputs, targets
            if loss is not None:
                numbers["loss"] = loss

    def _validated(self, *, trains: bool) -> None:
        """Numbers of a validation: they belong to the iteration that comes, and tell of the passes just made.

        Where the loss of a training pass comes with them, the last of these is that one.
        """
        if self.iteration.finished:
            self._finish()
        self.teller.catch_up()
        if self._pass.begun and self.teller.reading and not self.iteration.went_back and not trains:
            self._take_back()
        self._aside = None
        if (training := self._evaluations.validated()) is not None:
            self.recorder.row.buffers["loop"].put("", EVALUATION, (training,))

    def _take_back(self) -> None:
        """The passes since the last step had gradients on and no backward pass: they were those of the validation."""
        self._evaluations.took(training=self.model.training)
        self.recorder.row.take_back(loss=self._pass.loss_is_in)
        self._pass.begun = self._pass.inside = self._pass.loss_is_in = False
        self._pass.output = None

    def goes_back(self, loss: torch.Tensor) -> None:
        """A backward pass from `loss` is about to begin."""
        if self.iteration.finished or not self._pass.loss_is_in or self.steps < ALWAYS:  # else it was told
            self._goes_back_untold(loss)

    @guarded
    def _goes_back_untold(self, loss: torch.Tensor) -> None:
        """Unless it was told after all, the loss is seen now.

        What passes through to parameters of somebody else's is the loss of another. Where several optimisers have each a loss of
        their own, none of them is that of the run.
        """
        now, current = self.iteration, self._pass
        if self._aside is not None and now.finished:
            self._goes_back_aside(self._aside, loss)
            return
        if self.steps < ALWAYS and (self._strangers or len(self.optimizers) > 1):
            self._objectives.mind_opponents(loss)
        unheard = now.finished and (bool(self.compiled.traced) or not self.parts.order)
        known = current.loss_is_in or (now.finished and current.loss_seen)
        if self._failed or current.unscaled or (known and not unheard) or (parameter := self._reached_by(loss)) is None:
            return
        self._several = self._several or self.in_turn or bool(now.stepped and not now.finished)
        if self._several or loss.numel() != 1:
            self._hear(loss)
        elif current.loss_seen and not unheard:  # another from the same pass
            self.teller.loss(self.teller.mean(loss), Origin(told=False, seen=True, added=True), None, None)
        else:
            cleared, now.witness = is_cleared(now.witness), parameter
            given, current.given = current.given, (None, None)
            self._take_loss(loss, *given, told=False, again=cleared)

    def _goes_back_aside(self, aside: Aside, loss: torch.Tensor) -> None:
        """Of passes of which it is not known yet whether they train, the first loss is kept."""
        if aside.loss is None and not self._pass.unscaled and loss.numel() == 1 and self._reached_by(loss) is not None:
            aside.loss = self.teller.mean(loss)

    def _reached_by(self, loss: torch.Tensor) -> torch.Tensor | None:
        """A parameter of the model that `loss` reaches, if all that it reaches are the model's or in its optimisers.

        On steps that are not read, that the first one is the model's is enough where nobody else's was ever met.
        """
        ours = self.parts.parameters
        own = None
        for leaf in graph.leaves(loss):
            if id(leaf) in ours:
                own = leaf
                if not (self._passes_through or self.teller.reading or self.steps < LOOKED):
                    return own
            elif isinstance(leaf, nn.Parameter) and id(leaf) not in self.holders.held:
                self._passes_through = True
                return None
        return own

    def _hear(self, loss: torch.Tensor) -> bool:
        """Hear when `loss` goes back; whether it still may."""
        if not loss.requires_grad or self._pass.adds_up:
            return False
        self._loss_tells = True
        on_gradient(loss, self._loss_goes_back)
        return True

    def _take_loss(
        self, loss: torch.Tensor, outputs: Any, targets: Any, *, told: bool = True, again: bool = False
    ) -> None:
        known = self._pass.loss_is_in or (self._pass.loss_seen and not told)
        if self._aside is not None and self.iteration.finished and loss.requires_grad:
            self._begin_pass(())  # in evaluation mode, and of training, since its loss is told before it goes back
            self._trains_in_evaluation_mode = True
        elif self.iteration.finished and known and (self.compiled.traced or not self.parts.order):
            self._begin_pass(())  # one that was compiled as a whole, or whose modules nobody calls
        self._begin()
        self._collect_outputs()
        value, looked = self.teller.mean(loss), self._pass.loss_seen
        in_time = self._hear(loss)
        origin = Origin(told, in_time and not looked, again or (told and self._pass.loss_is_in))
        self._told_in_time = self._told_in_time or (told and in_time)
        self._pass.loss_is_in, self._pass.loss_seen = self._pass.loss_is_in or told, looked or not told
        enough = looked or (self._told_in_time and not told)  # what else goes back is of another kind
        if outputs is None and (enough or not (self.teller.reading and self.teller.looks(value))):
            self._pass.output = None
            self.teller.loss(value, origin, None, None)
            return
        found = graph.objective(loss, self._pass.output)
        self._objectives.look(found, loss, self._pass.output)
        if self.steps < LOOKED:
            self._ends_elsewhere = graph.ends_elsewhere(found, self._pass.output, loss, self.parts.parameters)
        self._pass.output = None
        if self.steps < LOOKED:
            self.reached |= graph.reached(loss)
            self._dropout.trains(loss, [layer.module for layer in self.parts.order.values()])
        given = first_tensor(outputs), first_tensor(targets, floating=False)
        seen = found.outputs if given[0] is None else given[0]
        wanted = found.targets if given[1] is None else given[1]
        if seen is not None:
            self._head(found.head or ("unknown" if self._ends_elsewhere else ""), seen)
        self.teller.loss(value, origin, seen, wanted)
        if seen is not None and found.gradient_source is not None and self.teller.wants("on_output_gradient"):
            found.gradient_source.register_hook(hook_of(self._output_goes_back, found.delta))

    def _head(self, kind: str, outputs: torch.Tensor) -> None:
        """A function between the last layer and the loss is a layer, too."""
        before = self._pass.previous
        if before is not None and kind not in ("", self._pass.function):
            self._tell_forward(self.parts.function(before, kind), None, outputs)

    # Backward

    @guarded
    def _loss_goes_back(self, gradient: torch.Tensor) -> None:
        self._begin_backward()

    @guarded
    def _output_goes_back(self, delta: Callable[[torch.Tensor], torch.Tensor], gradient: torch.Tensor) -> None:
        self._begin_backward()
        self.teller.output_gradient(delta(gradient), self.gradients.scale)

    @guarded
    def _goes_back(self, layer: Layer, gradient: torch.Tensor) -> None:
        if self.iteration.finished or not self._pass.adds_up:
            self._begin_backward()
        self.teller.backward(layer, gradient, self.gradients.scale)

    def _begin_backward(self) -> None:
        """A backward pass has begun; before that of the loss, one of `torch.autograd.grad` may, which adds to no gradient."""
        if self._pass.adds_up and not self.iteration.finished:
            return
        if self.iteration.finished:
            self._begin_pass(())  # one that was compiled as a whole
        if not self._pass.in_backward:
            self._collect_outputs()
            current = self._pass
            current.in_backward, current.inside, current.output, current.collected = True, False, None, False
            self.iteration.went_back += 1
            if not any(self.optimizers.values()):
                self.iteration.versions = self.holders.versions
        self._pass.adds_up = not self.teller.reading or self.holders.gather()  # what nobody reads need not be known
        self.iteration.backward_passes += self._pass.adds_up
        if self._pass.adds_up:
            if self._never_steps and self.teller.wants("on_gradients"):
                torch.autograd.Variable._execution_engine.queue_callback(self._backward_ends)
            if self.teller.reading:
                self._mind_what_is_kept()

    @guarded
    def _backward_ends(self) -> None:
        """Where no optimiser steps, the gradients are those that a backward pass leaves: soon they may be cleared."""
        self.gradients.tell(self.parameters)

    def _mind_what_is_kept(self) -> None:
        """Look whether gradients were cleared before this backward pass."""
        for optimizer, tensors in self.holders.smallest.items():
            kept = self.teller.any_nonzero(tensor.grad for tensor in tensors if tensor.grad is not None)
            self.iteration.kept[optimizer] = kept * self.iteration.kept.get(optimizer, 1.0)

    def _gradients_kept(self) -> Any:
        """1 where gradients were cleared before none of the passes, of an optimiser that stepped if any did; else 0.

        Where optimisers step in turn, the others are as they were when they stepped last.
        """
        now = self.iteration
        known = {one: kept for one, kept in now.kept.items() if not now.stepped or one in now.stepped}
        if self.in_turn:
            known = {one: kept for one, kept in self._turns.items() if one in self.optimizers} | known
        self._turns = known
        return 1.0 - math.prod(1.0 - kept for kept in known.values()) if known else math.nan

    @guarded
    def clipping(self, tensors: list[torch.Tensor], limit: dict[str, float]) -> None:
        """Gradients are about to be clipped."""
        self.gradients.clip(tensors, limit)

    @guarded
    def clamping(self, tensors: list[torch.Tensor], value: float) -> None:
        """Tensors are about to be clipped: where they are gradients of ours, that is told as `clipping`."""
        gradients = set(map(id, tensors))
        if ours := [p.tensor for p in self.parameters if id(p.tensor.grad) in gradients]:
            self.gradients.clip(ours, {"value": value})

    @guarded
    def scaled(self, loss: Any, scale: Any) -> None:
        """The loss of this iteration is scaled, for mixed precision."""
        self.gradients.loss_scaled(scale)
        self._pass.unscaled = False
        for one in loss if isinstance(loss, list | tuple) else [loss]:
            if isinstance(one, torch.Tensor):
                self.goes_back(one)
        self._pass.unscaled = True

    @guarded
    def unscaled(self, optimizer: Optimizer) -> None:
        """The scale of the loss is taken off the gradients."""
        self.gradients.unscaled(self._owned_by(optimizer))

    def steps_of(self, optimizer: Optimizer) -> int | None:
        """Steps of one of our optimisers so far."""
        return self.optimizers.get(optimizer)

    @guarded
    def skipped(self, optimizer: Optimizer) -> None:
        """Gradients were not finite, and the scaler has left out the step."""
        self._collect_gradients()
        self.gradients.tell(self.holders.of(optimizer))
        self.iteration.updates += 1
        self.iteration.skips.append(True)
        self._stepped_with(optimizer)

    # The update

    @guarded
    def _before_step(self, optimizer: Optimizer, args: Any, kwargs: Any) -> None:
        if self._is_within(optimizer) or not self._is_ours(optimizer):
            return
        if self._aside is not None and self._aside.goes_back and self.iteration.finished:
            self._was_training(self._aside)
        elif optimizer in self.iteration.stepped:
            self._finish()
            self._take_turns()
        self.iteration.stepping = optimizer
        if not (self._reads or self.teller.reading):
            return
        self._collect_gradients()
        parameters = self._owned_by(optimizer)
        self.gradients.before_step(optimizer, parameters, [] if self.iteration.stepped else self.holders.unowned)
        lr = moving_group(optimizer).get("lr")
        self.teller.update_begins(moving(optimizer, parameters), math.nan if lr is None else lr)

    def _take_turns(self) -> None:
        """An optimiser has stepped again before another has: from now on each pass after a step is one of a new iteration."""
        if len(self.optimizers) > 1 and not self.in_turn:
            self.in_turn = True
            self.recorder.describe(**self.describe())

    @guarded
    def _after_step(self, optimizer: Optimizer, args: Any, kwargs: Any) -> None:
        if self._is_within(optimizer):
            if optimizer in self.optimizers:
                self.optimizers[optimizer] += 1
                self.iteration.stepped.add(optimizer)
            return
        if not self._is_ours(optimizer):
            return
        self.iteration.stepping = None
        if self._reads or self.teller.reading or self.hooks.foreign:
            self.teller.update_ends(optimizer, moving(optimizer, self._owned_by(optimizer)))
        self.optimizers[optimizer] += 1
        self.iteration.updates += 1
        skipped = getattr(optimizer, "found_inf", None)  # fused optimisers leave a step out themselves
        if skipped is not None:
            self.iteration.skips.append(self.teller.number(skipped))
        self._never_steps = False
        self._stepped_with(optimizer)

    def _stepped_with(self, optimizer: Optimizer) -> None:
        now = self.iteration
        now.stepped.add(optimizer)
        now.finished = len(now.stepped) >= len(self.optimizers)
        if now.finished:
            self._pass.begun = self._pass.inside = False
            self._settle_losses()

    def _is_within(self, optimizer: Optimizer) -> bool:
        """Whether `optimizer` steps within the step of one of ours, which holds several together, or repeats what one does."""
        return self.iteration.stepping not in (None, optimizer)

    def _is_ours(self, optimizer: Optimizer) -> bool:
        """Whether `optimizer` is one of this loop's."""
        return optimizer in self.optimizers or bool(self._owned_by(optimizer))

    def _owned_by(self, optimizer: Optimizer) -> list[Parameter]:
        """Parameters of the model that `optimizer` updates; one that has some is one of ours from now on."""
        owned = self.holders.of(optimizer)
        if not owned and optimizer not in self._strangers:
            self._strangers.add(optimizer)  # of none that we know; modules may have got others since
            self.parts.survey()
            self.holders.forget()
            owned = self.holders.of(optimizer)
        if owned and optimizer not in self.optimizers:
            self.holders.add(optimizer, beside=self.iteration.stepped)
            self.recorder.describe(**self.describe())
        return owned


_backward_under_way = torch._C._current_graph_task_id
"""The number of the backward pass under way, -1 without any: a forward pass within one is a checkpoint's second."""


for _heard in (TorchLoop._called, TorchLoop._entered, TorchLoop._really_called):
    compiled.keep_out(_heard.__code__)
