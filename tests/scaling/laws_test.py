"""Laws against what their papers print, and what every law must be: finite, differentiable, monotone where it says."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sparsejax.scaling.laws.law import grid, saturating
from sparsejax.scaling.laws.registry import LAWS, law_named
from sparsejax.scaling.laws.sparse import repetition_limits

# Held-out runs of arXiv 2606.01155: dense-equivalent parameters, D and U in billions, density, measured loss.
HELD_OUT = np.array(
    [
        (2.68e8, 41.6, 5.2, 0.5, 2.880),
        (2.68e8, 20.8, 5.2, 0.5, 2.898),
        (2.68e8, 41.6, 10.4, 0.5, 2.874),
        (5.21e8, 5.2, 2.6, 1.0, 2.913),
        (5.21e8, 20.8, 5.2, 0.5, 2.799),
        (5.21e8, 20.8, 5.2, 0.25, 2.924),
        (1.17e9, 5.2, 2.6, 1.0, 2.889),
        (1.92e9, 10.4, 2.6, 1.0, 2.803),
        (1.92e9, 20.8, 20.8, 0.5, 2.690),
        (3.84e9, 10.4, 2.6, 0.5, 2.762),
        (7.68e9, 10.4, 2.6, 0.25, 2.780),
    ]
)
PREDICTED = [2.8764, 2.9038, 2.8634, 2.9238, 2.8343, 2.8837, 2.8703, 2.8002, 2.7250, 2.7725, 2.7790]


def published(name, index=0):
    return law_named(name).published[index].values


def test_the_sparse_law_predicts_the_held_out_runs_of_its_paper():
    total, D, U, S, measured = HELD_OUT.T
    columns = {"N": total * S, "D": D * 1e9, "U": U * 1e9, "S": S}
    predicted = law_named("sparse_repeated").loss(published("sparse_repeated"), columns)
    np.testing.assert_array_equal(np.round(predicted, 4), PREDICTED)
    r2 = 1 - np.sum((predicted - measured) ** 2) / np.sum((measured - measured.mean()) ** 2)
    assert round(r2, 4) == 0.9136


def test_the_data_constrained_law_predicts_as_its_notebook_does():
    columns = {"N": np.array([6.34e9, 8.67e9]), "D": np.array([242e9, 178e9]), "U": np.array([25e9, 25e9])}
    predicted = law_named("data_constrained").loss(published("data_constrained"), columns)
    np.testing.assert_allclose(predicted, [2.2256440889984477, 2.2269634075087867], rtol=1e-12)


def test_repetition_lasts_longer_where_sparse():
    values = law_named("sparse_repeated").published[0].values
    _, limits = repetition_limits(type("Values", (), dict(values)), np.array([1.0, 0.75, 0.5, 0.25, 0.125, 0.0625]))
    np.testing.assert_allclose(limits, [4.40, 6.04, 6.91, 7.04, 6.82, 6.64], atol=0.01)


def test_repetitions_saturate():
    assert saturating(0.0, 15.0, np) == 0
    np.testing.assert_allclose(saturating(1.0, 1e12, np), 1.0)
    np.testing.assert_allclose(saturating(1e9, 15.0, np), 15.0)


def test_one_epoch_of_the_dense_sparse_law_is_chinchilla():
    values = dict(published("sparse_repeated"))
    columns = grid(N=(1e7, 1e8), D=(1e9, 1e10), S=(1.0,))
    unbounded = {**columns, "U": np.full(4, 1e30)}
    tied = {name: values[name] for name in ("E", "A", "B", "alpha")}
    np.testing.assert_allclose(
        law_named("sparse_repeated").loss(values, unbounded), law_named("chinchilla_tied").loss(tied, columns)
    )


def test_overfitting_can_rise_and_saturation_cannot():
    columns = {"N": np.geomspace(1e7, 1e11, 60), "D": np.full(60, 4e9), "U": np.full(60, 1e8)}
    rising = law_named("overfitting")
    assert np.any(np.diff(rising.loss(rising.example, columns)) > 0)
    assert np.all(rising.loss(rising.example, columns) < rising.held["L0"])
    saturated = law_named("data_constrained")
    assert np.all(np.diff(saturated.loss(saturated.example, columns)) <= 0)


def test_overfitting_grows_with_epochs_where_that_is_freed():
    law = law_named("sparse_overfitting")
    columns = {name: np.full(5, value) for name, value in (("N", 1e9), ("U", 1e8), ("S", 1.0))}
    columns["D"] = columns["U"] * np.array([1.0, 4.0, 16.0, 64.0, 256.0])
    by_size, by_epochs = (law.loss({**law.example, "eta": eta}, columns) for eta in (0.0, 0.5))
    assert np.all(np.diff(by_size) < 0) and np.all(np.diff(by_epochs)[2:] > 0)
    assert by_size[0] == by_epochs[0] == law.loss(law.example, columns)[0]


def test_sparsity_protects_by_its_exponent():
    law = law_named("sparse_overfitting")
    sparse = {
        "N": np.array([1e9, 1e9]),
        "D": np.array([1e10, 1e10]),
        "U": np.array([1e8, 1e8]),
        "S": np.array([1, 0.25]),
    }
    plain = {**law.example, "w": 0.0}
    by_active = law.loss({**plain, "kappa": 0.0}, sparse)
    assert by_active[0] == by_active[1]
    # With kappa = -gamma the sparse model overfits as its dense twin of 4e9 parameters.
    twin = {**plain, "kappa": -plain["gamma"]}
    larger = law.loss(
        {**plain, "kappa": 0.0, "a": plain["a"] * 4 ** plain["alpha"]}, {**sparse, "N": np.array([4e9, 4e9])}
    )
    np.testing.assert_allclose(law.loss(twin, sparse)[1], larger[1])


@pytest.mark.parametrize("law", LAWS.values(), ids=lambda law: law.name)
def test_every_law_is_complete_and_differentiable(law):
    assert "arXiv" in law.equation and law.equation.startswith(("L = ", "log10 L = "))
    for values in (law.example, *(one.values for one in law.published)):
        assert set(values) == set(law.names) - set(law.held)
        assert np.all(np.isfinite(law.loss(values, law.design)))
    with jax.enable_x64(True):
        named = {name: jnp.asarray(value) for name, value in {**law.held, **law.example}.items()}
        gradients = jax.jit(jax.jacfwd(lambda values: law.loss(values, law.design, jnp)))(named)
        assert all(bool(jnp.all(jnp.isfinite(gradient))) for gradient in gradients.values())
    for parameter in law.parameters:
        assert {column for column, _, _ in parameter.centred} <= set(law.columns)
        assert {other for _, other, _ in parameter.centred} <= set(law.names)
        assert parameter.low < parameter.high and (not parameter.positive or parameter.low > parameter.least)


def test_wrong_names_are_one_line():
    law = law_named("chinchilla")
    with pytest.raises(ValueError, match="law chinchilla: parameter beta is missing"):
        law.loss({name: 1.0 for name in ("E", "A", "B", "alpha")}, law.design)
    with pytest.raises(ValueError, match="law chinchilla: parameter gamma is unknown"):
        law.loss({**law.example, "gamma": 1.0}, law.design)
    with pytest.raises(ValueError, match="law chinchilla: column D is missing"):
        law.loss(law.example, {"N": law.design["N"]})
    with pytest.raises(ValueError, match="law=kaplan: unknown; use one of sparse_repeated, chinchilla"):
        law_named("kaplan")
