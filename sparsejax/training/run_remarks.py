"""What is said of a run before it starts: settings without effect, names that are not what they say, and refusals."""

from __future__ import annotations

import itertools

from sparsejax.topology.density_path import decays
from sparsejax.topology.methods import METHODS
from sparsejax.topology.schedules import last_rewiring_step
from sparsejax.training.idle_settings import RunFacts, idle_settings, moves_counts, shown, value_of

# What decides which method a run is; its other settings may differ from the row without another name.
_MAKES_THE_METHOD = ("drop", "grow", "storage", "density_schedule")
_DENSE_METHODS = ("dense", "galore")


def remarks(facts: RunFacts) -> list[str]:
    """One line for each thing that was set and does nothing, or is not what its name says."""
    run, idle = facts.run, idle_settings(facts)
    lines = []
    for why, fields in itertools.groupby(sorted(idle, key=lambda field: idle[field]), key=lambda field: idle[field]):
        lines.append(f"{', '.join(f'{f}={shown(value_of(run, f))}' for f in fields)}: no effect in this run ({why})")
    return [*_remarks_on_rules(facts), *_remarks_on_topology(facts), *lines]


def refusals(facts: RunFacts) -> list[str]:
    """What a new run is refused for, and a run that continues is only told."""
    topology = facts.run.topology
    if topology.method in _DENSE_METHODS and facts.sparse:
        names = ", ".join(name for name, weight in facts.weights.items() if not weight.dense)
        return [
            f"topology.rules={shown(topology.rules)}: the method '{topology.method}' needs density 1 everywhere, and "
            f"{names} would be sparse; leave the rules out or set topology.method=static"
        ]
    return []


def _remarks_on_topology(facts: RunFacts) -> list[str]:
    topology, lines = facts.run.topology, []
    row = METHODS[topology.method]
    other = {name: row.topology[name] for name in _MAKES_THE_METHOD if getattr(topology, name) != row.topology[name]}
    if not facts.sparse and topology.method not in _DENSE_METHODS:
        lines.append(
            f"topology.method={topology.method}: no weight is sparse at topology.density={topology.density:g}, so this "
            "run is dense; the method is recorded by name only"
        )
    elif other:
        pairs = ", ".join(f"topology.{name}={getattr(topology, name)} ({value})" for name, value in other.items())
        lines.append(
            f"topology.method={topology.method}: recorded by name only, this run differs from its row in "
            f"sparsejax/topology/methods.py: {pairs}"
        )
    if facts.meant_to_rewire and not facts.rewires:
        at = (
            f"topology.density={topology.density:g} holds from the first step"
            if decays(topology)
            else "the first topology stays"
        )
        lines.append(
            f"topology.every={topology.every}: nothing is ever rewired, because the last of {facts.steps:.0f} steps "
            f"that may rewire is {last_rewiring_step(facts.length, topology.stop_fraction)} "
            f"(topology.stop_fraction={topology.stop_fraction:g}); {at}"
        )
    if facts.rewires and topology.drop == "threshold" and topology.drop_threshold == 0.0:
        lines.append(
            "topology.drop_threshold=0: only blocks of zeros may go, so topology.drop=threshold replaces nothing that "
            "was trained; set it to the mean |w| up to which a block may go"
        )
    return lines


def _remarks_on_rules(facts: RunFacts) -> list[str]:
    """Rules that others before them leave nothing to, or that ask for what the weights have anyway."""
    rules = facts.run.topology.rules
    lines = []
    for number, rule in enumerate(rules):
        reason = moves_counts(rules=(*rules[:number], *rules[number + 1 :]))(facts)
        if reason is not None:
            lines.append(f"topology.rules={rule!r}: no effect in this run ({reason})")
    return lines
