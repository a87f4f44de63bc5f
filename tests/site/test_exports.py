"""Exports: a page's network as ONNX gives torch's answers, and says nothing of this machine."""

import hashlib
import json
import random
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from torch import nn

from snippets.shared import exports
from snippets.site import ROOT, exported, worker
from snippets.site.built import build
from snippets.site.collector import differences
from snippets.site.execute import run_page
from snippets.site.page import read_page
from snippets.site.problems import PageError
from snippets.site.record import outputs, record, state
from snippets.site.rules import check_source

PAGE = "docs/discriminative/line.md"
OUTPUTS = "docs/outputs/discriminative/line"
RECORDED = sorted((ROOT / "docs" / "outputs").rglob("*.onnx"))
TRACES = re.compile(rb"site-packages|/home/|/root/|/Users/|/tmp/|[A-Z]:\\|File \"|\.py\b")
ASKED = """
import torch
from snippets.shared import exports
torch.manual_seed(0)
network = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.GELU(), torch.nn.Linear(8, 2))
exports.save("small", network, {"z": torch.ones(3, 4)})
"""


class Two(nn.Module):
    """Two inputs of different types, two outputs, dropout, and a random stream of its own."""

    def __init__(self):
        super().__init__()
        self.classes, self.layer = nn.Embedding(10, 4), nn.Linear(4, 4)
        self.dropout = nn.Dropout(0.5)

    def forward(self, z, label):
        h = self.dropout(torch.nn.functional.gelu(self.layer(z) + self.classes(label)))
        return h, h.argmax(dim=1)


INPUTS = {
    "z": torch.randn(5, 4, generator=torch.Generator().manual_seed(0)),
    "label": torch.tensor([3, 1, 4, 1, 5]),
}


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """(folder, network, what `save` returned) of a small network, saved once."""
    folder = tmp_path_factory.mktemp("saved")
    torch.manual_seed(0)
    network = Two().train()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(exports.FOLDER, str(folder))
        said = exports.save("two", network, INPUTS, outputs=("h", "best"))
    return folder, network, said


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.delenv(exports.FOLDER, raising=False)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def answers(path: Path, feeds: dict) -> list:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    return onnxruntime.InferenceSession(path, options).run(None, feeds)


def tensors(side: dict) -> dict:
    return {k: np.array(t["values"], dtype=t["type"]).reshape(t["shape"]) for k, t in side.items()}


# ---------------------------------------------------------------- save


@pytest.mark.parametrize("rows", [1, 2, 7, 64])
def test_the_file_answers_as_torch_does_for_any_batch(saved, rows):
    folder, network, _ = saved
    made = torch.Generator().manual_seed(rows)
    z, label = torch.randn(rows, 4, generator=made), torch.arange(rows) % 10
    found = answers(folder / "two.onnx", {"z": z.numpy(), "label": label.numpy()})
    with torch.no_grad():
        h, best = network.eval()(z, label)
    np.testing.assert_allclose(found[0], h, atol=1e-6)
    np.testing.assert_array_equal(found[1], best)


def test_the_golden_file_holds_the_inputs_and_torchs_answers_to_the_last_bit(saved):
    folder, network, said = saved
    golden = json.loads((folder / "two.json").read_text(encoding="utf-8"))
    with torch.no_grad():
        h, best = network.eval()(*INPUTS.values())
    read = {**tensors(golden["inputs"]), **tensors(golden["outputs"])}
    for name, tensor in {**INPUTS, "h": h, "best": best}.items():
        np.testing.assert_array_equal(read[name], tensor.numpy())
        assert read[name].dtype == tensor.numpy().dtype
    assert said == {"opset": golden["opset"], "bytes": golden["bytes"]}
    assert said["bytes"] == (folder / "two.onnx").stat().st_size
    assert len(re.findall(r"\d{10}", json.dumps(golden))) == 0  # short decimals


