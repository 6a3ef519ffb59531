"""Every published row resolves, and what it changes of configs/base.py is pinned in tests/golden/papers.

When a row is changed on purpose, write them again with `python -m tests.configs.papers_test`.
"""

from typing import Any

import pytest

from configs.base import get_config as base
from sparsejax.cli.config_flag import load_module, load_run
from sparsejax.models.weight_table import weight_table
from tests.configs.changes import CONFIGS, GOLDEN, changes, read_golden, write_golden

FILES = {path.stem: path for path in sorted((CONFIGS / "papers").glob("*.py"))}


def pinned(name: str) -> dict[str, Any]:
    """What a row changes of base.py, after it was checked."""
    return changes(load_run(str(FILES[name]), []).to_dict(), base().to_dict())


def test_every_row_is_pinned() -> None:
    assert {path.stem for path in (GOLDEN / "papers").glob("*.json")} == set(FILES)
    assert len(FILES) >= 17


@pytest.mark.parametrize("name", FILES)
def test_golden(name: str) -> None:
    advice = f"configs/papers/{name}.py is another run than before; `python -m tests.configs.papers_test` if on purpose"
    assert pinned(name) == read_golden("papers", name), advice


@pytest.mark.parametrize("name", FILES)
def test_a_row_says_where_it_is_from_and_fits_its_weights(name: str) -> None:
    module, run = load_module(FILES[name]), load_run(str(FILES[name]), [])
    text = module.__doc__ or ""
    assert "\nSource: arXiv 2606." in text
    assert f"    sparsejax train --config=configs/papers/{name}.py --workdir=runs/{name}\n" in text
    assert all(
        abs(weight.density - run.topology.density) < 1e-3 for weight in weight_table(run.model, run.topology).values()
    )
    if name.startswith("repeated_"):
        low, high = module.EXPECTED_LOSS
        assert 2.6 < low < high < 3.0
        assert run.train.epochs * run.data.unique_tokens >= 5.2e9


if __name__ == "__main__":
    write_golden("papers", {name: pinned(name) for name in FILES})
