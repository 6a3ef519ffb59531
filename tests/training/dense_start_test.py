"""Runs that start from a dense checkpoint: what they keep of it, what they refuse, and how they continue."""

import dataclasses
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sparsejax.config import ConfigError
from sparsejax.data.pipeline import open_corpus
from sparsejax.data.tokenizer import ByteTokenizer
from sparsejax.models import functional
from sparsejax.scaling.runs import read
from sparsejax.topology.blocks import BlockSparse, to_dense
from sparsejax.training.calibration import input_squares
from sparsejax.training.checkpoint import state_digest
from sparsejax.training.dense_start import DenseStart, digest_of, open_start, tokenizer_difference
from sparsejax.training.loop import train, train_batches
from sparsejax.training.metrics import read_rows
from sparsejax.training.recipe import index_of, values_of
from sparsejax.training.workdir import write_manifest
from tests.training.dense_weights import Checkpoint, dense_params
from tests.training.meshes import mesh_recipe
from tests.training.tiny import quiet_console, tiny_recipe, tiny_run

START = {"init_from": "dense"}
# Columns of so few places have no room to rewire.
BALANCED = {"topology_balance": "column", "topology_drop": "none", "topology_grow": "none"}


def started(directory, recipe, notices=None):
    """The first state of a recipe from its dense twin's weights, and those weights."""
    weights = dense_params(recipe)
    corpus = open_corpus(recipe.run.data, print)
    batches = train_batches(recipe.run, corpus, (), print)
    said = [] if notices is None else notices
    return DenseStart(weights, digest_of(weights)).first_state(recipe, batches, said.append), weights


def test_blocks_that_stay_hold_their_dense_weights_and_are_the_largest(tmp_path):
    recipe = tiny_recipe(tmp_path, **START, topology_density=0.25, topology_rules=("mlp.up=1.0",), topology_shards=2)
    notices = []
    state, weights = started(tmp_path, recipe, notices)
    assert notices == ["starting from the dense weights in dense; the blocks that stay are chosen by magnitude"]
    assert jax.tree.structure(state) == jax.tree.structure(recipe.abstract)
    assert jax.tree.map(lambda leaf: (leaf.shape, leaf.dtype), state) == jax.tree.map(
        lambda leaf: (leaf.shape, leaf.dtype), recipe.abstract
    )
    layers = weights["layers"]
    assert set(recipe.sparse) == set(recipe.weights) - {"mlp.up"}
    for name, weight in recipe.sparse.items():
        room, kind = name.split(".")
        grid, index = weight.grid, jax.device_get(index_of(state.topology, name))
        for layer, dense_KN in enumerate(layers[room][kind]["kernel"]):
            blocks = dense_KN.reshape(grid.rows, 4, grid.columns, 4).swapaxes(1, 2)
            rows, cols = index.rows[layer], index.cols[layer]
            np.testing.assert_array_equal(values_of(state.params, name)[layer], blocks[rows, cols])
            sizes, active = np.abs(blocks).sum((2, 3)), np.zeros((grid.rows, grid.columns), bool)
            active[rows, cols] = True
            axis = 0 if grid.shard_axis == "rows" else 1
            for share, chosen in zip(np.split(sizes, 2, axis), np.split(active, 2, axis), strict=True):
                assert chosen.sum() == weight.count // 2
                assert share[chosen].min() > share[~chosen].max()
    # All else is as it was, and the run has made no step.
    np.testing.assert_array_equal(state.params["layers"]["mlp"]["up"]["kernel"], layers["mlp"]["up"]["kernel"])
    np.testing.assert_array_equal(state.params["layers"]["mlp_norm"]["scale"], layers["mlp_norm"]["scale"])
    for module in ("embed", "norm", "head"):
        jax.tree.map(np.testing.assert_array_equal, state.params[module], weights[module])
    assert state.step == state.skipped == 0
    assert not any(leaf.any() for leaf in jax.tree.leaves(state.opt_state))


