"""Training and validation documents."""

import json
import random
from pathlib import Path

from sparsejax.data.cache import FileDigests
from sparsejax.data.splits import TRAIN, VALIDATION, SplitCorpus, split_corpus
from tests.data.conftest import texts


def validation_texts(corpus: SplitCorpus) -> set[str]:
    return {document.text for split, document in corpus.documents() if split == VALIDATION}


def test_a_documents_split_depends_on_nothing_but_itself(data_config, tmp_path: Path) -> None:
    digests = FileDigests(tmp_path / "digests")
    chosen = validation_texts(split_corpus(data_config(), digests))
    assert 10 < len(chosen) < 40
    shuffled = texts(300)
    random.Random(0).shuffle(shuffled)
    path = tmp_path / "more.jsonl"
    path.write_text("".join(json.dumps({"text": text}) + "\n" for text in shuffled))
    assert validation_texts(split_corpus(data_config(path=str(path)), digests)) & set(texts(120)) == chosen
    assert validation_texts(split_corpus(data_config(validation_fraction=0.4), digests)) > chosen


def test_validation_files_leave_the_training_files_whole(data_config, tmp_path: Path) -> None:
    path = tmp_path / "validation.jsonl"
    path.write_text('{"text": "held out"}\n')
    corpus = split_corpus(data_config(validation_path=str(path)), FileDigests(tmp_path / "digests"))
    assert validation_texts(corpus) == {"held out"}
    assert [document.text for document in corpus.train_documents()] == texts(120)


def test_training_documents_are_those_of_the_split(data_config, tmp_path: Path) -> None:
    corpus = split_corpus(data_config(), FileDigests(tmp_path / "digests"))
    assert list(corpus.train_documents()) == [document for split, document in corpus.documents() if split == TRAIN]


def test_digest_covers_the_division(data_config, tmp_path: Path) -> None:
    digests = FileDigests(tmp_path / "digests")
    path = tmp_path / "validation.jsonl"
    path.write_text('{"text": "held out"}\n')
    configs = [data_config(), data_config(validation_fraction=0.3), data_config(validation_path=str(path))]
    assert len({split_corpus(config, digests).digest() for config in configs}) == 3


def test_a_text_file_validates_beside_the_standard_library(data_config, tmp_path: Path) -> None:
    path = tmp_path / "held_out.txt"
    path.write_text("held out\n")
    config = data_config(source="stdlib", path="", validation_path=str(path))
    corpus = split_corpus(config, FileDigests(tmp_path / "digests"))
    assert corpus.source.name == "stdlib"
    assert [document.text for document in corpus.validation_source.documents()] == ["held out\n"]
