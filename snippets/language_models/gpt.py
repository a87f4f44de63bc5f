"""A GPT: a transformer that gives each next token a probability, from those before it."""

# --8<-- [start:imports]
import math
import statistics
import time
from copy import deepcopy
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, distributed, nn
from torch.nn import functional
from torch.nn.functional import scaled_dot_product_attention
from torch.nn.parallel import DistributedDataParallel
from torch.nn.utils.parametrize import register_parametrization

from snippets.language_models import tokenization
from snippets.shared import prose

Array = np.ndarray
KEPT = Path(prose.__file__).parents[1] / "data/gpt/gpt.safetensors"
# --8<-- [end:imports]


# --8<-- [start:rotate]
def rotate(x: Tensor) -> Tensor:
    """Turn token t's pairs of numbers by t times an angle of their own.

    x: (..., time, k), queries or keys, k even. The product of a turned
    query and a turned key depends on their distance, not on their places.
    Source: Su et al., "RoFormer", arXiv:2104.09864.
    """
    half = x.shape[-1] // 2
    speed = 1000.0 ** (-torch.arange(half) / half)  # fast to slow
    angle = torch.arange(x.shape[-2])[:, None] * speed  # (time, half)
    a, b = x.chunk(2, dim=-1)
    cos, sin = angle.cos(), angle.sin()
    return torch.cat([a * cos - b * sin, a * sin + b * cos], dim=-1)


# --8<-- [end:rotate]
# --8<-- [start:attention]
def attention(q: Tensor, k: Tensor) -> Tensor:
    """Who looks at whom: (..., time, time), each row sums to one.

    q, k: (..., time, k). Nobody looks at what comes after.
    """
    score = q @ k.mT / math.sqrt(q.shape[-1])
    later = torch.ones(score.shape[-2:], dtype=torch.bool).triu(1)
    return score.masked_fill(later, -torch.inf).softmax(dim=-1)


# --8<-- [end:attention]
# --8<-- [start:normal]
def normal(h: Tensor) -> Tensor:
    """Each token's numbers with mean 0 and variance 1."""
    return functional.layer_norm(h, h.shape[-1:])


