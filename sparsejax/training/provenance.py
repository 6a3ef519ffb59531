"""What code made something: the commit of the checkout that this package runs from."""

from __future__ import annotations

import subprocess
from pathlib import Path

_PACKAGE = Path(__file__).resolve().parent.parent
# A network disk may be slow; a run must not wait for it.
_PATIENCE_S = 10


def git_commit() -> str:
    """The commit, with ``+changes`` behind it if files of the package differ from it; "" outside a checkout."""
    # A package installed into the environment of some other checkout is none of its files.
    if _git("ls-files", "--error-unmatch", "__init__.py") is None:
        return ""
    commit, changes = _git("rev-parse", "HEAD"), _git("status", "--porcelain", "--untracked-files=no", ".")
    return "" if commit is None else f"{commit}+changes" if changes else commit


def _git(*arguments: str) -> str | None:
    command = ["git", "-C", str(_PACKAGE), *arguments]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=_PATIENCE_S)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() if done.returncode == 0 else None
