"""What a forward that only watches could break, and what it cannot run."""

import functools
import gc
import pickle
import random
import re
import sys

import numpy
import pytest
import torch
from torch import nn

import nnlr
from nnlr._model.describe import describe
from nnlr.depth import flow
from nnlr.errors import NnlrError
from tests import zoo
from tests.depth.test_flow import IDS, VECTOR, Calls, by_layer, exponents, mlp
from tests.frozen_state import state_of


def chain(**parts):
    """Two linear layers run by a function, and other parts."""
    return {"first": nn.Linear(4, 4), "last": nn.Linear(4, 2), **parts}


def findings(model, *inputs, **settings):
    """Kind -> the finding of a plan whose layers come from a forward."""
    scheme = nnlr.layer_decay(0.5, flow(*inputs, **settings))
    plan = nnlr.resolve(model, scheme, lr=1, weight_decay=0)
    return {finding.kind: finding for finding in plan.findings}


class Remembers(nn.Module):
    """A module that keeps tensors made in its forward, in every way that is in use."""

    def __init__(self):
        super().__init__()
        self.first, self.last = nn.Linear(4, 4), nn.Linear(4, 2)
        self.calls, self.seen, self.nested = 0, [], {"per": {"length": {}}}
        self.register_buffer("mean", torch.zeros(4))
        self.register_buffer("later", None)

    def forward(self, x):
        self.calls += 1
        x = self.first(x)
        self.positions = torch.arange(len(x))
        self.last_output = x
        self.seen.append(x)
        self.nested["per"]["length"][len(x)] = x
        self.mean = 0.9 * self.mean + 0.1 * x.mean(0)
        self.later = x
        return self.last(x)


