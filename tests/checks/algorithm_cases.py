"""Cases of findings about several algorithms, in one optimizer or beside each other.

Importing it puts them among those of :mod:`tests.checks.cases`.
"""

from functools import partial

import torch
from torch import nn

import nnlr
from tests.checks.cases import MODELS, SCRIPT, case

# At the size of these matrices.
RATES = {"muon": 0.02, "adamw": 3e-3}

BOTH = {"muon": torch.optim.Muon, "adamw": torch.optim.AdamW}


class Block(nn.Module):
    """The matrices of a transformer's block."""

    def __init__(self, fused=False):
        super().__init__()
        self.norm = nn.LayerNorm(8)
        if fused:
            self.qkv = nn.Linear(8, 24)
        self.proj, self.up = nn.Linear(8, 8), nn.Linear(8, 16)


class Decoder(nn.Module):
    """A small language model."""

    def __init__(self, fused=False):
        super().__init__()
        self.wte = nn.Embedding(16, 8)
        self.blocks = nn.ModuleList([Block(fused)])
        self.head = nn.Linear(8, 16, bias=False)


def decoder(**settings):
    torch.manual_seed(0)
    MODELS.append(Decoder(**settings))
    return MODELS[-1]


def routed(net, *schemes, classes=None, route=("muon", "adamw"), lr=None):
    """A plan of two algorithms, and its optimizer."""
    SCRIPT["scheme"] = nnlr.route(*route)
    for scheme in (nnlr.no_weight_decay(), *schemes):
        SCRIPT["scheme"] *= scheme
    SCRIPT.update(lr=lr or RATES, wd=0.1)
    plan = nnlr.resolve(net, SCRIPT["scheme"], lr=SCRIPT["lr"], weight_decay=0.1)
    return plan, plan.optimizer(classes or BOTH)


def apart(net, muon, other=None, lr=0.02):
    """Two optimizers side by side: Muon for what ``muon`` chooses, AdamW for the rest."""
    names = [name for name, param in net.named_parameters() if muon(name, param)]
    pairs = dict(net.named_parameters())
    rest = [param for name, param in pairs.items() if name not in names]
    SCRIPT.update(wd=0.1)
    return [
        torch.optim.Muon([pairs[name] for name in names], lr=lr, weight_decay=0),
        torch.optim.AdamW(rest, lr=other or 3e-4, weight_decay=0),
    ]


# --- what older findings see of several algorithms


@case("ratio-drift")
def one_algorithm_lost_its_ratio(ill):
    plan, optimizer = routed(decoder(), nnlr.rule("blocks.0.up.*", lr_mult=0.5))
    if ill:
        optimizer.param_groups[1]["weight_decay"] *= 3
        optimizer.param_groups[1]["origin"]["weight_decay"] *= 3
    return decoder_of(plan), optimizer


def decoder_of(_):
    return MODELS[-1]


@case("plan-differs")
def in_the_groups_of_another_algorithm(ill):
    net = decoder()
    first, _ = routed(net)
    plan, optimizer = routed(net, nnlr.rule("blocks.0.up.weight", algorithm="adamw"))
    return first if ill else plan, optimizer


@case("base-rate")
def a_base_that_one_algorithm_does_not_have(ill):
    plan, optimizer = routed(decoder())
    if ill:
        optimizer.algorithms["adamw"].defaults["lr"] = 1e-3
    return plan, optimizer


@case("ignores-decay")
def one_algorithm_without_decay(ill):
    net = decoder()
    groups = [
        {"params": [net.blocks[0].up.weight], "lr": 0.02, "algorithm": "muon"},
        {"params": [net.blocks[0].proj.weight], "weight_decay": 0.1 * ill, "algorithm": "rprop"},
    ]
    classes = {"muon": torch.optim.Muon, "rprop": torch.optim.Rprop}
    parts = {name: param for name, param in net.named_parameters() if "p" in name and "0" in name}
    two = {key: parts[key] for key in ("blocks.0.up.weight", "blocks.0.proj.weight")}
    return two, nnlr.optim.Mixed(groups, classes)


