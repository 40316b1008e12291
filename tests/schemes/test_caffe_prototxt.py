"""``caffe_prototxt(...)``: the forms of prototxt files, and networks of Caffe's time."""

from pathlib import Path

import pytest
import torch
from torch import nn

import nnlr
from nnlr.errors import ConfigError, NnlrError, PatternError
from nnlr.schemes._frameworks.prototxt import parse
from nnlr.testing import SchemeLaws


def layer(name, kind, *params, bottom=None, top=None):
    """A layer of today's form; each of ``params`` is what stands in the braces."""
    specs = " ".join(f"param {{ {param} }}" for param in params)
    bottom, top = bottom or name, top or name
    return f'layer {{ name: "{name}" type: "{kind}" bottom: "{bottom}" top: "{top}" {specs} }}'


def net(*layers):
    """The text of a network."""
    return "\n".join(['name: "net"', *layers])


BOTH = ("lr_mult: 1 decay_mult: 1", "lr_mult: 2 decay_mult: 0")


@pytest.mark.no_cover
class TestLaws(SchemeLaws):
    def schemes(self):
        text = net(layer("a", "InnerProduct", *BOTH), layer("0", "InnerProduct", "lr_mult: 0"))
        return [nnlr.caffe_prototxt(text, strict=False)]


def rates(model, text, **settings):
    """lr_mult and wd_mult of each parameter."""
    plan = nnlr.resolve(model, nnlr.caffe_prototxt(text, **settings), lr=1.0, weight_decay=1.0)
    return {row.name: (row.lr_mult, row.wd_mult) for row in plan}


def modules(**sizes):
    """Convolutions by name; True has a bias."""
    return nn.ModuleDict({n: nn.Conv2d(1, 1, 1, bias=bias) for n, bias in sizes.items()})


def test_the_flickr_example():
    """CaffeNet, fine-tuned: 1 and 2 as they are, the new layer at 10 and 20."""
    names = ("conv1", "conv2", "conv3", "conv4", "conv5", "fc6", "fc7")
    text = net(
        'layer { name: "data" type: "ImageData" top: "data" include { phase: TRAIN } }',
        *(layer(name, "Convolution", *BOTH) for name in names),
        layer(
            "fc8_flickr", "InnerProduct", "lr_mult: 10 decay_mult: 1", "lr_mult: 20 decay_mult: 0"
        ),
        'layer { name: "accuracy" type: "Accuracy" include { phase: TEST } }',
    )
    model = modules(**dict.fromkeys((*names, "fc8_flickr"), True))
    due = {f"{n}.{leaf}": (1, 1) if leaf == "weight" else (2, 0) for n in names for leaf in LEAVES}
    assert {**due, "fc8_flickr.weight": (10, 1), "fc8_flickr.bias": (20, 0)} == rates(model, text)
    # The renamed layer in a model that has its old name, as in the example.
    renamed = modules(**dict.fromkeys((*names, "fc8"), True))
    with pytest.raises(PatternError, match=r"'fc8_flickr' has no module(?s:.*)Nearest: 'fc8'"):
        rates(renamed, text)
    assert (20, 0) == rates(renamed, text, name_of={"fc8_flickr": "fc8"})["fc8.bias"]


LEAVES = ("weight", "bias")