@pytest.mark.parametrize("fake", [None, True, False])
class TestNothingChanges:
    def test_attributes_and_buffers(self, fake):
        """What a forward keeps in its modules is gone, what was there is there."""
        net = Remembers()
        objects = {name: id(value) for name, value in vars(net).items()}
        before = state_of(net)
        assert [{"first"}, {"last"}] == by_layer(net, VECTOR, fake=fake)
        assert before == state_of(net)
        assert objects == {name: id(value) for name, value in vars(net).items()}
        assert torch.equal(net(VECTOR), net(VECTOR))

    @pytest.mark.parametrize("training", [True, False])
    def test_batch_norm(self, fake, training):
        """Statistics, their counter and the mode stay."""
        net = nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4), nn.Dropout(), nn.Linear(4, 2))
        net.train(training)
        before = {name: value.clone() for name, value in net.state_dict().items()}
        flow(torch.ones(3, 4), fake=fake).layers(describe(net))
        after = net.state_dict()
        assert all(torch.equal(value, after[name]) for name, value in before.items())
        assert {training} == {module.training for module in net.modules()}

    def test_weights_and_inputs_written_in_place(self, fake):
        """A forward that writes into what it is given, and into its weights."""

        def run(m, x):
            m.first.weight.data.clamp_(-1e-3, 1e-3)
            x.mul_(0)
            m.queue[:, 1:3] = x.sum()
            m.queue[0] += 1
            return m.last(m.first(x + m.queue.sum()))

        net = Calls(run, **chain())
        net.register_buffer("queue", torch.ones(2, 4))
        x, weight = torch.ones(2, 4), net.first.weight.detach().clone()
        assert [{"first"}, {"last"}] == by_layer(net, x, fake=fake)
        assert torch.equal(x, torch.ones(2, 4))
        assert torch.equal(net.first.weight, weight)
        assert torch.equal(net.queue, torch.ones(2, 4))

    @staticmethod
    def draw():
        """A number from each generator."""
        return torch.rand(1).item(), random.random(), numpy.random.rand()  # noqa: S311

    @staticmethod
    def seed():
        """Start each generator."""
        torch.manual_seed(0)
        random.seed(0)
        numpy.random.seed(0)

    def test_random_states(self, fake):
        """Dropout, numpy and random draw nothing that a run would have drawn."""

        def run(m, x):
            x = nn.functional.dropout(m.first(x))
            return m.last(x * random.random() * numpy.random.rand())  # noqa: S311

        net = Calls(run, **chain())
        self.seed()
        flow(VECTOR, fake=fake).layers(describe(net))
        drawn = self.draw()
        self.seed()
        assert drawn == self.draw()

    def test_gradients_and_hooks(self, fake):
        """No gradient is made or switched; hooks run and stay."""
        net = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 2))
        net[0].bias.requires_grad_(False)
        calls = []
        net[0].register_forward_hook(lambda *_: calls.append(torch.is_grad_enabled()))
        flow(VECTOR, fake=fake).layers(describe(net))
        assert [False] == calls
        assert [True, False, True, True] == [param.requires_grad for param in net.parameters()]
        assert all(param.grad is None and param.is_leaf for param in net.parameters())
        net(VECTOR).sum().backward()

    def test_switches_of_torch(self, fake):
        """Autocast keeps no casted weights; fast paths and loggers are as before."""
        net = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 2))
        with torch.autocast("cpu", torch.bfloat16):
            flow(VECTOR, fake=fake).layers(describe(net))
            assert torch.is_autocast_cache_enabled()
            assert torch.isfinite(net(torch.ones(2, 4))).all()
            assert type(net(torch.ones(2, 4)).detach()) is torch.Tensor
        assert torch.backends.mha.get_fastpath_enabled()
        assert torch.backends.cudnn.enabled

    def test_after_an_error(self, fake):
        """A forward that fails leaves nothing behind either."""

        def run(m, x):
            m.state = m.first(x)
            raise ZeroDivisionError("on purpose")

        net = Calls(run, **chain())
        before = state_of(net)
        with pytest.raises(NnlrError, match="raised ZeroDivisionError: on purpose"):
            flow(VECTOR, fake=fake).layers(describe(net))
        assert before == state_of(net)
        assert not hasattr(net, "state")

    def test_objects_in_attributes(self, fake):
        """A cache that is an object of its own is as before, what it holds too."""

        class Cache:
            def __init__(self):
                self.keys, self.steps, self.model = [], 0, None

        def run(m, x):
            x = m.first(x)
            m.cache.keys.append(x)
            m.cache.steps += 1
            return m.last(m.cache.keys[-1])

        net = Calls(run, **chain(cache=Cache()))
        net.cache.model = net
        assert [{"first"}, {"last"}] == by_layer(net, VECTOR, fake=fake)
        assert [[], 0, net] == list(vars(net.cache).values())

    def test_without_other_modules(self, fake, monkeypatch):
        """Where numpy is not loaded it has no state to restore; and no compiler to switch off."""
        monkeypatch.setitem(sys.modules, "numpy", None)
        monkeypatch.setitem(sys.modules, "torch._dynamo", None)
        net = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 2))
        assert [{"0"}, {"1"}] == by_layer(net, VECTOR, fake=fake)

    def test_sparse(self, fake):
        """Tensors without a storage can be written into, too."""

        def run(m, x, graph):
            graph = graph.clone().mul_(2)
            return m.last(torch.sparse.mm(graph, m.first(x)))

        graph = torch.eye(2).to_sparse()
        assert [{"first"}, {"last"}] == by_layer(Calls(run, **chain()), VECTOR, graph, fake=fake)


class TestLeftovers:
    def test_a_cached_function_is_emptied(self):
        """functools.cache around what makes a tensor: the next forward makes it again."""

        @functools.cache
        def positions(rows):
            return torch.ones(rows, 4) * 2

        def run(m, x):
            return m.last(m.first(x) + scale(x.shape[0]))

        @functools.cache
        def scale(rows):
            return positions(rows) + big(rows)

        @functools.cache
        def big(rows):
            return torch.ones(1000, 1000).mean() * torch.ones(rows, 4)

        net = Calls(run, **chain())
        assert [{"first"}, {"last"}] == by_layer(net, VECTOR, fake=True)
        assert type(net(VECTOR).detach()) is torch.Tensor
        assert torch.isfinite(net(VECTOR)).all()

    def test_what_is_kept_elsewhere_is_refused(self):
        """A global that holds a tensor without values would be used by the next forward."""
        shelf = []

        def run(m, x):
            shelf.append(m.first(x))
            return m.last(shelf[-1])

        net = Calls(run, **chain())
        try:
            with pytest.raises(
                NnlrError, match=r"left 1 tensor without values.*in: list"
            ) as refusal:
                flow(VECTOR).layers(describe(net))
        finally:
            shelf.clear()
        assert "fake=False" in str(refusal.value)
        assert [{"first"}, {"last"}] == by_layer(net, VECTOR, fake=False)

    def test_nothing_is_held(self):
        """Neither the model nor the indexer nor the plan holds a tensor of the run."""
        from torch._subclasses.fake_tensor import FakeTensor

        def count():
            gc.collect()
            return sum(type(each) is FakeTensor for each in gc.get_objects())

        net = Remembers()
        before = count()
        plan = nnlr.resolve(net, nnlr.layer_decay(0.5, flow(VECTOR)), lr=1, weight_decay=0)
        assert plan
        assert count() == before