@pytest.mark.slow
@pytest.mark.parametrize(
    "changes",
    [
        {"topology_density": 1.0, "topology_method": "dense"},
        {"topology_storage": "dense_master", "topology_flow": "structure", "topology_method": "sr_ste"},
    ],
)
def test_a_storage_of_all_weights_takes_them_all(tmp_path, changes):
    recipe = tiny_recipe(tmp_path, **START, topology_drop="none", topology_grow="none", **changes)
    state, weights = started(tmp_path, recipe)
    jax.tree.map(np.testing.assert_array_equal, state.params, weights)
    if changes["topology_method"] == "sr_ste":
        assert state.topology["layers"]["mlp"]["up"]["used"].tolist() == [4, 4]


def test_inputs_are_measured_where_they_are_multiplied(tmp_path):
    recipe = tiny_recipe(tmp_path).dense
    params = dense_params(recipe)
    model = functional.merge(recipe.graphdef, params, {})
    tokens_BT = jnp.asarray(np.random.default_rng(0).integers(0, 256, (2, 5)))
    counted = np.array([[True, False, True, True, False], [True, True, True, True, False]])
    found = input_squares(model, tokens_BT, jnp.asarray(counted))

    def squares(x):
        return (np.asarray(x, np.float64)[counted] ** 2).sum(0)

    x = model.embedded(tokens_BT)
    first = jax.tree.map(lambda leaf: leaf[0], params["layers"])
    mean = np.mean(np.asarray(x, np.float64) ** 2, -1, keepdims=True)
    normed = np.asarray(x) / np.sqrt(mean + recipe.run.model.rms_eps) * first["attention_norm"]["scale"]
    for kind in ("q", "k", "v"):
        np.testing.assert_allclose(found[f"attention.{kind}"][0], squares(normed), rtol=1e-5)
    assert {name: norms.shape for name, norms in found.items()} == {
        name: (2, weight.grid.shape[0]) for name, weight in recipe.weights.items()
    }
    # The stream behind attention is what a first layer without an MLP gives.
    one = jax.tree.map(lambda leaf: leaf[:1], params["layers"])
    down = {"down": jax.tree.map(np.zeros_like, one["mlp"]["down"])}
    before = functional.merge(recipe.graphdef, params | {"layers": one | {"mlp": one["mlp"] | down}}, {})
    before.norm = lambda x: x
    stream = np.asarray(before.hidden_states(tokens_BT), np.float64)
    read = stream / np.sqrt((stream**2).mean(-1, keepdims=True) + 1e-6) * first["mlp_norm"]["scale"]
    np.testing.assert_allclose(found["mlp.gate"][0], squares(read), rtol=1e-4)
    gate, up = (read @ first["mlp"][kind]["kernel"].astype(np.float64) for kind in ("gate", "up"))
    np.testing.assert_allclose(found["mlp.down"][0], squares(gate / (1 + np.exp(-gate)) * up), rtol=1e-4)
    heads = stream - np.asarray(x)
    attended = np.linalg.solve(first["attention"]["o"]["kernel"].T.astype(np.float64), heads.reshape(-1, 16).T).T
    np.testing.assert_allclose(found["attention.o"][0], squares(attended.reshape(2, 5, 16)), rtol=1e-3)


@pytest.mark.slow
def test_the_start_of_an_activation_run_weighs_its_inputs(tmp_path):
    """A calibration text of one batch: the blocks are those of NumPy's sums of |w| times the norm of the inputs."""
    recipe = tiny_recipe(tmp_path, **START, init_criterion="activation", init_calibration_tokens=64)
    state, weights = started(tmp_path, recipe)
    dense = recipe.dense
    batches = train_batches(recipe.run, open_corpus(recipe.run.data, print), (), print)
    target_BT = jnp.asarray(batches.batch(0))
    inputs_BT = jnp.pad(target_BT[:, :-1], ((0, 0), (1, 0)), constant_values=recipe.start_id)
    model = functional.merge(dense.graphdef, weights, {})
    norms = jax.tree.map(np.sqrt, input_squares(model, inputs_BT, target_BT != -1))
    for name, weight in recipe.sparse.items():
        room, kind = name.split(".")
        sums = np.abs(weights["layers"][room][kind]["kernel"][1]) * norms[name][1][:, None]
        sums = sums.reshape(weight.grid.rows, 4, weight.grid.columns, 4).sum((1, 3))
        index = jax.tree.map(lambda leaf: leaf[1], index_of(state.topology, name))
        kept = np.zeros(sums.shape, bool)
        kept[index.rows, index.cols] = True
        assert kept.sum() == weight.count and sums[kept].min() > sums[~kept].max()


