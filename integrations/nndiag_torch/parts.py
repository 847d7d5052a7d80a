"""What a model consists of, also what it gets or borrows on the way, and which optimiser holds which of its parameters."""

from __future__ import annotations

import weakref
from collections.abc import Collection

import torch
from torch import nn
from torch.autograd.graph import get_gradient_edge
from torch.optim import Optimizer

from nndiag_torch.arrays import version_of
from nndiag_torch.layers import Layer, Parameter, free, is_there, kind_of, layers_of, parameters_of

MANY = 8
"""Modules that a model calls and does not have of which the parameters are looked at: some are made anew in every pass."""


class Parts:
    """The modules of a model by their ids, its layers and its parameters.

    `roots` are the model and what torch.compile has made of it, `inner` the ids of all others. `order` has the layers that
    have put something out in a training pass, in forward order.
    """

    def __init__(self, model: nn.Module) -> None:
        self.model = model
        self.modules: dict[int, nn.Module] = {}
        self.roots: dict[int, nn.Module] = {id(model): model}
        self.inner: set[int] = set()
        self.layers: dict[int, Layer] = {}
        self.order: dict[str, Layer] = {}
        self.parameters: dict[int, Parameter] = {}
        self._borrowed: dict[int, Parameter] = {}
        self._foreign: weakref.WeakSet[nn.Module] = weakref.WeakSet()
        self.survey()

    def survey(self) -> None:
        """Find the layers and parameters of the model, also those that it has got since."""
        self.modules |= {id(module): module for module in self.model.modules()}
        self.inner = self.modules.keys() - self.roots.keys()
        found_layers = list(layers_of(self.model))
        taken = {self.layers[id(module)].name for module, _ in found_layers if id(module) in self.layers}
        for module, name in found_layers:
            if id(module) not in self.layers:
                self.layers[id(module)] = Layer(free(name, taken), kind_of(module), module)
        found = {id(p.tensor): p for p in parameters_of(self.model, self.layers, self.parameters)}
        self.parameters = self._borrowed | found

    def is_foreign(self, module: nn.Module) -> bool:
        """Whether `module` was met before and is none of the model's."""
        return module in self._foreign

    def meet(self, module: nn.Module) -> bool:
        """Whether a module that was not there at the last survey is a part of the model by now."""
        self.survey()
        if self.is_compiled(module) or id(module) in self.modules:
            return True
        self._foreign.add(module)
        return False

    def is_compiled(self, module: nn.Module) -> bool:
        """Whether a module is what torch.compile has made of the model: from now on that is one of the `roots`."""
        if getattr(module, "_orig_mod", None) is not self.model:
            return False
        self.modules[id(module)] = self.roots[id(module)] = module
        self.inner.discard(id(module))
        return True

    def borrow(self, module: nn.Module) -> None:
        """The model calls what it does not have, out of a plain list or made in `forward`: its parameters count, too."""
        number = len({p.layer for p in self._borrowed.values()})
        if number < MANY:
            layer = f"{type(module).__name__.lower()} {number}"
            for name, tensor in module.named_parameters():
                if id(tensor) not in self.parameters:
                    found = Parameter(f"{layer}.{name}", tensor, module, layer)
                    found.registered = False
                    self._borrowed[id(tensor)] = self.parameters[id(tensor)] = found

    @property
    def in_evaluation_mode(self) -> bool:
        """Whether the model and every part of it are: a head on a base that is kept as it was trains all the same."""
        return not self.model.training and not any(part.training for part in self.modules.values())

    def function(self, before: Layer, kind: str) -> Layer:
        """The layer that stands for a function of this kind right behind the layer `before`."""
        name = f"{before.name}.{kind}"
        if name not in self.order:
            layer = Layer(name, kind, None)
            layer.after = before.name
            self.place(layer, {before.name})
        return self.order[name]

    def place(self, layer: Layer, heard: Collection[str]) -> None:
        """Put a layer into the order, unless it is there, behind all that are `heard`; before all others where none is.

        Not behind the latest alone: a module that is called twice stands where it was called first.
        """
        if layer.name not in self.order:
            self.order = _inserted(self.order, heard, layer)


