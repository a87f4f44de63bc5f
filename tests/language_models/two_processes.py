"""What torchrun starts twice: train together, then each process tells its losses."""

import json
import os
import sys
from pathlib import Path

import torch

from snippets.language_models import gpt

torch.set_num_threads(1)
folder, options = Path(sys.argv[1]), json.loads(sys.argv[2])
text = (folder / "text.txt").read_text(encoding="utf-8")
model = gpt.train_together(folder / "kept.safetensors", text, **options)
(folder / f"{os.environ['RANK']}.json").write_text(json.dumps(model.history))
