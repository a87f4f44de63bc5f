"""The table that a test run ends with: what the gates tried and what they caught.

Tests hand their part over with `record_property`: `mistake` (name|gate|file:line), `planted`
(module|catching test), `axe` (page|visits|violations), `lighthouse` (page|three scores), `bytes`
(page|gzipped) and `builds` (hash|hash|files).
"""

from collections import Counter, defaultdict

NAMES = ("mistake", "planted", "axe", "lighthouse", "bytes", "builds")


def lines(reports) -> list[str]:
    """The table for these test reports; empty when no gate was among them."""
    found: dict[str, list[tuple[str, ...]]] = defaultdict(list)
    tried: Counter[str] = Counter()
    for report in reports:
        # Properties stand in the setup's report too; a test counts once, when it was called.
        if report.when != "call":
            continue
        tried["mistake"] += "test_each_mistake_is_caught" in report.nodeid
        for name, value in report.user_properties:
            if name in NAMES:
                found[name].append(tuple(str(value).split("|")))
    parts = (_mistakes(found["mistake"], tried["mistake"]), _planted(found["planted"]))
    parts += (_axe(found["axe"]), _lighthouse(found["lighthouse"]))
    parts += (_bytes(found["bytes"]), _builds(found["builds"]))
    return [line for part in parts for line in part]


def _mistakes(caught: list, tried: int) -> list[str]:
    if not tried:
        return []
    by = Counter(gate for _, gate, _ in caught)
    with_line = sum(not place.endswith(":0") for *_, place in caught)
    gates = ", ".join(f"{count} by {gate}" for gate, count in by.most_common())
    return [
        f"contributor's mistakes  {len(caught)} of {tried} caught ({gates})",
        f"{'':24}{with_line} of {tried} with file and line, the rest with the file",
    ]


def _planted(verdicts: list) -> list[str]:
    pages = dict.fromkeys(page for page, _ in verdicts)
    rows = [(p, sum(bool(by) for page, by in verdicts if page == p)) for p in pages]
    tried = Counter(page for page, _ in verdicts)
    lines = [f"    {page:44} {caught:>3} of {tried[page]}" for page, caught in rows]
    total = sum(caught for _, caught in rows)
    return [f"planted bugs            {total} of {len(verdicts)} caught", *lines] if lines else []


def _axe(pages: list) -> list[str]:
    if not pages:
        return []
    visits, violations = (sum(int(page[k]) for page in pages) for k in (1, 2))
    return [
        f"axe, WCAG 2.2 AA        {violations} violations in {visits} visits of {len(pages)} pages"
    ]


def _lighthouse(pages: list) -> list[str]:
    return [
        f"Lighthouse              {page}: accessibility {a}, best practices {b}, SEO {c}"
        for page, a, b, c in pages
    ]


def _bytes(pages: list) -> list[str]:
    if not pages:
        return []
    sizes = sorted((int(size), page) for page, size in pages)
    middle = sizes[len(sizes) // 2][0]
    return [
        f"a page's transfer       {sizes[0][0]:,} to {sizes[-1][0]:,} bytes gzipped "
        f"({sizes[-1][1]}), half of them under {middle:,}"
    ]


def _builds(pairs: list) -> list[str]:
    return [
        f"two builds              {files} files, sha256 {first[:16]} and {second[:16]}"
        for first, second, files in pairs
    ]
