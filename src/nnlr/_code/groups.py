"""The function that fills the groups: its table, how it is read, and the order of the groups."""

from collections.abc import Callable, Collection, Mapping, Sequence
from functools import partial
from itertools import chain
from typing import Final, NamedTuple

from nnlr._apply.optimizer import NOTES
from nnlr._apply.param_groups import ParamGroup
from nnlr._code.lines import WIDTH, Brackets, comment, literal, quoted, with_index
from nnlr._code.powers import power
from nnlr._code.table import Loop, LoopRow, Row, table
from nnlr._rows.rates import Bases
from nnlr.optim._members import ALGORITHM

_NO_OPTIONS: Final = {"params", "lr", "weight_decay", ALGORITHM, *NOTES}

_ABOUT: Final = '''\
    """Return {what} with rates of {their} own.

    Pass the model itself, without DistributedDataParallel or torch.compile around it: they put
    words before its names. A trainable parameter in no row of the table, or in two, is an error.

    Schedulers that multiply the rate of each group (LambdaLR, StepLR, a cosine to 0) keep their
    ratios; one floor or peak for all groups (eta_min, max_lr) does not.
    """'''

_READ: Final = """\
    for name, param in model.named_parameters():
        if param.requires_grad:
            matches = [group for regex, group in rows if regex.match(name)]
            if len(matches) != 1:
                raise ValueError(f"{name!r} is in {len(matches)} rows of the table, not in one")
            matches[0]["params"].append(param)"""

_FREEZE: Final = """\
    for param in groups.pop({key})["params"]:  # a rate of 0: frozen, and in no group
        param.requires_grad_(False)
        param.grad = None"""

# What groups may be sorted by in a line, {} for the base rate; first what needs few words.
_ORDERS: Final[Mapping[str, Callable[["Rates", float], tuple[float, ...]]]] = {
    '-group["lr"]': lambda rates, _: (-rates.lr,),
    '(-group["lr"], -group["weight_decay"])': lambda rates, _: (-rates.lr, -rates.decay),
    '(group["lr"] != {}, -group["lr"])': lambda rates, base: (rates.lr != base, -rates.lr),
    '(group["lr"] != {}, -group["lr"], -group["weight_decay"])': lambda rates, base: (
        *(rates.lr != base, -rates.lr, -rates.decay),
    ),
}


class Rates(NamedTuple):
    """What tells the groups of the code apart."""

    algorithm: str | None
    lr: float
    weight_decay: float | None  # None where no group has one
    options: str  # as an expression

    @property
    def decay(self) -> float:
        """The weight decay as a number."""
        return self.weight_decay or 0.0


