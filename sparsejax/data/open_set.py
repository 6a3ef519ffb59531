"""Opens a finished token set for training: on this machine in place, elsewhere through a local copy.

Rows are read at random, a few hundred bytes each, which a bucket cannot serve: a set that is not on this machine is
copied into the cache first, once per machine, and only the shards that the budget of unique tokens reaches. Every shard
that is used has been checked against the digest in the manifest: while it was copied, or once where it lies.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from sparsejax.config import ConfigError, DataConfig
from sparsejax.data.cache import FileDigests, Notice, file_stamp
from sparsejax.data.paths import PathSetting
from sparsejax.data.set_shards import read_content
from sparsejax.data.sharded_ids import ShardedIds
from sparsejax.data.splits import SPLITS, TRAIN
from sparsejax.data.storage import PARALLEL_READS, StoredDirectory, first_line
from sparsejax.data.token_files import TokenFile, TokenMeta
from sparsejax.data.token_set import FIX, MANIFEST, TOKENIZER, TOKENIZER_FILES, Manifest, Shard
from sparsejax.data.tokenizer import Tokenizer, fixed_tokenizer, load_tokenizer
from sparsejax.files.names import confined


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
    except OSError as error:
        raise where.error(first_line(error)) from error
    name = f"{directory.location}/{MANIFEST}"
    manifest = Manifest.from_json(content, name)
    needed = {split: _reached(manifest, split, config.unique_tokens) for split in SPLITS}
    shards = [shard for split in SPLITS for shard in needed[split]]
    try:
        root = directory.local or cache / hashlib.sha256(content).hexdigest()[:32]
        for shard in shards:
            confined(root, shard.file, named_in=name)
        if directory.local is None:
            _copy_tokenizer(directory, root, manifest)
        tokenizer = _tokenizer(where, config, root, manifest)
        check = _Check(where, root, manifest, tokenizer, digests, notice)
        if directory.local is None:
            _copy_shards(directory, root, shards, check, notice)
        for shard in shards:
            if problem := check.problem(shard):
                raise where.error(f"{problem}; {FIX}")
    except OSError as error:
        raise where.error(f"{first_line(error)}; {FIX}") from error
    files = {split: _open(root, manifest, split, needed[split]) for split in SPLITS}
    return OpenSet(files, tokenizer, manifest.data_digest)


def set_tokenizer(config: DataConfig) -> Tokenizer | None:
    """The tokenizer of the token set that ``data.path`` names, without its shards; None where no set is here.

    Raises:
      ConfigError: the manifest cannot be read, or another tokenizer is asked for.
    """
    try:
        directory = StoredDirectory(config.path)
        if directory.local is None or MANIFEST not in directory.sizes():
            return None
        content = directory.read(MANIFEST)
    except OSError:
        return None
    manifest = Manifest.from_json(content, f"{directory.location}/{MANIFEST}")
    return _tokenizer(PathSetting("data.path", config.path), config, directory.local, manifest)


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


def _copy_tokenizer(directory: StoredDirectory, target: Path, manifest: Manifest) -> None:
    """Brings the set's tokenizer, unless a whole copy is there; raises ``OSError``."""
    with contextlib.suppress(ConfigError):
        load_tokenizer(target / TOKENIZER, manifest.tokenizer_digest)
        return
    copy, there = StoredDirectory(str(target)), directory.sizes()
    for name in (f"{TOKENIZER}/{file}" for file in TOKENIZER_FILES):
        if name in there:
            copy.write(name, directory.read(name))


def _copy_shards(
    directory: StoredDirectory, target: Path, shards: Sequence[Shard], check: _Check, notice: Notice
) -> None:
    """Brings the shards that the copy of a set on this machine lacks, or has damaged; raises ``OSError``."""
    copy = StoredDirectory(str(target))
    have, todo = copy.sizes(), []
    for shard in shards:
        problem = check.problem(shard)
        if problem and shard.file in have:
            notice(f"{problem}: copying it again")
        if problem:
            todo.append(shard)
    if todo:
        size = check.bytes_of(todo) / 1e9
        notice(f"copying {len(todo)} of {len(shards)} shards of {directory.location}, {size:.3g} GB, to {target}")

    def bring(shard: Shard) -> None:
        copy.copy_from(directory, shard.file, shard.sha256)
        check.digests.written(target / shard.file, shard.sha256)

    with ThreadPoolExecutor(PARALLEL_READS) as pool:
        list(pool.map(bring, todo))


class _Check:
    """Looks whether shards are what the manifest says; each is read once, and again when it has changed."""

    def __init__(
        self,
        where: PathSetting,
        root: Path,
        manifest: Manifest,
        tokenizer: Tokenizer,
        digests: FileDigests,
        notice: Notice,
    ) -> None:
        self.digests = digests
        self._where, self._root, self._manifest, self._tokenizer = where, root, manifest, tokenizer
        self._notice = notice
        self._said = False

    def bytes_of(self, shards: Sequence[Shard]) -> int:
        """Their sizes."""
        return sum(shard.tokens for shard in shards) * self._manifest.itemsize

    def problem(self, shard: Shard) -> str:
        """Say what is wrong with a shard, empty if nothing is; raises ``OSError``."""
        path = self._root / shard.file
        if not path.is_file():
            return f"{shard.file} is missing in {self._root}"
        size, expected = path.stat().st_size, self.bytes_of([shard])
        if size != expected:
            return f"{shard.file} in {self._root} has {size} bytes instead of {expected}"
        read = functools.partial(self._read, shard)
        if self.digests.remembered("sha256", [file_stamp(path)], read) != shard.sha256:
            return f"the checksum of {shard.file} in {self._root} differs"
        return ""

    def _read(self, shard: Shard) -> str:
        if not self._said:
            self._notice(f"checking the shards in {self._root} (once, then remembered)")
        self._said = True
        directory = StoredDirectory(str(self._root))
        found = read_content(directory, shard.file, self._manifest.dtype, self._tokenizer.end_id)
        if found.sha256 == shard.sha256 and found.largest >= self._tokenizer.vocab_size:
            raise self._where.error(f"{shard.file} has the id {found.largest}, which the set's tokenizer lacks; {FIX}")
        return found.sha256


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
