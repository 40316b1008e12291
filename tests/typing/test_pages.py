"""What is checked of README.md and docs/, and how an error is told; `make type` does it."""

from tests.typing.pages import code_of, errors_in

PAGE = """\
# Title

```python
>>> def two(x):
...     return x
...
>>> two(1)
1
>>> number: int = 2
```

    no code

```python
plain = number
```

```python
nnlr.install(); layer.learning_rate("weight", 0.1)
```
"""


def test_a_page_is_a_module_of_as_many_lines():
    """Prompts go, what is printed goes, and every line stays where it was."""
    lines = code_of(PAGE).splitlines()
    assert len(lines) == len(PAGE.splitlines())
    expected = {4: "def two(x):", 5: "    return x", 7: "two(1)", 9: "number: int = 2"}
    expected[15] = "plain = number"
    assert expected == {at: line for at, line in enumerate(lines, 1) if line}


def test_an_error_names_the_page_and_its_line(tmp_path):
    """Also of a page whose name is no module's, and a function without annotations is checked."""
    (tmp_path / "docs" / "trainers").mkdir(parents=True)
    (tmp_path / "README.md").write_text(PAGE.replace("two(x)", "two(x: int) -> int"))
    page = PAGE.replace("return x", "return 1 + ''")
    (tmp_path / "docs" / "trainers" / "plain-torch.md").write_text(page)
    told = errors_in(tmp_path)
    assert told.startswith("docs/trainers/plain-torch.md:5: error: Unsupported operand")
    assert "Found 1 error in 1 file" in told
    (tmp_path / "docs" / "trainers" / "plain-torch.md").write_text(PAGE)
    assert not errors_in(tmp_path)
