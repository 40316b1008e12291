"""Type-checks README.md and docs/ as a user's own code, with `mypy --strict`.

    python tests/typing/pages.py

Each page becomes a module with as many lines, so that an error names the page and its line.
Prints the errors and ends with 1 if there are any. Functions in docs/ need no annotations, as in
a script; their bodies are checked all the same.
"""

import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

HERE, ROOT = Path(__file__).parent, Path(__file__).parents[2]


def code_of(page: str) -> str:
    """The code of a page, each line where it stands on the page."""
    code = [""] * len(page.splitlines())
    for block in re.finditer(r"^```python\n(.*?)^```", page, re.MULTILINE | re.DOTALL):
        if "nnlr.install()" in block[1]:  # methods that exist at run time only
            continue
        start = page.count("\n", 0, block.start(1))
        lines = block[1].splitlines()
        prompts = [re.fullmatch(r"(?:>>>|\.\.\.)(?: (.*))?", line) for line in lines]
        if any(prompts):  # the rest is what it prints
            lines = [(prompt[1] or "") if prompt else "" for prompt in prompts]
        code[start : start + len(lines)] = lines
    return "\n".join(code) + "\n"


def errors_in(root: Path) -> str:
    """What mypy says of README.md and docs/ below a folder, by page and line."""
    pages = [root / "README.md", *sorted((root / "docs").rglob("*.md"))]
    # The gallery shows bodies of functions, which tests/gallery holds and runs.
    pages = [page for page in pages if page.parent != root / "docs" / "gallery"]
    with tempfile.TemporaryDirectory() as folder:
        page_of = {}
        for page in pages:
            code = code_of(page.read_text(encoding="utf-8"))
            if not code.strip():
                continue
            name = page.relative_to(root)
            module = name.with_name(name.stem.replace("-", "_") + ".py")
            page_of[str(module)] = str(name)
            Path(folder, module).parent.mkdir(parents=True, exist_ok=True)
            Path(folder, module).write_text(code)
        command = [sys.executable, "-m", "mypy", "--config-file", HERE / "mypy.ini"]
        command += ["--cache-dir", ROOT / ".mypy_cache" / "pages", *page_of]
        paths = {**os.environ, "MYPYPATH": str(ROOT / "src")}
        done = subprocess.run(
            command, cwd=folder, env=paths, capture_output=True, text=True, check=False
        )
    if not done.returncode:
        return ""
    lines = (done.stdout + done.stderr).splitlines()
    return "\n".join(re.sub(r"^[\w/]+\.py", lambda name: page_of[name[0]], li) for li in lines)


if __name__ == "__main__":
    sys.exit(errors_in(ROOT) or None)
