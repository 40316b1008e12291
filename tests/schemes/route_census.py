"""Where the default routing sends the parameters of every model of timm and transformers.

A model is judged by the classes of its modules and by their use, never by nnlr's roles: what must
not be orthogonalized, and what must be.
"""

import re
from collections import Counter
from contextlib import contextmanager

import pytest
import timm
import timm.layers.weight_init
import torch
from torch import nn
from torch.nn.modules.batchnorm import _NormBase

import nnlr
from tests.model.test_census import of_transformers

TABLES = (nn.Embedding, nn.EmbeddingBag)
NORMS = (_NormBase, nn.LayerNorm, nn.GroupNorm, nn.RMSNorm)

# Linear layers of repeated blocks that are none of a block's own matrices.
NO_MATRIX = re.compile(
    r"router|(^|\.)(shared_expert_)?gate(\.|$)|head|classifier|_embed\.|predictor\.|prediction|logits"
)
IN_A_BLOCK = re.compile(r"(^|\.)\d+\..*\.weight")


def of_timm():
    """Every model of timm."""
    for name in timm.list_models():
        yield name, lambda name=name: timm.create_model(name)


LIBRARIES = {"timm": of_timm, "transformers": of_transformers}


@contextmanager
def without_values():
    """Build models on the meta device, and skip what would fill their weights."""

    def unchanged(tensor, *args, **kwargs):
        return tensor

    with pytest.MonkeyPatch.context() as patch, torch.device("meta"):
        for name in vars(nn.init):
            if name.endswith("_") and not name.startswith("_"):
                patch.setattr(nn.init, name, unchanged)
        patch.setattr(timm.layers.weight_init, "_trunc_normal_", unchanged)
        yield


def models(library, start=0, step=1):
    """Every so many of a library's models that build, by name and class."""
    with without_values():
        for position, (name, build) in enumerate(LIBRARIES[library]()):
            if position % step == start:
                try:
                    model = build()
                except Exception:  # noqa: BLE001, S112  no default, or a package is missing
                    continue
                yield f"{name} {type(model).__name__}", model


def routed(model):
    """The plan of the default routing; the rates do not matter."""
    return nnlr.resolve(model, nnlr.route("muon", "adamw"), lr=1, weight_decay=0)


def wrong(model, plan):
    """What is sent where it should not be, by class and use."""
    owners = {}
    for path, module in model.named_modules():
        for leaf, param in module.named_parameters(recurse=False):
            owners.setdefault(id(param), []).append((module, f"{path}.{leaf}".lstrip(".")))
    outputs = {id(param) for layer in output_layers(model) for param in layer.parameters()}
    names = {name: id(p) for name, p in model.named_parameters(remove_duplicate=False)}
    for row in plan.rows:
        key = names[row.name]
        modules = [module for module, _ in owners[key]]
        table = any(isinstance(module, TABLES + NORMS) for module in modules)
        if row.algorithm == "muon":
            if table or key in outputs or len(row.shape) != 2 or min(row.shape) < 4:
                yield row.name
        elif (
            any(type(module) is nn.Linear for module in modules)
            and len(row.shape) == 2
            and min(row.shape) >= 4
            and max(row.shape) <= 128 * min(row.shape)
            and not table
            and key not in outputs
            and all(
                IN_A_BLOCK.search(name) and not NO_MATRIX.search(name) for _, name in owners[key]
            )
        ):
            yield row.name


def output_layers(model):
    """The layers that a model's own hooks call its outputs."""
    for hook in ("get_output_embeddings", "get_classifier"):
        try:
            layers = getattr(model, hook)()
        except Exception:  # noqa: BLE001, S112  a hook that does not apply raises anything
            continue
        for layer in layers if isinstance(layers, tuple) else (layers,):
            if isinstance(layer, nn.Linear):
                yield layer


def counts(plan):
    """How many tensors go where, and why."""
    return Counter(reason(row.trace[0].factor.why) for row in plan.rows)


def reason(why):
    """The kind of a reason."""
    if "axes" in why or "axis" in why:
        return "a matrix of another number of axes, such as experts"
    if "a side of" in why:
        return "a matrix with a side below 4"
    return "a matrix of more than 128 to 1" if "times" in why else why


def judged(models):
    """How many models, and tensors by reason; none is left over, or sent where it should not be."""
    total, number = Counter(), 0
    for name, model in models:
        plan = routed(model)
        assert [] == [row.name for row in plan if row.algorithm is None], name
        assert [] == list(wrong(model, plan)), name
        total += counts(plan)
        number += 1
    return {"models": number, "tensors": dict(total)}
