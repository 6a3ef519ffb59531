"""Whatever is wrong with the newest checkpoint, the run goes on from it bit for bit, or from the one before."""

import shutil

import jax
import numpy as np
import pytest

from tests.training.checkpoint_test import ABSTRACT, open_checkpoints, saved, state_at

BAD_METADATA = (
    "null",
    "[]",
    "{}",
    '{"custom_metadata": []}',
    '{"custom_metadata": {"config": 3, "digest": "x"}}',
    '{"custom_metadata": {"config": {}, "digest": ' + "9" * 5000 + "}}",
    "[" * 100_000,
)


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    directory = tmp_path_factory.mktemp("damage")
    saved(directory, [1, 2])
    return directory


def flip(path, place):
    content = bytearray(path.read_bytes())
    content[int(place * (len(content) - 1))] ^= 1 << int(8 * place) % 8
    path.write_bytes(bytes(content))


def make_folder(path):
    path.unlink()
    path.mkdir()


def make_file(path):
    shutil.rmtree(path)
    path.write_text("x")


DAMAGES = {
    "emptied": lambda path: path.write_bytes(b""),
    "cut in half": lambda path: path.write_bytes(path.read_bytes()[: path.stat().st_size // 2]),
    "removed": lambda path: path.unlink(),
    "a folder": make_folder,
    **{f"flipped at {place}": lambda path, place=place: flip(path, place) for place in (0.0, 0.25, 0.5, 0.75, 1.0)},
}


def damages(step):
    """Every way to damage the checkpoint in the folder ``step``, as a name and what does it to a copy."""
    for path in sorted(step.rglob("*")):
        name = path.relative_to(step)
        if path.is_file():
            for how, damage in DAMAGES.items():
                yield f"{name} {how}", lambda copy, name=name, damage=damage: damage(copy / name)
        else:
            yield f"{name} removed", lambda copy, name=name: shutil.rmtree(copy / name)
            yield f"{name} a file", lambda copy, name=name: make_file(copy / name)
    yield "all a file", make_file
    yield "all empty", lambda copy: (shutil.rmtree(copy), copy.mkdir())
    for text in BAD_METADATA:
        yield f"metadata {text[:40]}", lambda copy, text=text: (copy / "_CHECKPOINT_METADATA").write_text(text)


def check(source, directory, name, damage):
    workdir = directory / "run"
    shutil.copytree(source, workdir)
    damage(workdir / "checkpoints" / "2")
    notices = []
    with open_checkpoints(workdir, notices) as checkpoints:
        found = checkpoints.restore(lambda _: ABSTRACT)
        step = int(found.step)
        if step == 1:
            assert len(notices) == 1 and "checkpoint 2 is broken" in notices[0] and "\n" not in notices[0], name
            assert (workdir / "checkpoints-broken" / "2").exists(), name
            # The broken one does not block the next save of that step.
            checkpoints.save(state_at(2), {})
            checkpoints.wait()
            assert checkpoints.steps == [1, 2], name
        else:
            assert step == 2 and notices == [], name
    assert jax.tree.all(jax.tree.map(np.array_equal, found, state_at(step))), name
    shutil.rmtree(workdir)
    return step


def other_config(copy):
    path = copy / "_CHECKPOINT_METADATA"
    path.write_text(path.read_text().replace('"lr": 0.1', '"lr": 0.5'))


def test_some_damages(source, tmp_path):
    every = dict(damages(source / "checkpoints" / "2"))
    chosen = list(every)[::17] + [f"metadata {text[:40]}" for text in BAD_METADATA[::3]]
    chosen += [name for name in every if "/ocdbt.process_0/d/" in name and name.endswith("cut in half")]
    for name in chosen:
        check(source, tmp_path, name, every[name])
    # A value of the config that is legal, but is not what was saved.
    assert check(source, tmp_path, "another config", other_config) == 1


@pytest.mark.slow
def test_every_damage(source, tmp_path):
    for name, damage in damages(source / "checkpoints" / "2"):
        check(source, tmp_path, name, damage)


def test_when_all_are_broken_nothing_is_moved(source, tmp_path):
    workdir = tmp_path / "run"
    shutil.copytree(source, workdir)
    for step in "12":
        shutil.rmtree(workdir / "checkpoints" / step / "state")
    # Every start refuses: if the first one moved them, the second would begin at 0.
    for _ in range(2):
        with open_checkpoints(workdir, []) as checkpoints, pytest.raises(ValueError, match=r"none of .* \[1, 2\]"):
            checkpoints.restore(lambda _: ABSTRACT)


def test_left_overs_go(source, tmp_path):
    workdir = tmp_path / "run"
    shutil.copytree(source, workdir)
    for name in ("3.orbax-checkpoint-tmp", "1.removed"):
        (workdir / "checkpoints" / name / "state").mkdir(parents=True)
    with open_checkpoints(workdir, []):
        assert sorted(path.name for path in (workdir / "checkpoints").iterdir()) == ["1", "2"]
