import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sparsejax.models.functional import abstract, merge


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


def test_abstract_describes_the_real_trees(make_model, make_weights, builder, initial):
    model = make_model()
    weights = make_weights(model, density=0.25)
    llama = abstract(builder(model, weights))
    wanted = jax.tree.map(lambda x: (x.shape, x.dtype), (llama.params, llama.topology))
    assert jax.tree.map(lambda x: (x.shape, x.dtype), initial(model, weights)) == wanted


def test_structure_does_not_know_the_seeds(make_model, make_weights, builder):
    # Otherwise a step program would be compiled again for every seed.
    weights = make_weights(make_model(), density=0.25)
    one, other = (abstract(builder(make_model(), weights, init_seed=s, topology_seed=s)).graphdef for s in (1, 5))
    assert one == other and hash(one) == hash(other)


def test_equal_seeds_equal_model_and_each_seed_moves_its_own_part(make_model, make_weights, initial):
    model = make_model()
    weights = make_weights(model, density=0.25)
    params, topology = initial(model, weights)
    jax.tree.map(np.testing.assert_array_equal, initial(model, weights), (params, topology))
    other_params, same_topology = initial(model, weights, init_seed=7)
    jax.tree.map(np.testing.assert_array_equal, same_topology, topology)
    assert np.any(other_params["layers"]["mlp"]["up"]["values"] != params["layers"]["mlp"]["up"]["values"])
    same_dense_part, other_topology = initial(model, weights, topology_seed=7)
    np.testing.assert_array_equal(same_dense_part["embed"]["embedding"], params["embed"]["embedding"])
    assert np.any(other_topology["layers"]["mlp"]["up"]["rows"] != topology["layers"]["mlp"]["up"]["rows"])


def test_layers_and_kinds_differ_in_values_and_topology(make_model, make_weights, initial):
    model = make_model()
    params, topology = initial(model, make_weights(model, density=0.25))
    gate, up = topology["layers"]["mlp"]["gate"], topology["layers"]["mlp"]["up"]
    places = [tuple(np.asarray(w["rows"][i] * 6 + w["cols"][i])) for w in (gate, up) for i in range(2)]
    assert len(set(places)) == 4
    values = [np.asarray(params["layers"]["mlp"][kind]["values"][i]) for kind in ("gate", "up") for i in range(2)]
    assert len({value.tobytes() for value in values}) == 4


def test_keys_know_the_layer_not_the_depth_and_density_scales_the_draw(make_model, make_weights, initial):
    # One density-aware layer at density 1/4 is the first of two plain ones, times 2.
    weights = make_weights(make_model(), density=0.25)
    params, topology = initial(make_model(), weights)
    one_params, one_topology = initial(make_model(layers=1, init="density_aware"), weights)
    first = jax.tree.map(lambda x: x[:1], topology["layers"])
    jax.tree.map(np.testing.assert_array_equal, first, one_topology["layers"])
    for kind in ("gate", "up", "down"):
        doubled = 2 * params["layers"]["mlp"][kind]["values"][:1]
        np.testing.assert_allclose(one_params["layers"]["mlp"][kind]["values"], doubled, rtol=1e-6)
    np.testing.assert_array_equal(one_params["embed"]["embedding"], params["embed"]["embedding"])


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
