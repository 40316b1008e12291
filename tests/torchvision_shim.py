"""Lets torchvision's CUDA build be imported beside a CPU build of torch.

torchvision describes operators of its own C++ library to torch when it is imported. That
library does not load without CUDA, and torch refuses to describe what it does not know. timm,
mup, transformers and Lightning import torchvision and use none of these operators, so the
descriptions may be skipped.

`make setup` runs this file. Where torchvision cannot be imported, it copies itself into the
environment and has Python load it at every start; it waits for the import of torchvision.
"""

import shutil
import subprocess
import sys
import sysconfig
from importlib.abc import MetaPathFinder
from pathlib import Path


class _Torchvision(MetaPathFinder):
    """Finds nothing; prepares torch when torchvision is about to be imported."""

    def find_spec(self, name, path=None, target=None):
        if name == "torchvision":
            sys.meta_path.remove(self)
            import torch

            register_fake = torch.library.register_fake

            def skip_torchvision(op, *args, **kwargs):
                if isinstance(op, str) and op.startswith("torchvision::"):
                    return lambda function: function
                return register_fake(op, *args, **kwargs)

            torch.library.register_fake = skip_torchvision


def install():
    """Copy this file into the environment, if torchvision cannot be imported there."""
    command = [sys.executable, "-c", "import torchvision"]
    if subprocess.run(command, capture_output=True, check=False).returncode:
        packages = Path(sysconfig.get_path("purelib"))
        shutil.copy(__file__, packages / "torchvision_shim.py")
        (packages / "torchvision_shim.pth").write_text("import torchvision_shim\n")


if __name__ == "__main__":
    install()
else:
    sys.meta_path.insert(0, _Torchvision())