@case("mixed-mesh")
def one_algorithm_partly_sharded(ill):
    from torch.distributed.tensor import distribute_module, init_device_mesh

    net = nn.Sequential(nn.Linear(4, 6), nn.Linear(6, 2), nn.Linear(2, 2))
    MODELS.append(net)
    distribute_module(net[0], init_device_mesh("cpu", (1,)))
    SCRIPT.update(lr={"a": 0.1, "b": 0.1}, wd=0.0)
    SCRIPT["scheme"] = nnlr.rule("2.*", algorithm="b") * nnlr.rule("[01].*", algorithm="a")
    plan = nnlr.resolve(net, SCRIPT["scheme"], lr=SCRIPT["lr"], weight_decay=0.0)
    SCRIPT["plan"] = plan
    classes = {"a": torch.optim.SGD, "b": torch.optim.SGD}
    if not ill:
        return net, plan.optimizer(classes)
    whole = {"params": list(net[:2].parameters()), "algorithm": "a", "lr": 0.1}
    rest = {"params": list(net[2].parameters()), "algorithm": "b", "lr": 0.1}
    return net, nnlr.optim.Mixed([whole, rest], classes)


@case("missing-setting")
def one_algorithm_without_its_setting(ill):
    plan, optimizer = routed(decoder())
    if ill:
        del optimizer.param_groups[0]["ns_steps"]
    return plan, optimizer


@case("schedule-drift")
def a_floor_for_all_algorithms(ill):
    """A scheduler of torch keeps ratios where it multiplies, and a floor is absolute."""
    plan, optimizer = routed(decoder())
    floor = 1e-3 if ill else 0.0
    return plan, optimizer, torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 10, floor)


@case("rates-stay-zero")
def nothing_for_any_algorithm(ill):
    _, optimizer = routed(decoder())
    for group in optimizer.param_groups:
        group["lr"] *= not ill
        group.pop("origin")
    return MODELS[-1], optimizer


# --- what Muon is for


def of_role(role):
    def build(ill):
        rule = nnlr.rule(nnlr.role(role), algorithm="muon" if ill else "adamw")
        net = decoder()
        if role == "gain":
            net.blocks[0].gamma = nn.Parameter(torch.ones(8, 1))
        if role == "norm":  # of whatever class, with two axes
            net.blocks[0].norm.weight = nn.Parameter(torch.ones(8, 1))
            rule = nnlr.rule("*norm.weight", algorithm="muon" if ill else "adamw")
        return routed(net, rule)

    build.__name__ = f"{role}_on_muon"
    return build


for each in ("embedding", "head", "gain", "norm"):
    case("unfit-for-muon")(of_role(each))


@case("unfit-for-muon")
def tied_table_in_an_optimizer_of_its_own(ill):
    """Everything of two axes, as many recipes have it."""
    net = decoder()
    net.head.weight = net.wte.weight
    return net, apart(net, lambda name, p: p.ndim == 2 and (ill or "wte" not in name))


class TakesAll(torch.optim.SGD):
    """Called Muon by a user, and flattens what is no matrix."""


class FlatMuon(TakesAll):
    pass


@case("unfit-for-muon")
def depthwise_kernels(ill):
    net = nn.Sequential(nn.Conv2d(4, 8, 3, bias=False), nn.Conv2d(8, 8, 3, groups=8, bias=False))
    MODELS.append(net)
    muon = FlatMuon(net.parameters() if ill else net[0].parameters(), lr=0.02)
    if ill:
        return net, muon
    return net, [muon, torch.optim.SGD(net[1].parameters(), lr=0.02)]


@case("unfit-for-muon")
def layer_scale_of_four_axes(ill):
    net = nn.Module()
    net.conv, net.pool = nn.Conv2d(4, 8, 3, bias=False), nn.Parameter(torch.ones(8, 1, 1))
    MODELS.append(net)
    muon = FlatMuon(net.parameters() if ill else net.conv.parameters(), lr=0.02)
    return net, muon if ill else [muon, torch.optim.SGD([net.pool], lr=0.02)]


