"""Every byte of a finished token set held against its manifest, here or in a bucket."""

from __future__ import annotations

import tempfile
from pathlib import Path

from sparsejax.config import ConfigError
from sparsejax.data.cache import Notice
from sparsejax.data.paths import PathSetting
from sparsejax.data.set_shards import read_content
from sparsejax.data.splits import SPLITS
from sparsejax.data.storage import StoredDirectory, first_line
from sparsejax.data.token_set import FIX, MANIFEST, TOKENIZER, TOKENIZER_FILES, Manifest, Shard
from sparsejax.data.tokenizer import Tokenizer, load_tokenizer
from sparsejax.files.names import confined


def verify_set(location: str, notice: Notice) -> None:
    """Reads a whole set: digests of shards and tokenizer, ids in the vocabulary, an end id for each document.

    Args:
      location: directory of the set, a path or a URI.
      notice: told, one line each, how far it is.

    Raises:
      ConfigError: there is no finished set, or it is not what its manifest says; the line names the first file.
    """
    where = PathSetting("--out", location)
    try:
        directory = StoredDirectory(location)
        if MANIFEST not in directory.sizes():
            raise where.error(f"is no finished token set, {MANIFEST} is not there; run 'sparsejax tokenize' to its end")
        name = f"{directory.location}/{MANIFEST}"
        manifest = Manifest.from_json(directory.read(MANIFEST), name)
        tokenizer = _tokenizer(directory, manifest)
        shards = [shard for split in SPLITS for shard in manifest.splits[split].shards]
        for number, shard in enumerate(shards, 1):
            confined(Path(), shard.file, named_in=name)
            if problem := _problem(directory, shard, manifest, tokenizer):
                raise where.error(f"{shard.file}: {problem}; {FIX}")
            notice(f"{shard.file} is whole, {number} of {len(shards)}")
    except OSError as error:
        raise where.error(f"{first_line(error)}; {FIX}") from error
    notice(f"{directory.location} is what its manifest says: {len(shards)} shards, and their tokenizer")


def _tokenizer(directory: StoredDirectory, manifest: Manifest) -> Tokenizer:
    with tempfile.TemporaryDirectory(prefix="sparsejax-") as copy:
        there = directory.sizes()
        for file in TOKENIZER_FILES:
            if f"{TOKENIZER}/{file}" in there:
                Path(copy, file).write_bytes(directory.read(f"{TOKENIZER}/{file}"))
        try:
            return load_tokenizer(Path(copy), manifest.tokenizer_digest)
        except ConfigError as error:
            raise ConfigError(str(error).replace(copy, f"{directory.location}/{TOKENIZER}")) from error


def _problem(directory: StoredDirectory, shard: Shard, manifest: Manifest, tokenizer: Tokenizer) -> str:
    sizes = directory.sizes()
    if shard.file not in sizes:
        return "is missing"
    if sizes[shard.file] != shard.tokens * manifest.itemsize:
        return f"has {sizes[shard.file]} bytes instead of {shard.tokens * manifest.itemsize}"
    found = read_content(directory, shard.file, manifest.dtype, tokenizer.end_id)
    if found.sha256 != shard.sha256:
        return "its checksum differs"
    if found.largest >= tokenizer.vocab_size:
        return f"has the id {found.largest}, which the set's tokenizer lacks"
    # A tokenizer whose end token is a piece like others may have more.
    if found.ends < shard.documents:
        return f"has {found.ends} ends of documents instead of {shard.documents}"
    return ""
