"""What a node finds and prepares while it may still be root: languages, backends, the helper of `lean`."""

from __future__ import annotations

from pathlib import Path

import msgspec

from stoker import plugins
from stoker.code import builder_launch
from stoker.errors import BackendUnavailable
from stoker.linux import privileges
from stoker.runtimes.contract import Runtime
from stoker.sandboxes.contract import Backend, Launch
from stoker.settings import Settings


class Ground(msgspec.Struct, frozen=True):
    """What is found and prepared before the node gives root up."""

    runtimes: tuple[Runtime, ...]
    launches: dict[str, Launch]
    builder: Launch
    backends: dict[str, Backend]


def lay_ground(settings: Settings) -> Ground:
    """Find the languages and prepare the backends. Raises `BackendUnavailable`."""
    runtimes = tuple(plugins.load("runtimes", name).Runtime() for name in plugins.names("runtimes"))
    usable = tuple(runtime for runtime in runtimes if not runtime.problems())
    launches = {
        launch.name: launch
        for runtime in usable
        for launch in (runtime.launch(interpreter) for interpreter in runtime.interpreters())
    }
    python = _usual_python(usable, launches)
    builder = builder_launch(python, settings, launches.values())
    executed = (launch.executed() for launch in tuple(launches.values()) if launch.fork is not None)
    launches |= {launch.name: launch for launch in executed}
    others = (launch for launch in launches.values() if launch is not python)
    # The first is the one that a backend makes ready before anybody asks.
    backends = _backends(settings, (python, *others, builder))
    for backend in backends.values():
        backend.prepare()
    return Ground(usable, launches, builder, backends)


def _usual_python(runtimes: tuple[Runtime, ...], launches: dict[str, Launch]) -> Launch:
    """What functions get that ask for no version, and what builds run with."""
    for runtime in runtimes:
        if runtime.name == "python":
            return launches[f"python-{runtime.default().version}"]
    raise BackendUnavailable("no Python interpreter was found to run builds with; `stoker doctor` says more")


def _backends(settings: Settings, launches: tuple[Launch, ...]) -> dict[str, Backend]:
    """The default backend, and every other one that has walls and works here.

    Without walls only where the settings say so: a package that asks for `process` must not get out.
    """
    backends = {}
    for name in plugins.names("sandboxes"):
        room = plugins.load("sandboxes", name)
        backend: Backend = room.Backend(room.Settings.of(settings), launches)
        problems = backend.problems()
        if name == settings.sandbox and problems:
            raise BackendUnavailable(
                f"the {name} sandbox does not work here: {'; '.join(map(str, problems))}"
            )
        if name == settings.sandbox or (backend.abilities.walls and not problems):
            backends[name] = backend
    if settings.sandbox not in backends:
        plugins.load("sandboxes", settings.sandbox)
    return backends


def needed_paths(settings: Settings, ground: Ground) -> list[Path]:
    """What the node still reads after it has given root up, wherever it lies."""
    launches = (*ground.launches.values(), ground.builder)
    shown = [Path(show.source) for launch in launches for show in launch.shows]
    return [settings.home, *privileges.own_code(), *shown]