class TestValues:
    """Forwards that look at values."""

    def test_of_activations(self):
        """They need a run with values, and a note says so; fake=True refuses it."""

        def run(m, x):
            x = m.first(x)
            return m.last(x if x.sum() > -1e9 else -x)

        net = Calls(run, **chain())
        (finding,) = findings(net, VECTOR).values()
        assert finding.kind == "flow-real-forward"
        assert "values" in finding.cause
        assert {} == findings(net, VECTOR, fake=False)
        with pytest.raises(NnlrError, match="raised DataDependentOutputException"):
            findings(net, VECTOR, fake=True)

    def test_of_inputs_and_constants(self):
        """What hangs on integers of the input alone is computed: no run with values."""

        def run(m, ids, lengths):
            x = m.table(ids[:, : int(lengths.max())])
            mask = torch.zeros(x.shape[1], dtype=torch.bool)
            mask[torch.nonzero(ids[0] == 3).flatten().tolist()] = True
            assert mask.any()
            mask.logical_not_()
            x = x * mask[:, None] * m.scale.item()
            return m.last(m.first(x[:, torch.linspace(0, 1, 2).round().long().tolist()]))

        net = Calls(run, table=nn.Embedding(9, 4), **chain())
        net.scale = nn.Parameter(torch.ones(()), requires_grad=False)
        found = exponents(net, IDS, torch.tensor([2, 3]), fake=True)
        assert [2, 1, 0] == [found[name] for name in ("table", "first", "last")]

    def test_of_constants_that_activations_were_written_into(self):
        """They have no value any more."""

        def run(m, x):
            gate = torch.zeros(2)
            gate[0] = m.first(x).sum()
            return m.last(x) if gate[0] < 1e9 else x

        net = Calls(run, **chain())
        with pytest.raises(NnlrError, match="DataDependentOutputException"):
            findings(net, VECTOR, fake=True)

    def test_on_meta(self):
        """There are none: an error that says so, whichever way."""

        def run(m, x):
            return m.last(m.first(x)) if m.first(x).sum() > 0 else x

        net = Calls(run, **chain()).to("meta")
        with pytest.raises(NnlrError, match="DataDependentOutputException"):
            findings(net, VECTOR)
        with pytest.raises(
            NnlrError, match="fake=False runs the forward with values, and the model"
        ):
            findings(net, VECTOR, fake=False)