# --8<-- [end:normal]
# --8<-- [start:block]
class Block(nn.Module):
    """Look at the tokens before, then think; both add to h."""

    def __init__(self, width: int, heads: int, depth: int):
        super().__init__()
        self.heads = heads
        self.look = nn.Linear(width, 3 * width, bias=False)
        self.tell = nn.Linear(width, width, bias=False)
        self.up = nn.Linear(width, 4 * width, bias=False)
        self.down = nn.Linear(4 * width, width, bias=False)
        for end in (self.tell, self.down):  # start with a small voice
            end.weight.data /= math.sqrt(2 * depth)

    def queries(self, h: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Queries, keys and values: (n, heads, time, width / heads) each."""
        parts = self.look(normal(h)).unflatten(2, (3, self.heads, -1))
        q, k, v = parts.permute(2, 0, 3, 1, 4)
        return rotate(q), rotate(k), v

    def forward(self, h: Tensor) -> Tensor:
        q, k, v = self.queries(h)
        # The same as attention(q, k) @ v, and faster.
        seen = scaled_dot_product_attention(q, k, v, is_causal=True)
        return self.add(h, seen)

    def add(self, h: Tensor, seen: Tensor) -> Tensor:
        """h (n, time, width) and what comes of `seen`, the values' sums."""
        h = h + self.tell(seen.transpose(1, 2).flatten(2))
        return h + self.down(functional.relu(self.up(normal(h))).square())


# --8<-- [end:block]
# --8<-- [start:model]
class GPT(nn.Module):
    """Tokens (n, time) to the logits of each next one, (n, time, size)."""

    def __init__(self, *, size=2048, width=96, depth=3, heads=3, context=64):
        super().__init__()
        self.context = context
        self.token = nn.Embedding(size, width)
        self.token.weight.data *= 0.02  # every next token alike at first
        self.blocks = nn.ModuleList(
            Block(width, heads, depth) for _ in range(depth))

    def forward(self, tokens: Tensor) -> Tensor:
        h = normal(self.token(tokens))
        for block in self.blocks:
            h = block(h)
        return normal(h) @ self.token.weight.T  # the same table, tied


# --8<-- [end:model]
# --8<-- [start:muon]
def orthogonalise(g: Tensor, *, rounds: int = 5) -> Tensor:
    """The matrix g with all its singular values moved near one.

    Newton–Schulz: a polynomial of g alone, no decomposition.
    Source: Jordan et al., "Muon", 2024.
    """
    x = g / (g.norm() + 1e-7)
    for _ in range(rounds):
        a = x @ x.mT if len(x) <= x.shape[1] else x.mT @ x
        b = -4.775 * a + 2.0315 * a @ a
        x = 3.4445 * x + (b @ x if len(x) <= x.shape[1] else x @ b)
    return x


@torch.no_grad()
def muon(weights, memory, rate: float, *, keep=0.95, decay=0.3) -> None:
    """One step: each direction of the momentum counts alike.

    weights: matrices with gradients; memory: their momenta, like them.
    Each weight first loses a share, rate times decay, of its size.
    """
    for w, m in zip(weights, memory):
        m.mul_(keep).add_(w.grad)
        tall = max(1, len(w) / w.shape[1])
        w *= 1 - rate * decay
        w -= rate * math.sqrt(tall) * orthogonalise(w.grad + keep * m)


# --8<-- [end:muon]
# --8<-- [start:train]
def train(
    text: str, *, steps=680, batch=16, rate=0.04, seed=0, **shape,
) -> GPT:  # fmt: skip
    """Raise the log probability of each next token of the text.

    shape: what `GPT` takes. The tokens are learned from the same text.
    """
    pieces = tokenization.train(text, size=shape.get("size", 2048))
    shape["size"] = len(pieces.pieces)
    with torch.random.fork_rng(devices=[]):  # the caller's stream is kept
        torch.manual_seed(seed)
        model = GPT(**shape)
        model.pieces = pieces
        data = torch.tensor(tokenization.encode(pieces, text))
        return fit(model, data, steps=steps, batch=batch, rate=rate)


# --8<-- [end:train]
# --8<-- [start:fit]
def fit(model: GPT, data: Tensor, *, steps, batch, rate) -> GPT:
    """Train in place on tokens (count,), all windows equally likely."""
    if len(data) <= model.context:
        raise ValueError(f"expected over {model.context} tokens of text")
    network, share = spread(model, batch)
    matrices = [w for block in model.blocks for w in block.parameters()]
    memory = [torch.zeros_like(w) for w in matrices]
    adam = torch.optim.AdamW([model.token.weight], lr=rate / 2,
                             betas=(0.9, 0.95), weight_decay=0.0)
    windows, model.history = data.unfold(0, model.context + 1, 1), []
    for step in range(steps):
        some = windows[torch.randint(len(windows), (batch,))[share]]
        logits = network(some[:, :-1]).flatten(0, 1)
        loss = functional.cross_entropy(logits, some[:, 1:].flatten())
        model.zero_grad()
        loss.backward()
        left = min(1, step / 20 + 0.05, 1.02 - step / steps)
        adam.param_groups[0]["lr"] = rate / 2 * left
        adam.step()
        muon(matrices, memory, rate * left)
        model.history.append(loss.item())  # nats per token
    return model.eval()


# --8<-- [end:fit]
# --8<-- [start:spread]
def spread(model: GPT, batch: int) -> tuple[nn.Module, slice]:
    """The network to call, and the rows of each batch that are ours.

    Alone: the model and all rows. In one of several processes: a copy in
    which `backward` leaves the mean gradient of all, and each n-th row.
    """
    if not distributed.is_initialized():
        return model, slice(None)
    this, n = distributed.get_rank(), distributed.get_world_size()
    if batch % n:
        raise ValueError(f"expected a batch that {n} processes can share")
    return DistributedDataParallel(model), slice(this, None, n)


# --8<-- [end:spread]
# --8<-- [start:together]
def train_together(path: Path, text: str, **options) -> GPT:
    """For torchrun: what each of its processes runs; the first one keeps."""
    distributed.init_process_group("gloo")  # on GPUs: "nccl"
    try:
        model = train(text, **options)
        if distributed.get_rank() == 0:
            keep(model, path)
        return model
    finally:
        distributed.destroy_process_group()


# --8<-- [end:together]
# --8<-- [start:look]
def look(model: GPT, tokens: Tensor) -> tuple[Tensor, Tensor]:
    """The same logits, slowly, and who looked at whom.

    tokens: (n, time). Maps: (n, depth, heads, time, time).
    """
    h, maps = normal(model.token(tokens)), []
    for block in model.blocks:
        q, k, v = block.queries(h)
        maps.append(attention(q, k))
        h = block.add(h, maps[-1] @ v)
    return normal(h) @ model.token.weight.T, torch.stack(maps, dim=1)


# --8<-- [end:look]
# --8<-- [start:log_prob]
@torch.no_grad()
def log_tokens(model: GPT, tokens: list[int]) -> Tensor:
    """log p of each token given those before it, (count,), in nats.

    The first follows a line's end. Long texts are read in windows that
    overlap by half, so that each token but the first ones sees at least
    half a context.
    """
    context, half = model.context, model.context // 2
    more = max(0, math.ceil((len(tokens) - context) / half))
    ids = torch.zeros(more * half + context + 1, dtype=torch.long)
    ids[:len(tokens) + 1] = torch.tensor([ord("\n"), *tokens])
    found = []
    for part in ids.unfold(0, context + 1, half).split(64):
        log_p = model(part[:, :-1]).log_softmax(dim=-1)
        found.append(log_p.gather(2, part[:, 1:, None])[..., 0])
    log_p = torch.cat(found)
    log_p = torch.cat([log_p[0], log_p[1:, -half:].flatten()])
    return log_p[:len(tokens)]


def log_prob(model: GPT, texts: list[str]) -> Array:
    """log p of each text, (n,), in nats: the sum over its tokens."""
    if isinstance(texts, str):
        raise ValueError("expected a list of texts: pass [text]")
    cut = [tokenization.encode(model.pieces, text) for text in texts]
    return np.array([log_tokens(model, t).double().sum() for t in cut])


# --8<-- [end:log_prob]
# --8<-- [start:sample]
@torch.no_grad()
def sample(
    model: GPT, n: int, *, seed=0, start="", length=60, temperature=1.0,
) -> list[str]:  # fmt: skip
    """n paragraphs that begin with `start`, of at most `length` new tokens.

    Token by token; a line's end ends one. None is empty.
    """
    if not temperature > 0:
        raise ValueError(f"expected a temperature above 0, got {temperature}")
    begin = [ord("\n"), *tokenization.encode(model.pieces, start)]
    ids = torch.tensor([begin] * n)
    random = torch.Generator().manual_seed(seed)
    for step in range(length):
        logits = model(ids[:, -model.context:])[:, -1] / temperature
        if step == 0:
            logits[:, ord("\n")] = -torch.inf
        p = logits.softmax(dim=-1)
        ids = torch.cat([ids, torch.multinomial(p, 1, generator=random)], 1)
    texts = (tokenization.decode(model.pieces, row)
             for row in ids[:, 1:].tolist())
    lines = (text.partition("\n")[0] for text in texts)
    return [line.encode("utf-8", "replace").decode() for line in lines]


# --8<-- [end:sample]
# --8<-- [start:keep]
def keep(model: GPT, path: Path) -> None:
    """Write weights, in 16 bits, and the merges of the tokens."""
    weights = {k: w.half() for k, w in model.state_dict().items()}
    merges = torch.tensor(list(model.pieces.merges), dtype=torch.int16)
    save_file({**weights, "merges": merges}, path)


def load(path: Path = KEPT, **shape) -> GPT:
    """A model that was kept; without a path, the one of this lesson."""
    weights = load_file(path)
    merges = [tuple(pair) for pair in weights.pop("merges").tolist()]
    pieces = [bytes([byte]) for byte in range(256)]
    for left, right in merges:
        pieces.append(pieces[left] + pieces[right])
    model = GPT(**shape)
    model.load_state_dict(weights)
    tokens = dict(zip(merges, range(256, len(pieces))))
    model.pieces = tokenization.Tokenizer(tokens, pieces)
    return model.eval()


# --8<-- [end:keep]
# --8<-- [start:shown]
class Single(nn.Module):
    """Weights that are kept in 16 bits and computed with in 32."""

    def forward(self, w: Tensor) -> Tensor:
        return w.float()


class Shown(nn.Module):
    """What a browser runs: the token after place `last`, and the maps.

    tokens (n, context), anything behind `last`; last (n,). Logits
    (n, size), maps (n, depth, heads, context, context).
    """

    def __init__(self, model: GPT):
        super().__init__()
        self.model = deepcopy(model).half()
        for part in list(self.model.modules()):
            if hasattr(part, "weight"):
                register_parametrization(
                    part, "weight", Single(), unsafe=True)

    def forward(self, tokens: Tensor, last: Tensor) -> tuple[Tensor, Tensor]:
        logits, maps = look(self.model, tokens)
        at = last[:, None, None].expand(-1, 1, logits.shape[2])
        return logits.gather(1, at)[:, 0], maps


# --8<-- [end:shown]


class Reference(nn.Module):
    """A GPT of the same size from PyTorch's own layers, to compare the speed with."""

    def __init__(self, *, size=2048, width=96, depth=3, heads=3, context=64):
        super().__init__()
        self.token, self.place = nn.Embedding(size, width), nn.Embedding(context, width)
        options = {"activation": "gelu", "dropout": 0.0, "batch_first": True, "norm_first": True}
        layer = nn.TransformerEncoderLayer(width, heads, 4 * width, **options)
        self.layers = nn.TransformerEncoder(layer, depth, enable_nested_tensor=False)
        self.mask = nn.Transformer.generate_square_subsequent_mask(context)

    def forward(self, tokens: Tensor) -> Tensor:
        h = self.token(tokens) + self.place.weight[: tokens.shape[1]]
        return self.layers(h, mask=self.mask, is_causal=True) @ self.token.weight.T


def speeds(*, steps: int = 40, batch: int = 16, **shape) -> dict[str, float]:
    """Tokens per second of one training step with AdamW, the median of several.

    Ours and the reference take turns, so that a busy machine slows both.
    """
    models = {"ours": GPT(**shape), "reference": Reference(**shape)}
    some = torch.randint(shape.get("size", 2048), (batch, shape.get("context", 64) + 1))
    read, targets = some[:, :-1], some[:, 1:].reshape(-1)
    seconds = {name: [] for name in models}
    tools = {name: torch.optim.AdamW(model.parameters()) for name, model in models.items()}
    for _ in range(steps):
        for name, model in models.items():
            clock = time.process_time()
            loss = functional.cross_entropy(model(read).flatten(0, 1), targets)
            model.zero_grad()
            loss.backward()
            tools[name].step()
            seconds[name].append(time.process_time() - clock)
    return {name: len(targets) / statistics.median(times) for name, times in seconds.items()}


def study(*, seeds: int = 3, steps: int = 680, letters: int = 10**9) -> dict:
    """Bits per byte on held-out text over seeds of training, and the seconds that it took.

    letters: how much of each text is used, for a quick try.
    """
    text, valid, test = (prose.text_of(rows)[:letters] for rows in prose.load())
    speed = speeds(steps=min(steps, 40))
    table = {"valid": [], "test": [], "seconds": []}
    for seed in range(seeds):
        clock = time.process_time()
        model = train(text, steps=steps, seed=seed)
        table["seconds"].append(time.process_time() - clock)
        for name, new in (("valid", valid), ("test", test)):
            log_p = log_prob(model, [new])[0]
            table[name].append(prose.bits_per_byte(log_p, new))
    for name in ("valid", "test"):
        each = "  ".join(f"{value:.3f}" for value in table[name])
        print(f"{name:<6}{each}  bits per byte, one column for each seed")
    faster = speed["ours"] / speed["reference"]
    print(f"a step trains {faster:.2f} times the tokens per second of PyTorch's own layers")
    table |= {"faster": [faster]}
    spread = {f"{name}_sd": float(np.std(values)) for name, values in table.items()}
    return {name: float(np.mean(values)) for name, values in table.items()} | spread