def test_names_with_slashes_are_paths():
    """GoogLeNet's, as nested modules, with underscores, and as the ends of longer paths."""
    text = net(
        layer("conv1/7x7_s2", "Convolution", *BOTH),
        layer("inception_3a/1x1", "Convolution", "lr_mult: 3"),
        layer("inception_3b/1x1", "Convolution", "lr_mult: 4"),
    )
    inner = nn.ModuleDict({n: modules(**{"1x1": False}) for n in ("inception_3a", "inception_3b")})
    model = nn.ModuleDict({"features": inner, "conv1_7x7_s2": nn.Conv2d(1, 1, 1)})
    assert {
        "features.inception_3a.1x1.weight": (3, 1),
        "features.inception_3b.1x1.weight": (4, 1),
        "conv1_7x7_s2.weight": (1, 1),
        "conv1_7x7_s2.bias": (2, 0),
    } == rates(model, text)
    with pytest.raises(PatternError, match=r"'1x1' may be features.inception_3a.1x1, .*Say which"):
        rates(model, net(layer("1x1", "Convolution", "lr_mult: 1")))
    # What says nothing may be anything.
    assert {(1, 1)} == {*rates(model, net(layer("1x1", "LRN"))).values()}


def test_fcns_fixed_upsampling_is_locked():
    """A deconvolution with lr_mult 0; a skip layer of the same network learns."""
    text = net(
        layer("score_fr", "Convolution", *BOTH), layer("upscore2", "Deconvolution", "lr_mult: 0")
    )
    model = nn.ModuleDict(
        {"score_fr": nn.Conv2d(1, 1, 1), "upscore2": nn.ConvTranspose2d(1, 1, 1, bias=False)}
    )
    plan = nnlr.resolve(model, nnlr.caffe_prototxt(text), lr=1e-14, weight_decay=5e-4)
    assert ["upscore2.weight"] == [row.name for row in plan if row.locked]
    assert () == plan.findings
    assert "layer 'score_fr', blob 1" in " ".join(plan.explain("score_fr.bias").split())


FASTER = """
name: "ZF"
layer {
  name: 'input-data'
  type: 'Python'
  top: 'data'
  python_param { module: 'roi_data_layer.layer' param_str: "'num_classes': 21" }
}
#========= conv1-conv5 ============
layer {
\tname: "conv1"
\ttype: "Convolution"
\tbottom: "data"
\ttop: "conv1"
\tparam { lr_mult: 0 decay_mult: 0 } param { lr_mult: 0 decay_mult: 0 }
\tconvolution_param { num_output: 96 kernel_size: 7 pad: 3 stride: 2 }
}
layer { name: "relu1" type: "ReLU" bottom: "conv1" top: "conv1" }
layer {
  name: "rpn_conv/3x3"
  type: "Convolution"
  param { lr_mult: 1.0 }
  param { lr_mult: 2.0 }
  convolution_param {
    kernel_size: 3 pad: 1 stride: 1
    weight_filler { type: "gaussian" std: 0.01 }  # 2(bg/fg) * 9(anchors)
  }
}
layer { name: "reshape" reshape_param { shape { dim: 0 dim: 2 dim: -1 dim: 0 } } }
"""


def test_faster_rcnns_file():
    """Quotes of both kinds, comments, tabs, several fields on a line; fixed lower layers."""
    model = modules(conv1=True, rpn_conv_3x3=True)
    assert {
        "conv1.weight": (0, 0),
        "conv1.bias": (0, 0),
        "rpn_conv_3x3.weight": (1, 1),
        "rpn_conv_3x3.bias": (2, 1),
    } == rates(model, FASTER)


def resnet():
    """A ResNet's stem and one branch, with the names that its Caffe model has."""
    return nn.ModuleDict(
        {
            "conv1": nn.Conv2d(3, 4, 1),
            "bn_conv1": nn.BatchNorm2d(4),
            "res2a_branch1": nn.Conv2d(4, 4, 1, bias=False),
            "bn2a_branch1": nn.BatchNorm2d(4),
            "fc1000": nn.Linear(4, 2),
        }
    )


STATISTICS = ("lr_mult: 0 decay_mult: 0",) * 3