def test_the_file_is_whole_and_keeps_its_names(saved):
    model = onnx.load(saved[0] / "two.onnx", load_external_data=False)
    onnx.checker.check_model(model)
    assert [(o.domain, o.version) for o in model.opset_import] == [("", exports.OPSET)]
    assert not any(t.external_data for t in model.graph.initializer)
    for values, names in ((model.graph.input, ["z", "label"]), (model.graph.output, ["h", "best"])):
        assert [v.name for v in values] == names
        assert {v.type.tensor_type.shape.dim[0].dim_param for v in values} == {"batch"}


def test_saving_leaves_the_network_and_the_random_stream_alone(here, capsys):
    torch.manual_seed(5)
    network, before = Two().train(), torch.random.get_rng_state()
    weights = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    exports.save("two", network, INPUTS, outputs=("h", "best"))
    assert torch.equal(before, torch.random.get_rng_state())
    assert network.training and network.dropout.training
    assert all(w.requires_grad for w in network.parameters())
    assert all(torch.equal(tensor, weights[name]) for name, tensor in network.state_dict().items())
    line = r"two\.onnx: [\d.]+ kB, opset \d+, agrees with torch within 1e-05\n"
    assert re.fullmatch(line, capsys.readouterr().out)
    assert sorted(path.name for path in here.iterdir()) == ["two.json", "two.onnx"]


def test_the_bytes_are_the_same_elsewhere_and_tell_nothing_of_the_machine(tmp_path, monkeypatch):
    found = []
    for seed in ("1", "2"):
        folder = tmp_path / f"a folder {seed}"
        folder.mkdir()
        monkeypatch.setenv("PYTHONPATH", str(ROOT))
        monkeypatch.setenv("PYTHONHASHSEED", seed)
        done = subprocess.run([sys.executable, "-c", ASKED], cwd=folder, capture_output=True)
        assert done.returncode == 0 and not done.stderr, done.stderr.decode()
        found.append({path.name: path.read_bytes() for path in folder.iterdir()})
    assert found[0] == found[1] and len(found[0]) == 2
    for data in found[0].values():
        assert not TRACES.search(data) and str(ROOT).encode() not in data


class Throws(nn.Module):
    def forward(self, z):
        return z + random.random()


class Draws(nn.Module):
    def forward(self, z):
        return z + torch.rand_like(z)


class CountsRows(nn.Module):
    def forward(self, z):
        return z if z.shape[0] > 4 else 2 * z


class PicksByRow(nn.Module):
    def forward(self, z):
        return z[torch.arange(len(z)), :2]


class Asks(nn.Module):
    def forward(self, z):
        return z if z.sum() > 0 else 2 * z


class MixesRows(nn.Module):
    def forward(self, z):
        return z.mean(dim=0)


class Overflows(nn.Module):
    def forward(self, z):
        return z / 0


@pytest.mark.parametrize(
    ("network", "message"),
    [
        (Throws(), "output differs in onnxruntime by .*: is there chance"),
        (Draws(), "output differs in onnxruntime by .*: is there chance"),
        (CountsRows(), "a size of the batch"),
        (PicksByRow(), "onnxruntime refuses a batch of .: is its size fixed inside"),
        (Asks(), "torch cannot export this network: .*data-dependent"),
        (MixesRows(), r"output is torch.float32 \(4,\), expected .* as many rows"),
        (Overflows(), "expected finite"),
        (nn.GRU(4, 4), "gives 2 tensors, outputs="),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, nn.Module) else "",
)
def test_a_network_that_is_no_function_of_its_inputs_is_refused(here, network, message):
    inputs = {"z": torch.ones(3, 4)}
    with pytest.raises(ValueError, match=f"net: .*{message}") as caught:
        exports.save("net", network, inputs)
    assert len(str(caught.value).splitlines()) == 1
    assert list(here.iterdir()) == []


