"""The operations, one module or package each: `OPERATION` with its parameters, its plan and its run.

Adding an operation is adding a module here; `operations.operation` finds it. The modules contain no tensor maths.
"""
