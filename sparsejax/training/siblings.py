"""Runs that differ in their schedules only, so that they may begin with the same steps (see ``trunk``)."""

from __future__ import annotations

from sparsejax.config import RunConfig, differing_keys
from sparsejax.topology.density_path import decays

# These decide learning rates and rewirings, which ``trunk`` compares step by step.
_SCHEDULES = frozenset(
    {
        *("train.steps", "train.epochs"),
        *("optim.schedule", "optim.warmup_fraction", "optim.min_ratio", "optim.decay_fraction", "optim.restarts"),
        *("topology.stop_fraction", "topology.rate", "topology.rate_end", "topology.rate_schedule"),
        *("topology.temperature", "topology.temperature_end"),
    }
)


def are_siblings(run: RunConfig, other: RunConfig) -> bool:
    """Whether two runs differ in schedules only, and nothing else in them depends on how long they are.

    Not for runs that start from a dense checkpoint: what its directory holds may have changed between them.
    """
    if decays(run.topology) or run.topology.flow != "none" or run.outer.every > 1 or run.init.from_:
        return False
    lines = differing_keys(other.to_dict(), run.to_dict())
    return all(line.partition(":")[0] in _SCHEDULES for line in lines)
