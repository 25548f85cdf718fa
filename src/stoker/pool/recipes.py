"""From a function's version and what its caller prefers to what a sandbox for it needs."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import NamedTuple

from stoker.errors import BackendUnavailable, Unsupported
from stoker.pool.events import Need
from stoker.pool.pool import Recipe
from stoker.runtimes.greeting import Load
from stoker.runtimes.wire import write_load
from stoker.sandboxes.contract import CODE_PATH, Backend, Launch, SandboxSpec
from stoker.types import Function, Interpreter, Limits, Network, Reuse

SHARED_PLACES = 64
"""How many calls one shared sandbox takes at a time before another is started beside it."""
QUEUE_DEPTH = 256
"""How many short calls may queue inside one sandbox: as many as one function may have inside the node, so
that on a busy machine each turn that the sandbox gets serves all of them."""


class Order(NamedTuple):
    """What a lease for one version asks of the pool."""

    need: Need
    recipe: Callable[[str], Recipe]


class Recipes:
    """Knows the backends and launches of this node; remembers the orders it has written.

    Each sandbox counts with `least_mb` at least.
    """

    def __init__(
        self, backends: Mapping[str, Backend], default: str, launches: Mapping[str, Launch], least_mb: int = 0
    ) -> None:
        self._least_mb = least_mb
        self._backends = backends
        self._default = default
        self._launches = launches
        self._orders: dict[tuple[str, Reuse, float | None], Order] = {}

    def __repr__(self) -> str:
        return f"<Recipes for {', '.join(self._backends)}, {len(self._orders)} orders known>"

    def order(self, function: Function, folder: Path, reuse: Reuse, keep_s: float | None) -> Order:
        """Raises `BackendUnavailable`, `Unsupported`."""
        key = (function.revision, reuse, keep_s)
        order = self._orders.get(key)
        if order is None:
            if len(self._orders) >= 10_000:
                self._orders.clear()
            order = self._orders[key] = self._write(function, folder, reuse, keep_s)
        return order

    def _write(self, function: Function, folder: Path, preferred: Reuse, keep_s: float | None) -> Order:
        reuse = function.reuse or preferred
        kept = keep_s if reuse is preferred else None
        places = {Reuse.NONE: 1, Reuse.PROCESS: function.concurrency, Reuse.SANDBOX: SHARED_PLACES}[reuse]
        backend = self._backend(function.sandbox or self._default)
        lack = backend.lacks(function.network)
        if lack is not None:
            raise Unsupported(f"{function.name!r} asks for the network {function.network.value!r}: {lack}")
        launch = self._launch(self.launch_of(function))
        can_freeze = function.zygote and backend.abilities.freezes and launch.fork is not None
        # Where output of calls at once is told apart, modules must not have got hold of the streams before.
        is_alone = reuse is not Reuse.PROCESS or function.concurrency == 1
        packages = f"{backend.name} {launch.name} {function.packages}" if function.packages else ""
        need = Need(
            revision=function.revision,
            function=function.key,
            reuse=reuse,
            memory_mb=max(function.limits.memory_mb, self._least_mb),
            least_mb=self._least_mb,
            places=places,
            depth=QUEUE_DEPTH if reuse is Reuse.PROCESS and function.concurrency == 1 else 0,
            at_most=function.max_concurrency,
            keep_s=0.0 if reuse is Reuse.NONE else kept,
            packages=packages if can_freeze and is_alone else "",
            can_freeze=can_freeze,
            tells_memory=backend.abilities.tells_memory,
        )
        load = self._load(function, reuse, tells=bool(need.packages))
        opening = write_load(load)

        def recipe(name: str) -> Recipe:
            spec = SandboxSpec(
                id=name,
                launch=launch,
                limits=function.limits,
                code=folder,
                network=function.network,
                egress=function.egress,
                opening=opening,
            )
            return Recipe(backend, spec, load)

        return Order(need, recipe)

    def expect(self, launch: str, limits: Limits, network: Network, backend: str | None) -> None:
        """Have the backend be ready for calls of functions such as this; none that could not be made here."""
        there = self._backends.get(backend or self._default)
        if there is not None and launch in self._launches and there.lacks(network) is None:
            spec = SandboxSpec(id="expected", launch=self._launches[launch], limits=limits, network=network)
            there.expect(spec)

    def launch_of(self, function: Function) -> str:
        """The name of what its sandboxes start; it need not be there."""
        usual = f"{function.runtime}-{function.version}"
        own = f"{usual}-own"
        return own if function.interpreter is Interpreter.OWN and own in self._launches else usual

    def _backend(self, name: str) -> Backend:
        if name not in self._backends:
            known = ", ".join(sorted(self._backends))
            raise BackendUnavailable(f"no {name!r} in the sandboxes of this node; there is {known}")
        return self._backends[name]

    def _launch(self, name: str) -> Launch:
        if name not in self._launches:
            known = ", ".join(sorted(self._launches))
            raise Unsupported(f"no runtime {name!r} on this node; there is {known}")
        return self._launches[name]

    @staticmethod
    def _load(function: Function, reuse: Reuse, tells: bool) -> Load:
        cpu_s = function.limits.cpu_s if reuse is Reuse.SANDBOX else None
        return Load(
            code=CODE_PATH,
            handler=function.handler,
            mode="fork" if reuse is Reuse.SANDBOX else "process",
            concurrency=function.concurrency if reuse is Reuse.PROCESS else 1,
            function=function.name,
            memory_mb=function.limits.memory_mb,
            log_bytes=function.limits.log_bytes,
            result_bytes=function.limits.result_bytes,
            cpu_ms=math.ceil((cpu_s or 0) * 1000),
            environment=function.environment,
            tells=tells,
        )
