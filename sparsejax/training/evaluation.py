"""Several runs on several texts: what ``sparsejax evaluate`` reports, computed."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Iterator, Sequence
from pathlib import PurePath

import jax
import numpy as np

from sparsejax.config import ConfigError
from sparsejax.data.cache import FileDigests, cache_root
from sparsejax.data.file_source import FileSource
from sparsejax.data.paths import PathSetting
from sparsejax.data.pipeline import open_corpus
from sparsejax.data.splits import VALIDATION
from sparsejax.training.breakdown import frequency_bins, training_counts
from sparsejax.training.document_losses import Difference, TextEvaluation, TokenStep, measure_text, paired
from sparsejax.training.eval_text import Context, EvalText, tokenised, validation_text
from sparsejax.training.restore import TrainedRun, Weights, check_runs, restore_run
from sparsejax.training.token_losses import make_token_step
from sparsejax.training.workdir import Notice, RunDirectory, check_same_data, read_manifest

# Characters that no tokenizer's tokens have on average: how much of a text is read for so many tokens.
_LONGEST_TOKEN = 64

# Parts of file names, and the format that they stand for.
_KINDS = (
    ({"jsonl", "json", "ndjson"}, "jsonl"),
    ({"parquet"}, "parquet"),
    ({"tfrecord"}, "tfrecord"),
    ({"array_record", "arrayrecord"}, "arrayrecord"),
)


@dataclasses.dataclass(frozen=True)
class Settings:
    """What to evaluate.

    Attributes:
      texts: sources beside the run's own: name and path setting, files as for ``data.path``.
      text_field: field or column of the text in files that have several.
      validation: whether the validation text of each run is evaluated, and its training text counted.
      max_tokens: most tokens of each text, by each run's own tokenizer; 0 is all.
      context: what a token is predicted from, see ``eval_text``.
      weights: the weights as trained, or their average.
    """

    texts: tuple[tuple[str, str], ...]
    text_field: str
    validation: bool
    max_tokens: int
    context: Context
    weights: Weights


@dataclasses.dataclass(frozen=True, eq=False)
class RunEvaluation:
    """A run on all texts.

    Attributes:
      run: its directory.
      name: what tells it from the others, the last parts of its directory.
      step: steps that its checkpoint has.
      tokenizer_digest: equal tokenizers give equal tokens.
      sequence_length: tokens of a row.
      texts: the validation text first, if asked for.
    """

    run: str
    name: str
    step: int
    tokenizer_digest: str
    sequence_length: int
    texts: tuple[TextEvaluation, ...]


@dataclasses.dataclass(frozen=True, eq=False)
class Study:
    """All that was computed.

    Attributes:
      settings: what was asked for.
      runs: in the order given.
      differences: of all pairs of runs on all texts that both saw alike.
      remarks: what the reader must know, a line each.
    """

    settings: Settings
    runs: tuple[RunEvaluation, ...]
    differences: tuple[Difference, ...]
    remarks: tuple[str, ...]


def named_texts(flags: Sequence[str]) -> tuple[tuple[str, str], ...]:
    """Name and path setting of every ``[name=]files``; without a name, what stands before the first dot of the file.

    Raises:
      ConfigError: two texts of one name, or one that has the name of the validation text.
    """
    found: dict[str, str] = {}
    for flag in flags:
        name, equals, path = flag.partition("=")
        if not equals or not name.replace("-", "_").isidentifier():
            path = flag
            name = PurePath(flag.partition(",")[0]).name.partition(".")[0].strip("*?-_") or "text"
        if name in found or name == VALIDATION:
            raise ConfigError(f"--text={flag}: there is a text {name} already; give it a name, --text=<name>={path}")
        found[name] = path
    return tuple(found.items())


def evaluate_runs(workdirs: Sequence[RunDirectory], settings: Settings, notice: Notice) -> Study:
    """Evaluate each run on each text; one run is in memory at a time.

    Raises:
      ConfigError: a directory holds no run or no checkpoint, a text cannot be read, or data have changed.
    """
    check_runs(workdirs, settings.weights)
    texts = _read_texts(settings, _cache_dir(workdirs[0]))
    names = short_names([str(workdir) for workdir in workdirs])
    runs = tuple(
        _evaluate_run(workdir, name, texts, settings, notice) for workdir, name in zip(workdirs, names, strict=True)
    )
    differences: list[Difference] = []
    remarks: list[str] = []
    for one, two in itertools.combinations(runs, 2):
        same = one.tokenizer_digest == two.tokenizer_digest
        if one.sequence_length != two.sequence_length:
            remarks.append(
                f"{one.name} reads rows of {one.sequence_length} tokens, {two.name} of {two.sequence_length}"
            )
        for mine, theirs in zip(one.texts, two.texts, strict=True):
            found = paired(one.name, mine, two.name, theirs, same)
            if found is None:
                remarks.append(f"{one.name} and {two.name} have other {mine.text} texts: no paired difference")
            else:
                differences.append(found)
    return Study(settings, runs, tuple(differences), tuple(remarks))


def short_names(paths: Sequence[str]) -> list[str]:
    """As many last parts of each path as it takes to tell all of them apart."""
    parts = [PurePath(path).parts for path in paths]
    for count in range(1, max(map(len, parts))):
        names = ["/".join(each[-count:]) for each in parts]
        if len(set(names)) == len(names):
            return names
    return list(paths)


def _cache_dir(workdir: RunDirectory) -> str:
    manifest = read_manifest(workdir)
    return "" if manifest is None else str(manifest["config"]["data"]["cache_dir"])


def _evaluate_run(
    workdir: RunDirectory, name: str, texts: Sequence[tuple[str, list[str]]], settings: Settings, notice: Notice
) -> RunEvaluation:
    trained = restore_run(workdir, notice, weights=settings.weights)
    run, tokenizer = trained.run, trained.tokenizer
    sources: list[EvalText] = []
    frequency_V: np.ndarray | None = None
    if settings.validation:
        corpus = open_corpus(run.data, notice)
        check_same_data(workdir, corpus.data_digest, corpus.tokenizer.digest)
        sources.append(validation_text(corpus, settings.max_tokens))
        counts_V = training_counts(corpus.train.ids, run.data.unique_tokens, tokenizer.vocab_size)
        frequency_V = frequency_bins(counts_V)
    sources += [tokenised(title, documents, tokenizer, settings.max_tokens) for title, documents in texts]
    step = token_step(trained)
    found = []
    for text in sources:
        notice(f"{name}: {text.name}, {text.tokens:,} tokens of {len(text.ends):,} documents")
        found.append(
            measure_text(
                step,
                text,
                length=run.data.sequence_length,
                batch_size=run.train.batch_size,
                context=settings.context,
                frequency_V=frequency_V,
            )
        )
    return RunEvaluation(
        str(workdir), name, int(trained.state.step), tokenizer.digest, run.data.sequence_length, tuple(found)
    )


def token_step(trained: TrainedRun) -> TokenStep:
    """The compiled program of a run, with its weights."""
    program = jax.jit(make_token_step(trained.recipe))
    state = trained.state
    return lambda target_BL: program(state.params, state.topology, target_BL)


def _read_texts(settings: Settings, cache_dir: str) -> list[tuple[str, list[str]]]:
    """The documents of every source, in the order of its files."""
    if not settings.texts:
        return []
    digests = FileDigests(cache_root(cache_dir) / "digests")
    found = []
    for name, path in settings.texts:
        where = PathSetting("--text", path)
        try:
            source = FileSource(kind_of(path), where, settings.text_field, digests)
            documents = _enough((document.text for document in source.documents()), settings.max_tokens)
        except ConfigError as error:
            raise ConfigError(str(error).replace("data.text_field=", "--text-field=")) from None
        if not documents:
            raise where.error("has no text; name other files")
        found.append((name, documents))
    return found


def _enough(texts: Iterator[str], max_tokens: int) -> list[str]:
    """The first documents that hold ``max_tokens`` tokens for any tokenizer worth its name; all for 0."""
    found, size = [], 0
    for text in texts:
        found.append(text)
        size += len(text)
        if max_tokens and size >= _LONGEST_TOKEN * max_tokens:
            break
    return found


def kind_of(path: str) -> str:
    """The format of the files that a path setting names, by the name of the first: a value of ``data.source``."""
    parts = set(PurePath(path.partition(",")[0]).name.lower().replace("-", ".").split("."))
    for marks, kind in _KINDS:
        if parts & marks:
            return kind
    return "text"
