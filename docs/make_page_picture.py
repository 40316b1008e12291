"""Make docs/pictures/report_page.png, the picture on the page about the report page.

It needs timm and Chromium. Run it when the look of the page has changed:

    PYTHONPATH=.:src python docs/make_page_picture.py
"""

import shutil
import subprocess
import tempfile
from pathlib import Path

import timm
import torch

import nnlr

PICTURE = Path(__file__).parent / "pictures" / "report_page.png"
WINDOW = "1180,1180"


def page():
    """The page of a ViT-B that is fine-tuned with layer decay."""
    with torch.device("meta"):
        model = timm.create_model("vit_base_patch16_224", num_classes=10)
    scheme = nnlr.layer_decay(0.75) * nnlr.no_weight_decay()
    scheme = scheme * nnlr.rule("head.*", lr_mult=10) * nnlr.freeze("patch_embed.*")
    return nnlr.resolve(model, scheme, lr=1e-3, weight_decay=0.05).to_html()


def main():
    """Write the page, and photograph what is in sight."""
    chromium = shutil.which("chromium") or shutil.which("google-chrome")
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        path = Path(folder, "page.html")
        path.write_text(page(), encoding="ascii")
        flags = ["--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars"]
        flags += [f"--user-data-dir={folder}", f"--window-size={WINDOW}", f"--screenshot={PICTURE}"]
        subprocess.run([chromium, *flags, path.as_uri()], check=True)  # noqa: S603 - ours


if __name__ == "__main__":
    main()
