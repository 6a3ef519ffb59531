"""Settings of parameters, densities or masks, found by path at the leaves that are there.

Wrappers of Optax and Flax hand a transformation other trees than the parameters: ``optax.masked`` and
``optax.multi_transform`` leave out the leaves of others, ``nnx.Optimizer`` calls ``init`` with Variables and ``update``
with arrays. So settings are not zipped with a tree but looked up: keys joined by ``/``, without the ``value`` of a
Flax Variable, for example ``layers/attention/q/values``.
"""

from __future__ import annotations

from typing import Any

import jax

# Paths in an error; a model may have hundreds.
_MOST_NAMES = 6


def leaf_path(key_path: Any) -> str:
    """The keys of a leaf joined by ``/``; the same for an array and for a Flax Variable that holds it."""
    inside = isinstance(key_path[-1], jax.tree_util.GetAttrKey) and key_path[-1].name == "value" if key_path else False
    keys = key_path[:-1] if inside and len(key_path) > 1 else key_path
    return jax.tree_util.keystr(keys, simple=True, separator="/")


def settings_at(tree: Any, settings: Any, what: str) -> list[tuple[str, Any, Any]]:
    """Path, leaf and setting of every leaf of a tree of parameters or gradients.

    A setting may stand for a whole subtree, and settings of leaves that are not there are ignored: both as Optax reads
    its masks.

    Args:
      tree: parameters or gradients, any pytree.
      settings: a pytree that names the leaves by the same paths or the first part of them, one value for all, or a
        function that makes such a tree from ``tree``.
      what: name of the argument, for errors.

    Raises:
      ValueError: a leaf without a setting, or two leaves of one path.
    """
    made = settings(tree) if callable(settings) else settings
    known = {leaf_path(path): value for path, value in jax.tree_util.tree_leaves_with_path(made)}
    found, seen = [], set()
    for key_path, leaf in jax.tree_util.tree_leaves_with_path(tree):
        path = leaf_path(key_path)
        if path in seen:
            raise ValueError(f"two parameters have the path {path}: {what} cannot tell them apart")
        seen.add(path)
        found.append((path, leaf, _nearest(path, known, what)))
    return found


def _nearest(path: str, known: dict[str, Any], what: str) -> Any:
    """The setting of a path, or of the nearest subtree it is in."""
    part = path
    while part not in known:
        if not part:
            names = ", ".join(sorted(known)[:_MOST_NAMES]) + (", ..." if len(known) > _MOST_NAMES else "")
            raise ValueError(f"{what} has no value for the parameter {path!r}; it names {names or 'nothing'}")
        part = part.rpartition("/")[0]
    return known[part]
