"""Observers for tests, and what they leave."""

import json
import struct
from pathlib import Path
from typing import Any

from haloforge.observe.observer import Observer
from haloforge.observe.settings import ObserveSettings
from haloforge.report.progress import Report


def unobserved() -> Observer:
    """One that is off, for a session that a test stands in for."""
    return Observer(ObserveSettings(enabled=False), Report())


def lines_of(path: Path) -> list[dict[str, Any]]:
    """The JSON objects in `path`, one a line."""
    return [json.loads(line) for line in path.read_text().splitlines()]


def points_of(folder: Path) -> list[tuple[str, int, float]]:
    """Names, steps and values of all scalars in TensorBoard's files in `folder`, in their order."""
    from tensorboardX.proto.event_pb2 import Event

    found = []
    for path in sorted(folder.glob("events.*")):
        data, at = path.read_bytes(), 0
        while at < len(data):  # a record: its length, that one's checksum, itself, its checksum
            (size,) = struct.unpack_from("<Q", data, at)
            event = Event.FromString(data[at + 12 : at + 12 + size])
            at += size + 16
            for value in event.summary.value:
                if value.HasField("simple_value"):
                    found.append((value.tag, event.step, round(value.simple_value, 6)))
    return found
