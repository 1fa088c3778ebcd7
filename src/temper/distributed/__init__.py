"""Several processes, one run: who takes which part of a step, and how the parts come together (`ranks.py`)."""
