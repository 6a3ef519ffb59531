"""The solver: how near to a minimum its searches end."""

from __future__ import annotations

import numpy as np

from sparsejax.scaling import solver
from sparsejax.scaling.fit import PAPERS_DELTA, problem_of
from sparsejax.scaling.laws.registry import LAWS
from sparsejax.scaling.simulate import simulated
from sparsejax.scaling.starts import drawn_starts


def test_searches_end_at_one_minimum_where_most_residuals_are_above_delta():
    # Reweighting alone leaves one search in thirty there within its steps.
    law = LAWS["overfitting"]
    table = simulated(law, noise=0.02, seed=3)
    problem = problem_of(law, table, law.held, PAPERS_DELTA)
    starts = drawn_starts(law, table.columns, law.held, 16, seed=0)
    z_BP, objective_B = solver.minimise(problem, starts, np.ones(len(table)))
    best = np.argmin(objective_B)
    assert np.mean(objective_B <= objective_B[best] * (1 + 1e-9)) >= 0.8
    residuals = solver.residuals(law, z_BP[best], problem.columns, problem.target)
    assert np.mean(np.abs(residuals) > PAPERS_DELTA) > 0.7
    np.testing.assert_allclose(objective_B[best], solver.huber(residuals, PAPERS_DELTA).sum(), rtol=1e-12)

    # No move from there, large or small, along one coordinate or all, goes down.
    rng = np.random.default_rng(0)
    free = np.flatnonzero(np.diagonal(problem.basis))
    for size in (1e-1, 1e-3, 1e-5):
        for u in np.concatenate([np.eye(len(law.names))[free], rng.normal(size=(50, len(law.names)))]):
            for z in (z_BP[best] + size * problem.basis @ u, z_BP[best] - size * problem.basis @ u):
                r = solver.residuals(law, z, problem.columns, problem.target)
                assert solver.huber(r, PAPERS_DELTA).sum() > objective_B[best] * (1 - 1e-12)
