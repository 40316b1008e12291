"""What the code of a model says of the order of its parts: read, never run."""

import functools
import itertools

import pytest
import torch
from torch import nn

from nnlr._model.describe import describe
from nnlr.depth import auto
from nnlr.depth._blocks.code import takes_by_code
from nnlr.depth._blocks.source import UnreadableError, Used
from nnlr.errors import NnlrError
from tests import zoo


def runs(forward, **parts):
    """A module of a class of its own, with these parts and this forward."""
    made = type("Net", (nn.Module,), {"forward": forward})()
    for name, part in parts.items():
        setattr(made, name, part)
    return made


def chain(parts, x):
    """Each part takes what the one before gives."""
    for part in parts:
        x = torch.relu(part(x))
    return x


def linears(count=3):
    """Equal layers in a list."""
    return nn.ModuleList(nn.Linear(8, 8) for _ in range(count))


def blocks(count=2):
    """Equal blocks in a list."""
    return nn.ModuleList(zoo.Block(8) for _ in range(count))


def depths(model):
    """Each parameter's tower and layer; nothing if it is refused."""
    info = describe(model)
    try:
        layers = auto().layers(info)
    except NnlrError:
        return {}
    names = (param.name for param in info.params)
    return {n: (v.tower, v.depth) for n, v in zip(names, layers, strict=True) if v}


class TestOrder:
    @pytest.mark.parametrize("names", list(itertools.permutations(["head", "mid", "start"])))
    def test_parts_may_be_registered_in_any_order(self, names):
        """Of equal widths; it was read as it was registered."""
        made = {"start": zoo.Block(8), "mid": nn.Linear(8, 8), "head": zoo.Block(8)}
        parts = {name: made[name] for name in names}
        found = depths(runs(lambda self, x: self.head(self.mid(self.start(x))), **parts))
        if found:
            assert found["start.fc.weight"][1] < found["mid.weight"][1]
            assert found["start.fc.weight"][1] < found["head.fc.weight"][1]

    def test_a_net_of_equal_widths_is_known_by_its_code(self):
        """The widths alone refuse it."""

        def forward(self, x):
            return self.out(self.b(self.act(self.a(self.start(x)))))

        layers = {name: nn.Linear(8, 8) for name in ("a", "b", "start", "out")}
        found = depths(runs(forward, **layers, act=nn.ReLU()))
        assert [0, 1, 2, 3] == [found[f"{n}.weight"][1] for n in ("start", "a", "b", "out")]

    def test_a_decoder_that_is_registered_first_runs_last(self):
        """Both of one width: silently in the order of registration before."""

        def forward(self, x):
            return self.out(chain(self.decoder, chain(self.encoder, self.start(x))))

        ends = {"start": nn.Linear(4, 8), "out": nn.Linear(8, 2)}
        found = depths(runs(forward, decoder=blocks(), encoder=blocks(), **ends))
        assert found["start.weight"][1] < found["encoder.0.fc.weight"][1]
        assert found["encoder.1.fc.weight"][1] < found["decoder.0.fc.weight"][1]
        assert found["decoder.1.fc.weight"][1] < found["out.weight"][1]

    def test_what_no_source_tells_is_told_by_widths(self):
        """No forward, one that is built in, and one that is generated."""
        names = {"a": nn.Linear(4, 8), "b": nn.Linear(8, 16), "c": nn.Linear(16, 2)}
        expected = {"a.weight": 0, "b.weight": 1, "c.weight": 2}
        scope = {}
        exec("def forward(self, x):\n    return self.c(self.b(self.a(x)))", scope)  # noqa: S102
        for forward in (None, functools.partial(print), print, scope["forward"]):
            found = depths(runs(forward, **names))
            assert expected == {name: found[name][1] for name in expected}


