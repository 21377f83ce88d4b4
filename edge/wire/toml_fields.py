"""TOML and environment to frozen dataclasses: how both ends read their configuration.

A schema is a frozen dataclass whose fields are sections; a section is a frozen dataclass whose fields are keys:

    @dataclass(frozen=True)
    class Run:
        threads: Annotated[int, Range(1, 64)] = 1
        \"\"\"Threads of one training step.\"\"\"

The type says what is accepted (`str`, `int`, `float`, `bool`, `Path`, `Literal`, `tuple[str, ...]`, each also `| None`), the marks
of `Annotated` narrow it, the string under a field is its documentation, and a field without a default is required. A section may
have a method `problems()` that yields sentences about keys that do not go together, and so may the schema about sections.

There is no I/O here: the caller hands in the text and the environment, and gets the schema or one `ConfigError` with every problem.
"""

import ast
import dataclasses
import difflib
import inspect
import itertools
import math
import re
import textwrap
import tomllib
import types
import typing
from collections.abc import Iterator, Mapping
from dataclasses import MISSING, dataclass
from pathlib import Path
from typing import Any, TypeVar

T = TypeVar("T")

NEAR = 0.6  # difflib's usual share of common letters, from which a suggestion is worth making
ALMOST = 0.85  # for environment variables, which may belong to another program


class ConfigError(ValueError):
    """A configuration cannot be used; the text has one problem a line, `problems` has them as a tuple."""

    def __init__(self, *problems: str) -> None:
        super().__init__("\n".join(problems))
        self.problems = problems


@dataclass(frozen=True)
class Range:
    """Marks a number that must lie between two bounds, both included."""

    minimum: float = -math.inf
    maximum: float = math.inf


@dataclass(frozen=True)
class Pattern:
    """Marks a text that must match `regex` as a whole; `meaning` says in words what that is."""

    regex: str
    meaning: str


@dataclass(frozen=True)
class PathUnless:
    """Marks a text that names a path unless it matches `regex`; as a path it counts from the file's folder."""

    regex: str
    meaning: str


@dataclass(frozen=True)
class Example:
    """Marks what the annotated example shows for a key without a default."""

    value: object


@dataclass(frozen=True)
class Key:
    """One key of one section, as the schema describes it; `default` is `MISSING` where the key is required."""

    section: str
    name: str
    type: Any
    optional: bool
    marks: tuple[object, ...]
    default: Any
    doc: str

    @property
    def required(self) -> bool:
        """Whether the file or the environment must give this key."""
        return self.default is MISSING

    @property
    def example(self) -> object:
        """What an example file shows: the default, else the mark's value."""
        shown = next((mark.value for mark in self.marks if isinstance(mark, Example)), None)
        return shown if self.default is MISSING or self.default is None else self.default

    def wants(self) -> str:
        """Says in words what this key accepts, such as `a whole number from 1 to 64`."""
        if typing.get_origin(self.type) is typing.Literal:
            return "one of " + ", ".join(_quoted(choice) for choice in typing.get_args(self.type))
        words = _TYPE_WORDS.get(self.type, "a list of texts")
        for mark in self.marks:
            if isinstance(mark, Range):
                words += _bounds(mark)
            elif isinstance(mark, Pattern | PathUnless):
                words = mark.meaning
        return words


Keys = dict[str, dict[str, Key]]

_TYPE_WORDS = {str: "a text", int: "a whole number", float: "a number", bool: "true or false", Path: "a path"}
_SWITCH_WORDS = {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False}


def keys_of(schema: type) -> Keys:
    """Returns every key of a schema, by section and name, in the order of the dataclasses."""
    sections = typing.get_type_hints(schema)
    return {field.name: _section_keys(field.name, sections[field.name]) for field in dataclasses.fields(schema)}


