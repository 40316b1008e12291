"""MODEL on the command line: code, models of libraries, and what is wrong with it."""

import sys
from types import SimpleNamespace

import pytest
import torch
from torch import nn

import nnlr
from nnlr.cli import _libraries, _model
from nnlr.errors import NnlrError


def rows(command, *arguments):
    """The names that a plan has."""
    status, output, errors = command("show", *arguments, "--format", "csv")
    assert 0 == status, errors
    return [line.partition(",")[0] for line in output.splitlines()[1:]]


@pytest.mark.parametrize(
    ("arguments", "names"),
    [
        (("makers:make_model",), ["0.weight", "0.bias", "1.weight", "1.bias"]),
        (("makers.py:make_model", "-a", "depth=1"), ["0.weight", "0.bias"]),
        (("./makers.py:made",), ["weight", "bias"]),
        (("makers:Net",), ["fc.weight", "fc.bias"]),
        (("makers:needs", "-a", "inputs=3"), ["weight", "bias"]),
        (("torch.nn:Bilinear", *("-a", "in1_features=2", "-a", "in2_features=2"),
          "-a", "out_features=1"), ["weight", "bias"]),
    ],
    ids=lambda value: value[0] if isinstance(value, tuple) else None,
)  # fmt: skip
def test_what_makes_a_model(nnlr_command, models, arguments, names):
    """A function or a class of a module or a file of the current folder; or the model itself."""
    assert names == rows(nnlr_command, *arguments)


def test_models_are_built_on_the_meta_device(models):
    """No memory is taken for weights, and no time to fill them."""
    model = _model.load("makers:make_model", {}).model
    assert {"meta"} == {parameter.device.type for parameter in model.parameters()}


def test_it_says_where_the_meta_device_does_not_work(nnlr_command, models):
    """The model is built on the CPU, and the note says why, with the line."""
    status, output, errors = nnlr_command("show", "makers:on_cpu")
    assert 0 == status
    assert "note: built on the CPU; on the meta device it raises RuntimeError" in errors
    assert "makers.py, line" in errors
    assert output.startswith("Linear: 2 parameters")


def test_what_a_program_prints_is_not_in_the_result(nnlr_command, models):
    """It goes to the error stream, so that JSON stays JSON."""
    _, output, errors = nnlr_command("show", "makers:make_model", "-f", "json")
    assert nnlr.Plan.from_json(output).label == "Sequential"
    assert "made" in errors


@pytest.mark.parametrize(
    ("model", "message"),
    [
        ("makers:mak_model", "makers has no 'mak_model'. Nearest: 'make_model'"),
        ("makers:x", "makers has no 'x'. It has: make_model, "),
        ("makers:Net.y", "makers:Net has no 'y'."),
        ("makers:number.y", "makers:number has no 'y'."),
        ("maker:make_model", "There is no module 'maker'. Nearest: 'makers'"),
        ("torch.nm:Linear", "There is no module 'torch.nm'."),
        ("tim:resnet18", "Nearest: 'timm'"),
        ("maker.py:make_model", "There is no file 'maker.py'. Nearest: 'makers.py'"),
        ("lacks:x", "'lacks' needs the module 'nowhere_at_all', which is not installed."),
        ("fails:x", "'fails' cannot be imported: ZeroDivisionError: division by zero (fails.py"),
        ("exits:x", "'exits' cannot be imported: SystemExit: 1 (exits.py, line 2)"),
        ("silent:x", "'silent' cannot be imported: ValueError: no message (silent.py, line 1)"),
        ("makers:number", "'makers:number' is an int, neither a model nor a function"),
        ("makers:pair", "'makers:pair' gave a tuple, not a torch.nn.Module."),
        ("makers:broken", "makers:broken cannot be built: ValueError: no weights (makers.py, "),
        ("makers:leaves", "makers:leaves cannot be built: SystemExit: 3 (makers.py, "),
        ("makers:empty", "makers:empty has no parameters"),
        ("makers:needs", "makers:needs needs 1 argument: inputs.\n  Fix: --arg inputs=VALUE"),
        ("makers.py", "'makers.py' is a program: say what in it makes the model, makers.py:mak"),
        ("makers.pt", "There is no file 'makers.pt'. Nearest: 'makers.py'"),
        ("zzz.pt", "There is no file 'zzz.pt'."),
        ("resnet18", "Of a library: timm:resnet18, torchvision:resnet18, transformers:resnet18."),
        ("google-bert/large", "Of a library: transformers:google-bert/large."),
        ("timm:", "'timm:' names no model."),
        (":x", "':x' names no model."),
        ("", "'' names no model."),
    ],
)
def test_what_is_wrong_with_a_model(nnlr_command, models, model, message):
    """Exit status 2, what is wrong, the nearest name, and no traceback."""
    (models / "lacks.py").write_text("import nowhere_at_all\n", encoding="utf-8")
    (models / "fails.py").write_text("1 / 0\n", encoding="utf-8")
    (models / "exits.py").write_text("import sys\nsys.exit(1)\n", encoding="utf-8")
    (models / "silent.py").write_text("raise ValueError\n", encoding="utf-8")
    status, output, errors = nnlr_command("show", model)
    assert (2, "") == (status, output)
    assert message in errors
    assert "Traceback" not in errors


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("makers:make_model", "-a", "dept=3"), "takes no argument 'dept'. Nearest: 'depth'."),
        (("makers:make_model", "-a", "zzz=3"), "takes no argument 'zzz'. It takes: depth, width."),
        (("makers:passes_on", "-a", "clases=3"), "no argument 'clases'. Nearest: 'classes'."),
        (("makers:local", "-a", "clases=3"), "cannot be built: TypeError: local.<locals>.Local"),
        (("makers:made", "-a", "x=3"), "--arg x: a model that is made already takes no"),
        (("makers:make_model", "-a", "depth"), "--arg is written name=value, such as depth=12"),
        (("makers:make_model", "-a", "a=1", "-a", "a=2"), "--arg a is there twice"),
        (("makers:make_model", "-a", "depth=[1"), "--arg depth: '[1' is no value of YAML: "),
        (("makers:make_model", "-a", "depth=two"), "cannot be built: TypeError: 'str' object"),
    ],
    ids=lambda value: " ".join(value[1:]) if isinstance(value, tuple) else None,
)
def test_what_is_wrong_with_an_argument(nnlr_command, models, arguments, message):
    """The nearest name of an argument, and how arguments are written."""
    status, _, errors = nnlr_command("show", *arguments)
    assert 2 == status
    assert message in errors


