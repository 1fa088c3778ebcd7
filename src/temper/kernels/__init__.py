"""Fast attention, layers and products, on any device, beside or in place of a model's own.

attention.py  registered with transformers              runs.py       runs of packed tokens
packed.py     packed sequences, shared prefixes         masked.py, varlen.py  the same by masks, by flash calls on CUDA
fast.py       faster forwards for a model's layers      fused.py, layers.c    what they do between products
fast_triton.py  the same on a GPU                       fused_triton.py       what they do between products
joined.py     weights side by side: one product         draw_triton.py        what a step feeds and draws on a GPU
trunk.py, trunk.c  all layers in one call               stack.py      how a model is put together of known parts
layers.py     checkpointed or compiled layers           product.py    matrix products by the faster library
rows.py, attend.h  packed rows in one call on a CPU     choice.py     which way is faster: measured, remembered
decode.py, decode.c  one token a row on a CPU           decode_triton.py      on CUDA
trial.py      is that faster for a large model?         straight.py   gradients where they gather
compiler.py   the C files as libraries                  packing.py    can this model be packed?
spaces.py     large memory that serves again            tiles.h       products of a few rows, keys turned
head.py, head.c  the head's log-probs in one call       kept.py       how many logits are kept
"""