class TestLists:
    @pytest.mark.parametrize(
        "kind", [nn.ModuleList, lambda parts: nn.Sequential(*parts)], ids=["list", "sequential"]
    )
    @pytest.mark.parametrize(
        "together",
        [
            lambda parts, x: sum(part(x) for part in parts),
            lambda parts, x: torch.cat([part(x) for part in parts], -1)[..., :8],
            lambda parts, x: torch.stack([part(x) for _, part in enumerate(parts)]).mean(0),
            lambda parts, x: sum(map(lambda part: part(x), parts)),  # noqa: C417
        ],
        ids=["sum", "cat", "enumerate", "map"],
    )
    def test_members_that_code_collects_are_no_sequence(self, kind, together):
        """Equal square members: they were read in a row."""

        def forward(self, x):
            return self.out(together(self.members, self.start(x)))

        for member in (lambda: nn.Linear(8, 8), lambda: zoo.Block(8)):
            members = kind([member() for _ in range(3)])
            ends = {"start": nn.Linear(4, 8), "out": nn.Linear(8, 2)}
            model = runs(forward, start=ends["start"], members=members, out=ends["out"])
            found = {n: at for n, at in depths(model).items() if "members" in n}
            assert len(set(found.values())) < 2

    def test_members_that_are_appended_to_a_list_are_no_sequence(self):
        """And those that are chained are one."""

        def apart(self, x):
            x, results = self.start(x), []
            for part in self.members:
                results.append(part(x))  # noqa: PERF401  the way that is tried
            return self.out(torch.stack(results).sum(0))

        def in_a_row(self, x):
            return self.out(chain(self.members, self.start(x)))

        ends = {"start": nn.Linear(4, 8), "out": nn.Linear(8, 2)}
        assert {} == depths(runs(apart, members=linears(), **ends))
        found = depths(runs(in_a_row, start=ends["start"], members=linears(), out=ends["out"]))
        assert [1, 2, 3] == [found[f"members.{at}.weight"][1] for at in range(3)]

    @pytest.mark.parametrize(
        "kind", [nn.ModuleList, lambda parts: nn.Sequential(*parts)], ids=["list", "sequential"]
    )
    def test_lists_that_take_turns_are_no_sequence(self, kind):
        """Zipped, in lists or Sequentials of equal widths."""

        def forward(self, x):
            for one, two in zip(self.ones, self.twos, strict=True):
                x = two(one(x))
            return self.out(x)

        parts = {name: kind([zoo.Block(8) for _ in range(3)]) for name in ("ones", "twos")}
        found = depths(runs(forward, **parts, out=nn.Linear(8, 2)))
        assert not found or found["ones.1.fc.weight"] == found["twos.1.fc.weight"]


class TestInputs:
    def test_stacks_with_an_input_each_are_no_sequence(self):
        """Two stacks of one width on one module: it was read as one tower."""

        def forward(self, image, text):
            one = chain(self.see, self.patch(image).flatten(2).mT)
            return one, chain(self.read, self.tokens(text))

        ends = {"patch": nn.Conv2d(3, 8, 4), "tokens": nn.Embedding(9, 8)}
        for see, read in (("see", "read"), ("read", "see")):
            found = depths(runs(forward, **ends, **{see: blocks(), read: blocks()}))
            towers = {n: tower for n, (tower, _) in found.items()}
            assert not found or towers["see.0.fc.weight"] != towers["read.0.fc.weight"]


def names_of(model):
    """The parts that its code uses, and what each may take, by name."""
    names = {module: name for name, module in model.named_modules()}

    def name(used):
        return names[used.module] + "[]" * used.member

    return {name(used): set(map(name, each)) for used, each in takes_by_code(model).items()}


