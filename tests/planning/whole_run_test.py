"""What a check says of a run, against arithmetic of this test's own, for every kind of run; nothing is compiled.

The model: 2 layers of width 32, an MLP of 64, 2 heads of 16, byte vocabulary of 257, blocks of 8 x 8, 32 tokens a row.
Blocks as small as these are multiplied as dense matrices on every GPU, so executed FLOPs are those of the dense twin.
"""

import json

import pytest

from sparsejax.cli.main import main
from sparsejax.config import resolve
from sparsejax.hardware.chips import chip_named
from sparsejax.hardware.systems import parse_system
from sparsejax.planning import check_report
from sparsejax.planning.facts import Facts, facts_of
from sparsejax.planning.fit import checked
from sparsejax.topology.methods import METHODS
from tests.training.tiny import tiny_settings

LAYERS, WIDTH, MLP, VOCABULARY, LENGTH, ROWS, STEPS, EVERY = 2, 32, 64, 257, 32, 8, 1000, 10
KINDS = {"q": WIDTH * WIDTH, "k": WIDTH * WIDTH, "v": WIDTH * WIDTH, "o": WIDTH * WIDTH}
KINDS |= {"gate": WIDTH * MLP, "up": WIDTH * MLP, "down": WIDTH * MLP}
MASKABLE = sum(KINDS.values())
# FLOPs of a token: the head, and scores and mixing of one layer's attention.
HEAD, SQUARE = 2 * WIDTH * VOCABULARY, 4 * LENGTH * WIDTH
TOKENS = ROWS * LENGTH
REST = 2 * VOCABULARY * WIDTH + (2 * LAYERS + 1) * WIDTH  # embedding, head, norm scales
FACTS = Facts(steps=STEPS, vocab_size=VOCABULARY, start_id=256)
SHAPE = {
    "model_hidden": WIDTH,
    "model_mlp": MLP,
    "model_heads": 2,
    "model_kv_heads": 2,
    "model_head_dim": 16,
    "model_layers": LAYERS,
    "topology_block": (8, 8),
    "topology_density": 0.25,
    "topology_every": EVERY,
    "topology_stop_fraction": 1.0,
    "data_sequence_length": LENGTH,
    "train_batch_size": ROWS,
    "train_steps": STEPS,
    "train_loss_chunk": 0,
}
MEMORIES = {"gradient_sum": 2, "momentum": 1, "momentum_neuron": 1}
SCORED = ("gradient", "mix", *MEMORIES)


def run_of(tmp_path, method, **changes):
    """A run of a named method on the model above; ``changes`` are fields as ``tiny_settings`` takes them."""
    settings = tiny_settings(tmp_path, **SHAPE)
    settings["topology"] |= dict(METHODS[method].topology) | {"method": method}
    settings["optim"] |= METHODS[method].optim
    if method in ("dense", "galore"):
        settings["topology"]["density"] = 1.0
    if method == "sr_ste":
        settings["topology"] |= {"density": 0.5, "nm": (2, 4)}
    settings["mesh"]["fsdp"] = 0
    for name, value in changes.items():
        section, _, key = name.partition("_")
        settings[section][key] = value
    return resolve(settings)


def active_blocks(density: float, cells: int) -> int:
    return max(1, round(density * cells))


