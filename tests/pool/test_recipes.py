from __future__ import annotations

from pathlib import Path

import pytest

from stoker.errors import Unsupported
from stoker.pool.recipes import Recipes
from stoker.sandboxes.contract import Launch, Problem
from stoker.sandboxes.fake import Backend, Settings
from stoker.types import Function, Network, Reuse

LAUNCH = Launch(name="python-3.11.2", argv=("fake",))


class Walled(Backend):
    """One that lets nobody out."""

    def lacks(self, network: Network) -> Problem | None:
        return Problem("there is no way out", "make one") if network is Network.EGRESS else None


def order(backend: Backend, network: Network) -> object:
    recipes = Recipes({"fake": backend}, "fake", {LAUNCH.name: LAUNCH})
    function = Function(
        key="functions/f",
        name="f",
        runtime="python",
        version="3.11.2",
        handler="main.f",
        revision="r",
        network=network,
        egress=("example.org:443",) if network is Network.EGRESS else (),
    )
    return recipes.order(function, Path("/"), Reuse.NONE, None).recipe("guest").spec  # type: ignore[attr-defined]


def test_a_network_that_the_backend_lacks_is_unsupported_with_what_to_do() -> None:
    with pytest.raises(Unsupported, match="'f' asks for the network 'egress': there is no way out; make one"):
        order(Walled(Settings(), (LAUNCH,)), Network.EGRESS)
    order(Walled(Settings(), (LAUNCH,)), Network.NONE)


def test_what_a_function_may_reach_gets_to_its_sandbox() -> None:
    spec = order(Backend(Settings(), (LAUNCH,)), Network.EGRESS)
    assert (spec.network, spec.egress) == (Network.EGRESS, ("example.org:443",))  # type: ignore[attr-defined]
