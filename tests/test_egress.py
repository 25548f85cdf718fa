from __future__ import annotations

from ipaddress import IPv4Address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stoker.egress import NEVER, PRIVATE, is_reachable, read_networks, read_servers, read_target


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("Example.ORG.", "example.org"),
        ("example.org:443", "example.org:443"),
        ("*.example.org:1", "*.example.org:1"),
        ("db", "db"),
        ("203.0.113.7", "203.0.113.7"),
        ("203.0.113.0/24:65535", "203.0.113.0/24:65535"),
        ("10.0.0.0/8", "10.0.0.0/8"),
        ("_dmarc.example.org", "_dmarc.example.org"),
    ],
)
def test_a_target_is_read_and_shown_in_one_form(text: str, shown: str) -> None:
    assert str(read_target(text)) == shown
    assert str(read_target(shown)) == shown


@pytest.mark.parametrize(
    "text",
    [
        "",
        ":443",
        "example.org:0",
        "example.org:65536",
        "example.org:http",
        "example.org:",
        "http://example.org",
        "exa mple.org",
        "*",
        "*.",
        "a.*.org",
        "-a.org",
        "a..org",
        "x" * 64 + ".org",
        "a." * 127 + "org",
        "1.2.3",
        "1.2.3.4.5",
        "256.1.1.1",
        "10.0.0.1/8",
        "10.0.0.0/33",
        "::1",
        "[::1]:80",
        "::ffff:127.0.0.1",
        "ex\0ample.org",
        "exämple.org",
        "example.org\n",
        "169.254.169.254",
        "127.0.0.1:80",
        "0.0.0.0",
        "224.0.0.0/4",
        "255.255.255.255",
    ],
)
def test_a_bad_target_is_refused_with_what_is_allowed(text: str) -> None:
    with pytest.raises(ValueError, match=r"a name, \*.name or an IPv4 address"):
        read_target(text)


@given(st.text(max_size=80))
def test_any_text_is_a_target_or_a_clear_error(text: str) -> None:
    try:
        target = read_target(text)
    except ValueError as error:
        assert "a name" in str(error)
    else:
        assert read_target(str(target)) == target


def test_a_star_means_the_names_below_and_not_the_name_itself() -> None:
    target = read_target("*.example.org")
    assert target.means("a.example.org") and target.means("a.b.example.org")
    assert not any(map(target.means, ("example.org", "badexample.org", "example.org.evil.net")))


@pytest.mark.parametrize("network", NEVER)
def test_what_is_never_reachable_no_list_opens(network: object) -> None:
    everything = read_networks("0.0.0.0/0")
    assert not is_reachable(IPv4Address(str(network).split("/")[0]), everything)


@pytest.mark.parametrize("network", PRIVATE)
def test_a_private_address_is_reachable_where_the_operator_lists_it(network: object) -> None:
    address = IPv4Address(str(network).split("/")[0]) + 7
    assert not is_reachable(address, ())
    assert is_reachable(address, read_networks(f"{network}:80"))
    assert not is_reachable(address, read_networks("10.200.0.0/16"))


@pytest.mark.parametrize("text", ["192.0.2.1", "198.51.100.1", "203.0.113.10", "8.8.8.8"])
def test_public_addresses_are_reachable(text: str) -> None:
    assert is_reachable(IPv4Address(text), ())


def test_name_servers_are_addresses_with_or_without_a_port() -> None:
    said = "192.0.2.1, 192.0.2.2:5353 2001:db8::1 [2001:db8::2]:54"
    assert read_servers(said) == (
        ("192.0.2.1", 53),
        ("192.0.2.2", 5353),
        ("2001:db8::1", 53),
        ("2001:db8::2", 54),
    )


@pytest.mark.parametrize("text", ["example.org", "192.0.2.1:0", "192.0.2.1:65536", "1.2.3", "[::1", "::g"])
def test_a_name_server_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(ValueError):
        read_servers(text)
