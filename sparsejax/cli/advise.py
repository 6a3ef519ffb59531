"""``sparsejax advise``: which size, density and number of epochs, for so many unique tokens and FLOPs."""

from __future__ import annotations

import argparse
import math
from pathlib import Path

from sparsejax.cli.flags import FlagParser
from sparsejax.config import ConfigError
from sparsejax.scaling.advice import advise
from sparsejax.scaling.advice_report import advice_lines, prediction_lines
from sparsejax.scaling.devices import realised
from sparsejax.scaling.limits import Limits
from sparsejax.scaling.prediction import predict_run
from sparsejax.scaling.saved_fit import SavedFit, published_default, read

_PREDICTED = ("size", "parameters", "tokens", "unique", "density")


def main(argv: list[str]) -> int:
    """Print the best dense and the best sparse choice, or the loss of one run; returns 0."""
    parser = _parser()
    flags = parser.parse_args(argv)
    known = published_default() if flags.fit is None else read(flags.fit)
    if flags.predict is not None:
        if flags.unique_tokens is not None or flags.flops is not None:
            parser.error("--predict: takes a run, not a budget; leave out --unique-tokens and --flops")
        print("\n".join(prediction_lines(known, predict_run(known, *_run(flags.predict, known)))))
        return 0
    if flags.unique_tokens is None or flags.flops is None:
        parser.error("--unique-tokens and --flops: give both, or --predict")
    limits = _limits(parser, flags)
    print("\n".join(advice_lines(known, limits, advise(known, limits))))
    return 0


def _parser() -> FlagParser:
    parser = FlagParser(
        "advise",
        "Size, density and epochs for a budget, by a scaling law.",
        "Without --fit the published law of sparse training under repeated data (arXiv 2606.01155) answers.",
    )
    parser.add_argument("--unique-tokens", help="distinct training tokens at hand, or 'unlimited'")
    parser.add_argument("--flops", type=float, help="training FLOPs, 6 N D")
    parser.add_argument("--fit", type=Path, help="fit.json of 'sparsejax fit'")
    parser.add_argument("--hardware", help="devices that will run it, such as v5p:4x4x4 or h200:64")
    parser.add_argument("--hours", type=float, help="most hours on --hardware, at an assumed utilisation")
    parser.add_argument("--epochs", type=float, default=1000.0, help="most passes over the unique tokens")
    parser.add_argument("--least-density", type=float, default=0.0625, help="lowest density to consider")
    parser.add_argument(
        "--predict", help="the loss of one run instead: size=120m,density=0.25,tokens=5e9,unique=1e9, or parameters=1e8"
    )
    return parser


def _limits(parser: FlagParser, flags: argparse.Namespace) -> Limits:
    if not 1 <= flags.epochs < math.inf:
        parser.error(f"--epochs={flags.epochs:g}: must be at least 1 and finite")
    if not 0 < flags.least_density < 1:
        parser.error(f"--least-density={flags.least_density:g}: must be in (0, 1)")
    if flags.hours is not None and flags.hardware is None:
        parser.error(f"--hours={flags.hours:g}: needs --hardware, whose hours they are")
    if flags.hours is not None and not 0 < flags.hours < math.inf:
        parser.error(f"--hours={flags.hours:g}: must be above 0 and finite")
    system = None
    if flags.hardware is not None:
        from sparsejax.hardware.systems import parse_system

        try:
            system = parse_system(flags.hardware)
        except ValueError as error:
            raise ConfigError(f"--hardware={flags.hardware}: {error}") from None
    unique = math.inf
    if flags.unique_tokens != "unlimited":
        unique = _number(flags.unique_tokens, "--unique-tokens", "a number above 0, or 'unlimited'")
    return Limits(flags.flops, unique, flags.epochs, flags.least_density, system, flags.hours)


def _number(text: str, what: str, wanted: str = "a number above 0") -> float:
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0 < value < math.inf:
        raise ConfigError(f"{what}={text}: must be {wanted}")
    return value


def _run(text: str, known: SavedFit) -> tuple[float, float, float, float]:
    """Parameters as the law counts them, tokens, unique tokens and density of ``--predict``."""
    given: dict[str, str] = {}
    for part in text.split(","):
        name, _, value = part.partition("=")
        if name not in _PREDICTED or name in given:
            raise ConfigError(f"--predict={text}: takes each of {', '.join(_PREDICTED)} once, as name=value")
        given[name] = value
    if "tokens" not in given or ("size" in given) == ("parameters" in given):
        raise ConfigError(f"--predict={text}: needs tokens, and one of size and parameters")
    numbers = {name: _number(value, f"--predict: {name}") for name, value in given.items() if name != "size"}
    density = numbers.get("density", 1.0)
    if density > 1:
        raise ConfigError(f"--predict: density={density:g}: must be in (0, 1]")
    if "size" in given:
        model = realised(given["size"], density, 128, True)
        parameters, density = model.counted(known.convention), model.density
    else:
        parameters = numbers["parameters"]
    return parameters, numbers["tokens"], numbers.get("unique", math.inf), density
