"""Questions to the host's name servers, each from a port and with a number that nobody can guess."""

from __future__ import annotations

import asyncio

import dns._asyncio_backend
import dns.asyncquery
import dns.exception
import dns.flags
import dns.message
import dns.name
import dns.rcode
import dns.rdatatype

PAYLOAD = 1232  # bytes of an answer that no network cuts into pieces (DNS flag day 2020)
EACH_S, ALL_S = 2.0, 4.5  # glibc asks again after 5


class Upstream:
    """The name servers, asked one after the other."""

    def __init__(self, servers: tuple[tuple[str, int], ...]) -> None:
        self._servers = servers
        self._backend = dns._asyncio_backend.Backend()

    def __repr__(self) -> str:
        return f"<Upstream {self._servers}>"

    async def ask(self, name: dns.name.Name, kind: dns.rdatatype.RdataType) -> dns.message.Message | None:
        """The first answer that is one; None when nobody gives any in time."""
        try:
            async with asyncio.timeout(ALL_S):
                for server in self._servers * 2:
                    answer = await self._ask(name, kind, server)
                    if answer is not None:
                        return answer
        except TimeoutError:
            pass
        return None

    async def _ask(
        self, name: dns.name.Name, kind: dns.rdatatype.RdataType, server: tuple[str, int]
    ) -> dns.message.Message | None:
        # Nothing of the sandbox's own question goes out but name and kind.
        question = dns.message.make_query(name, kind, use_edns=0, payload=PAYLOAD)
        where, port = server
        try:
            async with asyncio.timeout(EACH_S):
                answer, _ = await dns.asyncquery.udp_with_fallback(
                    question,
                    where,
                    port=port,
                    ignore_unexpected=True,
                    ignore_errors=True,
                    backend=self._backend,
                )
        except (OSError, TimeoutError, EOFError, dns.exception.DNSException):
            return None
        usable = (dns.rcode.NOERROR, dns.rcode.NXDOMAIN)
        return answer if answer.rcode() in usable else None
