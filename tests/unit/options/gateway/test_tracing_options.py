"""mesh.options.gateway.tracing_options: `tracing_config` of `mesh.start` and of files (items 59, 247)."""

from typing import Any

import pytest

from mesh.options.gateway import gateway_options
from mesh.options.gateway.tracing_options import TracingConfig, parse


def test_what_is_not_given_is_left_to_the_environment() -> None:
    """Not even a default is stored (item 59)."""
    message = gateway_options.parse(None, None, None, tracing_config={}).to_message()
    assert message.HasField("tracing")
    assert not message.tracing.ListFields()
    assert not gateway_options.parse(None, None, None).to_message().HasField("tracing")


def test_options_are_a_dict_or_a_record() -> None:
    """Both mean the same (item 59)."""
    given: dict[str, Any] = {"enabled": False, "exporter_import_path": "shop.spans:processors", "sampling_ratio": 0.25}
    assert parse(given) == TracingConfig(**given)
    message = TracingConfig(**given).to_message()
    assert (message.is_enabled, message.exporter_import_path, message.sampling_ratio) == (
        False,
        "shop.spans:processors",
        0.25,
    )
    assert message.HasField("is_enabled")


@pytest.mark.parametrize(
    ("options", "kind", "message"),
    [
        ({"enabled": "yes"}, TypeError, r"\['enabled'\] must be True or False, got 'yes'"),
        ({"sampling_ratio": 1.5}, ValueError, r"\['sampling_ratio'\] must be at most 1, got 1.5"),
        ({"sampling_ratio": -0.1}, ValueError, r"\['sampling_ratio'\] must be at least 0"),
        ({"sampling_ratio": float("nan")}, ValueError, r"\['sampling_ratio'\] must be at least 0"),
        ({"exporter_import_path": "processors"}, ValueError, "not an import path: write package.module:function"),
        ({"exporter_import_path": "shop.spans:"}, ValueError, "not an import path: write package.module:function"),
        ({"sample_ratio": 1.0}, TypeError, r"\['sample_ratio'\] is unknown. Did you mean 'sampling_ratio'\?"),
        ("console", TypeError, "tracing_config must be a dict, got str"),
    ],
)
def test_wrong_options_are_named(options: Any, kind: type[Exception], message: str) -> None:
    with pytest.raises(kind, match=message):
        parse(options)
