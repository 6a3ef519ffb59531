"""Damage to files, as disks, copies and people do it."""

from __future__ import annotations

import random
from pathlib import Path

KINDS = ("flip a bit", "change a byte", "cut", "empty", "remove", "append", "swap two bytes", "zero a page")
_PAGE = 512


def files_below(folder: Path) -> list[Path]:
    """All files below a folder, in a fixed order."""
    return sorted(path for path in folder.rglob("*") if path.is_file())


def damage(path: Path, draw: random.Random) -> str:
    """Damage one file; returns how, for the report."""
    data = bytearray(path.read_bytes())
    kind = draw.choice(KINDS if data else ("remove", "append"))
    place = draw.randrange(len(data)) if data else 0
    if kind == "flip a bit":
        data[place] ^= 1 << draw.randrange(8)
    elif kind == "change a byte":
        data[place] = draw.choice([b for b in range(256) if b != data[place]])
    elif kind == "cut":
        del data[place:]
    elif kind == "empty":
        data.clear()
    elif kind == "append":
        data += draw.randbytes(draw.choice((1, 100)))
    elif kind == "swap two bytes":
        other = draw.randrange(len(data))
        data[place], data[other] = data[other], data[place]
    elif kind == "zero a page":
        data[place : place + _PAGE] = bytes(len(data[place : place + _PAGE]))
    changed = bytes(data) != path.read_bytes()
    if kind == "remove":
        path.unlink()
    elif changed:
        path.write_bytes(data)
    return f"{kind} at {place}" if changed or kind == "remove" else ""
