"""Normalisation layers that a move has locked: running statistics that stay as they are.

A BatchNorm in train mode normalises by the batch and updates its running statistics, whether
its parameters are trained or not. With ``Move.norm_eval`` it does so only while one of them is
trained; else its forward is that of eval mode, whatever ``model.train()`` says.
"""

from collections.abc import Collection

from torch import Tensor, nn

from nnlr._model.names import Node, Source, nodes

# Set on a module for as long as its forward runs as in eval mode.
_MARK = "_nnlr_in_eval"


def set_norm_eval(model: Source, tensors: Collection[Tensor]) -> None:
    """Have normalisation layers with these parameters follow their locks, and no others."""
    if not isinstance(model, nn.Module):
        return
    moved = {id(tensor) for tensor in tensors}
    for node in nodes(model):
        _take_off(node.module)
        if node.module._buffers.get("running_mean") is not None:
            around = _with_parameters(node)
            if any(id(param) in moved for param in around.parameters()):
                node.module.register_forward_pre_hook(_Begin(around))
                node.module.register_forward_hook(_end, always_call=True)


def _with_parameters(node: Node) -> nn.Module:
    """Return the layer, or what is around it if it has no parameters of its own."""
    modules = (above.module for above in node.above())
    return next((m for m in modules if next(m.parameters(), None) is not None), node.module)


class _Begin:
    """What is called before the forward of such a layer; it goes into copies and pickles."""

    def __init__(self, around: nn.Module) -> None:
        self.around = around

    def __call__(self, module: nn.Module, _inputs: object) -> None:
        """Switch to eval mode if nothing here is trained."""
        if module.training and not any(param.requires_grad for param in self.around.parameters()):
            module.training = False
            module.__dict__[_MARK] = True


def _end(module: nn.Module, _inputs: object, _output: object) -> None:
    """Switch back after the forward."""
    if module.__dict__.pop(_MARK, False):
        module.training = True


def _take_off(module: nn.Module) -> None:
    """Remove these hooks from a module."""
    for key in [k for k, hook in module._forward_pre_hooks.items() if isinstance(hook, _Begin)]:
        del module._forward_pre_hooks[key]
    for key in [k for k, hook in module._forward_hooks.items() if hook is _end]:
        del module._forward_hooks[key]
        module._forward_hooks_always_called.pop(key, None)