def test_a_function_without_a_signature_is_called(models, monkeypatch):
    """As functions in C may be."""
    monkeypatch.setattr(nn.Linear, "__signature__", 3, raising=False)
    with pytest.raises(NnlrError, match="cannot be built: TypeError: Linear"):
        _model.load("torch.nn:Linear", {})


# --- libraries --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "arguments", "label"),
    [
        ("timm:resnet18", {"num_classes": 3}, "ResNet"),
        ("timm:vit_tiny_patch16_224.augreg_in21k", {}, "VisionTransformer"),
        ("torchvision:alexnet", {}, "AlexNet"),
        ("torchvision:fasterrcnn_mobilenet_v3_large_fpn", {}, "FasterRCNN"),
    ],
)
def test_models_of_image_libraries(text, arguments, label):
    """By name, with arguments, on the meta device; a detector fetches no backbone."""
    model = _model.load(text, arguments).model
    assert label == type(model).__name__
    assert {"meta"} == {parameter.device.type for parameter in model.parameters()}


@pytest.mark.parametrize(
    ("text", "arguments", "message"),
    [
        ("timm:resnet81", {}, r"timm has no model 'resnet81'\. Nearest: 'resnet18'"),
        ("timm:resnet18.a1_in2k", {}, r"Nearest: 'resnet18\.a1_in1k'"),
        ("timm:hf-hub:timm/x", {}, "Models of a hub are not downloaded"),
        ("timm:resnet18", {"num_class": 3}, r"no argument 'num_class'\. Nearest: 'num_classes'"),
        ("torchvision:alexnte", {}, r"torchvision has no model 'alexnte'\. Nearest: 'alexnet'"),
    ],
)
def test_typos_in_image_models(text, arguments, message):
    """The nearest model, weight or argument."""
    with pytest.raises(NnlrError, match=message):
        _model.load(text, arguments)


def test_a_library_that_is_not_installed(monkeypatch):
    """What to install; or what it needs itself, or why it cannot be imported."""

    def missing(name):
        def import_module(_):
            raise ModuleNotFoundError(name=name)

        return import_module

    monkeypatch.setattr(_libraries, "import_module", missing("timm"))
    with pytest.raises(NnlrError, match=r"which is not installed\.\n  Fix: pip install timm"):
        _model.load("timm:resnet18", {})
    monkeypatch.setattr(_libraries, "import_module", missing("safetensors"))
    with pytest.raises(NnlrError, match="timm needs safetensors, which is not installed"):
        _model.load("timm:resnet18", {})
    monkeypatch.setattr(_libraries, "import_module", lambda name: 1 / 0)
    with pytest.raises(NnlrError, match="timm cannot be imported: ZeroDivisionError"):
        _model.load("timm:resnet18", {})


class TinyConfig:
    """A configuration as those of transformers."""

    attribute_map = {"hidden": "width"}  # noqa: RUF012
    sub_configs = {}  # noqa: RUF012

    def __init__(self, width=4):
        self.width = width
        self.architectures = None

    def to_dict(self):
        return vars(self)

    @classmethod
    def from_dict(cls, facts):
        config = cls()
        vars(config).update(facts)
        return config


