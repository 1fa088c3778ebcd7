"""`python -m temper`: the command, where it is not on the path."""

import sys

from temper.cli import command

sys.exit(command())
