"""The numbers of status codes: they are gRPC's, and no other module gives one a name."""

from __future__ import annotations

import re

import grpc
import pytest

from mesh.rpc import status_codes
from mesh.rpc.status_codes import status_code
from tests.source_files import PRODUCT, sources

OTHER_NAME = re.compile(
    rf"^ *_?({'|'.join(code.name for code in grpc.StatusCode)})(: \w+)? = (\d+$|grpc\.)|StatusCode\.[A-Z_]+\.value",
    re.MULTILINE,
)


def test_the_numbers_are_those_of_grpc() -> None:
    numbers = {name: value for name, value in vars(status_codes).items() if name.isupper() and isinstance(value, int)}
    assert numbers == {code.name: code.value[0] for code in grpc.StatusCode}


def test_no_other_module_names_a_number() -> None:
    found = {source.path: each[0] for source in sources(*PRODUCT) for each in OTHER_NAME.finditer(source.text)}
    assert [path for path in found if path != "mesh/rpc/status_codes.py"] == []


@pytest.mark.parametrize(("number", "code"), [(0, "OK"), (16, "UNAUTHENTICATED"), (17, "UNKNOWN"), (-1, "UNKNOWN")])
def test_a_number_that_grpc_does_not_define_is_unknown(number: int, code: str) -> None:
    assert status_code(number).name == code
