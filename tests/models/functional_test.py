from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sparsejax.models.functional import abstract, initial_trees, merge


def paths(tree):
    return {jax.tree_util.keystr(path, simple=True, separator="/"): x for path, x in jax.tree.leaves_with_path(tree)}


def test_names_shapes_and_dtypes_of_the_trees(make_model, make_weights, builder):
    model = make_model()
    weights = make_weights(model, density=0.25, rules=("mlp[.]down=1.0",))
    llama = abstract(builder(model, weights))
    assert {name: leaf.shape for name, leaf in paths(llama.params).items()} == {
        "embed/embedding": (32, 16),
        "head/kernel": (16, 32),
        "norm/scale": (16,),
        "layers/attention_norm/scale": (2, 16),
        "layers/mlp_norm/scale": (2, 16),
        "layers/attention/q/values": (2, 8, 4, 4),
        "layers/attention/k/values": (2, 4, 4, 4),
        "layers/attention/v/values": (2, 4, 4, 4),
        "layers/attention/o/values": (2, 8, 4, 4),
        "layers/mlp/gate/values": (2, 6, 4, 4),
        "layers/mlp/up/values": (2, 6, 4, 4),
        "layers/mlp/down/kernel": (2, 24, 16),
    }
    topology = paths(llama.topology)
    sparse = {"attention/q", "attention/k", "attention/v", "attention/o", "mlp/gate", "mlp/up"}
    fields = ("rows", "cols", "column_pointers", "row_pointers", "row_order")
    assert set(topology) == {f"layers/{kind}/{field}" for kind in sparse for field in fields}
    assert topology["layers/attention/q/rows"].shape == (2, 8)
    assert {leaf.dtype for leaf in topology.values()} == {jnp.dtype("int32")}
    assert {leaf.dtype for leaf in jax.tree.leaves(llama.params)} == {jnp.dtype("float32")}


def test_abstract_describes_the_real_trees(make_model, make_weights, builder):
    model = make_model()
    build = builder(model, make_weights(model, density=0.25))
    llama = abstract(build)
    real = jax.jit(partial(initial_trees, build))()
    wanted = jax.tree.map(lambda x: (x.shape, x.dtype), (llama.params, llama.topology))
    assert jax.tree.map(lambda x: (x.shape, x.dtype), real) == wanted
    assert hash(llama.graphdef) == hash(abstract(build).graphdef)


def test_equal_seeds_equal_model_and_each_seed_moves_its_own_part(make_model, make_weights, builder):
    model = make_model()
    weights = make_weights(model, density=0.25)

    def trees(**seeds):
        return jax.jit(partial(initial_trees, builder(model, weights, **seeds)))()

    params, topology = trees()
    jax.tree.map(np.testing.assert_array_equal, trees(), (params, topology))
    other_params, same_topology = trees(init_seed=7)
    jax.tree.map(np.testing.assert_array_equal, same_topology, topology)
    assert np.any(other_params["layers"]["mlp"]["up"]["values"] != params["layers"]["mlp"]["up"]["values"])
    same_dense_part, other_topology = trees(topology_seed=7)
    np.testing.assert_array_equal(same_dense_part["embed"]["embedding"], params["embed"]["embedding"])
    assert np.any(other_topology["layers"]["mlp"]["up"]["rows"] != topology["layers"]["mlp"]["up"]["rows"])


def test_layers_and_kinds_differ_in_values_and_topology(make_model, make_weights, builder):
    model = make_model()
    weights = make_weights(model, density=0.25)
    params, topology = jax.jit(partial(initial_trees, builder(model, weights)))()
    gate, up = topology["layers"]["mlp"]["gate"], topology["layers"]["mlp"]["up"]
    places = [tuple(np.asarray(w["rows"][i] * 6 + w["cols"][i])) for w in (gate, up) for i in range(2)]
    assert len(set(places)) == 4
    values = [np.asarray(params["layers"]["mlp"][kind]["values"][i]) for kind in ("gate", "up") for i in range(2)]
    assert len({value.tobytes() for value in values}) == 4


def test_one_layer_is_the_first_of_two(make_model, make_weights, builder):
    # Keys depend on the layer's number alone, so depth does not move the layers below.
    weights = make_weights(make_model(), density=0.25)
    two = jax.jit(partial(initial_trees, builder(make_model(), weights)))()
    one = jax.jit(partial(initial_trees, builder(make_model(layers=1), weights)))()
    first = jax.tree.map(lambda x: x[:1], (two[0]["layers"], two[1]["layers"]))
    jax.tree.map(np.testing.assert_array_equal, first, (one[0]["layers"], one[1]["layers"]))


def test_density_aware_values_are_wider(make_model, make_weights, builder):
    weights = make_weights(make_model(), density=0.25)

    def values(init):
        params, _ = jax.jit(partial(initial_trees, builder(make_model(init=init), weights)))()
        return params["layers"]["mlp"]["up"]["values"], params["embed"]["embedding"]

    normal, aware = values("normal"), values("density_aware")
    np.testing.assert_allclose(aware[0], 2 * normal[0], rtol=1e-6)
    np.testing.assert_array_equal(aware[1], normal[1])


def test_depth_does_not_grow_the_program(make_model, make_weights, builder):
    def lines(layers):
        model = make_model(layers=layers)
        llama = abstract(builder(model, make_weights(model, density=0.25)))
        run = jax.jit(lambda p, t, tokens: merge(llama.graphdef, p, t)(tokens))
        tokens = jax.ShapeDtypeStruct((1, 4), jnp.int32)
        return run.lower(llama.params, llama.topology, tokens).as_text().count("\n")

    assert lines(2) == lines(5)


def test_a_sparse_kind_without_an_implementation_is_an_error(make_model, make_weights, builder):
    model = make_model()
    with pytest.raises(KeyError, match="attention"):
        abstract(builder(model, make_weights(model, density=0.25), implementations={}))
