"""Every number of a run's log and of its result, computed again from the blocks it had and the batches it took.

A run of seven steps in two layers and two shares, whose last batch is not full; rewirings after every second step. The
arithmetic is the test's own, in NumPy and Python, on masks read off the index arrays.
"""

import itertools
import json
import math

import jax
import numpy as np
import pytest

from sparsejax.topology.methods import METHODS
from sparsejax.training.loop import train
from sparsejax.training.metrics import read_rows
from sparsejax.training.session import Session
from tests.training.tiny import quiet_console, tiny_run

LAYERS, D, F, V, T, ROWS, BATCH, STEPS, EVERY, SIDE = 2, 16, 32, 257, 16, 20, 3, 7, 2, 4
ATTENTION = 4 * T * D
SHAPES = {f"attention.{kind}": (D, D) for kind in "qkvo"}
SHAPES |= {"mlp.gate": (D, F), "mlp.up": (D, F), "mlp.down": (F, D)}
LR, RATE, RATE_END, MIN_RATIO = 1e-2, 0.4, 0.2, 0.1
RULES = {
    "global_magnitude": {"topology_drop": "global_magnitude", "topology_capacity_slack": 2.0},
    "threshold": {"topology_drop": "threshold", "topology_drop_threshold": 0.016},
    "mixed_densities": {"topology_rules": ("attention.q=1", "mlp.up=0.25")},
}
GATE = "mixed_densities"
CASES = [pytest.param(name, marks=() if name == GATE else pytest.mark.slow) for name in (*METHODS, *RULES)]


def changes_of(name):
    changes = {"train_steps": 0, "train_epochs": 1, "train_batch_size": BATCH, "train_eval_every": 0}
    changes |= {"topology_every": EVERY, "topology_rate": RATE, "topology_rate_end": RATE_END, "topology_shards": 2}
    changes |= {"model_implementation": "transient", "optim_warmup_fraction": 0.0, "train_checkpoint_every": 100}
    if name in RULES:
        return changes | RULES[name]
    for section in ("topology", "optim"):
        changes |= {f"{section}_{key}": value for key, value in getattr(METHODS[name], section).items()}
    changes |= {"topology_method": name, "topology_score_steps": min(changes["topology_score_steps"], EVERY)}
    return changes | ({"topology_density": 1.0} if name in ("dense", "galore") else {})


@pytest.fixture
def seen(monkeypatch):
    """``(step, tokens, topology before, topology after, sizes)`` of every step: sizes of params, 2:4 or not."""
    found, after_step = [], Session._after_step

    def watching(session, state, step, batch):
        tokens, before, params = int(np.sum(np.asarray(batch) >= 0)), jax.device_get(state.topology), state.params
        masters = session.recipe.run.topology.storage == "dense_master"
        sizes = jax.tree.map(lambda leaf: leaf.size, params) | {"masters": masters}
        state, evaluation = after_step(session, state, step, batch)
        found.append((step, tokens, before, jax.device_get(state.topology), sizes))
        return state, evaluation

    monkeypatch.setattr(Session, "_after_step", watching)
    return found


