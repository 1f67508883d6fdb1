"""How many people an index's photographs are of: what its p-values take for independent depends on it."""

from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class People:
    """known: photographs whose patient is known.  patients: whose they are.  unknown: the other photographs."""

    known: int
    patients: int
    unknown: int

    @classmethod
    def of(cls, patients: Iterable[str | None]) -> "People":
        """Whose each photograph is; None where that is not known."""
        each = list(patients)
        known = [who for who in each if who is not None]
        return cls(len(known), len(set(known)), len(each) - len(known))

    def told(self) -> str:
        """For people to read, and what follows where nobody is known."""
        if not self.patients:
            return "none known: two eyes of one person vouch for each other (README)"
        patients = "1 patient" if self.patients == 1 else f"{self.patients} patients"
        others = f", {self.unknown} of nobody known" if self.unknown else ""
        return f"{self.known} photographs of {patients}{others}"
