"""The oracle is Python: all code in the documentation runs, page by page."""

import importlib.util
import pathlib
import re

import pytest

ROOT = pathlib.Path(__file__).parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
CODE = re.compile(r"^```python\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def _id(page):
    return page.name


@pytest.mark.parametrize(
    "page", [page for page in PAGES if CODE.search(page.read_text())], ids=_id
)
def test_code_of_page_runs(page, monkeypatch):
    monkeypatch.chdir(ROOT)
    code = "\n".join(CODE.findall(page.read_text()))
    exec(compile(code, page.name, "exec"), {"__name__": page.stem})


@pytest.mark.parametrize("page", PAGES, ids=_id)
def test_links_lead_somewhere(page):
    for target in re.findall(r"\]\(([^)#]+)", page.read_text()):
        if not target.startswith("http"):
            assert (page.parent / target).exists(), target


def test_reference_is_up_to_date():
    path = ROOT / "docs" / "generate_api.py"
    spec = importlib.util.spec_from_file_location("generate_api", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    # If this fails: python docs/generate_api.py
    assert module.reference() == (ROOT / "docs" / "api.md").read_text()
