"""The tools that need Node.js, installed by `make tools` into tests/site/tools."""

import os
import shutil
from pathlib import Path

import pytest

MODULES = Path(__file__).parent / "tools" / "node_modules"


def tool(script: str) -> list[str]:
    """The command that starts a tool; without it the test is skipped, and in CI it fails."""
    node = shutil.which("node")
    if node and (MODULES / script).is_file():
        return [node, str(MODULES / script)]
    missing = f"{script} is not installed: run `make tools`" if node else "no Node.js found"
    if os.environ.get("CI"):
        pytest.fail(missing)
    pytest.skip(missing)
