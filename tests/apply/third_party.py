"""Every optimizer class of other libraries, taken through the life of a plan.

A class is built on a plan of several groups, is scheduled and steps, is saved and resumed under
other groups, is regrouped, and is checked on the way. ``outcome`` says how it fared: "right",
"refused" and why, "does not run" where it fails without nnlr too, "loads the same groups only"
where it refuses a state of others, or at which stage it is wrong.
"""

import contextlib
import importlib
import io
import logging
import warnings

import torch
from torch import nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LinearLR

import nnlr

# The name on the package index, and the module that lists its classes.
LIBRARIES = {
    "adabelief-pytorch": "adabelief_pytorch",
    "adam-mini": "adam_mini",
    "adamp": "adamp",
    "adan-pytorch": "adan_pytorch",
    "apollo-torch": "apollo_torch",
    "bitsandbytes": "bitsandbytes.optim",
    "came-pytorch": "came_pytorch",
    "dadaptation": "dadaptation",
    "galore-torch": "galore_torch",
    "heavyball": "heavyball",
    "kron-torch": "kron_torch",
    "lion-pytorch": "lion_pytorch",
    "lomo-optim": "lomo_optim",
    "muon-fsdp2": "muon_fsdp2",
    "muon-optimizer": "muon",
    "prodigyopt": "prodigyopt",
    "pytorch-optimizer": "pytorch_optimizer",
    "schedulefree": "schedulefree",
    "timm": "timm.optim",
    "torch-optimi": "optimi",
    "torch-optimizer": "torch_optimizer",
    "torchao": "torchao.optim",
    "transformers": "transformers.optimization",
}

# Arguments without which a class cannot be built, or goes by a rate of its own.
ARGUMENTS = {
    "pytorch_optimizer.Ranger21": {"num_iterations": 100},
    "pytorch_optimizer.BSAM": {"num_data": 16},
    "transformers.optimization.Adafactor": {"relative_step": False, "scale_parameter": False},
    "galore_torch.GaLoreAdafactor": {"relative_step": False, "scale_parameter": False},
    "apollo_torch.GaLoreAdafactor": {"relative_step": False, "scale_parameter": False},
    **{
        f"bitsandbytes.optim.{name}{bits}": {"momentum": 0.9}
        for name in ("SGD", "LARS")
        for bits in ("", "8bit", "32bit")
    },
    "bitsandbytes.optim.PytorchLARS": {"momentum": 0.9},
}

# Settings that a class reads from its groups without declaring them: of matrices, of the rest.
_MUON = ({"use_muon": True}, {"use_muon": False})
_LOW_RANK = {"rank": 2, "update_proj_gap": 2, "scale": 0.25, "proj_type": "std"}
_APOLLO = {**_LOW_RANK, "proj": "random", "scale_type": "tensor"}
_PROJECTED = {"rank": 2, "update_proj_gap": 2, "scale": 0.25, "projection_type": "std"}
OPTIONS = {
    "apollo_torch.APOLLOAdamW": (_APOLLO, {}),
    "apollo_torch.GaLoreAdafactor": (_LOW_RANK, {}),
    "apollo_torch.GaLoreAdamW": (_LOW_RANK, {}),
    "dadaptation.DAdaptAdam": ({"layer_scale": 0.5}, {}),
    "galore_torch.GaLoreAdafactor": (_LOW_RANK, {}),
    "galore_torch.GaLoreAdamW": (_LOW_RANK, {}),
    "muon.MuonWithAuxAdam": _MUON,
    "muon.SingleDeviceMuonWithAuxAdam": _MUON,
    "muon_fsdp2.Muon": _MUON,
    "pytorch_optimizer.AdaGO": _MUON,
    "pytorch_optimizer.AdaMuon": _MUON,
    "pytorch_optimizer.DistributedMuon": _MUON,
    "pytorch_optimizer.GaLore": (_PROJECTED, {}),
    "pytorch_optimizer.Muon": _MUON,
    "pytorch_optimizer.MuonClip": _MUON,
    "pytorch_optimizer.NorMuon": _MUON,
    "timm.optim.Muon": ({"use_fallback": False}, {"use_fallback": True}),
}

