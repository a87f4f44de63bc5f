"""Fixtures that several tests share: the built site, served, and a real browser."""

import functools
import http.server
import os
import threading
from pathlib import Path

import gate_report
import pytest

from snippets.site import ROOT
from snippets.site.diagrams import ARGUMENTS, chromium

# Before a test imports torch: two threads sum in another order, and are slower on a busy machine.
os.environ.setdefault("OMP_NUM_THREADS", "1")


def pytest_runtest_setup(item):
    """Without Chromium, skip the browser tests and say so; in CI that is a failure instead."""
    if item.get_closest_marker("browser") and not chromium():
        if os.environ.get("CI"):
            pytest.fail("no Chromium in CI: .ci/run installs it", pytrace=False)
        pytest.skip("no Chromium found: install it, or set CHROMIUM")


def pytest_terminal_summary(terminalreporter):
    """Say at the end what the gates tried and caught."""
    stats = terminalreporter.stats
    table = gate_report.lines(stats.get("passed", []) + stats.get("failed", []))
    if table:
        terminalreporter.section("gates")
        terminalreporter.write_line("\n".join(table))


@pytest.fixture(scope="session")
def built_site(tmp_path_factory, worker_id) -> Path:
    """The finished site, built strictly, once for all workers; its notebook was executed."""
    from filelock import FileLock

    from snippets.site.built import build

    base = tmp_path_factory.getbasetemp()
    shared = base if worker_id == "master" else base.parent
    target, done = shared / "site", shared / "site.done"
    with FileLock(str(shared / "site.lock")):
        if not done.exists():
            problems = build(ROOT, target)
            done.write_text("\n".join(map(str, problems)), encoding="utf-8")
    failed = done.read_text(encoding="utf-8")
    assert not failed, f"the strict build fails:\n{failed}"
    return target


@pytest.fixture(scope="session")
def site_address(built_site) -> str:
    """The built site on a loopback port: "http://127.0.0.1:PORT/"."""

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *args):
            pass

    handler = functools.partial(Quiet, directory=str(built_site))
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}/"
    server.shutdown()


@pytest.fixture(scope="session")
def browser_type_launch_args(browser_type_launch_args):
    """pytest-playwright starts the system's Chromium; it never downloads one of its own."""
    return {**browser_type_launch_args, "executable_path": chromium(), "args": list(ARGUMENTS)}
