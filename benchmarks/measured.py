"""What measured multipliers cost on a ViT-B: a look at spectra, at gradients, and nothing due.

CPU time of this process, one thread. The step is that of ``nnlr.optim.AdamW`` on gradients that
are in place, and beside it a whole training step of batch 8, once. A look is what a step takes that
has one, less one that has none; the hooks of a step with nothing due are timed alone as well, as
they are too little to be seen beside it.
"""

import time

import torch
from _timing import interleaved, machine, ratios, summary
from _vit_b import vit_b
from torch import nn

import nnlr
from nnlr.schemes._measured.spectrum import _by_gram, _by_svd

ROUNDS = 5
SCHEMES = {
    "spectra (temp_balance)": nnlr.temp_balance(every=10**9),
    "relative gradient norms by module": nnlr.auto_rgn(10**9, batches=1, by="module"),
    "signal to noise by tensor": nnlr.auto_snr(10**9, batches=1),
}


SHAPES = ((768, 768), (768, 3072), (2304, 768), (9, 256, 256))


def spectra() -> None:
    """Print how long eigenvalues of the Gram matrix take, by the time of singular values."""
    for shape in SHAPES:
        slices = torch.randn(shape).reshape(-1, *sorted(shape[-2:]))
        tasks = {
            "gram": lambda slices=slices: _by_gram(slices),
            "svd": lambda slices=slices: _by_svd(slices),
        }
        times = interleaved(tasks, ROUNDS, time.process_time)
        share = ratios(times["gram"], times["svd"])
        print(f"{shape}: {summary(times['gram'])} ms, by singular values' {summary(share)}")


def main() -> None:
    """Print milliseconds of a look, of steps with nothing due, and of the hooks alone."""
    print(machine())
    spectra()
    for name, scheme in SCHEMES.items():
        model, _ = vit_b()
        plan = nnlr.resolve(model, scheme, lr=1e-9, weight_decay=0.05)
        for parameter in model.parameters():
            parameter.grad = torch.randn_like(parameter)
        optimizer = plan.optimizer(nnlr.optim.AdamW)
        attached = nnlr.attach(optimizer, plan)

        def look(attached: object = attached, step: object = optimizer.step) -> None:
            for unit in attached.units:
                unit.memory.clear()
            step()

        def hooks(attached: object = attached) -> None:
            for _ in range(100):
                attached._before(attached.optimizer, (), {})
                attached._after()

        tasks = {"with a look": look, "nothing due": optimizer.step, "100 times the hooks": hooks}
        times = interleaved(tasks, ROUNDS, time.process_time)
        looks = [a - b for a, b in zip(times["with a look"], times["nothing due"], strict=True)]
        print(
            f"{name}, {len(attached.units)} units: a look {summary(looks)}, a step with nothing "
            f"due {summary(times['nothing due'])}, its hooks "
            f"{summary([each / 100 for each in times['100 times the hooks']])} ms"
        )
    model, plan = vit_b()
    optimizer = plan.optimizer(nnlr.optim.AdamW)
    images, loss = torch.randn(8, 3, 224, 224), nn.CrossEntropyLoss()
    for _ in range(2):
        began = time.process_time()
        loss(model(images), torch.zeros(8, dtype=torch.long)).backward()
        optimizer.step()
        optimizer.zero_grad()
    print(f"a training step of batch 8: {1e3 * (time.process_time() - began):.0f} ms")


if __name__ == "__main__":
    main()
