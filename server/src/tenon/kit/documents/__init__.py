"""Documents that people write, in YAML.

Owns: reading them safely and reporting problems. Promises: every problem has its path, and all problems are reported at once.
Needs: nothing.
"""

from tenon.kit.documents.loading import Unreadable, load
from tenon.kit.documents.reading import NAME_LENGTH_MAX, Problem, Problems, Reader, check_distinct, check_name, refusal

__all__ = ["NAME_LENGTH_MAX", "Problem", "Problems", "Reader", "Unreadable", "check_distinct", "check_name", "load", "refusal"]
