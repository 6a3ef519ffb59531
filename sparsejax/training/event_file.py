"""Scalars as TensorBoard reads them: a file of length-prefixed ``Event`` messages with checksums.

TensorBoard's own messages and records; nothing of TensorFlow or PyTorch is imported, whatever is installed.
"""

from __future__ import annotations

import socket
import time
from pathlib import Path

from tensorboard.compat.proto.event_pb2 import Event, SessionLog
from tensorboard.compat.proto.summary_pb2 import Summary
from tensorboard.summary.writer.record_writer import RecordWriter

_VERSION = "brain.Event:2"


class EventFile:
    """One session's events in a directory; TensorBoard forgets what earlier sessions wrote from ``first_step`` on."""

    def __init__(self, directory: Path, first_step: int, suffix: str) -> None:
        """Create a file of its own: named by the time, the machine and ``suffix``."""
        directory.mkdir(parents=True, exist_ok=True)
        name = f"events.out.tfevents.{int(time.time()):010d}.{socket.gethostname()}{suffix}"
        self._file = (directory / name).open("ab")
        self._records = RecordWriter(self._file)
        self._write(Event(file_version=_VERSION))
        self._write(Event(step=first_step, session_log=SessionLog(status=SessionLog.START)))

    def add(self, values: dict[str, float], step: int) -> None:
        """Write the scalars of one step, by tag, and hand them to the system."""
        scalars = [Summary.Value(tag=tag, simple_value=value) for tag, value in values.items()]
        self._write(Event(step=step, summary=Summary(value=scalars)))
        self._file.flush()

    def flush(self) -> None:
        """Hand everything written to the system."""
        self._file.flush()

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def _write(self, event: Event) -> None:
        event.wall_time = time.time()
        self._records.write(event.SerializeToString())
