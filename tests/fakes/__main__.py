import sys

import fakes
from temper.cli import main
from temper.pipeline import sweep

fakes.install()
sweep.PROGRAM = (sys.executable, "-m", "fakes")
sys.exit(main())
