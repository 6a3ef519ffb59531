"""Random damage to every kind of file that the product reads, in every command that reads it."""

import json
import random
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.campaign.damage import damage, files_below
from tests.campaign.oracle import Campaign, Played
from tests.campaign.products import CONFIG, Products, train

pytestmark = pytest.mark.slow

MakeCampaign = Callable[[str, float], Campaign]
# A line with one of these says that something was not taken as it lies there.
NOTICES = ("broken", "cannot be read", "cannot be used", "is not", "made anew", "differ", "was changed", "left out")


def damaged(folder: Path, draw: random.Random, spare: tuple[str, ...] = ()) -> str:
    """Damage one file below a folder, or two; returns how."""
    files = [path for path in files_below(folder) if not any(part in path.parts for part in spare)]
    done = [(path.relative_to(folder), damage(path, draw)) for path in draw.sample(files, draw.choice((1, 1, 1, 2)))]
    return ", ".join(f"{name}: {how}" for name, how in done if how)


def said(played: Played) -> bool:
    """A line tells of the damage."""
    return any(word in played.printed for word in NOTICES)


def test_a_damaged_run(campaign: MakeCampaign, products: Products) -> None:
    """Commands that read a run give what they gave, or a line."""
    trials = campaign("damaged runs", 0.13)
    commands = {
        "evaluate": ["--tokens=128"],
        "generate": ["--prompt=the sparse", "--tokens=6"],
        "compare": [],
        "export": [],
        "average": [],
    }

    def argv(name: str, workdir: Path) -> list[str]:
        given = {"compare": f"--runs={workdir}", "average": f"--runs={workdir},{products.run}"}
        out = [f"--out={products.place('out')}"] if name in ("export", "average") else []
        return [name, given[name] if name in given else f"--workdir={workdir}", *commands[name], *out]

    right = {name: trials.player.play(argv(name, products.copy(products.run, "run"))) for name in commands}
    assert all(played.code == 0 for played in right.values()), right
    for draw in trials.draws():
        workdir, name = products.copy(products.run, "run"), draw.choice(sorted(commands))
        what = damaged(workdir, draw, spare=("tensorboard", "loss.png"))
        played = trials.player.play(argv(name, workdir))
        same = played.code != 0 or played.out == right[name].out or said(played)
        trials.judge(what, played, "" if same else "other output, and no line")
    trials.closed()


def test_a_damaged_run_that_continues(
    campaign: MakeCampaign, products: Products, numbers_of: Callable[[Path], str]
) -> None:
    """Training goes on to the same numbers, or stops with a line."""
    trials = campaign("damaged runs continued", 0.11)

    def argv(workdir: Path) -> list[str]:
        return [*train(workdir, **products.read, train_steps=6), "--extend"]

    undisturbed = products.copy(products.run, "run")
    assert trials.player.play(argv(undisturbed)).code == 0
    expected = numbers_of(undisturbed)
    for draw in trials.draws():
        workdir = products.copy(products.run, "run")
        what = damaged(workdir, draw, spare=("tensorboard", "loss.png"))
        played = trials.player.play(argv(workdir))
        same = played.code != 0 or numbers_of(workdir) == expected or said(played)
        trials.judge(what, played, "" if same else "other numbers, and no line")
    trials.closed()


def test_damaged_tokens(campaign: MakeCampaign, products: Products, numbers_of: Callable[[Path], str]) -> None:
    """Token sets and token caches give the tokens that were written, or a line."""
    trials = campaign("damaged tokens", 0.1)
    first = products.place("first")
    assert trials.player.play(train(first, **products.read, train_steps=1)).code == 0
    from_set = products.place("from_set")
    as_set = {"data_source": "tokens", "data_path": products.set, "data_tokenizer": "byte", "train_steps": 1}
    assert trials.player.play(train(from_set, **as_set)).code == 0
    expected = {"cache": numbers_of(first), "set": numbers_of(from_set)}
    for draw in trials.draws():
        kind, workdir = draw.choice(("cache", "set")), products.place("trained")
        folder = products.copy(getattr(products, kind), kind)
        what = damaged(folder, draw)
        changes = {**products.read, "data_cache_dir": folder, "train_steps": 1}
        if kind == "set":
            changes = {**as_set, "data_path": folder}
        played = trials.player.play(train(workdir, **changes))
        same = played.code != 0 or numbers_of(workdir) == expected[kind]
        trials.judge(f"{kind}: {what}", played, "" if same else "other numbers")
    trials.closed()


