"""The words of an error, as a page shows them."""


def error_of(call, *args, **kwargs):
    """Class and text of the error that a call raises."""
    try:
        call(*args, **kwargs)
    except ValueError as error:
        return f"{type(error).__name__}: {error}"
    raise AssertionError(f"{call.__name__} raised no error")
