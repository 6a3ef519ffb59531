"""Flags that name runs."""

import pytest

from sparsejax.cli.flags import paths, run_directories
from sparsejax.config import ConfigError


def test_names_of_a_sweep_have_commas_of_their_own(tmp_path):
    a, b, plain = tmp_path / "method=set,rate=0.1" / "seed0", tmp_path / "method=set,rate=0.3", tmp_path / "plain"
    for workdir in (a, b, plain):
        workdir.mkdir(parents=True)
        (workdir / "config.json").touch()
    assert run_directories("workdir", str(a)) == [str(a)]
    assert run_directories("workdir", f"{plain},{a},{b}") == [str(plain), str(a), str(b)]
    # What is no run is named by itself, so that its error names it.
    assert run_directories("workdir", f"{tmp_path / 'none'},{a}") == [str(tmp_path / "none"), str(a)]
    assert run_directories("workdir", "gs://bucket/a,gs://bucket/b") == ["gs://bucket/a", "gs://bucket/b"]


def test_none_and_twice_are_one_line():
    for text in ("", ",", "a,a"):
        with pytest.raises(ConfigError, match=r"^--runs=.*: must name different run directories$"):
            run_directories("runs", text)


def test_files_and_directories_in_one_list(tmp_path):
    run, table = tmp_path / "density=1.0,epochs=4", tmp_path / "rows,old.csv"
    run.mkdir()
    table.touch()
    assert paths("rows", f"{run},{table},none.csv") == [str(run), str(table), "none.csv"]
