"""What happens inside regions that `torch.compile` has compiled: statistics that are part of the compiled graph.

The forward hook is traced with the model. What it traces are `nndiag_torch.measure`'s statistics, written in place into a slot
that each layer keeps; δ comes through an identity whose backward writes into a slot, too. So nothing breaks the graph, and
what is written is collected after each pass. Steps that are not read have a graph of their own, without any of it: the first
of them compiles once more. Functions between modules leave no trace in a graph and are no layers there.

Before PyTorch 2.11 what a graph writes in its backward pass counts as kept for it: two passes before one backward pass would
end in an error of training. There nothing is traced, and what is compiled is not measured.
"""

from __future__ import annotations

import logging
import warnings
import weakref
from collections import deque
from collections.abc import Callable, Iterable
from itertools import count
from statistics import median
from typing import Any

import torch

from nndiag.pace import Pace
from nndiag_torch import measure
from nndiag_torch.layers import Layer

log = logging.getLogger("nndiag")

MEASURES = torch.__version__ >= (2, 11)
"""Whether compiled regions are measured with this release of PyTorch."""

UNHEARD = (
    "layers of %s were not heard: of what torch.compile has compiled by then nothing can be (nndiag.watch before the first call, "
    "or call torch.compiler.reset() after it), nor within TorchScript, an exported program or torch.func"
)
TOO_OLD = (
    f"layers of %s were not heard: what torch.compile compiles is measured from PyTorch 2.11 on, this is {torch.__version__}; "
    "nothing can be within TorchScript, an exported program or torch.func; losses, gradients and updates are recorded"
)
"""What is said where layers are not heard: with a release that measures what is compiled, and with an older one."""

WARNINGS = (
    r"Using `torch.compile\(module\)` when there are global hooks",
    r"<class 'torch.autograd.function.Function'> should not be instantiated",
)
"""How warnings of PyTorch begin that are not for the user: that a global hook hears a compiled model twice, which is meant
here, and one of PyTorch about itself, whenever it traces an `autograd.Function`."""


class Slots:
    """Where a compiled region writes what a layer puts out, and δ of it; the first value says of how many samples or values."""

    def __init__(self, units: int, device: torch.device, dtype: torch.dtype) -> None:
        self.output = torch.zeros(1 + measure.output_size(units), dtype=dtype, device=device)
        self.gradient = torch.zeros(1 + measure.SIZES, dtype=dtype, device=device)
        self.units = units


class Compiled:
    """The layers of a loop that have been traced, in forward order, each with its slots; `met` is told of each."""

    def __init__(self, layers: dict[int, Layer], met: Callable[[Layer], None]) -> None:
        self.layers, self.met = layers, met
        self.traced: list[Layer] = []
        self.surcharge = Surcharge()
        self.reading = False
        self.number = next(_NUMBERS)
        _ALL[self.number] = self
        self._regions: dict[int, tuple[int, list[Layer]]] = {}

    def passed(self, module: torch.nn.Module, output: Any) -> torch.Tensor | None:
        """Traced: `module` has put out `output`. Gives back what to hand on instead, which has the same values."""
        if not (MEASURES and torch.is_grad_enabled() and module.training and self.reading):
            return None  # in this order: graphs of evaluations do not depend on what is read
        layer = self.layers.get(id(module))
        tensor = output[0] if isinstance(output, tuple) and output else output
        if layer is None or not isinstance(tensor, torch.Tensor) or not tensor.is_floating_point() or tensor.ndim < 2:
            return None
        with torch.no_grad():
            rows = measure.unit_rows(tensor.detach(), channels=layer.channels_first(tensor.ndim))
            units = len(range(rows.shape[1]))  # a number for the tracer, too, whatever sizes are dynamic
            _ensure(self.number, id(module), units, str(tensor.device), measure.exact(rows))
            count = layer.slots.output.new_full((1,), rows.shape[0])
            layer.slots.output.copy_(torch.cat((count, measure.output(rows))))
        if tensor is not output or not tensor.requires_grad:
            return None
        handed_on: torch.Tensor = Tap.apply(tensor, layer.slots.gradient)
        return handed_on

    def trace(self, key: int, units: int, place: str, dtype: torch.dtype) -> None:
        """A layer is traced: it gets slots, unless it has such ones."""
        layer, device = self.layers[key], torch.device(place)
        if layer.slots is None or layer.slots.units != units or layer.slots.output.device != device:
            layer.slots = Slots(units, device, dtype)
        if layer not in self.traced:
            self.traced.append(layer)
            layer.shape = layer.shape or (units,)
            self.met(layer)

    def collect(self, tell: Callable[..., None], attribute: str, *rest: Any, among: torch.nn.Module | None) -> None:
        """Tell what has been written into the slots called `attribute`, of all layers or those `among` a module's."""
        if not self.reading or not self.traced:
            return
        layers = self.traced if among is None else self._inside(among)
        if layers:
            slots = [getattr(layer.slots, attribute) for layer in layers]
            tell(list(layers), slots, *rest)
            torch._foreach_zero_([slot[:1] for slot in slots])

    def _inside(self, module: torch.nn.Module) -> list[Layer]:
        count, layers = self._regions.get(id(module), (0, []))
        if count != len(self.traced):
            inside = set(map(id, module.modules()))
            layers = [layer for layer in self.traced if id(layer.module) in inside]
            self._regions[id(module)] = len(self.traced), layers
        return layers