def mask(topology, name):
    """``[L, R, C]`` bool, or None for a weight without blocks."""
    room, kind = name.split(".")
    index = topology["layers"][room][kind] if kind in topology.get("layers", {}).get(room, {}) else {}
    if "rows" not in index:
        return None
    K, N = SHAPES[name]
    found = np.zeros((LAYERS, K // SIDE, N // SIDE), bool)
    for layer in range(LAYERS):
        for row, column in zip(index["rows"][layer], index["cols"][layer], strict=True):
            if column < N // SIDE:
                found[layer, row, column] = True
    return found


def active_elements(topology, sizes, name):
    """Elements of a kind that count, over all layers."""
    K, N = SHAPES[name]
    room, kind = name.split(".")
    leaves = sizes["layers"][room][kind]
    found = mask(topology, name)
    if found is not None:
        return int(found.sum()) * SIDE**2
    if "first" in leaves:
        return leaves["first"] + leaves["second"]
    return LAYERS * K * N // (2 if sizes["masters"] else 1)


def executed_elements(topology, sizes, name):
    """Elements of a kind that a layer multiplies: all of them, but for factors."""
    K, N = SHAPES[name]
    leaves = sizes["layers"][name.split(".")[0]][name.split(".")[1]]
    return (leaves["first"] + leaves["second"]) // LAYERS if "first" in leaves else K * N


def step_flops(topology, sizes):
    """Executed of a place and theoretical of a token, of one train step."""
    executed = sum(executed_elements(topology, sizes, name) for name in SHAPES)
    active = sum(active_elements(topology, sizes, name) for name in SHAPES)
    head = 2 * D * V
    return 3 * (LAYERS * (2 * executed + ATTENTION) + head), 3 * (2 * active + LAYERS * ATTENTION + head)


def score_flops():
    """Forward, forward of the layers again but for down, gradients of inputs, and of all sparse weights."""
    places = sum(K * N for K, N in SHAPES.values())
    layer = 4 * ATTENTION + 3 * 2 * places + 2 * (places - D * F)
    return LAYERS * layer + 2 * 2 * D * V


def check_rewiring(row, before, after, first, ever, grown_before, expected_rate):
    """One row of kind ``rewire`` against masks."""
    went = came = 0
    grown = {}
    for name in SHAPES:
        old, new = mask(before, name), mask(after, name)
        if old is None:
            assert f"topology/churn/{name}" not in row
            continue
        grown[name], lost = new & ~old, old & ~new
        came, went = came + grown[name].sum(), went + lost.sum()
        ever[name] = ever.get(name, mask(first, name)) | new
        expected = {
            "density": new.mean(),
            "churn": grown[name].sum() / new.sum(),
            "initial_overlap": (new & mask(first, name)).sum() / new.sum(),
            "explored": ever[name].mean(),
            "moved": (old ^ new).mean(),
            "dead_rows": (~new.any(axis=2)).mean(),
            "dead_columns": (~new.any(axis=1)).mean(),
        }
        if name in grown_before and grown_before[name].sum():
            expected["survival"] = (grown_before[name] & new & ~grown[name]).sum() / grown_before[name].sum()
        found = {key: row[f"topology/{key}/{name}"] for key in expected}
        assert found == pytest.approx(expected, rel=1e-6), name
        assert ("survival" in expected) == (f"topology/survival/{name}" in row)
    assert (row["topology/dropped"], row["topology/replaced"]) == (went, came)
    assert row["topology/rate"] == pytest.approx(expected_rate)
    return grown


def check_rewirings(run, kinds, seen, due, stop):
    """All rows of kinds ``rewire`` and ``regrowth``."""
    falls = run.topology.density_schedule != "constant"
    ever, grown = {}, {}
    for row in kinds["rewire"]:
        _, _, before, after, _ = seen[row["step"] - 1]
        rate = RATE_END + (RATE - RATE_END) * (1 + math.cos(math.pi * row["step"] / stop)) / 2
        grown = check_rewiring(row, before, after, seen[0][2], ever, grown, 0.0 if falls else rate)
        assert math.isfinite(row["topology/loss_before"]) and math.isfinite(row["topology/loss_after"])
        assert falls == (row["topology/replaced"] == 0) or run.topology.drop == "threshold"
    for row in kinds["regrowth"]:
        assert row["step"] - 1 in due and math.isfinite(row["topology/regrown_update"])


@pytest.mark.parametrize("name", CASES)
def test_every_logged_number_is_what_the_run_did(tmp_path, seen, name):
    run = tiny_run(tmp_path, **changes_of(name))
    assert train(run, tmp_path / "run", extend=False, console=quiet_console()).exit_code == 0
    rows = read_rows(tmp_path / "run" / "metrics.jsonl")
    result = json.loads((tmp_path / "run" / "result.json").read_text())
    kinds = {kind: [row for row in rows if row["kind"] == kind] for kind in ("train", "rewire", "regrowth", "eval")}
    assert [row["step"] for row in kinds["train"]] == [step for step, *_ in seen] == list(range(1, STEPS + 1))

    stop = round(run.topology.stop_fraction * STEPS)
    blocks = any(mask(seen[0][2], weight) is not None for weight in SHAPES)
    moves = run.topology.drop != "none" and blocks
    due = [step for step in range(EVERY, min(stop, STEPS - 1) + 1, EVERY)] if moves else []
    assert [row["step"] for row in kinds["rewire"]] == due
    check_rewirings(run, kinds, seen, due, stop)

    total = executed = theoretical = active = 0
    dense_part = 2 * D * V + (2 * LAYERS + 1) * D
    for row, (step, tokens, before, _, sizes) in zip(kinds["train"], seen, strict=True):
        total += tokens
        per_place, per_token = step_flops(before, sizes)
        executed, theoretical = executed + per_place * BATCH * T, theoretical + per_token * tokens
        active += sum(active_elements(before, sizes, weight) for weight in SHAPES) + dense_part
        assert row["total_tokens"] == total
        assert row["epoch"] == 0 and row["skipped"] == 0
        assert row["loss"] == row["loss_mean"] == row["loss_max"]
        x = (step - 1) / (STEPS - 1)
        rate = LR * (MIN_RATIO + (1 - MIN_RATIO) * (1 + math.cos(math.pi * x)) / 2)
        assert row["learning_rate"] == pytest.approx(rate, rel=1e-6)
        per_second = row["tokens_per_second"]
        assert row["theoretical_flops_per_second"] == pytest.approx(per_token * per_second)
        assert row["executed_flops_per_second"] == pytest.approx(per_place * per_second * BATCH * T / tokens)
    assert tokens == 2 * T and total == ROWS * T
    seconds = [row["seconds"] for row in kinds["train"]]
    assert seconds == sorted(seconds) and 0 < seconds[-1] <= result["seconds"]

    scored = {"rigl": 1, "smet_rigl": 1, "mix": 1, "rigl_momentum": 2, "rigl_acc": 2}
    executed += len(due) * (scored[name] if name in scored else 0) * score_flops() * BATCH * T
    last = sum(active_elements(seen[-1][3], seen[-1][4], weight) for weight in SHAPES)
    places = LAYERS * sum(K * N for K, N in SHAPES.values())
    losses = [row["loss"] for row in kinds["train"]]
    expected = {
        "total_tokens": total,
        "epochs": 1.0,
        "steps": STEPS,
        "density": last / places,
        "active_parameters": last + dense_part,
        "total_parameters": places + dense_part,
        "mean_active_parameters": active / STEPS,
        "executed_flops": executed,
        "theoretical_flops": theoretical,
        "train_loss": losses[-1],
        "validation_loss": kinds["eval"][-1]["loss"],
        "loss_spike": max(0.0, *(after - before for before, after in itertools.pairwise(losses))),
    }
    assert {key: result[key] for key in expected} == pytest.approx(expected, rel=1e-9)
    assert result["method"] == (name if name in METHODS else "smet")
