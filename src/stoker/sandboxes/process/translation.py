"""Without walls there are no paths of our own: what is seen inside is where it is on the host."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from stoker.sandboxes.contract import CODE_PATH, WORKSPACE_PATH, SandboxSpec, Show

SCRATCH_PATH = "/tmp"


class Translation:
    """From the paths that a `Launch` names to those of this host."""

    def __init__(self, spec: SandboxSpec, scratch: str) -> None:
        shows = list(spec.launch.shows)
        if spec.code is not None:
            shows.append(Show(str(spec.code), CODE_PATH))
        if spec.workspace is not None:
            shows.append(Show(str(spec.workspace), WORKSPACE_PATH))
        self._shows = sorted(shows, key=lambda show: len(show.target), reverse=True)
        # Last, and in the environment only: a program of the host's may well be below /tmp.
        self._shows_with_scratch = [*self._shows, Show(scratch, SCRATCH_PATH)]

    def arguments(self, arguments: Iterable[str]) -> list[str]:
        return [_translate(argument, self._shows) for argument in arguments]

    def environment(self, environment: Mapping[str, str]) -> dict[str, str]:
        """Values may be lists of paths, as `PATH` is."""
        return {name: self._each(value) for name, value in environment.items()}

    def _each(self, value: str) -> str:
        return ":".join(_translate(path, self._shows_with_scratch) for path in value.split(":"))


def _translate(path: str, shows: Sequence[Show]) -> str:
    """The host's path for one seen inside; what nobody shows is the host's own."""
    for show in shows:
        if path == show.target or path.startswith(show.target + "/"):
            return show.source + path[len(show.target) :]
    return path
