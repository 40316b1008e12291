"""Tables of many architectures: the width, the height, and what each label stands for."""

import pytest
import torch

import nnlr
from nnlr.report._table import LIMIT
from nnlr.report._text import WIDTH, columns_of
from tests.report.test_fold import assert_lines_say_their_names, folding

TIMM = (
    *("vit_base_patch16_224", "convnext_tiny", "swin_tiny_patch4_window7_224", "resnet50"),
    *("efficientnet_b0", "mobilenetv3_large_100", "densenet121", "inception_v3", "regnety_016"),
    *("mixer_b16_224", "coatnet_0_rw_224", "maxvit_tiny_rw_224", "eva02_tiny_patch14_224"),
    *("hrnet_w18", "xcit_nano_12_p16_224"),
)
TRANSFORMERS = (
    *("Bert", "Llama", "Mixtral", "T5", "CLIP", "Whisper", "Detr", "Mask2Former", "Sam", "Mamba"),
    *("Wav2Vec2", "DebertaV2", "GPT2", "Bart", "Segformer", "Swin", "Qwen2Moe"),
)
SCHEMES = {
    "none": lambda: nnlr.rule("*"),
    "decay": nnlr.no_weight_decay,
    "layers": lambda: nnlr.layer_decay(0.75) * nnlr.no_weight_decay(),
    "discriminative": lambda: nnlr.discriminative(2.6),
    "routed": lambda: nnlr.route("muon", "adamw"),
}


def built(name: str) -> torch.nn.Module:
    """A model without weights."""
    with torch.device("meta"):
        if name in TIMM:
            timm = pytest.importorskip("timm")
            return timm.create_model(name)
        transformers = pytest.importorskip("transformers")
        return transformers.AutoModel.from_config(getattr(transformers, f"{name}Config")())


@pytest.mark.full  # 95 s together on a busy machine
@pytest.mark.no_cover
@pytest.mark.parametrize("name", [*TIMM, *TRANSFORMERS])
def test_tables_of_architectures(name):
    """At most 60 lines of 80 columns under every scheme, and labels stand for what they say."""
    model = built(name)
    for scheme in SCHEMES.values():
        try:
            plan = nnlr.resolve(model, scheme(), lr=1e-3, weight_decay=0.05)
        except nnlr.NnlrError:
            continue  # a depth that is not known is an error of its own
        lines = str(plan).splitlines()
        assert len(lines) <= LIMIT
        assert max(map(columns_of, lines)) <= WIDTH
        assert not any("…" in line for line in lines)
        folded = folding(plan.rows)
        for level in {0, 1, folded.exact // 2, folded.exact}:
            assert_lines_say_their_names(plan.rows, folded.at(level))
