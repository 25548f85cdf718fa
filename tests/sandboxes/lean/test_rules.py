from __future__ import annotations

from ipaddress import IPv4Address, IPv4Network
from itertools import combinations

from hypothesis import given
from hypothesis import strategies as st

from stoker.egress import NOWHERE, Target
from stoker.sandboxes.lean.egress.block import BLOCKS, Block, tag_of
from stoker.sandboxes.lean.egress.rules import ANY, places


def network(address: int, length: int) -> IPv4Network:
    return IPv4Network((address, length), strict=False)


targets = st.lists(
    st.builds(
        lambda at, length, port: Target("", network(0x0A000000 + at, length), port),
        st.integers(0, 63),
        st.integers(24, 32),
        st.sampled_from([0, 80, 443]),
    ),
    max_size=8,
)


@given(targets, st.integers(0, 255), st.sampled_from([80, 443, 8080]))
def test_places_are_what_the_targets_mean_and_never_overlap(
    targets: list[Target], at: int, port: int
) -> None:
    read = [(IPv4Network(one.split(" . ")[0]), one.split(" . ")[1]) for one in places(targets)]
    for (first, one), (second, other) in combinations(read, 2):
        assert not first.overlaps(second) or (one != other and ANY not in (one, other))
    address = IPv4Address(0x0A000000 + at)
    meant = any(address in target.network and target.port in (0, port) for target in targets)
    assert any(address in place and said in (ANY, str(port)) for place, said in read) == meant


def test_a_name_is_no_place() -> None:
    assert places([Target("example.org", NOWHERE, 80)]) == []


def test_blocks_do_not_overlap_and_fill_their_range() -> None:
    import socket

    with socket.socket(socket.AF_UNIX) as claim:
        blocks = [IPv4Network(str(Block(number, claim))) for number in range(BLOCKS)]
    assert sum(block.num_addresses for block in blocks) == 2**17
    assert all(block.subnet_of(IPv4Network("198.18.0.0/15")) for block in blocks)
    assert not any(one.overlaps(other) for one, other in combinations(blocks, 2))


def test_a_name_with_little_room_has_eight_characters_for_every_node() -> None:
    assert tag_of("c0ffee01") == "c0ffee01"
    tags = {tag_of(node_id) for node_id in ("pid1", "pid12", "pid123", "-" * 8, "x" * 60)}
    assert {len(tag) for tag in tags} == {8} and len(tags) == 5
