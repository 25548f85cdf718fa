"""The node's one table of rules, as text: static, for whatever link carries one of its names.

A link by one of its names may reach what the node allows; one that is also in `narrowed`, only what is listed
for it or was answered to it. So a sandbox without a list costs no rule at all.

Each packet is judged twice: before any address of it is translated (what the function asked for), and when
it is forwarded (where the host, Docker for one, has turned it to).
"""

from __future__ import annotations

from collections.abc import Iterable
from ipaddress import IPv4Network, collapse_addresses

from stoker.egress import ANY_PORT, NEVER, PRIVATE, Target
from stoker.sandboxes.lean.egress.block import Block, prefix_of, table_of

ANY = "0-65535"
CONNECTIONS = 512  # at a time, of one sandbox; an entry of the kernel's table lives on for minutes
CONNECTIONS_OF_ALL = 0.25  # of what the kernel has room for
NEW_PER_S, NEW_AT_ONCE = 200, 1000
QUESTIONS_PER_S, QUESTIONS_AT_ONCE = 200, 500


def table(tag: str, block: Block, private: Iterable[Target], most: int) -> str:
    """The whole table. `private`: what the operator opens; `most`: connections that the kernel tracks."""
    return f"table inet {table_of(tag)} {{\n{_sets(block, private)}{_verdicts(most)}{_hooks(tag, block)}}}\n"


def _sets(block: Block, private: Iterable[Target]) -> str:
    opened = ", ".join(places(private))
    elements = f"elements = {{ {opened} }}" if opened else ""
    return f"""
  set never {{ type ipv4_addr; flags interval; elements = {{ {_list([*NEVER, block])} }} }}
  set private {{ type ipv4_addr; flags interval; elements = {{ {_list(PRIVATE)} }} }}
  set opened {{ type ipv4_addr . inet_service; flags interval; {elements} }}
  set narrowed {{ type ifname; }}
  set listed {{ type ifname . ipv4_addr . inet_service; flags interval; }}
  set answered {{ type ifname . ipv4_addr . inet_service; flags timeout; size 262144; }}
  set answered_whole {{ type ifname . ipv4_addr; flags timeout; size 65536; }}
  set beginning {{ type ipv4_addr; flags dynamic,timeout; timeout 1m; size 4096; }}
  set asking {{ type ipv4_addr; flags dynamic,timeout; timeout 1m; size 4096; }}
  set connected {{ type ipv4_addr; flags dynamic; size 4096; }}
"""


def _verdicts(most: int) -> str:
    return f"""
  chain refuse {{
    meta l4proto tcp reject with tcp reset
    meta nfproto ipv4 reject with icmp type admin-prohibited
    drop
  }}
  chain judge {{
    ip daddr @never goto refuse
    ip daddr @private ip daddr . th dport != @opened goto refuse
    iifname != @narrowed return
    iifname . ip daddr . th dport @listed return
    iifname . ip daddr . th dport @answered return
    iifname . ip daddr @answered_whole return
    goto refuse
  }}
  chain begin {{
    update @beginning {{ ip saddr {_over(NEW_PER_S, NEW_AT_ONCE)} }} goto refuse
    add @connected {{ ip saddr ct count over {CONNECTIONS} }} goto refuse
    ct count over {max(1024, int(most * CONNECTIONS_OF_ALL))} goto refuse
  }}
  chain ask {{
    update @asking {{ ip saddr {_over(QUESTIONS_PER_S, QUESTIONS_AT_ONCE)} }} goto refuse
  }}
"""


def _hooks(tag: str, block: Block) -> str:
    ours, gateway = f'"{prefix_of(tag)}*"', block.gateway
    return f"""
  chain untracked {{
    type filter hook prerouting priority raw; policy accept;
    iifname {ours} ip daddr {gateway} udp dport 53 notrack
  }}
  chain arriving {{
    type filter hook prerouting priority mangle; policy accept;
    iifname != {ours} return
    meta nfproto ipv6 drop
    fib saddr . iif oif missing drop
    ip daddr {gateway} udp dport 53 jump ask
    ip daddr {gateway} meta l4proto {{ tcp, udp }} th dport 53 return
    fib daddr type != unicast goto refuse
    ct state established,related return
    meta l4proto != {{ tcp, udp }} goto refuse
    jump judge
  }}
  chain input {{
    type filter hook input priority filter; policy accept;
    iifname != {ours} return
    ip daddr != {gateway} goto refuse
    meta l4proto tcp ct state new jump begin
  }}
  chain forward {{
    type filter hook forward priority filter; policy accept;
    oifname {ours} ct state established,related accept
    oifname {ours} drop
    iifname != {ours} return
    ct state established,related accept
    jump judge
    tcp flags syn tcp option maxseg size set rt mtu
    jump begin
  }}
  chain output {{
    type filter hook output priority filter; policy accept;
    oifname {ours} ct state new drop
  }}
  chain untracked_output {{
    type filter hook output priority raw; policy accept;
    oifname {ours} ip saddr {gateway} udp sport 53 notrack
  }}
  chain leaving {{
    type nat hook postrouting priority srcnat; policy accept;
    iifname {ours} ip saddr {block} masquerade
  }}
"""


def places(targets: Iterable[Target]) -> list[str]:
    """The networks among targets as elements of a set, which takes none that overlaps with another."""
    networks = [target for target in targets if not target.name]
    whole = list(collapse_addresses(target.network for target in networks if not target.port))
    found = [f"{network} . {ANY}" for network in whole]
    for port in sorted({target.port for target in networks} - {ANY_PORT}):
        for network in collapse_addresses(target.network for target in networks if target.port == port):
            found += [f"{piece} . {port}" for piece in _without(network, whole)]
    return found


def _without(network: IPv4Network, holes: Iterable[IPv4Network]) -> list[IPv4Network]:
    pieces = [network]
    for hole in holes:
        kept = [piece for piece in pieces if not piece.overlaps(hole)]
        cut = [piece for piece in pieces if hole.subnet_of(piece) and hole != piece]
        pieces = kept + [rest for piece in cut for rest in piece.address_exclude(hole)]
    return pieces


def _list(networks: Iterable[object]) -> str:
    return ", ".join(map(str, networks))


def _over(each_s: int, at_once: int) -> str:
    return f"limit rate over {each_s}/second burst {at_once} packets"
