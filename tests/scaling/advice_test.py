"""Advice: every limit holds for the command that is printed, and nothing is advised that no fitted run had."""

import dataclasses
import math
import re
import subprocess
import sys

import numpy as np
import pytest

from sparsejax.cli.main import main
from sparsejax.config import ConfigError
from sparsejax.hardware.systems import parse_system
from sparsejax.models.sizes import SIZES
from sparsejax.scaling import saved_fit
from sparsejax.scaling.advice import Advised, advise
from sparsejax.scaling.advice_report import advice_lines
from sparsejax.scaling.devices import realised
from sparsejax.scaling.frontier import best
from sparsejax.scaling.laws.registry import LAWS
from sparsejax.scaling.limits import Limits, budget_within
from sparsejax.scaling.next_run import rank_runs
from sparsejax.scaling.prediction import predict_run
from sparsejax.scaling.rows import CONVENTIONS
from tests.scaling.laws_test import HELD_OUT

LIMITS = Limits(flops=1e20, unique_tokens=1.3e9)
WIDE = {"N": (1e6, 1e11), "D": (1e6, 1e13), "U": (1e6, 1e13), "S": (0.01, 1.0), "epochs": (1.0, 1000.0)}
COMMAND = re.compile(
    r"sparsejax train --config=configs/llama\.py:size=([^,]+),(?:method=dense|density=([\d.]+),block=(\d+)) "
    r"--workdir=\S+ --config\.data\.unique_tokens=(\d+) --config\.train\.steps=0 --config\.train\.epochs=(\d+)$"
)


def published(**values):
    return dataclasses.replace(saved_fit.published_default(), **values)


def sampled(count=20, spread=0.01):
    """The published law as if it had been sampled, for runs of any kind: alpha, A and B vary."""
    known = published(ranges=WIDE)
    rng = np.random.default_rng(0)
    samples = {name: np.full(count, value) for name, value in known.values.items()}
    for name in ("E", "A", "g2"):
        samples[name] = samples[name] * np.exp(spread * rng.standard_normal(count))
    return dataclasses.replace(known, samples=samples)


