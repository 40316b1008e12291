"""What a plan shows: its rows, layers and rates, as text."""

from collections.abc import Iterable, Iterator, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any

from torch.optim import Optimizer

from nnlr._arguments import flag, instance, is_listing
from nnlr._findings import Finding
from nnlr._model.names import resolve_name
from nnlr._rows.groups import Group
from nnlr._rows.layers import PlanLayers, layers_of_rows
from nnlr._rows.rates import Bases, Decay, OneBase, written
from nnlr._rows.row import PlanRow, find_row
from nnlr._text import plural
from nnlr.errors import NnlrError
from nnlr.report._columns import chosen
from nnlr.report._course import RatesOverTime, rates_over_time
from nnlr.report._csv import csv_text
from nnlr.report._explain import explain
from nnlr.report._plot_style import WIDTH, as_width
from nnlr.report._table import Facts, markdown, table
from nnlr.report._text import preformatted

if TYPE_CHECKING:
    from matplotlib.figure import Figure


class PlanViews:
    """The half of :class:`nnlr.Plan` that only reads it."""

    rows: tuple[PlanRow, ...]
    groups: tuple[Group, ...]
    label: str
    findings: tuple[Finding, ...]
    _bases: Bases

    @property
    def lr(self) -> float:
        """Base learning rate; of several algorithms the first's."""
        return self._bases.of(None).lr

    @property
    def weight_decay(self) -> float:
        """Base weight decay; of several algorithms the first's."""
        return self._bases.of(None).weight_decay

    @property
    def algorithms(self) -> dict[str, OneBase]:
        """The base rates of each algorithm, by name; empty where the plan is for one class."""
        routed = (group.algorithm for group in self.groups if group.algorithm is not None)
        return {name: self._bases.of(name) for name in (*self._bases.algorithms, *routed)}

    @property
    def decay(self) -> Decay:
        """The weight decay mode."""
        return self._bases.decay

    @cached_property
    def _by_name(self) -> dict[str, PlanRow]:
        by_name = {alias: row for row in self.rows for alias in row.aliases}
        return by_name | {row.name: row for row in self.rows}

    @property
    def layers(self) -> PlanLayers:
        """The reading of depth: the layers of each tower, as names, and what is outside.

        Empty where no scheme asked for depth.

        Examples:
            >>> import nnlr
            >>> from torch import nn
            >>> net = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 1, bias=False))
            >>> plan = nnlr.resolve(net, nnlr.layer_decay(0.5), lr=1, weight_decay=0)
            >>> dict(plan.layers)
            {'': (('0.weight', '0.bias'), ('1.weight',))}
        """
        return layers_of_rows(self.rows)

    def __getitem__(self, name: str) -> PlanRow:
        """The row of a parameter, by canonical name, alias or raw name."""
        return find_row(name, self._by_name, self.label)

    def __contains__(self, name: object) -> bool:
        """Whether the plan has a row of that name."""
        return isinstance(name, str) and resolve_name(name, self._by_name) is not None

    def __iter__(self) -> Iterator[PlanRow]:
        """The rows."""
        return iter(self.rows)

    def __len__(self) -> int:
        """Number of rows."""
        return len(self.rows)

    def __repr__(self) -> str:
        """One line."""
        counts = f"{plural(len(self.rows), 'parameter')}, {plural(len(self.groups), 'group')}"
        mode = "" if self.decay == "coupled" else f", decay={self.decay!r}"
        return (
            f"Plan({self.label}: {counts}, lr={written(self._bases.lr)}, "
            f"weight_decay={written(self._bases.weight_decay)}{mode})"
        )

    def __str__(self) -> str:
        """The table, folded."""
        return self.table()

    def table(
        self,
        *,
        full: bool = False,
        trained: bool = False,
        columns: str | Sequence[str] | None = None,
        optimizer: Optimizer | None = None,
    ) -> str:
        """The plan as a table of at most 80 columns.

        Args:
            full: Show every row. Otherwise rows of equal rates share a line, more of them the
                larger the model is (``blocks.{0..11}.norm1.weight``), and the table has at most 60
                lines.
            trained: Show only what is trained: the adapters of a frozen model.
            columns: Names of columns instead of the usual ones; those with a plus are shown beside
                them, as ``"+role"``. There are ``layer``, ``tower``, ``algorithm``, ``tensors``,
                ``numel``, ``shape``, ``role``, ``state``, ``group``, ``options``, ``lr_mult``,
                ``lr``, ``wd_mult``, ``weight_decay``, ``eps_mult``, ``init_mult``, ``update``
                (root mean square of a step, from least to most), ``bytes`` (of state), and of what
                moves while training ``unit`` and ``moves`` (how).
            optimizer: The one that the plan built, to tell the bytes of its state too; before a
                first step those that it will take.

        Raises:
            ConfigError: If there is no such column, or ``bytes`` is wanted without an optimizer.

        Examples:
            >>> import nnlr
            >>> from torch import nn
            >>> plan = nnlr.resolve(nn.Linear(2, 1), lr=0.1, weight_decay=0)
            >>> print(plan.table(columns="shape,role,lr").splitlines()[2])
            parameter                 shape    role   lr
        """
        return table(self._facts(full, trained, columns, optimizer))

    def to_markdown(
        self,
        *,
        full: bool = False,
        trained: bool = False,
        columns: str | Sequence[str] | None = None,
        optimizer: Optimizer | None = None,
    ) -> str:
        """The table as Markdown, for a pull request or a notebook; names stand in code spans.

        Args:
            full: As in :meth:`table`; so are the others.
            trained: See ``full``.
            columns: See ``full``.
            optimizer: See ``full``.

        Raises:
            ConfigError: As in :meth:`table`.

        Examples:
            >>> import nnlr
            >>> from torch import nn
            >>> plan = nnlr.resolve(nn.PReLU(), lr=0.1, weight_decay=0)
            >>> print(plan.to_markdown().splitlines()[6])
            | parameter | numel | lr | decay |
        """
        return markdown(self._facts(full, trained, columns, optimizer))

    def to_csv(self) -> str:
        """One line for each parameter, with a heading, for a spreadsheet or a data frame.

        Numbers have all their digits. A shape is ``2x3``, options are JSON, aliases have a space
        between them. What a spreadsheet would run as a formula gets an apostrophe in front.

        Examples:
            >>> import nnlr
            >>> from torch import nn
            >>> plan = nnlr.resolve(nn.PReLU(), lr=0.1, weight_decay=0)
            >>> print(plan.to_csv().splitlines()[1])
            weight,,,gain,1,1,trained,,lr1_wd1,0.1,0.0,1.0,1.0,1.0,1.0,,,
        """
        return csv_text(self.rows)

    def _facts(self, full: object, trained: object, columns: object, optimizer: object) -> Facts:
        """What a table is drawn from."""
        built = _built(optimizer)
        return Facts(
            rows=self.rows,
            groups=self.groups,
            bases=self._bases,
            label=self.label,
            findings=self.findings,
            full=flag(full, "full"),
            trained=flag(trained, "trained"),
            choice=chosen(columns, built),
            optimizer=built,
        )

    def explain(self, name: str, optimizer: Optimizer | None = None) -> str:
        """How the rates of one parameter came about: every factor, and what it was shadowed by.

        Args:
            name: Canonical name, alias or raw name.
            optimizer: The one that the plan built, to tell how large an update is, and where
                :func:`nnlr.attach` moves multipliers how far they are. Without it updates are told
                by shape for algorithms called after Muon or Adam.

        Raises:
            NnlrError: If there is no such parameter, or the optimizer lacks it.
        """
        return explain(self[name], self._bases, _built(optimizer))

    def to_html(
        self,
        *,
        findings: Iterable[Finding] | None = None,
        schedule: RatesOverTime | None = None,
    ) -> str:
        """The plan as a page: one HTML file of ASCII text that loads nothing from elsewhere.

        It has the model as a tree with the rates as colour and bars, a table to sort, search and
        filter, the explanation of each rate on click, rates by layer, groups and findings. It
        needs jinja2: ``pip install "nnlr[page]"``.

        Args:
            findings: What to show at the top, such as ``nnlr.check(plan, optimizer)``; ``None``
                for the plan's own.
            schedule: What :func:`nnlr.report.rates_over_time` returned, to draw it.

        Raises:
            NnlrError: If an argument is of another kind, or jinja2 is not installed.

        Examples:
            >>> import nnlr, torch
            >>> plan = nnlr.resolve(torch.nn.Linear(2, 1), lr=0.1, weight_decay=0.01)
            >>> page = plan.to_html()
            >>> page[:15], "weight" in page
            ('<!doctype html>', True)
        """
        from nnlr.report._page.plan_page import plan_page

        shown = self.findings if findings is None else _findings(findings)
        fix = "Pass nnlr.report.rates_over_time(plan, scheduler, steps)."
        rates = None if schedule is None else instance(schedule, "schedule", RatesOverTime, fix)
        facts = (self.rows, self.groups, self._bases, self.label)
        return plan_page(*facts, findings=shown, schedule=rates)

    def _repr_html_(self) -> str:
        """What a notebook shows; without jinja2 the table as text."""
        try:
            from nnlr.report._page.plan_page import notebook_view

            facts = (self.rows, self.groups, self._bases, self.label)
            return notebook_view(*facts, findings=self.findings, table=self.table())
        except NnlrError:
            return preformatted(self.table())

    def plot(self, *, width: float = WIDTH) -> "Figure":
        """Draw the learning rate of every layer, and the weight decay where it differs.

        The layers are those of :attr:`layers`, with a panel for each tower. Where no scheme asked
        for depth there is a row for each module. What has the same values shares a line, and
        what is locked or frozen stands on a strip below the scale.

        Args:
            width: Width in inches, from 2.5 to 30: 7 for a page, 3.4 for one of two columns.

        Returns:
            A figure of matplotlib, made without pyplot; a notebook shows it, and
            ``figure.savefig("plan.pdf")`` saves it.

        Raises:
            NnlrError: If matplotlib is not installed, the width is none, or the plan has no
                parameters.

        Examples:
            >>> import nnlr
            >>> from torch import nn
            >>> net = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2), nn.Linear(2, 1))
            >>> plan = nnlr.resolve(net, nnlr.layer_decay(0.5), lr=0.1, weight_decay=0)
            >>> plan.plot().get_suptitle()
            'Sequential: 6 parameters, 3 groups'
        """
        from nnlr.report._plot_plan import draw_plan

        return draw_plan(self, as_width(width))

    def plot_schedule(
        self, scheduler: object, steps: int, *, width: float = WIDTH, **settings: Any
    ) -> "Figure":
        """Draw the learning rates over time: a line for each course, and a map of all layers.

        A copy of the schedule runs, and multipliers that the plan moves with it, as far as they
        follow from the steps alone; the objects of the user stay as they are. A weight decay that
        changes is drawn too.

        Args:
            scheduler: What :func:`nnlr.schedule` returned, or a scheduler of torch, on an
                optimizer that the plan built; or a scheduler class, a function of an optimizer,
                or a mapping of these by groups, as :func:`nnlr.schedule` takes them. ``None`` where
                the base rate is constant.
            steps: Steps of training, >= 1, from where the scheduler stands.
            width: Width in inches, from 2.5 to 30; lines and map stand beside each other from 5.5.
            **settings: Arguments of the class, and of :func:`nnlr.schedule`; and ``epoch_steps``,
                the steps of an epoch, for what moves by epochs.

        Returns:
            A figure of matplotlib, made without pyplot.

        Raises:
            NnlrError: If matplotlib is not installed, or the scheduler cannot be run; see
                :func:`nnlr.report.rates_over_time`.
            ConfigError: If its optimizer has other groups than the plan.

        Examples:
            >>> import nnlr, torch
            >>> from torch import nn
            >>> net = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2), nn.Linear(2, 1))
            >>> plan = nnlr.resolve(net, nnlr.layer_decay(0.5), lr=0.1, weight_decay=0)
            >>> cosine = torch.optim.lr_scheduler.CosineAnnealingLR
            >>> plan.plot_schedule(cosine, 100, T_max=100).get_suptitle()
            'Sequential: CosineAnnealingLR over 100 steps'
        """
        from nnlr.report._plot_schedule import draw_schedule

        inches = as_width(width)
        course = rates_over_time(self, scheduler, steps, **settings)  # type: ignore[arg-type]
        return draw_schedule(self, course, steps, inches)


def _built(optimizer: object) -> Optimizer | None:
    """An optimizer to look at, or none."""
    return None if optimizer is None else instance(optimizer, "optimizer", Optimizer)


def _findings(findings: object) -> tuple[Finding, ...]:
    """Findings to show, or an error."""
    fix = "Pass nnlr.check(plan, optimizer), or a list of findings."
    members = findings if is_listing(findings) else [findings]
    return tuple(instance(finding, "findings", Finding, fix) for finding in members)
