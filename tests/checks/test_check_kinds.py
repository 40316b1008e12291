"""Every kind of finding: produced for real, absent from a healthy twin, and described."""

import ast
import contextlib
import functools
import re
import warnings
from pathlib import Path

import pytest
import timm.scheduler
import torch
import torch.distributed as dist
from torch.optim import lr_scheduler as lrs

import nnlr
from nnlr._checks.check import LOOKS
from nnlr._findings import SEVERITIES
from nnlr._schedule import keep_ratios
from tests.checks import algorithm_cases  # noqa: F401 - puts its cases among CASES
from tests.checks.cases import CASES, LR, MODELS, SCRIPT, algorithm_for_nothing, arguments
from tests.frozen_state import state_of
from tests.helpers import syntax

SOURCES = Path(nnlr.__file__).parent
PAGE = Path(__file__).parents[2] / "docs" / "check.md"

PAIRS = [
    pytest.param(kind, build, id=f"{kind}-{build.__name__}")
    for kind, builders in CASES.items()
    for build in builders
]


@functools.cache
def emitted():
    """Every kind that the code can emit, with its severities.

    A maker of findings is called like the severity; where that is chosen, both are words.
    """
    kinds = {}
    for path in [*(SOURCES / "_checks").glob("*.py"), SOURCES / "_rows" / "findings.py"]:
        for node in ast.walk(syntax(path)):
            name = getattr(node.func, "id", "") if isinstance(node, ast.Call) else ""
            if name in SEVERITIES:
                kinds.setdefault(node.args[0].value, set()).add(name)
            elif name == "Finding":
                given = {each.arg: each.value for each in node.keywords}
                words = {getattr(each, "value", None) for each in ast.walk(given["severity"])}
                kinds.setdefault(given["kind"].value, set()).update(words & set(SEVERITIES))
    return kinds


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    """A process group of one, for the cases that shard."""
    if not dist.is_available() or not dist.is_gloo_available():
        pytest.skip("needs gloo")
    dist.init_process_group(
        "gloo", init_method=f"file://{tmp_path_factory.mktemp('alone')}/meet", rank=0, world_size=1
    )
    yield
    dist.destroy_process_group()


def checked(build, *, ill):
    """The findings of a case; nothing that it holds may change."""
    MODELS.clear()
    SCRIPT.clear()
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


def code_of(fix):
    """The code at the end of a fix, behind the words: the longest that Python can read."""
    for colon in re.finditer(": ", fix):
        with contextlib.suppress(SyntaxError):
            return compile(fix[colon.end() :], "fix", "exec")
    raise AssertionError(f"no code to paste in: {fix}")


def pasted(code, script):
    """Run a line that a message offers, in a script that has built what it speaks of."""
    with warnings.catch_warnings(action="ignore"):  # of resumed state that is dropped, say
        exec(code, script)  # noqa: S102 - it is offered to be pasted


def script_of(args, deepspeed, inputs=None):
    """The variables of a script that has made such a call."""
    checked, optimizers, schedulers = args
    optimizers = list(optimizers) if isinstance(optimizers, list | tuple) else [optimizers]
    return {
        **vars(torch.optim),
        **vars(lrs),
        **vars(timm.scheduler),
        "scheme": nnlr.rule("*"),
        "lr": LR,
        "wd": 0.0,
        "decay": 0.5,
        "inputs": getattr(inputs, "inputs", inputs if isinstance(inputs, tuple) else (inputs,)),
        "kwargs": inputs,
        **SCRIPT,
        "nnlr": nnlr,
        "torch": torch,
        "model": MODELS[-1],
        "optimizers": optimizers,
        "optimizer": optimizers[0],
        "scheduler": schedulers,
        "schedulers": schedulers,
        "config": deepspeed,
        **({"plan": checked} if isinstance(checked, nnlr.Plan) else {}),
    }


def again(args, script):
    """The arguments of the call after the line was run."""
    checked, optimizers, schedulers = args
    new = script["plan"] if isinstance(checked, nnlr.Plan) else checked
    if isinstance(optimizers, list | tuple):
        made = script["scheduler"]
        if made is not schedulers:
            made = [*schedulers, made]
        return new, script["optimizers"], made
    return new, None if optimizers is None else script["optimizer"], script["scheduler"]


# Findings whose fix is no line to paste: a test below does what it says, or none can.
PROSE = {
    "algorithm-without-parameters",
    "unprobed",
    "rule-on-frozen",
    "looks-absolute",
    "restored",
    "lr-scale-alone",
    "high-relative-rate",
}


