"""What a rule finds: a place, what is there, what belongs there, and the repair."""

from dataclasses import dataclass

ERROR, WARNING = "error", "warning"
DOCS = (
    "https://docs.nvidia.com/deeplearning/triton-inference-server/user-guide/docs/"
    "user_guide/"
)


@dataclass(frozen=True)
class Finding:
    """One thing that is wrong.

    Attributes:
        severity: ``error`` where the server refuses the model, else ``warning``.
        model: its folder's name.
        file: path within the repository.
        line: in that file, from 1; None where no line is to blame.
        field: such as ``input[0].dims``; "" where it is not about a field.
        found, expected, fix: in words.
        link: the part of Triton's documentation.
    """

    severity: str
    model: str
    file: str
    line: int | None
    field: str
    found: str
    expected: str
    fix: str
    link: str

    def __str__(self):
        field = f" {self.field}" if self.field else ""
        return (
            f"{self.severity}: {self.place}:{field} found {self.found}, "
            f"expected {self.expected}. {self.fix}"
        )

    @property
    def place(self):
        """The file, with the line where one is known."""
        return f"{self.file}:{self.line}" if self.line else self.file


def complete_link(page):
    """The address of a page of Triton's user guide; any other address as it is."""
    return page if page.startswith("http") else DOCS + page


def join_items(items):
    """``a, b, c``, or ``nothing``."""
    return ", ".join(map(str, items)) or "nothing"
