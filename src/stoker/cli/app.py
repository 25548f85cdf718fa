"""The commands and their options. What a command does is imported when it is called."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import rich_click as click

from stoker import __version__
from stoker.cli.exits import INTERRUPTED, MEANINGS, NODE, OK, Failure, code_of
from stoker.errors import NodeError, SettingsError

if TYPE_CHECKING:
    from stoker.cli.remote.client import Target

F = TypeVar("F", bound=Callable[..., Any])

EPILOG = "Exit codes: " + "; ".join(f"{code} {meaning}" for code, meaning in MEANINGS.items()) + "."
HELP = {"help_option_names": ["-h", "--help"]}


def run(arguments: Sequence[str] | None = None) -> int:
    """Run one command; returns its exit code. Users' mistakes are one line on stderr, not a traceback."""
    try:
        return int(main.main(arguments, prog_name="stoker", standalone_mode=False) or OK)
    except click.ClickException as error:
        error.show()
        return error.exit_code
    except (NodeError, Failure) as error:
        say(f"stoker: {error}")
        return error.code if isinstance(error, Failure) else code_of(error)
    except (click.Abort, KeyboardInterrupt):
        return INTERRUPTED
    except BrokenPipeError:  # `stoker logs hello | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return OK
    except OSError as error:
        say(f"stoker: {error}")
        return NODE


def say(text: str) -> None:
    """A line for people, beside the command's output."""
    print(text, file=sys.stderr, flush=True)


@click.group(epilog=EPILOG, context_settings=HELP)
@click.command_panel("Node", commands=["start", "stop", "status", "doctor", "settings"])
@click.command_panel("Functions", commands=["deploy", "functions", "invoke", "logs", "delete"])
@click.version_option(__version__, message="stoker %(version)s")
def main() -> None:
    """Stoker runs functions, each within its own walls.

    Start a node, deploy a folder, call it:

    \b
    stoker start -d && stoker deploy ./hello && stoker invoke hello
    """


def which_node(command: F) -> F:
    """The options that say which node is meant."""
    for option in (
        click.option("--home", metavar="FOLDER", help="The node that runs in this home."),
        click.option("--port", type=click.IntRange(1, 65535), help="The node on this port of this machine."),
        click.option("--url", metavar="URL", help="The node at this address, for example http://host:8222."),
    ):
        command = option(command)
    return command


def target(url: str | None, port: int | None, home: str | None) -> Target:
    from stoker.cli.remote.client import Target

    return Target(url=url, port=port, home=home)


@main.command(context_settings=HELP)
@click.argument("port", required=False)
@click.option(
    "-d",
    "--daemon",
    "is_daemon",
    is_flag=True,
    help="In the background; writes daemon.pid and daemon.log here.",
)
@click.option("--host", help="The address to listen on.  [default: 127.0.0.1]")
@click.option("--home", metavar="FOLDER", help="Where the node keeps everything.")
@click.option("--sandbox", metavar="NAME", help="The backend of functions that name none.  [default: lean]")
@click.option("--log-level", metavar="LEVEL", help="debug, info, warning or error.  [default: info]")
@click.option(
    "--config", metavar="FILE", help="A file of settings.  [default: stoker.toml here, or in the home]"
)
@click.option(
    "-s",
    "--set",
    "more",
    metavar="KEY=VALUE",
    multiple=True,
    help="Any other setting; see `stoker settings`.",
)
def start(port: str | None, is_daemon: bool, more: tuple[str, ...], **flags: str | None) -> int:
    """Start a node, on PORT or 8222, in the foreground or with -d as a daemon."""
    from stoker.cli.lifetime import daemon, ports, serving
    from stoker.settings import load

    here = Path.cwd()
    settings = load({**flags, "port": port, **_pairs(more, "--set")}, os.environ, here)
    if is_daemon:
        daemon.check_free(here, say)
    listening = ports.listen(settings)
    return (
        daemon.start(settings, listening, here, say) if is_daemon else serving.foreground(settings, listening)
    )