class TestInputs:
    def test_nested_and_named(self):
        """Dictionaries, tuples, numbers and names go through as they are."""

        def run(m, batch, times, *, scale, extra):
            x = batch["x"][0] * scale
            for _ in range(times):
                x = m.first(x)
            return {"out": (m.last(x + extra.value), None)}

        class Extra:
            def __init__(self, value):
                self.value = value

        net = Calls(run, **chain())
        assert [{"first"}, {"last"}] == by_layer(
            net, {"x": (VECTOR, 3)}, 2, scale=0.5, extra=Extra(VECTOR)
        )

    def test_another_entry(self):
        """`forward=` calls what the model is called by."""

        class Encoder(nn.Module):
            def __init__(self):
                super().__init__()
                self.late, self.early = nn.Linear(4, 4), nn.Linear(4, 4)

            def encode(self, x, *, twice=False):
                return self.late(self.early(self.early(x) if twice else x))

        assert [{"early"}, {"late"}] == by_layer(
            Encoder(), VECTOR, forward=lambda m, x, **kw: m.encode(x, **kw), twice=True
        )

    def test_an_input_of_the_function(self):
        """What `forward=` brings along is an input."""
        x = torch.ones(2, 4)
        net = Calls(lambda m, x: m.last(m.first(x)), **chain())
        assert [{"first"}, {"last"}] == by_layer(net, forward=lambda m: m(x))

    def test_no_tensor_at_all(self):
        """A generator makes its input itself."""
        net = Calls(lambda m, n: m.last(m.first(torch.randn(n, 4))), **chain())
        assert [{"first"}, {"last"}] == by_layer(net, 3)

    def test_plain_tensors_of_modules(self):
        """A tensor in an attribute is no input: what it scales enters where it is used."""

        class Scaled(nn.Module):
            def __init__(self):
                super().__init__()
                self.first, self.last = nn.Linear(4, 4), nn.Linear(4, 2)
                self.shift = nn.Parameter(torch.ones(4, 4))
                self.slopes = [torch.ones(4)]

            def forward(self, x):
                return self.last(self.first(x) @ (self.shift * self.slopes[0]))

        assert [{"first"}, {"shift"}, {"last"}] == by_layer(Scaled(), VECTOR)

    def test_numpy_on_the_way(self):
        """What leaves torch and comes back is no input any more, and a finding says so."""

        def run(m, x):
            x = m.second(m.first(x))
            return m.last(torch.from_numpy(x.numpy()))

        found = findings(Calls(run, second=nn.Linear(4, 4), **chain()), VECTOR)
        assert ("last.weight", "last.bias") == found["flow-unused"].names
        assert "numpy is not seen" in found["flow-unused"].fix

    @pytest.mark.parametrize("stops", ["detach", "argmax"])
    def test_where_gradients_stop(self, stops):
        """Flow ends at detach and at whole numbers."""

        def run(m, x):
            x = m.first(x)
            if stops == "detach":
                return m.last(m.middle(x.detach()))
            return m.last(m.middle(nn.functional.one_hot(x.argmax(1), 4).float()))

        net = Calls(run, middle=nn.Linear(4, 4), **chain())
        assert [{"first", "middle"}, {"last"}] != by_layer(net, VECTOR)
        assert exponents(net, VECTOR)["first"] == 0


class TestFindings:
    def test_unused(self):
        """What the example does not use has the layer of its block, or none."""

        class Block(zoo.Block):
            def __init__(self):
                super().__init__()
                self.adapter = nn.Linear(4, 4)

        def run(m, x):
            for block in m.blocks:
                x = block(x)
            return m.head(x) if m.training else x

        net = Calls(
            run,
            blocks=nn.ModuleList(Block() for _ in range(2)),
            head=nn.Linear(4, 2),
            spare=nn.Linear(4, 2),
        )
        found = findings(net, VECTOR)
        assert {"flow-unused", "layer-decay-outside"} == set(found)
        assert "train mode did not apply 6 parameters" in found["flow-unused"].cause
        found = exponents(net, VECTOR)
        assert [2, 0, None] == [found[name] for name in ("blocks.0.adapter", "head", "spare")]
        assert "eval mode did not apply 8" in findings(net.eval(), VECTOR)["flow-unused"].cause

    @pytest.mark.parametrize("cls", [nn.Linear, None])
    def test_how_bad_unused_ones_are(self, cls):
        """A layer that the example leaves out learns at the full rate: a warning."""
        net = Calls(lambda m, x: m.last(m.first(x)), **chain())
        if cls is None:
            net.mask_token = nn.Parameter(torch.zeros(1, 1, 4))
        else:
            net.spare = cls(4, 4)
        assert findings(net, VECTOR)["flow-unused"].severity == (
            "note" if cls is None else "warning"
        )

    def test_lost(self):
        """What is computed and dropped: LLaVA takes the last but one layer of its tower."""

        def run(m, x):
            outputs = [x]
            for block in m.blocks:
                outputs.append(block(outputs[-1]))
            return m.head(outputs[-2])

        net = Calls(run, blocks=nn.ModuleList(zoo.Block(4) for _ in range(3)), head=nn.Linear(4, 2))
        found = findings(net, VECTOR)
        assert {"flow-lost"} == set(found)
        assert all(name.startswith("blocks.2.") for name in found["flow-lost"].names)
        assert 4 == len(found["flow-lost"].names)

    def test_lost_only_if_nothing_comes_of_it(self):
        """Whole numbers and detached values are outputs too."""

        def run(m, x):
            return m.last(x).argmax(1), m.first(x).detach()

        net = Calls(run, first=mlp(4, 4, 2), last=mlp(4, 4, 2))
        assert {} == findings(net, VECTOR)

    def test_circle(self):
        """Blocks that take what the other one gives are one layer."""

        class Two(nn.Module):
            def __init__(self):
                super().__init__()
                self.a, self.b = nn.Linear(4, 4), nn.Linear(4, 4)

        def run(m, x):
            one, two = m.blocks
            return m.head(two.b(one.b(two.a(one.a(x)))))

        net = Calls(run, blocks=nn.ModuleList([Two(), Two()]), head=nn.Linear(4, 2))
        found = findings(net, VECTOR)
        assert {"flow-circle"} == set(found)
        assert 8 == len(found["flow-circle"].names)
        found = exponents(net, VECTOR)
        assert [1, 1, 0] == [found[name] for name in ("blocks.0.a", "blocks.1.b", "head")]

    def test_no_finding_on_a_healthy_model(self):
        """Nothing to point out."""
        assert {} == findings(zoo.plain(), IDS)


