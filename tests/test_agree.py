"""`nnlr.agree` in threads that share a store, and in processes of which the first ends early.

More of real processes is in tests/integrations.
"""

import os
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
import torch.distributed as dist
from torch import nn

import nnlr
from nnlr import _agree as agreement

pytestmark = pytest.mark.skipif(
    not dist.is_available() or not dist.is_gloo_available(), reason="needs gloo"
)

BIAS = nnlr.rule("*.bias", lr_mult=0.5, wd_mult=0)


def network(*sizes):
    return nn.Sequential(*(nn.Linear(4, size) for size in sizes or (4, 4)))


def plan(scheme=BIAS, model=None, **rates):
    rates = {"lr": 0.1, "weight_decay": 0.01, **rates}
    return nnlr.resolve(network() if model is None else model, scheme, **rates)


def meet(plans, *, timeout=20.0, late=(), store=None):
    """What each rank gets, an error or nothing; a plan of None is a rank that stays away."""
    store = dist.HashStore() if store is None else store
    everyone = range(len(plans))

    def come(rank):
        time.sleep(dict(late).get(rank, 0))
        try:
            own_store = store(rank) if callable(store) else store
            facts = agreement.facts_of(plans[rank])
            agreement.compare(facts, own_store, rank, everyone, timeout)
        except (nnlr.NnlrError, EndedError) as error:
            error.__context__ = error.__cause__ = None  # which hold the store
            return error.with_traceback(None)

    with ThreadPoolExecutor(len(plans)) as pool:
        coming = [rank for rank in everyone if plans[rank] is not None]
        return dict(zip(coming, pool.map(come, coming), strict=True))


def told(plans, **how):
    """The one error that all ranks get."""
    errors = meet(plans, **how)
    texts = {str(error) for error in errors.values()}
    assert len(texts) == 1
    return errors[max(errors)]


def test_equal_plans_agree_again_and_again():
    """No rank objects, in one call after another on one store."""
    store = dist.HashStore()
    for _ in range(3):
        assert {0: None, 1: None, 2: None} == meet([plan()] * 3, store=store)


def test_the_store_does_not_grow():
    """What was exchanged in a call, rows too, is gone after the next."""
    store = dist.HashStore()
    assert not any(error is None for error in meet([plan(), plan(NEUTRAL)], store=store).values())
    after = []
    for _ in range(3):
        assert {0: None, 1: None} == meet([plan()] * 2, store=store)
        after.append(store.num_keys())
    assert 1 == len(set(after))


def test_every_rank_gets_the_first_difference():
    """Name, field, both values, who has which, and where the rates come from."""
    other = nnlr.rule("?.bias", lr_mult=0.25, wd_mult=0)
    error = told([plan(), plan(other), plan(), plan()])
    assert isinstance(error, nnlr.PlanMismatchError)
    assert str(error) == (
        "The plans of the ranks differ. First difference: lr of '0.bias' is 0.05 on ranks "
        "0, 2, 3 and 0.025 on rank 1. 2 parameters differ.\n"
        "  On ranks 0, 2, 3 it comes from rule '*.bias'.\n"
        "  On rank 1 it comes from rule '?.bias'.\n"
        "  Resolve the same schemes at the same base rates on every rank, and the same whole "
        "model: before it is sharded or cut into stages."
    )
    assert ("0.bias", "lr") == (error.name, error.field)
    assert [[0.05, [0, 2, 3]], [0.025, [1]]] == list(map(list, error.values))


def test_many_different_plans():
    """Eight of them are compared; the message would only become longer with more."""
    error = told([plan(lr=0.1 * rank) for rank in range(1, 11)])
    assert [[rank] for rank in range(8)] == [ranks for _, ranks in error.values]


def test_more_than_two_plans():
    """The first difference among all of them, with every value."""
    plans = [plan(lr=0.1), plan(lr=0.2), plan(lr=0.3), plan(lr=0.2)]
    with pytest.raises(
        nnlr.PlanMismatchError,
        match=r"the base lr is 0.1 on rank 0 and 0.2 on ranks 1, 3 and 0.3 on rank 2",
    ):
        raise told(plans)


