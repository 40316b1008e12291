"""Group functions of public repositories: one module each.

The docstring says what the function does, in words and numbers of our own. Each module has

* `REPOSITORY` ("owner/name"), `SOURCE` (file and function) and `FAMILY` (its page: a key of
  `docs.make_gallery.FAMILIES`),
* `model()`: a small model with the names and module types that the function goes by,
* `by_hand(net)`: the groups as the function makes them, each with `params`, `lr` and
  `weight_decay`, and what else differs between groups (`betas`, `algorithm`); what is in no group
  is not trained,
* `with_nnlr(net)`: the same as a plan, in at most three lines.

Where the public record shows a fault of the function: `THREAD` ("owner/name#123"), `FAULT` (what
went wrong, and how nnlr shows it; where the thread is only a question, it begins "A question") and
`shown()`, which returns nnlr's text: of a finding, an error or a plan. Where a plan does not say
a part: `CANNOT` (what, and why).

Numbers are those of `SOURCE`, or of a configuration or command of the repository; an example of our
own is marked by the word "here".
"""
