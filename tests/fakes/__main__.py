import sys

import fakes
from temper.cli import main

fakes.install()
sys.exit(main())