# Classes for matrices alone.
MATRICES = {"muon.Muon", "muon.SingleDeviceMuon", "pytorch_optimizer.SpectralSphere"}

# Classes that wrap an optimizer, which a function builds for them.
WRAPPERS = {
    "pytorch_optimizer.Lookahead",
    "pytorch_optimizer.OrthoGrad",
    "pytorch_optimizer.ScheduleFreeWrapper",
    "pytorch_optimizer.TRAC",
    "timm.optim.Lookahead",
    "torch_optimizer.Lookahead",
}

# Classes for models of their own kind.
OTHER_MODELS = {
    "pytorch_optimizer.LoRARite": "it trains the pairs of matrices of adapters",
    "pytorch_optimizer.SaRA": "it trains weights next to 0 alone",
}

# Classes that want second derivatives.
SECOND = {"Adahessian", "AdaHessian", "SophiaH", "BSAM"}

LR, DECAY, STEPS = 1e-2, 0.1, 12

LONGEST = 160  # of an outcome


class NotRightError(Exception):
    """What went wrong, and when."""

    def __init__(self, stage, what):
        super().__init__(f"{stage}: {what}")
        self.stage, self.what = stage, what


class Net(nn.Module):
    """Matrices and vectors, all of which count."""

    def __init__(self, bias):
        super().__init__()
        self.body = nn.Linear(8, 8, bias=bias)
        self.mid = nn.Linear(8, 8, bias=bias)
        self.head = nn.Linear(8, 4, bias=bias)

    def forward(self, x):
        return self.head(torch.tanh(self.mid(torch.tanh(self.body(x)))))


