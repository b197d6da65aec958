"""Comparing answers with expected values."""

import numpy


class Comparison:
    """Compares answers with expected values and counts the checks."""

    def __init__(self, tolerance: float):
        self._tolerance = tolerance
        self.checks = 0

    def that(self, what: str, true: bool) -> None:
        """One check; ends the script if it does not hold."""
        if not true:
            raise SystemExit(f"WRONG {what}")
        print(f"ok    {what}")
        self.checks += 1

    def numbers(self, what: str, answer, expected) -> None:
        """Same shape, and equal within the tolerance."""
        answer, expected = numpy.asarray(answer, numpy.float32), numpy.asarray(expected, numpy.float32)
        if answer.shape != expected.shape:
            raise SystemExit(f"WRONG {what}: shape {answer.shape}, expected {expected.shape}")
        difference = float(numpy.abs(answer - expected).max())
        self.that(f"{what}: {answer.shape} numbers, off by {difference:.1e}", difference <= self._tolerance)

    def bits(self, what: str, answer, expected: list[int]) -> None:
        """The same f32 numbers to the last bit; they are expected as integers."""
        found = numpy.asarray(answer, numpy.float32).reshape(-1).view(numpy.uint32)
        self.that(f"{what}: the same {len(expected)} numbers", found.tolist() == expected)

    def reply(self, what: str, answer, expected, tolerance: float) -> None:
        """The same JSON, numbers within a tolerance; what a client's types leave out is not compared."""
        difference = self._difference(answer, expected, tolerance)
        self.that(what if difference is None else f"{what}: {difference}", difference is None)

    def _difference(self, answer, expected, tolerance: float) -> str | None:
        if isinstance(expected, list):
            if len(answer) != len(expected):
                return f"{len(answer)} elements instead of {len(expected)}"
            found = (self._difference(one, other, tolerance) for one, other in zip(answer, expected, strict=True))
            return next((difference for difference in found if difference is not None), None)
        if isinstance(expected, dict):
            common = [key for key in expected if key in answer]
            if not common:
                return f"{answer!r} has none of {list(expected)}"
            found = (self._difference(answer[key], expected[key], tolerance) for key in common)
            return next((difference for difference in found if difference is not None), None)
        if isinstance(expected, float):
            same = abs(answer - expected) <= tolerance * max(1.0, abs(expected))
        else:
            same = answer == expected
        return None if same else f"{answer!r} instead of {expected!r}"

    def refused(self, what: str, ask, error: type[Exception], status: int) -> Exception:
        """An exception of that type with that status; returns it."""
        try:
            answer = ask()
        except error as raised:
            found = getattr(raised, "status_code", None) or raised.response.status_code
            self.that(f"{what}: {status}", found == status)
            return raised
        raise SystemExit(f"WRONG {what}: {answer!r} instead of {status}")
