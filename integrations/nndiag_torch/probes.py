"""A `torch.nn.Module` as the subject of probes: copies to experiment on, which leave the module and every generator alone."""

from __future__ import annotations

import copy
import math
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

from nndiag.errors import NndiagError, UnknownName
from nndiag.probes.subject import Passed, Shape, binary_entropy, entropy
from nndiag.statistics import Array
from nndiag_torch.layers import kind_of

DROPOUTS = (F.dropout, F.dropout1d, F.dropout2d, F.dropout3d, F.alpha_dropout, F.feature_alpha_dropout,
            torch.dropout, torch.alpha_dropout, torch.feature_dropout, torch.feature_alpha_dropout)  # fmt: skip

HOOKS = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks",
         "_forward_hooks_with_kwargs", "_forward_pre_hooks_with_kwargs", "_forward_hooks_always_called")  # fmt: skip

CROSS = ("CrossEntropyLoss", "cross_entropy")
BINARY = ("BCELoss", "BCEWithLogitsLoss", "binary_cross_entropy", "binary_cross_entropy_with_logits")


def subject(target: Any, x: Any, y: Any, loss: Any = None, optimizer: Any = None) -> ModuleSubject:
    """The subject of a module with its `loss`, a module or function of (outputs, targets), and its `optimizer`.

    `x` and `y` are tensors, or tuples, lists or dicts of tensors, whose first axis is the batch; the module is called with
    the members of a tuple or list as its arguments, and with those of a dict as keywords. Raises UnknownName for anything
    but a module, NndiagError for samples that do not fit each other or of which none is finite.
    """
    if not isinstance(target, nn.Module):
        raise UnknownName(f"a probe needs a torch.nn.Module, got {type(target).__module__}.{type(target).__qualname__}")
    if loss is not None and not callable(loss):
        raise NndiagError(f"a probe got loss={loss!r}: give a module or function of (outputs, targets)")
    if optimizer is not None and not isinstance(optimizer, torch.optim.Optimizer):
        raise NndiagError(f"a probe got optimizer={optimizer!r}: give a torch.optim.Optimizer")
    return ModuleSubject(getattr(target, "_orig_mod", target), *_finite(x, y), loss, optimizer)


class ModuleSubject:
    """A module, its loss, its optimiser and their finite samples."""

    def __init__(self, model: Any, x: Any, y: Any, loss: Any, optimizer: Any) -> None:
        self._model, self._x, self._y, self._loss, self._optimizer = model, x, y, loss, optimizer
        self.samples = len(_tensors(x)[0])
        self.lacks = tuple(name for name, part in (("loss", loss), ("optimizer", optimizer)) if part is None)
        self.lr = None if optimizer is None else max(map(_base_lr, optimizer.param_groups), default=0.0)
        targets = _tensors(y)
        counted = len(targets) == 1 and not targets[0].is_floating_point()
        self.positions = math.prod(targets[0].shape[1:]) if counted else 1

    def copy(
        self, *, dropout: bool = True, decay: bool = True, double: bool = False, zeroed: bool = False
    ) -> ModulePupil:
        x, y = self._x, self._y
        model, loss, optimizer = _copied(self._model, self._loss, None if double else self._optimizer)
        if not self._model.training:
            model.train()
        if zeroed:
            x = _mapped(torch.zeros_like, x)
        if double:
            model, x, y = model.double(), _mapped(_to_double, x), _mapped(_to_double, y)
            loss = loss.double() if isinstance(loss, nn.Module) else loss
        if not dropout:
            _without_recurrent_dropout(model)
        for group in optimizer.param_groups if optimizer is not None and not decay else ():
            group["weight_decay"] = 0.0
        return ModulePupil(model, loss, optimizer, x, y, dropout, torch.float64 if double else None)

    @contextmanager
    def seeded(self, seed: int) -> Iterator[None]:
        cuda = torch.cuda.is_available() and torch.cuda.is_initialized()
        with torch.random.fork_rng(devices=range(torch.cuda.device_count()) if cuda else []):
            torch.random.default_generator.manual_seed(seed)
            if cuda:
                torch.cuda.manual_seed_all(seed)
            yield