class Twisted(nnlr.Scheme):
    """Sets one thing of one parameter."""

    def __init__(self, **said):
        self.said = said

    def factors(self, model):
        return [
            nnlr.Factor(**(self.said if param.name == "1.bias" else {})) for param in model.params
        ]


def frozen():
    model = network()
    model[1].bias.requires_grad_(False)
    return model


def tied():
    model = network()
    model[1].bias = model[0].bias
    return model


NEUTRAL = nnlr.rule("*")

# For every field that is compared: a plan in which it is the first that differs.
TWISTS = {
    "aliases": lambda: plan(NEUTRAL, tied()),
    "shape": lambda: plan(NEUTRAL, network(4, 2)),
    "lr": lambda: plan(Twisted(lr_mult=0.5)),
    "weight_decay": lambda: plan(Twisted(wd_mult=0.5)),
    "eps_mult": lambda: plan(Twisted(eps_mult=0.5)),
    "init_mult": lambda: plan(Twisted(init_mult=0.5)),
    "options": lambda: plan(Twisted(options={"betas": (0.5, 0.9)})),
    "algorithm": lambda: plan(Twisted(algorithm="muon")),
    "trainable": lambda: plan(NEUTRAL, frozen()),
}


@pytest.mark.parametrize("field", TWISTS)
def test_each_field_is_compared(field):
    """A plan that differs in one thing is told apart by that thing."""
    error = told([plan(NEUTRAL), TWISTS[field]()])
    names = {"aliases": "0.bias", "shape": "1.weight"}
    if field == "aliases":  # the tied name is gone, which comes first
        assert ("1.bias", "name") == (error.name, error.field)
    else:
        assert (names.get(field, "1.bias"), field) == (error.name, error.field)


@pytest.mark.parametrize("field", agreement._FIELDS)
def test_every_field_counts(field):
    """Whatever field of a row is changed, however it came about, is told."""
    facts = [agreement.facts_of(plan()) for _ in range(2)]
    facts[1]["rows"][2][field] = "another"
    error = agreement.first_difference(facts, [[0], [1]])
    assert ("1.weight", field) == (error.name, error.field)
    assert "'another' on rank 1" in str(error)


def test_types_of_options_count():
    """1, 1.0 and True are equal in Python and not the same setting."""
    with pytest.raises(
        nnlr.PlanMismatchError, match=r"{'flag': True} on rank 0 and {'flag': 1} on"
    ):
        raise told([plan(Twisted(options={"flag": flag})) for flag in (True, 1)])


def test_locks_count():
    """A parameter locked on one rank only is one whose gradient others wait for."""
    lock = nnlr.rule("1.bias", lr_mult=0)
    error = told([plan(NEUTRAL), plan(lock)])
    assert ("1.bias", "lr") == (error.name, error.field)
    assert "it comes from rule '1.bias'" in str(error)


def test_missing_and_extra_parameters():
    """The first name that not every rank has, who has it, and how many there are."""
    deeper = plan(model=network(4, 4, 4))
    error = told([plan(), deeper, plan()])
    assert (
        "'2.weight' is 'missing' on ranks 0, 2 and 'there' on rank 1. 2 parameters are not"
        in str(error)
    )
    assert "2.weight" == error.name


def test_order_of_parameters():
    """The same parameters in another order are other indices in an optimizer's state."""
    model = network()
    pairs = dict(reversed(dict(model.named_parameters()).items()))
    with pytest.raises(
        nnlr.PlanMismatchError,
        match=r"parameter 0 is '0\.weight' on rank 0 and '1\.bias' on rank 1",
    ):
        raise told([plan(), plan(model=pairs)])


def test_order_of_groups():
    """Groups in another order, with equal rows, can only be another version of nnlr."""
    facts = [agreement.facts_of(plan()) for _ in range(2)]
    facts[1]["groups"] = facts[1]["groups"][::-1]
    error = agreement.first_difference(facts, [[0], [1]])
    assert "group 0 is 'lr1_wd1' on rank 0 and 'lr0.5_wd0'" in str(error)
    facts[1]["groups"] = [*facts[0]["groups"], "third"]
    error = agreement.first_difference(facts, [[0], [1]])
    assert "group 2 is None on rank 0 and 'third' on rank 1" in str(error)


