"""What no configuration may hold: refused with the path of the key, and the nearest valid one."""

from dataclasses import dataclass

import pytest
import torch
from torch import nn

import nnlr
from nnlr.config import Recipe, dump, load, scheme

BAD = [
    # names and keys
    (
        {"layer_deccay": 1},
        r"^scheme\.layer_deccay: there is no scheme .* Nearest: 'layer_decay', 'alpha_decay'\.$",
    ),
    (
        [{"caffe": {}}, {"layer_decay": {"decay": 0.5, "min_mlt": 1}}],
        (
            r"^scheme\[1\]\.layer_decay\.min_mlt: layer_decay has no argument 'min_mlt'\. "
            r"Nearest: 'min_mult'\.$"
        ),
    ),
    ({"rule": {"selector": "a"}}, r"^scheme\.rule\.selector: .* Nearest: 'select'\.$"),
    ({"rule": {"select": {"roel": "norm"}}}, r"^scheme\.rule\.select\.roel: .* Nearest: 'role'\.$"),
    ({"layer_decay": {"decay": 1, "indexer": {"timn": {}}}}, r"\.indexer\.timn: .*'timm'\.$"),
    (
        {"layer_decay": {"decay": 1, "indexer": "beit"}},
        r"\.indexer: indexer must be",
    ),
    ({"caffe": {}, "wher": "a"}, r"one name, got 'caffe', 'wher'\. Nearest: 'where'\.$"),
    ({"caffe": {}, "route": {}}, r"several go into a list\.$"),
    ({"where": "a"}, r"^scheme: a scheme is a mapping with one name, got none\."),
    ({"caffe": {}, "where": {"select": "a", "optinal": True}}, r"\.where\.optinal: where has no"),
    ({"caffe": {}, "where": {"select": "a", "optional": "yes"}}, r"^scheme\.where: optional must"),
    ({"caffe": {}, "within": 3}, r"^scheme\.within: within needs a module's path"),
    ({"rules": [{"select": "a"}, {"sleect": "b"}]}, r"^scheme\.rules\[1\]\.sleect: .*'select'\.$"),
    ({"a b": 1}, r"^scheme\['a b'\]: there is no scheme"),
    # values
    ({"layer_decay": {"decay": 2}}, r"^scheme\.layer_decay\.decay: decay must be .*got 2\.$"),
    ({"layer_decay": 2}, r"^scheme\.layer_decay: decay must be"),
    ("layer_decay", r"^scheme\.layer_decay: layer_decay needs 'decay'\.$"),
    ({"select": "a", "lr_mult": True}, r"^scheme\.lr_mult: .*got True \(bool\)"),
    ({"no_weight_decay": "tim"}, r"^scheme\.no_weight_decay: .*Nearest: 'timm'\.$"),
    ({"caffe": 3}, r"^scheme\.caffe: caffe takes its arguments by name \(bias_lr_mult, "),
    ({"layer_decay": {"decay": 1, "indexer": {"auto": 2.5}}}, r"\.auto: auto takes .*\(none\)"),
    ({"discriminative": {"slice": [1, 2, 3]}}, r"^scheme\.discriminative\.slice: needs one or two"),
    ({"discriminative": {"slice": 1, "more": 2}}, r"^scheme\.discriminative: rates must be"),
    ({"rule": {"select": {"any": []}}}, r"\.select\.any: any needs a list of selectors\.$"),
    ({"rule": {"select": {"ndim": {"exactly": 1, "min": 1}}}}, r"\.ndim: ndim is one number"),
    ({"rule": {"select": {"module_type": 3}}}, r"\.module_type: module_type needs classes"),
    ({"rule": {"select": {"role": "norm", "ndim": 1}}}, r"^scheme\.rule\.select: a selector is"),
    ({"roles": {"normm": 1}}, r"^scheme\.roles: 'normm' is no role\."),
    ([], r"^scheme: an empty list is no scheme\.$"),
    ([3], r"^scheme\[0\]: a scheme is a name, a mapping .*got 3\.$"),
    ({"big_vision": [["a"]]}, r"^scheme\.big_vision: lr_mults must hold"),
    # what is no plain data
    ({"rule": {True: 1}}, r"^scheme\.rule: the key True is a bool, as which YAML 1\.1 reads yes"),
    ({"rule": {None: 1}}, r"^scheme\.rule: the key None must be text\.$"),
    ({"layer_decay": float("nan")}, r"^scheme\.layer_decay: not a number \(NaN\)\.$"),
    ({"freeze": {"select": {1}}}, r"^scheme\.freeze\.select: must be plain data.*\{1\} \(set\)"),
    # code
    (
        "os:system",
        r"^scheme\['os:system'\]: .* names code, .* allow=\['os:system'\]\.$",
    ),
    ({"os:system": "echo"}, r"^scheme\['os:system'\]: 'os:system' names code"),
    ({"rule": {"select": {"predicate": "os:system"}}}, r"\.predicate: 'os:system' names code"),
]


