"""Opens a finished token set for training: on this machine in place, elsewhere through a local copy.

Rows are read at random, a few hundred bytes each, which a bucket cannot serve: a set that is not on this machine is
copied into the cache first, once per machine, and only the shards that the budget of unique tokens reaches. Every shard
that is used has been checked against the digest in the manifest: while it was copied, or once where it lies.
"""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from sparsejax.config import ConfigError, DataConfig
from sparsejax.data.cache import FileDigests, Notice, file_sha256, file_stamp
from sparsejax.data.paths import PathSetting
from sparsejax.data.sharded_ids import ShardedIds
from sparsejax.data.splits import SPLITS, TRAIN
from sparsejax.data.storage import PARALLEL_READS, StoredDirectory, first_line
from sparsejax.data.token_files import TokenFile, TokenMeta
from sparsejax.data.token_set import MANIFEST, TOKENIZER, Manifest, Shard
from sparsejax.data.tokenizer import Tokenizer, fixed_tokenizer, load_tokenizer

_FIX = "copy it again, or delete it and run 'sparsejax tokenize' again"


@dataclass(frozen=True)
class OpenSet:
    """An open token set.

    Attributes:
      files: the token file of each split by its name; the ids of ``train`` end with the shard that the budget ends in.
      tokenizer: what made the ids.
      data_digest: that of the corpus.
    """

    files: dict[str, TokenFile]
    tokenizer: Tokenizer
    data_digest: str


def open_token_set(config: DataConfig, cache: Path, digests: FileDigests, notice: Notice) -> OpenSet:
    """Opens the set ``data.path`` names.

    Args:
      config: path, tokenizer and budget.
      cache: where copies of sets are kept.
      digests: remembers which shards have been checked.
      notice: told, one line each, what is copied or checked.

    Raises:
      ConfigError: there is no finished set, a shard is missing or damaged, or another tokenizer is asked for.
    """
    where = PathSetting("data.path", config.path)
    try:
        directory = StoredDirectory(config.path)
        if MANIFEST not in directory.sizes():
            raise where.error(f"is no finished token set, {MANIFEST} is not there; run 'sparsejax tokenize' to its end")
        content = directory.read(MANIFEST)
        manifest = Manifest.from_json(content)
    except (OSError, ValueError) as error:
        raise _as_config_error(where, error) from error
    needed = {split: _reached(manifest, split, config.unique_tokens) for split in SPLITS}
    shards = [shard for split in SPLITS for shard in needed[split]]
    try:
        if directory.local is None:
            root = cache / hashlib.sha256(content).hexdigest()[:32]
            _copy(directory, root, shards, manifest, digests, notice)
        else:
            root = directory.local
    except OSError as error:
        raise where.error(f"{first_line(error)}; {_FIX}") from error
    _check(where, root, shards, manifest, digests, notice)
    files = {split: _open(root, manifest, split, needed[split]) for split in SPLITS}
    return OpenSet(files, _tokenizer(where, config, root, manifest), manifest.data_digest)


def _as_config_error(where: PathSetting, error: Exception) -> ConfigError:
    return error if isinstance(error, ConfigError) else where.error(first_line(error))


def _reached(manifest: Manifest, split: str, unique_tokens: int) -> list[Shard]:
    """The shards of a split that are read: all, or of ``train`` those up to the last token of a budget above 0."""
    shards, reached = manifest.splits[split].shards, 0
    if split != TRAIN or not unique_tokens:
        return list(shards)
    needed = []
    for shard in shards:
        if reached >= unique_tokens:
            break
        needed.append(shard)
        reached += shard.tokens
    return needed


def _copy(
    directory: StoredDirectory,
    target: Path,
    shards: Sequence[Shard],
    manifest: Manifest,
    digests: FileDigests,
    notice: Notice,
) -> None:
    """Brings the tokenizer and the shards that the copy of a set on this machine lacks; raises ``OSError``."""
    copy = StoredDirectory(str(target))
    have = copy.sizes()
    names = [name for name in directory.sizes() if name.startswith(f"{TOKENIZER}/") and name not in have]
    for name in names:
        copy.write(name, directory.read(name))
    todo = [shard for shard in shards if shard.file not in have]
    if todo:
        size = sum(shard.tokens for shard in todo) * manifest.itemsize
        notice(f"copying {len(todo)} of {len(shards)} shards of {directory.location}, {size / 1e9:.3g} GB, to {target}")

    def bring(shard: Shard) -> None:
        copy.copy_from(directory, shard.file, shard.sha256)
        digests.written(target / shard.file, shard.sha256)

    with ThreadPoolExecutor(PARALLEL_READS) as pool:
        list(pool.map(bring, todo))


def _check(
    where: PathSetting, root: Path, shards: Sequence[Shard], manifest: Manifest, digests: FileDigests, notice: Notice
) -> None:
    """Raises ``ConfigError`` for a shard that is missing or is not what the manifest says."""
    unchecked = True

    def hashed(path: Path) -> str:
        nonlocal unchecked
        if unchecked:
            size = sum(shard.tokens for shard in shards) * manifest.itemsize
            notice(f"checking {len(shards)} shards in {root}, {size / 1e9:.3g} GB (once, then remembered)")
        unchecked = False
        return file_sha256(path)

    for shard in shards:
        path = root / shard.file
        if not path.is_file():
            raise where.error(f"{shard.file} is missing in {root}; {_FIX}")
        size, expected = path.stat().st_size, shard.tokens * manifest.itemsize
        if size != expected:
            raise where.error(f"{shard.file} in {root} has {size} bytes instead of {expected}; {_FIX}")
        if digests.remembered("sha256", [file_stamp(path)], functools.partial(hashed, path)) != shard.sha256:
            raise where.error(f"the checksum of {shard.file} in {root} differs; {_FIX}")


def _open(root: Path, manifest: Manifest, split: str, shards: Sequence[Shard]) -> TokenFile:
    found = manifest.splits[split]
    digest = hashlib.sha256("\n".join(shard.sha256 for shard in found.shards).encode()).hexdigest()
    meta = TokenMeta(found.tokens, found.text_bytes, found.documents, manifest.dtype, digest)
    return TokenFile(ShardedIds([root / shard.file for shard in shards], manifest.dtype), meta, split)


def _tokenizer(where: PathSetting, config: DataConfig, root: Path, manifest: Manifest) -> Tokenizer:
    """The set's own tokenizer, which must be the one the configuration names."""
    if config.tokenizer != manifest.tokenizer:
        raise ConfigError(
            f"data.tokenizer={config.tokenizer}: the token set {where.value} was made with data.tokenizer="
            f"{manifest.tokenizer}; set that"
        )
    tokenizer = load_tokenizer(root / TOKENIZER)
    digests = {tokenizer.digest}
    if config.tokenizer_path:
        digests.add(fixed_tokenizer(config.tokenizer, config.tokenizer_path).digest)
    if digests != {manifest.tokenizer_digest}:
        raise ConfigError(
            f"data.tokenizer_path={config.tokenizer_path}: is not the tokenizer that the token set {where.value} was "
            "made with; leave it empty to take the set's own"
        )
    return tokenizer
