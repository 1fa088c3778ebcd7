"""temper: train reasoning models the DeepSeek-R1 way, as one pipeline."""

__version__ = "0.1.0"
