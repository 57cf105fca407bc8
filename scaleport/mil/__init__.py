"""Evaluator of Core ML's program format (MIL) with numpy, for machines that are not Macs.

It runs the operations that an ``.mlpackage`` holds, in the types that it declares, so that the
numbers of a converted graph can be checked anywhere. It says nothing about Core ML's own speed.
"""

from scaleport.mil.evaluator import Evaluator
from scaleport.mil.program import Operation, Program, TensorType, read_program

__all__ = ["Evaluator", "Operation", "Program", "TensorType", "read_program"]
