"""A recipe's text to typed stages, or to every fault in it.

document.py   YAML -> a tree that knows its lines       reader.py    the tree -> a typed recipe (recipe.py)
sources.py    extends, --set                            graph.py     references between stages, and to files
faults.py     what is wrong with a config, in words     words.py     the words a config is written in
resolved.py   the recipe as it was understood, every value with its origin
"""