def counts(size, density, block):
    """Total, active and embedding parameters, realised density, and FLOPs of one token with 1,024 before it."""
    one = SIZES[size]
    mlp = -(-one.mlp // block) * block
    weights = [(one.hidden, one.hidden)] * 4 + [(one.hidden, mlp)] * 3
    elements = sum(k * n for k, n in weights)
    blocks = [max(round(density * (k * n // block**2)), 1) for k, n in weights]
    kept = sum(blocks) * block**2 if density < 1 else elements
    embedding = 2 * 32_000 * one.hidden
    rest = embedding + (2 * one.layers + 1) * one.hidden
    total, active = one.layers * elements + rest, one.layers * kept + rest
    attention = 4 * 1024 * one.hidden

    def flops(used):
        return 3 * (one.layers * (2 * used + attention) + 2 * one.hidden * 32_000)

    return total, active, embedding, kept / elements, flops(kept), flops(elements)


def check_command(line, known, limits, printed):
    """Hold one printed command against every limit, by arithmetic of this test."""
    size, density, block, unique, epochs = COMMAND.search(line).groups()
    S, block = float(density or 1), int(block or 16)
    total, active, embedding, realised_S, sparse_flops, dense_flops = counts(size, S, block)
    U, D = int(unique), int(unique) * int(epochs)
    rest = active - embedding
    N = {"total": total, "total_times_density": total * realised_S, "active_non_embedding": rest, "nonzero": rest}.get(
        known.convention, active
    )
    skips = limits.system is None or limits.system.chip.name != "h100"
    twin = total - embedding if known.convention in ("active_non_embedding", "nonzero") else total
    paid = (active if known.convention == "total" else N) if skips else twin
    cost = 6 * paid * D
    assert cost <= limits.flops * (1 + 1e-9) and cost == pytest.approx(printed["flops"], rel=1e-3)
    assert int(epochs) <= limits.epochs and limits.unique_tokens >= U and (density is None or limits.least_density <= S)
    for name, value in {"N": N, "D": D, "U": U, "epochs": int(epochs), "S": S}.items():
        low, high = known.ranges[name]
        assert low * 0.998 <= value <= high * 1.002, (name, value)
    law = {"N": N, "D": float(D), "U": float(U), "S": realised_S}
    assert float(known.law.loss(known.values, law)) == pytest.approx(printed["loss"], abs=6e-5)
    if limits.system is not None:
        chip = limits.system.chip
        assert 16 * active <= chip.memory_bytes * limits.system.devices * 0.7
        hours = (sparse_flops if skips else dense_flops) * D / (chip.peak_flops * limits.system.devices * 0.4) / 3600
        assert limits.hours is None or hours <= limits.hours * 1.0001
        assert hours == pytest.approx(printed["hours"], rel=0.01)


def printed_runs(lines):
    """``(command, what is printed of it)`` for every command."""
    for i, line in enumerate(lines):
        if COMMAND.search(line):
            start = max(k for k in range(i) if lines[k].startswith("  nearest"))
            text = "\n".join(lines[start:i])
            loss, flops = re.search(r"epochs, loss ([\d.]+) .*, ([\d.e+]+) FLOPs", text).groups()
            hours = re.search(r": ([\d.,e+-]+) hours", text)
            yield (
                line,
                {
                    "loss": float(loss),
                    "flops": float(flops),
                    "hours": float(hours[1].replace(",", "")) if hours else None,
                },
            )


def drawn_case(rng):
    """A law, counted in some way, that saw some kind of runs, and limits that have nothing to do with them."""
    name = ("sparse_repeated", "chinchilla", "data_constrained", "sparsely_connected", "sparse_overfitting")[
        rng.integers(5)
    ]
    law = LAWS[name]
    dense_only = "S" not in law.columns
    N, D, U = 10 ** rng.uniform(6, 8), 10 ** rng.uniform(7.5, 9), 10 ** rng.uniform(7, 8.5)
    ranges = {
        "N": (N, N * 10 ** rng.uniform(1, 4)),
        "D": (D, D * 10 ** rng.uniform(0.5, 3)),
        "U": (U, U * 10 ** rng.uniform(0.3, 3)),
        "S": (1.0, 1.0) if dense_only else (rng.uniform(0.05, 0.5), rng.choice([1.0, 0.6])),
        "epochs": (1.0, float(rng.choice([1.0, 4.0, 16.0, 100.0]))),
    }
    values = dict(law.example)
    if name == "sparsely_connected":
        values |= {"E": 1.7, "A": 100.0, "b": 0.3, "C": 100.0, "B": 410.0, "alpha": 0.34, "beta": 0.28}
    known = published(law=law, values={**law.held, **values}, ranges=ranges, convention=str(rng.choice(CONVENTIONS)))
    system = parse_system(str(rng.choice(["v5p:2x2x1", "h100:1", "h100:8", "v5e:1x1"]))) if rng.random() < 0.7 else None
    limits = Limits(
        flops=10 ** rng.uniform(15, 22),
        unique_tokens=math.inf if rng.random() < 0.1 else 10 ** rng.uniform(8, 12),
        epochs=float(rng.choice([1.0, 3.0, 20.0, 1000.0])),
        least_density=float(rng.choice([0.0625, 0.3])),
        system=system,
        hours=10 ** rng.uniform(-2, 2) if system is not None and rng.random() < 0.7 else None,
    )
    return known, limits


def check_drawn(seeds):
    commands = refusals = 0
    for seed in seeds:
        known, limits = drawn_case(np.random.default_rng(seed))
        try:
            advice = advise(known, limits)
        except ConfigError as error:
            assert "\n" not in str(error)
            refusals += 1
            continue
        for found in (advice.dense, advice.sparse):
            if isinstance(found, Advised):
                check_choice(found.choice, known, limits)
        for line, printed in printed_runs(advice_lines(known, limits, advice)):
            check_command(line, known, limits, printed)
            commands += 1
    return commands, refusals


def check_choice(choice, known, limits):
    values = {"N": choice.parameters, "D": choice.tokens, "U": choice.unique_tokens}
    for name, value in (values | {"epochs": choice.epochs, "S": choice.density}).items():
        low, high = known.ranges[name]
        assert low * (1 - 2e-3) <= value <= high * (1 + 2e-3), (name, value)
    assert choice.unique_tokens <= limits.unique_tokens and choice.epochs <= limits.epochs * (1 + 1e-9)
    multiplied = choice.density if known.convention == "total" else 1.0
    if limits.system is not None and limits.system.chip.name == "h100":
        multiplied /= choice.density
    assert 6 * choice.parameters * multiplied * choice.tokens <= limits.flops * (1 + 1e-9)


def test_every_limit_holds_for_what_is_printed():
    commands, refusals = check_drawn(range(40))
    assert commands > 20 and refusals > 5


@pytest.mark.slow
def test_every_limit_holds_for_what_is_printed_at_length():
    check_drawn(range(1000, 3000))


def test_the_run_is_the_best_of_all_that_keep_the_limits():
    known = published(ranges=WIDE)
    run = advise(known, Limits(flops=1e20, unique_tokens=1.3e9)).dense.run
    losses = []
    for size in SIZES:
        total, *_ = counts(size, 1.0, 16)
        for epochs in range(1, 60):
            if 6 * total * epochs * 1.3e9 <= 1e20:
                columns = {"N": total, "D": epochs * 1.3e9, "U": 1.3e9, "S": 1.0}
                losses.append(float(known.law.loss(known.values, columns)))
    # A part of the text may spend what whole epochs leave, and is then better by more than the law's error.
    assert run.prediction.loss <= min(losses) + 1e-6


def test_the_default_is_the_published_law_with_its_own_error():
    known = saved_fit.published_default()
    total, D, U, S, measured = HELD_OUT.T
    predicted = known.law.loss(known.values, {"N": total * S, "D": D * 1e9, "U": U * 1e9, "S": S})
    assert known.noise == pytest.approx(np.sqrt(np.mean(np.log(predicted / measured) ** 2)), abs=5e-6)
    advice = advise(known, LIMITS)
    assert advice.sparse.choice == best(known.law, known.values, budget_within(known, LIMITS))
    assert advice.dense.edges == () and advice.sparse.density is None
    for found in (advice.dense, advice.sparse):
        assert found.loss.low < found.choice.loss < found.loss.high
        assert found.loss.high / found.choice.loss == pytest.approx(math.exp(1.796 * 0.00743))


def test_beyond_the_fitted_runs_the_edge_is_the_answer():
    far = advise(saved_fit.published_default(), Limits(flops=1e23, unique_tokens=1e11)).sparse
    assert far.choice.parameters == pytest.approx(1.99e9) and far.choice.epochs == pytest.approx(16)
    assert far.choice.unique_tokens == 2.6e9 and far.loss.low < far.choice.loss < far.loss.high
    for words in ("parameters 1.99e+09 (the fitted runs had 1e+06", "epochs 16", "unique tokens 2.6e+09"):
        assert any(edge.startswith(words) for edge in far.edges), far.edges
    with pytest.raises(ConfigError, match=r"--unique-tokens=1e.08: the fitted runs had 2e.08 to 2.6e.09"):
        advise(saved_fit.published_default(), Limits(flops=1e20, unique_tokens=1e8))
    with pytest.raises(ConfigError, match="--epochs=1: the fitted runs had 4 to 16 epochs"):
        advise(published(ranges=WIDE | {"epochs": (4.0, 16.0)}), dataclasses.replace(LIMITS, epochs=1.0))


def test_refits_carry_their_spread_to_the_optimum():
    known = sampled()
    advice = advise(known, LIMITS)
    for ends, value in (
        (advice.sparse.parameters, advice.sparse.choice.parameters),
        (advice.sparse.epochs, advice.sparse.choice.epochs),
        (advice.dense.epochs, advice.dense.choice.epochs),
    ):
        assert ends.low <= value * 1.05 and ends.high >= value * 0.95 and ends.low < ends.high
    plain = advise(published(ranges=WIDE), LIMITS).sparse
    assert advice.sparse.loss.high - advice.sparse.loss.low > 0.9 * (plain.loss.high - plain.loss.low)


def test_densities_that_no_fitted_run_had_are_not_advised():
    dense_only = advise(published(ranges=WIDE | {"S": (1.0, 1.0)}), LIMITS)
    assert isinstance(dense_only.dense, Advised) and "had density 1 only" in dense_only.sparse
    sparse_only = advise(published(ranges=WIDE | {"S": (0.3, 0.6)}), LIMITS)
    assert "0.3 to 0.6: there is no dense choice" in sparse_only.dense
    assert 0.3 <= sparse_only.sparse.choice.density <= 0.6 and 0.3 <= sparse_only.sparse.run.density <= 0.6
    chinchilla = LAWS["chinchilla"]
    known = published(law=chinchilla, values=chinchilla.example, ranges=WIDE)
    assert "does not know density" in advise(known, LIMITS).sparse
    # Fitted to runs of one density it advises that density.
    quarter = advise(dataclasses.replace(known, ranges=WIDE | {"S": (0.25, 0.25)}), LIMITS)
    assert isinstance(quarter.dense, str) and quarter.sparse.choice.density == 0.25 == quarter.sparse.run.density


@pytest.mark.parametrize(
    ("name", "changes", "words"),
    [
        ("chinchilla", {"beta": -0.1}, "more unique tokens, seen as often, would raise the loss"),
        ("chinchilla", {"alpha": -0.1}, "more parameters and text without an end would raise the loss"),
        ("sparse_repeated", {"g2": -5.0}, "fresh tokens in place of repeated ones would raise the loss"),
        ("chinchilla", {"A": math.nan}, "its loss is not a number"),
    ],
)
def test_a_law_that_bends_the_wrong_way_is_not_used(name, changes, words):
    law = LAWS[name]
    known = published(law=law, values={**law.example, **changes}, ranges=WIDE)
    with pytest.raises(ConfigError, match=f"nothing fits: .*{words}"):
        advise(known, dataclasses.replace(LIMITS, flops=3e20))


@pytest.mark.parametrize(
    ("values", "match"),
    [
        ({"law": LAWS["experts"]}, "law experts reads N, X; this needs a law of N, D, U and density"),
        ({"tokens_in": "steps"}, "its runs state steps, not tokens"),
        ({"ranges": WIDE | {"N": (0.02, 7.0)}}, "parameters=7 are fewer than 10,000: are they in millions or billions"),
        ({"ranges": WIDE | {"D": (0.2, 400.0), "U": (0.2, 40.0)}}, "tokens=400 are fewer than 10,000"),
    ],
)
def test_laws_that_cannot_answer_say_so(values, match):
    with pytest.raises(ConfigError, match=match):
        advise(published(**values), LIMITS)


@pytest.mark.parametrize("density", [1.0, 0.25, 0.0625, 0.547])
def test_counts_are_those_of_the_size(density):
    for name in SIZES:
        for skips in (True, False):
            run = realised(name, density, 128, skips)
            total, active, embedding, S, sparse, dense = counts(name, density, run.block if density < 1 else 16)
            assert (run.total, run.active, run.embedding) == (total, active, embedding)
            assert run.density == pytest.approx(S) and run.executed == (sparse if skips else dense)
            assert run.state_bytes >= 16 * active
            twin = realised(name, 1.0, 128, skips)
            assert run.counted("total") >= twin.total and run.counted("active") == active


def test_the_loss_of_one_run():
    known = sampled()
    found = predict_run(known, 3e8, 8e9, 2e9, 0.5)
    columns = {"N": 3e8, "D": 8e9, "U": 2e9, "S": 0.5}
    assert found.loss == float(known.law.loss(known.values, columns)) and found.outside == ()
    assert found.ends.low < found.loss < found.ends.high
    assert predict_run(published(), 3e9, 8e9).outside == (
        "parameters 3e+09 (fitted: 1e+06 to 1.99e+09)",
        "unique tokens 8e+09 (fitted: 2e+08 to 2.6e+09)",
    )
    linear = dataclasses.replace(known, law=dataclasses.replace(known.law, residual="linear"), samples={}, noise=0.1)
    ends = predict_run(linear, 3e8, 8e9, 2e9, 0.5).ends
    assert (ends.low, ends.high) == pytest.approx((found.loss - 0.1796, found.loss + 0.1796))


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
    code, shown = advised(capsys, "--unique-tokens=1.3e9", "--flops=1e20")
    assert code == 0 and len(COMMAND.findall(shown.out.replace("\n", "\n\n"))) <= 2
    assert "best sparse\n  loss        2.8" in shown.out and "nats/token lower; the law's own error" in shown.out
    code, shown = advised(capsys, "--unique-tokens=unlimited", "--flops=1e19", "--hardware=v5p:4x4x4", "--hours=2")
    assert code == 0 and "on v5p:4x4x4: " in shown.out and "hours at 40% of peak (assumed)" in shown.out
    code, shown = advised(capsys, "--unique-tokens=1.3e9", "--flops=1e20", "--epochs=4")
    assert "at an edge, so no optimum: 4 epochs" in shown.out and "train.epochs=5" not in shown.out
    code, shown = advised(capsys, "--predict=size=120m,density=0.25,tokens=5e9,unique=1e9")
    assert code == 0 and re.search(r"^loss 3\.\d{4} nats/token \(90 %: 3", shown.out, re.MULTILINE)


@pytest.mark.parametrize(
    "flags",
    [
        *((f"--unique-tokens={value}", "--flops=1e21") for value in ("-1", "many", "nan", "inf", "0", "", "1.3")),
        *(("--unique-tokens=1e9", f"--flops={value}") for value in ("1e10", "-1", "nan", "inf", "x")),
        *(("--unique-tokens=1e9", "--flops=1e20", f"--epochs={value}") for value in ("0.5", "nan", "inf", "-1")),
        *(("--unique-tokens=1e9", "--flops=1e20", f"--least-density={value}") for value in ("2", "0", "nan")),
        *(("--unique-tokens=1e9", "--flops=1e20", f"--hardware={value}") for value in ("v5x:1", "cpu:8", "")),
        ("--unique-tokens=1e9", "--flops=1e20", "--hours=1"),
        ("--unique-tokens=1e9", "--flops=1e20", "--hardware=h100:8", "--hours=nan"),
        ("--unique-tokens=1e9", "--flops=1e20", "--hardware=h100:8", "--hours=1e-9"),
        ("--unique-tokens=1e9", "--flops=1e20", "--fit=none.json"),
        ("--unique-tokens=1e9",),
        ("--predict=size=120m,tokens=1e9", "--flops=1e20"),
        *((f"--predict={run}",) for run in ("", "tokens=1e9", "size=1m,tokens=1e9", "parameters=1e8,tokens=-1")),
        *((f"--predict=parameters=1e8,tokens=1e9,{more}",) for more in ("size=1b", "density=2", "x=1", "tokens=2")),
    ],
)
def test_nonsense_gets_one_line(capsys, flags):
    code, shown = advised(capsys, *flags)
    assert code == 2 and shown.out == "" and shown.err.count("\n") == 1


def test_advice_starts_without_jax():
    code = "import sys; import sparsejax.cli.advise; sys.exit('jax' in sys.modules or 'scipy' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], timeout=60).returncode == 0
