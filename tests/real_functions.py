"""Real functions out of the package `serverless-benchmarks`, packaged as users of the Worker Front do."""

from __future__ import annotations

import json
import subprocess
import sys
import zipfile
from pathlib import Path

import msgspec

PACKAGE = "serverless-benchmarks==1.2.0"
ENTRIES = Path(__file__).parent / "functions"
LANGUAGES = {"python": "python", "nodejs": "nodejs"}
ENTRY = {"python": "main.py", "nodejs": "index.js"}
GRAPHS = "igraph==0.11.4"
"""What the graph functions declare for every Python since 3.10, in a file for each version."""


class Real(msgspec.Struct, frozen=True):
    """One function of the package, in one language."""

    name: str
    folder: str
    language: str = "python"
    requirements: str = ""
    memory_mb: int = 256


REAL = (
    Real("html", "100.webapps/110.dynamic-html"),
    Real("htmljs", "100.webapps/110.dynamic-html", "nodejs"),
    Real("pagerank", "500.scientific/501.graph-pagerank", requirements=GRAPHS),
    Real("mst", "500.scientific/502.graph-mst", requirements=GRAPHS),
    Real("bfs", "500.scientific/503.graph-bfs", requirements=GRAPHS),
    Real("nap", "000.microbenchmarks/010.sleep"),
)


def download(into: Path) -> Path:
    """The folder of the benchmarks inside the unpacked wheel."""
    command = [sys.executable, "-m", "pip", "download", "-qq", "--no-deps", "--only-binary", ":all:"]
    subprocess.run([*command, "--dest", str(into), PACKAGE], check=True)
    with zipfile.ZipFile(next(into.glob("*.whl"))) as wheel:
        wheel.extractall(into / "wheel")
    return into / "wheel" / "sebs" / "benchmarks"


def sources(real: Real, benchmarks: Path) -> dict[str, bytes]:
    """The function's own files, without what only other languages and installers use."""
    folder = benchmarks / real.folder / real.language
    files = {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and not path.name.startswith("requirements.txt.") and path.name != "init.sh"
    }
    if real.requirements:
        files["requirements.txt"] = real.requirements.encode()
    return files


def package(real: Real, benchmarks: Path, name: str, config: dict[str, object]) -> bytes:
    """A Worker Front zip: one top folder named after the function."""
    entry = ENTRY[real.language]
    settings = {"environment": LANGUAGES[real.language], "memory_mb": real.memory_mb, "timeout": 60, **config}
    files = sources(real, benchmarks) | {
        entry: (ENTRIES / entry).read_bytes(),
        "config.json": json.dumps(settings).encode(),
    }
    target = benchmarks.parent / f"{name}.zip"
    with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as archive:
        for path, data in files.items():
            archive.writestr(f"{name}/{path}", data)
    return target.read_bytes()


def answers(real: Real, benchmarks: Path, site: Path, events: list[dict[str, object]]) -> list[object]:
    """What the function answers when it is simply called, with its dependencies from `site`."""
    command = [
        sys.executable,
        "-B",
        str(ENTRIES / "reference.py"),
        str(benchmarks / real.folder / real.language),
    ]
    said = subprocess.run(
        command,
        input=json.dumps(events).encode(),
        env={"PYTHONPATH": str(site)},
        stdout=subprocess.PIPE,
        check=True,
    )
    results: list[object] = json.loads(said.stdout)
    return results


def install(site: Path) -> None:
    """The dependencies of the Python functions, for the reference answers."""
    command = [sys.executable, "-m", "pip", "install", "-qq", "--target", str(site), "--only-binary", ":all:"]
    subprocess.run([*command, GRAPHS, "jinja2>=2.10.3"], check=True)
