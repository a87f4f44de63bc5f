"""MkDocs hook: what a finished site carries besides its pages. Nothing here is needed to read one.

- a Content-Security-Policy in every page, with the hash of each inline script that it holds;
- every page as plain Markdown beside it, `llms.txt` that lists them, `llms-full.txt` with all;
- `robots.txt`, which names the site map.

A builder that runs no hooks gives the same pages without these.
"""

import base64
import hashlib
import re
from itertools import groupby
from pathlib import Path

from snippets.site.page import Page
from snippets.site.plain import to_markdown

SCRIPT = re.compile(r"<script(?P<attributes>[^>]*)>(?P<body>.*?)</script>", re.S)
HEAD = re.compile(r'<meta charset="utf-8">')
# Who may do what on a page. Everything is this site's own, and nothing is evaluated.
POLICY = {
    "default-src": "'none'",
    "script-src": "'self'",
    "style-src": "'self'",
    # The plots' SVG and MathML carry style attributes; they can colour, not run or load anything.
    "style-src-attr": "'unsafe-inline'",
    "img-src": "'self' data:",
    "font-src": "'self'",
    # The search index, and the worker that searches it.
    "connect-src": "'self'",
    "worker-src": "'self'",
    "base-uri": "'none'",
    "form-action": "'none'",
}
# The pages of the last nav, in order: [(section title, page), …].
_pages: list[tuple[str, object]] = []


def on_nav(nav, config, files):
    """Remember which pages there are, and in which order."""
    _pages[:] = [(_section(page), page) for page in nav.pages]
    return nav


def on_post_page(output: str, page, config) -> str:
    return with_policy(output)


def on_post_template(output: str, template_name: str, config) -> str:
    return with_policy(output) if template_name.endswith(".html") else output


def on_post_build(config) -> None:
    """Write what machines read."""
    site, root = Path(config.site_dir), Path(config.config_file_path).resolve().parent
    texts = [(section, page, _text(page, root)) for section, page in _pages]
    for _, page, text in texts:
        target = site / _beside(page)
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(text, encoding="utf-8", newline="\n")
    write = {
        "llms.txt": listing(config, texts),
        "llms-full.txt": everything(config, texts),
        "robots.txt": f"User-agent: *\nAllow: /\n\nSitemap: {config.site_url}sitemap.xml\n",
    }
    for name, text in write.items():
        (site / name).write_text(text, encoding="utf-8", newline="\n")


def with_policy(html: str) -> str:
    """The page with its policy before the first script; a page without a head stays as it is."""
    return HEAD.sub(lambda match: match[0] + "\n      " + _meta(html), html, count=1)


def _meta(html: str) -> str:
    hashes = "".join(f" '{digest}'" for digest in dict.fromkeys(script_hashes(html)))
    policy = {**POLICY, "script-src": POLICY["script-src"] + hashes}
    content = "; ".join(f"{name} {value}" for name, value in policy.items())
    return f'<meta http-equiv="Content-Security-Policy" content="{content}">'


def script_hashes(html: str) -> list[str]:
    """The CSP hash of each inline script that a browser would run, in order."""
    return [
        "sha256-" + base64.b64encode(hashlib.sha256(match["body"].encode()).digest()).decode()
        for match in SCRIPT.finditer(html)
        # Data, such as JSON, is not run.
        if " src=" not in match["attributes"] and " type=" not in match["attributes"]
    ]


def listing(config, texts: list) -> str:
    """The text of `llms.txt`: the site in a sentence, then every page with its description."""
    lines = [f"# {config.site_name}", "", f"> {' '.join(config.site_description.split())}", ""]
    lines += [f"All pages in one file: {config.site_url}llms-full.txt", ""]
    for section, group in groupby(texts, key=lambda text: text[0]):
        lines += [f"## {section}", ""]
        for _, page, _ in group:
            what = page.meta.get("description", "")
            lines.append(f"- [{page.title}]({config.site_url}{_beside(page)}): {what}")
        lines.append("")
    return "\n".join(lines)


def everything(config, texts: list) -> str:
    """The text of `llms-full.txt`: all pages in the order of nav, each under its address."""
    parts = [f"# {config.site_name}\n\n{' '.join(config.site_description.split())}\n"]
    parts += [f"\n---\nAddress: {page.canonical_url}\n\n{text}" for _, page, text in texts]
    return "".join(parts)


def _section(page) -> str:
    return page.ancestors[-1].title if page.ancestors else page.title


def _beside(page) -> str:
    """A page's Markdown stands beside it: generative/vae.html, generative/vae.md."""
    return re.sub(r"\.html$", ".md", page.file.dest_uri)


def _text(page, root: Path) -> str:
    # Of a notebook this is what the notebook hook made of it.
    return to_markdown(Page(key="", file=page.file.src_uri, root=root, text=page.markdown or ""))