@pytest.mark.parametrize(
    ("name", "inputs", "message"),
    [
        ("../net", {"z": torch.ones(2, 4)}, "such as sampler, got '../net'"),
        ("Net", {"z": torch.ones(2, 4)}, "such as sampler"),
        ("run", {"z": torch.ones(2, 4)}, "such as sampler"),
        ("z", {"z": torch.ones(2, 4)}, "a name of its own, .* got 'z'"),
        ("net", {"output": torch.ones(2, 4)}, "a name of its own"),
        ("net", {}, "1 to 16 rows"),
        ("net", {"z": torch.ones(17, 4)}, "1 to 16 rows"),
        ("net", {"z": torch.ones(0, 4)}, "1 to 16 rows"),
        ("net", {"z": torch.tensor(1.0)}, "1 to 16 rows"),
        ("net", {"z": torch.ones(2, 4), "y": torch.ones(3)}, r"y is torch.float32 \(3,\)"),
        ("net", {"z": torch.ones(2, 4).double()}, "z is torch.float64"),
        ("net", {"z": torch.full((2, 4), torch.nan)}, "expected finite"),
    ],
)
def test_bad_names_and_inputs_are_refused_in_one_line(here, name, inputs, message):
    with pytest.raises(ValueError, match=message) as caught:
        exports.save(name, nn.Identity(), inputs)
    assert len(str(caught.value).splitlines()) == 1
    assert list(here.iterdir()) == []


def test_plain_json_is_written_whole_and_told_in_a_line(here, capsys):
    size = exports.save_json("merges", {"é": [1, 2.5]})
    assert (here / "merges.json").read_text(encoding="utf-8") == '{"é":[1,2.5]}\n'
    assert size == (here / "merges.json").stat().st_size
    assert capsys.readouterr().out == "merges.json: 0.015 kB\n"
    for name, data, message in (
        ("run", {}, "such as sampler, got 'run'"),
        ("bad", {"a": np.ones(2)}, "bad: JSON cannot hold it"),
        ("bad", [float("nan")], "bad: JSON cannot hold it"),
    ):
        with pytest.raises(ValueError, match=message):
            exports.save_json(name, data)
    assert not (here / "bad.json").exists()


def test_without_its_packages_it_says_what_to_install(here, monkeypatch):
    monkeypatch.setattr(exports, "find_spec", lambda package: None)
    with pytest.raises(ModuleNotFoundError, match="needs onnx, onnxscript, onnxruntime: pip") as no:
        exports.save("net", nn.Identity(), {"z": torch.ones(2, 4)})
    assert len(str(no.value).splitlines()) == 1


def test_importing_it_imports_none_of_them():
    code = "import sys, snippets.shared.exports; print(sorted(sys.modules))"
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    assert not re.search(r"'(onnx|onnxscript|onnxruntime|sympy)'", done.stdout)


# ---------------------------------------------------------------- a page that exports


def test_the_worker_and_save_mean_the_same_variable():
    assert f'os.environ["{exports.FOLDER}"]' in Path(worker.__file__).read_text(encoding="utf-8")


def test_what_a_page_exports_is_recorded_with_its_digest_and_shapes(exporting):
    run = json.loads(exporting.read(f"{OUTPUTS}/run.json"))
    files = {name: (exporting.root / OUTPUTS / name).read_bytes() for name in run["files"]}
    assert set(files) == {"line.svg", "slope.txt", "sampler.onnx", "sampler.json"}
    assert run["files"] == {n: hashlib.sha256(data).hexdigest() for n, data in files.items()}
    assert run["exports"] == {
        "sampler": {
            "opset": exports.OPSET,
            "bytes": len(files["sampler.onnx"]),
            "inputs": {"z": {"type": "float32", "shape": ["batch", 2]}},
            "outputs": {"output": {"type": "float32", "shape": ["batch", 3]}},
        }
    }
    assert state(exporting.page()) == ("fresh", "")
    assert check_source(exporting.root) == []
    assert not list(exporting.root.glob("*.onnx"))


