"""``--config=file.py:arguments --config.section.key=value`` into a checked ``RunConfig``."""

from __future__ import annotations

import ast
import importlib.util
import inspect
import sys
from collections.abc import Sequence, Set
from pathlib import Path
from types import ModuleType
from typing import Any

import ml_collections

from sparsejax.config import ConfigError, RunConfig, resolve
from sparsejax.topology.methods import METHODS


def load_run(config: str, overrides: Sequence[str]) -> RunConfig:
    """Resolve a config file and its overrides; unset sizes of the model are those of the checkpoint of ``init.from``.

    Args:
      config: ``path/to/file.py`` or ``path/to/file.py:arguments``; the file defines ``get_config``.
      overrides: ``--config.section.key=value`` in command-line order; the last one wins.

    Raises:
      ConfigError: no such file, an unknown key, a value of the wrong type, or anything ``resolve`` refuses.
    """
    path, _, argument = config.partition(":")
    settings = _get_config(Path(path), argument)
    overridden = set()
    for override in overrides:
        key, equals, text = override.removeprefix("--config.").partition("=")
        if not override.startswith("--config.") or not equals:
            raise ConfigError(f"{override}: unknown flag; settings read --config.section.key=value")
        _set(settings, key, text)
        overridden.add(key)
    _take_model(settings, overridden)
    return resolve(settings.to_dict())


def _take_model(settings: ml_collections.ConfigDict, overridden: Set[str]) -> None:
    """Where sizes of the model are unset, take what ``init.from`` says of it, but for what a flag says."""
    if not settings.init["from"] or not any(value is None for value in settings.model.values()):
        return
    # A checkpoint is opened by libraries that take seconds to import.
    from sparsejax.interop.dense_checkpoint import model_settings

    for name, value in model_settings(settings.init["from"]).items():
        if settings.model[name] is None or f"model.{name}" not in overridden:
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
    """The module of a config file; raises ``ConfigError`` if there is none or it defines no ``get_config``."""
    if not path.is_file():
        raise ConfigError(f"--config={path}: there is no such file; shipped ones are in configs/")
    # Shipped configs build on each other as the package `configs`, wherever the command is run from.
    for parent in path.resolve().parents:
        if parent.name == "configs" and str(parent.parent) not in sys.path:
            sys.path.insert(0, str(parent.parent))
    spec = importlib.util.spec_from_file_location(f"sparsejax_config_{path.stem}", path)
    if spec is None or spec.loader is None:
        raise ConfigError(f"--config={path}: is not a Python file")
    module = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except (ImportError, SyntaxError) as error:
        raise ConfigError(f"--config={path}: cannot be loaded ({error})") from error
    if not hasattr(module, "get_config"):
        raise ConfigError(f"--config={path}: defines no get_config()")
    return module


def _get_config(path: Path, argument: str) -> ml_collections.ConfigDict:
    module = load_module(path)
    takes_argument = bool(inspect.signature(module.get_config).parameters)
    if argument and not takes_argument:
        raise ConfigError(f"--config={path}:{argument}: this config takes no arguments after ':'")
    return module.get_config(argument) if takes_argument else module.get_config()


def _set(settings: ml_collections.ConfigDict, key: str, text: str) -> None:
    section, _, name = key.partition(".")
    known = section in settings and name in settings[section]
    if not known:
        # Left to resolve(), which knows the legal keys and suggests the nearest.
        resolve({**settings.to_dict(), section: {**_section(settings, section), name: text}})
        raise ConfigError(f"{key}: unknown config key")
    kind = settings[section].get_type(name)
    settings[section][name] = _parse(key, kind, text)
    if key == "topology.method" and text in METHODS:
        # The name alone would only relabel the run: it brings its choices, which later flags may change again.
        method = METHODS[text]
        settings.topology.update(method.topology)
        settings.optim.update(method.optim)


def _section(settings: ml_collections.ConfigDict, section: str) -> dict[str, Any]:
    return settings[section].to_dict() if section in settings else {}


def _parse(key: str, kind: type, text: str) -> Any:
    try:
        if kind is bool:
            return {"true": True, "1": True, "false": False, "0": False}[text.lower()]
        if kind is int:
            # Token counts are written 1e9 as often as 1000000000.
            number = float(text)
            if not number.is_integer():
                raise ValueError(text)
            return int(text) if text.lstrip("+-").isdigit() else int(number)
        if kind is float:
            return float(text)
        if kind is tuple:
            value = ast.literal_eval(text) if text.startswith("(") else tuple(filter(None, text.split(",")))
            return tuple(int(v) if isinstance(v, str) and v.strip().isdigit() else v for v in value)
    except (ValueError, KeyError, OverflowError, SyntaxError, TypeError):
        raise ConfigError(f"{key}={text}: must be of type {kind.__name__}") from None
    return text
