"""Files survive a crash between any two system calls: the old one is there, or the new one."""

import os

import pytest

from ecgcmr import files


@pytest.fixture
def calls(monkeypatch):
    """Names of what was flushed and renamed, in order."""
    names, by_descriptor = [], {}
    fsync, replace, open_file = os.fsync, os.replace, os.open

    def opened(path, *rest, **options):
        descriptor = open_file(path, *rest, **options)
        by_descriptor[descriptor] = os.path.basename(path)
        return descriptor

    def flushed(descriptor):
        names.append(("flush", by_descriptor[descriptor]))
        fsync(descriptor)

    def renamed(old, new):
        names.append(("rename", os.path.basename(old), os.path.basename(new)))
        replace(old, new)

    monkeypatch.setattr(files.os, "open", opened)
    monkeypatch.setattr(files.os, "fsync", flushed)
    monkeypatch.setattr(files.os, "replace", renamed)
    return names


def test_content_is_on_the_disk_before_its_name_and_the_name_before_the_call_returns(
    tmp_path, calls
):
    files.write_json(tmp_path / "a.json", {"b": 1})
    aside = f".a.json.{os.getpid()}"
    assert calls == [("flush", aside), ("rename", aside, "a.json"), ("flush", tmp_path.name)]


def test_what_need_not_be_durable_waits_for_no_disk(tmp_path, calls):
    files.write_json(tmp_path / "a.json", {"b": 1}, durable=False)
    assert [call[0] for call in calls] == ["rename"]


def test_a_disk_that_is_full_at_the_flush_leaves_the_old_file(tmp_path, monkeypatch):
    files.write_json(tmp_path / "a.json", {"b": 1})

    def full(descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(files.os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        files.write_json(tmp_path / "a.json", {"b": 2})
    assert (tmp_path / "a.json").read_text() == '{\n "b": 1\n}\n'
    assert [path.name for path in tmp_path.iterdir()] == ["a.json"]


def test_every_file_of_a_folder_is_flushed_and_the_folder_last(tmp_path, calls):
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "a").write_text("a")
    files.flush_all(tmp_path)
    assert {name for _, name in calls} == {tmp_path.name, "in", "a"}
    assert calls[-1] == ("flush", tmp_path.name)
