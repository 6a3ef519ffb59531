"""docs/SCALING.md names every law, with as many parameters as it has, and no other."""

import re
from pathlib import Path

from sparsejax.scaling.laws.registry import LAWS

TEXT = (Path(__file__).resolve().parents[2] / "docs" / "SCALING.md").read_text(encoding="utf-8")
ROW = re.compile(r"^\| ((?:`\w+`(?:, )?)+) \| ([\w, ]+) \| ([\d, ]+) \|", re.MULTILINE)


def test_the_table_of_laws():
    shown = {}
    for names, columns, counts in ROW.findall(TEXT):
        for name, count in zip(re.findall(r"\w+", names), re.findall(r"\d+", counts), strict=True):
            shown[name] = (set(columns.split(", ")), int(count))
    wanted = {law.name: (set(law.columns), len(law.names) - len(law.held)) for law in LAWS.values()}
    assert shown == wanted