class TestRefusals:
    def test_the_forward_raises(self):
        """Its message, the call, and how arguments are passed."""
        net = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 2))
        with pytest.raises(NnlrError, match="mat1 and mat2") as refusal:
            findings(net, torch.zeros(2, 5))
        message = str(refusal.value)
        assert message.startswith("flow(Tensor[2, 5]): the forward of Sequential in train mode")
        assert "flow(*inputs, **kwargs)" in message
        with pytest.raises(NnlrError, match=r"raised TypeError: .*missing 1 required"):
            findings(nn.Transformer(4, 2, 1, 1, 4, batch_first=True), torch.zeros(2, 1, 4))

    def test_no_parameter_meets_an_input(self):
        """A forward that does nothing with its input."""
        net = Calls(lambda m, x: m.first.weight.sum(), **chain())
        with pytest.raises(NnlrError, match="finds no parameter of Calls that the forward applies"):
            findings(net, VECTOR)

    def test_one_layer(self):
        """Parameters none of which is after another."""
        net = Calls(lambda m, x: m.first(x), **chain())
        with pytest.raises(NnlrError, match="finds 1 layer in the 4 parameters of Calls"):
            findings(net, VECTOR)

    def test_tensors_without_a_model(self):
        """Pairs cannot be run."""
        net = zoo.plain()
        with pytest.raises(NnlrError, match="runs the model, and tensors have none"):
            findings(dict(net.named_parameters()), IDS)

    def test_operations_on_functions(self):
        """torch.cond and its like cannot be looked into."""
        from torch._higher_order_ops.cond import cond

        net = Calls(lambda m, x: m.last(cond(x.sum() > 0, m.first, m.first, (x,))), **chain())
        with pytest.raises(NnlrError, match="cannot look into cond"):
            findings(net, VECTOR)

    def test_lazy(self):
        """Lazy modules say what to do, as everywhere."""
        with pytest.raises(NnlrError, match="has no shape yet"):
            findings(nn.Sequential(nn.LazyLinear(4), nn.Linear(4, 2)), VECTOR)

    def test_sharded(self, tmp_path):
        """A sharded model is resolved before."""
        from torch.distributed.fsdp import fully_shard

        torch.distributed.init_process_group(
            "gloo", init_method=f"file://{tmp_path}/meet", rank=0, world_size=1
        )
        try:
            net = fully_shard(nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 2)))
            with pytest.raises(NnlrError, match="Resolve before sharding"):
                findings(net, VECTOR)
        finally:
            torch.distributed.destroy_process_group()

    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            (((), {}), "flow needs an example of what the model is called with"),
            (((nn.Linear(1, 1),), {}), "and got a model. The model comes in resolve"),
            (((VECTOR,), {"forward": nn.Linear(1, 1)}), "and got a model"),
            (((VECTOR,), {"forward": "encode"}), "forward must be a function of the model"),
            (((VECTOR,), {"fake": "no"}), "fake must be True, False or None, got 'no'"),
            (((VECTOR,), {"fake": 1}), "fake must be True, False or None, got 1"),
            (((VECTOR,), {"towers": "aparted"}), "towers must be one of 'apart', 'chain'"),
        ],
    )
    def test_bad_arguments(self, arguments, message):
        """Each is refused at the call."""
        args, kwargs = arguments
        with pytest.raises(NnlrError, match=re.escape(message)):
            flow(*args, **kwargs)


