"""Random settings, flags, paths and names in every command: they work, or are refused in one line."""

import argparse
import random
import re
import shutil
from collections.abc import Callable, Iterator
from importlib import import_module

import pytest

from configs.base import get_config
from sparsejax.cli.flags import FlagParser
from sparsejax.cli.main import COMMANDS
from sparsejax.config import CHOICES, ConfigError, resolve
from tests.campaign.hostile import NAMES, VALUES
from tests.campaign.oracle import Campaign, Played
from tests.campaign.products import SETTINGS, Products, train

pytestmark = pytest.mark.slow

MakeCampaign = Callable[[str, float], Campaign]
# Settings that decide how long a run takes: those of a case stay small, so that a run ends within the patience.
LONG = ("train.steps", "train.epochs", "train.profile_start")


def settings() -> list[str]:
    """All settings of configs/base.py."""
    return [f"{section}.{key}" for section, values in get_config().to_dict().items() for key in values]


def drawn_value(name: str, draw: random.Random) -> str:
    """A value for a setting: a legal word, a small number, or a hostile one."""
    if name in CHOICES and draw.random() < 0.8:
        return draw.choice(CHOICES[name])
    if draw.random() < 0.5:
        return draw.choice(("0", "1", "2", "3", "4", "8", "0.1", "0.25", "0.9", "true", "false"))
    return draw.choice(VALUES)


def test_random_settings_in_runs(campaign: MakeCampaign, products: Products) -> None:
    trials = campaign("settings of runs", 0.12)
    for draw in trials.draws():
        names = draw.sample([name for name in settings() if name not in LONG], draw.choice((1, 2, 3)))
        changes = [f"--config.{name}={drawn_value(name, draw)}" for name in names]
        argv = [*train(products.place("trained"), **products.read, train_steps=2), *changes]
        trials.judge(" ".join(names), trials.player.play(argv))
    trials.closed()


def test_random_settings_are_resolved_or_refused(campaign: MakeCampaign) -> None:
    """Without training: values of every type, thousands of them."""
    trials = campaign("settings", 0.02)
    typed = (
        0,
        -1,
        1,
        2,
        7,
        10**30,
        0.5,
        float("nan"),
        float("inf"),
        "",
        "x",
        None,
        True,
        (),
        (4, 4),
        [],
        {},
        b"x",
        object(),
    )
    for draw in trials.draws():
        config = get_config().to_dict()
        for name, text in SETTINGS.items():
            section, key = name.split(".")
            config[section][key] = (4, 4) if key == "block" else type(config[section][key] or text)(text)
        for name in draw.sample(settings(), draw.choice((1, 2, 4))):
            section, key = name.split(".")
            config[section][key] = draw.choice(typed)
        try:
            resolve(config)
        except ConfigError as error:
            if "\n" in str(error):
                trials.find(f"an error of two lines: {error}")
        except Exception as error:
            trials.find(f"{config}: {type(error).__name__}: {error}")
    trials.closed()


def parsers() -> dict[str, list[argparse.Action]]:
    """The flags of every command, as its own parser knows them."""
    found: dict[str, list[argparse.Action]] = {}

    class Stopped(Exception):
        pass

    def keep(self: FlagParser, *_: object) -> None:
        found[self.prog.split()[-1]] = [action for action in self._actions if action.option_strings]
        raise Stopped

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(FlagParser, "parse_args", keep)
        patch.setattr(FlagParser, "parse_known_args", keep)
        for command in COMMANDS:
            with pytest.raises(Stopped):
                import_module(f"sparsejax.cli.{command}").main([])
    return found


def drawn_flags(actions: list[argparse.Action], products: Products, draw: random.Random) -> Iterator[str]:
    """A few flags of a command, with values that may be right."""
    right = [products.run, products.exports["hf"], products.text, products.corpora / "a.jsonl", products.place("out")]
    values = (*VALUES, *map(str, right * 4))
    for action in actions:
        if action.dest != "help" and (action.required or draw.random() < 0.25):
            flag, value = draw.choice(action.option_strings), draw.choice(values)
            takes = action.nargs != 0 and draw.random() < 0.95
            yield from ([f"{flag}={value}"] if draw.random() < 0.7 else [flag, value]) if takes else [flag]
    if draw.random() < 0.2:
        yield draw.choice(VALUES)


def test_random_flags(campaign: MakeCampaign, products: Products) -> None:
    trials, commands = campaign("flags", 0.05), parsers()
    assert set(commands) == set(COMMANDS)
    for draw in trials.draws():
        command = draw.choice(sorted(set(commands) - {"sweep"}))
        argv = [command, *drawn_flags(commands[command], products, draw)]
        # A whole config is needed to get past the first refusal; a flag of the draw may stand before or behind it.
        if command in ("train", "tokenize", "check") and draw.random() < 0.7:
            argv += train(products.place("trained"), **products.read, train_steps=1)[1:]
        trials.judge(command, trials.player.play(argv))
    trials.closed()


def numbers(played: Played) -> list[str]:
    """The losses that a command printed."""
    return re.findall(r"\d+\.\d{3,}", played.out)


def test_random_names(campaign: MakeCampaign, products: Products) -> None:
    """A run directory may have any name: what was trained there is found there."""
    trials = campaign("names", 0.05)
    expected = numbers(trials.player.play(["evaluate", f"--workdir={products.run}", "--tokens=128"]))
    for draw in trials.draws():
        name = "/".join(draw.choice(NAMES) for _ in range(draw.choice((1, 1, 2))))
        workdir = products.place("named") / name
        played = trials.player.play(train(workdir, **products.read))
        trials.judge(repr(name), played)
        if played.code == 0:
            again = trials.player.play(["evaluate", f"--workdir={workdir}", "--tokens=128"])
            trials.judge(repr(name), again, "" if numbers(again) == expected else "another evaluation")
        shutil.rmtree(products.place("named"), ignore_errors=True)
    trials.closed()