class GroupsWriter:
    """Writes ``param_groups``."""

    def __init__(
        self,
        groups: Sequence[ParamGroup],
        names: Mapping[str, str],
        locked: Collection[str],
        bases: Bases,
        *,
        several: bool,
        apart: Collection[str] = (),
    ) -> None:
        """Read the groups of a plan; ``names`` are those of the code, in the model's order.

        Parameters that are ``apart`` have groups of their own, whose names the code keeps.
        """
        self._several, self._apart = several, apart
        self._decays = any("weight_decay" in group for group in groups)
        self._bases = bases
        numbers: dict[Rates, int] = {}
        group_of: dict[str, int] = {}
        for group in groups:
            number = numbers.setdefault(self._read(group), len(numbers))
            group_of.update((name, number) for name, _ in group["params"])
        self._planned = list(numbers)
        self._frozen = Rates(None, 0.0, 0.0 if self._decays else None, "{}")
        if locked:
            number = numbers.setdefault(self._frozen, len(numbers))
            group_of.update((name, number) for name in locked)
        self._freezes = bool(locked)
        self._rates = list(numbers)
        self._optional = any(rates.options != "{}" for rates in self._rates)
        numbered = {code: group_of[name] for name, code in names.items() if name in group_of}
        self._items = list(chain.from_iterable(map(self._plain, table(numbered))))

    def lines(self) -> list[str]:
        """The function."""
        what, their = ("the groups of each algorithm", "its")
        returned = "dict[str, list[dict]]"
        if not self._several:
            what, their, returned = "parameter groups", "their", "list[dict]"
        columns = ["names (* is any text)", "learning rate"]
        columns = [*["algorithm"] * self._several, *columns, *["weight decay"] * self._decays]
        columns += ["other settings"] * self._optional
        heading = ", ".join(columns)
        return [
            f"def param_groups(model: nn.Module) -> {returned}:",
            _ABOUT.format(what=what, their=their),
            *comment(f"{heading[0].upper()}{heading[1:]}. Equal rows are one group.".split(" "), 4),
            *self._table(),
            *self._grouping(),
            _READ,
            *([_FREEZE.format(key=self._key(self._frozen))] if self._freezes else []),
            *self._returned(),
        ]

    def _read(self, group: ParamGroup) -> Rates:
        """What the code says of a group."""
        options = {key: value for key, value in group.items() if key not in _NO_OPTIONS}
        if group["params"][0][0] in self._apart:
            options["name"] = group["name"]
        algorithm = group.get(ALGORITHM) if self._several else None
        decay = group.get("weight_decay", 0.0) if self._decays else None
        return Rates(algorithm, group["lr"], decay, literal(options, "options"))

    def _plain(self, item: Row | Loop) -> list[Row | Loop]:
        """An item of the table; rows for a loop that is no shorter or varies other settings."""
        if isinstance(item, Row):
            return [item]
        own: list[LoopRow] = []
        others: list[LoopRow] = []
        for row in item.rows:
            kinds = {
                (self._rates[group].algorithm, self._rates[group].options) for group in row.groups
            }
            (own if len(kinds) == 1 else others).append(row)
        loop, rows = Loop(item.layers, own), Loop(item.layers, others).written_out()
        is_short = own and len(self._loop(loop)) < len(loop.written_out())
        return [*([loop] if is_short else loop.written_out()), *rows]

    # --- the table ------------------------------------------------------------------

    def _table(self) -> list[str]:
        """The statements that fill the table."""
        lines: list[str] = []
        rows: list[Brackets] = []
        if isinstance(self._items[0], Loop):
            lines.append("    table = []")
        for item in (*self._items, None):
            if isinstance(item, Row):
                rows.append(self._row(quoted(item.pattern), self._rates[item.group]))
                continue
            if rows:
                sign = "+=" if lines else "="
                lines += Brackets(f"table {sign} [", rows, "]", opened=True).lines(4)
                rows = []
            if item is not None:
                lines += self._loop(item)
        return lines

    def _row(self, pattern: str, rates: Rates, lr: str = "", decay: str = "") -> Brackets:
        """A row; its rates are expressions in a loop."""
        items = [literal(rates.algorithm, "algorithm")] if self._several else []
        items += [pattern, lr or repr(rates.lr)]
        if self._decays:
            items.append(decay or repr(rates.weight_decay))
        if self._optional:
            items.append(rates.options)
        return Brackets("(", items, ")")

    def _loop(self, loop: Loop) -> list[str]:
        """A loop over layers: the rates that vary, and the rows."""
        before: list[str] = []
        inside: list[str] = []
        variables: dict[tuple[str, tuple[float, ...]], str] = {}

        def expression(word: str, values: tuple[float, ...], base: float) -> str:
            """What stands in a row: a number, or a variable of the loop."""
            if len(set(values)) == 1:
                return repr(values[0])
            if (word, values) not in variables:
                count = sum(each[0] == word for each in variables)
                name = variables[word, values] = f"{word}_{count + 1}" if count else word
                right = power(values, loop.layers.start, base)
                if right is None:
                    listing = f"{word}s_{count + 1}" if count else f"{word}s"
                    numbers = Brackets(f"{listing} = [", list(map(repr, values)), "]")
                    before.extend(numbers.lines(4))
                    start = loop.layers.start
                    right = f"{listing}[i - {start}]" if start else f"{listing}[i]"
                inside.append(f"        {name} = {right}")
            return variables[word, values]

        rows = []
        for row in loop.rows:
            rates = [self._rates[group] for group in row.groups]
            base = self._bases.of(rates[0].algorithm)
            lr = expression("lr", tuple(each.lr for each in rates), base.lr)
            decays = tuple(each.decay for each in rates)
            decay = expression("weight_decay", decays, base.weight_decay) if self._decays else ""
            rows.append(self._row(with_index(row.before, row.after), rates[0], lr, decay))
        start, stop = loop.layers.start, loop.layers.stop
        bounds = f"{start}, {stop}" if start else f"{stop}"
        opened = len(rows) > 1
        filled = Brackets("table += [", rows, "]", opened=opened).lines(8)
        return [*before, f"    for i in range({bounds}):", *inside, *filled]

    # --- how it is read -------------------------------------------------------------

    def _grouping(self) -> list[str]:
        """The loop that makes the groups."""
        settings = ["lr", *["weight_decay"] * self._decays]
        columns = [*["algorithm"] * self._several, "pattern", *settings]
        keys = [*["algorithm"] * self._several, *settings]
        items = ['"params": []', *(f'"{name}": {name}' for name in settings)]
        if self._optional:
            columns.append("options")
            keys.append("*options.items()")
            items.append("**options")
        comma = "," if len(keys) == 1 else ""
        made: list[str | Brackets] = ["rates", Brackets("{", items, "}")]
        return [
            "    groups: dict[tuple, dict] = {}",
            "    rows = []",
            f"    for {', '.join(columns)} in table:",
            f"        rates = ({', '.join(keys)}{comma})",
            *Brackets("group = groups.setdefault(", made, ")").lines(8),
            "        rows.append((re.compile(translate(pattern)), group))",
        ]

    def _key(self, rates: Rates) -> str:
        """The key of a group."""
        items = [literal(rates.algorithm, "algorithm")] if self._several else []
        items.append(repr(rates.lr))
        if self._decays:
            items.append(repr(rates.weight_decay))
        if rates.options != "{}":
            items.append(f"*{rates.options}.items()")
        comma = "," if len(items) == 1 else ""
        return f"({', '.join(items)}{comma})"

    # --- the order ------------------------------------------------------------------

    def _made(self) -> list[Rates]:
        """The groups in the order in which the code meets them."""
        order: dict[int, None] = {}
        for item in self._items:
            if isinstance(item, Row):
                order[item.group] = None
            else:
                columns = zip(*(row.groups for row in item.rows), strict=True)
                order.update(dict.fromkeys(chain.from_iterable(columns)))
        return [self._rates[at] for at in order if self._rates[at] in self._planned]

    def _returned(self) -> list[str]:
        """The statements that return the groups in the order of the plan."""
        made, planned, base = self._made(), self._planned, self._bases.of(None).lr
        if self._equal(made, planned):
            return self._statement("", "")
        for text, key in _ORDERS.items():
            needs_one = self._several and "{}" in text
            if not needs_one and self._equal(sorted(made, key=partial(_call, key, base)), planned):
                return self._statement("", f"lambda group: {text.format(repr(base))}")
        order = Brackets("order = [", list(map(self._key, planned)), "]").lines(4)
        return [*order, *self._statement("order", "")]

    def _equal(self, one: Sequence[Rates], two: Sequence[Rates]) -> bool:
        """Whether two orders of groups are the same, for each algorithm."""
        names = {rates.algorithm for rates in two}
        return all(
            [r for r in one if r.algorithm == name] == [r for r in two if r.algorithm == name]
            for name in names
        )

    def _statement(self, order: str, key: str) -> list[str]:
        """The return statement."""
        if not self._several:
            if order:
                return ["    return [groups[rates] for rates in order]"]
            if key:
                call = ["groups.values()", f"key={key}"]
                return Brackets("return sorted(", call, ")").lines(4)
            return ["    return list(groups.values())"]
        each = "[group for rates, group in groups.items() if rates[0] == name]"
        if order:
            each = "[groups[rates] for rates in order if rates[0] == name]"
        member = Brackets("name: ", [each], "")
        if key:
            member = Brackets("name: sorted(", [each, f"key={key}"], ")")
        names = tuple(dict.fromkeys(str(rates.algorithm) for rates in self._planned))
        loop = f"for name in {literal(names, 'names')}"
        if len(whole := f"    return {{{member} {loop}}}") <= WIDTH:
            return [whole]
        fits = len(whole := f"        {member} {loop}") <= WIDTH
        inside = [whole] if fits else [*member.lines(8), f"        {loop}"]
        return ["    return {", *inside, "    }"]


def _call(
    key: Callable[[Rates, float], tuple[float, ...]], base: float, rates: Rates
) -> tuple[float, ...]:
    """The sorting key of a group."""
    return key(rates, base)
