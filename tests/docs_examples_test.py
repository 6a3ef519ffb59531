"""Every Python block of docs/LIBRARY.md runs as it stands."""

import re
from pathlib import Path

import pytest

LIBRARY = Path(__file__).resolve().parents[1] / "docs" / "LIBRARY.md"
EXAMPLE = re.compile(r"^## (.+?)$.*?```python\n(.*?)```", re.MULTILINE | re.DOTALL)
EXAMPLES = EXAMPLE.findall(LIBRARY.read_text(encoding="utf-8"))


def test_all_three_examples_are_found():
    assert len(EXAMPLES) == 3


@pytest.mark.parametrize(("title", "code"), EXAMPLES, ids=[title for title, _ in EXAMPLES])
def test_example(title, code):
    assert "assert" in code, "an example that checks nothing proves nothing"
    exec(compile(code, title, "exec"), {"__name__": title})
