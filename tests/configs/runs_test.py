"""The first point of every ablation and every published row, with its own choices on a tiny model, for 20 steps."""

import math
from pathlib import Path

import pytest

from sparsejax.cli.config_flag import load_module, load_run
from sparsejax.planning.points import read_points
from sparsejax.training.loop import train
from tests.configs.changes import CONFIGS
from tests.training.tiny import quiet_console, write_text

pytestmark = pytest.mark.slow
STEPS = 20
ABLATIONS = sorted((CONFIGS / "ablations").glob("*.py"))
PAPERS = sorted((CONFIGS / "papers").glob("*.py"))


def shrunk(config: Path, directory: Path, flags: tuple[str, ...]) -> None:
    """Train a config for 20 steps at a size and on a text where that takes seconds; its blocks stay."""
    write_text(directory / "text.txt")
    write_text(directory / "validation.txt", seed=1, lines=20)
    model = {"hidden": 128, "mlp": 128, "heads": 2, "kv_heads": 2, "head_dim": 64, "layers": 1}
    data = {"source": "text", "tokenizer": "byte", "sequence_length": 16, "unique_tokens": 0}
    data |= {"path": directory / "text.txt", "validation_path": directory / "validation.txt"}
    data |= {"cache_dir": directory / "cache"}
    length = {
        "steps": STEPS,
        "epochs": 0,
        "batch_size": 4,
        "log_every": 5,
        "eval_tokens": 64,
        "checkpoint_every": STEPS,
    }
    # One device of the eight that the tests pretend to have.
    sections = {"model": model, "data": data, "train": length, "topology": {"every": 10}, "mesh": {"fsdp": 1}}
    tiny = [
        f"--config.{section}.{key}={value}" for section, settings in sections.items() for key, value in settings.items()
    ]
    outcome = train(load_run(str(config), [*flags, *tiny]), directory / "run", extend=False, console=quiet_console())
    assert outcome.exit_code == 0 and outcome.step == STEPS
    assert outcome.evaluation is not None and math.isfinite(outcome.evaluation.loss)


@pytest.mark.parametrize("config", ABLATIONS, ids=lambda path: path.stem)
def test_the_first_point_of_an_ablation(config: Path, tmp_path: Path) -> None:
    first, *_ = read_points(load_module(config).points())
    shrunk(config, tmp_path, first.flags)


@pytest.mark.parametrize("config", PAPERS, ids=lambda path: path.stem)
def test_a_published_row(config: Path, tmp_path: Path) -> None:
    shrunk(config, tmp_path, ())
