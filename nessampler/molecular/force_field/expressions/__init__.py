r"""OpenMM's expression language as torch code: parsed once into a graph, differentiated there, run on tensors.

Computer algebra of general purpose rewrites what it is given, which costs digits, and knows neither `step` nor the
order in which `select` looks at its branches. The language is small. A graph in which equal subexpressions are one
node folds constants, shares work between an energy and its derivatives, and leaves the arithmetic as it was written.
"""

from nessampler.molecular.force_field.expressions.expression import Expression, compile_expression
from nessampler.molecular.force_field.expressions.functions import Function, Macro

__all__ = ["Expression", "Function", "Macro", "compile_expression"]