def read(schema: type[T], text: str, name: str, *, folder: Path, environ: Mapping[str, str], prefix: str) -> T:
    """Reads a schema from TOML; variables `PREFIX_SECTION_KEY` of the environment come before the file.

    Args:
        schema: a frozen dataclass of sections.
        text: the content of the file.
        name: what messages call the file.
        folder: where relative paths of the file start; those of the environment are left as they are.
        environ: variables to look in; those of other programs are ignored.
        prefix: what the variables start with, such as `CUTLAYER`.

    Raises:
        ConfigError: with every problem found, one a line, each naming file and line, key, value and what would be right.
    """
    try:
        tables = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"{name} is not valid TOML: {error}") from None
    reading = _Reading(schema, keys_of(schema), tables, name, text, folder)
    reading.take_file()
    reading.take_environment(environ, prefix)
    return typing.cast("T", reading.finish())


def describe(schema: type, heading: str) -> str:
    """Returns an annotated example TOML: required keys with an example, all others commented out with their default."""
    lines = [f"# {line}".rstrip() for line in heading.splitlines()]
    hints = typing.get_type_hints(schema)
    for section, keys in keys_of(schema).items():
        lines += ["", *_comment(inspect.getdoc(hints[section]) or ""), f"[{section}]"]
        for key in keys.values():
            lines += ["", *_comment(key.doc), *_comment(f"{key.wants()}; {_need(key)}")]
            lines.append(f"{'' if key.required else '# '}{key.name} = {_quoted(key.example)}")
    return "\n".join(lines) + "\n"


class _Reading:
    """One pass over one file: collects values and problems, then builds the schema or raises them all."""

    def __init__(self, schema: type, keys: Keys, tables: dict[str, Any], name: str, text: str, folder: Path) -> None:
        self.schema, self.keys, self.tables = schema, keys, tables
        self.name, self.text, self.folder = name, text, folder
        self.values: dict[str, dict[str, Any]] = {section: {} for section in keys}
        self.problems: list[str] = []
        self.faulty: set[tuple[str, str]] = set()  # told once: a wrong or misspelt key is not also a missing one

    def take_file(self) -> None:
        for section, table in self.tables.items():
            if section not in self.keys:
                self._unknown_section(section, table)
            elif not isinstance(table, dict):
                self._complain(section, None, f"{section} = {_quoted(table)}: must be a section, written [{section}]")
            else:
                for name, value in table.items():
                    self._take_key(section, name, value)

    def _take_key(self, section: str, name: str, value: object) -> None:
        key = self.keys[section].get(name)
        if key is None:
            hint, near = _nearest(name, self.keys[section])
            self.faulty.update((section, other) for other in near)
            self._complain(section, name, f"[{section}] has no key {name}{hint}")
            return
        try:
            self.values[section][name] = _from_folder(key, _accepted(key, value), self.folder)
        except ValueError:
            self.faulty.add((section, name))
            self._complain(section, name, f"[{section}] {name} = {_quoted(value)}: must be {key.wants()}")

    def _unknown_section(self, section: str, value: object) -> None:
        homes = [home for home, keys in self.keys.items() if section in keys]
        if not isinstance(value, dict):
            self.faulty.update((home, section) for home in homes)
            hint = f": it belongs under [{homes[0]}]" if homes else f"; sections: {', '.join(self.keys)}"
            self._complain(None, section, f"key {section} stands outside a section{hint}")
            return
        hint, near = _nearest(section, self.keys)
        self.faulty.update((home, name) for home in near for name in self.keys[home])
        self._complain(section, None, f"[{section}] is not a section{hint}")

    def take_environment(self, environ: Mapping[str, str], prefix: str) -> None:
        known = {f"{prefix}_{k.section}_{k.name}".upper(): k for keys in self.keys.values() for k in keys.values()}
        for variable, text in sorted(environ.items()):
            if variable in known:
                self._take_variable(variable, known[variable], text)
            elif variable.startswith(prefix + "_"):
                self._unknown_variable(variable, prefix, known)

    def _take_variable(self, variable: str, key: Key, text: str) -> None:
        self.faulty.discard((key.section, key.name))
        try:
            self.values[key.section][key.name] = _accepted(key, _from_text(key, text))
        except ValueError:
            self.faulty.add((key.section, key.name))
            self.problems.append(f"environment {variable} = {_quoted(text)}: must be {key.wants()}")

    def _unknown_variable(self, variable: str, prefix: str, known: Mapping[str, Key]) -> None:
        near = difflib.get_close_matches(variable, known, n=1, cutoff=ALMOST)
        ours = any(variable.startswith(f"{prefix}_{section}_".upper()) for section in self.keys)
        if near or ours:
            near = near or difflib.get_close_matches(variable, known, n=1, cutoff=0)
            self.problems.append(f"environment {variable} sets nothing: did you mean {near[0]}?")

    def finish(self) -> object:
        hints = typing.get_type_hints(self.schema)
        sections = {section: self._build(section, hints[section]) for section in self.keys}
        if None not in sections.values() and not self.faulty:
            whole = self.schema(**sections)
            if hasattr(whole, "problems"):
                self.problems += [f"{self.name}: {sentence}" for sentence in whole.problems()]
            if not self.problems:
                return whole
        raise ConfigError(*self.problems)

    def _build(self, section: str, kind: type) -> object:
        keys = self.keys[section].values()
        missing = [key for key in keys if key.required and key.name not in self.values[section]]
        for key in missing:
            if (section, key.name) not in self.faulty:
                hint = f"add {key.name} = {_quoted(key.example)}  ({key.wants()})"
                self.problems.append(f"{self.name}: [{section}] {key.name} is missing: {hint}")
        if missing:
            return None
        given = self.values[section]
        unsaid = {key.name: _from_folder(key, key.default, self.folder) for key in keys if key.name not in given}
        built = kind(**given, **unsaid)
        # A section with a wrong value holds defaults in its place: what it says about their company would mislead.
        if hasattr(built, "problems") and not any(home == section for home, _ in self.faulty):
            self.problems += [f"{self.name}: [{section}] {sentence}" for sentence in built.problems()]
        return built

    def _complain(self, section: str | None, key: str | None, sentence: str) -> None:
        line = _line_of(self.text, section, key)
        self.problems.append(f"{self.name}{f' line {line}' if line else ''}: {sentence}")