class TestReader:
    def test_it_follows_methods_properties_closures_and_other_functions(self):
        """Whatever stands between the forward and the call of a part."""
        scale = 2

        class Net(nn.Module):
            def __init__(self):
                super().__init__()
                self.a, self.b, self.c, self.d = (nn.Linear(8, 8) for _ in range(4))

            @property
            def last(self):
                return self.d

            def middle(self, x, *more, **options):
                return self.b(x) * len(more) + options["add"]

            @torch.no_grad()
            def forward(self, x, flag=False):
                def first(value):
                    return scale * self.a(value)

                x = first(x)
                if flag:  # noqa: SIM108  the way that is tried
                    x = self.middle(x, 1, 2, add=x)
                else:
                    x = self.middle(*[x, 3], add=1)
                with torch.no_grad() as _:
                    self.kept = getattr(self, "c")(x)  # noqa: B009
                y: torch.Tensor = self.kept
                y += 1
                return self.last(y)

        assert {"a": set(), "b": {"a"}, "c": {"a", "b"}, "d": {"a", "b", "c"}} == names_of(Net())

    def test_it_follows_members_by_number_and_by_name(self):
        """A slice may be any of them."""

        def forward(self, x):
            x = self.parts[0](x)
            x = self.named["one"](x)
            for part in self.parts[1:]:
                x = part(x)
            return x

        named = nn.ModuleDict({"one": nn.Linear(8, 8)})
        found = names_of(runs(forward, parts=linears(), named=named))
        assert {"parts.0"} == found["named.one"]
        assert {"parts.0", "named.one", "parts[]"} == found["parts[]"]

    @pytest.mark.parametrize(
        "forward",
        [
            lambda self, x: [part(x) for part in self.children()],
            lambda self, x: getattr(self, f"a{x}")(x),
            lambda self, x: self(x),
            lambda self, x: torch.vmap(self)(x),
        ],
        ids=["children", "getattr", "itself", "handed-on"],
    )
    def test_code_that_cannot_be_followed_says_nothing(self, forward):
        """It hands the whole module on, or takes a part by a name it computes."""
        with pytest.raises(UnreadableError, match=r"^$"):
            takes_by_code(runs(forward, a=nn.Linear(8, 8)))

    def test_parts_that_others_run_may_take_anything(self):
        """A part that is an argument of another, and of a function of torch."""

        def forward(self, x):
            x = self.a(x, self.b)
            return torch.utils.checkpoint.checkpoint(self.c, x)

        model = runs(forward, a=nn.Linear(8, 8), b=nn.Linear(8, 8), c=nn.Linear(8, 8))
        takes = takes_by_code(model)
        assert Used(model.a) in takes[Used(model.b)]
        assert Used(model.b) in takes[Used(model.a)]
        assert Used(model.a) in takes[Used(model.c)]

    def test_a_part_whose_weight_is_read_is_left_out(self):
        """Where it is used is not followed."""

        def forward(self, x):
            return self.b(nn.functional.linear(self.a(x), self.c.weight))

        model = runs(forward, a=nn.Linear(8, 8), b=nn.Linear(8, 8), c=nn.Linear(8, 8))
        assert {"a", "b"} == set(names_of(model))


def net(forward, **of_class):
    """Three equal layers, registered from the last to the first, and what their class has."""
    parts = {name: nn.Linear(8, 8) for name in ("c", "b", "a")}
    made = runs(forward, **parts)
    for name, thing in of_class.items():
        setattr(type(made), name, thing)
    return made


def apply(layer, x, /, *more, act=torch.relu, **options):
    """A function beside the class."""
    return act(layer(x, **options), *more)


def apply_all(layers, x):
    """One that makes more of its input with every layer."""
    for layer in layers:
        x = (layer(x), x)
    return x


def with_default(self, x):
    return self.c(self.b([y := self.a(x), y][1]))


def with_comprehensions(self, x):
    by_name = {name: part(x) for name, part in {"a": self.a}.items()}
    return self.c(self.b(max([value for value in by_name.values()])))  # noqa: C416  is tried


def with_stars(self, x):
    first, second, *others = [self.a, self.b, self.c]
    x, y = second(first(x), *[x], others=len(others)), x
    for third in others:
        x = third(x, y)
    return x


def with_functions(self, x):
    return apply(self.c, x=apply(self.b, apply(self.a, x, act=torch.tanh)), act=torch.tanh)


def with_methods(self, x):
    return self.last(self.later(x), self.c)


def with_a_generator(self, x):
    def values():
        yield self.a(x)

    return self.c(self.b(next(values())))


def with_subscripts(self, x):
    values = [None, None]
    values[0] = self.a(x)
    values.append(self.b(values[0]))
    return self.c(values[-1])


def with_an_empty_loop(self, x):
    for _ in ():
        pass
    else:  # noqa: PLW0120  the way that is tried
        x = self.a(x)
    return self.c(self.b(x))


