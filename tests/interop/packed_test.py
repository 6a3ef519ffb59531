"""Packed files: active blocks bit for bit, without jax, and one line for what is none."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest
from safetensors.numpy import load_file

from sparsejax.config import ConfigError
from sparsejax.interop.export import export
from sparsejax.interop.from_export import read_export
from sparsejax.interop.llama_tensors import EMBEDDING
from sparsejax.interop.packed import Blocks, PackedFileError, PackedModel, file_digest

UP = "model.layers.1.mlp.up_proj.weight"
# An export of a run of density 0.5 in blocks of 4 x 4, mlp.down dense; see transformers_golden.py.
GOLDEN = Path(__file__).resolve().parent.parent / "golden" / "interop" / "export"


@pytest.fixture(scope="module")
def packed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("packed") / "out"
    export(GOLDEN, out, form="packed", dtype=None, shard_bytes=1, notice=print)
    return out / "model.packed.safetensors"


def test_packed_files_hold_active_blocks_bit_for_bit(packed: Path) -> None:
    model, dense = PackedModel(packed), GOLDEN / "model.safetensors"
    exact = load_file(dense)
    assert model.names == sorted(exact) and len(model.sparse) == 12
    for name, array in exact.items():
        assert model.tensor(name).tobytes() == array.tobytes()
    blocks = model.blocks(UP)
    assert isinstance(blocks, Blocks) and blocks.values.shape == (16, 4, 4)
    first = exact[UP][4 * blocks.rows[0] :, 4 * blocks.columns[0] :][:4, :4]
    np.testing.assert_array_equal(blocks.values[0], first)
    stored = sum(model.stored_bytes(name) for name in model.sparse)
    whole = sum(exact[name].nbytes for name in model.sparse)
    assert stored / whole <= 0.5 + 0.02
    assert model.facts["density"] > 0.5 and model.config["hidden_size"] == 16


def test_packed_files_of_bfloat16(packed: Path, tmp_path: Path) -> None:
    export(GOLDEN, tmp_path / "out", form="packed", dtype="bfloat16", shard_bytes=1, notice=print)
    model = PackedModel(tmp_path / "out" / "model.packed.safetensors")
    exact = load_file(GOLDEN / "model.safetensors")
    assert model.dtype == "bfloat16"
    for name, array in exact.items():
        np.testing.assert_array_equal(model.tensor(name), array.astype(ml_dtypes.bfloat16).astype(np.float32))


def test_packed_files_load_without_jax(packed: Path) -> None:
    code = (
        "import sys; from sparsejax.interop.packed import PackedModel\n"
        f"model = PackedModel({str(packed)!r})\n"
        "assert len(model.state_dict()) == 21\n"
        "known = {'jax', 'ml_dtypes', 'flax', 'sparsejax.config', 'sparsejax.training'}\n"
        "assert not known & set(sys.modules), known & set(sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr


def mixed(packed: Path, directory: Path) -> Path:
    """A packed export whose config.json was exchanged."""
    shutil.copytree(packed.parent, directory)
    config = directory / "config.json"
    config.write_text(config.read_text().replace("10000.0", "20000.0"))
    return directory


def test_broken_packed_files_get_one_line(packed: Path, tmp_path: Path) -> None:
    good = (packed).read_bytes()
    file = tmp_path / "file.safetensors"

    def said(content: bytes) -> str:
        file.write_bytes(content)
        with pytest.raises(PackedFileError) as caught:
            PackedModel(file)
        assert "\n" not in str(caught.value)
        return str(caught.value)

    assert "no whole safetensors file" in said(good[:-1])
    assert "no whole safetensors file" in said(good[:100])
    assert "no whole safetensors file" in said(b"")
    assert "the digest differs" in said(good[:-5] + bytes([good[-5] ^ 1]) + good[-4:])
    assert "the digest differs" in said(good.replace(b"0.5", b"0.6", 1))
    assert "no packed model of sparsejax" in said((GOLDEN / "model.safetensors").read_bytes())
    assert "is of format" in said(good.replace(b"sparsejax packed 1", b"sparsejax packed 9", 1))
    with pytest.raises(ConfigError, match=r"config.json: was changed since it was exported"):
        export(mixed(packed, tmp_path / "mixed"), tmp_path / "out", form="hf", dtype=None, shard_bytes=1, notice=print)
    # An export of before there were digests of files.
    facts = json.loads((tmp_path / "mixed" / "sparsejax.json").read_text())
    (tmp_path / "mixed" / "sparsejax.json").write_text(json.dumps({k: v for k, v in facts.items() if k != "files"}))
    with pytest.raises(ConfigError, match="was written with another config"):
        read_export(tmp_path / "mixed")
    with pytest.raises(PackedFileError, match="is a folder"):
        PackedModel(tmp_path)
    with pytest.raises(PackedFileError, match="no whole safetensors file"):
        PackedModel(tmp_path / "absent")


def places(content: bytes) -> tuple[dict[str, tuple[int, int]], int]:
    """Where every tensor of a file begins and ends, and where its header ends."""
    start = 8 + int.from_bytes(content[:8], "little")
    entries = json.loads(content[8:start])
    return {
        name: (start + entry["data_offsets"][0], start + entry["data_offsets"][1])
        for name, entry in entries.items()
        if name != "__metadata__"
    }, start


def exchanged(content: bytes, one: tuple[int, int], other: tuple[int, int]) -> bytes:
    changed = bytearray(content)
    changed[slice(*one)], changed[slice(*other)] = content[slice(*other)], content[slice(*one)]
    assert changed != content
    return bytes(changed)


def moved(content: bytes, what: str) -> bytes:
    """A packed file in which something changed places, its digest left as it is."""
    found, start = places(content)
    if what == "rows":
        (begin, end), row = found[EMBEDDING], 16 * 4
        return exchanged(content, (begin, begin + row), (end - row, end))
    if what == "layers":
        return exchanged(content, *(found[UP.replace("layers.1", f"layers.{n}") + ".values"] for n in (0, 1)))
    if what == "names":
        names = [UP.replace("layers.1", f"layers.{n}").encode() + b".values" for n in (0, 1)]
        header = content[:start].replace(names[0], b"*" * len(names[0]))
        return header.replace(names[1], names[0]).replace(b"*" * len(names[0]), names[1]) + content[start:]
    if what == "blocks":
        (begin, _), block = found[UP + ".values"], 4 * 4 * 4
        return exchanged(content, (begin, begin + block), (begin + block, begin + 2 * block))
    # Mask bits: as many as before, in other places.
    begin, end = found[UP + ".mask"]
    bits = np.unpackbits(np.frombuffer(content[begin:end], np.uint8))
    return content[:begin] + np.packbits(np.roll(bits, 1)).tobytes() + content[end:]


@pytest.mark.parametrize("what", ["rows", "layers", "names", "blocks", "mask bits"])
def test_what_changed_places_is_refused(packed: Path, tmp_path: Path, what: str) -> None:
    folder = tmp_path / "moved"
    shutil.copytree(packed.parent, folder)
    file = folder / packed.name
    file.write_bytes(moved(packed.read_bytes(), what))
    with pytest.raises(PackedFileError, match="the digest differs"):
        PackedModel(file)
    # One that was signed again is another model, and no longer the one of its export.
    told = json.loads(json.loads(file.read_bytes()[8 : places(file.read_bytes())[1]])["__metadata__"]["sparsejax"])
    digest = file_digest(file, told["digest"])
    file.write_bytes(file.read_bytes().replace(told["digest"].encode(), digest.encode(), 1))
    PackedModel(file)
    with pytest.raises(ConfigError, match=r"model.packed.safetensors: was changed since it was exported"):
        read_export(folder)


def test_parts_that_do_not_belong_together_are_one_line(packed: Path, tmp_path: Path) -> None:
    good, file = packed.read_bytes(), tmp_path / "file.safetensors"
    begin, _ = places(good)[0][UP + ".mask"]
    fuller = good[:begin] + b"\xff" + good[begin + 1 :]
    for content, part in (
        (fuller, "another number of blocks than its mask"),
        (good.replace(b'\\"block\\": [4, 4]', b'\\"block\\": [5, 4]'), "blocks that do not divide it"),
        (good.replace(b'\\"block\\": [4, 4]', b'\\"block\\": 123456'), "has no shape and block"),
        (good.replace(b'\\"block\\": [4, 4]', b'\\"block\\": [4, 8]'), "a mask of another size"),
    ):
        assert content != good
        file.write_bytes(content)
        with pytest.raises(PackedFileError, match=part) as caught:
            PackedModel(file, verify=False)
        assert "\n" not in str(caught.value)
