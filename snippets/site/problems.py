"""What a rule finds, and how it is said: one line with file, line and the mend."""

from dataclasses import dataclass


@dataclass(frozen=True, order=True)
class Problem:
    """One mistake in one place; `line` counts from 1, and 0 means the whole file."""

    file: str
    line: int
    message: str
    mend: str

    def __str__(self) -> str:
        place = f"{self.file}:{self.line}" if self.line else self.file
        return f"{place}: {self.message} → {self.mend}"


class PageError(Exception):
    """A page that cannot be read or run, said in one line."""

    def __init__(self, problem: Problem):
        super().__init__(str(problem))
        self.problem = problem
