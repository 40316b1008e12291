"""`clip_grad_norm_` without any mesh; mixtures are in tests/integrations."""

import pytest
import torch
import torch.distributed as dist
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.tensor import Replicate, Shard, distribute_tensor

import nnlr


def parameters(*shapes):
    found = [torch.nn.Parameter(torch.randn(shape)) for shape in shapes]
    for parameter in found:
        parameter.grad = torch.randn_like(parameter)
    return found


@pytest.mark.parametrize("norm_type", [1.0, 2.0, 3.0, float("inf")])
@pytest.mark.parametrize("foreach", [None, True, False])
def test_plain_gradients_are_clipped_as_torch_does_it(norm_type, foreach):
    """Bit for bit, whatever the norm; also where nothing needs clipping."""
    for max_norm in (0.1, 1e6):
        ours = parameters((3, 4), (5,), ())
        theirs = [torch.nn.Parameter(p.detach()) for p in ours]
        for one, other in zip(ours, theirs, strict=True):
            other.grad = one.grad.clone()
        expected = torch.nn.utils.clip_grad_norm_(theirs, max_norm, norm_type, foreach=foreach)
        actual = nnlr.clip_grad_norm_(ours, max_norm, norm_type, foreach=foreach)
        assert torch.equal(expected, actual)
        for one, other in zip(theirs, ours, strict=True):
            assert torch.equal(one.grad, other.grad)


def test_one_tensor_a_generator_and_no_gradient():
    """What torch's takes; parameters without a gradient are passed over."""
    weight, bias = parameters((2,), (2,))
    bias.grad = None
    norm = weight.grad.norm()
    torch.testing.assert_close(norm, nnlr.clip_grad_norm_(weight, 1e6))
    both = (each for each in (weight, bias))
    torch.testing.assert_close(norm, nnlr.clip_grad_norm_(both, 1e6))
    assert torch.equal(torch.tensor(0.0), nnlr.clip_grad_norm_([bias], 1.0))


def test_a_norm_that_is_not_finite_is_refused_on_demand():
    """The gradients are then as they were."""
    (weight,) = parameters((3,))
    weight.grad[1] = float("inf")
    before = weight.grad.clone()
    with pytest.raises(RuntimeError, match="The norm of the gradients is inf, so they"):
        nnlr.clip_grad_norm_([weight], 1.0, error_if_nonfinite=True)
    assert torch.equal(before, weight.grad)


@pytest.fixture
def one_process():
    """A process group of one."""
    if not dist.is_available() or not dist.is_gloo_available():
        pytest.skip("needs gloo")
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    yield
    dist.destroy_process_group()


def test_meshes_of_all_kinds_have_one_norm(one_process):
    """Plain, sharded and replicated gradients, on meshes of one and two axes."""
    plain = parameters((3, 4), (4,), (2, 2))
    line, square = init_device_mesh("cpu", (1,)), init_device_mesh("cpu", (1, 1))
    mixed = []
    for parameter, mesh, placements in zip(
        plain,
        (None, line, square),
        ([], [Shard(0)], [Replicate(), Shard(1)]),
        strict=True,
    ):
        twin = torch.nn.Parameter(parameter.detach().clone())
        grad = parameter.grad.clone()
        if mesh is not None:
            twin = torch.nn.Parameter(distribute_tensor(twin.detach(), mesh, placements))
            grad = distribute_tensor(grad, mesh, placements)
        twin.grad = grad
        mixed.append(twin)
    expected = torch.cat([each.grad.flatten() for each in plain]).norm()
    torch.testing.assert_close(expected, nnlr.clip_grad_norm_(mixed, 0.5))
    for one, other in zip(plain, mixed, strict=True):
        grad = other.grad.full_tensor() if other is not mixed[0] else other.grad
        torch.testing.assert_close(one.grad * (0.5 / (expected + 1e-6)), grad)


class TestArguments:
    @pytest.mark.parametrize(
        ("changed", "message"),
        [
            ({"parameters": 3}, "parameters must be a tensor or a list of tensors, got 3"),
            ({"parameters": {"a": torch.ones(1)}}, "parameters must be a tensor or a list of"),
            (
                {"parameters": [torch.ones(1), "x"]},
                "parameters must hold tensors only, and holds 'x'",
            ),
            ({"max_norm": "1"}, "max_norm must be a number >= 0, got '1'"),
            ({"max_norm": float("nan")}, "max_norm must be a number >= 0, got nan"),
            ({"norm_type": 0}, "norm_type must be a number > 0, got 0"),
            ({"error_if_nonfinite": "no"}, "error_if_nonfinite must be True or False, got 'no'"),
            ({"foreach": "no"}, "foreach must be True or False, got 'no'"),
        ],
        ids=range(8),
    )
    def test_each_is_named(self, changed, message):
        """No gradient is scaled."""
        weight = torch.nn.Parameter(torch.ones(2))
        weight.grad = torch.ones(2)
        arguments = {"parameters": [weight], "max_norm": 0.5} | changed
        with pytest.raises(nnlr.NnlrError, match=message):
            nnlr.clip_grad_norm_(**arguments)
        assert torch.equal(torch.ones(2), weight.grad)

    def test_an_infinite_norm_measures_only(self):
        """As in torch."""
        weight = torch.nn.Parameter(torch.ones(2))
        weight.grad = torch.tensor([3.0, 4.0])
        assert nnlr.clip_grad_norm_(weight, float("inf")) == 5
        assert torch.equal(torch.tensor([3.0, 4.0]), weight.grad)
