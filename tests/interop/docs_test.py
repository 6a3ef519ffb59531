"""The Python blocks of docs/EXPORT.md run as they stand, but for those that need ``transformers``."""

import re
from pathlib import Path

import pytest

from sparsejax.interop.export import export

ROOT = Path(__file__).resolve().parents[2]
BLOCKS = re.findall(r"```python\n(.*?)```", (ROOT / "docs" / "EXPORT.md").read_text(encoding="utf-8"), re.DOTALL)


def test_the_blocks_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    golden = ROOT / "tests" / "golden" / "interop"
    export(golden / "export", tmp_path / "packed", form="packed", dtype=None, shard_bytes=1, notice=print)
    (tmp_path / "llama").symlink_to(golden / "grouped")
    monkeypatch.chdir(tmp_path)
    here = [block for block in BLOCKS if "transformers" not in block]
    assert len(here) == 2
    for block in here:
        exec(compile(block, "EXPORT.md", "exec"), {})
