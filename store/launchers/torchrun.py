"""The built-in trainer on several processes of a worker's machine, started by ``torchrun``:

[launchers.eight-gpus]
processes = 8
device = "cuda"
"""

from typing import Literal

from store.launchers.base import Rendering, Trained, Work


class Torchrun(Trained):
    """See `Trained`."""

    kind: Literal["torchrun"] = "torchrun"

    def render(self, work: Work) -> Rendering:
        """See `Launcher`."""
        arguments = self.trainer(work.order_file, ("--standalone",))
        return Rendering(arguments, str(work.run_directory), files=work.files)
