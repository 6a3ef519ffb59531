"""Every ablation asks one question: few changes, points that all work, and a header that says how to run it.

What each file and each of its points change of configs/prose.py is pinned in tests/golden/ablations. When that is
changed on purpose, write it again with `python -m tests.configs.ablations_test`.
"""

import functools
import re
from pathlib import Path
from typing import Any

import pytest

from sparsejax.cli.config_flag import load_module, load_run
from sparsejax.config import RunConfig
from sparsejax.models.weight_table import weight_table
from sparsejax.planning.plan import PlannedRun, Sweep
from sparsejax.planning.points import read_points
from sparsejax.topology.rewire import drop_count
from tests.configs.changes import CONFIGS, GOLDEN, changes, read_golden, write_golden

FILES = {path.stem: path for path in sorted((CONFIGS / "ablations").glob("*.py"))}
MOST_CHANGES = 5
FEWEST_BLOCK_ROWS = 8
# Asks on purpose what the drop costs where blocks are large.
FEWER_BLOCK_ROWS = {"spikes": 4}
QUESTIONS = {
    "spikes",
    "cold_start",
    "density_lr",
    "warmup_length",
    "block_size",
    "balance",
    "grow_rule",
    "drop_rule",
    "update_frequency",
    "prune_rate_schedule",
    "drop_fade",
    "allocation",
    "attention_mlp_ratio",
    "density",
    "weight_decay_repetition",
    "density_epochs",
    "methods",
    "methods_lr",
    "baselines",
}


@functools.cache
def planned(name: str) -> tuple[PlannedRun, ...]:
    """Every point of a file with its first seed."""
    module, config = load_module(FILES[name]), str(FILES[name])
    sweep = Sweep(config, (), read_points(module.points()), module.SEEDS[:1])
    return sweep.runs(Path("runs") / name, lambda flags: load_run(config, flags))


def prose() -> dict[str, Any]:
    return load_run(str(CONFIGS / "prose.py"), []).to_dict()


def pinned(name: str) -> dict[str, Any]:
    """What the file changes of prose.py, and what each point then differs in; a directory and seeds are no change."""
    module, base = load_module(FILES[name]), prose()
    points = {}
    for run in planned(name):
        found = changes(run.config.to_dict(), base)
        points[run.point.name] = {key: value for key, value in found.items() if key != "train.compile_cache"}
    config = changes(module.get_config().to_dict(), base)
    return {"config": config, "seeds": list(module.SEEDS), "points": points}


def frozen_weights(run: RunConfig) -> list[str]:
    """The weights of which the first rewiring would replace nothing."""
    topology = run.topology
    if topology.drop == "none" or topology.density_schedule != "constant":
        return []
    weights = weight_table(run.model, topology)
    counts = {
        name: drop_count(topology.rate, weight.grid, weight.count // weight.grid.shards, topology.regrow_dropped)
        for name, weight in weights.items()
        if not weight.dense
    }
    return [name for name, count in counts.items() if count < 1]


def test_every_question_has_its_file() -> None:
    assert set(FILES) == QUESTIONS == {path.stem for path in (GOLDEN / "ablations").glob("*.json")}


@pytest.mark.parametrize("name", FILES)
def test_golden(name: str) -> None:
    advice = (
        f"configs/ablations/{name}.py changes something else of configs/prose.py than before; if that is on purpose, "
        "run `python -m tests.configs.ablations_test`"
    )
    assert pinned(name) == read_golden("ablations", name), advice


@pytest.mark.parametrize("name", FILES)
def test_a_file_and_its_points_change_little(name: str) -> None:
    module = load_module(FILES[name])
    assert len(changes(module.get_config().to_dict(), prose())) <= MOST_CHANGES
    assert max(len(point) for point in module.points()) <= MOST_CHANGES


@pytest.mark.parametrize("name", FILES)
def test_the_points_differ_and_can_work(name: str) -> None:
    runs = [run.config for run in planned(name)]
    assert len(set(map(repr, runs))) == len(runs) > 1
    for run in runs:
        fewest = FEWER_BLOCK_ROWS[name] if name in FEWER_BLOCK_ROWS else FEWEST_BLOCK_ROWS
        assert run.model.hidden // max(run.topology.block) >= fewest, "fewer block rows leave nothing to choose"
        assert frozen_weights(run) == []


@pytest.mark.parametrize("name", FILES)
def test_the_header_says_how_to_run_it(name: str) -> None:
    module = load_module(FILES[name])
    text = module.__doc__ or ""
    question = text.partition("\n")[0]
    assert question.endswith("?")
    command = f"    sparsejax sweep --config=configs/ablations/{name}.py --workdir=runs/{name}\n"
    assert command in text
    counted = re.search(r"^Hardware: two CPU cores\. (\d+) runs, about \d+ minutes\.$", text, re.MULTILINE)
    assert counted and int(counted[1]) == len(module.points()) * len(module.SEEDS)
    assert re.search(r"^Measured: .", text, re.MULTILINE)


if __name__ == "__main__":
    write_golden("ablations", {name: pinned(name) for name in FILES})
