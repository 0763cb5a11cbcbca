"""gateway.access.api_keys and mesh.wire.api_key_lines: keys from a file of hashes."""

from __future__ import annotations

import hmac
from pathlib import Path
from unittest.mock import patch

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.access.api_keys import ApiKeys
from mesh.authentication import ClientRequest
from mesh.wire.api_key_lines import key_line, read_keys
from mesh.wire.identity import Identity

words = st.from_regex(r"[A-Za-z0-9_.@-]{1,12}", fullmatch=True)


def checks(tmp_path: Path, *lines: str) -> ApiKeys:
    path = tmp_path / "keys.txt"
    path.write_text("\n".join(lines))
    made = ApiKeys(str(path))
    made.reload()
    return made


def bearer(key: str) -> ClientRequest:
    return ClientRequest(path="/a", metadata={"authorization": f"Bearer {key}"})


@given(st.dictionaries(words, st.tuples(words, st.dictionaries(words, words, max_size=3)), max_size=5))
def test_a_file_is_read_as_its_lines_were_made(clients: dict[str, tuple[str, dict[str, str]]]) -> None:
    """By key: the name and attributes of its client."""
    text = "".join(f"{key_line(name, key, attributes)}\n" for key, (name, attributes) in clients.items())
    assert [identity for _, identity in read_keys(text, "f")] == [Identity(*each) for each in clients.values()]


@given(st.text(max_size=60))
def test_wrong_lines_are_named_by_number_and_not_shown(text: str) -> None:
    with pytest.raises(ValueError, match=r"^keys\.txt, line 2: a line is NAME") as caught:
        read_keys(f"# comment\nalice secret-in-clear {text.splitlines()[0] if text.splitlines() else ''}", "keys.txt")
    assert "secret-in-clear" not in str(caught.value)


def test_a_key_of_two_clients_is_refused() -> None:
    lines = f"{key_line('alice', 'k', {})}\n{key_line('bob', 'k', {})}"
    with pytest.raises(ValueError, match=r"line 2: the key is there twice"):
        read_keys(lines, "f")


@given(st.text(max_size=40))
def test_no_other_key_is_accepted(key: str) -> None:
    made = ApiKeys("f")
    with patch.object(Path, "open", autospec=True) as opened:
        opened.return_value.__enter__.return_value.read.return_value = key_line("alice", "right-key", {}).encode()
        made.reload()
    found = made.check(bearer(key))
    assert (found is not None) == (key.strip() == "right-key")


def test_found_digests_are_compared_in_constant_time(tmp_path: Path) -> None:
    """What is looked up is blinded by a secret of the process, so the time of the look-up says nothing about keys."""
    made = checks(tmp_path, key_line("alice", "a", {}))
    with patch.object(hmac, "compare_digest", wraps=hmac.compare_digest) as compared:
        assert made.check(bearer("a")) is not None
        assert made.check(bearer("b")) is None
    assert compared.call_count == 2
    assert checks(tmp_path, key_line("alice", "a", {}))._identities.keys() != made._identities.keys()


def test_a_wrong_new_file_changes_nothing(tmp_path: Path) -> None:
    made = checks(tmp_path, key_line("alice", "a", {}))
    (tmp_path / "keys.txt").write_text("nonsense")
    with pytest.raises(ValueError, match="line 1"):
        made.reload()
    assert made.check(bearer("a")) == Identity("alice")
    (tmp_path / "keys.txt").unlink()
    with pytest.raises(OSError, match=r"\['keys_file'\]: cannot read"):
        made.reload()


@pytest.mark.parametrize(
    "metadata",
    [
        {},
        {"authorization": ""},
        {"authorization": "Bearer"},
        {"authorization": "Bearer "},
        {"authorization": b"Bearer a"},
        {"authorization": "Basic a"},
        {"x-api-key": ""},
        {"x-api-key": "a" * 5000},
    ],
)
def test_requests_without_a_key_are_not_decided(tmp_path: Path, metadata: dict[str, str | bytes]) -> None:
    made = checks(tmp_path, key_line("alice", "a", {}), key_line("bob", "", {}))
    assert made.check(ClientRequest(path="/a", metadata=metadata)) is None
