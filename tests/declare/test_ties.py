"""Tied parameters: what reaches one tensor by several names must agree, or be settled."""

import itertools

import pytest
from torch import nn

import nnlr


class Tied(nn.Module):
    """One table used as embedding, as head, and by a second encoder."""

    def __init__(self):
        super().__init__()
        self.embed = nn.Embedding(3, 2)
        self.other = nn.Embedding(3, 2)
        self.head = nn.Linear(2, 3)
        self.other.weight = self.head.weight = self.embed.weight


def row(*schemes, model=None, **settings):
    """The row of the tied tensor at the base rates 1 and 1."""
    model = Tied() if model is None else model
    return nnlr.resolve(model, *schemes, lr=1, weight_decay=1, **settings)["embed.weight"]


def rule(selector, lr_mult=1.0, **settings):
    return nnlr.rule(selector, lr_mult=lr_mult, **settings)


class TestDisagreement:
    def test_two_rules(self):
        """Two rules that reach one tensor by different names with unequal rates."""
        with pytest.raises(nnlr.NnlrError, match="is one tensor with the names") as caught:
            row(rule("embed.*", 0.1), rule("head.*", 0.2))
        text = str(caught.value)
        assert "rule 'embed.*' (lr_mult=0.1) by the name 'embed.weight'" in text
        assert "rule 'head.*' (lr_mult=0.2) by the name 'head.weight'" in text
        assert "tied={'head.weight': 'embed.weight'}) keeps the first" in text
        assert "embed.weight" == caught.value.name

    def test_two_restricted_rules(self):
        """A restriction says by which name a rule was meant to reach the tensor."""
        one = rule("*", 0.5).where("embed.*")
        two = rule("*", 2).where("head.*")
        with pytest.raises(
            nnlr.NnlrError,
            match=r"where 'embed\.\*' \(lr_mult=0\.5\) by the name 'embed\.weight' and",
        ):
            row(one * two)
        assert 0.5 == row(one * two, tied={"head.weight": "embed.weight"}).lr

    def test_a_restriction_by_the_other_name(self):
        """A rule by one name, restricted by another: both have led to the tensor."""
        actual = row(rule("embed.*", 0.5).where("head.*"))
        assert ("embed.weight", "head.weight") == actual.trace[0].via

    def test_two_declarations_on_modules(self):
        """Two modules that share a tensor and were told different rates."""
        model = Tied()
        nnlr.learning_rate(model.embed, "weight", 0.1)
        nnlr.learning_rate(model.head, "weight", 0.2)
        with pytest.raises(nnlr.NnlrError, match=r"lr_mult=0.1 on a module by the name 'embed"):
            row(model=model)

    def test_an_explicit_one_is_a_statement_too(self):
        """On modules, a 1 that was set counts against another value."""
        model = Tied()
        nnlr.learning_rate(model.embed, "weight", 1)
        nnlr.learning_rate(model.head, "weight", 0.2)
        with pytest.raises(nnlr.NnlrError, match="disagree"):
            row(model=model)

    def test_a_rule_and_a_module(self):
        """A rule by one name, a declaration by another."""
        model = Tied()
        nnlr.learning_rate(model.embed, "weight", 0.1)
        with pytest.raises(nnlr.NnlrError, match=r"declared on the module .* and rule 'head"):
            row(rule("head.*", 0.2), model=model)

    def test_absolute_against_relative(self):
        """A rate and a multiplier for one thing cannot both hold."""
        with pytest.raises(nnlr.NnlrError, match=r"\(lr=0.5\) .* \(lr_mult=0.5\)"):
            row(rule("embed.*", lr=0.5), rule("head.*", 0.5))

    def test_decay_disagrees_by_itself(self):
        """Equal rates do not hide unequal decays."""
        with pytest.raises(nnlr.NnlrError, match=r"\(wd_mult=0.0\) .* \(wd_mult=0.5\)"):
            row(rule("embed.*", 0.1, wd_mult=0), rule("head.*", 0.1, wd_mult=0.5))

    def test_options_disagree_as_options(self):
        """Unequal options are an error whatever the names."""
        with pytest.raises(nnlr.ConfigError, match="Option 'eps'"):
            row(
                rule("embed.*", options={"eps": 1e-6}),
                rule("head.*", options={"eps": 1e-8}),
            )

    def test_several_names_are_all_settled(self):
        """The line to paste has every name of the second declaration."""
        with pytest.raises(nnlr.NnlrError, match=r"'head.weight' and 'other.weight'") as caught:
            row(rule("embed.*", 0.1), rule(nnlr.regex("(head|other).*"), 0.2))
        settled = "{'head.weight': 'embed.weight', 'other.weight': 'embed.weight'}"
        assert settled in str(caught.value)
        assert (
            0.1
            == row(
                rule("embed.*", 0.1),
                rule(nnlr.regex("(head|other).*"), 0.2),
                tied=eval(settled),  # noqa: S307
            ).lr
        )

    def test_through_within(self):
        """A rule inside a part reaches the tensor by the part's name."""
        with pytest.raises(nnlr.NnlrError, match=r"by the name 'embed.weight'"):
            row(rule("weight", 0.1).within("embed"), rule("head.*", 0.2))
        with pytest.raises(nnlr.NnlrError, match=r"by the name 'other.weight'"):
            row(rule("head.*", 0.2), rule("weight", 0.1).within("other"))
        scheme = nnlr.rules([rule("other.*", 0.1)])
        with pytest.raises(nnlr.NnlrError, match=r"rule 0 'other.*'"):
            row(scheme, rule("head.*", 0.2))


