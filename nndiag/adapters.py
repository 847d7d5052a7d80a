"""`watch`: finds the adapter for what it is given, through the `nndiag.adapters` entry points, and attaches the hooks."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol

from nndiag.frameworks import offered
from nndiag.hooks import Hook, default_hooks
from nndiag.recorder import Recorder

if TYPE_CHECKING:
    from nndiag.live import OnFinding


class Adapter(Protocol):
    """Attaches hooks to a framework's objects and gives back what detaches them; leaves the target as it found it."""

    def __call__(
        self, target: Any, optimizer: Any, loss: Any, recorder: Recorder, hooks: list[Hook]
    ) -> Callable[[], None]:
        """Attach `hooks`, feeding `recorder`."""


def watch(
    target: Any,
    optimizer: Any = None,
    loss: Any = None,
    *,
    run: str | Path | None = None,
    hooks: Iterable[Hook] | None = None,
    every: int | Literal["auto"] = "auto",
    budget: float = 0.02,
    strict: bool = False,
    resume: bool = False,
    check_every: int | None = None,
    on_finding: OnFinding | None = None,
) -> Recorder:
    """A recorder that watches `target`: an `nndiag.nn.Trainer`, or a model of a framework that has an adapter.

    `run` is the folder to record into (in memory without); `hooks` replaces the default ones; `every`, `budget` and
    `resume` are the recorder's; `strict` lets a fault of nndiag stop the training. Closing the recorder, or leaving its
    `with`, detaches the hooks. `check_every` steps the checks look at the run while it goes on, and `on_finding` says what
    becomes of what they find: "warn" logs it, "stop" ends the training after a failure, a function of the finding returns
    one of them or None (`nndiag.live`); one of both arguments is enough. Raises UnknownName for a target that no adapter
    knows, WatchError for one that its adapter does not take, RunError for an unusable folder.
    """
    attach = find_adapter(target)
    if hooks is not None and (isinstance(hooks, str) or not isinstance(hooks, Iterable)):
        raise TypeError(f"watch(hooks={hooks!r}): wanted a list of hooks, such as nndiag.hooks.light_hooks()")
    recorder = Recorder(run, every=every, budget=budget, strict=strict, resume=resume,
                        check_every=check_every, on_finding=on_finding)  # fmt: skip
    try:
        recorder.on_close(attach(target, optimizer, loss, recorder, list(default_hooks() if hooks is None else hooks)))
    except BaseException:
        recorder.close("crashed")
        raise
    return recorder


def find_adapter(target: Any) -> Adapter:
    """The adapter of the framework that the target's class comes from; raises UnknownName where there is none."""
    wanted = "watch() wants what an adapter is installed for; any other loop feeds an nndiag.Recorder by hand"
    adapter: Adapter = offered("nndiag.adapters", target, wanted)
    return adapter
