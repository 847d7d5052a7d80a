"""What the graphs of a loop's losses have shown: the facts of each kind of loss, and which of them is told."""

from __future__ import annotations

import math
import weakref
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from nndiag.losses import WEIGHTED
from nndiag_torch import graph
from nndiag_torch.arrays import first_tensor, same_start

if TYPE_CHECKING:
    from nndiag_torch.loop import TorchLoop

PHASE = 3
"""Looks in a row at losses of one kind that are a phase of a training; fewer are a batch that is unlike the others."""

MANY, LOOKED = 8, 5
"""Kinds of loss of one loop that are told apart, and iterations in which graphs are gone through for what does not change: which
parameters a loss reaches, padding, axes."""


TAKEN_BACK = ("scale",)
"""What a graph has said of a loss and the loop may find to be untrue."""


class Objectives:
    """The kinds of loss that go back in one loop, told apart by their names; the recorder is told of what is new.

    `adversarial` is whether losses of several optimisers are at odds.
    """

    def __init__(self, loop: TorchLoop) -> None:
        self._loop = loop
        self._kinds: list[dict[str, Any]] = []
        self._looked: dict[str, Any] = {}
        """The objective as it was when it was looked at last."""
        self._phase: tuple[object, int, int] = None, 0, 0
        """The kind of the losses that were looked at last, the step of the first of them in a row, and how many they are."""
        self._settled: object = None
        """The kind of the latest phase."""
        self._factor = 1.0
        """The number that the whole of that loss was multiplied with."""
        self.adversarial = False
        self._trained_by: set[frozenset[int | None]] = set()
        """Ids of the optimisers that hold what a loss reaches, None for a stranger's, of each kind of loss."""
        self._ids: Callable[[], torch.Tensor | None] = nothing
        self._reshape: tuple[tuple[int, ...], tuple[int, ...]] | None = None
        """Shapes of what the model got and of what it hands to its first module, where these are the same numbers."""

    @property
    def latest(self) -> dict[str, Any]:
        """What is known of the loss: the facts of the kind that was met last, and what others have told or found besides."""
        return self._told(self._kinds[-1] if self._kinds else {})

    def _told(self, facts: dict[str, Any]) -> dict[str, Any]:
        loss = self._loop.loss
        name = {} if loss is None else {"name": getattr(loss, "__name__", type(loss).__name__)}
        own = {**name, **facts, **({"adversarial": True} if self.adversarial else {})}
        said = set().union(*self._kinds, TAKEN_BACK if self._kinds else ())  # of one kind it is not true of the next
        return {key: fact for key, fact in self._loop.recorder.meta.loss.items() if key not in said} | own

    def enters(self, given: tuple[Any, ...], args: Any) -> None:
        """The model was `given` something and calls its first module with `args`."""
        if self._loop.steps < LOOKED:
            self._reshape = _reshaped(first_tensor(given, floating=False), first_tensor(args, floating=False))

    def batch(self, x: torch.Tensor) -> None:
        """The inputs of this pass."""
        self._ids = nothing if x.is_floating_point() else weakref.ref(x)

    def look(self, found: graph.Found, loss: torch.Tensor, output: Any) -> None:
        """Take in what the graph of `loss` has shown, of a pass in which the model put out `output`.

        Of a kind that is known only an ignored class is news, of which the first batches had none: of all else, a last batch of a
        single sample says less than the first.
        """
        self._factor = graph.factor_on(loss)
        self._looked = facts = found.loss | self._of_texts(found, loss) | self._of_axes(loss, output)
        self._mind_phases(facts.get("name"))
        same = next((one for one in self._kinds if one.get("name") == facts.get("name")), None)
        if same is None and facts and len(self._kinds) < MANY:
            self._kinds.append(facts)
            self._loop.recorder.describe(loss=self.latest)
        elif same is not None and "ignored" in facts and "ignored" not in same:
            same["ignored"] = facts["ignored"]
            self._loop.recorder.describe(loss=self._told(same))

    def _mind_phases(self, name: object) -> None:
        """Where one kind of loss has come to stay after another, say from which step on."""
        if name is None:
            return
        last, begun, looks = self._phase
        self._phase = last, begun, looks = (name, begun, looks + 1) if name == last else (name, self._loop.steps, 1)
        if looks == PHASE:
            before, self._settled = self._settled, name
            if before not in (None, name):
                self._kinds.sort(key=lambda kind: kind.get("name") == name)
                self._loop.recorder.describe(loss={**self.latest, "since": begun})

    def _of_texts(self, found: graph.Found, loss: torch.Tensor) -> dict[str, Any]:
        """What is to be said of ids that went in: targets found among them, and padding that is read in place of text."""
        if (ids := self._ids()) is None:
            return {}
        copied = {"copies_input": True} if found.copies(ids) else {}
        if self._loop.steps >= LOOKED:
            return copied
        recurrent = [module for module in self._loop.parts.modules.values() if isinstance(module, nn.RNNBase)]
        facts: dict[str, Any] = copied
        if graph.shows_padding(loss, ids):
            facts |= {"padding": "shown"}
        elif recurrent and graph.reads_last(loss, ids, recurrent):
            facts |= {"padding": "read last"}
        plain = found.loss.get("reduction") == "mean" and not any(key in found.loss for key in WEIGHTED)
        ignored = int(found.loss.get("ignore_index", -100))
        if plain and found.targets is not None and (share := graph.counted(ids, found.targets, ignored)):
            facts |= {"padding_counted": round(share, 3)}
        both_ways = bool(recurrent) and all(module.bidirectional for module in recurrent)
        if not copied and found.follow(ids) and (both_ways or graph.looks_ahead(loss, ids.shape[1])):
            facts |= {"looks_ahead": True}
        return facts

    def _of_axes(self, loss: torch.Tensor, output: Any) -> dict[str, Any]:
        """What is to be said of a softmax over the samples, and of a reshape that takes one axis for another.

        Of a model that may take the steps of sequences first it is not known where its samples are.
        """
        output = first_tensor(output) if self._loop.steps < LOOKED else None
        if output is None or output.ndim < 2:
            return {}
        modules = self._loop.parts.modules.values()
        samples = 0 if any(getattr(module, "batch_first", True) is False for module in modules) else len(output)
        over, scrambled = graph.over_samples(loss, samples), graph.scrambled(loss, samples)
        if not scrambled and self._reshape is not None and graph.scrambles(*self._reshape, samples):
            scrambled = [list(shape) for shape in self._reshape]
        return ({"over_samples": over} if over else {}) | ({"scrambled": scrambled} if scrambled else {})

    def are_parts(self, passes: int) -> bool:
        """Whether losses that go back were divided by the number of passes, or sums by that of the samples of all passes."""
        scale, reduction = self._looked.get("scale"), self._looked.get("reduction")
        divided = reduction == "mean" and scale is not None and math.isclose(scale * passes, 1.0, rel_tol=1e-4)
        whole = math.isclose(self._factor * passes, 1.0, rel_tol=1e-4)
        if divided and self._kinds[-1].get("scale") == scale:
            self._kinds[-1] = {key: fact for key, fact in self._kinds[-1].items() if key != "scale"}
            self._loop.recorder.describe(loss=self.latest)
        return divided or whole or (reduction == "sum" and scale is not None and scale < 1)

    def mind_opponents(self, loss: torch.Tensor) -> None:
        """A loss that reaches what two optimisers hold, beside one that only one of both holds, is adversarial.

        So it is of a generator, whose loss goes back through the discriminator, and of an actor and its critic. Of optimisers
        that work together each loss reaches all, or but one. Who holds parameters that are not ours counts as one of them.
        """
        if self.adversarial:
            return
        loop = self._loop
        owners = {id(t): id(one) for one in loop.optimizers for group in one.param_groups for t in group["params"]}
        reached = [leaf for leaf in graph.leaves(loss) if isinstance(leaf, nn.Parameter)]
        met = {owners.get(id(leaf)) for leaf in reached if id(leaf) in owners or id(leaf) not in loop.parts.parameters}
        if met:
            self._trained_by.add(frozenset(met))
        if len(self._trained_by) > 1 and any(len(trained) > 1 for trained in self._trained_by):
            self.adversarial = True
            loop.recorder.describe(**loop.describe())


def _reshaped(
    before: torch.Tensor | None, after: torch.Tensor | None
) -> tuple[tuple[int, ...], tuple[int, ...]] | None:
    """The two shapes, where one tensor is a plain reshape of the other."""
    if before is None or after is None or before is after or not same_start(before, after):
        return None
    plain = before.numel() == after.numel() and before.is_contiguous() and after.is_contiguous()
    return (tuple(before.shape), tuple(after.shape)) if plain else None


def nothing() -> None:
    """A weak reference to no tensor."""