def resnet_net(*scale):
    """Its layers; BatchNorm and Scale work in place."""

    def norm(name, bottom):
        return (
            layer(f"bn{name}", "BatchNorm", *STATISTICS, bottom=bottom, top=bottom),
            layer(f"scale{name}", "Scale", *scale, bottom=bottom, top=bottom),
        )

    return net(
        layer("conv1", "Convolution"),
        *norm("_conv1", "conv1"),
        layer("relu", "ReLU", bottom="conv1", top="conv1"),
        layer("res2a_branch1", "Convolution", "lr_mult: 1 decay_mult: 1", "lr_mult: 2"),
        *norm("2a_branch1", "res2a_branch1"),
        layer("fc1000", "InnerProduct", "lr_mult: 5", "lr_mult: 10 decay_mult: 0"),
    )


def test_a_scale_layer_is_the_batch_norm_before_it():
    """Its statistics are buffers; a missing bias is a note."""
    text = resnet_net("decay_mult: 0", "lr_mult: 2 decay_mult: 0")
    plan = nnlr.resolve(resnet(), nnlr.caffe_prototxt(text), lr=1.0, weight_decay=1.0)
    due = {
        "conv1.weight": (1, 1),
        "conv1.bias": (1, 1),
        "bn_conv1.weight": (1, 0),
        "bn_conv1.bias": (2, 0),
        "res2a_branch1.weight": (1, 1),
        "bn2a_branch1.weight": (1, 0),
        "bn2a_branch1.bias": (2, 0),
        "fc1000.weight": (5, 1),
        "fc1000.bias": (10, 0),
    }
    assert due == {row.name: (row.lr_mult, row.wd_mult) for row in plan}
    assert [("no-effect", "note")] == [(found.kind, found.severity) for found in plan.findings]
    assert "'res2a_branch1' has 2 blobs, and its module 1 parameter" in plan.findings[0].cause


def test_modules_go_by_other_names():
    """A mapping names the norm, and its Scale layer follows; so does a function."""
    model = resnet()
    model["bn1"], model["head"] = model.pop("bn_conv1"), model.pop("fc1000")
    names = {"bn_conv1": "bn1", "fc1000": "head", "scale2a_branch1": None}
    text = resnet_net("lr_mult: 3", "lr_mult: 4")
    for name_of in (names, names.get):
        by_name = rates(model, text, name_of=name_of)
        assert ((3, 1), (4, 1)) == (by_name["bn1.weight"], by_name["bn1.bias"])
        assert (10, 0) == by_name["head.bias"]
        left_out = isinstance(name_of, dict)
        assert (1 if left_out else 3, 1) == by_name["bn2a_branch1.weight"]


def test_a_layer_of_slope_bias_and_statistics():
    """PSPNet's BN: two parameters, and two blobs that are buffers in torch."""
    text = net(
        layer("conv5_4", "Convolution", "lr_mult: 10 decay_mult: 1"),
        layer("conv5_4/bn", "BN", *["lr_mult: 10 decay_mult: 0"] * 2, *STATISTICS[:2]),
    )
    model = nn.ModuleDict(
        {"conv5_4": nn.Conv2d(1, 2, 1, bias=False), "conv5_4_bn": nn.BatchNorm2d(2)}
    )
    plan = nnlr.resolve(model, nnlr.caffe_prototxt(text), lr=1.0, weight_decay=1.0)
    assert () == plan.findings
    assert [(10, 1), (10, 0), (10, 0)] == [(row.lr_mult, row.wd_mult) for row in plan]


OLDER = [
    """layers { name: "conv1" type: CONVOLUTION blobs_lr: 1. blobs_lr: 2.
         weight_decay: 1 weight_decay: 0 convolution_param { num_output: 96 } bottom: "data" }
       layers { top: "data" name: "data" type: DATA include: { phase: TEST } }""",
    """layers { layer { name: 'conv1' type: 'conv' blobs_lr: 1. blobs_lr: 2.
         weight_decay: 1. weight_decay: 0. } bottom: 'data' top: 'conv1' }""",
    """layer < name: "conv1"; param: [{ lr_mult: 1, decay_mult: 1 }, { lr_mult: 2f decay_mult: 0 }];
         exclude { phase: TEST } >
       layer { name: "conv1" param { lr_mult: 9 } exclude { phase: TRAIN } }""",
    """base_lr: 0.1 net_param { layer { name: "con" "v1" param { lr_mult: 1 decay_mult: 1 }
         param { lr_mult: 2 decay_mult: 0 } } }""",
]


