# ruff: noqa: E501
"""Writes recipes.md from the published recipes of the package, which the tests resolve.

Run it from the root of the repository: ``PYTHONPATH=.:src python docs/make_recipes.py``.
"""

import re
from pathlib import Path

import nnlr
from nnlr.config import dump, recipe_names
from nnlr.config._published import FIELDS, entries

PAGE = Path(__file__).parent / "recipes.md"

TITLES = {
    "vision": "Images and videos",
    "detection": "Detection and segmentation",
    "text": "Text encoders",
    "speech": "Speech",
    "multimodal": "Images with text",
    "adapters": "Adapters",
    "language": "Pre-training of language models",
    "fields": "Scenes, sequences, tables",
}

HEAD = """# Recipes: published settings

Which rate, which layer decay, which warm-up, and who says so? {count} settings of papers and
repositories as configurations: base rate and its batch rule, weight decay, scheme, algorithm, schedule,
each with its source, and with what it leaves out.

```python
>>> import nnlr, timm, torch
>>> recipe = nnlr.recipe("mae/vit-b/finetune", batch_size=256)
>>> print(recipe)
mae/vit-b/finetune: ViT-B after MAE, ImageNet-1k
  lr            0.0005 = 0.0005 x 256/256
  batch         256 images, rate by batch
  weight decay  0.05
  scheme        layer_decay(0.65, indexer='vit') * no_weight_decay('timm_layer_decay')
  algorithms    AdamW(betas=[0.9, 0.999])
  schedule      WarmupDecay(warmup=0.05, floor=0.0005)
  length        100 epochs, 5 of them warm-up, down to 1e-6
  source        facebookresearch/mae, FINETUNE.md: Fine-tuning;
                main_finetune.py: defaults
  not covered   drop path 0.1, mixup 0.8, cutmix 1.0, random erasing 0.25, label
                smoothing 0.1
  note          The paper has 1e-3 (per 256) and 0.75 (facebookresearch/mae#7):
                ...
>>> model = timm.create_model("vit_tiny_patch16_224", num_classes=10)
>>> optimizer = recipe.optimizer(model)
>>> scheduler = recipe.scheduler(optimizer, total_steps=1000)

```

**The rate by the batch.** A recipe has a rate at a batch. Where it publishes a rule, `batch_size=` scales by it
(`lr x batch / 256`, or by the root); where it publishes none, another batch is refused until you say which rule
you want: `batch_rule="linear"` or `"sqrt"`.

**Lengths are shares.** Published schedules say epochs; here they are shares of the run
([`nnlr.WarmupDecay`](schedule.md)), and the run says `total_steps`. A warm-up that is published in steps stays one in
steps. Both can be overruled: `recipe.scheduler(optimizer, total_steps=1000, warmup=0.1)`, or with `warmup_steps=100`;
one of them at a time, so set that of the recipe to `None` where it is the other.

**Floors are shares too.** A source that ends at 1e-6 does so at the published batch; at another batch the end goes
with the rate, and under layer decay it is the same share in every layer, as in the code of MAE and BEiT.
Sources that set the rate once each epoch are followed step by step here.

**A recipe is a start.** `nnlr.config.dump(recipe)` is its [configuration](configuration.md), to be changed;
`dataclasses.replace(recipe, lr=1e-4)` changes a part. Numbers are facts of their sources, for the data and
models there; what was tuned on ImageNet is a guess for yours.

## Which recipe fits my model?

`find_recipes` recognises the architecture by classes and names, whatever library the model comes from, puts
those first that were published for its size, and says why. Each has been resolved on the model. Which
pre-training your weights have had, it cannot see.

```python
>>> for recipe in nnlr.find_recipes(model)[:2]:
...     print(recipe.name, "|", recipe.reason)
big_vision/vit-s/train | a vision transformer (class VisionTransformer); 5.53 M parameters, published for 22.1 M
mae/vit-b/finetune | a vision transformer (class VisionTransformer); 5.53 M parameters, published for 86.6 M

```

On the [command line](command-line.md), a recipe can stand where a configuration can:

```console
$ nnlr recipes
$ nnlr recipes --for timm:vit_base_patch16_224
$ nnlr recipes mae/vit-b/finetune --batch-size 256 --out mine.yaml
$ nnlr show timm:vit_base_patch16_224 --config recipe:mae/vit-b/finetune
```

## Which layer decay?

The higher the decay, the more the lower layers move. It goes by size, by what the weights have seen, and by
the rate, so read a row as a whole; the rates are those at the batch.

{layer_decays}
"""

