"""Run a recipe.

run.py        the loop over stages              run_record.py  run.json: how far it is, what it cost
sweep.py      one recipe at several points      points.py      which points
stopping.py   SIGTERM and Ctrl-C                failure.py     why a stage ended early, in words
"""
