"""Configs of other tools, read and turned into recipes: TRL, Open-R1, verl, OpenRLHF.

shell.py    a shell script -> the words of its commands
read.py     a YAML, JSON or shell file -> its settings, one by one, and whose they are
tables.py   what each tool calls what; what it does where nothing is said
book.py     what a config says, and what became of each key
training.py lengths, batches, objective: keys of the stage that trains
convert.py  settings -> a recipe
"""