COLUMNS = ("recipe", "rate", "batch", "weight decay", "layer decay", "schedule")


RECIPES = {name: nnlr.recipe(name) for name in recipe_names()}


def members(recipe):
    """The schemes of a recipe as data, each with its name."""
    data = dump(recipe).get("scheme", [])
    named = {}
    for one in data if isinstance(data, list) else [data]:
        if isinstance(one, str):
            named[one] = None
        else:
            named.update(one)
    return named


def layer_decay(recipe):
    """The layer decay, or nothing."""
    value = members(recipe).get("layer_decay", "")
    return value["decay"] if isinstance(value, dict) else value


def rates(value):
    """A rate, or one for each algorithm."""
    if isinstance(value, dict):
        return ", ".join(f"{name} {rate:.4g}" for name, rate in value.items())
    return f"{value:.4g}"


def rate(name):
    """The published rate, with its rule."""
    recipe = RECIPES[name]
    batch = entries()[name].get("batch", {})
    if not recipe.batch_rule:
        return rates(recipe.lr)
    published = rates(entries()[name]["lr"])
    root = "√" if recipe.batch_rule == "sqrt" else ""
    return f"{published} · {root}(batch/{batch['per']}) = {rates(recipe.lr)}"


def batch(recipe):
    """What the batch is."""
    return "open" if recipe.batch_size is None else f"{recipe.batch_size} {recipe.batch_of}"


def schedule(recipe):
    """The course of the rate in words."""
    data = dump(recipe).get("schedule")
    if data is None:
        return "constant"
    if "class" not in data:
        return "; ".join(f"{key}: {course(value)}" for key, value in data.items())
    return course(data)


def course(data):
    """One course in words."""
    if data["class"] != "WarmupDecay":
        return data["class"]
    words = []
    if steps := data.get("warmup_steps"):
        words.append(f"{steps} steps up")
    elif share := data.get("warmup"):
        words.append(f"{100 * share:.3g} % up")
    shape = data.get("shape", "cosine")
    if shape == "steps":
        at = ", ".join(f"{100 * each:.3g} %" for each in data["milestones"])
        words.append(f"x {data.get('gamma', 0.1):g} at {at}")
    elif shape == "constant":
        words.append("constant")
    else:
        late = f" over the last {100 * data['cooldown']:.3g} %" if "cooldown" in data else ""
        words.append(f"{shape} to {data.get('floor', 0):.2g}{late}")
    return ", ".join(words)


def table(head, rows):
    """A table of Markdown."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(map(str, line))} |" for line in lines)


def layer_decays():
    """All recipes with a layer decay."""
    rows = [
        (one.title, layer_decay(one), rates(one.lr), batch(one), f"`{one.name}`")
        for one in RECIPES.values()
        if layer_decay(one)
    ]
    return table(("for", "layer decay", "rate", "batch", "recipe"), rows)


def linked(source):
    """A source, with links to its repository and papers."""
    source = re.sub(r"^([\w.-]+/[\w.-]+)(?=[ ,])", r"[\1](https://github.com/\1)", source)
    return re.sub(r"arXiv (\d{4}\.\d{5})", r"[arXiv \1](https://arxiv.org/abs/\1)", source)


def details(recipe):
    """What no column has room for."""
    parts = [f"**`{recipe.name}`** {recipe.title}. {recipe.length[0].upper()}{recipe.length[1:]}."]
    if recipe.scheme is not None:
        parts.append(f"Scheme: `{recipe.scheme!r}`.")
    parts.append(f"Not covered: {recipe.beyond}.")
    if recipe.note:
        parts.append(recipe.note)
    return "* " + " ".join([*parts, f"*{'; '.join(map(linked, recipe.source))}*"])


def section(field):
    """One field: its table, and the details below it."""
    recipes = [one for one in RECIPES.values() if one.field == field]
    rows = [
        (
            *(f"`{one.name}`", rate(one.name), batch(one), rates(one.weight_decay)),
            *(layer_decay(one), schedule(one)),
        )
        for one in recipes
    ]
    return "\n\n".join(
        [f"## {TITLES[field]}", table(COLUMNS, rows), "\n".join(map(details, recipes))]
    )


def text():
    """The whole text of the page."""
    head = HEAD.format(count=len(RECIPES), layer_decays=layer_decays())
    return "\n\n".join([head.rstrip(), *map(section, FIELDS)]) + "\n"


if __name__ == "__main__":
    PAGE.write_text(text(), encoding="utf-8")
