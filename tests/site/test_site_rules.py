"""This site obeys its own rules, in its sources and as built."""

from snippets.site import ROOT
from snippets.site.built import PAGE_BYTES, check_site, transfer
from snippets.site.page import page_files, read_page
from snippets.site.rules import check_source


def test_the_sources_obey_the_rules():
    problems = check_source(ROOT)
    assert not problems, "\n".join(map(str, problems))


def test_the_built_pages_obey_the_rules(built_site):
    problems = sorted(set(check_site(ROOT, built_site)))
    assert not problems, "\n".join(map(str, problems))


def test_every_page_is_light(built_site, record_property):
    sizes = {
        path.relative_to(ROOT / "docs").as_posix(): transfer(
            built_site / path.relative_to(ROOT / "docs").with_suffix(".html"), built_site
        )
        for path in page_files(ROOT)
    }
    for page, size in sizes.items():
        record_property("bytes", f"{page}|{size}")
    assert max(sizes.values()) <= PAGE_BYTES, sizes


def test_there_is_something_to_run():
    lessons = [read_page(path) for path in page_files(ROOT)]
    assert sum(len(page.blocks) for page in lessons) >= 40
