"""YAML that may come from anybody: plain values, limits on size, number and depth, one sentence for what is wrong."""

import re
from pathlib import Path
from typing import Any

import yaml

from facelab.errors import ConfigError, first_line
from facelab.outside.file import read_regular_text

MAX_BYTES = 1 << 20
MAX_VALUES = 20_000  # as written out, so what an alias stands for counts each time
MAX_DEPTH = 64
MAX_NUMBER = 400  # characters; all of float64 can be written so, and longer ones take long to read
SHOWN = 40

TAG = "tag:yaml.org,2002:"
NUMBERS = (f"{TAG}int", f"{TAG}float")
PLAIN = ("null", "bool", "int", "float", "str", "seq", "map")
UNUSABLE = re.compile("[\0\ud800-\udfff]")  # no file name and no encoding takes them

Node = yaml.Node


class _Loader(yaml.SafeLoader):
    """`yaml.SafeLoader` for settings.

    It reads ``1e-3`` as a number and dates as text, refuses a key that stands twice, and knows no tags but those of
    plain values. Nodes are counted while they are composed, so that nothing larger than the limits is ever built.
    """

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self._count = 0
        self._depth = 0
        self._known: dict[int, tuple[int, int]] = {}  # a node's id -> how many nodes it is, and how deep

    def compose_node(self, parent: Node | None, index: Any) -> Node | None:
        alias = self.check_event(yaml.AliasEvent)
        event: yaml.Event = self.peek_event()  # type: ignore[no-untyped-call]
        before, mark = self._count, event.start_mark
        self._depth += 1
        if self._depth > MAX_DEPTH:
            raise _refusal(f"it is nested more than {MAX_DEPTH} deep", mark)
        node = super().compose_node(parent, index)
        if alias and id(node) not in self._known:
            raise _refusal("an alias stands inside of what it stands for", mark)
        size, height = self._known[id(node)] if alias else (1, _height(node, self._known))
        self._count += size
        if self._count > MAX_VALUES:
            raise _refusal(f"it has more than {MAX_VALUES:,} values, those that aliases stand for included", mark)
        if self._depth + height - 1 > MAX_DEPTH:
            raise _refusal(f"its aliases nest it more than {MAX_DEPTH} deep", mark)
        self._depth -= 1
        if not alias:
            # Only now, when it is complete: an alias that meets a node which is not known yet stands inside of it.
            self._known[id(node)] = self._count - before, height
        return node

    def compose_mapping_node(self, anchor: Any) -> yaml.MappingNode:
        # Checked before ``<<`` merges another mapping in, whose keys may stand here again: they win.
        node: yaml.MappingNode = super().compose_mapping_node(anchor)
        seen = set()
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode):
                if key.value in seen:
                    raise _refusal(f"key '{_short(key.value)}' stands twice", node.start_mark)
                seen.add(key.value)
        return node

    def construct_object(self, node: Node, deep: bool = False) -> Any:
        try:
            if node.tag in NUMBERS and len(node.value) > MAX_NUMBER:
                raise ValueError
            return super().construct_object(node, deep)
        except (ValueError, LookupError, OverflowError):
            kind = node.tag.removeprefix(TAG)
            raise _refusal(f"'{_short(node.value)}' is no {kind}", node.start_mark) from None

    def construct_scalar(self, node: yaml.ScalarNode | yaml.MappingNode) -> Any:
        value = super().construct_scalar(node)
        if isinstance(value, str) and UNUSABLE.search(value):
            raise _refusal(f"the text {_short(value)!r} holds a character that cannot be written", node.start_mark)
        return value

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> Any:
        mapping = super().construct_mapping(node, deep)
        for key in mapping:
            if not isinstance(key, str):
                raise _refusal(f"the key {_short(str(key))} is no text; write it in quotes", node.start_mark)
        return mapping


_Loader.yaml_constructors = {
    tag: make
    for tag, make in yaml.SafeLoader.yaml_constructors.items()
    if tag is None or tag.removeprefix(TAG) in PLAIN
}
_Loader.yaml_implicit_resolvers = {
    first: [(tag, form) for tag, form in resolvers if tag.removeprefix(TAG) in (*PLAIN, "merge")]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
_Loader.add_implicit_resolver(
    f"{TAG}float",
    # YAML 1.1 wants a dot and a sign: 1e-3 and 1.0e6 would be texts.
    re.compile(r"^[-+]?(\d[\d_]*\.[\d_]*([eE][-+]?\d+)?|\.\d[\d_]*([eE][-+]?\d+)?|\d[\d_]*[eE][-+]?\d+|\.inf|\.nan)$"),
    list("-+0123456789."),
)


def parse_yaml(text: str, where: str) -> Any:
    """The value of a YAML text: null, truth values, numbers, texts, lists, and mappings with texts as keys.

    Raises:
        ConfigError: If the text is not plain YAML, or is beyond a limit; the message has ``where`` and the line.
    """
    if len(text) > MAX_BYTES:
        raise ConfigError(f"{where} has {len(text):,} characters, more than the {MAX_BYTES:,} that settings may have.")
    try:
        return yaml.load(text, Loader=_Loader)
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else "?"
        raise ConfigError(f"{where}, line {line}: {error.problem}.") from None
    except yaml.YAMLError as error:
        raise ConfigError(f"{where} is not valid YAML: {first_line(error)}.") from None


def read_yaml(path: Path) -> dict[str, Any]:
    """The mapping in a YAML file.

    Raises:
        ConfigError: If the file is missing or too large, is not YAML, or is not a mapping.
    """
    try:
        text = read_regular_text(path, limit=MAX_BYTES)
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8 text"
        raise ConfigError(f"cannot read the configuration '{path}': {reason}.") from None
    tree = parse_yaml(text, f"'{path}'")
    if tree is None:
        return {}
    if not isinstance(tree, dict):
        raise ConfigError(f"'{path}' must hold `key: value` lines, got {type(tree).__name__}.")
    return tree


def _refusal(problem: str, mark: Any) -> yaml.MarkedYAMLError:
    return yaml.constructor.ConstructorError(None, None, problem, mark)


def _height(node: Node | None, known: dict[int, tuple[int, int]]) -> int:
    """Levels of a node: 1 for a scalar. Its children are known already."""
    inside = node.value if isinstance(node, yaml.CollectionNode) else []
    children = (child for pair in inside for child in pair) if isinstance(node, yaml.MappingNode) else inside
    return 1 + max((known[id(child)][1] for child in children), default=0)


def _short(text: Any) -> str:
    return text if len(text := str(text)) <= SHOWN else f"{text[:SHOWN]}…"
