"""Tokenises a corpus once into a token set, on one host or many that share the set's directory.

Process h of H takes every H-th part of the corpus, writes its pieces, waits until all pieces are there, and merges
every H-th shard; whoever finds all shards whole writes the manifest. All that is finished stays: a process that is
started again, with the same H or another, does what is missing, and which process did what leaves no trace in the set.
"""

from __future__ import annotations

import json
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from enum import Enum
from pathlib import Path
from typing import Any

import numpy as np

from sparsejax.config import ConfigError, DataConfig
from sparsejax.data.cache import FileDigests, Notice, cache_root
from sparsejax.data.paths import PathSetting
from sparsejax.data.set_pieces import PartPieces, read_pieces, write_pieces, written_parts
from sparsejax.data.set_progress import SetProgress
from sparsejax.data.set_shards import read_shard, whole_shards, write_shard
from sparsejax.data.shuffled_documents import id_dtype
from sparsejax.data.splits import SPLITS, TRAIN, VALIDATION, SplitCorpus, split_corpus
from sparsejax.data.storage import PARALLEL_READS, StoredDirectory, first_line
from sparsejax.data.token_files import empty_split
from sparsejax.data.token_set import FORMAT, MANIFEST, PIECES, PLAN, TOKENIZER, Manifest, SetSplit, Splits, shard_name
from sparsejax.data.tokenizer import Tokenizer, fixed_tokenizer
from sparsejax.files.json_records import decode_record

_DAMAGED = "delete the directory and run the command again"
_POLL_SECONDS = 5.0
# Their names have five digits.
_MOST_SHARDS = 99_999


class Outcome(Enum):
    """End of one process: the set is finished, its share is done, or pieces of other processes are missing."""

    FINISHED = "finished"
    SHARE_DONE = "share done"
    WAITING = "waiting"


def tokenise(
    config: DataConfig,
    location: str,
    *,
    shards: int,
    process_id: int,
    num_processes: int,
    wait: float,
    notice: Notice,
) -> Outcome:
    """Does one process's share of a token set.

    Args:
      config: the corpus and the tokenizer, which must not be trained on the corpus.
      location: directory of the set, a path all processes see or a URI such as ``gs://bucket/c4``.
      shards: number of shards of the training split; the validation split has one.
      process_id: h, which share.
      num_processes: H.
      wait: seconds to wait for the pieces of other processes.
      notice: told, one line each, what was done, how long the rest takes and what space it needs.

    Raises:
      ConfigError: bad settings, unreadable text, an unusable directory, or one that holds another set.
    """
    if not 1 <= shards <= _MOST_SHARDS or not 0 <= process_id < num_processes or not wait >= 0:
        raise ConfigError(
            f"--shards={shards} --process_id={process_id} --num_processes={num_processes} --wait={wait:g}: shards are "
            f"at least 1 and at most {_MOST_SHARDS}, processes count from 0, seconds are at least 0"
        )
    if not location:
        raise ConfigError("--out is empty: name the directory of the token set")
    if config.source == "tokens" or config.tokenizer == "bpe":
        wrong = "data.source=tokens" if config.source == "tokens" else "data.tokenizer=bpe"
        raise ConfigError(f"{wrong}: tokenize needs text, and a tokenizer that is there before it: a file, or byte")
    corpus = split_corpus(config, FileDigests(cache_root(config.cache_dir) / "digests"))
    for note in corpus.notes:
        notice(note)
    tokenizer = fixed_tokenizer(config.tokenizer, config.tokenizer_path)
    where = PathSetting("--out", location)
    try:
        directory = StoredDirectory(location)
        job = _Job(directory, corpus, tokenizer, config.tokenizer, {TRAIN: shards, VALIDATION: 1}, notice)
        outcome = job.run(process_id, num_processes, wait)
    except OSError as error:
        raise where.error(first_line(error)) from error
    if note := corpus.late_note():
        notice(note)
    return outcome