@pytest.mark.parametrize("text", OLDER)
def test_older_forms_say_the_same(text):
    """V1, V0, brackets of the other kind and lists, a network inside its solver."""
    assert {"conv1.weight": (1, 1), "conv1.bias": (2, 0)} == rates(modules(conv1=True), text)


def test_a_file_is_read(tmp_path):
    """By its path, as text or as a Path."""
    path = tmp_path / "train_val.prototxt"
    path.write_text(OLDER[0], encoding="utf-8")
    for form in (path, str(path)):
        assert (2, 0) == rates(modules(conv1=True), form)["conv1.bias"]
    with pytest.raises(ConfigError, match=r"'missing.prototxt' cannot be read: No such file"):
        nnlr.caffe_prototxt(Path("missing.prototxt"))
    with pytest.raises(ConfigError, match="cannot be read: embedded null byte"):
        nnlr.caffe_prototxt("\0")


def siamese(second):
    """Two layers whose weights are one blob; the second says this of it."""
    return net(
        layer("ip1", "InnerProduct", 'name: "ip_w" lr_mult: 3', 'name: "ip_b"'),
        layer("ip1_p", "InnerProduct", f'name: "ip_w" {second}', 'name: "ip_b" lr_mult: 2'),
    )


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a {" * 5000, "nests messages too deeply"),
        ("layer { name: 3 }", "name of layer 0 must be a text, got 3.0"),
        ('layer { name: "a" param: 1 }', "param of layer 'a' must be a message, got 1.0"),
        ('layer { name: "a" include: TRAIN }', "include of layer 'a' must be a message"),
        ("layers { layer: 3 }", "layer of layer 0 must be a message, got 3.0"),
        ("base_lr: abc\n", "base_lr of the solver must be a number, got 'abc'"),
    ],
)
def test_values_of_another_kind_are_refused(text, message):
    """No raw error; the place is named."""
    with pytest.raises(ConfigError, match=message):
        nnlr.caffe_prototxt(text)


def test_lines_are_counted():
    """An error in the fifth line says so; a byte order mark is no text."""
    text = "\ufeff" + net(layer("a", "Convolution", *BOTH)) + "\n" * 3 + "layer { ! }"
    with pytest.raises(ConfigError, match=r"Line 5 of the prototxt has '!'"):
        nnlr.caffe_prototxt(text)


@pytest.mark.parametrize(
    "text",
    [
        siamese("decay_mult: 0"),
        """layers { name: "ip1" blobs_lr: 3 blobs_lr: 2 weight_decay: 0
                    param: "ip_w" param: "ip_b" }
           layers { name: "ip1_p" param: "ip_w" param: "ip_b" }""",
    ],
)
def test_shared_blobs_are_set_once(text):
    """What one layer leaves open the other says, whether the module is shared or not."""
    due = {"ip1.weight": (3, 0), "ip1.bias": (2, 1)}
    model = modules(ip1=True, ip1_p=True)
    assert due == {name: pair for name, pair in rates(model, text).items() if name in due}
    model["ip1_p"] = model["ip1"]
    assert due == rates(model, text)
    with pytest.raises(ConfigError, match="shared param 'ip_w' is set differently by 'ip1_p'"):
        rates(model, siamese("lr_mult: 5"))


def test_tied_modules_that_are_set_differently_are_an_error():
    """Without a name in the file they would be two blobs."""
    model = modules(a=False)
    model["b"] = model["a"]
    text = net(layer("a", "Convolution", "lr_mult: 1"), layer("b", "Convolution", "lr_mult: 2"))
    with pytest.raises(ConfigError, match=r"b.weight is tied and set differently by layer 'a'"):
        rates(model, text)


