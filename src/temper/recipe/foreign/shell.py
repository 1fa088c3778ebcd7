"""The commands of a shell script as their words, with what variables, arrays and sums of the script stand for.

Nothing is run. What only a run would know (`$1`, `$(nproc)`) stays in the word as it was written.
"""

from __future__ import annotations

import ast
import operator
import re
from collections.abc import Callable
from dataclasses import dataclass, field

from temper.errors import ConfigError, Fault

OPEN = re.compile(r"[$`]")  # a word with one of these left in it depends on something that the script does not say
_NAME = re.compile(r"[A-Za-z_]\w*")
_ARRAY = re.compile(r"([A-Za-z_]\w*)(\+?)=\(")
_ASSIGNED = re.compile(r"([A-Za-z_]\w*)(\+?)=(.*)", re.DOTALL)
_REDIRECT = re.compile(r"(?:\d*|&)(?:>>?|<(?!<))(&[\d-])?")
_HEREDOC = re.compile(r"<<(-?)\s*(['\"]?)(\w+)\2")
_DEFAULT = re.compile(r"(\w+)(:?[-=])(.*)", re.DOTALL)
_SKIPPED = re.compile(r"(?:[ \t]*#[^\n]*\n)*")  # comments between two lines of one command
_OPENS, _CLOSES = {"if", "case", "for", "while", "until", "select"}, {"fi", "esac", "done"}
_BEFORE = {"then", "else", "do", "{", "export", "local", "readonly", "declare", "typeset", "-a", "-x", "-r", "time"}
_SUMS: dict[type, Callable] = {ast.Add: operator.add, ast.Sub: operator.sub, ast.Mult: operator.mul,
                               ast.Div: operator.floordiv, ast.Mod: operator.mod}  # fmt: skip
DEEPEST = 20  # of commands in commands, and of defaults in defaults


@dataclass(frozen=True)
class Word:
    """One word of a command and the line it begins on."""

    text: str
    line: int


def read_commands(text: str, source: str) -> list[list[Word]]:
    """The commands of a script, in order, those written in quotes after `-c` and in here-documents too.

    Raises ConfigError where a quotation is not closed.

    >>> [command] = read_commands("N=$((2 * 4))\\npython x.py --n $N --m ${M:-7}", "run.sh")
    >>> [word.text for word in command]
    ['python', 'x.py', '--n', '8', '--m', '7']
    """
    script = _Script(text.replace("\r\n", "\n"), source)
    script.read()
    return script.commands


