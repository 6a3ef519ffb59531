"""``--config=file.py:arguments --config.section.key=value`` into a checked ``RunConfig``."""

from __future__ import annotations

import ast
import importlib.util
import inspect
import sys
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence, Set
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

import ml_collections

from sparsejax.config import KINDS, ConfigError, RunConfig, resolve
from sparsejax.files.text import one_line
from sparsejax.topology.methods import METHODS

# Where configs/base.py is if sparsejax is installed from a checkout.
_SHIPPED = Path(__file__).resolve().parents[2] / "configs"
# Random keys are made of 32 bits: further ones would be dropped without a word.
_SEEDS = range(-(2**31), 2**32)
METHOD = "topology.method"


def load_run(config: str, overrides: Sequence[str], undone: Callable[[str], None] | None = None) -> RunConfig:
    """Resolve a config file and its overrides; unset sizes of the model are those of the checkpoint of ``init.from``.

    Args:
      config: ``path/to/file.py`` or ``path/to/file.py:arguments``; the file defines ``get_config``.
      overrides: ``--config.section.key=value`` in command-line order; the last one wins.
      undone: told, one line each, which flags the settings of a method given behind them undo. None refuses them.

    Raises:
      ConfigError: no such file, an unknown key, a value of the wrong type, or anything ``resolve`` refuses.
    """
    path, argument = split_config(config)
    settings = _get_config(path, argument)
    overridden = set()
    for line in _undone(overrides):
        if undone is None:
            raise ConfigError(line)
        undone(line)
    for override in overrides:
        key, equals, text = override.removeprefix("--config.").partition("=")
        if not override.startswith("--config.") or not equals:
            raise ConfigError(f"{override}: unknown flag; settings read --config.section.key=value")
        _set(settings, key, text)
        overridden.add(key)
    _take_model(settings, overridden)
    # A setting may be a reference to others, which is worked out here.
    with _one_line(path):
        plain = settings.to_dict()
    run = resolve(plain)
    for name, seed in vars(run.seeds).items():
        if seed not in _SEEDS:
            raise ConfigError(f"seeds.{name}={seed}: must be in [{_SEEDS.start}, {_SEEDS.stop - 1}]")
    return run


def split_config(config: str) -> tuple[Path, str]:
    """The file and the arguments of ``path/to/file.py:arguments``; a path that is there may have colons of its own."""
    pieces = config.split(":")
    for count in range(1, len(pieces) + 1):
        path = Path(":".join(pieces[:count]))
        if path.is_file():
            return path, ":".join(pieces[count:])
    return Path(pieces[0]), ":".join(pieces[1:])


def _take_model(settings: ml_collections.ConfigDict, overridden: Set[str]) -> None:
    """Where sizes of the model are unset, take what ``init.from`` says of it, but for what a flag says."""
    checkpoint = settings.init["from"] if "from" in settings.init else ""
    given = {name: settings.model[name] if name in settings.model else None for name in KINDS["model"]}
    if not checkpoint or not isinstance(checkpoint, str) or None not in given.values():
        return
    # A checkpoint is opened by libraries that take seconds to import.
    from sparsejax.interop.dense_checkpoint import model_settings

    found = model_settings(checkpoint)
    with settings.unlocked(), settings.ignore_type():
        for name, value in found.items():
            if given[name] is None or f"model.{name}" not in overridden:
                settings.model[name] = value


def join_values(arguments: Sequence[str]) -> list[str]:
    """``["--config.a.b", "1"]`` as ``["--config.a.b=1"]``, so that both ways of writing a flag work."""
    joined: list[str] = []
    for argument in arguments:
        if joined and joined[-1].startswith("--config.") and "=" not in joined[-1]:
            joined[-1] += f"={argument}"
        else:
            joined.append(argument)
    return joined


def load_module(path: Path) -> ModuleType:
    """The module of a config file, wherever it is; it may import ``configs.base``, and what lies beside it.

    Raises:
      ConfigError: there is no such file, or it cannot be run, or it defines no ``get_config``.
    """
    if not path.is_file():
        raise ConfigError(f"--config={path}: there is no such file; shipped ones are in configs/")
    spec = importlib.util.spec_from_file_location(f"sparsejax_config_{path.stem}", path)
    if spec is None or spec.loader is None:
        raise ConfigError(f"--config={path}: is not a Python file")
    _offer_configs(path.resolve())
    module = importlib.util.module_from_spec(spec)
    with _one_line(path):
        spec.loader.exec_module(module)
    if not callable(getattr(module, "get_config", None)):
        raise ConfigError(f"--config={path}: defines no get_config()")
    return module


