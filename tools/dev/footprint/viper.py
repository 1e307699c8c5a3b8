"""Viper functions for an interpreter without an emitter of machine code: their loops as JavaScript.

`split(source)` returns the module with a call in place of each viper function's body, and the
functions as JavaScript that work on the interpreter's memory by address, as machine code does: on
32-bit words, and without anything on the heap.  It knows what firmware/ uses of viper, and refuses
the rest.
"""

import ast

_WIDTHS = {"ptr8": 1, "ptr16": 2, "ptr32": 4}
_VIEWS = {1: "U8[{}]", 2: "U16[({})>>1]", 4: "I32[({})>>2]"}
_TYPES = {"int", "uint", *_WIDTHS}
_OPERATORS = {
    ast.Add: "+", ast.Sub: "-", ast.BitAnd: "&", ast.BitOr: "|", ast.BitXor: "^", ast.LShift: "<<",
}  # fmt: skip
_COMPARISONS = {
    ast.Eq: "==", ast.NotEq: "!=", ast.Lt: "<", ast.LtE: "<=", ast.Gt: ">", ast.GtE: ">=",
}  # fmt: skip


class Unknown(Exception):
    """Something of viper that is not known here; the text is its source."""


def is_viper(node):
    return isinstance(node, ast.FunctionDef) and any(
        ast.unparse(decorator) == "micropython.viper" for decorator in node.decorator_list
    )


class _Function:
    """One function; `text` is its JavaScript.  A value is (text, type), an int32 whatever its type."""

    def __init__(self, node, constants):
        self._constants = constants
        self._types = {a.arg: a.annotation.id for a in node.args.args}
        names = ", ".join(self._types)
        body = self._block(node.body)
        own = ", ".join(name for name in self._types if name not in names.split(", "))
        views = "const [U8, U16, I32] = views();"
        self.text = f"({names}) => {{ {views} {f'let {own};' if own else ''}\n{body}}}"

    def _block(self, statements):
        return "".join(self._statement(node) for node in statements)

    def _statement(self, node):
        match node:
            case ast.Expr(ast.Constant(str())):
                return ""
            case ast.Assign([target], value):
                return self._store(target, self._value(value))
            case ast.AugAssign(target, operator, value):
                return self._store(target, self._value(ast.BinOp(target, operator, value)))
            case ast.While(test, body, []):
                return f"while ({self._test(test)}) {{\n{self._block(body)}}}\n"
            case ast.If(test, body, other):
                text = f"if ({self._test(test)}) {{\n{self._block(body)}}}"
                return text + (f" else {{\n{self._block(other)}}}\n" if other else "\n")
            case ast.Return(value):
                return f"return {self._value(value)[0] if value else ''};\n"
        raise Unknown(ast.unparse(node))

    def _store(self, target, value):
        text, kind = value
        match target:
            case ast.Name(name):
                self._types.setdefault(name, kind)
                return f"{name} = {text};\n"
            case ast.Subscript():
                return f"{self._place(target)} = {text};\n"
        raise Unknown(ast.unparse(target))

    def _place(self, node):
        base, kind = self._value(node.value)
        if kind not in _WIDTHS:
            raise Unknown(ast.unparse(node))
        width = _WIDTHS[kind]
        return _VIEWS[width].format(f"{base}+{width}*({self._value(node.slice)[0]})")

    def _test(self, node):
        match node:
            case ast.Compare(left, [comparison], [right]):
                (a, kind), (b, _) = self._value(left), self._value(right)
                shift = ">>>0" if kind == "uint" else "|0"
                return f"({a}{shift}) {_COMPARISONS[type(comparison)]} ({b}{shift})"
            case ast.UnaryOp(ast.Not(), operand):
                return f"!({self._test(operand)})"
        return self._value(node)[0]

    def _value(self, node):
        match node:
            case ast.Constant(int(number)):
                return str(number), "int"
            case ast.Name(name) if name in self._types:
                return name, self._types[name]
            case ast.Name(name) if name in self._constants:
                return str(self._constants[name]), "int"
            case ast.Subscript():
                return self._place(node), "int"
            case ast.Call(ast.Name(name), [operand]) if name in _TYPES:
                return self._value(operand)[0], name
            case ast.UnaryOp(ast.Invert(), operand):
                text, kind = self._value(operand)
                return f"(~{text})", kind
            case ast.UnaryOp(ast.USub(), operand):
                text, kind = self._value(operand)
                return f"(-{text}|0)", kind
            case ast.BinOp(left, operator, right):
                (a, kind), (b, _) = self._value(left), self._value(right)
                if isinstance(operator, ast.Mult):
                    return f"Math.imul({a}, {b})", kind
                if isinstance(operator, ast.RShift):
                    return (f"({a}>>>{b}|0)" if kind == "uint" else f"({a}>>{b})"), kind
                if type(operator) in _OPERATORS:
                    return f"({a}{_OPERATORS[type(operator)]}{b}|0)", kind
        raise Unknown(ast.unparse(node))


def _constants(tree):
    """Return {name: value} of the module's `NAME = const(number)`."""
    found = {}
    for node in tree.body:
        match node:
            case ast.Assign([ast.Name(name)], ast.Call(ast.Name("const"), [ast.Constant(value)])):
                found[name] = value
    return found


def split(source, module):
    """Return (the module's source with calls in place of loops, {name: JavaScript})."""
    tree = ast.parse(source)
    module = module.replace("/", "_")  # a name in JavaScript, too
    constants = _constants(tree)
    functions = {}
    for node in tree.body:
        if not is_viper(node):
            continue
        name = f"{module}_{node.name}"
        functions[name] = _Function(node, constants).text
        given = [
            f"_address({a.arg})" if a.annotation.id in _WIDTHS else a.arg for a in node.args.args
        ]
        call = ast.parse(f"return _loops.{name}({', '.join(given)})").body
        node.body, node.decorator_list, node.returns = call, [], None
    if not functions:
        return source, {}
    head = ast.parse("import _loops\nfrom uctypes import addressof as _address").body
    at = 1 if ast.get_docstring(tree) is not None else 0
    tree.body[at:at] = head
    return ast.unparse(tree), functions


def without(source):
    """Return the module with None in place of each viper function: all but the machine code."""
    tree = ast.parse(source)
    for n, node in enumerate(tree.body):
        if is_viper(node):
            tree.body[n] = ast.parse(f"{node.name} = None").body[0]
    return ast.unparse(tree)
