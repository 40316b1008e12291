"""The error of an integration whose library is not installed."""

from collections.abc import Iterator
from contextlib import contextmanager

from nnlr.errors import NnlrError


class NotInstalledError(NnlrError, ModuleNotFoundError):
    """The library of an integration cannot be imported.

    Attributes: ``package``.
    """


@contextmanager
def installed(package: str) -> Iterator[None]:
    """Say what to install if the import inside fails because a package is missing.

    Args:
        package: Its name, for ``import`` and for ``pip install``.

    Raises:
        NotInstalledError: If it is missing. If a package that *it* needs is missing, Python's
            own error says so.

    Examples:
        >>> with installed("nowhere"):
        ...     import nowhere
        Traceback (most recent call last):
        ...
        nnlr.integrations._installed.NotInstalledError: nnlr.integrations.nowhere needs nowhere...
          Fix: pip install nowhere
    """
    try:
        yield
    except ModuleNotFoundError as error:
        if error.name != package:
            raise
        raise NotInstalledError(
            f"nnlr.integrations.{package} needs {package}, which is not installed.\n"
            f"  Fix: pip install {package}",
            package=package,
        ) from error
