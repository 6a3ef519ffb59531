"""Points: stable names, flags that the command line reads back, and what is refused."""

import pytest

from sparsejax.config import ConfigError
from sparsejax.planning.points import Point, point_name, read_points, select


@pytest.mark.parametrize(
    ("settings", "name"),
    [
        ({}, "base"),
        ({"topology.method": "rigl", "optim.lr": 0.004}, "method=rigl,lr=0.004"),
        ({"optim.lr": 16e-3}, "lr=0.016"),
        ({"optim.eps": 1e-8}, "eps=1e-08"),
        ({"topology.block": (16, 32)}, "block=16x32"),
        ({"topology.regrow_dropped": True}, "regrow_dropped=True"),
        ({"topology.rules": ("attention.*=0.5", "mlp.up=1")}, "rules=attention._=0.5+mlp.up=1"),
        ({"topology.rules": ()}, "rules=none"),
        ({"data.path": "/a b/c"}, "path=_a_b_c"),
        # Two fields of one name keep their sections.
        ({"model.init": "normal", "seeds.init": 3, "optim.b1": 0.9}, "model.init=normal,seeds.init=3,b1=0.9"),
    ],
)
def test_names(settings, name):
    assert point_name(settings) == name


def test_a_point_as_flags():
    settings = {
        "topology.block": (4, 4),
        "optim.lr": 1e-5,
        "train.steps": 20,
        "model.tied_head": True,
        "topology.rules": ("mlp.up=0.5",),
        "optim.form": "naive",
    }
    assert Point("a", settings).flags == (
        "--config.topology.block=(4, 4)",
        "--config.optim.lr=1e-05",
        "--config.train.steps=20",
        "--config.model.tied_head=True",
        "--config.topology.rules=('mlp.up=0.5',)",
        "--config.optim.form=naive",
    )


def test_points_keep_their_order():
    assert [point.name for point in read_points([{"optim.lr": 2.0}, {}, {"optim.lr": 1.0}])] == [
        "lr=2.0",
        "base",
        "lr=1.0",
    ]


@pytest.mark.parametrize(
    ("points", "message"),
    [
        ([], "points(): is empty"),
        ([{"optim.lr": 1.0}, {"optim.lr": 1.0}], "points(): two points are called 'lr=1.0'"),
        ([{"optim.lr": 1.0, "topology.method": "set"}], "points(): 'lr=1.0,method=set' must set topology.method first"),
    ],
)
def test_bad_points_are_refused_in_one_line(points, message):
    with pytest.raises(ConfigError) as caught:
        read_points(points)
    assert str(caught.value).startswith(message) and "\n" not in str(caught.value)


NAMED = read_points(
    [
        {"topology.method": "set"},
        {"topology.method": "set", "optim.lr": 0.1},
        {"optim.lr": 0.1},
        {"topology.method": "rigl", "optim.lr": 0.1},
    ]
)


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("lr=0.1", ["lr=0.1"]),
        ("method=rigl,lr=0.1,method=set", ["method=set", "method=rigl,lr=0.1"]),
        # Both readings are possible; the longest name counts.
        ("method=set,lr=0.1", ["method=set,lr=0.1"]),
        ("lr=0.1,method=set", ["method=set", "lr=0.1"]),
    ],
)
def test_names_hold_commas_and_can_still_be_listed(text, names):
    assert [point.name for point in select(NAMED, text)] == names


@pytest.mark.parametrize("text", ["method=smet", "method=set,lr=0.2", "lr=0.1,", "method=rigl"])
def test_an_unknown_name_is_refused(text):
    with pytest.raises(ConfigError, match=r"^--only=.*: begins with no point of this sweep; it has method=set, "):
        select(NAMED, text)
