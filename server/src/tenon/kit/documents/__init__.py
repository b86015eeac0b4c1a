"""Documents that people write: YAML read safely, checked with a path for every problem, all problems at once."""

from tenon.kit.documents.loading import Unreadable, load
from tenon.kit.documents.reading import NAME_LENGTH_MAX, Problem, Problems, Reader, check_distinct, check_name, refusal

__all__ = ["NAME_LENGTH_MAX", "Problem", "Problems", "Reader", "Unreadable", "check_distinct", "check_name", "load", "refusal"]
