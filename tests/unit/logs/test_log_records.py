"""mesh.logs.log_records: records in text, and the queries that select some of them."""

from __future__ import annotations

import pytest

from mesh.logs.log_files import LogName
from mesh.logs.log_records import LogQuery, records_of

T1, T2 = "2026-11-28 20:15:01,123", "2026-11-28 20:15:02,456"
SHOP = LogName("replica", "shop", "Shop", "a1")
TAX = LogName("replica", "shop", "Tax", "b2")
BLOG = LogName("replica", "blog", "Shop", "c3")
POLICY = LogName("policy", "shop", "Shop")
GATEWAY = LogName("gateway", process_id="g1")
CONTROLLER = LogName("controller")
ALL = [SHOP, TAX, BLOG, POLICY, GATEWAY, CONTROLLER]


def test_a_record_ends_where_the_next_one_begins() -> None:
    lines = [
        "the rest of a traceback",
        f"{T1} ERROR replica shop/Shop#a1 [r1] mesh: Buy failed",
        "Traceback (most recent call last):",
        "",
        "ValueError: 2026-11-28 is over",
        f'{{"asctime": "{T2}", "message": "sold"}}',
    ]
    records = list(records_of(lines))
    assert [record.time for record in records] == ["", T1, T2]
    assert "\n".join(record.text for record in records) == "\n".join(lines)


def test_no_lines_are_no_records() -> None:
    assert list(records_of([])) == []


@pytest.mark.parametrize(
    ("query", "wanted"),
    [
        (LogQuery(), ALL),
        (LogQuery(apps=("shop",)), [SHOP, TAX, POLICY, CONTROLLER]),
        (LogQuery(apps=("shop", "blog")), [SHOP, TAX, BLOG, POLICY, CONTROLLER]),
        (LogQuery(apps=("shop",), deployment="Shop"), [SHOP, POLICY, CONTROLLER]),
        (LogQuery(apps=("shop",), replica_id="b2"), [TAX, CONTROLLER]),
        (LogQuery(replica_id="c3"), [BLOG, CONTROLLER]),
        (LogQuery(request_id="r1"), ALL),
    ],
)
def test_files_are_chosen_by_their_names(query: LogQuery, wanted: list[LogName]) -> None:
    assert [name for name in ALL if query.wants_file(name)] == wanted


@pytest.mark.parametrize(
    ("query", "message", "is_wanted"),
    [
        (LogQuery(), "anything", True),
        (LogQuery(apps=("shop",)), "stopping replica shop/Shop#a1: more than wanted", True),
        (LogQuery(apps=("shop",)), "deployment shop/Shop: HEALTHY", True),
        (LogQuery(apps=("shop",)), "stopping replica workshop/Shop#a1: more than wanted", False),
        (LogQuery(apps=("shop",)), "stopping gateway g1 on node n1: node lost", False),
        (LogQuery(apps=("shop",), deployment="Shop"), "stopping replica shop/Shop#a1: more than wanted", True),
        (LogQuery(apps=("shop",), deployment="Shop"), "stopping replica shop/Shopping#a1: more than wanted", False),
        (LogQuery(apps=("shop",), replica_id="a1"), "stopping replica shop/Shop#a1: more than wanted", True),
        (LogQuery(apps=("shop",), replica_id="a1"), "stopping replica shop/Shop#a12: more than wanted", False),
        (LogQuery(apps=("a.b",)), "deployment aXb/Shop: HEALTHY", False),
    ],
)
def test_records_of_the_controller_are_chosen_by_what_they_name(query: LogQuery, message: str, is_wanted: bool) -> None:
    assert query.wants_record(CONTROLLER, f"{T1} INFO controller mesh: {message}") is is_wanted


def test_records_of_a_request_name_it_anywhere() -> None:
    query = LogQuery(request_id="r1")
    assert query.wants_record(SHOP, f"{T1} INFO replica shop/Shop#a1 [r1] mine: sold")
    assert query.wants_record(GATEWAY, f"{T1} INFO gateway g1 mesh: r1 was odd")
    assert not query.wants_record(SHOP, f"{T1} INFO replica shop/Shop#a1 [r2] mine: sold")


@pytest.mark.parametrize(
    ("line", "is_shown"),
    [
        ("INFO replica shop/Shop#a1 mesh: serving", False),
        ("INFO replica shop/Shop#a1 [r1] mesh.access: Buy OK", False),
        ("INFO replica shop/Shop#a1 mine: about mesh: it serves", True),
        ("INFO replica shop/Shop#a1 stdout: the shop opens", True),
        ("WARNING replica shop/Shop#a1 mesh: Buy failed in a call", True),
    ],
)
def test_a_console_shows_nothing_of_the_mesh_but_warnings(line: str, is_shown: bool) -> None:
    assert LogQuery(is_console=True).wants_record(SHOP, f"{T1} {line}") is is_shown


def test_a_console_shows_nothing_of_the_mesh_in_json_either() -> None:
    text = f'{{"asctime": "{T1}", "levelname": "INFO", "name": "mesh.access", "message": "Buy OK"}}'
    assert not LogQuery(is_console=True).wants_record(SHOP, text)
    assert LogQuery(is_console=True).wants_record(SHOP, text.replace("mesh.access", "mine"))
