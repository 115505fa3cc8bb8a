"""The styles in which a suite may be asked."""

from typing import Literal

Style = Literal["instruct", "base"]
INSTRUCT: Style = "instruct"
"""A turn of a conversation, through the model's chat template."""
BASE: Style = "base"
"""Text that the model continues, with no template."""
