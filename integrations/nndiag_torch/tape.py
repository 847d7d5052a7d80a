"""What happened on a device, kept in order until its values have arrived on the host: in one copy, and without waiting for it."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from time import perf_counter
from typing import Any

import numpy as np
import torch

from nndiag.statistics import Array
from nndiag_torch.arrays import VIEWED

BYTES = 8 << 20
"""Bytes that wait on a device at most, but for those of the last entry, before they are sent to the host."""

SECONDS = 5.0
"""Time that anything waits: what a run that is killed may lose, as with the run folder."""


@dataclass(frozen=True)
class _Place:
    """Where the values of a tensor lie in what arrives from its device."""

    device: torch.device
    at: int
    shape: tuple[int, ...]
    dtype: np.dtype[Any]


Entry = tuple[Callable[..., None], tuple[Any, ...]]
"""What is to be told, and with which arguments; tensors among them become arrays."""


@dataclass
class _Parcel:
    """Entries on their way, with the bytes of each device."""

    entries: list[Entry]
    bytes: dict[torch.device, torch.Tensor] = field(default_factory=dict)
    events: list[Any] = field(default_factory=list)

    @property
    def arrived(self) -> bool:
        return all(event.query() for event in self.events)

    def wait(self) -> None:
        for event in self.events:
            event.synchronize()


class Tape:
    """Takes functions with tensors for arguments; calls each, in that order, when its tensors are arrays on the host.

    Of one that fails `failed` is told, with its name; the others are called all the same.

    Nothing is asked of a device in between. Tensors that are added must not be changed afterwards. Memory: `BYTES` on the
    device, and twice that on the host, pinned, since one parcel may travel while the next is filled.
    """

    def __init__(self, failed: Callable[[str, Exception], None]) -> None:
        self._failed = failed
        self._entries: list[Entry] = []
        self._waiting = 0
        self._parcels: deque[_Parcel] = deque()
        self._sent = perf_counter()
        self.playing = False

    def add(self, tell: Callable[..., None], *arguments: Any) -> None:
        """Have `tell(*arguments)` called later."""
        self._entries.append((tell, tuple(map(self._kept, arguments))))
        if self._waiting > BYTES:
            self.send()

    def _kept(self, argument: Any) -> Any:
        if not isinstance(argument, torch.Tensor):
            return argument
        if argument.dtype not in VIEWED:
            argument = argument.to(torch.float32)
        self._waiting += argument.numel() * argument.element_size()
        return argument

    @property
    def due(self) -> bool:
        """Whether anything has waited long enough."""
        return perf_counter() - self._sent > SECONDS

    def send(self) -> None:
        """Let what is there travel to the host: one copy for each device."""
        self._sent = perf_counter()
        if not self._entries:
            return
        parcel = _Parcel(self._entries)
        self._entries, self._waiting = [], 0
        tensors = [a for _, arguments in parcel.entries for a in arguments if isinstance(a, torch.Tensor)]
        places: dict[int, _Place] = {}
        for device in dict.fromkeys(tensor.device for tensor in tensors):
            here = {id(tensor): tensor for tensor in tensors if tensor.device == device}
            self._pack(parcel, device, sorted(here.values(), key=torch.Tensor.element_size, reverse=True), places)
        parcel.entries = [(tell, tuple(places.get(id(a), a) for a in arguments)) for tell, arguments in parcel.entries]
        self._parcels.append(parcel)

    def _pack(
        self, parcel: _Parcel, device: torch.device, tensors: list[torch.Tensor], places: dict[int, _Place]
    ) -> None:
        """Put `tensors`, larger types first so that each lies where its type may lie, into one row of bytes."""
        at = 0
        for tensor in tensors:
            places[id(tensor)] = _Place(device, at, tuple(tensor.shape), _numpy(tensor.dtype))
            at += tensor.numel() * tensor.element_size()
        packed = torch.cat([tensor.detach().reshape(-1).view(torch.uint8) for tensor in tensors])
        if device.type == "cuda":
            host = torch.empty(packed.shape, dtype=torch.uint8, pin_memory=True)
            host.copy_(packed, non_blocking=True)
            event = torch.cuda.Event()
            event.record(torch.cuda.current_stream(device))
            parcel.events.append(event)
            parcel.bytes[device] = host
        else:
            parcel.bytes[device] = packed.cpu()

    def arrived(self, *, wait: bool) -> bool:
        """Whether the next parcel is here; with `wait`, or where another is behind it, it is waited for."""
        if not self._parcels or self.playing:
            return False
        if wait or len(self._parcels) > 1:
            self._parcels[0].wait()
        return self._parcels[0].arrived

    def play(self) -> None:
        """Tell what came with the next parcel."""
        parcel = self._parcels.popleft()
        self.playing = True
        try:
            arrays = {device: packed.numpy() for device, packed in parcel.bytes.items()}
            for tell, arguments in parcel.entries:
                try:
                    tell(*(_array(arrays[a.device], a) if isinstance(a, _Place) else a for a in arguments))
                except Exception as fault:
                    self._failed(tell.__name__.strip("_"), fault)
        finally:
            self.playing = False


def _array(packed: Array, place: _Place) -> Array:
    size = math.prod(place.shape) * place.dtype.itemsize
    return packed[place.at : place.at + size].view(place.dtype).reshape(place.shape)


def _numpy(dtype: torch.dtype) -> np.dtype[Any]:
    return np.dtype(str(dtype).removeprefix("torch."))
