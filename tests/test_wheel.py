"""The wheel: the package alone, and it works with nothing but the core's dependencies."""

import subprocess
import sys
import venv
from pathlib import Path
from zipfile import ZipFile

import pytest

ROOT = Path(__file__).parents[1]

# What a user does first; no test framework, no extra.
USE = """
import sys, torch, nnlr
net = torch.nn.Sequential(torch.nn.Linear(4, 4), torch.nn.LayerNorm(4), torch.nn.Linear(4, 1))
scheme = nnlr.no_weight_decay() * nnlr.rule("0.*", lr_mult=0.1)
plan = nnlr.resolve(net, scheme, lr=1e-3, weight_decay=0.05)
print(plan)
for cls in (torch.optim.AdamW, nnlr.optim.AdamW):
    optimizer = plan.optimizer(cls)
    scheduler = nnlr.schedule(optimizer, torch.optim.lr_scheduler.CosineAnnealingLR, T_max=9)
    net(torch.ones(2, 4)).sum().backward()
    optimizer.step(); scheduler.step()
    optimizer.load_state_dict(optimizer.state_dict())
print(nnlr.check(plan, optimizer, scheduler))
print(nnlr.recipe("mae/vit-b/finetune"), nnlr.find_recipes(net))
print(sorted({"typer", "yaml", "matplotlib", "sklearn"} & set(sys.modules)))
"""


@pytest.mark.full
def test_it_holds_the_package_and_needs_the_core_only(tmp_path):
    """Built, listed, installed into a fresh environment and used; a minute."""

    def run(*command, cwd=tmp_path):
        return subprocess.run(command, cwd=cwd, capture_output=True, text=True, check=False)

    pip = (sys.executable, "-m", "pip", "--disable-pip-version-check", "-q")
    built = run(*pip, "wheel", "--no-deps", "--no-build-isolation", "-w", str(tmp_path), str(ROOT))
    assert 0 == built.returncode, built.stderr
    (wheel,) = tmp_path.glob("nnlr-*.whl")
    packed = ZipFile(wheel).namelist()
    tops = {name.partition("/")[0] for name in packed if ".dist-info/" not in name}
    assert {"nnlr", "nnlr_command.py"} == tops
    page = ROOT / "src" / "nnlr" / "report" / "_page"  # its templates, style sheets and scripts too
    assert {f"nnlr/report/_page/{path.name}" for path in page.glob("*.*")} <= set(packed)
    recipes = ROOT / "src" / "nnlr" / "config" / "recipes"
    assert {f"nnlr/config/recipes/{path.name}" for path in recipes.iterdir()} <= set(packed)
    venv.create(tmp_path / "fresh", with_pip=True)
    python = str(tmp_path / "fresh" / "bin" / "python")
    install = (python, "-m", "pip", "--disable-pip-version-check", "-q", "install")
    # Torch first and alone, so that nothing picks another build of it.
    for what in ("torch", str(wheel)):
        done = run(*install, "-c", str(ROOT / "constraints.txt"), what)
        assert 0 == done.returncode, done.stderr
    used = run(python, "-c", USE)
    assert 0 == used.returncode, used.stderr
    assert "Sequential: 6 parameters" in used.stdout
    assert "nothing found" in used.stdout
    assert "[]" == used.stdout.splitlines()[-1]
    command = run(str(tmp_path / "fresh" / "bin" / "nnlr"), "schemes")
    assert 2 == command.returncode
    assert 'pip install "nnlr[cli]"' in command.stderr