def _offer_configs(path: Path) -> None:
    """Let a file import the package ``configs``: the folder of that name that it is in, and the shipped one."""
    folders = [str(parent) for parent in path.parents if parent.name == "configs"]
    if (_SHIPPED / "base.py").is_file():
        folders.append(str(_SHIPPED))
    package = sys.modules.setdefault("configs", ModuleType("configs"))
    package.__path__ = list(dict.fromkeys([*folders, *getattr(package, "__path__", ())]))
    if str(path.parent) not in sys.path:
        sys.path.append(str(path.parent))


@contextmanager
def _one_line(path: Path) -> Iterator[None]:
    """Turn whatever code of the user raises into a ``ConfigError`` that names the line."""
    try:
        yield
    except ConfigError:
        raise
    # SystemExit too: a config that calls exit() would end the command without a word.
    except (Exception, SystemExit) as error:
        if isinstance(error, ModuleNotFoundError) and str(error.name).split(".")[0] == "configs":
            hint = f"it is neither beside it nor in {_SHIPPED}, the checkout that sparsejax is installed from"
            raise ConfigError(f"--config={path}: imports {error.name}: {hint}") from error
        lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == str(path)]
        number = error.lineno if isinstance(error, SyntaxError) else lines[-1] if lines else None
        reason = f"{type(error).__name__}: {one_line(error)}" if str(error) else type(error).__name__
        raise ConfigError(f"--config={path}: cannot be loaded, line {number or 1}: {reason}") from error


def _get_config(path: Path, argument: str) -> ml_collections.ConfigDict:
    get_config = load_module(path).get_config
    with _one_line(path):
        takes_argument = bool(inspect.signature(get_config).parameters)
        if argument and not takes_argument:
            raise ConfigError(f"--config={path}:{argument}: this config takes no arguments after ':'")
        made = get_config(argument) if takes_argument else get_config()
        if isinstance(made, Mapping):
            made = ml_collections.ConfigDict(made)
    if not isinstance(made, ml_collections.ConfigDict):
        raise ConfigError(
            f"--config={path}: get_config() returns {type(made).__name__}, and must return the ConfigDict that "
            "configs.base.get_config() made"
        )
    for name in KINDS:
        if name not in made:
            raise ConfigError(f"--config={path}: {name}: this section is missing; start from configs/base.py")
        if not isinstance(made[name], ml_collections.ConfigDict):
            raise ConfigError(f"--config={path}: {name} is {type(made[name]).__name__}, and must hold settings")
    return made


def _set(settings: ml_collections.ConfigDict, key: str, text: str) -> None:
    section, _, name = key.partition(".")
    if section not in KINDS or name not in KINDS[section]:
        # Left to resolve(), which knows the legal keys and suggests the nearest.
        plain = settings.to_dict()
        resolve({**plain, section: {**(plain[section] if section in plain else {}), name: text}})
    with settings.unlocked(), settings.ignore_type():
        settings[section][name] = parse_value(section, name, text)
        if key == METHOD and text in METHODS:
            # The name alone would only relabel the run: it brings its choices, which later flags may change again.
            method = METHODS[text]
            settings.topology.update(method.topology)
            settings.optim.update(method.optim)


def _undone(overrides: Sequence[str]) -> list[str]:
    """One line for each flag whose value a method that is given behind it replaces by another."""
    standing: dict[str, str] = {}
    lines: dict[str, str] = {}
    for override in overrides:
        key, _, text = override.removeprefix("--config.").partition("=")
        standing[key] = text
        lines.pop(key, None)
        if key != METHOD or text not in METHODS:
            continue
        method = METHODS[text]
        rows = {"topology": method.topology, "optim": method.optim}
        for field, given in standing.items():
            section, _, name = field.partition(".")
            row = rows[section] if section in rows else {}
            if name in row and parse_value(section, name, given) != row[name]:
                lines[field] = (
                    f"--config.{field}={given}: is undone by --config.{METHOD}={text} behind it, which sets "
                    f"{field}={row[name]}; put the method first, or leave the flag out"
                )
    return list(lines.values())


def parse_value(section: str, name: str, text: str) -> Any:
    """The value of a setting from the text of its flag; raises ``ConfigError`` for text of another type."""
    kind = KINDS[section][name]
    try:
        if kind is bool:
            return {"true": True, "1": True, "false": False, "0": False}[text.lower()]
        if kind is int:
            return _whole(text)
        if kind is float:
            return float(text)
        if kind is str:
            return text
        value = ast.literal_eval(text) if text.startswith("(") else tuple(filter(None, text.split(",")))
        return tuple(int(v) if isinstance(v, str) and v.strip().isdecimal() else v for v in value)
    except (ValueError, KeyError, OverflowError, SyntaxError, TypeError, RecursionError, MemoryError):
        wanted = kind.__name__ if kind in (bool, int, float) else "tuple"
        raise ConfigError(f"{section}.{name}={text}: must be of type {wanted}") from None


def _whole(text: str) -> int:
    try:
        return int(text)
    except ValueError:
        # Token counts are written 1e9 as often as 1000000000.
        number = float(text)
        if not number.is_integer():
            raise
        return int(number)