@pytest.mark.parametrize(("data", "message"), BAD, ids=lambda value: str(value)[:30])
def test_a_mistake_is_named_with_its_place(data, message):
    """A ConfigError, whose path is a fact too."""
    with pytest.raises(nnlr.ConfigError, match=message) as caught:
        scheme(data)
    assert str(caught.value).startswith(f"{caught.value.path}: ")


def test_facts_of_the_first_error_stay():
    """The value that was refused, and what it was for."""
    with pytest.raises(nnlr.ConfigError, match="got 2") as caught:
        scheme({"layer_decay": {"decay": 2}})
    assert ("decay", 2, "scheme.layer_decay.decay") == (
        caught.value.what,
        caught.value.value,
        caught.value.path,
    )


def test_what_is_nested_without_end_is_refused(monkeypatch):
    """A list that holds itself, and one that its aliases make huge."""
    endless = []
    endless.append(endless)
    with pytest.raises(nnlr.ConfigError, match=r"^scheme: nested deeper than 50 levels\.$"):
        scheme(endless)
    monkeypatch.setattr("nnlr.config._plain._MOST", 1_000)
    laughs = ["lol"] * 9
    for _ in range(9):
        laughs = [laughs] * 9
    with pytest.raises(nnlr.ConfigError, match=r"^scheme: more than 1,000 values"):
        scheme(laughs)


@dataclass(frozen=True)
class Third(nnlr.Scheme):
    """A scheme of a user's own."""

    share: float = 3.0

    def factors(self, model):
        return [nnlr.Factor(lr_mult=1 / self.share) for _ in model.params]


THIRD = Third()
NOT_A_SCHEME = 3


def by_first_number(param):
    """An indexer of a user's own."""
    return int(param.name[0])


def is_large(param: nnlr.ParamInfo) -> bool:
    """A test of a user's own."""
    return param.numel > 3


def falling(t: float) -> float:
    """A function of progress of a user's own."""
    return 1 - t


class TestReferences:
    def test_a_function_moves_a_scheme(self):
        """Beside any scheme, before it is restricted; alone, or with what it moves."""
        name = f"{__name__}:falling"
        data = [
            {"layer_decay": 0.5, "at": name, "within": "0", "where": "*.weight"},
            {"product": ["no_weight_decay"], "at": {"function": name, "setting": "weight_decay"}},
        ]
        made = scheme(data, allow=[name])
        first = nnlr.layer_decay(0.5).at(falling).within("0").where("*.weight")
        assert repr(made) == repr(
            first * nnlr.no_weight_decay().at(falling, setting="weight_decay")
        )

    @pytest.mark.parametrize(
        ("at", "message"),
        [
            (
                3,
                r"^scheme\.at: it needs the name of a function of progress, .*, got 3",
            ),
            ({"setting": "lr"}, r"it needs the name of a function of progress, .*got None"),
            ({"function": "a:b", "settings": "lr"}, r"at has no 'settings'. Nearest: 'setting'"),
            ("os:getcwd", r"^scheme\.at: 'os:getcwd' names code, and loading runs none"),
            (
                {"function": f"{__name__}:falling", "setting": "rate"},
                r"setting must be one of 'lr'",
            ),
        ],
    )
    def test_what_moves_nothing_is_refused(self, at, message):
        """What is no function, what is not allowed, and what cannot move."""
        with pytest.raises(nnlr.ConfigError, match=message):
            scheme({"layer_decay": 0.5, "at": at}, allow=[f"{__name__}:falling"])

    def test_code_that_is_allowed_is_called(self):
        """Schemes, functions of parameters, indexers: each by its name."""
        here = __name__
        data = [
            {f"{here}:Third": {"share": 2}},
            f"{here}:THIRD",
            {"select": {"predicate": f"{here}:is_large"}, "lr_mult": 5},
            {"layer_decay": {"decay": 0.5, "indexer": f"{here}:by_first_number"}},
        ]
        made = scheme(data, allow=[f"{here}:*"])
        net = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))
        plan = nnlr.resolve(net, made, lr=6, weight_decay=0)
        assert [2.5, 0.5, 5.0, 1.0] == [row.lr for row in plan]

    @pytest.mark.parametrize(
        ("data", "message"),
        [
            (
                "{}:Nowhere",
                r"^scheme\['.*'\]: .* cannot be imported: .*no attribute 'Nowhere'",
            ),
            ("no.such.module:x", r"cannot be imported: No module named 'no'\.$"),
            ("{}:NOT_A_SCHEME", r"gives no scheme, but 3 \(int\)\.$"),
            ("{}:is_large", r"\.?.*is_large needs 'param'\.$"),
        ],
    )
    def test_code_that_is_none_is_refused(self, data, message):
        """What is not there, and what is no scheme."""
        with pytest.raises(nnlr.ConfigError, match=message):
            scheme(data.format(__name__), allow=["*"])

    def test_allow_is_a_list(self):
        """One text would be letters."""
        with pytest.raises(nnlr.NnlrError, match=r"allow must be a list of names such as"):
            scheme("caffe", allow="my.module:name")