class TestAgreement:
    def test_equal_values_count_once(self):
        """Two names, one value: it is declared twice and counts once."""
        assert 0.1 == row(rule("embed.*", 0.1), rule("head.*", 0.1)).lr

    def test_equal_modules_count_once(self):
        """Also on modules, and between a module and a rule."""
        model = Tied()
        nnlr.learning_rate(model, "weight", 0.1)
        assert 0.1 == row(model=model).lr
        model = Tied()
        nnlr.learning_rate(model.embed, "weight", 0.1)
        nnlr.annotate(model.head, "weight", lr_mult=0.1, wd_mult=0)
        actual = row(rule("other.*", 0.1), model=model)
        assert (0.1, 0) == (actual.lr, actual.weight_decay)

    def test_the_equal_part_counts_once_and_the_rest_adds_up(self):
        """Agreement is per setting, not per declaration."""
        actual = row(
            rule("embed.*", 0.1),
            rule("head.*", 0.1, wd_mult=0.5, options={"eps": 1e-6}),
        )
        assert (0.1, 0.5, {"eps": 1e-6}) == (
            actual.lr,
            actual.weight_decay,
            actual.options,
        )

    def test_one_side_may_be_silent(self):
        """Decay by one name and rate by another do not meet."""
        actual = row(rule("embed.*", 0.1), rule("head.*", wd_mult=0))
        assert (0.1, 0) == (actual.lr, actual.weight_decay)

    def test_a_shared_name_multiplies(self):
        """A rule on everything multiplies with a rule on one name, as everywhere."""
        assert 0.05 == row(rule("*", 0.5), rule("head.*", 0.1)).lr

    def test_declarations_by_the_same_name_multiply(self):
        """The same name twice is a product, tied or not."""
        assert 0.25 == row(rule("embed.*", 0.5), rule("embed.*", 0.5)).lr

    def test_schemes_are_no_explicit_declarations(self):
        """A recipe goes by the first name and never disagrees with a rule."""

        class Recipe(nnlr.Scheme):
            def factors(self, model):
                return [nnlr.Factor(lr_mult=0.5)] * len(model.params)

        assert 0.1 == row(Recipe(), rule("head.*", 0.2)).lr
        assert 0.1 == row(Recipe().within("other"), rule("head.*", 0.2)).lr

    def test_the_order_of_declarations_changes_nothing(self):
        """Twice by one name and once by another is the same in every order."""
        members = [rule("embed.*", 0.5), rule("embed.*", 0.5), rule("head.*", 0.5)]
        actual = {row(*order).lr for order in itertools.permutations(members)}
        assert {0.25} == actual

    def test_a_rule_that_sets_nothing_stays_in_the_trace(self):
        """Only what repeats others is dropped."""
        actual = row(rule("embed.*"), rule("head.*", 0.1))
        assert ["rule 'embed.*'", "rule 'head.*'"] == [step.source for step in actual.trace]


class TestSettling:
    def test_either_side_can_be_kept(self):
        """tied= says which name does not count."""
        schemes = (rule("embed.*", 0.1), rule("head.*", 0.2))
        assert 0.1 == row(*schemes, tied={"head.weight": "embed.weight"}).lr
        assert 0.2 == row(*schemes, tied={"embed.weight": "head.weight"}).lr

    def test_modules_are_settled_too(self):
        """A declaration at an overruled place does not count."""
        model = Tied()
        nnlr.learning_rate(model.embed, "weight", 0.1)
        nnlr.learning_rate(model.head, "weight", 0.2)
        assert 0.1 == row(model=model, tied={"head.weight": "embed.weight"}).lr
        assert 0.2 == row(model=model, tied={"embed.weight": "head.weight"}).lr

    def test_an_overruled_name_does_not_count_alone_either(self):
        """What reached the tensor by that name is dropped even where nothing disagrees."""
        assert 1 == row(rule("head.*", 0.2), tied={"head.weight": "embed.weight"}).lr

    @pytest.mark.parametrize(
        ("tied", "message"),
        [
            (
                {"haed.weight": "embed.weight"},
                "no parameter 'haed.weight'. Nearest: 'head.weight'",
            ),
            ({"head.weight": "x"}, "Tied has no parameter 'x'"),
            ({"head.weight": "head.bias"}, "not two names of one tensor"),
            ({"head.weight": "head.weight"}, "not two names of one tensor"),
            ([("head.weight", "embed.weight")], "tied must be a mapping"),
        ],
    )
    def test_what_settles_nothing_is_refused(self, tied, message):
        """Both must be names of one tensor, and two of them."""
        with pytest.raises(nnlr.NnlrError, match=message):
            row(tied=tied)


def test_bare_tensors_are_tied_by_identity():
    """Without modules two names of one tensor are aliases all the same."""
    weight = nn.Linear(1, 1).weight
    plan = nnlr.resolve({"a": weight, "b": weight}, rule("b", 0.1), lr=1, weight_decay=0)
    assert ("a", ("b",), 0.1) == (plan.rows[0].name, plan.rows[0].aliases, plan["b"].lr)


def test_a_rule_list_claims_a_tied_tensor_once():
    """In a list the first rule counts, by whatever name; the other is shadowed."""
    table = nnlr.rules([rule("head.weight", 0.1), rule("*", 0.2)])
    actual = row(table)
    assert (0.1, ("head.weight",)) == (actual.lr, actual.trace[0].via)