@pytest.mark.parametrize("absent", [0, 1, 2])
def test_a_rank_that_stays_away_is_named(absent):
    """All that came get the same error, soon; also where it is the first that is missing."""
    plans = [None if rank == absent else plan() for rank in range(3)]
    error = told(plans, timeout=0.3)
    assert [absent] == error.missing
    assert f"rank {absent} did not come to nnlr.agree within 0.3 s" in str(error)
    assert not isinstance(error, nnlr.PlanMismatchError)


@pytest.mark.parametrize("late", [0, 1])
def test_a_rank_that_comes_too_late_is_told(late):
    """It must not train on alone."""
    errors = meet([plan()] * 3, timeout=0.3, late={late: 1.5}.items())
    assert [[late]] * 3 == [error.missing for error in errors.values()]


def test_ranks_that_come_within_the_time_agree():
    """Ranks need not come at the same moment."""
    assert {0: None, 1: None} == meet([plan()] * 2, late={0: 0.3}.items())


class EndedError(Exception):
    """What stops a process in these tests."""


class Ending:
    """A store of a process that ends before it writes to a given key."""

    def __init__(self, store, key):
        self.store, self.key = store, key

    def set(self, key, value):
        if key.endswith(self.key):
            raise EndedError
        self.store.set(key, value)

    def add(self, key, amount):
        if key.endswith(self.key):
            raise EndedError
        return self.store.add(key, amount)

    def __getattr__(self, name):
        return getattr(self.store, name)


@pytest.mark.parametrize("key", ["/digest/1", "/facts/1"])
def test_a_rank_that_ends_in_the_middle_is_named(key):
    """Plans differ, and a process ends before it sends something: the others do not hang."""
    store = dist.HashStore()
    plans = [plan(), plan(NEUTRAL), plan(NEUTRAL)]
    errors = meet(plans, timeout=0.3, store=lambda n: Ending(store, key) if n == 1 else store)
    assert [1] == errors[0].missing == errors[2].missing
    assert isinstance(errors[1], EndedError)


class Gone(dist.Store):
    """A store whose process has ended."""

    def __init__(self, left):
        super().__init__()
        self.left = left

    def add(self, key, value):
        return 1

    def set(self, key, value):
        if not self.left:
            raise dist.DistNetworkError("Broken pipe")

    def wait(self, keys, timeout):
        raise dist.DistNetworkError("Connection reset by peer")


@pytest.mark.parametrize("left", [0, 1])
def test_a_store_that_is_gone_is_said_so(left):
    """The process that holds the store has ended: the cause is in its output."""
    with pytest.raises(nnlr.NnlrError, match="the process that holds it has probably"):
        raise told([None, plan()], store=Gone(left))


@pytest.mark.no_cover
def test_a_large_plan_fits_into_the_store():
    """5,000 rows are exchanged within what a store takes, and the last difference found."""
    tensors = {f"layers.{n}.attention.weight": torch.empty(1) for n in range(5_000)}
    last = nnlr.rule("layers.4999.*", lr_mult=0.5)
    server = dist.TCPStore("localhost", 0, is_master=True, wait_for_workers=False)
    plans = [plan(NEUTRAL, tensors), plan(last, tensors)]
    error = told(plans, store=lambda _: dist.TCPStore("localhost", server.port))
    assert "layers.4999.attention.weight" == error.name


def test_one_process_agrees_with_itself():
    """Without torch.distributed nothing happens."""
    assert nnlr.agree(plan()) is None


@pytest.fixture
def two_processes():
    """A process group of two of which the second never does anything."""
    # It registers the backend of that name.
    from torch.testing._internal.distributed import fake_pg  # noqa: F401

    dist.init_process_group("fake", store=dist.HashStore(), rank=0, world_size=2)
    yield
    dist.destroy_process_group()


def test_the_process_group_says_who_takes_part(two_processes):
    """All of it, or those of the group; outside it, and alone, one goes on at once."""
    with pytest.raises(nnlr.NnlrError, match="rank 1 did not come") as error:
        nnlr.agree(plan(), timeout=0.1)
    assert [1] == error.value.missing
    assert nnlr.agree(plan(), dist.new_group([0])) is None
    assert nnlr.agree(plan(), dist.new_group([1])) is None
    assert nnlr.agree(plan(), dist.GroupMember.NON_GROUP_MEMBER) is None


