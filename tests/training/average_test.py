"""Soups: the mean of runs with one topology, and what is refused."""

import json
import shutil
from pathlib import Path

import jax
import numpy as np
import pytest

from sparsejax.cli.main import main
from sparsejax.config import ConfigError
from sparsejax.training.average import average_runs, different_weight
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


def refusal(runs: list[Path], out: Path) -> str:
    with pytest.raises(ConfigError) as caught:
        average_runs(runs, out, print)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_another_topology_is_refused_by_name(runs, tmp_path):
    assert "attention.k has other active blocks" in refusal([runs / "a", runs / "other"], tmp_path / "soup")
    assert not (tmp_path / "soup").exists()


def test_what_exists_is_never_overwritten(runs, tmp_path):
    assert "exists already" in refusal([runs / "a", runs / "b"], tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_unfit_ingredients_are_refused(runs, tmp_path):
    out = tmp_path / "soup"
    assert "at least two different" in refusal([runs / "a"], out)
    assert "at least two different" in refusal([runs / "a", runs / "a"], out)
    assert "holds no run" in refusal([runs / "a", tmp_path / "nowhere"], out)

    changed = tmp_path / "changed"
    changed.mkdir()
    shutil.copy(runs / "b" / "config.json", changed)
    assert "is not finished" in refusal([runs / "a", changed], out)
    shutil.copy(runs / "b" / "result.json", changed)
    manifest = json.loads((changed / "config.json").read_text())
    manifest["config"]["optim"]["b2"] = 0.95
    (changed / "config.json").write_text(json.dumps(manifest))
    message = refusal([runs / "a", changed], out)
    assert "differ in optim.b2: 0.999 -> 0.95; only" in message  # and neither the seed nor the rate of b


def test_the_first_differing_weight():
    def topology(q, up):
        return {"layers": {"attention": {"q": {"rows": np.array(q)}}, "mlp": {"up": {"rows": np.array(up)}}}}

    assert different_weight(topology([0, 1], [2, 3]), topology([0, 1], [2, 3])) is None
    assert different_weight(topology([0, 1], [2, 3]), topology([0, 1], [2, 4])) == "mlp.up"
    assert different_weight(topology([0, 1], [2, 3]), topology([0, 2], [2, 4])) == "attention.q"
