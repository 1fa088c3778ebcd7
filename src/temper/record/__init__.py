"""What a run writes while it goes, and where.

rundir.py     what is where in a run directory          runfiles.py   reading it, finished or torn
metrics.py    metrics.jsonl                             rollouts.py   completions on disk
progress.py   what a running stage says                 panel.py, lines.py  in a terminal, in a pipe
warnings.py   what goes wrong in RL, seen in metrics    cost.py       seconds and bytes spent
"""