def test_an_lstm_of_caffe_is_that_of_torch():
    """Its blobs are input weights, biases and recurrent weights, in this order."""
    text = net(layer("lstm1", "LSTM", *BOTH, "lr_mult: 3"))
    assert {
        "lstm1.weight_ih_l0": (1, 1),
        "lstm1.weight_hh_l0": (3, 1),
        "lstm1.bias_ih_l0": (2, 0),
        "lstm1.bias_hh_l0": (2, 0),
    } == rates(nn.ModuleDict({"lstm1": nn.LSTM(2, 2)}), text)


@pytest.mark.parametrize("specs", [["lr_mult: 1", "lr_mult: 2", "lr_mult: 1"], ["lr_mult: 2"]])
def test_blobs_of_other_modules_must_agree(specs):
    """What Caffe's RNN orders in its own way is not guessed; one blob alone is not all of them."""
    model = nn.ModuleDict({"rnn1": nn.RNN(2, 2)})
    same = net(layer("rnn1", "RNN", *["lr_mult: 2 decay_mult: 0"] * 5))
    assert {(2, 0)} == {*rates(model, same).values()}
    text = net(layer("rnn1", "RNN", *specs))
    with pytest.raises(ConfigError, match=r"which is which is not known. Leave it out by name_of="):
        rates(model, text)
    assert {(1, 1)} == {*rates(model, text, name_of={"rnn1": None}).values()}


def test_a_layer_that_only_shares_needs_no_module():
    """The second half of a siamese network is the first one in torch."""
    assert {"ip1.weight": (3, 0), "ip1.bias": (2, 1)} == rates(
        modules(ip1=True), siamese("decay_mult: 0")
    )


def test_layers_without_rates_change_nothing():
    """A Crop layer named like the end of some path does not contradict the layer of that module."""
    text = net(layer("score", "Crop"), layer("head/score", "Convolution", "lr_mult: 3"))
    model = nn.ModuleDict({"head": modules(score=True)})
    assert {"head.score.weight": (3, 1), "head.score.bias": (1, 1)} == rates(model, text)


