"""Soups: the mean of runs with one topology, and what is refused."""

import dataclasses
import json
import shutil
from pathlib import Path

import jax
import numpy as np
import pytest

from sparsejax.cli.main import main
from sparsejax.config import ConfigError
from sparsejax.training.average import average_runs, different_weight
from sparsejax.training.checkpoint import Checkpoints
from sparsejax.training.loop import train
from sparsejax.training.restore import restore_run
from tests.training.tiny import quiet_console, tiny_run

STATIC = {"topology_drop": "none", "topology_grow": "none", "topology_method": "static", "train_steps": 3}


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Two runs with one topology and other data orders, and one with another topology."""
    directory = tmp_path_factory.mktemp("soup")
    seeds = {"a": {}, "b": {"seeds_data": 1, "optim_lr": 5e-3}, "other": {"seeds_topology": 1}}
    for name, changes in seeds.items():
        outcome = train(
            tiny_run(directory, **STATIC, **changes), directory / name, extend=False, console=quiet_console()
        )
        assert outcome.exit_code == 0
    return directory


@pytest.mark.slow
def test_the_mean_of_two_runs(runs, tmp_path, capsys):
    out = tmp_path / "soup"
    assert main(["average", f"--runs={runs / 'a'},{runs / 'b'}", f"--out={out}"]) == 0
    printed = capsys.readouterr().out
    a, b, soup = (restore_run(workdir, print).state for workdir in (runs / "a", runs / "b", out))
    for one, other, mean in zip(*(jax.tree.leaves(state.params) for state in (a, b, soup)), strict=True):
        assert np.array_equal(mean, ((np.float64(one) + np.float64(other)) / 2).astype(np.float32))
    assert different_weight(a.topology, soup.topology) is None
    record = json.loads((out / "average.json").read_text())
    assert record["losses"][0] == json.loads((runs / "a" / "result.json").read_text())["validation_loss"]
    assert not (out / "result.json").exists()
    assert f"{record['average']['loss']:.5f} nats/token" in printed

    assert main(["evaluate", f"--workdir={out}", "--tokens=256"]) == 0
    assert f"{record['average']['loss']:.5f} nats/token" in capsys.readouterr().out
    assert main(["generate", f"--workdir={out}", "--prompt=the", "--tokens=3"]) == 0
    assert capsys.readouterr().out.startswith("the")


@pytest.mark.slow
def test_a_greedy_soup_leaves_out_what_makes_it_worse(runs, tmp_path):
    """The second run's weights are spoilt, so the greedy soup is the first run alone, whatever the order."""
    spoilt = tmp_path / "spoilt"
    shutil.copytree(runs / "b", spoilt)
    trained = restore_run(spoilt, print)
    state = dataclasses.replace(trained.state, params=jax.tree.map(lambda leaf: -leaf, trained.state.params))
    shutil.rmtree(spoilt / "checkpoints")
    with Checkpoints(spoilt, keep_last=1, keep_every=0, notice=print) as checkpoints:
        checkpoints.save(state, trained.run.to_dict())
    soup = average_runs([spoilt, runs / "a"], tmp_path / "greedy", print, greedy=True)
    assert soup.shares == (0.0, 1.0) and soup.average.loss == soup.losses[1] < soup.losses[0]
    # Half of the 256 tokens choose, the other half is reported.
    assert (soup.chosen_on, soup.average.tokens) == (128, 128)
    a, found = (restore_run(workdir, print).state.params for workdir in (runs / "a", tmp_path / "greedy"))
    assert jax.tree.all(jax.tree.map(np.array_equal, a, found))


