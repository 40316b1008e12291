"""Writes the tables of schemes/no_weight_decay.md: presets on the same ten models.

Run it from the root of the repository: ``PYTHONPATH=.:src python docs/make_weight_decay_table.py``.
"""

import textwrap
from collections import Counter

import torch

from docs import _markers
from nnlr._model.describe import describe
from nnlr._model.roles import ROLES
from nnlr.schemes._no_weight_decay import no_weight_decay
from nnlr.schemes._no_weight_decay_presets import DECAYED_ROLES, EXEMPT_ROLES, PRESETS

PAGE = "schemes/no_weight_decay.md"

TIMM = {
    "vit": "vit_base_patch16_224",
    "convnext": "convnext_tiny",
    "swin": "swin_tiny_patch4_window7_224",
    "resnet": "resnet50",
}
TRANSFORMERS = ("bert", "gpt2", "t5", "llama", "mamba", "clip")


def models():
    """The ten models on the meta device, described, by short names."""
    import timm
    import transformers

    found = {}
    with torch.device("meta"):
        for short, name in TIMM.items():
            found[short] = describe(timm.create_model(name))
        for kind in TRANSFORMERS:
            config = transformers.CONFIG_MAPPING[kind]()
            found[kind] = describe(transformers.AutoModel.from_config(config))
    return found


def exempt(info, preset):
    """Positions of the parameters that a preset exempts."""
    factors = no_weight_decay(preset).factors(info)
    return {index for index, factor in enumerate(factors) if factor.wd_mult == 0}


def row(cells):
    """One line of a Markdown table."""
    return f"| {' | '.join(map(str, cells))} |\n"


def counts(found, free):
    """How many parameters each preset exempts on each model."""
    text = row(["preset", *found]) + row(["---", *("--:" for _ in found)])
    text += row(["*all parameters*", *(len(info.params) for info in found.values())])
    for preset in PRESETS:
        text += row([f"`{preset}`", *(len(free[preset, short]) for short in found)])
    return text


def differences(found, free):
    """By which kinds of parameters each preset differs from ours, and on which models."""
    text = ""
    for preset in PRESETS:
        if preset == "nnlr":
            continue
        more, less = {}, {}
        for short, info in found.items():
            ours, theirs = free["nnlr", short], free[preset, short]
            for into, indices in ((more, theirs - ours), (less, ours - theirs)):
                for role, count in Counter(info.params[i].role for i in indices).items():
                    into.setdefault(role, {})[short] = count
        said = [f"decays {_kinds(less)}"] * bool(less)
        said += [f"exempts {_kinds(more)}"] * bool(more)
        line = f"- `{preset}` {'; '.join(said) or 'agrees on all ten'}."
        text += textwrap.fill(line, 96, subsequent_indent="  ", break_on_hyphens=False)
        text += "\n"
    return text


def _kinds(found):
    return ", ".join(
        f"**{role}** ({', '.join(f'{short} {n}' for short, n in found[role].items())})"
        for role in ROLES
        if role in found
    )


def verdicts(heading, roles):
    """Roles of one verdict, and why."""
    text = row([heading, "because"]) + row(["---"] * 2)
    for role, why in roles.items():
        text += row([f"`{role}`", why])
    return text


def sources():
    """Every preset and where its original is."""
    text = row(["preset", "original"]) + row(["---"] * 2)
    for name, preset in PRESETS.items():
        text += row([f"`{name}`", preset.source.replace("*", "\\*")])
    return text


def parts():
    """Every generated part of the page, by the name of its markers."""
    found = models()
    free = {(p, short): exempt(info, p) for p in PRESETS for short, info in found.items()}
    return {
        "exempt roles": verdicts("exempt", EXEMPT_ROLES),
        "decayed roles": verdicts("decays", DECAYED_ROLES),
        "presets": sources(),
        "exempt parameters": counts(found, free),
        "differences": differences(found, free),
    }


if __name__ == "__main__":
    for part, text in parts().items():
        _markers.write(PAGE, part, text)