def test_recording_again_writes_the_same_bytes_and_drops_what_is_left_over(exporting):
    folder = exporting.root / OUTPUTS
    before = {p.name: p.read_bytes() for p in folder.iterdir()}
    (folder / "run.json").unlink()
    (folder / "old.onnx").write_bytes(b"weights")
    (folder / "old.safetensors").write_bytes(b"weights")
    record(exporting.page(), force=True)
    after = {p.name: p.read_bytes() for p in folder.iterdir()}
    assert set(after) == set(before) - {"notebook.ipynb"}
    assert all(after[name] == before[name] for name in after if name != "run.json")


def test_the_built_site_offers_the_network_and_its_golden_file(exporting):
    target = exporting.root / "site"
    assert build(exporting.root, target) == []
    for name in ("sampler.onnx", "sampler.json"):
        path = target / OUTPUTS.removeprefix("docs/") / name
        assert path.read_bytes() == (exporting.root / OUTPUTS / name).read_bytes()
    assert not (target / OUTPUTS.removeprefix("docs/") / "run.json").exists()


@pytest.fixture(scope="module")
def run(exporting_site):
    """One run of the page that exports."""
    return run_page(read_page(exporting_site / PAGE, exporting_site))


def test_the_test_of_a_page_compares_its_exports(exporting, run):
    """Names, inputs, outputs, opset and size; of the weights nothing, they differ elsewhere."""
    run = replace(run, page=exporting.page())
    assert said(run) == []
    recorded = exporting.read(f"{OUTPUTS}/run.json")

    def after(change) -> list[str]:
        data = json.loads(recorded)
        change(data["exports"])
        exporting.write(f"{OUTPUTS}/run.json", json.dumps(data))
        return said(run)

    line = exporting.line_of(PAGE, "slope = train(") - 1
    again = "if it is right, run `python -m snippets record --force discriminative/line`"
    assert after(lambda e: e["sampler"].update(opset=17)) == [
        f"{PAGE}:{line}: sampler.onnx had opset 17, now {exports.OPSET}; {again}"
    ]
    assert "had inputs x float32 [batch, 2], now z float32 [batch, 2]" in str(
        after(lambda e: e["sampler"].update(inputs={"x": e["sampler"]["inputs"]["z"]}))
    )
    assert "bytes, now" in str(after(lambda e: e["sampler"].update(bytes=9)))
    assert after(lambda e: e["sampler"].update(bytes=e["sampler"]["bytes"] + 3)) == []
    assert "sampler.onnx was not recorded" in str(after(lambda e: e.clear()))
    assert after(lambda e: e.update(other=e["sampler"])) == [
        f"{PAGE}:0: other.onnx was recorded, and no block exports it; {again}"
    ]


def said(run) -> list[str]:
    return [why for block in run.page.blocks for why in differences(run, block)]


@pytest.mark.parametrize(
    ("old", "new"), [("[Run it]", "Run it "), ("sampler.onnx)", "other.onnx)")]
)
def test_what_is_exported_must_be_linked_when_a_page_is_recorded(exporting, run, old, new):
    exporting.replace(PAGE, old, new)
    with pytest.raises(PageError, match="the page does not link it") as caught:
        outputs(replace(run, page=exporting.page()))
    problem = caught.value.problem
    assert (problem.file, problem.line) == (PAGE, exporting.line_of(PAGE, "exports.save("))
    assert problem.mend == "add a link to ../outputs/discriminative/line/sampler.onnx"


def test_one_name_for_two_exports_is_an_error(run):
    results = [replace(result) for result in run.results]
    results[-1].exports = next(result.exports for result in run.results if result.exports)
    with pytest.raises(PageError, match="two things want the name sampler") as caught:
        outputs(replace(run, results=results))
    assert caught.value.problem.line == run.page.blocks[-1].line


