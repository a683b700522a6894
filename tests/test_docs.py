"""The documentation holds together: every link leads somewhere, and every page can be found."""

import re
from pathlib import Path

import pytest

from tests.test_tidy import ROOT

DOCS = sorted((ROOT / "app" / "docs").glob("*.md"))
PAGES = [ROOT / "README.md", ROOT / "CHANGELOG.md", *sorted((ROOT / "app").glob("*.md")), *DOCS]
FENCED = re.compile(r"^```.*?^```", re.DOTALL | re.MULTILINE)
CODE = re.compile(r"`[^`\n]*`")
LINK = re.compile(r"\[[^\]\[]*\]\(([^)\s]+)\)")
OUR_PAGE = re.compile(r"\b(?:app/docs|app|config|tests|migrations)/[\w./-]+\.(?:md|yml|yaml|sh)\b")


def name(page: Path) -> str:
    return str(page.relative_to(ROOT))


def anchors(page: Path) -> set[str]:
    """Those of its headings, as GitHub makes them."""
    text = FENCED.sub("", page.read_text())
    headings = re.findall(r"^#+ (.+)$", text, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def links(page: Path) -> list[str]:
    text = CODE.sub("``", FENCED.sub("", page.read_text()))
    return [link for link in LINK.findall(text) if "://" not in link]


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_every_link_of_a_page_leads_somewhere(page: Path) -> None:
    for link in links(page):
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        assert target.exists(), f"{name(page)}: ({link}): there is no such file"
        if anchor:
            assert anchor in anchors(target), f"{name(page)}: ({link}): no such heading"


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_every_file_that_a_page_names_is_there(page: Path) -> None:
    for path in OUR_PAGE.findall(page.read_text()):
        assert (ROOT / path).exists(), f"{name(page)}: {path}: there is no such file"


def test_every_page_is_in_the_table_of_the_readme() -> None:
    table = (ROOT / "README.md").read_text().partition("## Where to read on")[2]
    for page in [*DOCS, *(ROOT / "app").glob("*.md")]:
        assert f"({name(page)})" in table, f"{name(page)}: name it in README's table of pages"


@pytest.mark.parametrize("page", DOCS, ids=name)
def test_a_page_says_in_its_heading_what_it_answers(page: Path) -> None:
    heading = page.read_text().partition("\n")[0]
    assert re.match(r"# .+: .+", heading), f"{name(page)}: make it '# Subject: what it answers'"
