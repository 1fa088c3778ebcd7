"""What scripts and notebooks call, by the names that `import temper` offers: run a recipe, talk to a model, grade an
answer or a program, measure a model. Described in docs/python.md."""
