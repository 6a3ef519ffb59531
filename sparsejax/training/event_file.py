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

from sparsejax.files.durable import naming

_VERSION = "brain.Event:2"


class EventFile:
    """TensorBoard's file of one session, written by the caller's thread, which then sees the errors."""

    def __init__(self, directory: Path, start_step: int) -> None:
        """Begin a file; points of earlier sessions behind ``start_step`` are no longer shown."""
        directory.mkdir(parents=True, exist_ok=True)
        self._path = directory
        # The suffix keeps a session's file apart from that of another in the bucket, started in the same second.
        name = f"events.out.tfevents.{int(time.time()):010d}.{socket.gethostname()}.{start_step}"
        with naming(directory):
            self._file = (directory / name).open("ab")
        self._records = RecordWriter(self._file)
        self._write(Event(file_version=_VERSION))
        self._write(Event(step=start_step + 1, session_log=SessionLog(status=SessionLog.START)))

    def add(self, name: str, value: float, step: int) -> None:
        """Add a point."""
        self._write(Event(step=step, summary=Summary(value=[Summary.Value(tag=name, simple_value=value)])))

    def flush(self) -> None:
        """Hand what was added to the system."""
        with naming(self._path):
            self._file.flush()

    def close(self) -> None:
        """End the file."""
        with naming(self._path):
            self._file.close()

    def _write(self, event: Event) -> None:
        event.wall_time = time.time()
        with naming(self._path):
            self._records.write(event.SerializeToString())
