"""YAML with positions: plain data, and the line and column of each key and value."""

from collections.abc import Iterator
from dataclasses import dataclass, field

from ruamel.yaml import YAML
from ruamel.yaml.error import MarkedYAMLError, StreamMark
from ruamel.yaml.nodes import MappingNode, Node, ScalarNode, SequenceNode
from ruamel.yaml.reader import ReaderError

from ai_proxy.config.problems import Fault, KeyPath, Position

type Value = bool | int | float | str | list[Value] | dict[str, Value] | None

MAX_NODES = 100_000
"""Maximum number of nodes; aliases of aliases can multiply without end."""

_TAG = "tag:yaml.org,2002:"
_TYPED = {_TAG + name for name in ("null", "bool", "int", "float")}
_TEXT = {_TAG + name for name in ("str", "timestamp", "value", "binary")}

_SYNTAX_HINTS = {
    "\\t": ("a tab is used for indentation", "indent with spaces"),
    "mapping values are not allowed": (
        "unexpected key",
        "check the indentation, and quote a value that contains ': '",
    ),
    "another document": (
        "a second document begins here",
        "keep one document per file; remove the '---' line",
    ),
    "undefined alias": ("the alias has no anchor", "define it earlier in the file with &name"),
    "end of stream": ("a quote or bracket is never closed", "close it"),
    "cannot start any token": ("a value cannot begin with this character", "put the value in quotes"),
    "got '{'": ("'${' inside braces or brackets must be quoted", 'write "${env:NAME}"'),
}


class SyntaxFaultError(Exception):
    """The text is not YAML; carries the fault."""

    def __init__(self, fault: Fault) -> None:
        super().__init__(fault.message)
        self.fault = fault


@dataclass(slots=True)
class Document:
    """A parsed file.

    Attributes:
        data: Plain data; an empty file is an empty mapping.
        keys: Position of each key.
        values: Position of each value.
        faults: Faults in the YAML that did not stop the parser.
    """

    data: Value = None
    keys: dict[KeyPath, Position] = field(default_factory=dict)
    values: dict[KeyPath, Position] = field(default_factory=dict)
    faults: list[Fault] = field(default_factory=list)

    def position(self, fault: Fault) -> Position:
        """Return the position of a fault; for a missing key, the position of its nearest existing parent."""
        if fault.position:
            return fault.position
        path = fault.path
        if not fault.on_key and path in self.values:
            return self.values[path]
        while path not in self.keys and path:
            path = path[:-1]
        return self.keys.get(path, Position(1, 1))

    def value_at(self, path: KeyPath) -> Value:
        """Return the value as the file has it; None when the file has none."""
        value = self.data
        for key in path:
            match value, key:
                case dict(), str() if key in value:
                    value = value[key]
                case list(), int() if key < len(value):
                    value = value[key]
                case _:
                    return None
        return value


def parse(text: str) -> Document:
    """Parse YAML 1.2, in which `22:22` and `no` are text.

    Raises:
        SyntaxFaultError: The text is not YAML.
    """
    try:
        yaml = YAML(typ="safe", pure=True)
        root: Node | None = yaml.compose(text)
        builder = _Builder(yaml)
        if root is not None:
            builder.document.data = builder.build(root, ())
    except MarkedYAMLError as error:
        raise SyntaxFaultError(_syntax_fault(error)) from None
    except ReaderError as error:
        line = text.count("\n", 0, error.position) + 1
        column = error.position - (text.rfind("\n", 0, error.position) + 1) + 1
        raise SyntaxFaultError(
            Fault((), "a control character is not allowed", "remove it", position=Position(line, column))
        ) from None
    except RecursionError:
        raise SyntaxFaultError(Fault((), "the file is nested too deeply", "simplify it")) from None
    document = builder.document
    document.data = {} if document.data is None else document.data
    return document


def _syntax_fault(error: MarkedYAMLError) -> Fault:
    problem = error.problem or "not YAML"
    message, hint = next(
        (text for sign, text in _SYNTAX_HINTS.items() if sign in problem),
        (f"not YAML: {problem}", "check indentation, quotes and brackets here"),
    )
    mark = error.problem_mark or error.context_mark
    return Fault((), message, hint, position=_position(mark) if mark else None)


def _position(mark: StreamMark) -> Position:
    return Position(mark.line + 1, mark.column + 1)