@pytest.mark.slow
@pytest.mark.parametrize("criterion", ["magnitude", "activation"])
@pytest.mark.parametrize("changes", [{}, {"topology_block": (1, 1)}, BALANCED])
def test_a_mesh_starts_from_the_same_weights(tmp_path, criterion, changes):
    states = []
    # Blocks of four rows are not cut over eight devices, and balanced columns have no free slots to share out evenly.
    meshes = [(1, 1, 1), (2, 2, 2)] if changes is BALANCED else [(1, 1, 1), (2, 2, 2), (1, 8, 1)]
    for shape in meshes:
        recipe = mesh_recipe(tmp_path, shape, **START, init_criterion=criterion, **changes)
        state, _ = started(tmp_path, recipe)
        if recipe.mesh is not None:
            assert {leaf.sharding.mesh for leaf in jax.tree.leaves(state)} == {recipe.mesh}
        dense = {}
        for name, weight in recipe.sparse.items():
            index, values = index_of(state.topology, name), values_of(state.params, name)
            dense[name] = [
                np.asarray(
                    to_dense(
                        BlockSparse(
                            np.asarray(values[layer]),
                            jax.tree.map(lambda leaf, layer=layer: np.asarray(leaf[layer]), index),
                            weight.grid,
                        )
                    )
                )
                for layer in range(2)
            ]
        states.append(dense)
    for other in states[1:]:
        jax.tree.map(np.testing.assert_array_equal, other, states[0])


@pytest.mark.slow
def test_a_distilled_run_says_what_it_does_and_continues_bit_for_bit(tmp_path):
    changes = START | {"init_distill_weight": 0.5, "train_steps": 4, "train_checkpoint_every": 2, "topology_every": 2}
    weights = dense_params(tiny_recipe(tmp_path))
    run, console = tiny_run(tmp_path, **changes), quiet_console()

    def go(workdir, opens):
        return train(run, workdir, extend=False, console=console, opens=opens)

    whole = go(tmp_path / "whole", lambda name, notice: Checkpoint(weights))
    said = console.file.getvalue()
    assert "starting from the dense weights in dense" in said and "learning from the dense weights in dense" in said
    rows = read_rows(tmp_path / "whole" / "metrics.jsonl")
    assert rows[0]["kind"] == "eval" and rows[0]["step"] == 0
    assert all(row["divergence"] > 0 for row in rows if row["kind"] == "train")
    assert read(tmp_path / "whole" / "result.json").started_from == digest_of(weights)
    shutil.copytree(tmp_path / "whole", tmp_path / "again")
    shutil.rmtree(tmp_path / "again" / "checkpoints" / "4")
    again = go(tmp_path / "again", lambda name, notice: Checkpoint(weights))
    assert int(state_digest(again.state)) == int(state_digest(whole.state))
    other = jax.tree.map(lambda leaf: leaf + 1, weights)
    with pytest.raises(ConfigError, match=r"^init\.from=dense: its weights \(\w{12}\) are not those that --workdir="):
        go(tmp_path / "again", lambda name, notice: Checkpoint(other))


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    """A recipe with a start, and its corpus."""
    recipe = tiny_recipe(tmp_path_factory.mktemp("tiny"), **START)
    return recipe, open_corpus(recipe.run.data, print)


