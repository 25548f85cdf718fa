"""What people see: tables and coloured lines. Imports `rich`: import it when there is something to show."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Mapping
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from stoker.cli.remote.calling import Answer

MEBIBYTE = 1024 * 1024
COLOURS = {"ok": "green", "cancelled": "yellow"}


def out() -> Console:
    """Standard output; as wide as needed when it is no terminal."""
    return Console(width=None if sys.stdout.isatty() else 200, highlight=False, soft_wrap=True)


def as_json(value: object) -> None:
    """One JSON text, and nothing else."""
    print(json.dumps(value, indent=2 if sys.stdout.isatty() else None, ensure_ascii=False))


def as_json_line(value: object) -> None:
    """The same in one line, at once."""
    print(json.dumps(value, ensure_ascii=False), flush=True)


def functions(records: Iterable[Mapping[str, Any]]) -> None:
    """Deployed functions, one a row."""
    heads = ("name", "version", "runtime", "handler", "memory", "timeout", "reuse", "network", "updated")
    table = Table(*heads, box=None)
    for record in records:
        config = record["config"]
        table.add_row(
            record["name"],
            record["version"],
            record["runtime"],
            record["handler"],
            f"{config['memory_mb']} MB",
            config["timeout"],
            config.get("reuse") or "process",
            network(config),
            record["updated_at"],
        )
    out().print(table)


def network(config: Mapping[str, Any]) -> str:
    """`none`, `egress`, or `egress:` and what it is narrowed to."""
    targets = ", ".join(map(str, config.get("egress") or ()))
    return f"{config.get('network') or 'none'}{f': {escape(targets)}' if targets else ''}"


def deployed(record: Mapping[str, Any]) -> None:
    """One function that was just deployed."""
    config = record["config"]
    out().print(
        f"[green]deployed[/] {escape(record['name'])}: {escape(record['runtime'])}, "
        f"{escape(record['handler'])}, {config['memory_mb']} MB, {config['timeout']}\n"
        f"try: stoker invoke {escape(record['name'])} -d '{{}}'"
    )


def answer(answer: Answer) -> None:
    """A call: the result alone on stdout, everything else on stderr."""
    err = Console(stderr=True, highlight=False, soft_wrap=True)
    for said in (answer.stdout, answer.stderr):
        text = _printable(said) if sys.stderr.isatty() else said
        sys.stderr.write(text if text.endswith("\n") or not text else text + "\n")
    if answer.error is None:
        sys.stdout.buffer.write(answer.body + (b"" if answer.body.endswith(b"\n") else b"\n"))
        sys.stdout.buffer.flush()
    else:
        kind, message, stack = (_printable(answer.error[part]) for part in ("type", "message", "stack"))
        err.print(f"[red]{escape(kind)}[/]: {escape(message)}")
        if stack:
            err.print(escape(stack.rstrip()), style="dim")
    if answer.limit:
        err.print(f"it has met its limit: {escape(answer.limit)}", style="yellow")
    if answer.note:
        err.print(escape(answer.note), style="yellow")
    if sys.stderr.isatty():
        times = "  ".join(f"{name} {ms:g}" for name, ms in answer.phases_ms.items())
        err.print(f"{answer.took_ms:g} ms here; in the node, ms: {times}{_used(answer.usage)}", style="dim")


def _used(measured: Mapping[str, Any]) -> str:
    """Processor time and memory, as far as they were measured."""
    cpu_ms, peak_bytes = measured.get("cpu_ms"), measured.get("memory_peak_bytes")
    cpu = "" if cpu_ms is None else f", {cpu_ms:.1f} ms of processor time"
    return cpu + ("" if peak_bytes is None else f", {peak_bytes / MEBIBYTE:.1f} MB")


def log(record: Mapping[str, Any]) -> None:
    """One call of a function: a line, then what it wrote."""
    console = out()
    colour = COLOURS.get(record["status"], "red")
    phases = record["phases"]
    console.print(
        f"[dim]{record['finished_at']}[/] [{colour}]{record['status']}[/] {sum(phases.values()):.1f} ms"
        f"{_used(record)} [dim]{record['id']}[/]"
    )
    if record.get("limit"):
        console.print(f"  it has met its limit: {escape(record['limit'])}", style="yellow")
    for stream in ("stdout", "stderr"):
        for line in record[stream].splitlines():
            console.print(f"  {escape(_printable(line))}", style="dim" if stream == "stderr" else None)
        if record[f"{stream}_cut"]:
            console.print(f"  … the rest of {stream} was not kept", style="yellow")
    if record.get("error"):
        kind, message = (_printable(record["error"][part]) for part in ("type", "message"))
        console.print(f"  {escape(kind)}: {escape(message)}", style="red")


def _printable(text: str) -> str:
    """What a function said without what would steer the terminal."""
    return "".join(
        sign if sign.isprintable() or sign in "\t\n" else "\N{REPLACEMENT CHARACTER}" for sign in text
    )


def facts(values: Mapping[str, Any]) -> None:
    """Nested facts, one a line, by dotted names."""
    table = Table.grid(padding=(0, 2))
    for name, value in _flat(values):
        table.add_row(f"[bold]{escape(name)}[/]", escape(str(value)))
    out().print(table)


def _flat(values: Mapping[str, Any], above: str = "") -> Iterable[tuple[str, Any]]:
    for name, value in values.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{above}{name}.")
        else:
            yield f"{above}{name}", len(value) if isinstance(value, list) else value


def rows(heads: Iterable[str], lines: Iterable[Iterable[str]]) -> None:
    """A plain table."""
    table = Table(*heads, box=None)
    for line in lines:
        table.add_row(*map(escape, line))
    out().print(table)


def remarks(lines: Iterable[str]) -> None:
    """What is to be said beside a table."""
    for line in lines:
        Console(stderr=True, highlight=False, soft_wrap=True).print(escape(line), style="yellow")
