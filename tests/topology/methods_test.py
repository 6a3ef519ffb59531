"""The table of methods."""

import re
from pathlib import Path

import pytest

from sparsejax.config import CHOICES
from sparsejax.topology.methods import METHODS


def test_the_table_holds_exactly_what_a_config_may_name():
    assert tuple(METHODS) == CHOICES["topology.method"]
    for method in METHODS.values():
        assert method.source
        for section, settings in (("topology", method.topology), ("optim", method.optim)):
            for name, value in settings.items():
                assert f"{section}.{name}" not in CHOICES or value in CHOICES[f"{section}.{name}"]


@pytest.mark.parametrize("name", METHODS)
def test_a_method_that_grows_drops(name):
    topology = METHODS[name].topology
    assert topology["grow"] == "none" or METHODS[name].moves


@pytest.mark.parametrize("name", METHODS)
def test_every_method_decides_the_same_settings(name):
    # Otherwise a config that changes its method would keep a choice of the method before.
    decided = set(METHODS["dense"].topology) | {"stop_fraction"}
    assert set(METHODS[name].topology) <= decided
    assert set(METHODS["dense"].topology) <= set(METHODS[name].topology)
    assert set(METHODS[name].optim) == {"form", "density_exponent"}


def test_methods_are_the_published_combinations():
    def changes(one, other):
        a, b = ({**METHODS[name].topology, **METHODS[name].optim} for name in (one, other))
        return {key for key in a.keys() | b.keys() if key not in a or key not in b or a[key] != b[key]}

    # RigL is SET with another growth score (and an end); SMET is SET with another optimizer form.
    assert changes("set", "rigl") == {"grow", "stop_fraction"}
    assert changes("set", "smet") == {"form", "density_exponent"}
    assert changes("smet", "smet_rigl") == {"grow"}
    assert changes("smet", "smet_code") == {"form", "density_exponent"}
    assert changes("static", "set") == {"drop", "grow"}


def test_the_documented_table_has_every_method():
    text = (Path(__file__).resolve().parents[2] / "docs" / "METHODS.md").read_text(encoding="utf-8")
    assert re.findall(r"^\| `(\w+)` \|", text, re.MULTILINE) == list(METHODS)
