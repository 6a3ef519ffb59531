"""What a process that writes a token set says, with a clock and a disk that are told what to say."""

from pathlib import Path
from types import SimpleNamespace

import pytest

from sparsejax.data import set_progress
from sparsejax.data.set_progress import SetProgress


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """The time, to be set; a disk with 5 GB free."""
    clock = SimpleNamespace(now=0.0)
    monkeypatch.setattr(set_progress.time, "monotonic", lambda: clock.now)
    monkeypatch.setattr(set_progress.shutil, "disk_usage", lambda path: SimpleNamespace(free=5_000_000_000))
    return clock


def test_rate_time_and_space(clock: SimpleNamespace, tmp_path: Path) -> None:
    said: list[str] = []
    # Four parts of 1 GB, of which this process has three; each gives 0.5 G ids of two bytes and 2 GB of text.
    progress = SetProgress([1_000_000_000] * 4, [0, 2, 3], tmp_path, said.append)
    clock.now = 100.0
    progress.done(0, 500_000_000, 1_000_000_000, 2_000_000_000)
    clock.now = 105.0
    progress.done(2, 500_000_000, 1_000_000_000, 2_000_000_000)  # too soon after the last line
    clock.now = 200.0
    progress.done(3, 500_000_000, 1_000_000_000, 2_000_000_000)
    assert said == [
        "tokenising 3 of 4 parts, 3 of 4 GB",
        "1 of 3 parts: 500,000,000 tokens, 20 MB/s of text, about 4 min left",
        "the set will take about 4 GB, and 2 times that until it is finished; 5 GB are free, which is TOO LITTLE "
        "unless other parts are already there",
        "3 of 3 parts: 1,500,000,000 tokens, 30 MB/s of text",
    ]


def test_what_is_not_known_is_not_said(clock: SimpleNamespace) -> None:
    said: list[str] = []
    progress = SetProgress([0], [0], None, said.append)
    clock.now = 2.0
    progress.done(0, 10, 20, 8_000_000)
    assert said == ["tokenising 1 of 1 parts", "1 of 1 parts: 10 tokens, 4 MB/s of text"]
    progress = SetProgress([500_000_000], [0], None, said.append)
    clock.now = 4.0
    progress.done(0, 10, 200_000_000, 8_000_000)
    assert said[-1] == "the set will take about 0.2 GB, and 2 times that until it is finished"