class TestIndexer:
    def test_its_repr_has_shapes(self):
        """And no numbers; defaults are left out."""
        indexer = flow(
            {"x": (VECTOR,), "n": [1, "a"]}, ids=IDS, forward=zoo.plain, fake=True, towers="chain"
        )
        assert repr(indexer) == (
            "flow({'x': (Tensor[2, 4],), 'n': [1, 'a']}, ids=Tensor[1, 3], forward=plain, "
            "fake=True, towers='chain')"
        )

    def test_an_input_that_holds_itself(self):
        """Its repr ends."""
        loop = []
        loop.append(loop)
        assert repr(flow(loop)) == "flow([[...]])"

    def test_it_can_be_compared_hashed_and_pickled(self):
        """By identity, as it holds tensors."""
        indexer = flow(VECTOR, scale=2)
        assert indexer != flow(VECTOR, scale=2)
        assert len({indexer, flow(VECTOR)}) == 2
        assert repr(pickle.loads(pickle.dumps(indexer))) == repr(indexer)

    def test_the_plan_says_which_example_decided(self):
        """The shapes and the mode, for each parameter, also in its JSON."""
        net = zoo.plain().eval()
        scheme = nnlr.layer_decay(0.5, flow(IDS))
        plan = nnlr.resolve(net, scheme, lr=1, weight_decay=0)
        told = " ".join(plan.explain("blocks.0.fc.weight").split())
        assert "layer_decay(0.5, indexer=flow(Tensor[1, 3]))" in told
        assert "layer 1 of 3 by a forward in eval mode" in told
        assert nnlr.Plan.from_json(plan.to_json()) == plan

    def test_it_works_wherever_an_indexer_does(self):
        """In layer groups, in CompleteP, inside of a submodule."""
        net = zoo.plain()
        plan = nnlr.resolve(net, nnlr.discriminative(2, groups=flow(IDS)), lr=1, weight_decay=0)
        assert [0.125, 1] == [plan[name].lr for name in ("embed.weight", "head.weight")]
        inner = nnlr.layer_decay(0.5, flow(IDS)).within("model")
        plan = nnlr.resolve(nn.ModuleDict({"model": net}), inner, lr=1, weight_decay=0)
        assert [0.125, 1] == [plan[f"model.{n}.weight"].lr for n in ("embed", "head")]

    def test_its_findings_come_along(self):
        """Also where it numbers groups, or blocks."""
        net = Calls(lambda m, x: m.last(m.first(x)), **chain(spare=nn.Linear(4, 4)))
        indexer = flow(VECTOR)
        for scheme in (
            nnlr.layer_decay(0.5, indexer),
            nnlr.discriminative(2, groups=indexer),
            nnlr.freeze(below=1, groups=indexer),
        ):
            plan = nnlr.resolve(net, scheme, lr=1, weight_decay=0)
            assert "flow-unused" in {finding.kind for finding in plan.findings}

    @pytest.mark.parametrize("value", [flow, "flow"], ids=["function", "name"])
    def test_without_an_example(self, value):
        """The function alone, or its name, is told what is missing."""
        with pytest.raises(NnlrError, match="indexer flow needs an example"):
            nnlr.layer_decay(0.5, value)
        with pytest.raises(NnlrError, match="flow"):
            nnlr.discriminative(2, groups=value)

    def test_the_forward_runs_once_for_a_plan(self):
        """Factors, findings and traces share one run."""
        calls = []
        net = zoo.plain()
        net.register_forward_pre_hook(lambda *_: calls.append(1))
        nnlr.resolve(net, nnlr.layer_decay(0.5, flow(IDS)), lr=1, weight_decay=0)
        assert [1] == calls
