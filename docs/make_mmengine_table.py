"""Writes schemes/mmengine-configs.md: nnlr against the constructors on every mm configuration.

It builds the model of each configuration that mmpretrain 1.2.0, mmsegmentation 1.2.2 and
mmdet 3.3.0 ship, mostly on the meta device, gives its optim_wrapper to mmengine's own
build_optim_wrapper and to nnlr, and compares the rates of each parameter. Some models with their
rates go into tests/reference/mm_configs.json.gz, by which the tests check without the packages, and
the words of all names into words.txt beside the scheme.

Beside the environment of the tests it needs these packages, installed with --no-deps:

    mmpretrain==1.2.0 mmsegmentation==1.2.2 mmdet==3.3.0 mmcv-lite==2.2.0 einops mat4py
    terminaltables pycocotools shapely scipy tqdm prettytable opencv-python-headless ftfy regex
    addict yapf termcolor platformdirs matplotlib six

mmcv-lite has no compiled operators, which no constructor and no model calls before a forward pass:
stand-ins take their places, and those of tokenizers and of weights that would be downloaded.
From the root of the repository, an hour of one core:
``PYTHONPATH=.:src python docs/make_mmengine_table.py RESULTS.json``; with the results of an earlier
run in that file it writes the page only.
"""

import copy
import gzip
import importlib.machinery
import importlib.metadata
import json
import logging
import sys
import types
from collections import Counter, defaultdict
from pathlib import Path

import torch
from torch import nn

import nnlr
from docs import _markers
from nnlr.schemes._frameworks.mmengine.keys import words

PAGE = "schemes/mmengine-configs.md"

ROOT = Path(__file__).parent.parent

REFERENCE = ROOT / "tests" / "reference" / "mm_configs.json.gz"

WORDS = ROOT / "src" / "nnlr" / "schemes" / "_frameworks" / "mmengine" / "words.txt"

PACKAGES = {"mmpretrain": "mmpretrain", "mmseg": "mmsegmentation", "mmdet": "mmdet"}

# Models whose names, shapes and rates are kept; those of the short tests first.
SHORT = (
    "mae/benchmarks/vit-base-p16_8xb128-coslr-100e_in1k.py",
    "simmim/benchmarks/swin-base-w6_8xb256-coslr-100e_in1k-192px.py",
    "spark/benchmarks/convnextv2-tiny_8xb256-coslr-300e_in1k.py",
    "spark/benchmarks/resnet50_8xb256-coslr-300e_in1k.py",
    "beit/beit-base_upernet_8xb2-160k_ade20k-640x640.py",
    "convnext/convnext-tiny_upernet_8xb2-amp-160k_ade20k-512x512.py",
)
LONG = (
    "convnext/mask-rcnn_convnext-t-p4-w7_fpn_amp-ms-crop-3x_coco.py",
    "mixmim/benchmarks/mixmim-base_8xb128-coslr-100e_in1k.py",
    "beit/benchmarks/beit-base-p16_8xb128-coslr-100e_in1k.py",
    "mae/mae-base_upernet_8xb2-amp-160k_ade20k-512x512.py",
    "convnext/convnext-base_upernet_8xb2-amp-160k_ade20k-640x640.py",
    "rtmdet/rtmdet_l_convnext_b_4xb32-100e_coco.py",
    "convnext/cascade-mask-rcnn_convnext-s-p4-w7_fpn_4conv1fc-giou_amp-ms-crop-3x_coco.py",
    "mask2former/mask2former_swin-t_8xb2-90k_cityscapes-512x1024.py",
    "detr/detr_r50_8xb2-150e_coco.py",
    "deformable_detr/deformable-detr_r50_16xb2-50e_coco.py",
    "dino/dino-4scale_r50_8xb2-12e_coco.py",
    "twins/twins-svt-small_8xb128_in1k.py",
    "swin_transformer/swin-tiny_16xb64_in1k.py",
    "levit/levit-128_8xb256_in1k.py",
    "rtmdet/rtmdet_tiny_8xb32-300e_coco.py",
    "ddq/ddq-detr-4scale_r50_8xb2-12e_coco.py",
    "segformer/segformer_mit-b0_8xb2-160k_ade20k-512x512.py",
)


