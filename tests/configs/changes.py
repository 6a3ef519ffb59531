"""What one config changes of another, as it is pinned in tests/golden."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

CONFIGS = Path(__file__).resolve().parents[2] / "configs"
GOLDEN = Path(__file__).resolve().parents[1] / "golden"


def changes(config: Mapping[str, Any], base: Mapping[str, Any]) -> dict[str, Any]:
    """``section.field`` -> value wherever a nested config differs from its base, as JSON gives it back."""
    found = {
        f"{section}.{field}": value
        for section, fields in config.items()
        for field, value in fields.items()
        if value != base[section][field]
    }
    back: dict[str, Any] = json.loads(json.dumps(found))
    return back


def write_golden(kind: str, texts: Mapping[str, Any]) -> None:
    """Write ``golden/<kind>/<name>.json`` for every name, and remove the others."""
    for path in (GOLDEN / kind).glob("*.json"):
        path.unlink()
    for name, found in texts.items():
        (GOLDEN / kind / f"{name}.json").write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")


def read_golden(kind: str, name: str) -> Any:
    """What is pinned; None if nothing is."""
    path = GOLDEN / kind / f"{name}.json"
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else None