@pytest.mark.slow
def test_shares_and_averages_over_time(runs, tmp_path):
    """A quarter of one and three quarters of another; of runs that keep an average, that of each."""
    average_runs([runs / "a", runs / "b"], tmp_path / "shares", print, shares=[1, 3])
    a, b, mean = (restore_run(workdir, print).state.params for workdir in (runs / "a", runs / "b", tmp_path / "shares"))
    for one, other, found in zip(*(jax.tree.leaves(tree) for tree in (a, b, mean)), strict=True):
        np.testing.assert_allclose(found, 0.25 * np.asarray(one) + 0.75 * np.asarray(other), rtol=1e-6, atol=1e-8)

    kept = [tmp_path / "kept-0", tmp_path / "kept-1"]
    for number, workdir in enumerate(kept):
        run = tiny_run(runs, **STATIC, seeds_data=number, optim_ema_decay=0.5)
        assert train(run, workdir, extend=False, console=quiet_console()).exit_code == 0
    average_runs(kept, tmp_path / "ema", print, weights="ema")
    one, other = (restore_run(workdir, print, weights="ema").state.params for workdir in kept)
    found = restore_run(tmp_path / "ema", print)
    assert found.run.optim.ema_decay == 0.0
    for x, y, z in zip(*(jax.tree.leaves(tree) for tree in (one, other, found.state.params)), strict=True):
        np.testing.assert_allclose(z, (np.asarray(x) + np.asarray(y)) / 2, rtol=1e-6, atol=1e-8)


def refusal(runs: list[Path], out: Path, **choices) -> str:
    with pytest.raises(ConfigError) as caught:
        average_runs(runs, out, print, **choices)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.slow
def test_another_topology_is_refused_by_name(runs, tmp_path):
    assert "attention.k has other active blocks" in refusal([runs / "a", runs / "other"], tmp_path / "soup")
    assert not (tmp_path / "soup").exists()


@pytest.mark.slow
def test_what_exists_is_never_overwritten(runs, tmp_path):
    (tmp_path / "mine").touch()
    assert "exists already" in refusal([runs / "a", runs / "b"], tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["mine"]


@pytest.mark.slow
def test_unfit_ingredients_are_refused(runs, tmp_path):
    out = tmp_path / "soup"
    assert "at least two different" in refusal([runs / "a"], out)
    assert "at least two different" in refusal([runs / "a", runs / "a"], out)
    assert "holds no run" in refusal([runs / "a", tmp_path / "nowhere"], out)
    both = [runs / "a", runs / "b"]
    for shares in ([1.0], [1.0, -1.0], [0.0, 0.0], [1.0, float("nan")], [1e308, 1e308]):
        assert "must be 2 numbers of at least 0, one a run, not all 0" in refusal(both, out, shares=shares)
    assert "a greedy soup has equal shares" in refusal(both, out, shares=[1.0, 1.0], greedy=True)
    with pytest.raises(ConfigError, match=r"^--weights=ema: .*a keeps no average of its weights"):
        average_runs(both, out, print, weights="ema")

    changed = tmp_path / "changed"
    changed.mkdir()
    shutil.copy(runs / "b" / "config.json", changed)
    assert "is not finished" in refusal([runs / "a", changed], out)
    shutil.copy(runs / "b" / "result.json", changed)
    manifest = json.loads((changed / "config.json").read_text())
    manifest["config"]["optim"]["b2"] = 0.95
    # Of an older version, which wrote no check.
    del manifest["check"]
    (changed / "config.json").write_text(json.dumps(manifest))
    message = refusal([runs / "a", changed], out)
    assert "differ in optim.b2: 0.999 -> 0.95; only" in message  # and neither the seed nor the rate of b


def test_the_first_differing_weight():
    def topology(q, up):
        return {"layers": {"attention": {"q": {"rows": np.array(q)}}, "mlp": {"up": {"rows": np.array(up)}}}}

    assert different_weight(topology([0, 1], [2, 3]), topology([0, 1], [2, 3])) is None
    assert different_weight(topology([0, 1], [2, 3]), topology([0, 1], [2, 4])) == "mlp.up"
    assert different_weight(topology([0, 1], [2, 3]), topology([0, 2], [2, 4])) == "attention.q"
