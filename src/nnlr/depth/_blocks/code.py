"""What the code of a model's own classes says: whose output may reach which part.

The source of a ``forward`` is read, never run. Every value in it is followed by the parts whose
output it may hold; where a branch is open, both are taken, where a call is not known, what goes
in comes out. So a part that is said to take nothing of another takes nothing of it.
"""

import ast
import inspect
from collections.abc import Iterable, Sequence
from dataclasses import replace
from types import ModuleType
from typing import Final

from torch import nn

from nnlr.depth._blocks.source import (
    NOTHING,
    Function,
    Names,
    UnreadableError,
    Used,
    Value,
    as_tuple,
    bound,
    constant,
    function_of,
    is_builtin,
    merged,
    value_of,
)

_MOST_CALLS: Final = 12  # functions that call one another


_MOST_ROUNDS: Final = 6  # of a loop


LISTINGS: Final = frozenset({"children", "values", "items", "named_children", "__iter__"})


Takes = dict[Used, set[Used]]


def takes_by_code(module: nn.Module) -> Takes:
    """The parts that the forward of a module uses, and those whose output each may take.

    Raises:
        UnreadableError: If its code cannot be followed.

    Examples:
        >>> net = nn.Transformer(4, 2, 1, 1, batch_first=True)
        >>> takes = takes_by_code(net)
        >>> Used(net.encoder) in takes[Used(net.decoder)]
        True
        >>> Used(net.decoder) in takes[Used(net.encoder)]
        False
    """
    reader = _Reader(module)
    forward = reader.attribute(Value(frozenset([Used(module)])), "forward")
    try:
        reader.call(forward, [], {}, [NOTHING])
    except RecursionError:
        raise UnreadableError from None
    if not reader.takes:
        raise UnreadableError
    for used in reader.read_from:  # its parameters are used elsewhere, too
        reader.takes.pop(used, None)
    return reader.takes