class Life:
    """The life of one class on one plan."""

    def __init__(self, name, cls):
        torch.manual_seed(0)
        self.name, self.cls = name, cls
        self.factory = self._wrapped if name in WRAPPERS else cls
        self.settings = ARGUMENTS.get(name, {})
        self.decay = DECAY

    def _wrapped(self, groups, lr, weight_decay):
        return self.cls(torch.optim.AdamW(groups, lr=lr, weight_decay=weight_decay))

    def net(self):
        return Net(self.name not in MATRICES)

    def plan(self, model, *, other=False):
        """A plan of some groups, or of others with other rates."""
        scheme = nnlr.rule("body.*", lr_mult=0.5 if other else 0.1)
        scheme *= nnlr.rule("*.bias", wd_mult=0, optional=True)
        if other:
            scheme *= nnlr.rule("mid.weight", lr_mult=0.25)
        if self.name in OPTIONS:
            matrices, rest = OPTIONS[self.name]
            scheme *= nnlr.rule("*.weight", options=matrices) * nnlr.rule("*.bias", options=rest)
        return nnlr.resolve(model, scheme, lr=LR, weight_decay=0.0 if other else self.decay)

    def build(self, plan):
        with stage("build"):
            return plan.optimizer(self.factory, **self.settings)

    def alone(self):
        """The same class without nnlr, on two groups: built, stepped, resumed and stepped."""
        model = self.net()
        weights = [p for p in model.parameters() if p.ndim > 1]
        rest = [p for p in model.parameters() if p.ndim == 1]
        matrices, others = OPTIONS.get(self.name, ({}, {}))

        def build():
            groups = [{"params": weights, "lr": LR, **matrices}]
            groups += [{"params": rest, "lr": LR, **others}] if rest else []
            if self.name in WRAPPERS:
                return self._wrapped(groups, LR, 0.0)
            return self.cls(groups, **self.settings)

        optimizer = build()
        take_steps(optimizer, model, range(3))
        resumed = build()
        resumed.load_state_dict(through_a_file(optimizer.state_dict()))
        take_steps(resumed, model, range(3))

    def live(self):
        """Go through the stages; returns the kinds of what ``check`` finds."""
        model = self.net()
        plan = self.plan(model)
        try:
            optimizer = self.build(plan)
        except NotRightError as error:
            if "no weight decay" not in error.what:
                raise
            self.decay = 0.0
            plan = self.plan(model)
            optimizer = self.build(plan)
        expect_rates("build", optimizer, model, plan)
        findings = checked("build", plan, optimizer)
        scheduler = scheduled(optimizer)
        before = {name: param.detach().clone() for name, param in model.named_parameters()}
        for seed in range(STEPS):
            with stage("step"):
                take_steps(optimizer, model, [seed])
            with stage("schedule"):
                scheduler.step()
        expect_finite("step", model)
        if all(torch.equal(param, before[name]) for name, param in model.named_parameters()):
            raise NotRightError("step", "nothing moved")
        factor = 0.5 + 0.5 * STEPS / 40
        expect_rates("schedule", optimizer, model, plan, factor)
        state = named_state(optimizer, model)
        findings |= self.resume(optimizer, scheduler, model, state, factor)
        again = self.plan(model, other=True)
        with stage("regroup"):
            nnlr.regroup(optimizer, again)
        expect_state("regroup", optimizer, model, state)
        expect_rates("regroup", optimizer, model, again, factor)
        with stage("regroup"):
            take_steps(optimizer, model, [STEPS])
            scheduler.step()
        expect_finite("regroup", model)
        expect_rates("regroup", optimizer, model, again, 0.5 + 0.5 * (STEPS + 1) / 40)
        return findings | checked("regroup", again, optimizer, scheduler)

    def resume(self, optimizer, scheduler, model, state, factor):
        """As in another process: other tensors, other groups."""
        fresh = self.net()
        fresh.load_state_dict(model.state_dict())
        plan = self.plan(fresh, other=True)
        resumed = self.build(plan)
        resumed_scheduler = scheduled(resumed)
        with stage("resume"):
            resumed.load_state_dict(through_a_file(optimizer.state_dict()))
            resumed_scheduler.load_state_dict(scheduler.state_dict())
        expect_state("resume", resumed, fresh, state)
        expect_rates("resume", resumed, fresh, plan, factor)
        findings = checked("resume", plan, resumed, resumed_scheduler)
        with stage("resume"):
            take_steps(resumed, fresh, [STEPS])
        expect_finite("resume", fresh)
        return findings


@contextlib.contextmanager
def stage(name):
    """Say at which stage an error was raised."""
    try:
        yield
    except Exception as error:
        text = " ".join(f"{type(error).__name__}: {error}".split())
        raise NotRightError(name, text) from error


def scheduled(optimizer):
    with stage("schedule"):
        return nnlr.schedule(optimizer, LinearLR, start_factor=0.5, total_iters=40)


def take_steps(optimizer, model, seeds):
    """Steps on a batch of its own each, in the way that the class wants them."""
    for seed in seeds:
        x = torch.randn(16, 8, generator=torch.Generator().manual_seed(seed))

        def loss(x=x):
            optimizer.zero_grad()
            value = model(x).square().mean()
            value.backward(create_graph=type(optimizer).__name__ in SECOND)
            return value

        if hasattr(optimizer, "train"):  # schedule-free ones ask for it
            optimizer.train()
        loss()
        errors = []
        for way in ((), (loss,)):
            try:
                optimizer.step(*way)
            except Exception as error:  # noqa: BLE001 - anyone's optimizer
                errors.append(error)
            else:
                break
        else:
            raise errors[0]


def through_a_file(state):
    file = io.BytesIO()
    torch.save(state, file)
    file.seek(0)
    return torch.load(file, weights_only=False)


def named_state(optimizer, model):
    """State by name of parameter, copied."""
    return {
        name: {key: copied(value) for key, value in optimizer.state[tensor].items()}
        for name, tensor in model.named_parameters()
        if tensor in optimizer.state
    }


def copied(value):
    return value.detach().clone() if isinstance(value, torch.Tensor) else value