class Surcharge:
    """What measuring within compiled regions costs, which no clock sees: by how much longer the steps that are read take.

    As long as too few are not read to tell, a cadence that adapts assumes `GUESS` of a step, and so soon leaves some out.
    """

    GUESS, FEW, MANY = 0.25, 3, 20

    def __init__(self) -> None:
        self._times: dict[bool, deque[float]] = {read: deque(maxlen=self.MANY) for read in (True, False)}

    def of(self, read: bool, seconds: float, pace: Pace) -> float:
        """Of a step that took `seconds`, other measuring not counted."""
        self._times[read].append(seconds)
        if not read:
            return 0.0
        usual, bare = median(self._times[True]), self._times[False]
        if len(bare) < self.FEW:
            return self.GUESS * usual if pace.adapts else 0.0
        return max(0.0, usual - median(bare))


_NUMBERS = count()
_ALL: weakref.WeakValueDictionary[int, Compiled] = weakref.WeakValueDictionary()
"""Those of all loops by their numbers: constants, as a tracer wants them."""


@torch.compiler.assume_constant_result  # type: ignore[untyped-decorator]
def _ensure(number: int, *details: Any) -> bool:
    """Runs while a graph is traced, not when it runs."""
    _ALL[number].trace(*details)
    return True


class Tap(torch.autograd.Function):  # type: ignore[misc]  # mypy does not look into PyTorch
    """The identity, whose backward pass writes the magnitude of the gradient into a slot."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, slot: torch.Tensor) -> torch.Tensor:
        ctx.slot = slot
        return x.clone()  # of a view, what follows could not work in place

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> tuple[torch.Tensor, None]:
        count = ctx.slot.new_full((1,), gradient.numel())
        ctx.slot.copy_(torch.cat((count, measure.magnitude(gradient.detach().reshape(-1)))))
        return gradient, None


def exporting() -> bool:
    """Whether `torch.export` is at work, in which a model is what it is without nndiag; before PyTorch 2.7 nobody can tell.

    Asked while a graph is traced, where `torch.compiler.is_exporting` was true whatever is traced in some releases.
    """
    return bool(getattr(torch.compiler, "_is_exporting_flag", False))


def misses(modules: Iterable[torch.nn.Module]) -> bool:
    """Whether any of `modules` is compiled and, with this release of PyTorch, not measured for that."""
    return not MEASURES and any(map(is_region, modules))


def silent(model: str) -> None:
    """Say that nothing is heard of what is compiled of `model`, if anything is, and why."""
    log.warning(UNHEARD if MEASURES else TOO_OLD, model)


def is_region(module: torch.nn.Module) -> bool:
    """Whether a call of `module` runs compiled code."""
    return module._compiled_call_impl is not None or "_orig_mod" in module._modules


def keep_out(code: Any) -> None:
    """Have `torch.compile` leave frames of `code`, and what they call, alone, unless they are part of a larger one."""
    frames = torch._C._dynamo.eval_frame
    if hasattr(frames, "set_code_exec_strategy"):
        skip = frames._FrameAction.SKIP
        frames.set_code_exec_strategy(code, frames._FrameExecStrategy(skip, skip))


def forget(model: torch.nn.Module) -> None:
    """Have what of `model` is compiled already be compiled anew: graphs that are there know nothing of a later hook."""
    frames = torch._C._dynamo.eval_frame
    for module in model.modules():
        code = getattr(getattr(type(module), "forward", None), "__code__", None)
        if code is not None and hasattr(frames, "reset_code"):
            frames.reset_code(code)


_quieted = 0
"""How many loops have silenced `WARNINGS`: a filter that is there already is not added once more."""


def quiet() -> None:
    """Silence `WARNINGS`."""
    global _quieted
    _quieted += 1
    for message in WARNINGS:
        warnings.filterwarnings("ignore", message)


def loud() -> None:
    """Take the filters off, with the last loop."""
    global _quieted
    _quieted -= 1
    if _quieted:
        return
    filters: Any = warnings.filters
    for message in WARNINGS:
        for entry in filters:
            if getattr(entry[1], "pattern", None) == message:
                filters.remove(entry)
                break
