"""What a sandbox is told: the name servers' answer without what would lead where it may not go.

A name may be made to lead anywhere, also differently each time it is asked for. So an address is told only
when it may be reached, and the addresses of a listed name are open only because they were told: nothing is
decided by a name that could mean something else a moment later.
"""

from __future__ import annotations

from collections.abc import Iterable
from ipaddress import IPv4Address

import dns.exception
import dns.flags
import dns.message
import dns.opcode
import dns.rcode
import dns.rdataclass
import dns.rdatatype
import dns.rrset

from stoker.egress import Target, is_reachable
from stoker.sandboxes.lean.resolver.asking import PAYLOAD

OLD_PAYLOAD = 512
LONGEST_S = 3600
MOST_ITEMS = 16  # of a kind; what could not be opened is not told
# What says where something is by an address of its own, and what only servers ask each other. There is no
# IPv6 inside: that a name has none is the answer that makes everybody go on at once.
EMPTY = frozenset(
    {dns.rdatatype.AAAA, dns.rdatatype.A6, dns.rdatatype.HTTPS, dns.rdatatype.SVCB, dns.rdatatype.APL}
)
ASKED = frozenset(
    dns.rdatatype.from_text(kind)
    for kind in "A CAA CNAME DNAME DNSKEY DS LOC MX NAPTR NS PTR SOA SRV SSHFP TLSA TXT URI".split()
)
ALIASES = frozenset({dns.rdatatype.CNAME, dns.rdatatype.DNAME})


def read(wire: bytes) -> dns.message.Message | None:
    """A question; None for what is none, or too broken to be answered."""
    try:
        query = dns.message.from_wire(wire)
    except (dns.exception.DNSException, ValueError, IndexError):
        return None
    return None if query.flags & dns.flags.QR else query


def refusal(query: dns.message.Message) -> dns.rcode.Rcode | None:
    """Why it is not asked at all; None when it may be."""
    if query.opcode() != dns.opcode.QUERY or len(query.question) != 1:
        return dns.rcode.NOTIMP
    question = query.question[0]
    if question.rdclass != dns.rdataclass.IN or question.rdtype not in ASKED | EMPTY:
        return dns.rcode.NOTIMP
    return None


def name_of(query: dns.message.Message) -> str:
    """As targets have it: lower-case, no dot at its end."""
    return query.question[0].name.to_text(omit_final_dot=True).lower()


def plain(query: dns.message.Message, code: dns.rcode.Rcode) -> dns.message.Message:
    """An answer with nothing in it."""
    reply = dns.message.make_response(query, recursion_available=True, our_payload=PAYLOAD)
    reply.set_rcode(code)
    return reply


def filtered(
    query: dns.message.Message, answer: dns.message.Message, private: Iterable[Target]
) -> dns.message.Message:
    """The answer for a sandbox: what was asked for and the aliases that lead to it."""
    reply = plain(query, answer.rcode())
    wanted = query.question[0].rdtype
    for found in answer.answer:
        if found.rdclass != dns.rdataclass.IN or found.rdtype not in {wanted, *ALIASES}:
            continue
        kept = [
            item for item in found if found.rdtype != dns.rdatatype.A or _is_allowed(item.address, private)
        ]
        if kept:
            reply.answer.append(dns.rrset.from_rdata_list(found.name, min(found.ttl, LONGEST_S), kept))
    return reply


def _is_allowed(address: str, private: Iterable[Target]) -> bool:
    return is_reachable(IPv4Address(address), private)


def addresses(reply: dns.message.Message, most: int) -> tuple[list[IPv4Address], int]:
    """What a reply leads to, at most so many, and for how many seconds."""
    told: dict[str, int] = {}
    for rrset in reply.answer:
        if rrset.rdtype == dns.rdatatype.A:
            told |= {item.address: rrset.ttl for item in rrset}
    return list(map(IPv4Address, list(told)[:most])), max(told.values(), default=0)


def on_wire(query: dns.message.Message, reply: dns.message.Message, is_stream: bool) -> bytes:
    """As long as the sandbox takes it; else a word that it should ask over a stream."""
    longest = 65535 if is_stream else min(max(OLD_PAYLOAD, query.payload), PAYLOAD)
    try:
        return reply.to_wire(max_size=longest)
    except dns.exception.TooBig:
        short = plain(query, reply.rcode())
        short.flags |= dns.flags.TC
        return short.to_wire(max_size=longest)
