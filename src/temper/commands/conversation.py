"""What was said so far, and what somebody can say beside a question: `/new`, `/system`, `/temp`, `/help`, `/quit`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from temper.types import Message

HELP = """\
  /new           forget what was said so far
  /system TEXT   what the model is told first, from now on; alone: nothing. Begins anew
  /temp NUMBER   the temperature from now on, 0 is greedy; alone: what it is
  /help          this list
  /quit          end; so does Ctrl-D
  //…            a question that begins with a slash; Ctrl-C ends a reply and nothing else"""


@dataclass
class Conversation:
    """The turns that a model is shown before the next question; `alone`: none but the system prompt.

    >>> talk = Conversation(system="Be short.")
    >>> talk.add("2+2?", "4")
    >>> [message.role for message in talk.messages("And 3+3?")]
    ['system', 'user', 'assistant', 'user']
    """

    system: str = ""
    alone: bool = False
    turns: list[Message] = field(default_factory=list)

    def messages(self, question: str) -> tuple[Message, ...]:
        start = (Message("system", self.system),) if self.system else ()
        return (*start, *self.turns, Message("user", question))

    def add(self, question: str, reply: str) -> None:
        if not self.alone:
            self.turns += [Message("user", question), Message("assistant", reply)]

    def drop_oldest(self) -> None:
        del self.turns[:2]


def fitting_ids(chat: Any, talk: Conversation, question: str, room: int) -> tuple[tuple[int, ...], int]:
    """(the ids of the conversation with the question, how many of its oldest exchanges were left out for them to fit
    the model's context with `room` tokens for the reply). Those left out are forgotten; a question that fits only alone
    and with less room is asked so. Raises DataError where not even that will do; then nothing is forgotten.
    """
    from temper.errors import DataError

    tried = replace(talk, turns=list(talk.turns))
    while True:
        try:
            ids = chat.prompts_ids([tried.messages(question)], room if tried.turns else 1)[0]
        except DataError:
            if not tried.turns:
                raise
            tried.drop_oldest()
            continue
        left_out = (len(talk.turns) - len(tried.turns)) // 2
        talk.turns = tried.turns
        return ids, left_out


class Quit(Exception):
    """Somebody has said all they wanted."""


def is_command(line: str) -> bool:
    """Whether a line is for the program: `/…` but not `//…`."""
    return line.startswith("/") and not line.startswith("//")


def as_question(line: str) -> str:
    """A line that is no command, as the model is asked it."""
    return line[1:] if line.startswith("//") else line


def obey(line: str, talk: Conversation, session: Any, say: Callable[[str], None]) -> None:
    """Do what a command says. `session` has a `chat` and a `sampling`. Raises Quit."""
    name, _, rest = line.partition(" ")
    commands = {"/new": _new, "/system": _system, "/temp": _temperature, "/help": _help, "/quit": _quit}
    if name not in commands:
        say(f"  no command {name}; /help lists them, // begins a question with a slash")
        return
    commands[name](rest.strip(), talk, session, say)


def _new(rest: str, talk: Conversation, session: Any, say: Callable[[str], None]) -> None:
    talk.turns.clear()
    say("  a new conversation")


def _system(rest: str, talk: Conversation, session: Any, say: Callable[[str], None]) -> None:
    from temper.errors import TemperError

    tried = Conversation(rest)
    try:
        session.chat.prompt_ids(tried.messages("?"))
    except TemperError as error:
        say(error.render())
        return
    talk.system = rest
    talk.turns.clear()
    say("  a new conversation " + ("with this system prompt" if rest else "without a system prompt"))


def _temperature(rest: str, talk: Conversation, session: Any, say: Callable[[str], None]) -> None:
    try:
        value = float(rest) if rest else session.sampling.temperature
    except ValueError:
        value = -1.0
    if not 0 <= value <= 10:
        say(f"  /temp {rest}: not a number between 0 (greedy) and 10")
        return
    session.sampling = replace(session.sampling, temperature=value)
    say(f"  temperature {value:g}")


def _help(rest: str, talk: Conversation, session: Any, say: Callable[[str], None]) -> None:
    say(HELP)


def _quit(rest: str, talk: Conversation, session: Any, say: Callable[[str], None]) -> None:
    raise Quit


def questions_of(lines: Sequence[str]) -> list[str]:
    """The lines that are not empty, without the white space around them.

    >>> questions_of(["2+2?\\n", "  \\n", " 3+3? "])
    ['2+2?', '3+3?']
    """
    return [stripped for line in lines if (stripped := line.strip())]