def with_modules_of_torch(self, x):
    with torch.autocast("cpu") as context, torch.no_grad():
        x = torch.nn.functional.relu(self.a(x))
    assert context
    return self.c.forward(self.b(x))


def with_a_conditional(self, x):
    part = self.b if x is None else torch.nn.Identity()
    return self.c(part(self.a(x)))


class TestConstructs:
    @pytest.mark.parametrize(
        "forward",
        [
            with_default,
            with_comprehensions,
            with_stars,
            with_functions,
            with_methods,
            with_a_generator,
            with_subscripts,
            with_an_empty_loop,
            with_modules_of_torch,
            with_a_conditional,
        ],
    )
    def test_equal_layers_stand_as_the_code_runs_them(self, forward):
        """By their widths they could stand in any order."""
        of_class = {
            "last": staticmethod(lambda x, part: part(x)),
            "later": property(lambda self: self.earlier),
            "earlier": lambda self, x: self.b(self.a(x)),
        }
        found = depths(net(forward, **of_class))
        assert {"a": 0, "b": 1, "c": 2} == {name: found[f"{name}.weight"][1] for name in "abc"}

    def test_a_method_of_an_instance_is_followed(self):
        """As torch.compile and others set it."""
        model = net(None, run=lambda self, x: self.c(self.b(self.a(x))))
        model.forward = model.run
        assert 2 == depths(model)["c.weight"][1]

    def test_a_loop_that_makes_ever_more_of_its_value_ends(self):
        """Its parts never stay the same."""
        forward = lambda self, x: apply_all([self.a, self.b, self.c], x)  # noqa: E731
        assert {"a", "b", "c"} == set(names_of(net(forward)))


def unset():
    """A forward that uses a name which has no value yet."""

    def forward(self, x):
        return later(self.a(x))

    if forward is None:
        later = None
    return forward


def with_while(self, x):
    while x is None:
        x = self.b(self.a(x))
    return self.c(x)


def with_try(self, x):
    try:
        return self.c(self.b(self.a(x)))
    except RuntimeError:
        return x


def with_match(self, x):
    match x:
        case None:
            x = self.b(self.a(x))
    return self.c(x)


def with_a_call_of_itself(self, x):
    return self.forward(self.c(self.b(self.a(x))))


def with_a_class_method(self, x):
    return self.c(self.made(self.b(self.a(x))))


class TestUnreadable:
    @pytest.mark.parametrize(
        "forward",
        [unset(), with_while, with_try, with_match, with_a_call_of_itself, with_a_class_method],
    )
    def test_what_is_not_followed_is_refused_where_widths_do_not_tell(self, forward):
        """Equal layers, in the order opposite to that of registration."""
        model = net(forward, made=classmethod(lambda cls, x: x))
        with pytest.raises(UnreadableError, match=r"^$"):
            takes_by_code(model)
        assert {} == depths(model)


def loop(parts, x):
    for part in parts:
        x = torch.relu(part(x))
    return x


FORWARDS = {
    "loop": lambda self, x: loop(self.parts, x),
    "twice": lambda self, x: loop(reversed(list(reversed(self.parts))), x),
    "slices": lambda self, x: loop(self.parts[1:], self.parts[0](x)),
    "numbers": lambda self, x: loop((self.parts[i] for i in range(3)), x),
    "next-numbers": lambda self, x: loop((self.parts[i - 1] for i in range(1, 4, 1)), x),
    "both-fall": lambda self, x: loop(
        (self.parts[len(self.parts) - 1 - i] for i in range(2, -1, -1)), x
    ),
    "features": lambda self, x: loop(self.parts, [x, x][::-1][0]),
}
BACKWARDS = {
    "reversed": lambda self, x: loop(reversed(self.parts), x),
    "list": lambda self, x: loop(reversed(list(self.parts)), x),
    "enumerate": lambda self, x: loop([part for _, part in enumerate(reversed(self.parts))], x),
    "slice": lambda self, x: loop(self.parts[::-1], x),
    "first-of-slice": lambda self, x: loop(self.parts[::-1][1:], self.parts[::-1][0](x)),
    "range": lambda self, x: loop((self.parts[i] for i in range(2, -1, -1)), x),
    "reversed-range": lambda self, x: loop((self.parts[i] for i in reversed(range(3))), x),
    "from-the-end": lambda self, x: loop((self.parts[-i] for i in range(1, 4)), x),
    "less": lambda self, x: loop((self.parts[2 - i] for i in range(3)), x),
    "not": lambda self, x: loop((self.parts[~i] for i in range(3)), x),
    "pop": lambda self, x: loop((self.parts.pop() for _ in range(3)), x),
    "children": lambda self, x: loop(reversed(list(self.parts.children())), x),
}


