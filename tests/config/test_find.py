"""`nnlr.find_recipes`: what is proposed for a model, in which order, and what is not."""

import pytest
import timm
import torch
from torch import nn

import nnlr
from tests.config import recipe_models
from tests.config.recipe_models import SMALL, FTTransformer, Gaussians, S4Model, Tower, small

# What comes first, by architecture.
FIRST = {
    "lora": "lora/",
    "mae": "mae/vit-l/pretrain",
    "upernet-beit": "upernet/",
    "clip-vision": "ft-clip/",
    "dinov2": "dinov2/",
    "gpt2": ("muon/", "nanogpt/"),
    "olmo2": ("muon/", "olmo2/"),
    "llama": ("muon/", "tinyllama/"),
    "pythia": ("muon/", "pythia/"),
    "nanochat": ("muon/", "nanochat/", "nanogpt/"),
    "bert": "bert/",
    "wav2vec2": "wav2vec2/",
    "vit": "big_vision/",
    "llava": "llava-1.5/7b/",
}


def names(model):
    """The names of what is proposed."""
    return [recipe.name for recipe in nnlr.find_recipes(model)]


@pytest.mark.parametrize(
    ("model", "first"),
    [(Gaussians, "gsplat/3dgs"), (S4Model, "s4/cifar"), (FTTransformer, "ft-transformer/any")],
)
def test_a_model_of_its_own_kind(model, first):
    """By classes or names; the reason says which."""
    [recipe] = nnlr.find_recipes(model())
    assert first == recipe.name
    assert recipe.reason.startswith(("a scene of", "an S4", "an FT-Transformer"))
    assert f"proposed as   {recipe.reason}" in str(recipe)


@pytest.mark.full
@pytest.mark.parametrize("architecture", SMALL)
def test_every_architecture_is_recognised(architecture):
    """Its own recipes come before those of its relatives; 10 seconds."""
    recipes = nnlr.find_recipes(small(architecture))
    assert recipes
    if architecture != "dinov2":  # timm's class is that of any vision transformer
        first = FIRST.get(architecture)
        assert first is None or recipes[0].name.startswith(first), recipes
        assert architecture in recipes[0].models


def test_the_size_of_the_model_decides_among_its_own():
    """A ViT-B gets what was published for one before what was for a ViT-S."""
    with torch.device("meta"):
        base = timm.create_model("vit_base_patch16_224")
        tiny = timm.create_model("vit_tiny_patch16_224", depth=2)
    assert names(base)[0] == "mae/vit-b/finetune"
    assert names(tiny)[0] == "big_vision/vit-s/train"


def test_wrappers_and_prefixes_do_not_matter():
    """A network inside of a module of the user's, and names without any module."""
    with torch.device("meta"):
        model = timm.create_model("vit_tiny_patch16_224", depth=2)

    class Wrapped(nn.Module):
        def __init__(self):
            super().__init__()
            self.network = model

    plain = names(model)
    assert plain == names(Wrapped())
    bare = names(dict(model.named_parameters()))
    assert set(bare) <= set(plain)
    assert "mae/vit-b/finetune" in bare
    assert "vitdet/vit-b/coco" == names(Tower())[0]


def test_what_cannot_be_resolved_is_not_proposed():
    """A vision transformer whose layers have other names gets recipes without layer decay only."""

    class VisionTransformer(nn.Module):
        def __init__(self):
            super().__init__()
            self.attention = nn.MultiheadAttention(2, 1)

    recipes = nnlr.find_recipes(VisionTransformer())
    assert recipes
    assert not [recipe for recipe in recipes if "layer_decay" in repr(recipe.scheme)]


def named(name, part):
    """A model of a class of this name, around a part."""
    return type(name, (nn.Sequential,), {})(part)


def hf(name, **settings):
    """A small model of transformers."""
    return recipe_models.of(name, hidden_size=48, num_hidden_layers=2, **settings)


OTHERS = {
    "a class that is only called so": lambda: named("ViTModule", nn.Linear(2, 2)),
    "no BERT": lambda: named("BertSum", nn.LSTM(2, 2)),
    "two towers": lambda: nn.ModuleDict(
        {
            "image": timm.create_model("vit_tiny_patch16_224", depth=2),
            "text": nn.TransformerDecoder(nn.TransformerDecoderLayer(192, 3), 2),
        }
    ),
    "two towers of transformers": lambda: nn.ModuleDict(
        {"image_model": hf("ViTModel"), "text_model": hf("BertModel", vocab_size=64)}
    ),
    "a detector on a Swin": lambda: nn.ModuleDict(
        {
            "backbone": timm.create_model("swin_tiny_patch4_window7_224", depths=(1, 1, 1, 1)),
            "head": nn.Linear(1000, 5000),
        }
    ),
    "another transformer by the same names": lambda: timm.create_model(
        "cait_xxs24_224", depth=2, img_size=32
    ),
    "a hierarchical one": lambda: timm.create_model("hiera_tiny_224", stages=(1, 1, 1, 1)),
}


@pytest.mark.parametrize("model", OTHERS)
def test_no_recipe_is_better_than_a_wrong_one(model):
    """What shares a name, or a part, with an architecture is not of that architecture."""
    with torch.device("meta"):
        assert names(OTHERS[model]()) == []


def test_nothing_fits_is_an_empty_list():
    """No guess for a model of no known architecture."""
    assert [] == nnlr.find_recipes(nn.Sequential(nn.Linear(2, 2), nn.ReLU(), nn.Linear(2, 1)))
    with pytest.raises(nnlr.NnlrError, match="model"):
        nnlr.find_recipes(3)
