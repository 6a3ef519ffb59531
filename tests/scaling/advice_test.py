"""Advice: both choices with their certainty, on devices or not, and the runs that would make it surer."""

import dataclasses
import subprocess
import sys

import numpy as np
import pytest

from sparsejax.cli.main import main
from sparsejax.config import ConfigError
from sparsejax.models.sizes import SIZES
from sparsejax.scaling import saved_fit
from sparsejax.scaling.advice import advise
from sparsejax.scaling.devices import nearest
from sparsejax.scaling.frontier import Budget, best, best_at_density
from sparsejax.scaling.laws.registry import LAWS
from sparsejax.scaling.next_run import rank_runs
from tests.scaling.laws_test import HELD_OUT

BUDGET = Budget(flops=1e21, unique_tokens=1.3e9)


def sampled(count=20, spread=0.01):
    """The published law as if it had been sampled: alpha, A and B vary."""
    known = saved_fit.published_default()
    rng = np.random.default_rng(0)
    samples = {name: np.full(count, value) for name, value in known.values.items()}
    for name in ("E", "A", "g2"):
        samples[name] = samples[name] * np.exp(spread * rng.standard_normal(count))
    return dataclasses.replace(known, samples=samples)


def test_the_default_is_the_published_law_with_its_own_error():
    known = saved_fit.published_default()
    total, D, U, S, measured = HELD_OUT.T
    predicted = known.law.loss(known.values, {"N": total * S, "D": D * 1e9, "U": U * 1e9, "S": S})
    assert known.noise == pytest.approx(np.sqrt(np.mean(np.log(predicted / measured) ** 2)), abs=5e-6)
    dense, sparse = advise(known, BUDGET)
    assert dense.choice == best_at_density(known.law, known.values, BUDGET, 1.0)
    assert sparse.choice == best(known.law, known.values, BUDGET)
    assert sparse.loss.low < sparse.choice.loss < sparse.loss.high and sparse.density is None
    assert any("epochs 32.9 (fitted: 1 to 16)" in words for words in sparse.beyond)


def test_refits_carry_their_spread_to_the_optimum():
    dense, sparse = advise(sampled(), BUDGET)
    for ends, value in (
        (sparse.parameters, sparse.choice.parameters),
        (sparse.epochs, sparse.choice.epochs),
        (dense.epochs, dense.choice.epochs),
    ):
        assert ends.low <= value * 1.05 and ends.high >= value * 0.95 and ends.low < ends.high
    plain = advise(saved_fit.published_default(), BUDGET)[1]
    assert sparse.loss.high - sparse.loss.low > 0.9 * (plain.loss.high - plain.loss.low)


def test_laws_that_cannot_answer_say_so():
    known = saved_fit.published_default()
    chinchilla = LAWS["chinchilla"]
    dense, sparse = advise(dataclasses.replace(known, law=chinchilla, values=chinchilla.example), BUDGET)
    assert sparse is None and dense.choice.density == 1
    experts = LAWS["experts"]
    with pytest.raises(ConfigError, match="law experts reads N, X; advice needs"):
        advise(dataclasses.replace(known, law=experts, values=experts.example), BUDGET)


def test_the_nearest_size_is_counted_exactly():
    run = nearest(5e8, 0.25, 128, skips=True)
    assert run.size == "480m" and run.block == 128 and run.density == pytest.approx(0.25, abs=0.01)
    dense = nearest(5e8, 1.0, 128, skips=True)
    assert run.total >= dense.total == dense.active and run.state_bytes < 0.5 * dense.state_bytes
    assert run.executed < 0.6 * dense.executed
    assert nearest(5e8, 0.25, 128, skips=False).executed == pytest.approx(dense.executed, rel=0.02)
    assert all(nearest(10**power, 0.5, 256, True).size in SIZES for power in range(6, 12))


def test_the_next_run_is_the_one_that_tells_most():
    # What g2 is, one epoch cannot say, and many can.
    known = sampled(400, spread=0.002)
    samples = {**known.samples, "g2": known.samples["g2"] ** 50 / known.values["g2"] ** 49}
    known = dataclasses.replace(known, samples=samples)
    candidates = {
        "N": np.array([1e8, 1e8]),
        "D": np.array([1e9, 1e9]),
        "U": np.array([1e9, 2.5e7]),
        "S": np.array([1.0, 1.0]),
    }
    ranked = rank_runs(known, candidates, known.samples["g2"])
    assert ranked[0].run["U"] == 2.5e7 and ranked[0].removed > ranked[1].removed and 0 <= ranked[1].removed < 1
    assert ranked[0].flops == 6e17 and ranked[0].worth == ranked[0].removed / 6e17
    with pytest.raises(ConfigError, match="the same under every refit"):
        rank_runs(known, candidates, np.ones(400))
    with pytest.raises(ConfigError, match="there are 0"):
        rank_runs(saved_fit.published_default(), candidates, [])


def advised(capsys, *flags):
    code = main(["advise", *flags])
    return code, capsys.readouterr()


def test_the_command(capsys):
    code, shown = advised(capsys, "--unique-tokens=1.3e9", "--flops=1e21")
    assert code == 0 and "best sparse\n  loss        2.7820" in shown.out
    assert "configs/llama.py:size=7b,density=0.547,block=128" in shown.out and "size=7b,method=dense" in shown.out
    code, shown = advised(capsys, "--unique-tokens=1.3e9", "--flops=1e21", "--hardware=v5p:4x4x4")
    assert code == 0 and "on v5p:4x4x4: " in shown.out and "hours at 40% of peak (assumed)" in shown.out
    # No kernel of auto skips zeros on a GPU: a sparse model pays the FLOPs of its dense twin, and is advised smaller.
    code, shown = advised(capsys, "--unique-tokens=1.3e9", "--flops=1e21", "--hardware=h100:8")
    assert code == 0 and "size=3b84,density=0.572" in shown.out
    code, shown = advised(capsys, "--unique-tokens=1.3e9", "--flops=1e21", "--epochs=4")
    assert "at the edge of the search, so no optimum: 4 epochs" in shown.out


@pytest.mark.parametrize(
    "flags",
    [
        ("--unique-tokens=-1", "--flops=1e21"),
        ("--unique-tokens=1e9", "--flops=1e10"),
        ("--unique-tokens=many", "--flops=1e21"),
        ("--unique-tokens=1e9", "--flops=1e21", "--epochs=0.5"),
        ("--unique-tokens=1e9", "--flops=1e21", "--least-density=2"),
        ("--unique-tokens=1e9", "--flops=1e21", "--hardware=v5x:1"),
        ("--unique-tokens=1e9", "--flops=1e21", "--hardware=cpu:8"),
        ("--unique-tokens=1e9", "--flops=1e21", "--fit=none.json"),
    ],
)
def test_nonsense_gets_one_line(capsys, flags):
    code, shown = advised(capsys, *flags)
    assert code == 2 and shown.out == "" and shown.err.count("\n") == 1


def test_advice_starts_without_jax():
    code = "import sys; import sparsejax.cli.advise; sys.exit('jax' in sys.modules or 'scipy' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], timeout=60).returncode == 0
