"""Columns that are picked, trained rows only, and the width of tables."""

import re

import pytest
import torch
from torch import nn

import nnlr
from nnlr.report._columns import COLUMNS
from nnlr.report._text import WIDTH, columns_of


def adapted() -> nn.Module:
    """Frozen layers with an adapter each."""
    return nn.ModuleDict(
        {
            "layers": nn.ModuleList(
                nn.ModuleDict(
                    {
                        "base": nn.Linear(4, 4).requires_grad_(False),
                        "lora_A": nn.Linear(4, 2, bias=False),
                        "lora_B": nn.Linear(2, 4, bias=False),
                    }
                )
                for _ in range(3)
            )
        }
    )


def resolved(model, *schemes, **settings) -> nnlr.Plan:
    """A plan on the base rates of most examples."""
    return nnlr.resolve(model, *schemes, lr=1e-3, weight_decay=0.05, **settings)


class TestTrained:
    """`plan.table(trained=True)`."""

    def test_only_trained_rows_and_what_is_left_out(self, golden):
        """The adapters of a frozen model; the footer counts the rest."""
        scheme = nnlr.rule("*.lora_B.*", lr_mult=16) * nnlr.rule("layers.0.lora_A.*", lr_mult=0)
        golden("table_trained", resolved(adapted(), scheme).table(trained=True))

    def test_all_trained(self):
        """Where nothing is left out, nothing is said of it."""
        assert "not shown" not in resolved(nn.Linear(1, 1)).table(trained=True)

    def test_none_trained(self):
        """A frozen model has no rows to show."""
        text = resolved(nn.Linear(1, 1).requires_grad_(False)).table(trained=True)
        assert "none trained; not shown: 2 frozen (2)" in text
        assert "───" not in text
        assert "none trained" in resolved(nn.Linear(1, 1).requires_grad_(False)).to_markdown(
            trained=True
        )


class TestColumns:
    """`plan.table(columns=)`."""

    def test_every_column(self, golden):
        """Each of them by its name, instead of the usual ones."""
        net = nn.Sequential(nn.Linear(2, 3), nn.Linear(3, 1))
        scheme = nnlr.layer_decay(0.5) * nnlr.rule("1.*", options={"betas": (0.9, 0.95)})
        plan = resolved(net, scheme)
        optimizer = plan.optimizer(torch.optim.AdamW)
        tables = [
            plan.table(columns=[name], optimizer=optimizer if name in {"bytes", "update"} else None)
            for name in COLUMNS
        ]
        golden("table_columns", "\n\n".join(tables))

    def test_a_plus_adds(self):
        """`+role` stands beside the usual columns, and a title will do as a name."""
        plan = resolved(nn.Linear(2, 1))
        heading = plan.table(columns="+role, +wd_mult").splitlines()[2].split()
        assert ["parameter", "numel", "lr", "wd_mult", "decay", "role"] == heading
        assert ["parameter", "decay"] == plan.table(columns=["decay"]).splitlines()[2].split()

    def test_lines_of_several_values(self):
        """A line of many shapes or roles says that there are several."""
        model = nn.ModuleList(nn.Linear(k + 1, k + 2) for k in range(4))
        text = resolved(model).table(columns="shape,role,group")
        assert re.search(r"\{0\.\.3\}\.weight +several +matrix +lr1_wd1", text)
        assert "-" in resolved(model.requires_grad_(False)).table(columns="group,update")

    def test_bytes_of_an_optimizer(self):
        """State is told per line; of what is not trained there is none."""
        model = nn.Linear(2, 3)
        plan = resolved(model, nnlr.rule("bias", lr_mult=0))
        optimizer = plan.optimizer(torch.optim.Adam)
        text = plan.table(columns="bytes", optimizer=optimizer)
        assert re.search(r"weight +52 bytes", text)
        assert re.search(r"bias +-", text)
        nameless = plan.optimizer(torch.optim.Adam, names=False)
        assert re.search(r"weight +\?", plan.table(columns="bytes", optimizer=nameless))

    def test_updates_by_name_of_the_algorithm(self):
        """Without an optimizer the name of the algorithm says what is known."""
        plan = nnlr.resolve(
            nn.ModuleList(nn.Linear(2, 2) for _ in range(2)),
            nnlr.rule("*.weight", algorithm="muon") * nnlr.rule("*.bias", algorithm="adamw"),
            lr={"muon": 0.02, "adamw": 1e-3},
            weight_decay=0.1,
        )
        text = plan.table(columns="update")
        assert "0.0002..0.001" in text
        assert "?" in text

    def test_a_name_of_an_algorithm_is_shortened(self):
        """A column has no room for a long one; its line above has the whole."""
        name = "an_algorithm_of_a_long_name"
        plan = resolved(nn.Linear(1, 1), nnlr.rule("*", algorithm=name))
        assert "an_algori..." in plan.table()
        assert name in plan.table()

    @pytest.mark.parametrize(
        ("columns", "message"),
        [
            ("rol", r"columns names 'rol', and there is no such column. Nearest: 'role'"),
            ("zzzz", r"no such column. There are layer, tower, .* and bytes|There are layer"),
            ("+zzzz", r"columns names 'zzzz'"),
            (3, r"columns must be a list of names, got 3"),
            ([3], r"columns must be a list of names"),
            ("bytes", r"pass optimizer= too"),
        ],
    )
    def test_what_is_no_column(self, columns, message):
        """A wrong name is answered with the nearest, or with all."""
        with pytest.raises(nnlr.ConfigError, match=message):
            resolved(nn.Linear(1, 1)).table(columns=columns)

    def test_markdown_has_the_same(self):
        """The same columns, and only what is trained."""
        text = resolved(adapted()).to_markdown(columns="lr,role", trained=True)
        assert "| parameter | lr | role |" in text
        assert "layers.{0..2}.base" not in text


class TestWidth:
    """However wide the letters are, a table has 80 columns."""

    def test_wide_letters(self, golden):
        """Chinese letters take two columns each; names, titles and footers count them so."""
        names = ["編碼器", "注意力機制的權重矩陣以及其他所有的東西還有更多的東西加上這些", "頭"]
        model = nn.ModuleDict({name: nn.Linear(1, 1) for name in names})
        model["又一個"] = model["頭"]
        text = resolved(model, nnlr.rule("編碼器.*", lr_mult=0.1)).table()
        assert max(map(columns_of, text.splitlines())) <= WIDTH
        golden("table_wide", text)

    def test_a_name_of_200_letters(self):
        """It is broken wherever a line ends, and nothing of it is lost."""
        name = "".join(chr(97 + k % 26) for k in range(200))
        text = resolved(nn.ModuleDict({name: nn.PReLU()})).table()
        assert max(map(len, text.splitlines())) <= WIDTH
        rows = text.splitlines()[4:-1]
        assert f"{name}.weight" == "".join(re.sub(r" .*", "", row.strip()) for row in rows)

    def test_many_columns_break_their_cells(self):
        """Where names have no room left, long cells are broken too."""
        options = {"a_long_name_of_an_option": "a long value of it", "other": (0.9, 0.95)}
        model = nn.ModuleDict({"a_module_with_a_longish_name_of_its_own": nn.Linear(1, 1)})
        text = resolved(model, nnlr.rule("*", options=options)).table(columns="+options,+group")
        assert "a_long_name_" in text
        assert max(map(len, text.splitlines())) <= WIDTH + 20
