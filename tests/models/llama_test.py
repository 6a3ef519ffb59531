"""The decoder against a plain dense one written here: per-layer loop, einsum attention, complex rotations."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sparsejax.models.functional import abstract, initial_trees, merge
from sparsejax.topology.blocks import BlockIndex, BlockSparse, FlatIndex, gather_blocks, to_dense

KINDS = ("attention.q", "attention.k", "attention.v", "attention.o", "mlp.gate", "mlp.up", "mlp.down")
TOKENS = jax.random.randint(jax.random.key(9), (2, 9), 0, 32)


def plain_norm(x, scale, eps):
    return scale * x / jnp.sqrt((x**2).mean(-1, keepdims=True) + eps)


def plain_rotary(x, base):
    half = x.shape[-1] // 2
    angle = jnp.arange(x.shape[1])[:, None] * base ** (-jnp.arange(half) / half)
    turned = (x[..., :half] + 1j * x[..., half:]) * jnp.exp(1j * angle)[:, None, :]
    return jnp.concatenate([turned.real, turned.imag], -1)


def plain_layer(x, w, model):
    batch, length, _ = x.shape
    h = plain_norm(x, w["attention_norm"], model.rms_eps)
    q = plain_rotary((h @ w["attention.q"]).reshape(batch, length, model.heads, -1), model.rope_base)
    k = plain_rotary((h @ w["attention.k"]).reshape(batch, length, model.kv_heads, -1), model.rope_base)
    v = (h @ w["attention.v"]).reshape(batch, length, model.kv_heads, -1)
    k, v = (jnp.repeat(a, model.heads // model.kv_heads, axis=2) for a in (k, v))
    scores = jnp.einsum("bqnh,bknh->bnqk", q, k) / jnp.sqrt(q.shape[-1])
    past = jnp.tril(jnp.ones((length, length), bool))
    weights = jax.nn.softmax(jnp.where(past, scores, -jnp.inf), axis=-1)
    x = x + jnp.einsum("bnqk,bknh->bqnh", weights, v).reshape(batch, length, -1) @ w["attention.o"]
    h = plain_norm(x, w["mlp_norm"], model.rms_eps)
    gate = h @ w["mlp.gate"]
    return x + (gate / (1 + jnp.exp(-gate)) * (h @ w["mlp.up"])) @ w["mlp.down"]


def plain_loss(dense, tokens, model):
    x = dense["embed"][tokens]
    for layer in dense["layers"]:
        x = plain_layer(x, layer, model)
    head = dense["embed"].T if model.tied_head else dense["head"]
    return cross_entropy(plain_norm(x, dense["norm"], model.rms_eps) @ head, tokens)


def cross_entropy(logits, tokens):
    log_p = jax.nn.log_softmax(logits[:, :-1])
    return -jnp.take_along_axis(log_p, tokens[:, 1:, None], -1).mean()


def index_of(tree, weight, layer):
    arrays = {name: array[layer] for name, array in tree.items()}
    return FlatIndex(**arrays) if weight.grid.unstructured else BlockIndex(**arrays)


def dense_tree(params, topology, weights, model):
    def matrix(kind, layer):
        room, name = kind.split(".")
        leaf = params["layers"][room][name]
        if "kernel" in leaf:
            return leaf["kernel"][layer]
        index = index_of(topology["layers"][room][name], weights[kind], layer)
        return to_dense(BlockSparse(values=leaf["values"][layer], index=index, grid=weights[kind].grid))

    norms = ("attention_norm", "mlp_norm")
    layers = [
        {kind: matrix(kind, i) for kind in KINDS} | {name: params["layers"][name]["scale"][i] for name in norms}
        for i in range(model.layers)
    ]
    tree = {"embed": params["embed"]["embedding"], "norm": params["norm"]["scale"], "layers": layers}
    return tree if model.tied_head else tree | {"head": params["head"]["kernel"]}


def loss_and_gradients(build):
    graphdef = abstract(build).graphdef
    params, topology = jax.jit(lambda: initial_trees(build))()
    loss = jax.jit(jax.value_and_grad(lambda p: cross_entropy(merge(graphdef, p, topology)(TOKENS), TOKENS)))
    return params, topology, *loss(params)


def assert_close(actual, expected):
    scale = np.abs(expected).max()
    assert scale > 0
    np.testing.assert_allclose(actual, expected, rtol=0, atol=1e-5 * scale)


def assert_matches_plain(model, weights, build):
    params, topology, loss, gradients = loss_and_gradients(build)
    dense = dense_tree(params, topology, weights, model)
    expected_loss, expected = jax.jit(jax.value_and_grad(lambda d: plain_loss(d, TOKENS, model)))(dense)
    np.testing.assert_allclose(loss, expected_loss, rtol=1e-5)
    assert_close(gradients["embed"]["embedding"], expected["embed"])
    assert_close(gradients["norm"]["scale"], expected["norm"])
    for name in ("attention_norm", "mlp_norm"):
        assert_close(gradients["layers"][name]["scale"], jnp.stack([layer[name] for layer in expected["layers"]]))
    if not model.tied_head:
        assert_close(gradients["head"]["kernel"], expected["head"])
    for kind in KINDS:
        room, name = kind.split(".")
        for i, layer in enumerate(expected["layers"]):
            leaf = gradients["layers"][room][name]
            if weights[kind].dense:
                assert_close(leaf["kernel"][i], layer[kind])
            else:
                index = index_of(topology["layers"][room][name], weights[kind], i)
                assert_close(leaf["values"][i], gather_blocks(layer[kind], index, weights[kind].grid))


def test_dense_model_equals_the_plain_one(make_model, make_weights, builder):
    model = make_model()
    weights = make_weights(model, density=1.0)
    assert_matches_plain(model, weights, builder(model, weights))


def test_sparse_model_equals_the_plain_one_with_every_implementation(make_model, make_weights, builder):
    model = make_model(tied_head=True)
    weights = make_weights(model, density=0.5, shards=2, rules=("mlp[.]up=1.0",))
    names = dict(zip(KINDS, ("transient", "reference", "xla", "bcoo", "xla", "unused by a dense weight", "xla"), strict=True))
    assert_matches_plain(model, weights, builder(model, weights, implementations=names))


def test_unstructured_model_equals_the_plain_one(make_model, make_weights, builder):
    model = make_model(kv_heads=4, rope_base=5e5)
    weights = make_weights(model, density=0.5, block=(1, 1))
    assert_matches_plain(model, weights, builder(model, weights))


def test_causality(make_model, make_weights, builder):
    model = make_model()
    llama = jax.jit(builder(model, make_weights(model, density=0.5)))()
    changed = TOKENS.at[:, 5].set((TOKENS[:, 5] + 1) % 32)
    before, after = llama(TOKENS), llama(changed)
    np.testing.assert_array_equal(before[:, :5], after[:, :5])
    assert np.all(np.any(before[:, 5:] != after[:, 5:], axis=-1))


@pytest.mark.parametrize("remat", ["full", "dots"])
def test_remat_changes_nothing_but_the_work(make_model, make_weights, builder, remat):
    model = make_model()
    weights = make_weights(model, density=0.5)
    _, _, loss, gradients = loss_and_gradients(builder(model, weights))
    _, _, again, same = loss_and_gradients(builder(dataclasses.replace(model, remat=remat), weights))
    np.testing.assert_allclose(again, loss, rtol=1e-6)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6), same, gradients)


def test_bfloat16_compute_keeps_float32_parameters_gradients_and_logits(make_model, make_weights, builder):
    model = make_model(compute_dtype="bfloat16")
    weights = make_weights(model, density=0.5)
    build = builder(model, weights)
    params, _, loss, gradients = loss_and_gradients(build)
    _, _, wide, _ = loss_and_gradients(builder(make_model(), weights))
    assert {leaf.dtype for leaf in jax.tree.leaves((params, gradients))} == {jnp.dtype("float32")}
    assert loss.dtype == jnp.float32
    np.testing.assert_allclose(loss, wide, rtol=2e-2)
    llama = abstract(build)
    out = jax.eval_shape(lambda p, t: merge(llama.graphdef, p, t).hidden_states(TOKENS), llama.params, llama.topology)
    assert out.dtype == jnp.bfloat16 and out.shape == (2, 9, 16)


def test_logits_are_the_head_of_the_hidden_states(make_model, make_weights, builder):
    for tied in (False, True):
        model = make_model(layers=1, tied_head=tied)
        llama = builder(model, make_weights(model))()
        logits, hidden = llama(TOKENS), llama.hidden_states(TOKENS)
        assert logits.shape == (2, 9, 32) and logits.dtype == jnp.float32
        np.testing.assert_allclose(logits, hidden @ llama.head_kernel, rtol=1e-5, atol=1e-5)
        assert hasattr(llama, "head") == (not tied)
