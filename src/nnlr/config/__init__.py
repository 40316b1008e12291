"""Schemes and whole recipes as plain data: YAML, JSON, or the dicts of a program.

A scheme is written as its call: its name, and its arguments by their names. A list is a
product.

    scheme:
      - layer_decay: 0.75
      - no_weight_decay
      - rule: {select: "head.*", lr_mult: 10}

Loading runs no code that a file names, unless the caller allows that name.

Data flow: file -> plain data -> calls of nnlr's own functions -> scheme or recipe, and back.
"""

from nnlr.config._dump import dump as dump
from nnlr.config._from_finetuning_scheduler import (
    from_finetuning_scheduler as from_finetuning_scheduler,
)
from nnlr.config._from_mmengine import from_mmengine as from_mmengine
from nnlr.config._load import load as load
from nnlr.config._published import PublishedRecipe as PublishedRecipe
from nnlr.config._published import recipe_names as recipe_names
from nnlr.config._recipe import Recipe as Recipe
from nnlr.config._schema import schema as schema
from nnlr.config._scheme import scheme as scheme
from nnlr.schemes._width.base import shapes as shapes
