"""The campaign's seed, its time, its player and its samples.

make campaign                                  a new seed, which it prints
make campaign SEED=17 MINUTES=5                the same cases again, for a shorter time
"""

import json
import os
import random
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.campaign.oracle import Campaign, Player
from tests.campaign.products import Products

# Workers that share the tests share the seed, by the number that pytest-xdist gives to a session.
_SESSION = os.environ.get("PYTEST_XDIST_TESTRUNUID") or os.urandom(8).hex()
SEED = int(os.environ.get("SPARSEJAX_CAMPAIGN_SEED") or random.Random(_SESSION).randrange(10**6))
MINUTES = float(os.environ.get("SPARSEJAX_CAMPAIGN_MINUTES") or 12)


@pytest.fixture(scope="session")
def player(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Player]:
    made = Player(tmp_path_factory.mktemp("here"))
    yield made
    made.close()


@pytest.fixture(scope="session")
def products(tmp_path_factory: pytest.TempPathFactory, player: Player) -> Products:
    return Products(tmp_path_factory.mktemp("campaign"), player)


@pytest.fixture
def campaign(player: Player) -> Callable[[str, float], Campaign]:
    """Makes the campaign of one kind, which gets a share of the minutes."""

    def make(kind: str, share: float) -> Campaign:
        return Campaign(kind, SEED, 60 * MINUTES * share, player)

    return make


# Rows and results of a run differ in these, and in nothing else, from those of the same run on another day.
_OF_THE_DAY = ("second", "check", "name", "git_commits", "memory", "mfu", "data_wait")


@pytest.fixture
def numbers_of() -> Callable[[Path], str]:
    """Every number of a finished run that must be equal to the last bit: the rows of its log, and its result."""

    def numbers(workdir: Path) -> str:
        rows = [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]
        rows.append(json.loads((workdir / "result.json").read_text()))
        kept = [{k: v for k, v in row.items() if not any(word in k for word in _OF_THE_DAY)} for row in rows]
        return json.dumps(kept, sort_keys=True)

    return numbers