class ModulePupil:
    """A module of the probe's own, without the hooks of the original."""

    def __init__(
        self, model: Any, loss: Any, optimizer: Any, x: Any, y: Any, dropout: bool, dtype: torch.dtype | None
    ) -> None:
        self._model, self._loss, self._optimizer, self._x, self._y = model, loss, optimizer, x, y
        self._dropout, self._dtype = dropout, dtype
        self._modes = {module: module.training for module in model.modules()}
        self._trained = {name: p for name, p in model.named_parameters() if p.requires_grad and p.is_floating_point()}
        self._rates = [_base_lr(group) for group in optimizer.param_groups] if optimizer is not None else []

    def outputs(self, rows: Array) -> Array:
        with self._running(training=False):
            return _numbers(_main(self._forward(rows), len(rows))).reshape(len(rows), -1)

    def loss(self, rows: Array, training: bool = True, targets: Array | None = None) -> float:
        with self._running(training):
            return float(self._loss_of(rows, targets).detach())

    def gradients(self, rows: Array) -> dict[str, Array]:
        with self._running(training=True, learning=True):
            gradients = self._backward(rows)
        return {name: _numbers(g) for name, g in zip(self._trained, gradients, strict=True)}

    def read(self) -> dict[str, Array]:
        return {name: _numbers(p).copy() for name, p in self._trained.items()}

    def write(self, name: str, value: Array) -> None:
        with torch.no_grad():
            self._trained[name].copy_(torch.as_tensor(value))

    def step(self, rows: Array, factor: float = 1.0) -> float:
        for group, lr in zip(self._optimizer.param_groups, self._rates, strict=True):
            group["lr"] = lr * factor
        first: list[float] = []

        def closure() -> Any:
            loss = self._loss_of(rows)
            parameters = [p for group in self._optimizer.param_groups for p in group["params"] if p.requires_grad]
            for p, g in zip(parameters, torch.autograd.grad(loss, parameters, allow_unused=True), strict=True):
                p.grad = g
            first.append(float(loss.detach()))
            return loss.detach()

        with self._running(training=True, learning=True):
            self._optimizer.step(closure)
        return first[0]

    def layers(self, rows: Array, training: bool) -> list[Passed]:
        seen: list[tuple[str, Any, Array, Tensor]] = []

        def keep(name: str, module: Any, output: Tensor) -> None:
            seen.append((name, module, _numbers(output), output))

        with self._running(training, learning=training), _observed(self._model, keep):
            if training:
                loss = self._loss_of(rows)
                traced = [output for *_, output in seen if output.requires_grad]
                gradients = iter(torch.autograd.grad(loss, traced, allow_unused=True) if traced else ())
            else:
                self._forward(rows)
        return [
            Passed(
                name, kind_of(module), output, _given(next(gradients)) if training and tensor.requires_grad else None
            )
            for name, module, output, tensor in seen
        ]

    def shapes(self, rows: Array) -> list[Shape]:
        found: list[Shape] = []

        def keep(name: str, module: Any, output: Tensor) -> None:
            if wanted := _declared(module, output):
                found.append(Shape(name, tuple(output.shape), wanted))

        with self._running(training=False), _observed(self._model, keep):
            outputs = _tensors(self._forward(rows))
        if not outputs:
            raise NndiagError("the model's outputs hold no tensor")
        main = next((output for output in outputs if output.shape[:1] == (len(rows),)), outputs[0])
        shape = tuple(main.shape)
        return [*found, Shape("", shape, (len(rows), *[None] * max(0, len(shape) - 1)))]

    def floor(self, rows: Array) -> float:
        name = getattr(self._loss, "__name__", type(self._loss).__name__)
        targets = _tensors(self._rows_of(self._y, rows))
        if len(targets) != 1 or name not in CROSS + BINARY or getattr(self._loss, "pos_weight", None) is not None:
            return 0.0
        if name in BINARY:
            t = _numbers(targets[0])
            return binary_entropy(t) if t.min() >= 0 and t.max() <= 1 else 0.0
        return self._smoothed_floor(rows, targets[0])

    def _smoothed_floor(self, rows: Array, targets: Tensor) -> float:
        """Entropy of the targets of a cross-entropy, (N, C, …) of probabilities or (N, …) of ids, after label smoothing."""
        smoothing = getattr(self._loss, "label_smoothing", 0.0)
        if not smoothing and not targets.is_floating_point():
            return 0.0
        with self._running(training=False):
            width = _main(self._forward(rows), len(rows)).shape[1]
        given = _numbers(targets) if targets.is_floating_point() else np.eye(1, width)
        q = np.moveaxis(given, 1, -1).reshape(-1, width)
        return entropy((1 - smoothing) * q + smoothing / width)

    def _loss_of(self, rows: Array, targets: Array | None = None) -> Any:
        loss = self._loss(self._forward(rows), self._rows_of(self._y, rows if targets is None else targets))
        if not isinstance(loss, Tensor) or loss.numel() != 1:
            got = f"of shape {tuple(loss.shape)}" if isinstance(loss, Tensor) else f"a {type(loss).__name__}"
            raise NndiagError(f"the loss gave a value {got}, wanted a tensor of one number")
        return loss.reshape(())

    def _backward(self, rows: Array) -> list[Tensor]:
        """Gradients of the trained parameters, given back and not added to anything: a loss may hold the user's own."""
        parameters = list(self._trained.values())
        gradients = torch.autograd.grad(self._loss_of(rows), parameters, allow_unused=True)
        return [torch.zeros_like(p) if g is None else g for p, g in zip(parameters, gradients, strict=True)]

    def _forward(self, rows: Array) -> Any:
        x = self._rows_of(self._x, rows)
        if isinstance(x, Mapping):
            return self._model(**x)
        return self._model(*x) if isinstance(x, tuple | list) else self._model(x)

    def _rows_of(self, data: Any, rows: Array) -> Any:
        return _mapped(lambda t: t[torch.as_tensor(rows, device=t.device)], data)

    @contextmanager
    def _running(self, training: bool, learning: bool = False) -> Iterator[None]:
        """Modes of every module, of autograd and of dropout, and the default dtype, for one pass."""
        self._model.eval()
        for module, mode in self._modes.items() if training else ():
            module.training = mode
        default = torch.get_default_dtype()
        with ExitStack() as stack:
            stack.enter_context(torch.inference_mode(False))
            stack.enter_context(torch.set_grad_enabled(learning))
            if not self._dropout:
                stack.enter_context(_NoDropout())
            if self._dtype is not None:
                torch.set_default_dtype(self._dtype)  # for tensors that the model makes, such as a first hidden state
                stack.callback(torch.set_default_dtype, default)
            yield