class TinyModel(nn.Linear):
    """A model of transformers."""

    config_class = TinyConfig

    def __init__(self, config):
        super().__init__(config.width, 2)


@pytest.fixture
def transformers(monkeypatch, tmp_path):
    """A library with the calls of transformers that are used, which loads at once."""

    def from_pretrained(source, *, local_files_only, trust_remote_code):
        assert local_files_only
        assert not trust_remote_code
        config = TinyConfig(8)
        if source.startswith(("missing", "tinny", "Auto")):
            raise OSError("not in the cache")
        if "named" in source:
            config.architectures = ["TinyModel"]
        return config

    types = {
        name: type(f"{name.title()}Config", (TinyConfig,), {}) for name in ("part", "deep", "lone")
    }
    library = SimpleNamespace(
        CONFIG_MAPPING={"tiny": TinyConfig, **types},
        MODEL_MAPPING={TinyConfig: TinyModel},
        PartModel=TinyModel,
        DeepForSleep=TinyModel,
        AutoModel=SimpleNamespace(from_config=lambda config, **_: TinyModel(config)),
        AutoConfig=SimpleNamespace(from_pretrained=from_pretrained),
        PretrainedConfig=lambda: SimpleNamespace(num_labels=2),
        TinyModel=TinyModel,
    )
    monkeypatch.setattr(_libraries, "import_module", lambda name: library)
    monkeypatch.chdir(tmp_path)
    return library


@pytest.mark.parametrize(
    ("name", "arguments", "width"),
    [
        ("tiny", {}, 4),
        ("tiny", {"width": 6}, 6),
        ("part", {}, 4),
        ("TinyModel", {}, 4),
        ("config.json", {}, 8),
        ("named", {"width": 3}, 3),
        ("org/cached", {}, 8),
    ],
)
def test_models_of_transformers(transformers, tmp_path, name, arguments, width):
    """By type, by class, by a configuration or its folder, or by a name in the cache."""
    (tmp_path / "config.json").touch()
    (tmp_path / "named").mkdir()
    (tmp_path / "named" / "config.json").touch()
    model = _model.load(f"transformers:{name}", arguments).model
    assert (2, width) == model.weight.shape


@pytest.mark.parametrize(
    ("name", "arguments", "message"),
    [
        ("tinny", {}, r"no model 'tinny'\. Nearest: 'tiny'\.\n  Nothing is downloaded"),
        ("AutoModel", {}, r"no model 'AutoModel'\.(?! Nearest: 'Auto)"),
        ("missing", {}, r"transformers has no model 'missing'\."),
        ("missing.json", {}, "transformers cannot read 'missing.json': OSError: not in the cache"),
        ("deep", {}, r"no base model\. Name a class: DeepForSleep\."),
        ("lone", {}, r"no base model\. It is a part of others\."),
        ("tiny", {"widht": 3}, r"TinyConfig has no setting 'widht'\. Nearest: 'width'"),
    ],
)
def test_typos_in_transformers(transformers, tmp_path, name, arguments, message):
    """The nearest type or setting; nothing is fetched."""
    (tmp_path / "missing.json").touch()
    with pytest.raises(NnlrError, match=message):
        _model.load(f"transformers:{name}", arguments)


def test_a_configuration_is_found_without_its_library_s_name(transformers, tmp_path):
    """A folder or a JSON file with a model type is one of transformers."""
    (tmp_path / "config.json").write_text('{"model_type": "tiny"}', encoding="utf-8")
    assert (2, 8) == _model.load(str(tmp_path), {}).model.weight.shape


# Half a minute.
@pytest.mark.full
@pytest.mark.no_cover
@pytest.mark.parametrize(
    ("name", "arguments", "count"),
    [
        ("bert", {"num_hidden_layers": 2}, 39),
        ("BertForSequenceClassification", {"num_labels": 3}, 201),
        ("llama", {"num_hidden_layers": 2}, 20),
        ("t5", {}, 131),
    ],
)
def test_real_transformers(name, arguments, count):
    """The calls of the stand-in above are those of the library."""
    model = _model.load(f"transformers:{name}", arguments).model
    assert count == len(list(model.parameters()))
    for typo in ("brt", "BertForSequenceClasification"):
        with pytest.raises(NnlrError, match=r"Nearest: .*bert|Nearest: 'BertFor"):
            _model.load(f"transformers:{typo}", {})
    with pytest.raises(NnlrError, match=r"Nearest: 'num_hidden_layers'|has no setting"):
        _model.load(f"transformers:{name}", {"num_hiden_layers": 2})


def test_it_never_asks_a_hub():
    """Libraries that could are told so before they are imported."""
    _libraries._library("timm")
    import os

    assert "1" == os.environ["HF_HUB_OFFLINE"]
    assert "timm" in sys.modules
    assert torch.get_default_device().type == "cpu"
