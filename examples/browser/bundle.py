"""Makes one file of the page's JavaScript clients: `python -m examples.browser.bundle DIRECTORY`. It needs npm.

The packages are installed into a temporary directory, so that nothing but `clients.js` is left.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from google.protobuf.descriptor import FileDescriptor
from google.protobuf.descriptor_pb2 import FileDescriptorSet

from examples.weather import weather_pb2

SOURCES = Path(__file__).parent / "clients"
TIMEOUT_S = 120


def bundle(directory: Path) -> None:
    """Writes `clients.js` there. Raises `CalledProcessError`, `TimeoutExpired`, or `OSError` where there is no npm."""
    with tempfile.TemporaryDirectory() as name:
        work = Path(name)
        shutil.copytree(SOURCES, work, dirs_exist_ok=True)
        (work / "weather.bin").write_bytes(descriptors().SerializeToString())
        run(work, "npm", "install", "--no-audit", "--no-fund", "--prefer-offline")
        target = directory.resolve() / "clients.js"
        options = ("--bundle", "--format=esm", "--minify", "--loader:.bin=binary", f"--outfile={target}")
        run(work, "node_modules/.bin/esbuild", "clients.js", *options)


def descriptors() -> FileDescriptorSet:
    """weather.proto and what it imports, which comes first."""
    found: dict[str, FileDescriptor] = {}

    def add(file: FileDescriptor) -> None:
        for imported in file.dependencies:
            add(imported)
        found.setdefault(file.name, file)

    add(weather_pb2.DESCRIPTOR)
    files = FileDescriptorSet()
    for file in found.values():
        copy = files.file.add()
        file.CopyToProto(copy)
        for message in copy.message_type:
            fields = file.message_types_by_name[message.name].fields_by_name
            for field in message.field:
                field.json_name = fields[field.name].json_name  # the code that protoc generates leaves it out
    return files


def run(directory: Path, *command: str) -> None:
    subprocess.run(command, cwd=directory, check=True, capture_output=True, text=True, timeout=TIMEOUT_S)


if __name__ == "__main__":
    try:
        bundle(Path(sys.argv[1]))
    except subprocess.CalledProcessError as error:
        sys.exit(f"{error}\n{error.stdout}{error.stderr}")