@main.command(context_settings=HELP)
@click.option("--home", metavar="FOLDER", help="Stop the node of this home instead.")
def stop(home: str | None) -> None:
    """Stop the daemon that was started in this folder (daemon.pid); calls inside may end first."""
    from stoker.cli.lifetime import stopping
    from stoker.cli.lifetime.daemon import PID_FILE
    from stoker.cli.lifetime.home import LOCK
    from stoker.settings import load

    if home is None:
        stopping.stop_daemon(Path.cwd() / PID_FILE, say)
    else:
        stopping.stop(load({"home": home}, os.environ, Path.cwd()).home / LOCK, say)


@main.command(context_settings=HELP)
@which_node
@click.option("--json", "is_json", is_flag=True, help="As JSON.")
def status(is_json: bool, **which: Any) -> None:
    """Say whether a node runs, and what it is doing."""
    from stoker.cli import showing
    from stoker.cli.remote import client

    node = client.find(target(**which))
    client.data(client.ask(node.url, "GET", "/health"))
    facts = {"url": node.url, "pid": node.pid, **client.data(client.ask(node.url, "GET", "/stats"))}
    (showing.as_json if is_json else showing.facts)(facts)


@main.command(context_settings=HELP)
@click.option("--walls", "is_walls", is_flag=True, help="Look at the walls, from inside each sandbox.")
@click.option("--json", "is_json", is_flag=True, help="As JSON.")
@click.option("--config", metavar="FILE", help="A file of settings.")
@click.option("--sandbox", metavar="NAME", help="The sandbox that has to work.")
def doctor(is_walls: bool, is_json: bool, **flags: str | None) -> int:
    """Say what this machine can do, what it cannot, and what would help."""
    from stoker.cli import diagnosis, showing, walls
    from stoker.settings import load

    settings = load(flags, os.environ, Path.cwd())
    if is_walls:
        return walls.show(settings, is_json)
    found = diagnosis.examine(settings)
    showing.as_json(found.as_json()) if is_json else showing.rows(found.HEADS, found.rows())
    return found.exit_code


@main.command(context_settings=HELP)
@click.argument("path", type=click.Path(exists=True, path_type=Path))
@click.option("--name", help="What it is called.  [default: the name of the folder or file]")
@click.option(
    "--runtime", help="python, nodejs, python3.11, …  [default: as config.json says, or by the files]"
)
@click.option("--handler", help="What to call in it, for example main.lambda_handler.")
@click.option("--memory", type=int, metavar="MB", help="Memory of one sandbox.")
@click.option("--timeout", metavar="SPAN", help="Wall time of one call: 30, 2.5s, 500ms, 2m.")
@click.option("--cpu-time", metavar="SPAN", help="Processor time of one call, in the same words.")
@click.option("--reuse", type=click.Choice(["none", "sandbox", "process"]), help="What calls may share.")
@click.option("--concurrency", type=int, help="Calls in one process at once.")
@click.option("--sandbox", metavar="NAME", help="The backend to run it in.")
@click.option(
    "--interpreter",
    type=click.Choice(["forked", "own"]),
    help="own: none is forked for it, so addresses and hash() differ in each sandbox; starts take longer.",
)
@click.option("--network", type=click.Choice(["none", "egress"]), help="What it reaches.  [default: none]")
@click.option(
    "--egress",
    metavar="TARGET",
    multiple=True,
    help="With egress, all it may reach: host:port, *.name, 203.0.113.0/24:443, …",
)
@click.option("-e", "--env", "environment", metavar="K=V", multiple=True, help="A variable for the function.")
@click.option("--replace", is_flag=True, help="Deploy over a function of the same name.")
@click.option("--json", "is_json", is_flag=True, help="The function's record as JSON.")
@which_node
def deploy(path: Path, replace: bool, is_json: bool, **options: Any) -> None:
    """Deploy a folder, a zip, a tar.gz or one source file as a function."""
    from stoker.cli import showing
    from stoker.cli.remote import client, deploying

    which = {name: options.pop(name) for name in ("url", "port", "home")}
    environment = _pairs(options.pop("environment"), "--env")
    wish = {**options, "memory_mb": options["memory"], "environment": environment or None}
    wish["egress"] = list(options["egress"]) or None
    del wish["memory"]
    record = deploying.deploy(client.find(target(**which)).url, path, wish, replace=replace)
    (showing.as_json if is_json else showing.deployed)(record)


