"""How a saved model was trained, kept beside it so that another run can go on from it. Free of torch."""

import json
from dataclasses import asdict, dataclass
from pathlib import Path

from proxy_models.errors import UnfitStart

FILE = "training.json"


@dataclass(frozen=True)
class SavedTraining:
    """Where training ended: its last step's learning rate, all tokens ever trained on, and whose ids they were.

    ``tokenizer`` is the fingerprint that the token shards carry; None where it is not known.
    """

    learning_rate: float
    tokens: int
    tokenizer: str | None = None

    def to_dict(self) -> dict[str, object]:
        """For JSON."""
        return asdict(self)


def read_saved_training(folder: Path) -> SavedTraining | None:
    """What lies beside a model, None where there is nothing. Raises `UnfitStart` where it cannot be read."""
    try:
        content = json.loads((folder / FILE).read_text(encoding="utf-8"))
        return SavedTraining(
            float(content["learning_rate"]), int(content["tokens"]), content.get("tokenizer")
        )
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise UnfitStart(folder, f"its {FILE} cannot be read: {error}") from error