class _Job:
    """One process at work on one set."""

    def __init__(
        self,
        directory: StoredDirectory,
        corpus: SplitCorpus,
        tokenizer: Tokenizer,
        kind: str,
        shards: dict[str, int],
        notice: Notice,
    ) -> None:
        """``kind`` is the value of ``data.tokenizer``, ``shards`` the number of shards of each split."""
        self.directory, self.corpus, self.tokenizer, self.kind = directory, corpus, tokenizer, kind
        self.shards, self.notice = shards, notice
        self.parts = corpus.parts
        self.dtype = id_dtype(tokenizer)
        self.names = [shard_name(split, n, count) for split, count in shards.items() for n in range(count)]

    def run(self, process_id: int, num_processes: int, wait: float) -> Outcome:
        """All phases; see the module."""
        self._agree_on_plan()
        self._check_same_text(range(process_id, len(self.parts), num_processes))
        if self._finished():
            self.notice(f"{self.directory.location} is finished: nothing to do")
            return Outcome.FINISHED
        if len(self._whole_shards()) < len(self.names):
            self._write_pieces(range(process_id, len(self.parts), num_processes))
            if not self._all_pieces(num_processes, wait):
                return Outcome.WAITING
        try:
            return self._merge(process_id, num_processes)
        except OSError:
            # With more processes than shards, the others may finish and delete the pieces while this one looks.
            if self._finished():
                return Outcome.FINISHED
            raise

    def _agree_on_plan(self) -> None:
        """Stores what all processes must agree on, or refuses a directory that holds something else."""
        parts = [f"{part.source.part_name(part.number)} {part.source.part_bytes(part.number)}" for part in self.parts]
        plan = {
            "format": FORMAT,
            # With no digests of the parts it covers source and text field alone.
            "source or text field": self.corpus.combined_digest([""] * len(parts)),
            "division": self.corpus.division,
            "parts": parts,
            "tokenizer": self.tokenizer.digest,
            "shards": self.shards,
        }
        if PLAN not in self.directory.sizes():
            self.directory.write(PLAN, json.dumps(plan, indent=1).encode() + b"\n")
        found = decode_record(self.directory.read(PLAN), dict[str, Any], name=self._where(PLAN), fix=_DAMAGED)
        different = [key for key in plan if key not in found or found[key] != plan[key]]
        if different:
            raise ConfigError(
                f"--out={self.directory.location}: holds a token set with other {', '.join(different)}; "
                "name another directory, or delete this one"
            )

    def _check_same_text(self, mine: Sequence[int]) -> None:
        """Refuses a set that was made of other text, though its files have the names and sizes of these.

        Each process looks at its own parts, so that all together read the corpus once at most; what has not changed
        since this machine read it is not read again.
        """
        sizes = self.directory.sizes()
        if MANIFEST in sizes:
            manifest = Manifest.from_json(self.directory.read(MANIFEST), self._where(MANIFEST))
            known = dict(enumerate(manifest.part_digests))
            # Sets once kept one digest of all.
            other = not known and manifest.data_digest != self.corpus.digest()
        else:
            written = set(written_parts(sizes, len(self.parts)))
            known = {part: self._pieces(part).digest for part in mine if part in written}
            other = False
        changed = [part for part in mine if part in known and self._digest(part) != known[part]]
        if other or changed:
            named = ", ".join(self.parts[part].source.part_name(self.parts[part].number) for part in changed[:3])
            raise ConfigError(
                f"--out={self.directory.location}: holds a token set of another text{f' ({named})' if named else ''}; "
                "name another directory, or delete this one"
            )

    def _digest(self, part: int) -> str:
        found = self.parts[part]
        return found.source.part_digest(found.number)

    def _pieces(self, part: int) -> PartPieces:
        return read_pieces(self.directory, part, self.shards)

    def _where(self, name: str) -> str:
        return f"{self.directory.location}/{name}"

    def _write_pieces(self, mine: Sequence[int]) -> None:
        """Tokenises those of the parts ``mine`` that are not written yet."""
        written = set(written_parts(self.directory.sizes(), len(self.parts)))
        todo = [part for part in mine if part not in written]
        if not todo:
            return
        sizes = [part.source.part_bytes(part.number) for part in self.parts]
        progress = SetProgress(sizes, todo, self.directory.local, self.notice)
        for part in todo:
            with tempfile.TemporaryDirectory(prefix="sparsejax-") as scratch:
                found = write_pieces(self.directory, self.corpus, part, self.tokenizer, self.shards, Path(scratch))
            tokens = sum(found.splits[split].tokens for split in SPLITS)
            text_bytes = sum(found.splits[split].text_bytes for split in SPLITS)
            progress.done(part, tokens, tokens * np.dtype(self.dtype).itemsize, text_bytes)

    def _all_pieces(self, num_processes: int, wait: float) -> bool:
        """Waits until every part's pieces are there or the set is finished; False if neither is so in time."""
        deadline = time.monotonic() + wait
        said = False
        while True:
            written = set(written_parts(self.directory.sizes(), len(self.parts)))
            missing = [part for part in range(len(self.parts)) if part not in written]
            if not missing or self._finished():
                return True
            processes = ", ".join(map(str, sorted({part % num_processes for part in missing})))
            line = f"{len(missing)} of {len(self.parts)} parts are still to come, from processes {processes}"
            if time.monotonic() >= deadline:
                self.notice(f"{line}: run the same command again when they are done")
                return False
            if not said:
                self.notice(f"{line}: waiting for at most {wait:g} s")
            said = True
            time.sleep(_POLL_SECONDS)

    def _merge(self, process_id: int, num_processes: int) -> Outcome:
        """Writes those of this process's shards that are not whole, and finishes the set if it can."""
        if self._finished():
            return Outcome.FINISHED
        with ThreadPoolExecutor(PARALLEL_READS) as pool:
            pieces = list(pool.map(self._pieces, range(len(self.parts))))
        documents = {split: sum(part.splits[split].documents for part in pieces) for split in SPLITS}
        for split in SPLITS:
            if not documents[split]:
                raise empty_split(split, self.corpus, documents)
        whole = self._whole_shards()
        every = [(split, n) for split, count in self.shards.items() for n in range(count)]
        for (split, n), name in list(zip(every, self.names, strict=True))[process_id::num_processes]:
            if name not in whole:
                write_shard(self.directory, pieces, split, n, self.shards[split], self.dtype)
                self.notice(f"{name} is written")
        missing = len(self.names) - len(self._whole_shards())
        if missing:
            self.notice(f"this process has done its share; {missing} shards of others are still to come")
            return Outcome.SHARE_DONE
        self._finish(pieces)
        return Outcome.FINISHED

    def _finish(self, pieces: Sequence[PartPieces]) -> None:
        """Writes tokenizer and manifest, deletes the pieces and what killed processes left."""
        with tempfile.TemporaryDirectory(prefix="sparsejax-") as scratch:
            self.tokenizer.save(Path(scratch))
            for path in Path(scratch).iterdir():
                self.directory.write_file(f"{TOKENIZER}/{path.name}", path)
        splits = {}
        for split, count in self.shards.items():
            shards = tuple(read_shard(self.directory, shard_name(split, n, count)) for n in range(count))
            text_bytes = sum(part.splits[split].text_bytes for part in pieces)
            tokens, documents = sum(shard.tokens for shard in shards), sum(shard.documents for shard in shards)
            splits[split] = SetSplit(tokens, text_bytes, documents, shards)
        parts = tuple(part.digest for part in pieces)
        digest = self.corpus.combined_digest(parts)
        manifest = Manifest(
            FORMAT, digest, self.kind, self.tokenizer.digest, self.dtype, Splits(**splits), part_digests=parts
        )
        self.directory.write(MANIFEST, manifest.to_json())
        self.directory.remove_folder(PIECES)
        self.directory.remove_partials()
        counts = ", ".join(f"{splits[split].tokens:,} {split} tokens" for split in SPLITS)
        self.notice(f"{self.directory.location} is finished: {counts}")

    def _whole_shards(self) -> set[str]:
        return whole_shards(self.directory, self.names, np.dtype(self.dtype).itemsize)

    def _finished(self) -> bool:
        return MANIFEST in self.directory.sizes() and len(self._whole_shards()) == len(self.names)
