"""Plain text; see ``defects_test.py`` for what all formats have in common."""

from pathlib import Path

from sparsejax.data.text_files import read_text


def test_text_is_cut_at_blank_lines_and_nothing_is_lost(tmp_path: Path) -> None:
    paragraphs = [f"paragraph {number} " + "wörd " * 500 + "\r\n\n" for number in range(40)]
    path = tmp_path / "book.txt"
    path.write_bytes("".join(paragraphs).encode())
    documents = [document for document in read_text(path) if document]
    assert "".join(documents) == "".join(paragraphs)
    assert len(documents) > 3
    for document in documents[:-1]:
        assert 16 * 1024 <= len(document) < 20 * 1024 and document.endswith("\n\n")


def test_text_without_line_ends_is_cut_too(tmp_path: Path) -> None:
    path = tmp_path / "line.txt"
    path.write_text("x" * 200_000)
    lengths = [len(document) for document in read_text(path)]
    assert sum(lengths) == 200_000 and max(lengths) == 65536