@main.command(context_settings=HELP)
@which_node
@click.option("--json", "is_json", is_flag=True, help="As JSON.")
def functions(is_json: bool, **which: Any) -> None:
    """List the deployed functions."""
    from stoker.cli import showing
    from stoker.cli.remote import client, deploying

    records = deploying.functions(client.find(target(**which)).url)
    (showing.as_json if is_json else showing.functions)(records)


@main.command(context_settings=HELP)
@click.argument("name")
@which_node
def delete(name: str, **which: Any) -> None:
    """Delete a function: no call of it from now on, running ones end."""
    from stoker.cli.remote import client, deploying

    deploying.delete(client.find(target(**which)).url, name)
    say(f"deleted {name}")


@main.command(context_settings=HELP)
@click.argument("name")
@click.option("-d", "--data", metavar="JSON|@FILE|-", help="The event; - reads stdin.  [default: {}]")
@click.option("--json", "is_json", is_flag=True, help="The whole outcome, logs and times included, as JSON.")
@which_node
def invoke(name: str, data: str | None, is_json: bool, **which: Any) -> int:
    """Call a function; its result goes to stdout, what it printed to stderr."""
    from stoker.cli import showing
    from stoker.cli.remote import calling, client

    answer = calling.invoke(client.find(target(**which)).url, name, calling.event_of(data))
    showing.as_json(calling.whole(answer)) if is_json else showing.answer(answer)
    return answer.exit_code


@main.command(context_settings=HELP)
@click.argument("name")
@click.option("-f", "--follow", "is_following", is_flag=True, help="Go on with each call as it ends.")
@click.option("-n", "number", type=click.IntRange(1, 1000), default=20, help="How many of the last calls.")
@click.option("--json", "is_json", is_flag=True, help="One JSON object a line.")
@which_node
def logs(name: str, is_following: bool, number: int, is_json: bool, **which: Any) -> None:
    """Show the last calls of a function and what they printed."""
    from stoker.cli import showing
    from stoker.cli.remote import calling, client

    read = calling.follow if is_following else calling.logs
    for record in read(client.find(target(**which)).url, name, number):
        (showing.as_json_line if is_json else showing.log)(record)


@main.command(context_settings=HELP)
@click.option("--config", metavar="FILE", help="A file of settings.")
@click.option("--json", "is_json", is_flag=True, help="Those in force, as JSON.")
@click.option("--markdown", "is_page", is_flag=True, hidden=True, help="docs/settings.md.")
def settings(is_json: bool, is_page: bool, **flags: str | None) -> None:
    """Show every setting: what it is now, its default, its variable, its meaning."""
    from stoker.cli import reference, showing
    from stoker.settings import load

    if is_page:
        print(reference.page(), end="")
        return
    now = load(flags, os.environ, Path.cwd())
    showing.as_json(reference.values(now)) if is_json else showing.rows(reference.HEADS, reference.rows(now))


def _pairs(said: Sequence[str], option: str) -> dict[str, str]:
    pairs = [text.partition("=") for text in said]
    for text, (key, sign, _) in zip(said, pairs, strict=True):
        if not sign or not key:
            raise SettingsError(f"{option} {text}: say it as KEY=VALUE")
    return {key: value for key, _, value in pairs}
