"""`temper completion bash|zsh|fish`: a script by which the shell completes temper's commands and options."""

from __future__ import annotations

import argparse
import re
from collections.abc import Sequence
from dataclasses import dataclass

SHELLS = ("bash", "zsh", "fish")
WITH_RECIPES = ("run", "plan", "sweep", "init")  # a shipped recipe's name stands where their first word does


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("shell", choices=SHELLS, help='bash: eval "$(temper completion bash)" in ~/.bashrc')


def run(args: argparse.Namespace) -> int:
    print({"bash": bash, "zsh": zsh, "fish": fish}[args.shell](verbs()), end="")
    return 0


@dataclass(frozen=True)
class Option:
    """One option: all its spellings, what it does, whether a value follows, and which values there are."""

    names: tuple[str, ...]
    help: str
    takes: bool
    choices: tuple[str, ...]


@dataclass(frozen=True)
class Verb:
    """A command with its options, and the words that may stand beside file names."""

    name: str
    help: str
    options: tuple[Option, ...]
    words: tuple[str, ...]


def verbs() -> list[Verb]:
    """Every command, as its own parser has it."""
    from temper.cli import COMMANDS, load_command

    return [_verb(name, text, load_command(name)) for name, (_, text) in COMMANDS.items()]


def _verb(name: str, text: str, module: object) -> Verb:
    from temper.recipe.sources import shipped_recipes

    parser = argparse.ArgumentParser(prog=f"temper {name}", add_help=True, allow_abbrev=False)
    module.add_arguments(parser)  # type: ignore[attr-defined]
    parser.add_argument("--debug", action="store_true", help="show the traceback of an error")
    options, words = [], list(shipped_recipes()) if name in WITH_RECIPES else []
    for action in parser._actions:
        choices = tuple(str(choice) for choice in action.choices or ())
        if not action.option_strings:
            words += choices
        elif action.help != argparse.SUPPRESS:
            shown = " ".join((action.help or "").replace("%%", "%").split())
            options.append(Option(tuple(action.option_strings), shown, action.nargs != 0, choices))
    return Verb(name, text, tuple(options), tuple(words))


def bash(known: Sequence[Verb]) -> str:
    options, words, values = [], [], []
    for verb in known:
        names = " ".join(name for option in verb.options for name in option.names)
        options.append(f'    {verb.name}) options="{names}" ;;')
        if verb.words:
            words.append(f'    {verb.name}) words="{" ".join(verb.words)}" ;;')
        for option in verb.options:
            if option.choices:
                keys = "|".join(f"{verb.name}:{name}" for name in option.names)
                values.append(
                    f'    {keys}) COMPREPLY=($(compgen -W "{" ".join(option.choices)}" -- "$now")); return ;;'
                )
    verbs_there = " ".join(verb.name for verb in known)
    return "\n".join([
        "# temper completion bash", "_temper() {",
        '  local now="${COMP_WORDS[COMP_CWORD]}" before="${COMP_WORDS[COMP_CWORD-1]}" verb="${COMP_WORDS[1]}"',
        '  local options="" words=""', "  COMPREPLY=()", '  if [ "$COMP_CWORD" -eq 1 ]; then',
        f'    COMPREPLY=($(compgen -W "{verbs_there} --help --version" -- "$now")); return', "  fi",
        '  case "$verb:$before" in', *values, "  esac", '  case "$verb" in', *options, "  esac",
        '  case "$verb" in', *words, "  esac", '  if [ "${now:0:1}" = "-" ]; then',
        '    COMPREPLY=($(compgen -W "$options" -- "$now")); return', "  fi",
        '  COMPREPLY=($(compgen -W "$words" -- "$now") $(compgen -f -- "$now"))', "}",
        "complete -o filenames -F _temper temper", "",
    ])  # fmt: skip


def zsh(known: Sequence[Verb]) -> str:
    lines = ["#compdef temper", "# temper completion zsh", "_temper() {", "  local -a verbs", "  verbs=("]
    lines += [f"    {_quoted(f'{verb.name}:{verb.help}')}" for verb in known]
    lines += [
        "  )",
        "  if (( CURRENT == 2 )); then",
        "    _describe command verbs; return",
        "  fi",
        "  case $words[2] in",
    ]
    for verb in known:
        specs = [_zsh_option(option, name) for option in verb.options for name in option.names]
        words = f"*:word:{{_alternative {_quoted_twice(verb.words)}}}" if verb.words else "*:file:_files"
        lines += [f"    {verb.name}) _arguments {' '.join([*map(_quoted, specs), _quoted(words)])} ;;"]
    return "\n".join([*lines, "  esac", "}", "compdef _temper temper", ""])


def _zsh_option(option: Option, name: str) -> str:
    said = re.sub(r"([\[\]:])", r"\\\1", option.help)
    value = f":value:({' '.join(option.choices)})" if option.choices else ":value:_files" if option.takes else ""
    return f"{name}[{said}]{value}"


def _quoted_twice(words: Sequence[str]) -> str:
    return f'"words:word:({" ".join(words)})" "files:file:_files"'


def fish(known: Sequence[Verb]) -> str:
    lines = ["# temper completion fish"]
    for verb in known:
        lines.append(f"complete -c temper -n __fish_use_subcommand -f -a {verb.name} -d {_quoted(verb.help)}")
    for verb in known:
        when = f"-n '__fish_seen_subcommand_from {verb.name}'"
        if verb.words:
            lines.append(f"complete -c temper {when} -a {_quoted(' '.join(verb.words))}")
        for option in verb.options:
            named = " ".join(f"-l {n[2:]}" if n.startswith("--") else f"-s {n[1:]}" for n in option.names)
            values = f" -x -a {_quoted(' '.join(option.choices))}" if option.choices else " -r" if option.takes else ""
            lines.append(f"complete -c temper {when} {named}{values} -d {_quoted(option.help)}")
    return "\n".join([*lines, ""])


def _quoted(text: str) -> str:
    """A word of the shell, in single quotes."""
    return "'" + text.replace("'", "'\\''") + "'"