def stand_ins():
    """Modules that mm packages import and that no constructor of optimizers needs."""

    def module(name, **values):
        made = types.ModuleType(name)
        made.__spec__ = importlib.machinery.ModuleSpec(name, None)
        vars(made).update(values)
        sys.modules[name] = made
        return made

    class Operators(types.ModuleType):
        def __getattr__(self, name):
            if name.startswith("__"):
                raise AttributeError(name)
            return lambda *_, **__: None

    import mmcv

    mmcv.__version__ = "2.1.0"  # the newest that mmdet and mmseg take
    operators = Operators("mmcv._ext")
    # With a loader, by which mmengine tells mmcv from mmcv-lite.
    operators.__spec__ = importlib.machinery.ModuleSpec("mmcv._ext", object())
    sys.modules["mmcv._ext"] = operators
    sys.modules["importlib_metadata"] = importlib.metadata
    module("modelindex")
    module("modelindex.load_model_index", load=lambda *_: None)
    module("modelindex.models")
    module("modelindex.models.Model", Model=object)
    module("lap")
    module("fairscale")
    module("fairscale.nn")
    module("fairscale.nn.checkpoint", checkpoint_wrapper=lambda part, *_, **__: part)
    _older_transformers()


def _older_transformers():
    """Names that have moved since the packages were written, and no downloads."""
    import transformers
    from transformers import generation, modeling_utils, pytorch_utils, utils

    def nothing(*_, **__):
        return lambda function: function

    for name in ("apply_chunking_to_forward", "find_pruneable_heads_and_indices"):
        setattr(modeling_utils, name, getattr(pytorch_utils, name, nothing))
    modeling_utils.prune_linear_layer = pytorch_utils.prune_linear_layer
    modeling_utils.GenerationConfig = generation.GenerationConfig
    modeling_utils.GenerationMixin = generation.GenerationMixin
    modeling_utils.PretrainedConfig = transformers.PreTrainedConfig
    for name in ("add_start_docstrings_to_model_forward", "replace_return_docstrings"):
        setattr(utils, name, nothing)
    utils.add_code_sample_docstrings = utils.add_start_docstrings = nothing

    class Tokenizer:
        def __getattr__(self, name):
            if name.startswith("__"):
                raise AttributeError(name)
            return lambda *_, **__: [0] * 8

        def __len__(self):
            return 30522

    config, model = transformers.BertConfig, transformers.BertModel
    config.from_pretrained = classmethod(lambda cls, *_, **__: cls())
    model.from_pretrained = classmethod(
        lambda cls, *_, **kw: cls(kw.get("config") or config(), kw.get("add_pooling_layer", True))
    )
    for name in ("AutoTokenizer", "BertTokenizer", "BertTokenizerFast"):
        getattr(transformers, name).from_pretrained = classmethod(lambda *_, **__: Tokenizer())


def configurations():
    """Package, path, optim_wrapper and model of each configuration, and those that do not load."""
    from mmengine.config import Config

    loaded, failed = [], []
    for package in PACKAGES:
        root = Path(__import__(package).__file__).parent / ".mim" / "configs"
        for path in sorted(root.rglob("*.py")):
            name = path.relative_to(root).as_posix()
            try:
                config = Config.fromfile(path, import_custom_modules=False).to_dict()
            except Exception as error:  # noqa: BLE001 - each is named in the page
                failed.append((package, name, f"{type(error).__name__}: {error}"))
                continue
            loaded.append((package, name, config.get("optim_wrapper"), config.get("model")))
    return loaded, failed


def without_downloads(config):
    """A model's configuration without weights, and without a frozen network that is its target."""
    if isinstance(config, dict):
        dropped = {"init_cfg", "pretrained", "target_generator"}
        return {k: without_downloads(v) for k, v in config.items() if k not in dropped}
    if isinstance(config, list | tuple):
        return type(config)(map(without_downloads, config))
    return config


def built(package, config):
    """The model, and ``None``; or ``None``, and why not."""
    from mmengine import ConfigDict
    from mmengine.registry import DefaultScope

    registry = sys.modules[f"{package}.registry"].MODELS
    DefaultScope.get_instance(f"{package}-{id(config)}", scope_name=package)
    why = None
    for device in ("meta", "cpu"):
        try:
            with torch.device(device):
                return registry.build(ConfigDict(without_downloads(config))), None
        except Exception as error:  # noqa: BLE001 - it goes into the page
            why = f"{type(error).__name__}: {error}".splitlines()[0]
    return None, why


