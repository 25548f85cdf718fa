"""Without walls there are no paths of our own: what is seen inside is where it is on the host."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from stoker.sandboxes.contract import CODE_PATH, WORKSPACE_PATH, SandboxSpec, Show

SCRATCH_PATH = "/tmp"


class Translation:
    """From the paths that a `Launch` names to those of this host."""

    def __init__(self, spec: SandboxSpec, scratch: str) -> None:
        shows = [*spec.launch.shows, Show(scratch, SCRATCH_PATH)]
        if spec.code is not None:
            shows.append(Show(str(spec.code), CODE_PATH))
        if spec.workspace is not None:
            shows.append(Show(str(spec.workspace), WORKSPACE_PATH))
        self._shows = sorted(shows, key=lambda show: len(show.target), reverse=True)

    def path(self, path: str) -> str:
        """The host's path for one seen inside; what nobody shows is the host's own."""
        for show in self._shows:
            if path == show.target or path.startswith(show.target + "/"):
                return show.source + path[len(show.target) :]
        return path

    def arguments(self, arguments: Iterable[str]) -> list[str]:
        return [self.path(argument) for argument in arguments]

    def environment(self, environment: Mapping[str, str]) -> dict[str, str]:
        """Values may be lists of paths, as `PATH` is."""
        return {name: ":".join(map(self.path, value.split(":"))) for name, value in environment.items()}
