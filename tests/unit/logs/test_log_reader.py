"""mesh.logs.log_reader: the files of a node, from the beginning and from where the last reading ended."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from mesh.logs.log_files import LogName
from mesh.logs.log_reader import LogPage, read_directory
from mesh.logs.log_records import LogQuery

SHOP = LogName("replica", "shop", "Shop", "a1")
TAX = LogName("replica", "shop", "Tax", "b2")


def line(second: int, text: str) -> str:
    return f"2026-11-28 20:15:{second:02d},000 INFO replica x mine: {text}\n"


def append(directory: Path, name: LogName, text: str) -> None:
    with (directory / name.file_name).open("a") as file:
        file.write(text)


def texts(page: LogPage) -> list[str]:
    return [record.text.partition("mine: ")[2] or record.text for record in page.records]


def test_records_of_all_files_are_in_the_order_of_time(tmp_path: Path) -> None:
    append(tmp_path, SHOP, line(1, "one") + line(3, "three"))
    append(tmp_path, TAX, line(2, "two"))
    (tmp_path / "worker-1.log").write_text(line(1, "not ours"))
    page = read_directory(tmp_path, LogQuery(), {})
    assert texts(page) == ["one", "two", "three"]
    assert page.names == {SHOP, TAX}
    assert texts(read_directory(tmp_path, LogQuery(deployment="Tax"), {})) == ["two"]


def test_a_node_without_logs_has_an_empty_page(tmp_path: Path) -> None:
    assert read_directory(tmp_path / "nothing", LogQuery(), {}) == LogPage()


def test_only_the_latest_records_are_kept(tmp_path: Path) -> None:
    append(tmp_path, SHOP, "".join(line(second, str(second)) for second in range(10)))
    append(tmp_path, TAX, line(10, "last"))
    assert texts(read_directory(tmp_path, LogQuery(records_max=2), {})) == ["9", "last"]


def test_files_that_are_too_old_to_matter_are_not_read(tmp_path: Path) -> None:
    """A later reading does not go back to them."""
    append(tmp_path, SHOP, line(1, "old"))
    os.utime(tmp_path / SHOP.file_name, (0, 0))
    append(tmp_path, TAX, line(2, "new") + line(3, "newer"))
    page = read_directory(tmp_path, LogQuery(records_max=2), {})
    assert texts(page) == ["new", "newer"]
    assert page.names == {SHOP, TAX}
    append(tmp_path, SHOP, line(4, "newest"))
    assert texts(read_directory(tmp_path, LogQuery(records_max=2), page.places)) == ["newest"]


def test_a_second_reading_goes_on_where_the_first_one_ended(tmp_path: Path) -> None:
    append(tmp_path, SHOP, line(1, "one") + "2026-11-28 unfinished")
    first = read_directory(tmp_path, LogQuery(), {})
    assert texts(first) == ["one"]
    assert texts(read_directory(tmp_path, LogQuery(), first.places)) == []
    append(tmp_path, SHOP, " line\n" + line(2, "two"))
    append(tmp_path, TAX, line(3, "three"))
    assert texts(read_directory(tmp_path, LogQuery(), first.places)) == [
        "one\n2026-11-28 unfinished line".removeprefix("one\n"),
        "two",
        "three",
    ]


def test_what_is_there_can_be_skipped(tmp_path: Path) -> None:
    append(tmp_path, SHOP, line(1, "one"))
    places = read_directory(tmp_path, LogQuery(records_max=0), {}).places
    append(tmp_path, SHOP, line(2, "two"))
    assert texts(read_directory(tmp_path, LogQuery(), places)) == ["two"]


def test_a_file_that_was_renamed_is_read_to_its_end(tmp_path: Path) -> None:
    append(tmp_path, SHOP, line(1, "one"))
    places = read_directory(tmp_path, LogQuery(), {}).places
    append(tmp_path, SHOP, line(2, "two"))
    (tmp_path / SHOP.file_name).rename(tmp_path / f"{SHOP.file_name}.1")
    append(tmp_path, SHOP, line(3, "three"))
    assert texts(read_directory(tmp_path, LogQuery(), places)) == ["two", "three"]


def test_a_file_that_became_shorter_is_read_from_its_beginning(tmp_path: Path) -> None:
    append(tmp_path, SHOP, line(1, "one") + line(2, "two"))
    places = read_directory(tmp_path, LogQuery(), {}).places
    (tmp_path / SHOP.file_name).write_text(line(3, "new"))
    assert texts(read_directory(tmp_path, LogQuery(), places)) == ["new"]


@pytest.mark.parametrize(("request_id", "shown"), [("r1", ["the rest"]), ("r2", [])])
def test_lines_that_continue_a_record_belong_to_it_in_a_later_reading_too(
    tmp_path: Path, request_id: str, shown: list[str]
) -> None:
    query = LogQuery(request_id=request_id)
    append(tmp_path, SHOP, line(1, "r1 failed"))
    places = read_directory(tmp_path, query, {}).places
    append(tmp_path, SHOP, "the rest\n")
    assert texts(read_directory(tmp_path, query, places)) == shown


def test_text_that_is_no_utf8_is_shown_as_far_as_it_goes(tmp_path: Path) -> None:
    (tmp_path / SHOP.file_name).write_bytes(line(1, "one").encode() + b"\xff\n")
    assert texts(read_directory(tmp_path, LogQuery(), {})) == ["one\n\ufffd"]