class TestDump:
    @pytest.mark.parametrize(
        ("value", "message"),
        [
            (
                nnlr.layer_decay(0.5, by_first_number),
                (
                    r"^scheme\.layer_decay\.indexer: .* is not data\. In the file write its name, "
                    r"'.*test_errors:by_first_number', and load it with allow=\['.*'\]\.$"
                ),
            ),
            (
                nnlr.rule(nnlr.predicate(lambda param: True)),
                r"\.select\.predicate\.test: .*Define it in a module, and name it .*'module:name'",
            ),
            (
                nnlr.rule("a") * nnlr.rule("*").at(falling),
                (
                    r"^scheme\[1\]\.at: rule\('\*'\)\.at\(falling\) moves by a function, which is "
                    r"not data\. In the file write at: '.*:falling', and load it with allow="
                ),
            ),
            (
                nnlr.rule("*").at(falling, setting="weight_decay"),
                r"write at: {'function': '.*:falling', 'setting': 'weight_decay'}, and load it",
            ),
            (
                nnlr.rule("*").at(lambda t: 1 - t),
                r"Name a function of a module, or use a scheme that moves by itself",
            ),
            (
                nnlr.rule("*").at(nnlr.Move()),
                r"at\(Move\(\)\) moves by a function, which is not data\. Name a function",
            ),
            (
                nnlr.rule(nnlr.module_type(nn.LayerNorm)),
                r"\.module_type\[0\]: .*Name the class: nnlr\.module_type\('LayerNorm'\)\.$",
            ),
            (
                nnlr.mup(nn.Linear(1, 1)),
                r"\.mup\.base: Linear .*Pass its shapes as base: nnlr\.config\.shapes\(base\)\.$",
            ),
            (
                nnlr.layer_decay(0.5, nnlr.depth.flow(torch.zeros(1))),
                r"^scheme\.layer_decay\.indexer: flow\(.*\) is .* that data cannot describe",
            ),
            (
                nnlr.rule("a") * Third(),
                r"^scheme\[1\]: Third\(share=3\.0\) is a scheme .*test_errors:Third'\]\.$",
            ),
            (
                nnlr.big_vision(schedule={"mult": 1, "x": torch.zeros(1)}),
                r"\.schedule\.x: .*Write numbers in its place",
            ),
            (nnlr.mmengine({"x": {1}}, strict=False), r"\.x: .*Write plain numbers, text, lists"),
            (
                Recipe(lr=1, weight_decay=0, schedule=lambda optimizer: None),
                r"^schedule: a function is not data\.",
            ),
            (3, r"^dump needs a scheme or a recipe, got 3 \(int\)\.$"),
        ],
    )
    def test_what_is_no_data_says_what_to_write(self, value, message):
        """A name in place of code, shapes in place of a model."""
        with pytest.raises(nnlr.ConfigError, match=message):
            dump(value)

    def test_the_names_that_it_offers_work(self):
        """Of a class in the model, of the user's function and scheme, and of the shapes."""
        by_name = nnlr.rule(nnlr.module_type("LayerNorm"), wd_mult=0)
        assert repr(by_name) == repr(scheme(dump(by_name)))
        base = nnlr.config.shapes(nn.Linear(1, 1))
        assert "mup({2 shapes})" == repr(scheme(dump(nnlr.mup(base))))
        name = f"{__name__}:by_first_number"
        read = scheme({"layer_decay": {"decay": 0.5, "indexer": name}}, allow=[name])
        assert repr(nnlr.layer_decay(0.5, by_first_number)) == repr(read)
        assert Third(2.0) == scheme({f"{__name__}:Third": {"share": 2.0}}, allow=["*"])


def test_a_recipe_is_a_mapping():
    """A scheme alone is read by another function, and the message says by which."""
    with pytest.raises(nnlr.ConfigError, match=r"^The configuration: a recipe .*config\.scheme\."):
        load([{"caffe": {}}])