@dataclass
class _Script:
    text: str
    source: str
    first_line: int = 1
    known: dict[str, str] = field(default_factory=lambda: {"HOME": "~", "PWD": "."})
    arrays: dict[str, list[Word]] = field(default_factory=dict)
    level: int = 0  # of this script in others
    at: int = 0
    depth: int = 0  # of conditions and loops
    commands: list[list[Word]] = field(default_factory=list)

    def read(self) -> None:
        while self.at < len(self.text):
            self._command()

    def line(self, at: int | None = None) -> int:
        return self.first_line + self.text.count("\n", 0, self.at if at is None else at)

    # -- commands -----------------------------------------------------------------------------------------------------

    def _command(self) -> None:
        words: list[Word] = []
        documents: list[str] = []
        while self.at < len(self.text):
            char = self.text[self.at]
            if char in " \t":
                self.at += 1
            elif self.text.startswith("\\\n", self.at):
                self._continued()
            elif char == "#":
                self.at = self._line_end()
            elif (char in "\n;|&" and not _REDIRECT.match(self.text, self.at)) or char in "()":
                self.at += 1
                if char == "\n":
                    self._documents(documents)
                break
            elif match := _HEREDOC.match(self.text, self.at):
                documents.append(match[3])
                self.at = match.end()
            elif match := _REDIRECT.match(self.text, self.at):
                self.at = match.end()
                if not match[1]:
                    self._skip_blanks()
                    self._word()
            elif (match := _ARRAY.match(self.text, self.at)) and not self._is_command(words):
                self._array(match)
            else:
                words += self._word()
        self._take(words)

    def _is_command(self, words: list[Word]) -> bool:
        return any(word.text not in _BEFORE and not _ASSIGNED.fullmatch(word.text) for word in words)

    def _take(self, words: list[Word]) -> None:
        """Keep a command; what only assigns is kept as what names stand for."""
        while words and words[0].text in _BEFORE:
            words = words[1:]
        if not words:
            return
        self.depth += (words[0].text in _OPENS) - (words[0].text in _CLOSES)
        if not self._is_command(words):
            for word in words:
                if match := _ASSIGNED.fullmatch(word.text):
                    self._assign(match[1], match[3], bool(match[2]))
            return
        while _ASSIGNED.fullmatch(words[0].text):
            words = words[1:]
        self.commands.append(words)
        for shell, flag, word in zip(words, words[1:], words[2:], strict=False):
            if shell.text.endswith("sh") and flag.text in ("-c", "-lc") and self.level < DEEPEST:
                self._inside(word.text, word.line)

    def _assign(self, name: str, value: str, more: bool) -> None:
        """A value set under a condition counts only where there is none yet: the script as it runs by default."""
        if more and not self.depth:
            self.known[name] = self.known.get(name, "") + value
        elif not more and not (self.depth and self.known.get(name)):
            self.known[name] = value

    def _inside(self, text: str, line: int) -> None:
        script = _Script(text, self.source, line, self.known, self.arrays, self.level + 1)
        script.read()
        self.commands += script.commands

    def _array(self, match: re.Match) -> None:
        self.at = match.end()
        words: list[Word] = []
        while self.at < len(self.text) and self.text[self.at] != ")":
            if self.text[self.at] in " \t\n":
                self.at += 1
            elif self.text.startswith("\\\n", self.at):
                self._continued()
            elif self.text[self.at] == "#":
                self.at = self._line_end()
            elif self.text[self.at] in ";|&<>(":
                self.at += 1
            else:
                words += self._word()
        self.at += 1
        if match[2]:
            words = self.arrays.get(match[1], []) + (words if not self.depth else [])
        if not (self.depth and self.arrays.get(match[1])):
            self.arrays[match[1]] = words

    def _documents(self, names: list[str]) -> None:
        """What stands in here-documents: commands, too."""
        for name in names:
            end = re.compile(rf"^\t*{re.escape(name)}[ \t]*$", re.MULTILINE).search(self.text, self.at)
            body, line = self.text[self.at : end.start() if end else len(self.text)], self.line()
            self.at = end.end() if end else len(self.text)
            if self.level < DEEPEST:
                self._inside(body, line)

    def _continued(self) -> None:
        self.at = _SKIPPED.match(self.text, self.at + 2).end()  # type: ignore[union-attr]

    def _line_end(self) -> int:
        end = self.text.find("\n", self.at)
        return len(self.text) if end < 0 else end

    def _skip_blanks(self) -> None:
        while self.text[self.at : self.at + 1] in (" ", "\t"):
            self.at += 1

    # -- words --------------------------------------------------------------------------------------------------------

    def _word(self) -> list[Word]:
        """What one word as it is written becomes: mostly one, none or several where an array or a list stands in it."""
        begin, line = self.at, self.line()
        done: list[Word] = []
        now: str | None = None
        while self.at < len(self.text) and self.text[self.at] not in " \t\n;|&()<>":
            char = self.text[self.at]
            if char == "'":
                now = (now or "") + self._until("'")
            elif char == '"':
                parts = self._quoted()
                if parts:
                    now = (now or "") + parts[0].text
                    for part in parts[1:]:
                        done.append(Word(now, line))
                        now, line = part.text, part.line
            elif char == "\\":
                if self.text.startswith("\\\n", self.at):
                    break
                now = (now or "") + self.text[self.at + 1 : self.at + 2]
                self.at += 2
            elif char in "$`":
                found = self._expansion(split=True)
                if found:
                    now = (now or "") + found[0].text
                    for part in found[1:]:
                        done.append(Word(now, line))
                        now = part.text
            else:
                now = (now or "") + char
                self.at += 1
        if self.at == begin:  # nothing that a word could begin with
            self.at += 1
        return done if now is None else [*done, Word(now, line)]

    def _until(self, quote: str) -> str:
        end = self.text.find(quote, self.at + 1)
        if end < 0:
            raise ConfigError(Fault("not a shell script: a quotation is not closed", f"{self.source}:{self.line()}"))
        inside, self.at = self.text[self.at + 1 : end], end + 1
        return inside

    def _quoted(self) -> list[Word]:
        """What double quotes hold: one word, or those of an array."""
        begin = self.at
        parts, line = [""], self.line()
        self.at += 1
        while self.at < len(self.text):
            char = self.text[self.at]
            if char == '"':
                self.at += 1
                return [Word(part, line) for part in parts] if parts != [] else []
            if char == "\\" and self.text[self.at + 1 : self.at + 2] in ('"', "\\", "$", "`", "\n"):
                parts[-1] += self.text[self.at + 1].replace("\n", "")
                self.at += 2
            elif char in "$`":
                found = [word.text for word in self._expansion(split=False)]
                if found:
                    parts[-1] += found[0]
                    parts += found[1:]
                elif self.text.startswith('"', self.at) and parts == [""]:
                    parts = []
            else:
                parts[-1] += char
                self.at += 1
        raise ConfigError(Fault("not a shell script: a quotation is not closed", f"{self.source}:{self.line(begin)}"))

    # -- what names stand for -----------------------------------------------------------------------------------------

    def _expansion(self, split: bool) -> list[Word]:
        """`$NAME`, `${NAME:-default}`, `${NAME[@]}`, `$((1 + 2))`; others as they are written."""
        begin, line = self.at, self.line()
        if self.text[begin] == "`":
            return [Word(f"`{self._until('`')}`", line)]
        rest = self.text[begin + 1 : begin + 3]
        if rest == "((":
            self.at = self._closing(begin + 1, "(", ")")
            inside = self.text[begin + 3 : self.at - 2]
            value = _sum(inside, self.known)
            return [Word(self.text[begin : self.at] if value is None else str(value), line)]
        if rest[:1] == "(":
            self.at = self._closing(begin + 1, "(", ")")
            return [Word(self.text[begin : self.at], line)]
        if rest[:1] == "{":
            self.at = self._closing(begin + 1, "{", "}")
            inside = self.text[begin + 2 : self.at - 1]
            if match := re.fullmatch(r"(\w+)\[[@*]\](?::?[-+].*)?", inside, re.DOTALL):
                return list(self.arrays.get(match[1], []))
            value = self._named(inside, self.text[begin : self.at])
        elif match := _NAME.match(self.text, begin + 1):
            self.at = match.end()
            value = self.known.get(match[0], f"${match[0]}")
        elif rest[:1] in ("@", "*"):
            self.at += 2
            return []
        else:
            self.at += 2 if rest[:1] and rest[:1] in "0123456789#?$!-" else 1
            value = self.text[begin : self.at]
        if split and (" " in value or "\n" in value) and "$(" not in value and "`" not in value:
            return [Word(part, line) for part in value.split()]
        return [Word(value, line)]

    def _named(self, inside: str, written: str) -> str:
        """What stands in `${…}`."""
        if inside in self.known:
            return self.known[inside]
        if match := _DEFAULT.fullmatch(inside):
            name, how, default = match.groups()
            if (value := self.known.get(name)) is not None and (value or how[0] != ":"):
                return value
            if self.level >= DEEPEST:
                return written
            script = _Script(f'"{default}"' if '"' not in default else default, self.source, self.line(), self.known,
                             self.arrays, self.level + 1)  # fmt: skip
            return " ".join(word.text for word in script._word())
        return written

    def _closing(self, at: int, opens: str, closes: str) -> int:
        """The place behind the bracket that closes the one at `at`; the end of the text where none does."""
        depth = 0
        for place in range(at, len(self.text)):
            depth += (self.text[place] == opens) - (self.text[place] == closes)
            if depth == 0:
                return place + 1
        return len(self.text)


def _sum(text: str, known: dict[str, str]) -> int | None:
    """The value of a sum of whole numbers and names; None where it is none.

    >>> _sum("1024 * (N + 1)", {"N": "3"}), _sum("$N / 2", {"N": "5"}), _sum("nproc", {})
    (4096, 2, None)
    """
    text = re.sub(r"\$\{?(\w+)\}?", r"\1", text).strip()
    if len(text) > 200:
        return None
    try:
        return _value(ast.parse(text, mode="eval").body, known)
    except (SyntaxError, ValueError, ZeroDivisionError, RecursionError, KeyError, MemoryError):
        return None


def _value(node: ast.AST, known: dict[str, str]) -> int:
    if isinstance(node, ast.Constant) and type(node.value) is int:
        return node.value
    if isinstance(node, ast.Name):
        return int(known[node.id])
    if isinstance(node, ast.BinOp) and type(node.op) in _SUMS:
        return _SUMS[type(node.op)](_value(node.left, known), _value(node.right, known))
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub):
        return -_value(node.operand, known)
    raise ValueError("no sum")
