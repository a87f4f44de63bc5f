"""The same sources give the same site: another folder, another day, time zone and hash seed."""

import hashlib
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from snippets.site import ROOT
from snippets.site.built import EPOCH, build

# Python reads this when it starts: a clock that is two days and some hours ahead.
OTHER_CLOCK = """
import datetime, time
_time, _gmtime, _localtime = time.time, time.gmtime, time.localtime
AHEAD = 200_000
time.time = lambda: _time() + AHEAD
time.gmtime = lambda seconds=None: _gmtime(time.time() if seconds is None else seconds)
time.localtime = lambda seconds=None: _localtime(time.time() if seconds is None else seconds)
class _Datetime(datetime.datetime):
    @classmethod
    def now(cls, tz=None):
        return cls.fromtimestamp(time.time(), tz)
    @classmethod
    def utcnow(cls):
        return cls.fromtimestamp(time.time(), datetime.timezone.utc).replace(tzinfo=None)
class _Date(datetime.date):
    @classmethod
    def today(cls):
        return cls.fromtimestamp(time.time())
datetime.datetime, datetime.date = _Datetime, _Date
"""


def tracked_files() -> list[str]:
    """Files of the repository, those not yet committed too; all but folders that tools made."""
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    names = [name for name in listed.stdout.split("\0") if name and (ROOT / name).is_file()]
    return [n for n in names if n.startswith(("docs/", "snippets/", "mkdocs.yml"))]


def digests(site: Path) -> dict[str, str]:
    """Relative path → sha256 of every file."""
    return {
        path.relative_to(site).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(site.rglob("*"))
        if path.is_file()
    }


@pytest.mark.xdist_group("reproducible")
def test_two_builds_are_the_same_to_the_byte(built_site, tmp_path, monkeypatch, record_property):
    copy = tmp_path / "another folder" / "somewhere else"
    for name in tracked_files():
        (copy / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(ROOT / name, copy / name)
        os.utime(copy / name, (1_000_000_000, 1_000_000_000))
    clock = tmp_path / "clock" / "sitecustomize.py"
    clock.parent.mkdir()
    clock.write_text(OTHER_CLOCK, encoding="utf-8")
    other = {
        # The copy's own machinery, not the installed one's.
        "PYTHONPATH": os.pathsep.join(map(str, (clock.parent, copy))),
        "TZ": "Pacific/Kiritimati",
        "PYTHONHASHSEED": "1234",
        "LC_ALL": "C.UTF-8",
        "SOURCE_DATE_EPOCH": os.environ.get("SOURCE_DATE_EPOCH", EPOCH),
    }
    for name, value in other.items():
        monkeypatch.setenv(name, value)
    assert build(copy, tmp_path / "site") == []
    first, second = digests(built_site), digests(tmp_path / "site")
    assert sorted(first) == sorted(second)
    differ = [name for name in first if first[name] != second[name]]
    assert differ == [], "these differ from build to build: remove what depends on time or place"
    whole = hashlib.sha256(repr(sorted(first.items())).encode()).hexdigest()
    again = hashlib.sha256(repr(sorted(second.items())).encode()).hexdigest()
    record_property("builds", f"{whole}|{again}|{len(first)}")


def test_the_other_clock_is_another_clock(tmp_path):
    """Without it the test above would say little."""
    (tmp_path / "sitecustomize.py").write_text(OTHER_CLOCK, encoding="utf-8")
    ask = "import time, datetime; print(time.time(), datetime.datetime.now().timestamp())"
    told = subprocess.run(
        [sys.executable, "-c", ask],
        env={**os.environ, "PYTHONPATH": str(tmp_path)},
        capture_output=True,
        text=True,
        check=True,
    ).stdout.split()
    import time

    assert all(float(seconds) > time.time() + 190_000 for seconds in told)