class _NoDropout(TorchFunctionMode):  # type: ignore[misc]
    """Makes every dropout the identity, that of functions as well as that of layers."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func in DROPOUTS:
            return args[0] if args else kwargs["input"]
        if func is F.scaled_dot_product_attention:
            args, kwargs = args[:4], {**kwargs, **({"is_causal": args[5]} if len(args) > 5 else {}), "dropout_p": 0.0}
        return func(*args, **kwargs)


def _without_recurrent_dropout(model: Any) -> None:
    for module in model.modules():
        if isinstance(module, nn.RNNBase):
            module.dropout = 0.0


def _copied(model: Any, loss: Any, optimizer: Any) -> tuple[Any, Any, Any]:
    """Copies that share among each other what the originals share, without hooks but those of torch.nn.utils.

    Hooks observe: they belong to the user, and to nndiag's own adapter. Those of torch.nn.utils make the weights.
    """
    memo: dict[int, Any] = {}
    for module in [m for part in (model, loss) if isinstance(part, nn.Module) for m in part.modules()]:
        for name in HOOKS:
            if (hooks := vars(module).get(name)) is not None:
                memo[id(hooks)] = OrderedDict((key, hook) for key, hook in hooks.items() if _of_torch(hook))
        for value in vars(module).values():
            if isinstance(value, Tensor) and value.grad_fn is not None:  # a hidden state or a weight kept from a pass
                memo[id(value)] = value.detach().clone()
    try:
        twins = copy.deepcopy((model, loss), memo)
        return *twins, None if optimizer is None else _copied_optimizer(optimizer, memo)
    except Exception as fault:
        raise NndiagError(f"the model, its loss or its optimiser cannot be copied: {fault}") from fault


def _copied_optimizer(optimizer: Any, memo: dict[int, Any]) -> Any:
    """A copy on the copied parameters; what its own pickling leaves out, as LBFGS's list of them, is copied too."""
    twin = copy.deepcopy(optimizer, memo)
    for name, value in vars(optimizer).items():
        if name not in vars(twin) and not callable(value):
            setattr(twin, name, copy.deepcopy(value, memo))
    return twin


def _of_torch(hook: Any) -> bool:
    return type(hook).__module__.startswith("torch.nn.utils")


