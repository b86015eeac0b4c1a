"""The one rule for the names of models, wherever a model is named: routes, limits, budgets, prices."""

from __future__ import annotations

import re

RULE = "A model's name is 1 to 200 letters, digits and . _ : / - and begins with a letter or digit."
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:/-]{0,199}")


def is_model_name(text: str) -> bool:
    """Whether a model may have this name."""
    return _NAME.fullmatch(text) is not None
