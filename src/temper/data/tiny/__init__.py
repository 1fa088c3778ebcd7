"""The tiny world: arithmetic and general skills in two languages, small enough for a laptop CPU.

Every row is a function of (seed, split, index). Problems are split into training and held-out ones by a hash of their
text, so the two never meet, in no file and under no seed: neither in pretraining nor in the cold start nor in RL.
"""
