"""Lowering of networks to the graphs of a bundle: one module per format.

Called as ``scaleport.export(...)`` it is :func:`scaleport.export.exporter.export`.
"""

from scaleport.callables import call_as

call_as(__name__, "scaleport.export.exporter")
