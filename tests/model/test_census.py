"""Every architecture of transformers and timm: what decays under `no_weight_decay()`, by kind.

A kind is a parameter's name without the modules around it, its role, and whether it decays. Two
golden lists hold those that the class of torch does not settle: read what a change does to them.
"""

import logging
import re
from collections import defaultdict

import pytest
import torch

import nnlr
from nnlr._model.describe import describe
from tests import zoo

pytestmark = [pytest.mark.full, pytest.mark.no_cover, pytest.mark.filterwarnings("ignore")]

# Where the role follows from a class of torch.nn's own, the name of the parameter says no more.
SETTLED = {"matrix", "conv", "norm", "bias", "head", "router"}


def of_transformers():
    """Every model class that the auto classes know and that its default configuration builds."""
    pytest.importorskip("transformers")
    from transformers.models.auto import configuration_auto, modeling_auto

    logging.disable(logging.ERROR)
    mappings = [
        mapping
        for name, mapping in sorted(vars(modeling_auto).items())
        if re.fullmatch(r"MODEL_(.*_)?MAPPING", name)
    ]
    for kind in configuration_auto.CONFIG_MAPPING_NAMES:
        classes = {}
        try:
            config = configuration_auto.CONFIG_MAPPING[kind]
            for mapping in mappings:
                if config in mapping.keys():  # noqa: SIM118  it is no dict
                    found = mapping[config]
                    classes.update(dict.fromkeys(found if isinstance(found, tuple) else [found]))
        except Exception:  # noqa: BLE001, S110  it needs a package that is not there
            pass
        for cls in classes:
            yield kind, lambda cls=cls, config=config: built_short(cls, config)
    logging.disable(logging.NOTSET)


def built_short(cls, config):
    """With two layers in each part if that works: kinds do not depend on the depth."""
    try:
        return cls(shortened(config()))
    except Exception:  # noqa: BLE001  lists as long as the depth
        return cls(config())


def shortened(config):
    """Two layers, in the parts too."""
    for name, value in list(vars(config).items()):
        if hasattr(value, "model_type"):
            shortened(value)
        elif name in zoo.SHORTENED and isinstance(value, int):
            setattr(config, name, 2)
    return config


def of_timm():
    """The first model of each family: of each file, and each first word of a name in it."""
    timm = pytest.importorskip("timm")
    families = {}
    for name in timm.list_models():
        family = re.match(r"[a-z]+", name)[0]
        families.setdefault((timm.model_entrypoint(name).__module__, family), name)
    for name in families.values():
        yield name, lambda name=name: timm.create_model(name)


def census(builders):
    """The architectures that build, and the text of their kinds of parameters."""
    built, failed, kinds = set(), set(), defaultdict(set)
    for kind, build in builders:
        try:
            with torch.device("meta"):
                model = build()
        except Exception:  # noqa: BLE001  no default, or a package is missing
            failed.add(kind)
            continue
        built.add(kind)
        plan = nnlr.resolve(model, nnlr.no_weight_decay(), lr=1, weight_decay=1)
        for param, row in zip(describe(model).params, plan.rows, strict=True):
            if param.role_basis != "type" or param.role not in SETTLED:
                verdict = "decays" if row.weight_decay else "exempt"
                kinds[param.role, verdict, short(param.name)].add(kind)
    lines = [f"{len(built)} architectures"]
    for role, verdict in sorted({key[:2] for key in kinds}):
        lines += ["", f"{role}: {verdict}"]
        those = [(name, count) for (*key, name), count in kinds.items() if key == [role, verdict]]
        lines += [f"  {name} {len(count)}" for name, count in sorted(those)]
    return built, failed - built, "\n".join(lines)


def short(name):
    """Its own name, and that of the module if it says nothing without; numbers are N."""
    parts = re.sub(r"\d+", "N", name).split(".")
    return ".".join(parts[-2:] if parts[-1] in {"weight", "bias", "N", "scale"} else parts[-1:])


def test_of_transformers(golden):
    """Over 600 architectures in over 1,400 classes; what does not build is counted."""
    built, failed, text = census(of_transformers())
    assert len(built) > 600
    assert len(failed) < 40
    golden("roles_of_transformers", text)


def test_of_timm(golden):
    """All families build."""
    built, failed, text = census(of_timm())
    assert len(built) > 180
    assert not failed
    golden("roles_of_timm", text)
