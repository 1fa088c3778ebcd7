"""What would run, and what it will take; nothing here changes a run.

plan.py       fingerprints: what runs, and why          preflight.py  everything checked before anything runs
estimate.py   seconds and bytes by arithmetic           probe.py      the same by trying each stage
rehearsal.py  a few steps of one stage                  shapes.py     sizes of models, and what layers keep
lengths.py    how long rows are                         given.py      what a stage is given
"""
