import sys

import fakes
from temper.cli import command

fakes.install()
if sys.argv[1:2] == ["sweep"]:  # its runs are of these kinds, too
    from temper.pipeline import sweep

    sweep.PROGRAM = (sys.executable, "-m", "fakes")
sys.exit(command())