def _section_keys(section: str, kind: type) -> dict[str, Key]:
    hints, docs = typing.get_type_hints(kind, include_extras=True), field_docs(kind)
    return {field.name: _key(section, field, hints[field.name], docs[field.name]) for field in dataclasses.fields(kind)}


def _key(section: str, field: "dataclasses.Field[Any]", hint: Any, doc: str) -> Key:
    marks: list[object] = []
    optional = False
    while typing.get_origin(hint) in (typing.Annotated, typing.Union, types.UnionType):
        first, *rest = typing.get_args(hint)
        if typing.get_origin(hint) is typing.Annotated:
            marks += rest
        else:
            optional = True
        hint = first
    default = field.default if field.default_factory is MISSING else field.default_factory()
    return Key(section, field.name, hint, optional, tuple(marks), default, doc)


def field_docs(kind: type) -> dict[str, str]:
    """Returns the string that stands under each field of a dataclass or of what it inherits from, in one line; empty where there is none.

    Installed without sources (only .pyc files) there are none at all; reading a file does not need them.
    """
    docs = {field.name: "" for field in dataclasses.fields(kind)}
    for ancestor in reversed(kind.__mro__):
        if dataclasses.is_dataclass(ancestor):
            docs |= _own_docs(ancestor)
    return docs


def _own_docs(kind: type) -> dict[str, str]:
    try:
        source = textwrap.dedent(inspect.getsource(kind))
    except OSError:
        return {}
    docs = {}
    body = typing.cast("ast.ClassDef", ast.parse(source).body[0]).body
    for statement, below in itertools.pairwise(body):
        match statement, below:
            case ast.AnnAssign(target=ast.Name(id=name)), ast.Expr(value=ast.Constant(value=str(doc))):
                docs[name] = " ".join(doc.split())
            case _:
                pass
    return docs