def test_a_link_to_nothing_and_a_heavy_network_are_found_without_a_run(exporting):
    page = exporting.page()
    about = json.loads(exporting.read(f"{OUTPUTS}/run.json"))["exports"]
    heavy = {"sampler": {**about["sampler"], "bytes": exported.BYTES + 1}}
    line = exporting.line_of(PAGE, "[Run it]")
    (found,) = exported.problems(page, heavy)
    assert (found.line, found.message) == (
        line,
        "sampler.onnx has 1,500,001 bytes, the budget is 1,500,000",
    )
    (found,) = exported.problems(page, {})
    assert (found.line, found.message) == (
        line,
        "the page links sampler.onnx, and no block exports it",
    )


def test_plain_json_must_be_linked_and_come_out_the_same(exporting, run):
    """A network differs on another processor; a list of merges does not."""
    page = exporting.page()
    golden = b'{"opset":1,"inputs":{},"outputs":{}}'
    files = {"merges.json": b"[1]", "sampler.onnx": b"", "sampler.json": golden}
    about = exported.described(files)
    assert set(about) == {"sampler", "merges.json"}
    assert about["merges.json"] == {"bytes": 3, "sha256": hashlib.sha256(b"[1]").hexdigest()}
    (found,) = exported.problems(page, about)
    assert found.message == "merges.json is exported and the page does not link it"
    assert found.mend == "add a link to ../outputs/discriminative/line/merges.json"
    answers = "[Run it](../outputs/discriminative/line/sampler.json) "
    merges = "[Merges](../outputs/discriminative/line/merges.json)"
    exporting.replace(PAGE, "[Run it]", f"{answers} {merges} [Run it]")
    assert list(exported.problems(exporting.page(), about)) == []
    (found,) = exported.problems(exporting.page(), {"sampler": about["sampler"]})
    assert found.message == "the page links merges.json, and no block exports it"
    assert 'save_json("merges"' in found.mend
    now = exported.described({**files, "merges.json": b"[2]"})
    assert list(exported.differences(about, about, 0.05)) == []
    (why,) = exported.differences(about, now, 0.05)
    assert why == "merges.json had 3 bytes, now 3, others than those"


# ---------------------------------------------------------------- what is recorded here


def test_some_network_is_recorded():
    assert RECORDED


@pytest.mark.parametrize("path", RECORDED, ids=lambda p: f"{p.parent.name}/{p.stem}")
def test_a_recorded_network_gives_its_golden_answers(path):
    golden = json.loads(path.with_suffix(".json").read_text(encoding="utf-8"))
    about = json.loads((path.parent / "run.json").read_text(encoding="utf-8"))["exports"][path.stem]
    inputs, outputs = tensors(golden["inputs"]), tensors(golden["outputs"])
    for rows in (slice(None), slice(0, 1)):
        feeds = {name: tensor[rows] for name, tensor in inputs.items()}
        for found, (name, expected) in zip(answers(path, feeds), outputs.items()):
            scale = max(1.0, np.abs(expected).max())
            gap = np.abs(found.astype(float) - expected[rows]).max()
            assert gap <= exports.CLOSE * scale, f"{name} differs by {gap}"
    assert (
        about
        == exported.described(
            {
                path.name: path.read_bytes(),
                f"{path.stem}.json": path.with_suffix(".json").read_bytes(),
            }
        )[path.stem]
    )


@pytest.mark.parametrize("path", RECORDED, ids=lambda p: f"{p.parent.name}/{p.stem}")
def test_a_recorded_network_is_light_and_tells_nothing_of_the_machine(path):
    data, model = path.read_bytes(), onnx.load(path)
    assert len(data) <= exported.BYTES
    assert model.opset_import[0].version == exports.OPSET
    for tensor in model.graph.initializer:  # weights may spell anything
        tensor.ClearField("raw_data")
    for said in (model.SerializeToString(), path.with_suffix(".json").read_bytes()):
        assert not TRACES.search(said) and str(ROOT).encode() not in said
