"""An answer as one page that needs no service: the dashboard's, with its style in it."""

from base64 import b64encode
from pathlib import Path
from typing import Any

from service.dashboard.pages import answer_view
from service.dashboard.templating import ENVIRONMENT

_STYLE = Path(__file__).parent / "static" / "dashboard.css"


def standalone_page(evidence: dict[str, Any], title: str) -> str:
    """HTML of a mixture's evidence, as `mixing.answer.proposal.Proposal.to_dict` has it."""
    style = b64encode(_STYLE.read_bytes()).decode("ascii")
    return ENVIRONMENT.get_template("standalone.html").render(
        answer=answer_view(evidence), measured=None, title=title, style=style
    )
