"""A LLaMA of a published size, dense or sparse.

    sparsejax train --config=configs/llama.py:size=60m,density=0.25,block=32 --workdir=runs/60m

Arguments, each given at most once:

    size      a name of sparsejax/models/sizes.py; required
    density   share of active weights; 0.25, and 1 for the method dense
    block     16 (square), 16x32 (rows x columns) or 1 (unstructured); 16
    method    a row of sparsejax/topology/methods.py; dense at density 1, else smet
    shards    equal shares of each weight; 1
    balance   none, column; none
    widths    given; sparse_ift (wider, so that the weights active at this density are as many as the dense size has:
              Sparse-IFT); same_active (dense and narrower, with as many weights as are active at this density); given

A dense run with the same total of parameters is `method=dense` and the same block: the MLP width is rounded to it.
A run is 10,000 steps of 64 rows of 256 tokens, 0.16 G tokens: set `train.steps` and `train.batch_size` for your budget.
The vocabulary is the 32,000 tokens of both papers. Data and everything else are as in base.py.
"""

import dataclasses
import math
from collections.abc import Callable
from typing import Any

from ml_collections import ConfigDict

from configs.base import get_config as base
from sparsejax.config import ConfigError
from sparsejax.models.sizes import SIZES, Size, dense_with_active, rounded_mlp, widened
from sparsejax.topology.methods import METHODS

# Peak rates of a dense weight; a sparse one gets lr * density ** -density_exponent.
# Published by SMET, arXiv 2606.00888, both following density exponent 1: 20m (1.95e-3 dense, sixteen times that at
# density 0.0625) and 1b (1e-3, 2e-3, 5e-3 at densities 0.5, 0.3, 0.1, so 5e-4 dense). All others are starting points
# on the power law through these two, total ** -0.32: sweep around them.
PEAK_LR: dict[str, float] = {
    "20m": 1.95e-3,
    "40m": 1.6e-3,
    "60m": 1.4e-3,
    "60m-s": 1.4e-3,
    "120m": 1.1e-3,
    "130m": 1.1e-3,
    "240m": 9e-4,
    "240m-s": 9e-4,
    "350m": 8e-4,
    "480m": 7e-4,
    "960m": 5.5e-4,
    "1b": 5e-4,
    "1b92": 4.5e-4,
    "3b": 4e-4,
    "3b84": 3.5e-4,
    "7b": 3e-4,
}


# Methods with a density of their own: plain dense weights, and the 2:4 of base.py.
OWN_DENSITY = {"dense": 1.0, "galore": 1.0, "sr_ste": 0.5}


def get_config(arguments: str) -> ConfigDict:
    """The config of ``arguments``, for example ``"size=60m,density=0.25,block=32"``; raises ``ConfigError``."""
    given = parse(arguments)
    if "size" not in given:
        raise ConfigError(f"size is missing: configs/llama.py:size=<one of {', '.join(SIZES)}>")
    widths = given.pop("widths") if "widths" in given else "given"
    narrows = widths == "same_active"
    if "method" not in given:
        given["method"] = "dense" if narrows or ("density" in given and given["density"] == 1.0) else "smet"
    if narrows and given["method"] not in ("dense", "galore"):
        raise ConfigError(f"method={given['method']}: widths=same_active is a dense run; leave method out")
    if given["method"] in OWN_DENSITY and "density" not in given and not narrows:
        given["density"] = OWN_DENSITY[given["method"]]
    c = base()
    name = given.pop("size")
    set_size(c, name)
    set_method(c, given.pop("method"))
    c.topology.update(given)
    if widths != "given":
        scale_widths(c, SIZES[name], widths)
    return c


def set_size(c: ConfigDict, name: str) -> None:
    """Set the shape and the learning rate of a published size."""
    set_shape(c, SIZES[name])
    c.data.vocab_size = 32_000  # of both papers; the totals that give the sizes their names count it
    c.optim.lr = PEAK_LR[name]


def set_shape(c: ConfigDict, size: Size) -> None:
    """Set the name and the widths of a size."""
    c.model.update(size=size.name, hidden=size.hidden, mlp=size.mlp, layers=size.layers)
    c.model.update(heads=size.heads, kv_heads=size.heads, head_dim=size.head_dim)


def scale_widths(c: ConfigDict, size: Size, widths: str) -> None:
    """Widen the size, or narrow it and make it dense, to the same number of active weights; raises ``ConfigError``."""
    topology = c.topology
    # The size as a run of these blocks would have it, and a unit that needs no further rounding.
    used = dataclasses.replace(size, mlp=rounded_mlp(size.mlp, topology.block, topology.shards))
    scale = widened if widths == "sparse_ift" else dense_with_active
    try:
        set_shape(c, scale(used, topology.density, math.lcm(*topology.block) * topology.shards))
    except ValueError as error:
        raise ConfigError(f"widths={widths}: {error}; take a larger size or density") from error
    if widths == "same_active":
        topology.density = 1.0


def set_method(c: ConfigDict, name: str) -> None:
    """Set the choices that make a method; each of them can still be changed."""
    method = METHODS[name]
    c.topology.update(method.topology, method=name)
    c.optim.update(method.optim)


def parse(arguments: str) -> dict[str, Any]:
    """``name=value`` pairs, separated by commas, as typed values; anything else raises ``ConfigError``."""
    given: dict[str, Any] = {}
    for pair in filter(None, arguments.split(",")):
        name, equals, value = (part.strip() for part in pair.partition("="))
        if name not in READERS:
            raise ConfigError(f"{name}: not an argument of configs/llama.py, which takes {', '.join(READERS)}")
        if name in given or not equals:
            raise ConfigError(f"{pair}: write every argument once, as {name}=<value>")
        try:
            given[name] = READERS[name](value)
        except ValueError as error:
            raise ConfigError(f"{name}={value}: {error}") from error
    return given


def one_of(names: tuple[str, ...]) -> Callable[[str], str]:
    """A reader that accepts these names only."""

    def read(value: str) -> str:
        if value not in names:
            raise ValueError(f"not one of {', '.join(names)}")
        return value

    return read


def number(kind: type[int] | type[float]) -> Callable[[str], int | float]:
    """A reader of one number."""

    def read(value: str) -> int | float:
        try:
            return kind(value)
        except ValueError:
            raise ValueError(f"not a number of type {kind.__name__}") from None

    return read


def block(value: str) -> tuple[int, int]:
    """``16`` or ``16x32`` as rows and columns."""
    sides = value.split("x")
    if len(sides) > 2 or not all(side.isdecimal() for side in sides):
        raise ValueError("write a block as 16 or 16x32 (rows x columns)")
    return int(sides[0]), int(sides[-1])


READERS: dict[str, Callable[[str], Any]] = {
    "size": one_of(tuple(SIZES)),
    "density": number(float),
    "block": block,
    "method": one_of(tuple(METHODS)),
    "shards": number(int),
    "balance": one_of(("none", "column")),
    "widths": one_of(("given", "sparse_ift", "same_active")),
}