def test_what_does_not_meet_is_pointed_out():
    """Layers without a module, and parameters without a layer."""
    text = net(
        layer("conv1", "Convolution", *BOTH), *(layer(f"x{n}", "Convolution", *BOTH) for n in "ab")
    )
    with pytest.raises(
        PatternError, match=r"'xa' has no module .*\(and 1 more: xb\).\n  Modules: conv1"
    ):
        rates(modules(conv1=True), text)
    scheme = nnlr.caffe_prototxt(text, strict=False)
    plan = nnlr.resolve(modules(conv1=True, zz=False), scheme, lr=1, weight_decay=1)
    assert {"no-module": (), "no-layer": ("zz.weight",)} == {f.kind: f.names for f in plan.findings}
    assert (1, 1) == rates(modules(conv1=True), text, name_of={"xa": None, "xb": None})[
        "conv1.weight"
    ]


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("block", r"'block' for layer 'c'.*no module of ModuleDict with .*Inside are block.conv1"),
        ("block.conv", r"'block.conv' for layer 'c'(?s:.*)Nearest: 'block.conv1'"),
        (3, r"name_of gives 3 for layer 'c'"),
    ],
)
def test_a_path_that_is_no_module_is_an_error(path, message):
    """A container, a typo, and no path at all, which a function may give."""
    model = nn.ModuleDict({"block": modules(conv1=True)})
    with pytest.raises(PatternError, match=message):
        rates(model, net(layer("c", "Convolution", *BOTH)), name_of=lambda _: path)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (3, "prototxt must be a file or its text, got 3"),
        ("name: 'a'\n", "The prototxt has no layer"),
        ("layer { name: 'a' ", "ends where the closing '}' is due"),
        ("layer { name: ", "ends where a value of 'name' is due"),
        ("layer { param", "has 'param' where a colon after 'param' is due"),
        ("layer {\n name 'a' }", "Line 2 of the prototxt has \"'a'\" where a colon after 'name'"),
        ("<<<<<<< HEAD\nlayer {}", "Line 1 of the prototxt has '<' where a field is due"),
        ("layer { a: } }", "Line 1 of the prototxt has '}' where a value of 'a' is due"),
        ("layer { a: [1 }", "has '}' where a value of 'a' is due"),
        ("layer { a: [1", "ends where the end of the list of 'a' is due"),
        ("layer {\n a: $ }", "Line 2 of the prototxt has '\\$' where a field is due"),
        ("layer: 3\n", "layer of the net must be a message, got 3"),
        (
            'net: "train.prototxt"\nbase_lr: 0.001\nweight_decay: 0.0005\n',
            r"a solver. Pass the network that it names \('train.prototxt'\), .* lr=0.001, weight_d",
        ),
        ("layer { name: 'a' param { lr_mul: 1 } }", r"has the field 'lr_mul'. Nearest: 'lr_mult'"),
        ("layer { name: 'a' param { lr_mult: -1 } }", "lr_mult of layer 'a' must be a finite"),
        (
            "layer { name: 'a' param { lr_mult: 1 } blobs_lr: 0 }",
            "has param and blobs_lr or weight",
        ),
    ],
)
def test_malformed_files_are_refused(text, message):
    """At the call, with the line."""
    with pytest.raises(NnlrError, match=message):
        nnlr.caffe_prototxt(text)


@pytest.mark.parametrize(
    ("name_of", "message"),
    [
        (3, "name_of must be a mapping from layers to modules, or a function, got 3"),
        ({"conv": "a"}, "name_of has 'conv', which is no layer. Nearest: 'conv1'"),
        ({"conv1": 3}, "name_of must give the path of a module or None, gives 3 for 'conv1'"),
    ],
)
def test_malformed_names_are_refused(name_of, message):
    """At the call."""
    with pytest.raises(ConfigError, match=message):
        nnlr.caffe_prototxt(OLDER[0], name_of=name_of)


def test_words_texts_and_numbers():
    """Escapes, exponents, signs and enumerations."""
    assert {"a": ["it's"], "b": [1e-5, -1.0], "c": ["MAX"], "d": ["x.y"]} == parse(
        "a: 'it\\'s' b: 1e-5 b: -1 c: MAX d: 'x.y'"
    )


def test_a_step_equals_caffes_formula():
    """V = m v + lr lr_mult (g + decay decay_mult w); w -= v, at a constant rate."""
    model = modules(conv1=True)
    text = net(
        layer("conv1", "Convolution", "lr_mult: 0.5 decay_mult: 2", "lr_mult: 2 decay_mult: 0")
    )
    plan = nnlr.resolve(model, nnlr.caffe_prototxt(text), lr=0.1, weight_decay=0.01)
    optimizer = plan.optimizer(torch.optim.SGD, momentum=0.9)
    mults = {"conv1.weight": (0.5, 2.0), "conv1.bias": (2.0, 0.0)}
    weights = {name: param.item() for name, param in model.named_parameters()}
    speeds = dict.fromkeys(weights, 0.0)
    for _ in range(20):
        for name, param in model.named_parameters():
            param.grad = torch.cos(param.detach())
            lr_mult, decay_mult = mults[name]
            gradient = param.grad.item() + 0.01 * decay_mult * param.item()
            speeds[name] = 0.9 * speeds[name] + 0.1 * lr_mult * gradient
            weights[name] -= speeds[name]
        optimizer.step()
        for name, param in model.named_parameters():
            assert weights[name] == pytest.approx(param.item(), abs=1e-5)