def densities(topology) -> list[float]:
    """Density of every step: constant, or cubic or linear from 0.999 in steps of a rewiring."""
    if topology.density_schedule == "constant":
        return [topology.density] * STEPS
    last = STEPS - 1 if topology.stop_fraction == 1.0 else int(topology.stop_fraction * STEPS)
    last = last // EVERY * EVERY
    low, high, found = topology.density, topology.density_start, []
    for step in range(STEPS):
        x = min(step // EVERY * EVERY / last, 1.0)
        found.append(low + (high - low) * ((1 - x) ** 3 if topology.density_schedule == "cubic" else 1 - x))
    return found


def mean_active(topology) -> float:
    """Active weights of a layer, averaged over the steps."""
    of_step = {d: sum(64 * active_blocks(d, size // 64) for size in KINDS.values()) for d in set(densities(topology))}
    return sum(of_step[d] for d in densities(topology)) / STEPS


def passes(topology) -> int:
    """How often places are scored: the last steps before each rewiring."""
    if topology.grow not in SCORED and topology.drop != "taylor":
        return 0
    last = int(topology.stop_fraction * STEPS)
    return min(last, STEPS - 1) // EVERY * (topology.score_steps if topology.grow in MEMORIES else 1)


@pytest.mark.parametrize(("hardware", "dtype"), [("h100:1", "float32"), ("h100:8", "bfloat16")])
@pytest.mark.parametrize("method", [name for name in METHODS if name not in ("monarch", "galore", "sr_ste")])
def test_flops_times_and_hours(tmp_path, method, dtype, hardware):
    run = run_of(tmp_path, method, model_compute_dtype=dtype)
    topology = run.topology
    fit = checked(run, FACTS, parse_system(hardware), programs=())
    linear = 2 * LAYERS * (MASKABLE if method == "dense" else mean_active(topology))
    assert fit.theoretical == pytest.approx(TOKENS * 3 * (linear + LAYERS * SQUARE + HEAD), abs=1)
    dense = 2 * LAYERS * MASKABLE
    step = 3 * (dense + LAYERS * SQUARE + HEAD)
    # A pass that scores: forward and once more (without the last product, which no gradient needs), the gradient
    # of inputs, all places; attention forward, once more and twice backward; the head forward and its inputs'.
    score = 4 * (dense + LAYERS * SQUARE) - LAYERS * 2 * KINDS["down"] + 2 * HEAD
    executed = TOKENS * (step + passes(topology) / STEPS * score)
    assert fit.executed == pytest.approx(executed, abs=1)
    if topology.density_schedule != "constant":
        assert fit.density == pytest.approx(sum(densities(topology)) / STEPS, rel=0.01)
    record = check_report.record(fit, None, parse_system(hardware))["run"]
    assert record["executed_flops"] == fit.executed and record["theoretical_flops"] == fit.theoretical
    chip = chip_named(hardware.partition(":")[0])
    devices = int(hardware.partition(":")[2])
    saved = TOKENS * 3 * LAYERS * SQUARE / 2 if fit.recipe.attention.name in ("splash", "cudnn") else 0
    assert fit.times.compute == pytest.approx((executed - saved) / devices / chip.peak_flops, rel=0.005)
    rows = check_report._time_rows(fit)
    assert rows["tokens/s at the floor"] == pytest.approx(TOKENS / fit.times.floor)
    assert rows["hours expected, 1,000 steps"] == pytest.approx(STEPS * fit.times.expected / 3600)


@pytest.mark.parametrize(("replicas", "moments"), [(1, "float32"), (2, "bfloat16"), (2.5, "float32")])
@pytest.mark.parametrize("method", ["dense", "static", "set", "rigl", "rigl_momentum", "rigl_acc", "smet", "gmp"])
def test_bytes_by_kind(tmp_path, method, replicas, moments):
    """``replicas`` of 2.5: two that train apart, each with moments of its own."""
    changes = {"optim_moment_dtype": moments, "mesh_replica": int(replicas), "mesh_fsdp": 1}
    if replicas == 2.5:
        if METHODS[method].topology["grow"] in MEMORIES:
            return
        changes["outer_every"] = EVERY
    run = run_of(tmp_path, method, **changes)
    state = checked(run, FACTS, parse_system(f"h100:{int(replicas)}"), programs=()).state
    topology = run.topology
    density = 1.0 if method == "dense" else densities(topology)[0]
    count = {kind: active_blocks(density, size // 64) for kind, size in KINDS.items()}
    blocks = LAYERS * sum(count.values())
    values = 4 * (LAYERS * MASKABLE if method == "dense" else 64 * blocks)
    assert state["values"] == values
    assert state["moments"] == 2 * values * (2 if moments == "bfloat16" else 4) // 4
    assert state["other parameters"] == 4 * REST
    if method == "dense":
        assert state.get("ages", 0) == 0
        return
    assert state["ages"] == 4 * blocks
    # Coordinates and the order by rows; where each block column and row begins; a bit a place, and floats of a memory.
    shapes = {"down": (MLP, WIDTH), "gate": (WIDTH, MLP), "up": (WIDTH, MLP)}
    lines = sum(sum(side // 8 + 1 for side in shapes.get(kind, (WIDTH, WIDTH))) for kind in KINDS)
    index = 4 * (3 * blocks + LAYERS * lines)
    moving = topology.drop != "none"
    places = LAYERS * MASKABLE // 64
    kept = (places // 8 if moving else 0) + 4 * places * MEMORIES.get(topology.grow, 0)
    assert state["indices"] == index + kept


OWN_TEXT = {"data_validation_path": "", "data_validation_fraction": 0.1, "data_unique_tokens": 0}


@pytest.mark.parametrize("source", ["tokens", "jsonl"])
def test_the_vocabulary_is_that_of_the_source(tmp_path, capsys, source):
    settings = tiny_settings(tmp_path, **SHAPE, **OWN_TEXT)
    config = tmp_path / "tiny.py"
    config.write_text(f"import ml_collections\ndef get_config():\n return ml_collections.ConfigDict({settings!r})\n")
    (tmp_path / "text.jsonl").write_text("".join(f'{{"text": "document {i}, {7919 * i}"}}\n' for i in range(100)))
    wanted, tokenizer = {"tokens": (VOCABULARY, "byte"), "jsonl": (8192, "bpe")}[source]
    if source == "tokens":
        own = ["--config.data.source=jsonl", f"--config.data.path={tmp_path / 'text.jsonl'}"]
        assert main(["tokenize", f"--config={config}", *own, f"--out={tmp_path / 'set'}"]) == 0
    record = tmp_path / "check.json"
    flags = ["check", f"--config={config}", f"--config.data.source={source}", f"--config.data.path={tmp_path / 'set'}"]
    flags += ["--hardware=h100:1", "--twin=none", f"--json={record}", "--overwrite"]
    assert main([*flags, f"--config.data.tokenizer={tokenizer}"]) == 0
    found = json.loads(record.read_text())["run"]["state_bytes"]["other parameters"]
    assert found == 4 * (2 * wanted * WIDTH + (2 * LAYERS + 1) * WIDTH)
    if source == "tokens":
        assert main([*flags, "--config.data.tokenizer=bpe"]) == 2
        assert "was made with data.tokenizer=byte" in capsys.readouterr().err


def test_a_token_set_that_is_not_here_is_said(tmp_path):
    nowhere = {"data_source": "tokens", "data_path": str(tmp_path / "nowhere"), "data_tokenizer": "bpe"}
    facts = facts_of(resolve(tiny_settings(tmp_path, **OWN_TEXT, **nowhere)), steps=1, vocab_size=0)
    assert facts.notes == (f"vocabulary: data.vocab_size={facts.vocab_size}, for the token set is not here",)