@case("unfit-for-muon")
def column_of_one_input(ill):
    net = nn.ModuleDict({"up": nn.Linear(1, 8, bias=False), "mix": nn.Linear(8, 8, bias=False)})
    net["head"] = nn.Linear(8, 2)
    MODELS.append(net)
    muon = FlatMuon([net["mix"].weight, *([net["up"].weight] if ill else [])], lr=0.02)
    rest = [*net["head"].parameters(), *([] if ill else [net["up"].weight])]
    return net, [muon, torch.optim.AdamW(rest, lr=1e-3, weight_decay=0)]


@case("flat-for-muon")
def fsdp1(ill):
    """Matrices are flat then, and this class has something else for vectors."""
    import warnings

    from torch.distributed.fsdp import FullyShardedDataParallel, ShardingStrategy

    net = nn.Sequential(*(nn.Linear(8, 8, bias=False) for _ in range(3)))
    hidden, head = list(net[:2].parameters()), list(net[2].parameters())
    if ill:
        with warnings.catch_warnings(action="ignore"):
            net = FullyShardedDataParallel(
                net,
                device_id=torch.device("cpu"),
                sharding_strategy=ShardingStrategy.NO_SHARD,
            )
    MODELS.append(net)
    SCRIPT.update(lr=0.02, wd=0.1)
    if ill:
        return net, FlatMuon(net.parameters(), lr=0.02)
    return net, [FlatMuon(hidden, lr=0.02), torch.optim.SGD(head, lr=0.02)]


@case("fused-matrix")
def queries_keys_and_values(ill):
    return routed(decoder(fused=ill))


@case("normalised-momentum")
def half_precision_without_nesterov(ill):
    net = decoder().to(torch.bfloat16)
    with torch.no_grad():
        for param in net.parameters():
            param.mul_(1e-3)  # so that steps are not rounded away
    classes = {**BOTH, "muon": partial(torch.optim.Muon, nesterov=not ill)}
    return routed(net, classes=classes)


@case("normalised-momentum")
def half_precision_beside_another(ill):
    net = decoder().to(torch.bfloat16)
    with torch.no_grad():
        for param in net.parameters():
            param.mul_(1e-3)
    both = apart(net, lambda name, p: "blocks" in name and p.ndim == 2)
    both[0].param_groups[0]["nesterov"] = not ill
    return net, both


@case("vanishing-update")
def muon_moves_by_less_than_its_rate(ill):
    """Its update is a matrix of norm 1, whose numbers are small."""
    net = nn.Sequential(nn.Linear(128, 128, bias=False)).to(torch.bfloat16)
    MODELS.append(net)
    with torch.no_grad():
        net[0].weight.fill_(0.1)
    SCRIPT.update(lr=1e-3 if ill else 0.01)
    SCRIPT["scheme"] = nnlr.rule("*", algorithm="muon")
    plan = nnlr.resolve(net, SCRIPT["scheme"], lr=SCRIPT["lr"], weight_decay=0)
    return plan, plan.optimizer({"muon": torch.optim.Muon})


# --- rates of two algorithms


@case("unequal-updates")
def one_algorithm_stands_still(ill):
    return routed(decoder(), lr={"muon": 0.02, "adamw": 1e-6 if ill else 3e-3})


@case("unequal-updates")
def one_optimizer_stands_still(ill):
    net = decoder()
    muon = lambda name, p: "blocks" in name and p.ndim == 2  # noqa: E731
    return net, apart(net, muon, 1e-6 if ill else 3e-4)


@case("unequal-updates")
def without_a_plan(ill):
    _, optimizer = routed(decoder(), lr={"muon": 0.02, "adamw": 3e-3})
    for group in optimizer.param_groups:
        del group["origin"], group["lr_mult"], group["wd_mult"]
        group["lr"] = 0.02 if group["algorithm"] == "muon" else 1e-6 if ill else 3e-3
    return MODELS[-1], optimizer


