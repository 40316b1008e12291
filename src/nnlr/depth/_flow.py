"""Depth from the order in which one forward uses the parameters, for any architecture.

    layer decay's exponent(p) = the longest way from p to the output, counted in layers

No value is computed, if it can be helped: the forward runs on tensors that have a shape only.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import KW_ONLY, dataclass, field
from typing import Final, cast, get_args
from weakref import WeakKeyDictionary

from torch import Tensor, nn

from nnlr._arguments import Call, choice
from nnlr._findings import Finding, note, warning
from nnlr._model.describe import ModelInfo
from nnlr._text import plural, shown
from nnlr.depth._forward.order import Order, Towers, order_of
from nnlr.depth._forward.record import Recording, record
from nnlr.depth._layer import Indexer, Layers, is_layer
from nnlr.errors import NnlrError

TOWERS: Final[tuple[Towers, ...]] = get_args(Towers)


def flow(
    *inputs: object,
    forward: Callable[..., object] | None = None,
    fake: bool | None = None,
    towers: Towers = "apart",
    **kwargs: object,
) -> Indexer:
    """Depth from one forward: a layer is as deep as there are layers after it on the way out.

    At ``resolve`` the model is called once with these inputs, in the mode it is in (train or
    eval), without gradients, and each operation is watched. Where possible no values are
    computed, so that it also works for a model on the meta device; attributes, buffers and
    random states are afterwards what they were. What the forward does with this example
    decides, and ``plan.explain`` says so.

    ``exponent = number of layers after it, on the longest way``: blocks are those of
    :func:`auto`, where they run one after another; without blocks each layer is one. What
    comes before the first block is the stem, what comes after the last the head. What no
    input reaches has no layer.

    Args:
        *inputs: What the model is called with; small ones do, one row or image.
        forward: Called as ``forward(model, *inputs, **kwargs)`` in place of the model itself.
        fake: ``True`` never computes values, ``False`` always does; ``None`` does it only for
            a forward that looks at values to decide what comes next.
        towers: ``"apart"`` counts a tower that has an input of its own for itself, and what
            is below it too, as for an encoder and a decoder; ``"chain"`` counts through.
        **kwargs: Named arguments of the call.

    Raises:
        NnlrError: If there is no input, or a model among them; at resolve, if the forward
            raises, if no parameter meets an input, or if all are in one layer.

    Examples:
        >>> import nnlr, torch
        >>> from torch import nn
        >>> class ActorCritic(nn.Module):
        ...     def __init__(self):
        ...         super().__init__()
        ...         self.actor = nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 2))
        ...         self.critic = nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 1))
        ...
        ...     def forward(self, state):
        ...         return self.actor(state), self.critic(state)
        >>> scheme = nnlr.layer_decay(0.5, flow(torch.zeros(1, 4)))
        >>> scheme
        layer_decay(0.5, indexer=flow(Tensor[1, 4]))
        >>> plan = nnlr.resolve(ActorCritic(), scheme, lr=1, weight_decay=0)
        >>> [row.lr for row in plan if row.name.endswith("weight")]
        [0.5, 1.0, 0.5, 1.0]
    """
    if forward is not None and not callable(forward):
        raise NnlrError(
            "forward must be a function of the model and the inputs, such as "
            f"lambda model, x: model.features(x); got {shown(forward)}.",
            value=forward,
        )
    if isinstance(forward, nn.Module) or any(isinstance(value, nn.Module) for value in inputs):
        raise NnlrError(
            "flow needs what the model is called with, and got a model. The model comes in "
            "resolve(model, layer_decay(..., nnlr.depth.flow(*inputs)), ...)."
        )
    if fake is not None and not isinstance(fake, bool):
        raise NnlrError(f"fake must be True, False or None, got {shown(fake)}.", value=fake)
    if not inputs and not kwargs and forward is None:
        raise NnlrError(
            "flow needs an example of what the model is called with: "
            "nnlr.depth.flow(torch.zeros(1, 3, 224, 224)), or by name, flow(input_ids=ids)."
        )
    return Flow(inputs, kwargs, forward=forward, fake=fake, towers=choice(towers, "towers", TOWERS))


@dataclass(frozen=True, repr=False, eq=False)
class Flow(Call, Indexer):
    """The indexer of :func:`flow`."""

    inputs: tuple[object, ...]
    kwargs: Mapping[str, object] = field(default_factory=dict)
    _: KW_ONLY
    forward: Callable[..., object] | None = None
    fake: bool | None = None
    towers: Towers = "apart"

    def layers(self, model: ModelInfo) -> Layers:
        """The layers by one forward."""
        return self._order(model)[1].layers

    def basis(self, model: ModelInfo) -> str:
        """In which mode the forward was run."""
        mode = "train" if self._order(model)[0].training else "eval"
        return f"by a forward in {mode} mode"

    def findings(self, model: ModelInfo) -> Sequence[Finding]:
        """What the forward did not use, or to no effect; circles; values that were needed."""
        recording, order = self._order(model)
        return list(_findings(model, recording, order))

    def _order(self, model: ModelInfo) -> tuple[Recording, Order]:
        """What the forward shows on a model, run once."""
        results = _ORDERS.setdefault(model, {})
        if id(self) not in results:
            recording = recorded(model, self)
            results[id(self)] = self, recording, order_of(model, recording, self.towers)
        return results[id(self)][1:]

    def __repr__(self) -> str:
        """The call, with shapes for tensors."""
        arguments = [sketch(value) for value in self.inputs]
        arguments += [f"{name}={sketch(value)}" for name, value in self.kwargs.items()]
        if self.forward is not None:
            arguments.append(f"forward={getattr(self.forward, '__name__', repr(self.forward))}")
        if self.fake is not None:
            arguments.append(f"fake={self.fake}")
        if self.towers != "apart":
            arguments.append(f"towers={self.towers!r}")
        return f"flow({', '.join(arguments)})"


# Of each described model the indexers that have run it, and what they saw. An indexer is kept
# beside its result, so that no other object gets its id.
_ORDERS: Final[WeakKeyDictionary[ModelInfo, dict[int, tuple[Flow, Recording, Order]]]] = (
    WeakKeyDictionary()
)


def recorded(model: ModelInfo, example: Flow) -> Recording:
    """Run a model on an example.

    Raises:
        NnlrError: If the forward raises.
    """

    def call(module: nn.Module) -> object:
        if example.forward is not None:
            return example.forward(module, *example.inputs, **example.kwargs)
        return module(*example.inputs, **example.kwargs)

    try:
        return record(
            model, call, (example.inputs, example.kwargs, example.forward), fake=example.fake
        )
    except NnlrError:
        raise
    except Exception as error:
        mode = "train" if model.module is not None and model.module.training else "eval"
        raise NnlrError(
            f"{example!r}: the forward of {model.label} in {mode} mode raised "
            f"{type(error).__name__}: {error}\n"
            "  Pass what it is called with: flow(*inputs, **kwargs); or say how to call it: "
            "flow(x, forward=lambda model, x: model.encode(x))."
        ) from error


def as_example(value: object) -> Flow:
    """An example of what a model is called with, from what a user passes as ``inputs=``.

    Examples:
        >>> import torch
        >>> as_example((torch.zeros(1, 4), 3)), as_example({"ids": torch.zeros(1, 8)})
        (flow(Tensor[1, 4], 3), flow(ids=Tensor[1, 8]))
    """
    if isinstance(value, Flow):
        return value
    if isinstance(value, Mapping) and all(isinstance(name, str) for name in value):
        return cast(Flow, flow(**value))
    if isinstance(value, list | tuple):
        return cast(Flow, flow(*value))
    if isinstance(value, Tensor):
        return cast(Flow, flow(value))
    raise NnlrError(
        "inputs must be what the model is called with: a tuple such as (images,), a mapping of "
        "named arguments such as {'input_ids': ids}, or nnlr.depth.flow(...); got "
        f"{shown(value, typed=True)}.",
        value=value,
    )


def sketch(value: object) -> str:
    """A value for messages, with the shapes of tensors in place of their numbers.

    Examples:
        >>> import torch
        >>> sketch({"ids": torch.zeros(1, 8), "sizes": [3, torch.zeros(2)]})
        "{'ids': Tensor[1, 8], 'sizes': [3, Tensor[2]]}"
    """
    try:
        return _sketch(value)
    except RecursionError:  # it holds itself
        return shown(value)


def _sketch(value: object) -> str:
    """A value that does not hold itself."""
    if isinstance(value, Tensor):
        return f"Tensor{list(value.shape)}"
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{key!r}: {_sketch(item)}" for key, item in value.items()) + "}"
    if isinstance(value, list | tuple):
        items = ", ".join(map(_sketch, value))
        if isinstance(value, list):
            return f"[{items}]"
        return f"({items}{',' if len(value) == 1 else ''})"
    return shown(value)


def _findings(model: ModelInfo, recording: Recording, order: Order) -> Iterator[Finding]:
    """The findings about one forward."""
    names = [param.name for param in model.params]
    mode = "train" if recording.training else "eval"
    if order.unused:
        # What is more than a learned token and in no layer learns at the full rate.
        outside = [
            at for at in order.unused if order.layers[at] is None and is_layer(model.params[at])
        ]
        make = warning if any(model.params[at].role != "token" for at in outside) else note
        yield make(
            "flow-unused",
            [names[at] for at in order.unused],
            f"the forward in {mode} mode did not apply {plural(len(order.unused), 'parameter')} "
            "to its input; they have the layer of what is around them, or none",
            "If training uses them, pass an example that does, or call model.train() before "
            "resolve; what has gone through numpy is not seen.",
        )
    if order.dropped:
        yield note(
            "flow-lost",
            [names[at] for at in order.dropped],
            f"what {plural(len(order.dropped), 'parameter', 'compute')} reaches no output of the "
            f"forward in {mode} mode",
            "Without gradients they do not train: freeze them, nnlr.freeze('name.*'), or pass an "
            "example whose outputs need them.",
        )
    for circle in order.circles:
        yield note(
            "flow-circle",
            [names[at] for at in circle],
            f"{plural(len(circle), 'parameter')} in several parts are in one layer, as each part "
            "takes what another gives",
            "If one of them comes first, say so with a mapping of patterns to layers.",
        )
    if recording.real:
        yield note(
            "flow-real-forward",
            (),
            f"the forward was run with values, as it cannot do without: {recording.real}",
            "Nothing has to be done; flow(..., fake=False) goes there at once.",
        )
