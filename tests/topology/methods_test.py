"""The table of methods."""

import pytest

from sparsejax.config import CHOICES
from sparsejax.topology.methods import METHODS


def test_the_table_holds_exactly_what_a_config_may_name():
    assert tuple(METHODS) == CHOICES["topology.method"]
    for method in METHODS.values():
        assert method.drop in CHOICES["topology.drop"]
        assert method.grow in CHOICES["topology.grow"]
        assert method.form in CHOICES["optim.form"]
        assert method.source


@pytest.mark.parametrize("name", METHODS)
def test_a_method_drops_exactly_if_it_grows(name):
    assert (METHODS[name].drop == "none") == (METHODS[name].grow == "none")


def test_methods_are_the_published_combinations():
    moving = {name for name, method in METHODS.items() if method.drop == "magnitude" and method.grow == "random"}
    assert moving == {"set", "smet", "smet_code"}
    # SMET is SET with another optimizer form, and it alone scales the learning rate with density.
    assert [METHODS[name].form for name in ("set", "smet", "smet_code")] == ["naive", "smet", "smet_code"]
    assert {name: method.density_exponent for name, method in METHODS.items() if method.density_exponent} == {
        "smet": 0.5
    }
