"""Write a trained network as ONNX, beside a golden file of what it must answer, and prove both.

What goes with a network and is none, such as a tokenizer, is written as plain JSON.
"""

import json
import logging
import os
import warnings
from copy import deepcopy
from importlib.util import find_spec
from pathlib import Path

import torch
from torch import Tensor, nn

OPSET = 20  # runs in onnxruntime-web; from here on GELU is one operation
CLOSE = 1e-5  # of the largest answer, or of 1 if that is more
FOLDER = "SNIPPETS_EXPORTS"  # the variable that says where; without it, the current folder
TYPES = {torch.float32: "float32", torch.int64: "int64"}
Tensors = dict[str, Tensor]


def save(name: str, network: nn.Module, inputs: Tensors, *, outputs: tuple = ("output",)) -> dict:
    """Write `name`.onnx and `name`.json and print one line; returns its opset and bytes.

    network: takes the inputs in their order, gives a tensor (or several, named by `outputs`);
    exported in evaluation mode and left as it was. inputs: float32 or int64, 1 to 16 rows; the
    first axis of each is the batch, of any size later. The JSON holds these inputs and torch's
    answers, each as {"type", "shape", "values"}, the values in one flat list.
    Raises ValueError when a name or a tensor is unfit, when torch cannot export the network, and
    when onnxruntime differs from torch by more than 1e-5 of the largest answer (of 1, if that is
    more) on these inputs or on other batches; ModuleNotFoundError when a package is missing.
    """
    _check(name, inputs, outputs)
    network, inputs = deepcopy(network).eval(), {k: t.detach() for k, t in inputs.items()}
    # The batch as given, another of twice its size, and a single row.
    twice = {k: torch.cat([t, t.flip(0)]) for k, t in inputs.items()}
    batches = [inputs, twice, {k: t[:1] for k, t in inputs.items()}]
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        answers = [_answers(name, network, batch, outputs) for batch in batches]
        model = _export(name, network, twice, outputs)
    for batch, answer in zip(batches, answers):
        _compare(name, model, batch, answer)
    said = {"opset": OPSET, "bytes": len(model)}
    golden = {**said, "inputs": _plain(inputs), "outputs": _plain(answers[0])}
    folder, text = Path(os.environ.get(FOLDER, ".")), json.dumps(golden, separators=(",", ":"))
    (folder / f"{name}.onnx").write_bytes(model)
    (folder / f"{name}.json").write_text(text + "\n", encoding="utf-8", newline="\n")
    size = _size(len(model))
    print(f"{name}.onnx: {size}, opset {OPSET}, agrees with torch within {CLOSE:.0e}")
    return said


def save_json(name: str, data: dict | list) -> int:
    """Write `name`.json and print one line; returns its bytes.

    For what is no network and goes with one, such as a tokenizer or its golden answers.
    Raises ValueError when the name is unfit or data has what JSON has not.
    """
    _check_names(name)
    try:
        text = json.dumps(data, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    except (TypeError, ValueError) as error:
        raise ValueError(f"{name}: JSON cannot hold it: {error}") from error
    file = Path(os.environ.get(FOLDER, ".")) / f"{name}.json"
    size = file.write_bytes(text.encode() + b"\n")
    print(f"{file.name}: {_size(size)}")
    return size


def _size(count: int) -> str:
    return f"{count / 1000:.3g} kB" if count < 999_500 else f"{count / 1e6:.3g} MB"


def _check(name: str, inputs: Tensors, outputs: tuple) -> None:
    if missing := [p for p in ("onnx", "onnxscript", "onnxruntime") if find_spec(p) is None]:
        mend = "pip install -c constraints.txt -e '.[test]'"
        raise ModuleNotFoundError(f"an export needs {', '.join(missing)}: {mend}")
    _check_names(name, *inputs, *outputs)
    if not (1,) <= _rows(name, inputs) <= (16,):
        raise ValueError(f"{name}: expected 1 to 16 rows, for they are kept as text")


def _check_names(*words: str) -> None:
    for word in words:
        plain = word.isidentifier() and word.isascii() and word.islower()
        if not plain or words.count(word) > 1 or word in ("run", "study"):
            raise ValueError(f"expected a name of its own, such as sampler, got {word!r}")


def _rows(name: str, tensors: Tensors) -> tuple:
    """The first axis of the first, as in its shape; ValueError where another is not like it."""
    rows = next((t.shape[:1] for t in tensors.values()), ())
    for word, t in tensors.items():
        if t.dtype not in TYPES or not t.isfinite().all() or t.shape[:1] != rows:
            why = "expected finite float32 or int64, as many rows in each"
            raise ValueError(f"{name}: {word} is {t.dtype} {tuple(t.shape)}, {why}")
    return rows


def _answers(name: str, network: nn.Module, inputs: Tensors, outputs: tuple) -> Tensors:
    found = network(*inputs.values())
    found = (found,) if isinstance(found, Tensor) else tuple(found)
    if len(found) != len(outputs):
        raise ValueError(f"{name}: the network gives {len(found)} tensors, outputs={outputs}")
    _rows(name, {**inputs, **dict(zip(outputs, found))})
    return dict(zip(outputs, found))


def _export(name: str, network: nn.Module, inputs: Tensors, outputs: tuple) -> bytes:
    """The network as bytes: the same on each run, without a trace of where it was made."""
    options = {"opset_version": OPSET, "dynamo": True, "verbose": False}
    options |= {"input_names": list(inputs), "output_names": list(outputs)}
    options |= {"dynamic_shapes": ({0: torch.export.Dim("batch")},) * len(inputs)}
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)  # it tells what is not installed
    try:
        with warnings.catch_warnings(action="ignore"):
            model = torch.onnx.export(network, (*inputs.values(),), **options).model_proto
    except Exception as error:
        why = str(error.__cause__ or error).strip().partition("\n")[0]
        raise ValueError(f"{name}: torch cannot export this network: {why}") from error
    _strip(model)
    return model.SerializeToString(deterministic=True)


def _strip(message) -> None:
    """Take out notes and stack traces, which name files of this machine, and torch's build."""
    for field, value in message.ListFields():
        if field.name in ("metadata_props", "doc_string", "value_info", "producer_version"):
            message.ClearField(field.name)
        elif field.message_type is not None:
            for part in [value] if hasattr(value, "ListFields") else value:
                _strip(part)


def _compare(name: str, model: bytes, inputs: Tensors, answers: Tensors) -> None:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    try:
        found = session.run(list(answers), {k: t.numpy() for k, t in inputs.items()})
    except Exception as error:  # a class of its own for each kind
        why = f"onnxruntime refuses a batch of {_rows(name, inputs)[0]}"
        raise ValueError(f"{name}: {why}: is its size fixed inside the network?") from error
    for (word, ours), theirs in zip(answers.items(), map(torch.from_numpy, found)):
        off = (ours.double() - theirs.double()).abs().max().item()
        if not off <= CLOSE * max(1.0, ours.abs().max().item()):
            why = "is there chance, or a size of the batch, inside the network?"
            raise ValueError(f"{name}: {word} differs in onnxruntime by {off:.1e}: {why}")


def _plain(tensors: Tensors) -> dict:
    """Lists; each float32 as the shortest decimals that read back as the same number."""
    read = {k: [json.loads(str(v)) for v in t.flatten().numpy()] for k, t in tensors.items()}
    about = {k: {"type": TYPES[t.dtype], "shape": list(t.shape)} for k, t in tensors.items()}
    return {k: {**about[k], "values": read[k]} for k in tensors}