class _Reader:
    """Follows the values in the forward of one module."""

    def __init__(self, module: nn.Module) -> None:
        self.module = module
        self.takes: Takes = {}
        self.read_from: set[Used] = set()  # parts of which a parameter is read
        self.attributes: dict[str, Value] = {}  # attributes that the code sets
        self.running: list[ast.AST] = []
        self.returned: list[Value] = []

    # Calls

    def call(  # noqa: PLR0911  a kind of function each
        self,
        what: Value,
        args: list[Value],
        keywords: dict[str, Value],
        rest: Sequence[Value] = (),
    ) -> Value:
        """What a call gives; ``rest`` are arguments that may be any parameter."""
        every = merged([*args, *keywords.values(), *rest])
        me = Used(self.module)
        if what.modules:
            if isinstance(what.code, str) and what.code in LISTINGS:
                members = (Used(used.module, member=True) for used in what.modules)
                return replace(what, modules=frozenset(members), code=None)
            if me in what.modules or me in every.modules:
                raise UnreadableError
            return self._used(what.modules, every)
        if isinstance(what.code, Function):
            return self._inside(what.code, args, keywords, rest)
        if is_builtin(what.code):
            return self._of_builtin(what.code, args, every)
        if not every.modules:
            return replace(merged([every, what]), parts=(), item=None, code=None)
        function = function_of(what.code)
        if function and not getattr(what.code, "__module__", "").startswith("torch."):
            return self._inside(function, args, keywords, rest)
        if me in every.modules:
            raise UnreadableError
        used = self._used(every.modules, every)  # as partial() and chain() keep them
        return replace(used, modules=every.modules) if isinstance(what.code, type) else used

    def _used(self, modules: Iterable[Used], args: Value) -> Value:
        """What modules give for arguments. Modules among these are run by them."""
        modules = frozenset(modules)
        for used in modules | args.modules:
            taken = self.takes.setdefault(used, set())
            taken |= args.sources
            if args.modules:
                taken |= modules | args.modules
        return Value(sources=modules | args.modules | args.sources)

    def _of_builtin(self, function: object, args: list[Value], every: Value) -> Value:
        """What a function of Python itself gives."""
        if function is zip:
            return replace(every, item=as_tuple([arg.in_loop() for arg in args]), parts=())
        if function is enumerate and args:
            return replace(every, item=as_tuple([NOTHING, args[0].in_loop()]), parts=())
        if function in {setattr, vars, delattr, getattr} and every.modules:
            raise UnreadableError
        if function in {reversed, list, tuple, iter} and len(args) == 1:
            return args[0]
        if function is next and args:
            return args[0].in_loop()
        modules = every.modules if function in {map, filter, sorted, dict, set, slice} else ()
        if function in {map, filter} and args:
            return self.call(args[0], [arg.in_loop() for arg in args[1:]], {})
        return Value(frozenset(modules), every.sources)

    def _inside(
        self,
        function: Function,
        args: list[Value],
        keywords: dict[str, Value],
        rest: Sequence[Value],
    ) -> Value:
        """What a function gives whose source is at hand."""
        if len(self.running) > _MOST_CALLS or function.node in self.running:
            raise UnreadableError
        params = function.node.args
        args = [*function.first, *args]
        other = merged(rest)
        names = function.names.copy()
        plain = [*params.posonlyargs, *params.args]
        for at, param in enumerate(plain):
            names[param.arg] = args[at] if at < len(args) else keywords.get(param.arg, other)
        for param in params.kwonlyargs:
            names[param.arg] = keywords.get(param.arg, other)
        if params.vararg:
            more = args[len(plain) :]
            names[params.vararg.arg] = merged([*more, other]) if rest else as_tuple(more)
        if params.kwarg:
            names[params.kwarg.arg] = merged([*keywords.values(), other])
        self.running.append(function.node)
        before, self.returned = self.returned, []
        if isinstance(function.node, ast.Lambda):
            self.returned.append(self.value(function.node.body, names))
        else:
            self.run(function.node.body, names)
        result = merged(self.returned)
        self.returned = before
        self.running.pop()
        return result

    # Expressions

    def value(self, node: ast.AST, names: Names) -> Value:  # noqa: PLR0911  a node each
        """What is known of the value of an expression."""
        match node:
            case ast.Name(id=name):
                return names[name]
            case ast.Attribute(value=whole, attr=attr):
                return self.attribute(self.value(whole, names), attr)
            case ast.Subscript(value=whole, slice=index):
                base, by = self.value(whole, names), self.value(index, names)
                part = base if isinstance(index, ast.Slice) else base.at(constant(index))
                return replace(part, sources=part.sources | by.sources)
            case ast.Call():
                return self._call_of(node, names)
            case ast.Tuple(elts=parts) | ast.List(elts=parts) if not any(
                isinstance(part, ast.Starred) for part in parts
            ):
                return as_tuple([self.value(part, names) for part in parts])
            case ast.Lambda():
                return Value(code=Function(node, names))
            case ast.NamedExpr(target=target, value=whole):
                result = self.value(whole, names)
                self._assign(target, result, names)
                return result
            case ast.ListComp() | ast.SetComp() | ast.GeneratorExp() | ast.DictComp():
                inner = names.copy()
                for loop in node.generators:
                    self._assign(loop.target, self.value(loop.iter, inner).in_loop(), inner)
                if isinstance(node, ast.DictComp):
                    return self.value(node.value, inner)
                return self.value(node.elt, inner)
            case ast.Yield(value=ast.AST() as whole):
                self.returned.append(self.value(whole, names))
                return NOTHING
        inner_values = [self.value(kid, names) for kid in ast.iter_child_nodes(node)]
        return replace(merged(inner_values), parts=()) if inner_values else NOTHING

    def attribute(self, whole: Value, attr: str) -> Value:  # noqa: PLR0911  a kind each
        """What is known of an attribute of a value."""
        if isinstance(whole.code, ModuleType):
            return value_of(getattr(whole.code, attr, None))
        if isinstance(whole.code, str) or not whole.modules:
            return replace(whole, parts=(), item=None, code=None)
        if len(whole.modules) > 1:
            return merged(self.attribute(Value(frozenset([each])), attr) for each in whole.modules)
        (used,) = whole.modules
        module = used.module
        if used.member:  # whatever its members hold
            return replace(whole, code=attr if attr in LISTINGS else None)
        if attr in module._modules:
            part = module._modules[attr]
            return Value(frozenset([Used(part)]), whole.sources) if part is not None else NOTHING
        if module is not self.module:
            if attr in module._parameters or attr in module._buffers:
                self.read_from.add(used)
                return Value(sources=frozenset([used]))
            is_code = callable(getattr(type(module), attr, None))
            return replace(whole, code=attr) if is_code else NOTHING
        of_class = inspect.getattr_static(type(module), attr, None)
        if attr in vars(module):
            return value_of(vars(module)[attr])
        if isinstance(of_class, property):
            return self.call(bound(of_class.fget, whole), [], {})
        if isinstance(of_class, staticmethod):
            return value_of(of_class.__func__)
        if isinstance(of_class, classmethod):
            return NOTHING
        return self.attributes.get(attr, NOTHING) if of_class is None else bound(of_class, whole)

    def _call_of(self, node: ast.Call, names: Names) -> Value:
        what = self.value(node.func, names)
        if what.code is getattr and len(node.args) > 1:
            attr = constant(node.args[1])
            if isinstance(attr, str):
                return self.attribute(self.value(node.args[0], names), attr)
        args: list[Value] = []
        rest: list[Value] = []
        for arg in node.args:
            if isinstance(arg, ast.Starred):
                rest.append(self.value(arg.value, names).in_loop())
            else:  # after a star, at a position that is not known
                (rest or args).append(self.value(arg, names))
        keywords = {}
        for keyword in node.keywords:
            if keyword.arg is None:
                rest.append(self.value(keyword.value, names))
            else:
                keywords[keyword.arg] = self.value(keyword.value, names)
        every = [*args, *keywords.values()]
        if not isinstance(what.code, Function) and not is_builtin(
            what.code
        ):  # it may call what it is given
            functions = [value for value in every if isinstance(value.code, Function)]
            rest += [self.call(function, [], {}, [merged(every)]) for function in functions]
        return self.call(what, args, keywords, rest)

    # Statements

    def run(self, body: Iterable[ast.stmt], names: Names) -> None:  # noqa: PLR0912  a node each
        """Follow the values through some statements."""
        for node in body:
            match node:
                case ast.Assign(targets=targets, value=value):
                    result = self.value(value, names)
                    for target in targets:
                        self._assign(target, result, names)
                case ast.AugAssign(target=target, value=value):
                    both = [self.value(target, names), self.value(value, names)]
                    self._assign(target, replace(merged(both), parts=()), names)
                case ast.AnnAssign(target=target, value=ast.AST() as value):
                    self._assign(target, self.value(value, names), names)
                case ast.Return(value=ast.AST() as value):
                    self.returned.append(self.value(value, names))
                case ast.Expr(value=value):
                    self._add(value, self.value(value, names), names)
                case ast.For(target=target, iter=listing, body=body, orelse=orelse):
                    item = self.value(listing, names).in_loop()
                    self._repeat(body, names, target, item)
                    self.run(orelse, names)
                case ast.While(test=test, body=body):
                    self.value(test, names)
                    self._repeat(body, names)
                case ast.If(test=test, body=body, orelse=orelse):
                    self.value(test, names)
                    other = names.copy()
                    self.run(body, names)
                    self.run(orelse, other)
                    _join(names, other)
                case ast.With(items=items, body=body):
                    for each in items:
                        result = self.value(each.context_expr, names)
                        if each.optional_vars:
                            self._assign(each.optional_vars, result, names)
                    self.run(body, names)
                case ast.Try(body=body, handlers=handlers, orelse=orelse, finalbody=final):
                    self.run([*body, *orelse], names)
                    for handler in handlers:
                        other = names.copy()
                        self.run(handler.body, other)
                        _join(names, other)
                    self.run(final, names)
                case ast.FunctionDef(name=name):
                    names[name] = Value(code=Function(node, names))
                case ast.Match() | ast.AsyncFor() | ast.AsyncWith() | ast.Global():
                    raise UnreadableError

    def _repeat(
        self,
        body: list[ast.stmt],
        names: Names,
        target: ast.AST | None = None,
        item: Value = NOTHING,
    ) -> None:
        """Run the body of a loop until it tells nothing new."""
        for _ in range(_MOST_ROUNDS):
            before = names.copy()
            if target:
                self._assign(target, item, names)
            self.run(body, names)
            _join(names, before)
            if names == before:
                return

    def _assign(self, target: ast.AST, result: Value, names: Names) -> None:
        match target:
            case ast.Name(id=name):
                names[name] = result
            case ast.Tuple(elts=targets) | ast.List(elts=targets):
                fits = len(result.parts) == len(targets)
                for at, each in enumerate(targets):
                    self._assign(each, result.parts[at] if fits else result.in_loop(), names)
            case ast.Starred(value=inner):
                self._assign(inner, result, names)
            case ast.Attribute(value=ast.Name(id=name), attr=attr) if (
                Used(self.module) in names.get(name, NOTHING).modules
            ):
                self.attributes[attr] = merged([self.attributes.get(attr, NOTHING), result])
            case _:
                self._add(target, result, names)

    def _add(self, whole: ast.AST, result: Value, names: Names) -> None:
        """Put a value into what an expression stands in: a list that is appended to."""
        while isinstance(whole, ast.Attribute | ast.Subscript | ast.Call):
            whole = whole.func if isinstance(whole, ast.Call) else whole.value
        if isinstance(whole, ast.Name) and whole.id in names and result is not NOTHING:
            both = merged([names[whole.id], Value(sources=result.sources)])
            if not names[whole.id].modules:
                names[whole.id] = replace(both, parts=(), item=None)


def _join(names: Names, other: dict[str, Value]) -> None:
    """Let every name mean either."""
    for name, value in other.items():
        if names.get(name) != value:
            names[name] = merged([names.get(name, NOTHING), value])
