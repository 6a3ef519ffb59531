"""The decoder against a plain dense one written here: per-layer loop, einsum attention, complex rotations."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sparsejax.models.functional import abstract, merge
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


def loss_and_gradients(build, params, topology):
    graphdef = abstract(build).graphdef
    return run(jax.value_and_grad(lambda p: cross_entropy(merge(graphdef, p, topology)(TOKENS), TOKENS)), params)


def run(function, argument):
    # Compiling is all the cost of so small a program; optimising it would only add to that.
    return jax.jit(function, compiler_options={"xla_backend_optimization_level": 0})(argument)


def assert_close(actual, expected):
    scale = np.abs(expected).max()
    assert scale > 0
    np.testing.assert_allclose(actual, expected, rtol=0, atol=1e-5 * scale)


def assert_matches_plain(model, weights, build, trees):
    params, topology = trees
    loss, gradients = loss_and_gradients(build, params, topology)
    dense = dense_tree(params, topology, weights, model)
    expected_loss, expected = run(jax.value_and_grad(lambda d: plain_loss(d, TOKENS, model)), dense)
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


def test_dense_model_equals_the_plain_one(make_model, make_weights, builder, initial):
    model = make_model()
    weights = make_weights(model, density=1.0)
    assert_matches_plain(model, weights, builder(model, weights), initial(model, weights))


def test_sparse_model_equals_the_plain_one_with_every_implementation(make_model, make_weights, builder, initial):
    model = make_model(tied_head=True)
    weights = make_weights(model, density=0.5, shards=2, rules=("mlp[.]up=1.0",))
    # In the order of KINDS; the dense mlp.up needs none.
    names = ("transient", "reference", "xla", "bcoo", "xla", "", "xla")
    build = builder(model, weights, implementations=dict(zip(KINDS, names, strict=True)))
    assert_matches_plain(model, weights, build, initial(model, weights))


@pytest.mark.slow
def test_unstructured_model_equals_the_plain_one(make_model, make_weights, builder, initial):
    model = make_model(kv_heads=4, rope_base=5e5, layers=1)
    weights = make_weights(model, density=0.5, block=(1, 1))
    assert_matches_plain(model, weights, builder(model, weights), initial(model, weights))


@pytest.fixture
def quarter(make_model, make_weights, builder, initial):
    """The tiny model at density 1/4: how to build it with changed fields, and its trees."""
    weights = make_weights(make_model(), density=0.25)
    return lambda **changes: builder(make_model(**changes), weights), initial(make_model(), weights)


def test_causality(quarter):
    build, (params, topology) = quarter
    changed = TOKENS.at[:, 5].set((TOKENS[:, 5] + 1) % 32)
    # One program for both: rows do not see each other.
    logits = run(merge(abstract(build()).graphdef, params, topology), jnp.concatenate([TOKENS, changed]))
    before, after = logits[:2], logits[2:]
    np.testing.assert_array_equal(before[:, :5], after[:, :5])
    assert np.all(np.any(before[:, 5:] != after[:, 5:], axis=-1))


def test_bfloat16_compute_keeps_float32_parameters_gradients_and_logits(quarter):
    build, trees = quarter
    loss, gradients = loss_and_gradients(build(compute_dtype="bfloat16"), *trees)
    assert {leaf.dtype for leaf in jax.tree.leaves((trees[0], gradients))} == {jnp.dtype("float32")}
    wide = cross_entropy(run(merge(abstract(build()).graphdef, *trees), TOKENS), TOKENS)
    np.testing.assert_allclose(loss, wide, rtol=2e-2)
    assert loss.dtype == jnp.float32 and loss != wide
    llama = abstract(build(compute_dtype="bfloat16"))
    model = merge(llama.graphdef, *trees)
    assert jax.eval_shape(model, TOKENS).dtype == jnp.float32
    hidden = jax.eval_shape(model.hidden_states, TOKENS)
    assert hidden.dtype == jnp.bfloat16 and hidden.shape == (2, 9, 16)


def test_logits_are_the_head_of_the_hidden_states(quarter):
    build, (params, topology) = quarter
    without_head = {name: tree for name, tree in params.items() if name != "head"}
    for tied, tree in ((False, params), (True, without_head)):
        llama = merge(abstract(build(tied_head=tied)).graphdef, tree, topology)
        logits, hidden = run(lambda tokens, llama=llama: (llama(tokens), llama.hidden_states(tokens)), TOKENS)
        assert logits.shape == (2, 9, 32) and logits.dtype == jnp.float32
        head = params["embed"]["embedding"].T if tied else params["head"]["kernel"]
        np.testing.assert_allclose(logits, hidden @ head, rtol=1e-5, atol=1e-5)
