"""The site that `make docs` builds: no warning, no page without its heading."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

DOCS = Path(__file__).parents[2] / "docs"


@pytest.mark.full  # 40 s
@pytest.mark.no_cover
def test_the_site_is_built_without_a_warning(tmp_path):
    """Every page, reference and docstring; what is linked outside of docs/ leads into the site."""
    pytest.importorskip("furo")
    pytest.importorskip("sphinx")
    command = [sys.executable, "-m", "sphinx", "-nWq", "--keep-going", "-d", tmp_path / "trees"]
    done = subprocess.run(
        [*command, DOCS, tmp_path / "html"], capture_output=True, text=True, check=False
    )
    assert (0, "") == (done.returncode, done.stderr)
    front = (tmp_path / "html" / "index.html").read_text(encoding="utf-8")
    assert 'href="reference/index.html"' in front
    assert 'href="example-report.html"' in (tmp_path / "html/report-page.html").read_text()
    assert "VisionTransformer" in (tmp_path / "html/example-report.html").read_text()
    plan = (tmp_path / "html" / "reference" / "resolve.html").read_text(encoding="utf-8")
    assert all(f'id="nnlr.Plan.{name}"' in plan for name in ("optimizer", "explain", "to_json"))
    assert "nnlr._" not in re.sub(r"<[^>]+>", "", plan)
