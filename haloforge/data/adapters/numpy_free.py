"""Tests of EvalPlus that compare floats with NumPy, which a box need not have."""

import ast

NUMPY = '''\
class np:
    class ndarray:
        """No answer is one: what a solution gives crosses to its tests as plain data."""

    float64 = float32 = None

    @staticmethod
    def allclose(out, exp, rtol=1e-05, atol=1e-08):
        if isinstance(exp, (list, tuple)):
            same = isinstance(out, (list, tuple)) and len(out) == len(exp)
            return same and all(np.allclose(o, e, rtol, atol) for o, e in zip(out, exp))
        return out == exp or abs(out - exp) <= atol + rtol * abs(exp)

    class testing:
        @staticmethod
        def assert_allclose(out, exp, rtol=1e-07, atol=0):
            assert np.allclose(out, exp, rtol, atol), (out, exp)
'''
KNOWN = {"ndarray", "float64", "float32", "allclose", "testing"}


def without_numpy(test_code: str) -> str:
    """`test_code` with what it uses of NumPy in plain Python.

    Raises ValueError, with a reason for leaving the row out, where it uses more than that or does
    not parse.
    """
    try:
        tree = ast.parse(test_code)
    except (SyntaxError, ValueError) as error:
        raise ValueError(f"its tests do not parse: {error}") from None
    used = {
        node.attr
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute)
        and isinstance(node.value, ast.Name)
        and node.value.id == "np"
    }
    if not used and "numpy" not in test_code:
        return test_code
    if not used <= KNOWN or "import numpy as np" not in test_code:
        raise ValueError("its tests need NumPy")
    return test_code.replace("import numpy as np\n", NUMPY, 1)