def with_parts(forward, kind):
    """Equal members of a list between two ends."""

    def whole(self, x):
        return self.out(forward(self, self.start(x)))

    parts = kind([nn.Linear(8, 8) for _ in range(3)])
    return runs(whole, start=nn.Linear(4, 8), parts=parts, out=nn.Linear(8, 2))


class TestBackwards:
    @pytest.mark.parametrize("kind", [nn.ModuleList, lambda parts: nn.Sequential(*parts)])
    @pytest.mark.parametrize("forward", FORWARDS.values(), ids=FORWARDS)
    def test_members_from_the_first_to_the_last_are_a_row(self, forward, kind):
        """However they are taken."""
        found = depths(with_parts(forward, kind))
        assert [1, 2, 3] == [found[f"parts.{at}.weight"][1] for at in range(3)]

    @pytest.mark.parametrize("kind", [nn.ModuleList, lambda parts: nn.Sequential(*parts)])
    @pytest.mark.parametrize("forward", BACKWARDS.values(), ids=BACKWARDS)
    def test_members_from_the_last_to_the_first_are_not_read_forwards(self, forward, kind):
        """They were, in silence."""
        assert {} == depths(with_parts(forward, kind))

    def test_a_sequential_that_is_turned_is_not_read_forwards(self):
        """It runs its members itself."""
        model = with_parts(lambda self, x: self.parts[::-1](x), lambda ps: nn.Sequential(*ps))
        with pytest.raises(NnlrError, match="'parts' runs from its last member to its first"):
            auto().layers(describe(model))

    def test_one_layer_may_be_turned(self):
        """It is the first and the last."""
        model = with_parts(BACKWARDS["reversed"], lambda parts: nn.ModuleList(parts[:1]))
        assert 1 == depths(model)["parts.0.weight"][1]

    def test_members_may_run_in_both_directions(self):
        """As flows do: the first direction is that of training."""

        def both(self, x):
            return loop(self.parts, x) if x is None else loop(reversed(self.parts), x)

        found = depths(with_parts(both, nn.ModuleList))
        assert [1, 2, 3] == [found[f"parts.{at}.weight"][1] for at in range(3)]

    def test_members_side_by_side_may_be_turned(self):
        """As those of a pyramid: none takes what another gives."""

        def forward(self, x):
            values = zip(reversed(self.parts), self.start(x), strict=True)
            return [part(value) for part, value in values]

        takes = takes_by_code(runs(forward, parts=linears(), start=zoo.Block(8)))
        [(_, sources)] = [(used, sources) for used, sources in takes.items() if used.member]
        assert ["Block"] == [type(source.module).__name__ for source in sources]


class TestMembers:
    @pytest.mark.parametrize(
        "forward",
        [
            lambda self, x: loop([part.fc for part in self.parts], x),
            lambda self, x: loop([part for part in self.parts.children()], x),  # noqa: C416
            lambda self, x: loop([part.children() for part in self.parts], x),
        ],
        ids=["part", "children", "children-of-members"],
    )
    def test_what_members_hold_stands_where_they_stand(self, forward):
        """A part of each, or all of each."""

        def whole(self, x):
            return self.out(forward(self, self.start(x)))

        found = depths(runs(whole, start=nn.Linear(4, 8), parts=blocks(3), out=nn.Linear(8, 2)))
        assert [1, 2, 3] == [found[f"parts.{at}.fc.weight"][1] for at in range(3)]