@pytest.mark.usefixtures("alone")
@pytest.mark.no_cover
@pytest.mark.parametrize(("kind", "build"), [pair for pair in PAIRS if pair.values[0] not in PROSE])
def test_each_fix_is_run_and_mends(kind, build):
    """The line behind the words; then rates are as planned and nothing of it is found."""
    MODELS.clear()
    SCRIPT.clear()
    args, kwargs = arguments(build(True))
    before = nnlr.check(*args, **kwargs)
    fix = next(finding.fix for finding in before if finding.kind == kind)
    script = script_of(args, kwargs["deepspeed"], kwargs["inputs"])
    pasted(code_of(fix), script)
    args = again(args, script)
    kinds = {
        finding.kind
        for finding in nnlr.check(*args, deepspeed=script["config"], inputs=kwargs["inputs"])
    }
    assert kind not in kinds
    assert kinds <= {finding.kind for finding in before}
    optimizer, plan = args[1], script.get("plan")
    if plan is None or optimizer is None or isinstance(optimizer, list | tuple):
        return
    if keep_ratios.keeps_ratios(optimizer):  # before the next step
        with warnings.catch_warnings(action="ignore"):
            optimizer.step()
    rates = {
        id(tensor): float(group["lr"])
        for group in optimizer.param_groups
        for tensor in group["params"]
    }
    names = {id(tensor): name for name, tensor in MODELS[-1].named_parameters()}
    due = {row.name: row.lr for row in plan if row.trainable and not row.moves}
    known = [(rates[key], due[names[key]]) for key in rates if names.get(key) in due]
    highest = max((rate / lr for rate, lr in known if lr), default=0)
    for rate, lr in known:
        assert rate == pytest.approx(lr * highest, rel=1e-4)


class TestFixesInWords:
    """What those say that are no line to paste."""

    def fixed(self, kind, build):
        MODELS.clear()
        SCRIPT.clear()
        args, _ = arguments(build(True))
        return args, next(each.fix for each in nnlr.check(*args) if each.kind == kind)

    def test_unfreeze_before_resolve(self):
        """Then the rule reaches what trains."""
        _, fix = self.fixed("rule-on-frozen", CASES["rule-on-frozen"][0])
        assert "Unfreeze them before resolve" in fix
        MODELS[-1].requires_grad_(True)
        plan = nnlr.resolve(MODELS[-1], SCRIPT["scheme"], lr=LR, weight_decay=0)
        assert "nothing found" == str(nnlr.check(plan))

    def test_leave_the_algorithm_out(self):
        """Base rates for those that train something are enough."""
        _, fix = self.fixed("algorithm-without-parameters", algorithm_for_nothing)
        assert "leave 'sgd' out of lr and weight_decay" in fix
        rates = {"lr": {"adamw": LR}, "weight_decay": {"adamw": 0.0}}
        plan = nnlr.resolve(MODELS[-1], SCRIPT["scheme"], **rates)
        assert "nothing found" == str(nnlr.check(plan))

    def test_an_absolute_rate(self):
        """It is what the number was meant for."""
        _, fix = self.fixed("looks-absolute", CASES["looks-absolute"][0])
        assert "use rule(..., lr=)" in fix
        plan = nnlr.resolve(MODELS[-1], nnlr.rule("0.*", lr=1e-5), lr=LR, weight_decay=0)
        assert 1e-5 == plan["0.weight"].lr
        assert "nothing found" == str(nnlr.check(plan))

    def test_a_lower_relative_rate(self):
        """At the usual rates nothing is found, by the base rate or by the multiplier."""
        (_, optimizer, _), fix = self.fixed("high-relative-rate", CASES["high-relative-rate"][0])
        assert "Lower the base rate, or their multiplier. Rates of 0.001 to 0.05 are usual" in fix
        plan = SCRIPT["plan"].with_rates(lr=0.05)
        nnlr.regroup(optimizer, plan)
        assert "nothing found" == str(nnlr.check(plan, optimizer))

    def test_what_stays_locked(self):
        """A multiplier of 0 says so."""
        _, fix = self.fixed("restored", CASES["restored"][0])
        assert "lr_mult=0" in fix
        plan = nnlr.resolve(MODELS[-1], nnlr.rule("0.*", lr_mult=0), lr=LR, weight_decay=0)
        assert "nothing found" == str(nnlr.check(plan, plan.optimizer(torch.optim.SGD)))

    def test_the_scheduler_that_was_not_passed(self):
        """The line is a call of check; a scheduler of timm reads the key."""
        (model, optimizer, _), fix = self.fixed("lr-scale-alone", CASES["lr-scale-alone"][0])
        scheduler = timm.scheduler.StepLRScheduler(optimizer, 5)
        script = {"nnlr": nnlr, "model": model, "optimizer": optimizer, "scheduler": scheduler}
        call = fix.rpartition(": ")[2]
        assert "nothing found" == str(eval(call, script))  # noqa: S307 - offered to be pasted


def test_every_kind_has_a_pair():
    """The kinds are read from the source, so that a new one without a pair fails."""
    assert set(emitted()) == set(CASES)


def test_every_look_is_in_the_list():
    """A function that yields findings and is not called would find nothing."""
    written = {
        node.name
        for path in (SOURCES / "_checks").glob("*.py")
        for node in syntax(path).body
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
