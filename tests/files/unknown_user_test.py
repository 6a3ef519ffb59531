"""A user without a name or a home directory, as in containers and on shared disks."""

import pwd

import pytest

from sparsejax.config import ConfigError
from sparsejax.data.cache import cache_root
from sparsejax.files.json_records import read_record


@pytest.fixture(autouse=True)
def nobody(monkeypatch):
    def unknown(number):
        raise KeyError(f"getpwuid(): uid not found: {number}")

    monkeypatch.setattr(pwd, "getpwuid", unknown)
    for name in ("HOME", "XDG_CACHE_HOME", "SPARSEJAX_CACHE"):
        monkeypatch.delenv(name, raising=False)


def test_records_of_an_owner_without_a_name_are_read(tmp_path):
    (tmp_path / "a.json").write_text('{"a": 1}')
    assert read_record(tmp_path / "a.json", dict[str, int], fix="") == {"a": 1}
    with pytest.raises(ConfigError, match="holds more than 3 bytes"):
        read_record(tmp_path / "a.json", dict[str, int], fix="", max_bytes=3)


def test_no_home_directory_is_one_line(tmp_path):
    assert cache_root(str(tmp_path / "cache")).is_dir()
    with pytest.raises(ConfigError, match=r"^data\.cache_dir=~/\.cache/sparsejax: there is no such home directory"):
        cache_root("")