def _accepted(key: Key, value: object) -> object:
    """Returns the value in the key's type; raises ValueError when type, range, choice or pattern are not met."""
    if value is None and key.optional:
        return None
    typed = _typed(key.type, value)
    for mark in key.marks:
        if isinstance(mark, Range) and not mark.minimum <= typing.cast("float", typed) <= mark.maximum:
            raise ValueError("out of range")
        if isinstance(mark, Pattern) and not re.fullmatch(mark.regex, str(typed)):
            raise ValueError("not of that form")
    return typed


def _typed(kind: Any, value: object) -> object:
    if typing.get_origin(kind) is typing.Literal and value in typing.get_args(kind):
        return value
    if typing.get_origin(kind) is tuple and isinstance(value, list):
        return tuple(_typed(typing.get_args(kind)[0], item) for item in value)
    if kind is float and isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value):
        return float(value)
    if kind is Path and isinstance(value, str) and value and "\0" not in value:
        return Path(value)
    if kind is str and isinstance(value, str) and value:
        return value
    if kind in (int, bool) and type(value) is kind:  # True is an int in Python, but not in a configuration
        return value
    raise ValueError("of another type")


def _from_text(key: Key, text: str) -> object:
    """Turns the text of a variable into what TOML would have given; an empty one unsets an optional key."""
    if not text and key.optional:
        return None
    if key.type is bool:
        return _SWITCH_WORDS.get(text.lower())
    if key.type in (int, float):
        return key.type(text)
    if typing.get_origin(key.type) is tuple:
        return [part.strip() for part in text.split(",") if part.strip()]
    return text


def _from_folder(key: Key, value: object, folder: Path) -> object:
    if isinstance(value, Path):
        return folder / value
    if isinstance(value, str):
        for mark in key.marks:
            if isinstance(mark, PathUnless) and not re.fullmatch(mark.regex, value):
                return str(folder / value)
    return value


def _need(key: Key) -> str:
    if key.required:
        return "required"
    return "not set by default" if key.default is None else "the default is shown"


def _nearest(name: str, known: Mapping[str, object]) -> tuple[str, list[str]]:
    near = difflib.get_close_matches(name, known, n=1, cutoff=NEAR)
    return (f": did you mean {near[0]}?" if near else f"; known: {', '.join(known)}"), near


def _bounds(mark: Range) -> str:
    low, high = f"{mark.minimum:.12g}", f"{mark.maximum:.12g}"
    if math.isinf(mark.maximum):
        return "" if math.isinf(mark.minimum) else f" of at least {low}"
    return f" of at most {high}" if math.isinf(mark.minimum) else f" from {low} to {high}"


def _quoted(value: object) -> str:
    """Writes a value as TOML does, as far as examples and messages need it."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str | Path):
        return '"' + str(value).replace("\\", "\\\\").replace('"', '\\"') + '"'
    if isinstance(value, list | tuple):
        return "[" + ", ".join(_quoted(item) for item in value) + "]"
    return '""' if value is None else str(value)


def _line_of(text: str, section: str | None, key: str | None) -> int | None:
    """Finds the line a message is about; None for dotted and inline tables, where a search would guess."""
    here: str | None = None
    for number, line in enumerate(text.splitlines(), 1):
        if header := re.match(r"\s*\[\s*([\w-]+)\s*\]", line):
            here = header[1]
            if key is None and here == section:
                return number
        elif key is not None and here == section and re.match(rf"\s*{re.escape(key)}\s*=", line):
            return number
    return None


def _comment(text: str) -> Iterator[str]:
    for paragraph in text.split("\n\n"):
        yield from textwrap.wrap(" ".join(paragraph.split()), 100, initial_indent="# ", subsequent_indent="# ")