def _base_lr(group: Mapping[str, Any]) -> float:
    """Learning rate of a group, warm-up aside: the highest of a one-cycle schedule, or the one that a schedule began with."""
    return float(group.get("max_lr", group.get("initial_lr", group["lr"])))


@contextmanager
def _observed(model: Any, keep: Callable[[str, Any, Tensor], None]) -> Iterator[None]:
    """`keep(name, module, output)` after each module that has no modules inside, with a number where it is called again."""
    calls: dict[str, int] = {}

    def listen(name: str) -> Callable[..., None]:
        def hook(module: Any, _: Any, output: Any) -> None:
            tensors = [t for t in _tensors(output) if t.is_floating_point()]
            if tensors:
                calls[name] = calls.get(name, 0) + 1
                keep(name if calls[name] == 1 else f"{name} ({calls[name]})", module, tensors[0])

        return hook

    handles = [
        module.register_forward_hook(listen(name or type(module).__name__))
        for name, module in model.named_modules()
        if not any(module.children()) or isinstance(module, nn.MultiheadAttention)
    ]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _declared(module: Any, output: Tensor) -> tuple[int | None, ...] | None:
    """The shape that a layer of torch's own declares, None for each free axis; None where it declares nothing."""
    free: list[int | None] = [None] * output.ndim
    if isinstance(module, nn.Linear | nn.Bilinear):
        return (*free[:-1], module.out_features)
    if isinstance(module, nn.Embedding):
        return (*free[:-1], module.embedding_dim)
    if isinstance(module, nn.modules.conv._ConvNd):
        axis = output.ndim - 1 - len(module.kernel_size)
        return (*free[:axis], module.out_channels, *free[axis + 1 :])
    return None


def _main(outputs: Any, batch: int) -> Tensor:
    """The first tensor among the outputs that has a row per sample; raises NndiagError when there is none."""
    tensors = _tensors(outputs)
    for tensor in tensors:
        if tensor.shape[:1] == (batch,):
            return tensor
    shapes = ", ".join(str(tuple(tensor.shape)) for tensor in tensors) or "no tensor"
    raise NndiagError(f"the model gave outputs of shape {shapes} for a batch of {batch}: none has a row per sample")


def _mapped(change: Callable[[Tensor], Any], data: Any) -> Any:
    """`data` with every tensor in it changed; what is none stays."""
    if isinstance(data, Tensor):
        return change(data)
    if isinstance(data, Mapping):
        return {name: _mapped(change, value) for name, value in data.items()}
    if isinstance(data, tuple | list):
        return tuple(_mapped(change, value) for value in data)
    return data


def _tensors(data: Any) -> list[Tensor]:
    """The tensors in `data`, in order."""
    found: list[Tensor] = []
    _mapped(found.append, data)
    return found


def _to_double(tensor: Tensor) -> Tensor:
    return tensor.double() if tensor.is_floating_point() else tensor


def _numbers(tensor: Tensor) -> Array:
    dense = tensor.detach().to_dense() if tensor.layout != torch.strided else tensor.detach()
    array: Array = dense.to("cpu", torch.float64, copy=True).numpy()
    return array


def _given(gradient: Tensor | None) -> Array | None:
    return None if gradient is None else _numbers(gradient)


def _finite(x: Any, y: Any) -> tuple[Any, Any]:
    """The samples of `x`, `y` without NaN or infinity: those are ND001's."""
    tensors = [*_tensors(x), *_tensors(y)]
    if not _tensors(x) or not _tensors(y):
        raise NndiagError(
            f"a probe needs inputs and targets as tensors, or tuples or dicts of tensors: got a {type(x).__name__} and a "
            f"{type(y).__name__}"
        )
    lengths = {len(t) if t.ndim else 0 for t in tensors}
    if len(lengths) > 1 or 0 in lengths:
        shapes = ", ".join(str(tuple(t.shape)) for t in tensors)
        raise NndiagError(f"a probe needs as many targets as inputs, and some, on the first axis: got shapes {shapes}")
    good = np.ones(lengths.pop(), bool)
    for tensor in tensors:
        good &= torch.isfinite(tensor.detach()).reshape(len(tensor), -1).all(dim=1).cpu().numpy()
    if not good.any():
        raise NndiagError("a probe needs samples without NaN or infinity; there is not one")
    kept = torch.as_tensor(np.flatnonzero(good))
    return tuple(_mapped(lambda t: t.detach()[kept.to(t.device)], data) for data in (x, y))
