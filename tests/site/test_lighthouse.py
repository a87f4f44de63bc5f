"""Lighthouse on the built site: accessibility, best practices and SEO are 100, nothing less."""

import json
import os
import subprocess
import tempfile

import pytest
from node import tool

PAGES = ("index.html", "generative/vae.html", "generative/index.html")
CATEGORIES = ("accessibility", "best-practices", "seo")


@pytest.fixture
def profile():
    with tempfile.TemporaryDirectory(prefix="lighthouse-", ignore_cleanup_errors=True) as folder:
        yield folder


@pytest.fixture
def lighthouse(browser_type_launch_args, tmp_path, profile):
    """A function from an address to Lighthouse's report on it, in the system's Chromium."""
    command = tool("lighthouse/cli/index.js")
    arguments = ["--headless=new", *browser_type_launch_args["args"]]
    chromium = browser_type_launch_args["executable_path"]
    target = tmp_path / "report.json"

    def run(address: str) -> dict:
        options = [
            "--quiet",
            f"--only-categories={','.join(CATEGORIES)}",
            # No speed is measured. The default only simulates a slow network, in audits that do not
            # run here; "provided" would wait five seconds, four times, for the page to be quiet.
            "--throttling-method=simulate",
            "--disable-full-page-screenshot",
            "--output=json",
            f"--output-path={target}",
            f"--chrome-flags={' '.join(arguments)}",
        ]
        # Chromium's profile holds a socket, whose path may have 107 letters: pytest's are too long.
        environment = {**os.environ, "CHROME_PATH": chromium, "TMPDIR": str(profile)}
        done = subprocess.run(
            [*command, address, *options],
            env=environment,
            capture_output=True,
            text=True,
            timeout=180,
        )
        assert done.returncode == 0, f"Lighthouse fails on {address}:\n{done.stderr.strip()}"
        return json.loads(target.read_text(encoding="utf-8"))

    return run


def failing(report: dict) -> list[str]:
    """One line for each audit that costs points: its category, name, title and first place."""
    lines = []
    for category in report["categories"].values():
        for entry in category["auditRefs"]:
            audit = report["audits"][entry["id"]]
            if entry["weight"] and audit["score"] is not None and audit["score"] < 1:
                item = ((audit.get("details") or {}).get("items") or [{}])[0]
                place = (item.get("node") or {}).get("selector") or item.get("text") or ""
                lines.append(f"{category['id']}: {entry['id']}: {audit['title']}: {place}")
    return lines


@pytest.mark.browser
@pytest.mark.node
@pytest.mark.xdist_group("lighthouse")
# As on a phone, which is Lighthouse's default: the narrow page has the most that can go wrong.
@pytest.mark.parametrize("page", PAGES)
def test_each_score_is_100(page, site_address, lighthouse, record_property):
    report = lighthouse(site_address + page)
    assert "runtimeError" not in report, report["runtimeError"]
    scores = {name: report["categories"][name]["score"] for name in CATEGORIES}
    shown = ["none" if score is None else f"{100 * score:.0f}" for score in scores.values()]
    record_property("lighthouse", "|".join([page, *shown]))
    wrong = "\n".join([f"{page}: {dict(zip(scores, shown))}", *failing(report)])
    assert scores == dict.fromkeys(CATEGORIES, 1), wrong


def test_audits_that_cost_points_are_named():
    refs = [{"id": name, "weight": weight} for name, weight in (("a", 7), ("b", 1), ("c", 0))]
    audits = {
        "a": {"title": "Pictures have text", "score": 0, "details": {"items": [{"text": "x"}]}},
        "b": {"title": "Has a title", "score": 1},
        "c": {"title": "Weighs nothing", "score": 0},
    }
    report = {"categories": {"seo": {"id": "seo", "auditRefs": refs}}, "audits": audits}
    assert failing(report) == ["seo: a: Pictures have text: x"]
