"""The option `retry` of handles and gateways."""

from __future__ import annotations

import pickle
from typing import Any

import grpc
import pytest

from mesh.handle import DeploymentHandle
from mesh.options.calls.retry_option import RetryPolicy, retry_policy

UNAVAILABLE, INTERNAL = 14, 13


def test_defaults() -> None:
    assert retry_policy({}) == RetryPolicy(attempts=3, codes=frozenset({UNAVAILABLE}), budget=0.1)
    assert retry_policy(None) is None


def test_codes_are_names_or_members() -> None:
    policy = retry_policy({"attempts": 5, "codes": ["INTERNAL", grpc.StatusCode.UNAVAILABLE], "budget": 1})
    assert policy == RetryPolicy(attempts=5, codes=frozenset({UNAVAILABLE, INTERNAL}), budget=1.0)
    assert retry_policy(policy) is policy


@pytest.mark.parametrize(
    ("value", "error", "said"),
    [
        (3, TypeError, "retry must be a dict such as"),
        ({"atempts": 3}, ValueError, "retry has no 'atempts'. Did you mean 'attempts'?"),
        ({"attempts": 1}, ValueError, r"retry\['attempts'\] must be between 2 and 16|at least 2"),
        ({"attempts": 17}, ValueError, r"retry\['attempts'\] must be between 2 and 16"),
        ({"attempts": "3"}, TypeError, "must be an integer"),
        ({"codes": "UNAVAILABLE"}, TypeError, r"retry\['codes'\] must be a list"),
        ({"codes": []}, TypeError, r"retry\['codes'\] must be a list"),
        ({"codes": ["UNAVAILBLE"]}, ValueError, "Did you mean 'UNAVAILABLE'?"),
        ({"codes": ["internal"]}, ValueError, "Did you mean 'INTERNAL'?"),
        ({"codes": ["OK"]}, ValueError, "cannot have 'OK'"),
        ({"codes": [grpc.StatusCode.CANCELLED]}, ValueError, "cannot have"),
        ({"codes": [14]}, ValueError, "cannot have 14"),
        ({"budget": 0}, ValueError, "must be more than 0"),
        ({"budget": 2}, ValueError, "must be at most 1"),
        ({"budget": "much"}, TypeError, "must be a number"),
    ],
)
def test_wrong_values_say_what_is_wrong(value: object, error: type[Exception], said: str) -> None:
    with pytest.raises(error, match=said):
        retry_policy(value)


def test_handles_keep_it_when_they_are_derived_and_pickled() -> None:
    handle: DeploymentHandle[Any] = DeploymentHandle("Store", "shop").options(retry={"attempts": 4}).buy
    assert handle._options.retry == RetryPolicy(4, frozenset({UNAVAILABLE}), 0.1)
    assert pickle.loads(pickle.dumps(handle))._options == handle._options
    assert handle.options(retry=None)._options.retry is None
    with pytest.raises(ValueError, match="retry has no 'tries'"):
        handle.options(retry={"tries": 4})
