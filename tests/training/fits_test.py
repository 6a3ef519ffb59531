"""A run that cannot fit is refused by arithmetic."""

import pytest

from sparsejax.config import ConfigError
from sparsejax.training import memory
from tests.training.tiny import tiny_recipe


def test_a_state_larger_than_the_memory_is_refused(tmp_path, monkeypatch):
    recipe = tiny_recipe(tmp_path, model_layers=1)
    memory.check_fits(recipe)
    needed = memory.nbytes(recipe.abstract)
    monkeypatch.setattr(memory, "_memory_of_this_process", lambda: needed - 1)
    with pytest.raises(ConfigError, match=r"model\.hidden=.*weights and moments take .* GiB, and there are"):
        memory.check_fits(recipe)