class _Builder:
    """Builds plain data from the parser's nodes."""

    def __init__(self, yaml: YAML) -> None:
        self.document = Document()
        self._construct = yaml.constructor.construct_object
        self._open: list[Node] = []
        self._count = 0

    def build(self, node: Node, path: KeyPath) -> Value:
        """Return the plain data of a node, and record positions."""
        self._count += 1
        self.document.values[path] = _position(node.start_mark)
        if any(parent is node for parent in self._open) or self._count > MAX_NODES:
            self._fault(path, "an alias contains itself", "write the value out without the alias")
            return ""
        if isinstance(node, ScalarNode):
            return self._scalar(node, path)
        self._open.append(node)
        try:
            if isinstance(node, MappingNode):
                return self._mapping(node, path)
            return self._sequence(node, path) if isinstance(node, SequenceNode) else None
        finally:
            self._open.pop()

    def _scalar(self, node: ScalarNode, path: KeyPath) -> Value:
        if node.tag in _TYPED:
            return self._typed(node, path)
        if node.tag not in _TEXT:
            self._fault(path, f"the YAML tag {node.tag} is not supported", "remove the tag")
        return str(node.value)

    def _typed(self, node: ScalarNode, path: KeyPath) -> Value:
        try:
            value: Value = self._construct(node)
        except ValueError:  # Python refuses numbers with thousands of digits
            self._fault(path, "this number cannot be read", "put the value in quotes if it is text")
            value = str(node.value)
        return value

    def _sequence(self, node: SequenceNode, path: KeyPath) -> Value:
        items = []
        for index, item in enumerate(node.value):
            self.document.keys[*path, index] = _position(item.start_mark)
            items.append(self.build(item, (*path, index)))
        return items

    def _mapping(self, node: MappingNode, path: KeyPath) -> Value:
        result: dict[str, Value] = {}
        for key, value in self._pairs(node, path):
            name = str(key.value)
            where = (*path, name)
            if name in result:
                first = self.document.keys[where].line
                self.document.faults.append(
                    Fault(
                        where,
                        f"the key is given twice, first on line {first}",
                        "remove one of them",
                        position=_position(key.start_mark),
                    )
                )
                continue
            self.document.keys[where] = _position(key.start_mark)
            result[name] = self.build(value, where)
        return result

    def _pairs(self, node: MappingNode, path: KeyPath) -> Iterator[tuple[Node, Node]]:
        """Yield a mapping's own pairs, then the pairs that `<<` merges in for keys it lacks."""
        own: set[str] = set()
        merged: list[Node] = []
        for key, value in node.value:
            if key.tag == _TAG + "merge":
                merged += value.value if isinstance(value, SequenceNode) else [value]
            elif isinstance(key, ScalarNode):
                own.add(str(key.value))
                yield key, value
            else:
                self._fault(path, "a key must be plain text", "write a name in front of the ':'")
        for source in merged:
            if not isinstance(source, MappingNode) or any(parent is source for parent in self._open):
                self._fault(path, "'<<' only merges mappings", "give it an alias of a mapping")
                continue
            for key, value in self._pairs(source, path):
                if str(key.value) not in own:
                    own.add(str(key.value))
                    yield key, value

    def _fault(self, path: KeyPath, message: str, hint: str) -> None:
        if not any(fault.path == path for fault in self.document.faults):
            self.document.faults.append(Fault(path, message, hint))


def quote(value: Value) -> str:
    """Return a value of the file as an error message shows it, shortened.

    >>> quote("abc"), quote(7), quote(True), quote([1])
    ("'abc'", '7', 'true', 'this list')
    """
    match value:
        case bool():
            return str(value).lower()
        case str():
            return repr(value if len(value) <= 40 else value[:37] + "...")
        case dict():
            return "this mapping"
        case list():
            return "this list"
        case _:
            return str(value)


def nulls(value: Value, path: KeyPath = ()) -> Iterator[Fault]:
    """Yield a fault for every key without a value.

    >>> [fault.path for fault in nulls({"a": {"b": None, "c": 1}})]
    [('a', 'b')]
    """
    match value:
        case None:
            yield Fault(path, "has no value", "give it a value, or remove it", on_key=True)
        case dict():
            for key, child in value.items():
                yield from nulls(child, (*path, key))
        case list():
            for index, child in enumerate(value):
                yield from nulls(child, (*path, index))
        case _:
            pass
