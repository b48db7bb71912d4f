"""The types of settings: what passes means one thing, is written in one way, and is safe where it says so."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from consolidate import values
from consolidate.stack import parse_publish

addresses = st.one_of(
    st.ip_addresses(v=4).map(str), st.ip_addresses(v=6).map(str), st.sampled_from(["0.0.0.0", "127.0.0.1", "::", "::1"])
)


@pytest.mark.parametrize(
    ("text", "size"),
    [("512M", 2**29), ("2GiB", 2**31), ("1.5k", 1536), ("7", 7), (7, 7), ("0", 0), ("1 TB", 2**40), ("64mb", 2**26)],
)
def test_a_size_is_in_powers_of_1024(text: str | int, size: int) -> None:
    """A size means what Compose means by it."""
    assert values.size(text) == size


@pytest.mark.parametrize(
    ("text", "seconds"), [("30s", 30), ("1m30s", 90), ("500ms", 0.5), ("2h", 7200), ("1d", 86400), (5, 5), (0.5, 0.5)]
)
def test_a_duration_is_in_seconds(text: str | float, seconds: float) -> None:
    """A duration may have several parts, and a bare number is seconds."""
    assert values.duration(text) == seconds


@pytest.mark.parametrize("convert", [values.size, values.duration, values.domain, values.email, values.listen])
@pytest.mark.parametrize("value", [True, None, [], {}, "", " ", "x y", "-1", -1, "0x10", "1\n2", "²"])
def test_what_is_nothing_of_the_kind_is_a_value_error(convert: object, value: object) -> None:
    """A converter refuses what it doesn't know, with a message and nothing worse."""
    with pytest.raises(ValueError, match=r"\w"):
        print(convert(value))  # type: ignore[operator]


@given(st.text("abc@.+-_ <>\"'\\;$\n%ü", max_size=16))
def test_no_address_holds_a_sign(text: str) -> None:
    """Whatever passes as an email address is safe in every file, and stays as it is."""
    try:
        address = values.email(text)
    except ValueError:
        return
    assert set(address) <= set("abc@.+-_xn0123456789defghijklmopqrstuvwyz")
    assert address.count("@") == 1
    assert values.email(address) == address


@given(st.integers(1, 65535), addresses)
def test_a_place_to_listen_has_one_spelling(port: int, address: str) -> None:
    """A port, and an address with it, give ADDRESS:PORT that reads as itself."""
    shown = f"[{address}]:{port}" if ":" in address else f"{address}:{port}"
    assert values.listen(shown) == values.listen(values.listen(shown))
    assert values.listen(port) == values.listen(str(port)) == f"127.0.0.1:{port}"


def test_a_capability_has_one_spelling() -> None:
    """As the engine tells it, so that what was made is what is wanted."""
    assert [values.capability(n) for n in ("CAP_NET_ADMIN", "NET_ADMIN", "ALL")] == ["NET_ADMIN", "NET_ADMIN", "ALL"]


def test_one_address_has_one_spelling() -> None:
    """IPv6 addresses are compared by what they are, not by how they are written."""
    assert parse_publish("[0:0:0:0:0:0:0:1]:1:2") == parse_publish("[::1]:1:2")
    assert values.listen("[0:0::1]:1") == "[::1]:1"


labels = st.from_regex(r"[a-z0-9]([a-z0-9-]{0,10}[a-z0-9])?", fullmatch=True)


@given(st.lists(labels, min_size=1, max_size=3), st.sampled_from(["test", "example", "xn--p1ai"]))
def test_a_domain_has_one_spelling(parts: list[str], top: str) -> None:
    """Capitals, a final dot and spaces around it change nothing; the result is safe and stays as it is."""
    name = ".".join([*parts, top])
    assert values.domain(f" {name.upper()}. ") == values.domain(name) == name


@given(st.text(max_size=20))
def test_no_domain_holds_a_sign(text: str) -> None:
    """Whatever passes as a domain is letters, digits, dashes and dots, so that it is safe in every file."""
    try:
        name = values.domain(text)
    except ValueError:
        return
    assert set(name) <= set("abcdefghijklmnopqrstuvwxyz0123456789-.")
    assert values.domain(name) == name