def opened(tiny, workdir, checkpoint, notices=None, **changes):
    """What ``open_start`` gives for a checkpoint; ``changes`` are those of ``init``."""
    (recipe, corpus), said = tiny, [] if notices is None else notices
    run = dataclasses.replace(recipe.run, init=dataclasses.replace(recipe.run.init, **changes))
    changed = dataclasses.replace(recipe, run=run) if changes else recipe
    return open_start(changed, corpus, workdir, lambda name, notice: checkpoint, said.append)


def test_what_does_not_fit_is_one_line(tiny, tmp_path):
    weights = dense_params(tiny[0])

    def refused(checkpoint, **changes):
        with pytest.raises(ConfigError) as caught:
            opened(tiny, tmp_path, checkpoint, **changes)
        assert "\n" not in str(caught.value)
        return str(caught.value)

    line = refused(Checkpoint(weights, wrong=("model.layers=2: the checkpoint has 3",)))
    assert line.startswith("init.from=dense: model.layers=2: the checkpoint has 3; set them alike, or leave all sizes")
    wide = weights | {"head": {"kernel": np.zeros((16, 300), np.float32)}}
    assert refused(Checkpoint(wide)) == "init.from=dense: head/kernel has shape (16, 300), this run needs (16, 257)"
    missing = {name: module for name, module in weights.items() if name != "head"}
    assert refused(Checkpoint(missing)) == "init.from=dense: lacks head/kernel; it is another kind of model"
    assert "also has bias" in refused(Checkpoint(weights | {"bias": np.zeros(1)}))
    broken = weights | {"norm": {"scale": np.full(16, np.nan, np.float32)}}
    assert "norm/scale holds numbers that are not finite" in refused(Checkpoint(broken))
    other = ByteTokenizer()
    other.end_id, other.digest = 255, "0" * 64
    assert refused(Checkpoint(weights, tokenizer=other)).startswith(
        "init.from=dense: its tokenizer is not that of the data (end_id is 255, the data's 256); name it with"
    )
    assert opened(tiny, tmp_path, Checkpoint(weights, tokenizer=other), same_tokenizer=False) is not None
    assert "has 300 tokens and no tokenizer, the data's has 257" in refused(
        Checkpoint(weights, tokenizer=None, vocab_size=300)
    )
    notices = []
    assert opened(tiny, tmp_path, Checkpoint(weights, tokenizer=None), notices) is not None
    assert notices == ["dense has no tokenizer to compare: its ids are taken for those of the data"]
    with pytest.raises(ValueError, match="needs something that opens checkpoints"):
        open_start(*tiny, tmp_path, None, print)


def test_tokenizers_are_compared_by_what_they_do(tiny):
    _, corpus = tiny

    class Other(ByteTokenizer):
        digest = "0" * 64

    assert tokenizer_difference(Other(), corpus) == ""

    class Shouts(Other):
        def decode(self, ids):
            return super().decode(ids).upper()

    assert tokenizer_difference(Shouts(), corpus) == "token 97 is 'A', the data's 'a'"

    class Backwards(Other):
        def encode(self, text):
            return super().encode(text)[::-1]

    assert tokenizer_difference(Backwards(), corpus) == "the same text gets other ids"


def test_a_start_is_read_only_while_it_is_needed(tiny, tmp_path):
    recipe, weights = tiny[0], dense_params(tiny[0])
    assert opened(tiny, tmp_path, Checkpoint(weights), from_="") is None
    first = opened(tiny, tmp_path, Checkpoint(weights))
    (tmp_path / "checkpoints" / "4").mkdir(parents=True)
    assert opened(tiny, tmp_path, Checkpoint(weights)) is None
    write_manifest(tmp_path, recipe.run, 12, "data", "tokens", first.digest)
    assert opened(tiny, tmp_path, Checkpoint(weights), distill_weight=0.5).digest == first.digest
    changed = weights | {"norm": {"scale": weights["norm"]["scale"] + 1e-6}}
    with pytest.raises(ConfigError, match=r"are not those that --workdir=.* started from"):
        opened(tiny, tmp_path, Checkpoint(changed), distill_weight=0.5)
