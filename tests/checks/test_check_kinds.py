"""Every kind of finding: produced for real, absent from a healthy twin, and described."""

import ast
import re
from pathlib import Path

import pytest
import torch.distributed as dist

import nnlr
from nnlr._checks.check import LOOKS
from nnlr._findings import SEVERITIES
from tests.checks.cases import CASES, MODELS, arguments
from tests.frozen_state import state_of

SOURCES = Path(nnlr.__file__).parent
PAGE = Path(__file__).parents[2] / "docs" / "check.md"

PAIRS = [
    pytest.param(kind, build, id=f"{kind}-{build.__name__}")
    for kind, builders in CASES.items()
    for build in builders
]


def emitted():
    """Every kind that the code can emit, with its severities.

    A maker of findings is called like the severity; where that is chosen, both are words.
    """
    kinds = {}
    for path in [*(SOURCES / "_checks").glob("*.py"), SOURCES / "_rows" / "findings.py"]:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            name = getattr(node.func, "id", "") if isinstance(node, ast.Call) else ""
            if name in SEVERITIES:
                kinds.setdefault(node.args[0].value, set()).add(name)
            elif name == "Finding":
                given = {each.arg: each.value for each in node.keywords}
                words = {getattr(each, "value", None) for each in ast.walk(given["severity"])}
                kinds.setdefault(given["kind"].value, set()).update(words & set(SEVERITIES))
    return kinds


@pytest.fixture
def alone(tmp_path):
    """A process group of one, for the cases that shard."""
    if not dist.is_available() or not dist.is_gloo_available():
        pytest.skip("needs gloo")
    dist.init_process_group("gloo", init_method=f"file://{tmp_path}/meet", rank=0, world_size=1)
    yield
    dist.destroy_process_group()


def checked(build, *, ill):
    """The findings of a case; nothing that it holds may change."""
    MODELS.clear()
    args, kwargs = arguments(build(ill))
    before = state_of(MODELS, args, kwargs)
    found = nnlr.check(*args, **kwargs)
    assert before == state_of(MODELS, args, kwargs)
    return found


@pytest.mark.usefixtures("alone")
@pytest.mark.parametrize(("kind", "build"), PAIRS)
def test_each_finding_is_produced_and_its_twin_is_clean(kind, build):
    """With the mistake it is found; without, nothing is; and nothing is changed by it."""
    found = {finding.kind: finding for finding in checked(build, ill=True)}
    assert kind in found
    assert found[kind].severity in emitted()[kind]
    assert "nothing found" == str(checked(build, ill=False))


def test_every_kind_has_a_pair():
    """The kinds are read from the source, so that a new one without a pair fails."""
    assert set(emitted()) == set(CASES)


def test_every_look_is_in_the_list():
    """A function that yields findings and is not called would find nothing."""
    written = {
        node.name
        for path in (SOURCES / "_checks").glob("*.py")
        for node in ast.parse(path.read_text(encoding="utf-8")).body
        if isinstance(node, ast.FunctionDef)
        and [each.arg for each in node.args.args] == ["subject"]
        and ast.unparse(node.returns) == "Iterator[Finding]"
    }
    assert written == {look.__name__ for look in LOOKS}


def test_the_page_lists_every_kind():
    """docs/check.md has each kind with the severities that the code gives it."""
    rows = re.findall(r"^\| `([a-z-]+)` \| ([a-z, ]+) \|", PAGE.read_text(), re.MULTILINE)
    told = {kind: set(severity.split(", ")) for kind, severity in rows}
    assert emitted() == told
