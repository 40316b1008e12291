"""Random models and schemes: trees with tied weights, shared modules and frozen parts."""

import functools
import operator

from hypothesis import strategies as st
from torch import nn
from torch.nn.utils import parametrizations

import nnlr
from nnlr._model.names import nodes

# Values whose products show in their last bits in which order they were taken.
MULTS = st.sampled_from([0.0, 1.0, 0.1, 1 / 3, 0.7, 3.0, 1e-3, 7e2]) | st.floats(1e-3, 1e3)


class Raw(nn.Module):
    """Parameters that hang on a module of one's own, and in a list."""

    def __init__(self):
        super().__init__()
        self.scale = nn.Parameter(nn.Linear(1, 1).bias.detach().reshape(()))
        self.tokens = nn.ParameterList([nn.Linear(2, 2).weight for _ in range(2)])


LEAVES = {
    "linear": lambda: nn.Linear(2, 2),
    "linear without bias": lambda: nn.Linear(2, 2, bias=False),
    "embedding": lambda: nn.Embedding(2, 2),
    "norm": lambda: nn.LayerNorm(2),
    "batch norm": lambda: nn.BatchNorm1d(2),
    "convolution": lambda: nn.Conv1d(2, 2, 1),
    "lstm": lambda: nn.LSTM(1, 2),
    "parametrized": lambda: parametrizations.weight_norm(nn.Linear(2, 2)),
    "raw": Raw,
    "nothing": nn.ReLU,
}


@st.composite
def trees(draw, depth, known):
    """A module: a leaf, a container of others, or one that is in the tree already."""
    if known and draw(st.integers(0, 7)) == 0:
        return draw(st.sampled_from(known))  # shared
    if depth == 0 or draw(st.booleans()):
        module = LEAVES[draw(st.sampled_from(sorted(LEAVES)))]()
    else:
        parts = [draw(trees(depth - 1, known)) for _ in range(draw(st.integers(1, 3)))]
        kind = draw(st.sampled_from(["sequential", "list", "dict"]))
        if kind == "dict":
            names = ["block", "blocks", "block_norm"]
            module = nn.ModuleDict(dict(zip(names, parts, strict=False)))
        else:
            module = (nn.Sequential if kind == "sequential" else nn.ModuleList)(
                *(parts if kind == "sequential" else [parts])
            )
    known.append(module)
    return module


@st.composite
def models(draw):
    """A model of at least one parameter, some of it tied, some of it frozen."""
    known = []
    parts = [draw(trees(2, known)) for _ in range(draw(st.integers(1, 3)))]
    model = nn.Sequential(nn.Linear(2, 2), *parts)
    owners = [m for m in dict.fromkeys(model.modules()) if isinstance(m, nn.Linear | nn.Embedding)]
    plain = [m for m in owners if "weight" in m._parameters]
    for _ in range(draw(st.integers(0, 2))):
        one, two = draw(st.sampled_from(plain)), draw(st.sampled_from(plain))
        two.weight = one.weight  # tied, unless it is one and the same
    for tensor in model.parameters():
        tensor.requires_grad_(draw(st.integers(0, 5)) > 0)
    return model


class Table(nnlr.Scheme):
    """Factors by position: what a recipe is, without any reason."""

    def __init__(self, lr_mults, wd_mults):
        self.lr_mults = lr_mults
        self.wd_mults = wd_mults

    def factors(self, model):
        count = len(model.params)
        return [
            nnlr.Factor(
                lr_mult=self.lr_mults[i % len(self.lr_mults)],
                wd_mult=self.wd_mults[i % len(self.wd_mults)],
                why=f"row {i}",
            )
            for i in range(count)
        ]

    def __repr__(self):
        return f"Table({self.lr_mults}, {self.wd_mults})"


def tables():
    """Recipes."""
    few = st.lists(MULTS, min_size=1, max_size=4)
    return st.builds(Table, few, few)


def selectors():
    """Selectors that reach a tied tensor by all of its names, so that none disagree."""
    roles = st.sampled_from(["norm", "bias", "matrix", "conv", "embedding"]).map(nnlr.role)
    bounds = st.integers(0, 2).map(lambda least: nnlr.ndim(min=least))
    some = st.integers(1, 3).map(lambda k: nnlr.predicate(functools.partial(_every, k)))
    single = roles | bounds | some | st.just(nnlr.glob("*"))
    return st.recursive(
        single,
        lambda inner: (
            st.builds(operator.and_, inner, inner)
            | st.builds(operator.or_, inner, inner)
            | inner.map(operator.invert)
        ),
        max_leaves=3,
    )


def _every(k, param):
    return len(param.name) % (k + 1) == 0


def paths(model):
    """Canonical paths of the modules that a scheme can be resolved within."""
    return sorted({node.path for node in nodes(model) if node.path})


def schemes(model):
    """Recipes and rules that never disagree about a tied tensor, restricted or not."""
    rules = st.builds(
        lambda selector, lr, wd: nnlr.rule(selector, lr_mult=lr, wd_mult=wd, optional=True),
        selectors(),
        MULTS,
        MULTS,
    )
    plain = tables() | rules
    where = st.builds(lambda s, chosen: s.where(chosen, optional=True), plain, selectors())
    within = st.builds(
        lambda s, path: s.within(path),
        tables() | tables().map(lambda t: t * t),
        st.sampled_from(paths(model)),
    )
    return plain | where | within


@st.composite
def cases(draw, least=1, most=4):
    """A model and a few schemes for it."""
    model = draw(models())
    return model, draw(st.lists(schemes(model), min_size=least, max_size=most))


@st.composite
def bracketings(draw, members):
    """The product of some schemes in any order and any nesting."""
    pending = list(draw(st.permutations(members)))
    while len(pending) > 1:
        at = draw(st.integers(0, len(pending) - 2))
        pending[at : at + 2] = [pending[at] * pending[at + 1]]
    return pending[0]