class Holders:
    """The optimisers of a loop with their steps so far, and the parameters that each of them holds."""

    def __init__(self, parts: Parts, optimizers: dict[Optimizer, int]) -> None:
        self._parts = parts
        self.steps = optimizers
        self.forget()
        self._first = [(tensor, _sum(tensor)) for tensors in self.smallest.values() for tensor in tensors]
        self.forget()  # lazy modules get their parameters in the first pass

    @property
    def held(self) -> set[int]:
        """Ids of the tensors in the groups of all optimisers."""
        return set().union(*map(_ids, self.steps))

    def forget(self) -> None:
        """The parts, or the optimisers, have changed."""
        self._owned: dict[Optimizer, tuple[list[int], list[Parameter]]] = {}
        self._unowned: list[Parameter] | None = None
        self._smallest: dict[Optimizer | None, list[torch.Tensor]] | None = None

    @property
    def smallest(self) -> dict[Optimizer | None, list[torch.Tensor]]:
        """Of each optimiser a few parameters that it clears and that are quickly looked through; of all where there is none."""
        if self._smallest is None:
            parts = self._parts.parameters.items()
            known = {key: p.tensor for key, p in parts if p.tensor.requires_grad and is_there(p.tensor)}
            owned = {one: _ids(one) for one in self.steps} if self.held else {None: set(known)}
            self._smallest = {
                one: sorted((known[key] for key in known if key in keys), key=torch.Tensor.numel)[:4]
                for one, keys in owned.items()
            }
        return self._smallest

    @property
    def versions(self) -> list[int]:
        """How often `smallest` were written to."""
        return [version_of(one) for tensors in self.smallest.values() for one in tensors]

    def gather(self) -> bool:
        """Whether the backward pass under way adds to gradients of `smallest`: that of `torch.autograd.grad` does not."""
        tensors = [one for each in self.smallest.values() for one in each if one.requires_grad]
        return not tensors or any(map(_gathers, tensors))

    def add(self, optimizer: Optimizer, beside: Collection[Optimizer]) -> None:
        """Another optimiser is one of this loop's; it replaces those of which it holds all, but for what steps `beside` it."""
        held = {id(p.tensor) for p in self.of(optimizer)}
        for other in [one for one in self.steps if one not in beside and {id(p.tensor) for p in self.of(one)} <= held]:
            del self.steps[other]
        self.steps[optimizer] = 0
        self.forget()

    def of(self, optimizer: Optimizer) -> list[Parameter]:
        """Parameters of the model that `optimizer` holds."""
        held = [id(tensor) for group in optimizer.param_groups for tensor in group["params"]]
        before, owned = self._owned.get(optimizer, ([], []))
        if before != held:
            known = self._parts.parameters.keys() & set(held)
            if 0 < len(known) < len(held):  # others may have taken the place of some
                self._parts.survey()
            owned = [found for key in held if (found := self._parts.parameters.get(key))]
            self._owned[optimizer], self._unowned = (held, owned), None
        return owned

    @property
    def unowned(self) -> list[Parameter]:
        """Parameters that no optimiser holds."""
        if self._unowned is None:
            held = self.held
            self._unowned = [p for key, p in self._parts.parameters.items() if key not in held]
        return self._unowned

    def moved(self) -> bool:
        """Whether a parameter is not what it was at first: somebody updates them without an optimiser."""
        return any(_sum(tensor) != first for tensor, first in self._first)


def _ids(optimizer: Optimizer) -> set[int]:
    """Ids of the tensors in the groups of `optimizer`."""
    return {id(tensor) for group in optimizer.param_groups for tensor in group["params"]}


def _gathers(tensor: torch.Tensor) -> bool:
    """Whether the backward pass under way adds to the gradient of a parameter."""
    try:
        return bool(torch._C._will_engine_execute_node(get_gradient_edge(tensor).node))
    except RuntimeError:  # of a pass that goes back to certain tensors alone
        return False


def _sum(tensor: torch.Tensor) -> float:
    tensor = tensor.detach()
    return float((tensor.abs() if tensor.is_complex() else tensor).double().sum())


def _inserted(order: dict[str, Layer], heard: Collection[str], layer: Layer) -> dict[str, Layer]:
    """`order` with `layer` behind all that are `heard` and what was compiled between, or as the first where none is."""
    items = list(order.items())
    place = max((i for i, (name, _) in enumerate(items, 1) if name in heard), default=0)
    while place < len(items) and items[place][1].slots is not None:
        place += 1
    return dict([*items[:place], (layer.name, layer), *items[place:]])
