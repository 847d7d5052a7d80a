"""A reader of TensorBoard's event files, for the tests of the exporter."""

from __future__ import annotations

import struct
from collections import defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from tensorboardX.proto.event_pb2 import Event


class Events:
    """What the event files below a log directory hold, keyed by (run, tag); points are (step, value)."""

    def __init__(self, logdir: Path) -> None:
        self.files = sorted(logdir.rglob("*tfevents*"))
        self.scalars: dict[tuple[str, str], list[tuple[int, float]]] = defaultdict(list)
        self.histograms: dict[tuple[str, str], list[tuple[int, Any]]] = defaultdict(list)
        self.texts: dict[tuple[str, str], list[tuple[int, str]]] = defaultdict(list)
        self.help: dict[str, list[str]] = defaultdict(list)
        self.times: dict[str, list[float]] = defaultdict(list)
        for file in self.files:
            run = file.parent.relative_to(logdir).as_posix()
            for event in _events(file):
                if not event.file_version:
                    self.times[run].append(event.wall_time)
                for value in event.summary.value:
                    self._take((run, value.tag), event.step, value)

    def _take(self, key: tuple[str, str], step: int, value: Any) -> None:
        match value.WhichOneof("value"):
            case "simple_value":
                self.scalars[key].append((step, value.simple_value))
            case "histo":
                self.histograms[key].append((step, value.histo))
            case "tensor":
                self.texts[key].append((step, value.tensor.string_val[0].decode()))
        if value.metadata.summary_description:
            self.help[value.tag].append(value.metadata.summary_description)

    def tags(self, run: str = "train") -> list[str]:
        """Sorted tags of the charts of one run."""
        return sorted(tag for of, tag in self.scalars if of == run)


def _events(file: Path) -> Iterator[Event]:
    """The events of a TFRecord file: length (8 bytes), checksum (4), data, checksum (4)."""
    data, at = file.read_bytes(), 0
    while at < len(data):
        (length,) = struct.unpack_from("<Q", data, at)
        yield Event.FromString(data[at + 12 : at + 12 + length])
        at += 16 + length


@pytest.fixture
def read() -> Callable[[Path], Events]:
    """Reads a log directory."""
    return Events
