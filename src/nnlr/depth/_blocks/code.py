"""What the code of a model's own classes says: whose output may reach which part.

The source of a ``forward`` is read, never run. Every value in it is followed by the parts whose
output it may hold; where a branch is open, both are taken, where a call is not known, what goes
in comes out. So a part that is said to take nothing of another takes nothing of it.
"""

import ast
from collections.abc import Iterable, Sequence
from dataclasses import replace
from types import ModuleType
from typing import Final

from torch import nn

from nnlr.depth._blocks.source import (
    CONTAINERS,
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

_MOST_ROUNDS: Final = 6  # of a loop
_LISTINGS: Final = {"children", "values", "items", "named_children", "__iter__"}
_COMPREHENSIONS: Final = (ast.ListComp, ast.SetComp, ast.GeneratorExp, ast.DictComp)
_NO_VALUES: Final = (ast.Constant, ast.expr_context, ast.operator, ast.cmpop, ast.boolop)

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
    try:
        reader.call(reader.attribute(value_of(module), "forward"), [], {}, [NOTHING])
    except (RecursionError, ValueError):  # too deep; a name that has no value yet
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

    def call(
        self,
        what: Value,
        args: list[Value],
        keywords: dict[str, Value],
        rest: Sequence[Value] = (),
    ) -> Value:
        """What a call gives; ``rest`` are arguments that may be any parameter."""
        every = merged([*args, *keywords.values(), *rest])
        if what.modules:
            return self._of_modules(what, every)
        if isinstance(what.code, Function):
            return self._inside(what.code, args, keywords, rest)
        if is_builtin(what.code):
            return self._of_builtin(what.code, args, every)
        if not every.modules:
            return replace(merged([every, what]), parts=(), code=None)
        function = function_of(what.code)
        if function and not getattr(what.code, "__module__", "").startswith("torch."):
            return self._inside(function, args, keywords, rest)
        used = self._used(every.modules, every)  # as partial() and chain() keep them
        return replace(used, modules=every.modules) if isinstance(what.code, type) else used

    def _of_modules(self, what: Value, args: Value) -> Value:
        """What a call of modules gives, or of a method of theirs."""
        lists = [used for used in what.modules if isinstance(used.module, CONTAINERS)]
        if what.code in _LISTINGS:
            name = what.code  # a dict that code makes is no module
            is_list = {used: hasattr(type(used.module), name) for used in what.modules}
            return Value(frozenset(u._replace(member=u.member or is_list[u]) for u in is_list))
        if what.code == "pop" and lists:
            return what.turned().in_loop()
        return self._used(what.modules, args)

    def _used(self, modules: frozenset[Used], args: Value) -> Value:
        """What modules give for arguments. Modules among these are run by them."""
        if Used(self.module) in modules | args.modules:
            raise UnreadableError
        for used in modules | args.modules:
            taken = self.takes.setdefault(used, set())
            taken |= args.sources
            if args.modules:
                taken |= modules | args.modules
        return Value(sources=modules | args.modules | args.sources)

    def _of_builtin(self, function: object, args: list[Value], every: Value) -> Value:
        """What a function of Python itself gives."""
        if function in {setattr, vars, delattr, getattr} and every.modules:
            raise UnreadableError
        items = [arg.in_loop() for arg in args]
        if function in {zip, enumerate}:
            numbers = [NOTHING] * (function is enumerate)
            return as_tuple([as_tuple([*numbers, *items])])
        if function is map and args:
            return as_tuple([self.call(args[0], items[1:], {})])
        if function in {list, tuple, iter, next, reversed} and args:
            part = items[0] if function is next else args[0]
            return part.turned() if function is reversed else part
        has_items = function in {filter, sorted, dict, set}
        return replace(every, parts=(), code=None) if has_items else Value(sources=every.sources)

    def _inside(
        self,
        function: Function,
        args: list[Value],
        keywords: dict[str, Value],
        rest: Sequence[Value],
    ) -> Value:
        """What a function gives whose source is at hand."""
        if function.node in self.running:
            raise UnreadableError
        params = function.node.args
        args = [*function.first, *args]
        other = merged(rest)
        names = function.names.copy()
        plain = [*params.posonlyargs, *params.args]
        for at, param in enumerate([*plain, *params.kwonlyargs]):
            is_given = at < min(len(args), len(plain))
            names[param.arg] = args[at] if is_given else keywords.get(param.arg, other)
        if params.vararg:
            more = args[len(plain) :]
            names[params.vararg.arg] = merged([*more, other]) if rest else as_tuple(more)
        if params.kwarg:
            names[params.kwarg.arg] = merged([*keywords.values(), other])
        self.running.append(function.node)
        before, self.returned = self.returned, []
        body = function.node.body
        self.run(body if isinstance(body, list) else [ast.Return(body)], names)
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
                return self._at(self.value(whole, names), index, names)
            case ast.Call():
                return self._call_of(node, names)
            case ast.Tuple(elts=parts) | ast.List(elts=parts) if not any(
                isinstance(part, ast.Starred) for part in parts
            ):
                return as_tuple([self.value(part, names) for part in parts])
            case ast.Lambda():
                return Value(code=Function(node, names))
            case ast.NamedExpr(target=target, value=whole):
                self._assign(target, self.value(whole, names), names)
                return self.value(target, names)
            case _ if isinstance(node, _COMPREHENSIONS):
                inner = names.copy()
                for loop in node.generators:
                    self._assign(loop.target, self.value(loop.iter, inner).in_loop(), inner)
                item = node.value if isinstance(node, ast.DictComp) else node.elt
                return as_tuple([self.value(item, inner)])
            case ast.Yield(value=ast.AST() as whole):
                self.returned.append(self.value(whole, names))
                return NOTHING
        kids = (kid for kid in ast.iter_child_nodes(node) if not isinstance(kid, _NO_VALUES))
        inner_values = [self.value(kid, names) for kid in kids]
        return replace(merged(inner_values), parts=()) if inner_values else NOTHING

    def _at(self, whole: Value, index: ast.AST, names: Names) -> Value:
        """What stands at an index, or in a slice."""
        by = self.value(index, names)
        if isinstance(index, ast.Slice):
            step = constant(index.step) if index.step else 1
            part = replace(whole, parts=()) if step == 1 else whole.turned()
        else:
            part = whole.at(constant(index))
            numbers = (node.id for node in ast.walk(index) if isinstance(node, ast.Name))
            fall = any(names[name].code is reversed for name in numbers)
            part = part.turned() if fall != _falls(index) else part
        return replace(part, sources=part.sources | by.sources)

    def attribute(self, whole: Value, attr: str) -> Value:
        """What is known of an attribute of a value."""
        if isinstance(whole.code, ModuleType):
            return value_of(getattr(whole.code, attr, None))
        if isinstance(whole.code, str) or not whole.modules:
            return replace(whole, parts=(), code=None)
        result = merged(self._attribute_of(used, attr) for used in whole.modules)
        return replace(result, sources=result.sources | whole.sources) if whole.sources else result

    def _attribute_of(self, used: Used, attr: str) -> Value:  # noqa: PLR0911  a kind each
        """What is known of an attribute of a module."""
        module, whole = used.module, Value(frozenset([used]))
        if used.member:  # whatever its members hold
            return replace(whole, code=attr if attr in _LISTINGS else None)
        if attr in module._modules:
            return value_of(module._modules[attr])
        of_class = next((vars(c)[attr] for c in type(module).__mro__ if attr in vars(c)), None)
        if module is not self.module:
            if attr in module._parameters or attr in module._buffers:
                self.read_from.add(used)
                return Value(sources=frozenset([used]))
            is_known = of_class is not None or attr in _LISTINGS
            return replace(whole, code=attr) if is_known else NOTHING
        if attr in vars(module):
            return value_of(vars(module)[attr])
        if isinstance(of_class, property):
            return self.call(bound(of_class.fget, whole), [], {})
        if isinstance(of_class, staticmethod):
            return value_of(of_class.__func__)
        return self.attributes.get(attr, NOTHING) if of_class is None else bound(of_class, whole)

    def _call_of(self, node: ast.Call, names: Names) -> Value:
        """What a call in the code gives."""
        what = self.value(node.func, names)
        if what.code is getattr and isinstance(attr := constant(node.args[1]), str):
            return self.attribute(self.value(node.args[0], names), attr)
        if what.code is range and len(node.args) == 3 and isinstance(node.args[2], ast.UnaryOp):
            return NOTHING.turned()
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
        if not isinstance(what.code, Function) and not is_builtin(what.code):
            functions = [value for value in every if isinstance(value.code, Function)]
            # it may call what it is given
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
                case ast.For(target=target, iter=listing, body=inner, orelse=orelse):
                    item = self.value(listing, names).in_loop()
                    for _ in range(_MOST_ROUNDS):  # until it tells nothing new
                        before = names.copy()
                        self._assign(target, item, names)
                        self.run(inner, names)
                        _join(names, before)
                        if names == before:
                            break
                    self.run(orelse, names)
                case ast.If(test=test, body=inner, orelse=orelse):
                    self.value(test, names)
                    other = names.copy()
                    self.run(inner, names)
                    self.run(orelse, other)
                    _join(names, other)
                case ast.With(items=items, body=inner):
                    for opened in items:
                        result = self.value(opened.context_expr, names)
                        if opened.optional_vars:
                            self._assign(opened.optional_vars, result, names)
                    self.run(inner, names)
                case ast.FunctionDef(name=name):
                    names[name] = Value(code=Function(node, names))
                case ast.While() | ast.Try() | ast.Match():
                    raise UnreadableError

    def _assign(self, target: ast.AST, result: Value, names: Names) -> None:
        """Let a target mean a value."""
        match target:
            case ast.Name(id=name):
                names[name] = result
            case ast.Tuple(elts=targets) | ast.List(elts=targets):
                fits = len(result.parts) == len(targets)
                for at, part in enumerate(targets):
                    self._assign(part, result.parts[at] if fits else result.in_loop(), names)
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
        if isinstance(whole, ast.Name) and whole.id in names and not names[whole.id].modules:
            both = merged([names[whole.id], Value(sources=result.sources)])
            names[whole.id] = replace(both, parts=())


def _falls(index: ast.AST) -> bool:
    """Whether a number gets less as a name in it gets more."""
    return any(
        (isinstance(node, ast.UnaryOp) and _has_name(node.operand))
        or (isinstance(node, ast.BinOp) and isinstance(node.op, ast.Sub) and _has_name(node.right))
        for node in ast.walk(index)
    )


def _has_name(node: ast.AST) -> bool:
    """Whether a name stands in an expression."""
    return any(isinstance(part, ast.Name) for part in ast.walk(node))


def _join(names: Names, other: dict[str, Value]) -> None:
    """Let every name mean either."""
    for name, value in other.items():
        if names.get(name) != value:
            names[name] = merged([names.get(name, NOTHING), value])