@case("unequal-updates")
def planned_and_apart(ill):
    """The groups of a plan, in two optimizers."""
    net = decoder()
    lr = {"muon": 0.02, "adamw": 1e-6 if ill else 3e-3}
    plan = nnlr.resolve(net, nnlr.route("muon", "adamw"), lr=lr, weight_decay=0)
    return plan, in_two(plan)


def in_two(plan):
    """An optimizer for each algorithm of a plan of the last model."""
    both = []
    for name, cls in BOTH.items():
        mine = [group for group in plan.param_groups() if group["algorithm"] == name]
        both.append(cls(mine, lr=plan.algorithms[name].lr, weight_decay=0))
        nnlr.checkpoint.on_load(both[-1], model=MODELS[-1])
    return both


@case("unfit-for-muon")
def planned_and_apart_with_a_head(ill):
    """The groups of a plan, in two optimizers."""
    net = decoder()
    SCRIPT.update(scheme=nnlr.route("muon", "adamw"), lr=RATES, wd=0.0)
    to_muon = [nnlr.rule("head.weight", algorithm="muon")] if ill else []
    plan = nnlr.resolve(net, nnlr.route("muon", "adamw"), *to_muon, lr=RATES, weight_decay=0)
    return plan, in_two(plan)


@case("unfit-for-muon")
def by_hand_against_the_plan(ill):
    net = decoder()
    plan, optimizer = routed(net)
    if ill:
        groups = [{"params": [], "algorithm": name} for name in BOTH]
        for name, param in net.named_parameters():
            groups[param.ndim == 1]["params"].append((name, param))
        optimizer = nnlr.optim.Mixed(groups, BOTH)
    return plan, optimizer


@case("decayed-norm")
def apart_and_decayed(ill):
    """Without a plan; each goes on at its own rate."""
    net = decoder()
    both = apart(net, lambda name, _: name in {"blocks.0.up.weight", "blocks.0.down.weight"})
    both[1].param_groups[0]["weight_decay"] = 0.1 if ill else 0.0
    return net, both


@case("rate-of-adamw")
def one_rate_for_both(ill):
    """Under the factor that was made for it, this is right."""
    settings = {"adjust_lr_fn": None if ill else "match_rms_adamw"}
    classes = {**BOTH, "muon": partial(torch.optim.Muon, **settings)}
    net = decoder()
    net.blocks[0].up = nn.Linear(256, 128)
    net.blocks[0].proj = nn.Linear(256, 128)
    return routed(net, classes=classes, lr={"muon": 3e-4, "adamw": 3e-4})


@case("rate-of-muon")
def muons_rate_for_both(ill):
    return routed(decoder(), lr={"muon": 0.02, "adamw": 0.02 if ill else 1e-3})


@case("rate-of-muon")
def muons_rate_for_tables_only(ill):
    """Published recipes train tables and scalars at such rates."""
    mult = {"lr_mult": 100} if not ill else {}
    rule = nnlr.rule("wte.*", **mult)
    return routed(decoder(), rule, lr={"muon": 0.02, "adamw": 0.1 if ill else 1e-3})


@case("rerouted-rate")
def taken_away_from_muon(ill):
    made_up = {} if ill else {"lr_mult": 5}
    rule = nnlr.rule("blocks.0.proj.weight", algorithm="adamw", **made_up)
    return routed(decoder(), rule, lr={"muon": 0.02, "adamw": 5e-4})


@case("unfit-for-muon")
def vectors_with_two_axes(ill):
    """A row is no map, whatever it is called."""
    net = nn.Sequential(nn.Linear(8, 8, bias=False), nn.Linear(8, 1, bias=False))
    net.append(nn.Linear(1, 8, bias=False))
    MODELS.append(net)
    muon = torch.optim.Muon(net.parameters() if ill else net[0].parameters(), lr=0.02)
    rest = [*net[1].parameters(), *net[2].parameters()]
    other = torch.optim.AdamW(rest, lr=3e-3, weight_decay=0)
    return net, muon if ill else [muon, other]