def of_constructor(model, optim_wrapper):
    """The rates of each trained parameter, by mmengine."""
    from mmengine import ConfigDict
    from mmengine.optim import build_optim_wrapper

    whole = ConfigDict(copy.deepcopy(optim_wrapper))
    for key in ("loss_scale", "dtype", "use_fsdp"):  # of wrappers that need a GPU
        whole.pop(key, None)
    whole["type"] = "OptimWrapper"
    of = {
        id(tensor): (group["lr"], group["weight_decay"])
        for group in build_optim_wrapper(model, whole).optimizer.param_groups
        for tensor in group["params"]
    }
    return {name: of[id(p)] for name, p in model.named_parameters() if p.requires_grad}


def of_nnlr(model, optim_wrapper):
    """The same by nnlr."""
    optimizer = optim_wrapper["optimizer"]
    default = 0.01 if optimizer["type"] == "AdamW" else 0  # where the configuration has none
    plan = nnlr.resolve(
        model,
        nnlr.mmengine(optim_wrapper),
        lr=optimizer["lr"],
        weight_decay=optimizer.get("weight_decay", default),
    )
    rates = {n: (row.lr, row.weight_decay) for row in plan for n in (row.name, *row.aliases)}
    return {name: rates[name] for name, p in model.named_parameters() if p.requires_grad}


def outcome(model, optim_wrapper):
    """``"equal"``, or what is not."""
    try:
        expected = of_constructor(model, optim_wrapper)
    except Exception as error:  # noqa: BLE001 - it goes into the page
        return f"fails there: {type(error).__name__}: {error}".splitlines()[0]
    try:
        actual = of_nnlr(model, optim_wrapper)
    except nnlr.NnlrError as error:
        return f"refused: {error}".splitlines()[0]
    unequal = [name for name in expected if not close(actual[name], expected[name])]
    return f"unequal: {unequal[:3]} of {len(unequal)}" if unequal else "equal"


def close(actual, expected):
    """Whether two pairs of rates agree to 1e-12."""
    pairs = zip(actual, expected, strict=True)
    return all(abs(a - b) <= 1e-12 * max(abs(a), abs(b)) for a, b in pairs)


def as_text(config):
    """A key for equal configurations."""
    return json.dumps(config, default=str, sort_keys=True)


def compare(loaded):
    """Package, path, family and outcome of each configuration; and models to keep."""
    for name in PACKAGES:
        __import__(f"{name}.models")
        __import__(f"{name}.engine")
    logging.disable(logging.CRITICAL)
    by_model = defaultdict(list)
    for package, path, optim_wrapper, config in loaded:
        if optim_wrapper and config:
            by_model[package, as_text(config)].append((path, optim_wrapper, config))
    results, kept, segments = [], [], set()
    for number, ((package, _), several) in enumerate(by_model.items()):
        model, why = built(package, several[0][2])
        outcomes = {}
        if model is not None:
            segments.update(".".join(dict(model.named_parameters())).split("."))
        for path, optim_wrapper, _ in several:
            key = as_text(optim_wrapper)
            if model is not None and key not in outcomes:
                outcomes[key] = outcome(model, optim_wrapper)
            result = outcomes.get(key) or f"not built: {why}"
            results.append([package, path, family(package, optim_wrapper), result])
            if path in SHORT + LONG and model is not None:
                kept.append(saved(f"{package}/{path}", path in SHORT, model, optim_wrapper))
        if number % 50 == 0:
            print(number, len(by_model), Counter(r[-1].partition(":")[0] for r in results))
    keep_words(loaded, segments)
    return results, kept


def keep_words(loaded, segments):
    """Write the words of names of parameters, and of those custom keys that name none."""
    for _, _, optim_wrapper, _ in loaded:
        custom_keys = ((optim_wrapper or {}).get("paramwise_cfg") or {}).get("custom_keys") or {}
        segments.update(".".join(custom_keys).split("."))
    lines = []
    for segment in sorted(set(map(words, segments)) - {""}, key=lambda s: (-len(s), s)):
        if not any(f"_{segment}_" in line for line in lines):
            lines.append(f"_{segment}_")
    WORDS.write_text("\n".join(sorted(lines)) + "\n", encoding="utf-8")