def test_damaged_corpora(campaign: MakeCampaign, products: Products) -> None:
    """Other text has another digest; text that cannot be read is a line."""
    trials = campaign("damaged corpora", 0.09)

    def argv(folder: Path, name: str) -> list[str]:
        read = {"data_path": folder / name, "data_cache_dir": products.place("tokens"), "data_tokenizer": "byte"}
        return train(products.place("trained"), **products.formats[name], **read, train_steps=1)

    def losses() -> tuple[str, float]:
        result = json.loads((products.folder / "cases" / "trained" / "result.json").read_text())
        return result["data_digest"], result["validation_loss"]

    known: dict[str, float] = {}
    for name in products.formats:
        played = trials.player.play(argv(products.corpora, name))
        assert played.code == 0, played
        known.setdefault(*losses())
    for draw in trials.draws():
        folder, name = products.copy(products.corpora, "corpora"), draw.choice(sorted(products.formats))
        what = damage(folder / name, draw)
        played = trials.player.play(argv(folder, name))
        digest, loss = losses() if played.code == 0 else ("", 0.0)
        same = known.setdefault(digest, loss) == loss
        trials.judge(f"{name}: {what}", played, "" if same else "another loss under the same digest")
    trials.closed()


def test_damaged_exports(campaign: MakeCampaign, products: Products) -> None:
    """Exports give the text they gave, or a line."""
    trials = campaign("damaged exports", 0.07)

    def argv(folder: Path) -> list[str]:
        return ["generate", f"--workdir={folder}", "--prompt=the sparse", "--tokens=6"]

    right = {
        name: trials.player.play(argv(products.copy(folder, "export"))) for name, folder in products.exports.items()
    }
    assert all(played.code == 0 for played in right.values()), right
    for draw in trials.draws():
        name = draw.choice(sorted(products.exports))
        folder = products.copy(products.exports[name], "export")
        what = damaged(folder, draw, spare=("README.md",))
        played = trials.player.play(argv(folder))
        same = played.code != 0 or played.out == right[name].out
        trials.judge(f"{name}: {what}", played, "" if same else "another text")
    trials.closed()


PROMPTS = b'{"prompt": "the sparse"}\n{"prompt": "a block"}\n'
HEADER = "size,total_parameters,active_parameters,unique_tokens,total_tokens,epochs,density,validation_loss"


def table() -> bytes:
    """Finished runs as a CSV of our own columns."""
    rows = [HEADER]
    for total in (1e6, 4e6, 16e6):
        for density in (0.25, 1.0):
            for epochs in (1, 4, 8):
                loss = 1.7 + 300 / (total * density**0.7) ** 0.4 + 90 / (1e7 * epochs**0.6) ** 0.35
                values = (total, total * density, 1e7, 1e7 * epochs, epochs, density, loss)
                rows.append("x," + ",".join(f"{value:.8g}" for value in values))
    return ("\n".join(rows) + "\n").encode()


def test_damaged_inputs_of_commands(campaign: MakeCampaign, products: Products) -> None:
    """Prompts, tables and configs that people write: read, or a line."""
    trials = campaign("damaged inputs", 0.04)
    folder = products.place("inputs")
    folder.mkdir()
    contents = {"prompts.jsonl": PROMPTS, "rows.csv": table(), "own.py": CONFIG.read_bytes()}
    for draw in trials.draws():
        name = draw.choice(sorted(contents))
        (folder / name).write_bytes(contents[name])
        what = damage(folder / name, draw)
        commands = {
            "prompts.jsonl": ["generate", f"--workdir={products.run}", f"--prompts={folder / name}", "--tokens=2"],
            "rows.csv": ["fit", f"--rows={folder / name}", f"--out={products.place('fit')}", "--bootstrap=0"],
            "own.py": [*train(products.place("trained"), **products.read, train_steps=1), f"--config={folder / name}"],
        }
        trials.judge(f"{name}: {what}", trials.player.play(commands[name]))
    trials.closed()
