"""The hooks by which a loop hears every module of the process, and how they are off during a pass that nobody needs to hear."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import nn
from torch.nn.modules.module import register_module_forward_hook, register_module_forward_pre_hook

Entered = Callable[[nn.Module, tuple[Any, ...]], None]
Called = Callable[[nn.Module, tuple[Any, ...], Any], Any]


class Hearing:
    """Calls `entered(module, args)` before and `called(module, args, output)` after each call of any module of the process.

    PyTorch calls a module the short way only where there is no hook at all. So within a call of a model of which nobody needs
    to hear more, the hooks are taken off; until that call is over, the model itself has one.
    """

    def __init__(self, entered: Entered, called: Called) -> None:
        before, after = register_module_forward_pre_hook(entered), register_module_forward_hook(called)
        self._hooks = [(before.hooks_dict_ref(), before.id, entered), (after.hooks_dict_ref(), after.id, called)]
        self._key: int = before.id
        self._deaf_in: nn.Module | None = None

    def skip(self, module: nn.Module, over: Called) -> None:
        """Hear nothing until this call of `module`, which begins just now, is over; then call `over(module, args, output)`."""
        for hooks, key, _ in self._hooks:
            hooks.pop(key, None)
        module._forward_hooks[self._key] = _End(self, over)
        self._deaf_in = module

    def resume(self) -> None:
        """Hear every module again: the call is over, or has ended in an exception and something else comes."""
        module, self._deaf_in = self._deaf_in, None
        if module is not None:
            module._forward_hooks.pop(self._key, None)
            for hooks, key, hook in self._hooks:
                hooks[key] = hook

    def leave(self) -> None:
        """Hear no more."""
        self.resume()
        for hooks, key, _ in self._hooks:
            hooks.pop(key, None)


class _End:
    """A hook on the model, of which copies of the model and what is saved of it hold nothing but a function that does nothing."""

    def __init__(self, hearing: Hearing, over: Called) -> None:
        self._hearing, self._over = hearing, over

    def __call__(self, module: nn.Module, args: tuple[Any, ...], output: Any) -> Any:
        self._hearing.resume()
        return self._over(module, args, output)

    def __reduce__(self) -> tuple[Any, ...]:
        return _nothing, ()


def _nothing() -> Called:
    return nothing


def nothing(module: nn.Module, args: tuple[Any, ...], output: Any) -> None:
    """Hears nothing."""