def expect_state(name, optimizer, model, before):
    """Refuse state that is not that of before, parameter by parameter."""
    now = named_state(optimizer, model)
    wrong = [
        f"{param}.{key}"
        for param in before.keys() | now.keys()
        for key in before.get(param, {}).keys() | now.get(param, {}).keys()
        if not is_same(before.get(param, {}).get(key), now.get(param, {}).get(key))
    ]
    if wrong:
        raise NotRightError(name, f"state differs: {', '.join(sorted(wrong)[:3])}")


def is_same(one, other):
    """Whether two parts of a state are equal, as far as such things can be compared."""
    if isinstance(one, torch.Tensor) and isinstance(other, torch.Tensor):
        if type(one) is not torch.Tensor:  # quantized
            one, other = one.dequantize(), other.dequantize()
        return one.shape == other.shape and torch.equal(one.double(), other.double())
    if isinstance(one, int | float | str | None) or isinstance(other, int | float | str | None):
        return plain(one) == plain(other)
    return type(one) is type(other)


def plain(value):
    return value.item() if isinstance(value, torch.Tensor) and value.numel() == 1 else value


def expect_rates(name, optimizer, model, plan, factor=1.0):
    """Refuse groups whose rates are not the plan's times a factor."""
    lr_of = {id(t): float(g["lr"]) for g in optimizer.param_groups for t in g["params"]}
    for param, tensor in model.named_parameters():
        lr = plan[param].lr * factor
        if abs(lr_of[id(tensor)] - lr) > 1e-6 * LR:
            raise NotRightError(name, f"{param} has lr {lr_of[id(tensor)]:g} instead of {lr:g}")


def expect_finite(name, model):
    """Refuse weights that are NaN or infinite."""
    if wrong := [key for key, param in model.named_parameters() if not param.isfinite().all()]:
        raise NotRightError(name, f"not finite: {', '.join(wrong)}")


def checked(name, plan, optimizer, *more):
    """The kinds of what ``check`` finds, but for notes."""
    with stage(name):
        return {f.kind for f in nnlr.check(plan, optimizer, *more) if f.severity != "note"}


def outcome(name, cls):
    """How a class fares, in a line."""
    if name in OTHER_MODELS:
        return f"does not run: {OTHER_MODELS[name]}"
    logging.disable(logging.CRITICAL)
    with (
        warnings.catch_warnings(action="ignore"),
        contextlib.redirect_stdout(io.StringIO()),
        contextlib.redirect_stderr(io.StringIO()),
        torch.compiler.set_stance("force_eager"),
    ):
        try:
            findings = Life(name, cls).live()
        except NotRightError as error:
            text = str(error)
            if error.stage == "build" and error.what.startswith("ConfigError"):
                text = f"refused: {error.what.removeprefix('ConfigError: ')}"
            elif error.stage == "resume" and (
                error.what.startswith("ValueError") or "loads by position" in error.what
            ):
                text = f"loads the same groups only: {error.what}"
            else:
                with contextlib.suppress(Exception):
                    alone = None
                    Life(name, cls).alone()
                    alone = "runs"
                if alone is None:
                    text = f"does not run: {text}"
        else:
            text = "right"
            if findings:
                text += f"; check finds {', '.join(sorted(findings))}"
        finally:
            logging.disable(logging.NOTSET)
    return text if len(text) <= LONGEST else f"{text[:LONGEST]}..."


def classes(library):
    """The optimizer classes that a library defines itself, by their full names."""
    module = importlib.import_module(LIBRARIES[library])
    package = module.__name__.partition(".")[0]
    return {
        f"{module.__name__}.{name}": thing
        for name, thing in sorted(vars(module).items())
        if isinstance(thing, type)
        and issubclass(thing, Optimizer)
        and not name.startswith("_")
        and thing.__module__.partition(".")[0] == package
    }


def census(library):
    """How all classes of a library fare, a line for each."""
    return "\n".join(f"{name}: {outcome(name, cls)}" for name, cls in classes(library).items())
