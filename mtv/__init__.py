"""MTV: one encoder interface, one evaluation suite and one reference trainer for general vision encoders.

`import mtv` is cheap on purpose: it imports neither torch nor any model library.
"""

__version__ = "0.1.0"