def test_arguments_are_checked():
    """An optimizer is no plan, and 0 seconds is no time."""
    with pytest.raises(nnlr.NnlrError, match=r"agree compares plans, got .*SGD"):
        nnlr.agree(torch.optim.SGD(network().parameters()))
    with pytest.raises(nnlr.NnlrError, match="timeout must be a finite number > 0"):
        nnlr.agree(plan(), timeout=0)
    for group in ("world", [0, 1], 3):
        with pytest.raises(nnlr.NnlrError, match="group must be a process group of torch or None"):
            nnlr.agree(plan(), group)


class Slow:
    """A store of a process that takes its time before it reads."""

    def __init__(self, store):
        self.store = store

    def multi_get(self, keys):
        time.sleep(0.3)
        return self.store.multi_get(keys)

    def get(self, key):
        time.sleep(0.3)
        return self.store.get(key)

    def __getattr__(self, name):
        return getattr(self.store, name)


def hears_and_ends(rank, folder, absent):
    """One of three processes: it writes down what agree tells it, and ends at once.

    The first holds the store, which ends with it, and reads at once; the others are slow.
    """
    port = folder / "port"
    if rank == 0:
        store = dist.TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
        (folder / "written").write_text(str(store.port))
        (folder / "written").rename(port)
    else:
        while not port.exists():
            time.sleep(0.01)
        store = dist.TCPStore("127.0.0.1", int(port.read_text()))
    dist.init_process_group("gloo", store=store, rank=rank, world_size=3)
    if rank:
        own = dist.distributed_c10d._get_default_store()
        dist.distributed_c10d._get_default_store = lambda: Slow(own)
    if rank == absent:
        time.sleep(2)
    else:
        try:
            nnlr.agree(plan(lr=0.1 + rank), timeout=20 if absent is None else 0.5)
        except nnlr.NnlrError as error:
            (folder / f"heard.{rank}").write_text(str(error))
    os._exit(0)


LEAVES_FIRST = pytest.mark.parametrize(
    ("absent", "says"), [(None, "the base lr is 0.1 on rank 0 and"), (2, "rank 2 did not come")]
)


@LEAVES_FIRST
def test_all_hear_the_same_from_a_store_that_ends_with_its_holder(absent, says):
    """The server of the first rank's store ends when that rank has dropped it."""
    server = [dist.TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)]
    clients = [Slow(dist.TCPStore("127.0.0.1", server[0].port)) for _ in range(2)]
    plans = [None if rank == absent else plan(lr=0.1 + rank) for rank in range(3)]
    errors = meet(
        plans,
        timeout=20 if absent is None else 0.5,
        store=lambda rank: clients[rank - 1] if rank else server.pop(),
    )
    heard = {str(error) for error in errors.values()}
    assert 1 == len(heard)
    assert says in heard.pop()
    with pytest.raises(dist.DistNetworkError, match=r"(?i)fail|broken|reset"):
        clients[0].check(["gone"])


@pytest.mark.full
@pytest.mark.no_cover
@LEAVES_FIRST
def test_all_hear_the_same_where_the_holder_of_the_store_leaves_first(absent, says, tmp_path):
    """Real processes over gloo: the first ends as soon as agree lets it, and nobody waits long."""
    start = time.monotonic()
    torch.multiprocessing.start_processes(
        hears_and_ends, (tmp_path, absent), nprocs=3, start_method="forkserver"
    )
    heard = [path.read_text() for path in sorted(tmp_path.glob("heard.*"))]
    assert (3 if absent is None else 2) == len(heard)
    assert 1 == len(set(heard))
    assert says in heard[0]
    assert time.monotonic() - start < 60


def test_nobody_waits_for_a_process_that_ended_after_it_came(monkeypatch):
    """The others have read, and leave with what they know after a short time."""
    monkeypatch.setattr(agreement, "_PARTING", 0.2)
    store = dist.HashStore()
    plans = [plan(), plan(), plan(NEUTRAL)]
    errors = meet(plans, store=lambda n: Ending(store, "/parting/count") if n == 1 else store)
    assert [type(errors[n]) for n in range(3)] == [
        nnlr.PlanMismatchError,
        EndedError,
        nnlr.PlanMismatchError,
    ]