KINDS = {"BatchNorm2d", "LayerNorm", "GroupNorm", "depthwise", "Conv2d"}


def saved(path, short, model, optim_wrapper):
    """Names, shapes, kinds of modules and expected rates of a model."""
    expected = of_constructor(model, optim_wrapper)
    pairs = sorted(set(expected.values()))
    classes = []
    for name, module in model.named_modules():
        kind = type(module).__name__
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            kind = "BatchNorm2d"
        elif isinstance(module, nn.LayerNorm):
            kind = "LayerNorm"
        elif isinstance(module, nn.Conv2d):
            kind = "depthwise" if module.in_channels == module.groups else "Conv2d"
        if kind in KINDS or name in {"", "backbone"}:
            classes.append([name, kind])
    tensors = dict(model.named_parameters())
    return {
        "config": path,
        "short": short,
        "classes": classes,
        "shapes": [[name, list(tensor.shape)] for name, tensor in tensors.items()],
        "frozen": [name for name, tensor in tensors.items() if not tensor.requires_grad],
        "runs": [[as_text(optim_wrapper), [pairs.index(r) for r in expected.values()], pairs]],
    }


def keep(loaded, kept):
    """Write the file of the tests."""
    wrappers = sorted(
        {as_text(optim_wrapper) for _, _, optim_wrapper, _ in loaded if optim_wrapper}
    )
    for entry in kept:
        entry["runs"] = [[wrappers.index(text), *rest] for text, *rest in entry["runs"]]
    data = {"models": kept, "wrappers": list(map(json.loads, wrappers))}
    REFERENCE.write_bytes(gzip.compress(json.dumps(data).encode(), mtime=0))
    print(f"{len(kept)} models, {len(wrappers)} wrappers, {REFERENCE.stat().st_size:,} bytes")


def family(package, optim_wrapper):
    """What decides the rates: the package, the constructor, and the settings by their names."""
    inner = optim_wrapper.get("paramwise_cfg") or {}
    settings = ", ".join(f"`{key}`" for key in sorted(inner)) or "nothing"
    constructor = optim_wrapper.get("constructor") or "default"
    return [PACKAGES[package], constructor.removesuffix("Constructor"), settings]


def page(results, failed):
    """The table of families, and why some are not compared."""
    families = defaultdict(Counter)
    reasons = defaultdict(list)
    for package, path, of, result in results:
        outcome = result.partition(":")[0]
        families[tuple(of)][outcome] += 1
        if outcome != "equal":
            reasons[result].append(f"{package}/{path}")
    for package, path, why in failed:
        reasons[f"does not load: {why.partition(':')[0]}"].append(f"{package}/{path}")
    counts = ["configurations", "equal", "unequal", "not built"]
    text = row([*counts, "package", "constructor", "`paramwise_cfg` sets"])
    text += row(["--:"] * 4 + ["---"] * 3)
    for of, outcomes in sorted(families.items(), key=lambda item: -item[1].total()):
        text += row([*numbers(outcomes), *of])
    text += row([*numbers(sum(families.values(), Counter())), "all", "", ""])
    text += "\nNot compared, and why:\n\n" + row(["configurations", "why", "such as"])
    text += row(["--:", "---", "---"])
    for why, paths in sorted(reasons.items(), key=lambda item: -len(item[1])):
        plain = why.replace("|", "/").replace("<", "").replace(">", "")[:110]
        text += row([len(paths), plain, f"`{paths[0]}`"])
    return text


def numbers(outcomes):
    """How many configurations there are, are equal, are not, and were not built."""
    total, equal, unequal = outcomes.total(), outcomes["equal"], outcomes["unequal"]
    return total, equal, unequal, total - equal - unequal


def row(cells):
    """One line of a Markdown table."""
    return f"| {' | '.join(map(str, cells))} |\n"


if __name__ == "__main__":
    file = Path(sys.argv[1])
    if not file.exists():
        stand_ins()
        loaded, failed = configurations()
        results, kept = compare(loaded)
        keep(loaded, kept)
        file.write_text(json.dumps([results, failed]), encoding="utf-8")
    _markers.write(PAGE, "configurations", page(*json.loads(file.read_text(encoding="utf-8"))))
