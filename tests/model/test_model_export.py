"""Exports: a stranger with nothing but transformers or PEFT gets the tuned model, and never half of one."""

from __future__ import annotations

import json
import os
import stat
import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from safetensors.torch import load_file
from torch import Tensor
from transformers import AutoTokenizer

from rlhf_tui.errors import UserError
from rlhf_tui.export import merged as merged_module
from rlhf_tui.export import write as write_module
from rlhf_tui.export.card import TRUTHS, Facts, model_card
from rlhf_tui.export.merged import INDEX, merged_bytes
from rlhf_tui.export.write import RECORD, export_adapter, export_merged
from rlhf_tui.model.base import Base
from rlhf_tui.model.chat import CHATML
from rlhf_tui.model.roles import Roles
from rlhf_tui.training.ppo import TrainPrompt

Load = Callable[..., Base]
MakeRoles = Callable[..., Roles]

FACTS = Facts(
    project="plain answers",
    base="tiny-llama",
    licence="apache-2.0",
    quantisation="none",
    form="merged",
    pairs=24,
    raters=({"handle": "ada", "kind": "human", "card": {"language": "English"}},),
    guideline="Short is good.\nTrue is better.",
    reward={"accuracy": 0.75, "n": 40, "low": 0.6, "high": 0.86, "shorter": 0.4, "longer": 0.6},
    comparison={
        "before": {"score": 0.0, "length": 60.0, "eos_rate": 0.9},
        "after": {"score": 1.25, "length": 40.0, "eos_rate": 1.0},
        "difference": 1.25,
        "low": 0.9,
        "high": 1.6,
        "prompts": 50,
        "kl": 3.2,
    },
)
RECORD_OF_IT = {"version": "0.1.0", "run": "ppo-0001"}

STRANGER = """
import json, sys
import torch
from safetensors.torch import save_file
from transformers import AutoModelForCausalLM, AutoTokenizer

ids = torch.tensor(json.loads(sys.argv[1]))
out = {}
for name, folder, base in json.loads(sys.argv[2]):
    model = AutoModelForCausalLM.from_pretrained(base or folder, dtype=torch.float32)
    if base:
        from peft import PeftModel
        model = PeftModel.from_pretrained(model, folder)
    AutoTokenizer.from_pretrained(folder).apply_chat_template([{"role": "user", "content": "hello"}])
    with torch.no_grad():
        out[name] = model.eval()(input_ids=ids).logits
assert "rlhf_tui" not in sys.modules
save_file(out, sys.argv[3])
"""


@dataclass(frozen=True)
class Export:
    """One export, and what the tuned model answered."""

    folder: Path
    roles: Roles
    logits: Tensor
    outcome: Mapping[str, Any]


def export(roles: Roles, target: Path, *, dtype: str = "fp32") -> dict[str, Any]:
    prompts = [TrainPrompt("one", (1, 5, 6, 7, 8, 9)), TrainPrompt("two", (1, 40, 41, 42))]
    return export_merged(
        roles, target, dtype=dtype, facts=FACTS, record=RECORD_OF_IT, prompts=prompts, report=lambda text: None
    )


def export_as(form: str, roles: Roles, target: Path) -> None:
    if form == "merged":
        export(roles, target)
    else:
        export_adapter(roles, target, facts=FACTS, record={})


@pytest.fixture(scope="module")
def tuned(load: Load, make_roles: MakeRoles) -> Callable[..., Roles]:
    """A policy that answers otherwise than the base: all roles on it, the policy's adapter well away from zero."""

    def make(folder: Path, *, layers: int = 0, **settings: str) -> Roles:
        return make_roles(load(folder, **settings), layers=layers)

    return make


# name: (which model, model settings, adapted layers, number format)
MERGED: dict[str, tuple[str, dict[str, str], int, str]] = {
    "fp32": ("tiny", {}, 0, "fp32"),
    "bf16": ("tiny", {}, 0, "bf16"),
    "fp16": ("tiny", {}, 0, "fp16"),
    "untied": ("blocky", {}, 2, "fp32"),
    "nf4": ("blocky", {"quantisation": "nf4"}, 0, "fp32"),
    "nf4-two-layers": ("blocky", {"quantisation": "nf4"}, 2, "fp32"),
    "int8": ("blocky", {"quantisation": "int8"}, 0, "fp32"),
    "sharded": ("tiny", {}, 0, "fp32"),
}


@pytest.fixture(scope="module")
def exports(
    tiny_folder: Path,
    blocky_folder: Path,
    tuned: Callable[..., Roles],
    tmp_path_factory: pytest.TempPathFactory,
    ids: Tensor,
) -> dict[str, Export | Exception]:
    """Every kind of export, made once; an exception stands for one that failed."""
    place = tmp_path_factory.mktemp("exports")
    folders = {"tiny": tiny_folder, "blocky": blocky_folder}
    made: dict[str, Export | Exception] = {}
    for name, (model, settings, layers, dtype) in MERGED.items():
        roles = tuned(folders[model], layers=layers, **settings)
        with torch.no_grad(), roles.acting("policy"):
            logits = roles.base.model(input_ids=ids).logits
        with pytest.MonkeyPatch.context() as patch:
            if name == "sharded":
                patch.setattr(merged_module, "SHARD_BYTES", 20_000)
            try:
                made[name] = Export(place / name, roles, logits, export(roles, place / name, dtype=dtype))
            except Exception as error:  # each test that needs it says so
                made[name] = error
    roles = tuned(tiny_folder)
    with torch.no_grad(), roles.acting("policy"):
        logits = roles.base.model(input_ids=ids).logits
    outcome = export_adapter(roles, place / "adapter", facts=replace(FACTS, form="adapter"), record=RECORD_OF_IT)
    made["adapter"] = Export(place / "adapter", roles, logits, outcome)
    return made


@pytest.fixture(scope="module")
def get(exports: dict[str, Export | Exception]) -> Callable[[str], Export]:
    def got(name: str) -> Export:
        export = exports[name]
        if isinstance(export, Exception):
            pytest.fail(f"the export failed: {export!r}")
        return export

    return got


@pytest.fixture(scope="module")
def strangers(
    exports: dict[str, Export | Exception], tiny_folder: Path, tmp_path_factory: pytest.TempPathFactory, ids: Tensor
) -> dict[str, Tensor]:
    """The logits that a process without rlhf_tui gets from every export."""
    place = tmp_path_factory.mktemp("stranger")
    found = [
        (name, str(one.folder), str(tiny_folder) if name == "adapter" else "")
        for name, one in exports.items()
        if isinstance(one, Export)
    ]
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    arguments = [json.dumps(ids.tolist()), json.dumps(found), str(place / "logits.safetensors")]
    subprocess.run(
        [sys.executable, "-c", STRANGER, *arguments],
        check=True,
        cwd=place,
        env=environment | {"HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
    )
    return load_file(place / "logits.safetensors")


# -- the model is the tuned one ----------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "tolerance"),
    [
        ("fp32", 1e-5),
        ("untied", 1e-5),
        ("sharded", 1e-5),
        ("nf4", 1e-4),
        ("nf4-two-layers", 1e-4),
        ("adapter", 1e-5),
    ],
)
def test_a_stranger_gets_the_logits_of_the_tuned_model(
    get: Callable[[str], Export], strangers: dict[str, Tensor], ids: Tensor, name: str, tolerance: float
) -> None:
    one = get(name)
    torch.testing.assert_close(strangers[name], one.logits, rtol=tolerance, atol=10 * tolerance)
    with torch.no_grad(), one.roles.reference():
        base = one.roles.base.model(input_ids=ids).logits
    assert (one.logits - base).abs().max() > 1  # the tuning is no rounding error


@pytest.mark.parametrize(("name", "distance"), [("fp16", 5e-3), ("bf16", 4e-2), ("int8", 0.1)])
def test_rounding_costs_little(
    get: Callable[[str], Export], strangers: dict[str, Tensor], name: str, distance: float
) -> None:
    logits = get(name).logits
    assert float((strangers[name] - logits).norm() / logits.norm()) < distance


def expected_weights(roles: Roles, numbers: Callable[[Any], Tensor]) -> dict[str, Tensor]:
    """Base + alpha / rank · B @ A by hand, from the adapter's own file format."""
    state = roles.adapter_state("policy")
    weights = {}
    for name, parameter in roles.base.model.named_parameters():
        if "lora_" in name:
            continue
        plain = name.replace(".base_layer", "")
        owner = roles.base.model.get_submodule(name.rpartition(".")[0])
        weight = parameter if parameter.is_floating_point() else numbers(owner)
        first = state.get(f"base_model.model.{plain.removesuffix('.weight')}.lora_A.weight")
        second = state.get(f"base_model.model.{plain.removesuffix('.weight')}.lora_B.weight")
        delta = 8 / 4 * (second.double() @ first.double()) if first is not None and second is not None else 0.0
        weights[plain] = weight.detach().double() + delta
    return weights


@pytest.mark.parametrize("name", ["fp32", "untied", "nf4", "nf4-two-layers", "int8"])
def test_the_weights_are_base_plus_adapter(
    get: Callable[[str], Export], numbers: Callable[[Any], Tensor], name: str
) -> None:
    stored = load_file(get(name).folder / "model.safetensors")
    expected = expected_weights(get(name).roles, numbers)
    assert set(stored) == set(expected)
    for key, weight in stored.items():
        torch.testing.assert_close(weight.double(), expected[key], rtol=1e-5, atol=1e-6, msg=key)


@pytest.mark.parametrize(("name", "dtype"), [("bf16", torch.bfloat16), ("fp16", torch.float16)])
def test_sixteen_bit_weights_are_the_fp32_sum_rounded_once(
    get: Callable[[str], Export], name: str, dtype: torch.dtype
) -> None:
    whole = load_file(get("fp32").folder / "model.safetensors")
    rounded = load_file(get(name).folder / "model.safetensors")
    assert set(whole) == set(rounded)
    assert all(torch.equal(rounded[key], whole[key].to(dtype)) for key in whole)


def test_only_the_policy_is_merged(get: Callable[[str], Export]) -> None:
    one = get("fp32")
    before = load_file(one.folder / "model.safetensors")
    with torch.no_grad():
        for role in ("reward", "value"):
            for parameter in one.roles.parameters(role):
                parameter.mul_(3)
    after = dict(merged_module.merged_tensors(one.roles, "policy"))
    assert all(torch.equal(before[key], after[key]) for key in before)


def test_shards_hold_the_same_tensors(get: Callable[[str], Export]) -> None:
    folder = get("sharded").folder
    index = json.loads((folder / INDEX).read_text())
    shards = sorted(path.name for path in folder.glob("*.safetensors"))
    assert len(shards) > 3
    assert shards == [f"model-{n:05d}-of-{len(shards):05d}.safetensors" for n in range(1, len(shards) + 1)]
    together: dict[str, Tensor] = {}
    for shard in shards:
        tensors = load_file(folder / shard)
        assert tensors.keys().isdisjoint(together)
        assert all(index["weight_map"][key] == shard for key in tensors)
        assert len(tensors) == 1 or sum(tensor.nbytes for tensor in tensors.values()) <= 20_000
        together |= tensors
    whole = load_file(get("fp32").folder / "model.safetensors")
    assert set(index["weight_map"]) == set(together) == set(whole)
    assert all(torch.equal(together[key], whole[key]) for key in whole)
    assert index["metadata"]["total_size"] == sum(tensor.nbytes for tensor in whole.values())


@pytest.mark.parametrize("name", MERGED)
def test_the_size_was_foretold(get: Callable[[str], Export], name: str) -> None:
    one = get(name)
    written = sum(t.nbytes for path in one.folder.glob("*.safetensors") for t in load_file(path).values())
    assert merged_bytes(one.roles, MERGED[name][3]) == written


@pytest.mark.parametrize("name", ["fp32", "bf16", "sharded"])
def test_tied_weights_stay_tied(get: Callable[[str], Export], name: str) -> None:
    folder = get(name).folder
    assert json.loads((folder / "config.json").read_text())["tie_word_embeddings"] is True
    assert not any("lm_head.weight" in load_file(path) for path in folder.glob("*.safetensors"))


def test_untied_weights_stay_apart(get: Callable[[str], Export]) -> None:
    folder = get("untied").folder
    assert json.loads((folder / "config.json").read_text())["tie_word_embeddings"] is False
    stored = load_file(folder / "model.safetensors")
    assert not torch.equal(stored["lm_head.weight"], stored["model.embed_tokens.weight"])


def test_the_outcome_says_what_was_checked(get: Callable[[str], Export]) -> None:
    outcome = get("fp32").outcome
    assert outcome["path"] == str(get("fp32").folder)
    assert (outcome["format"], outcome["dtype"]) == ("merged", "fp32")
    assert outcome["check"]["positions"] == 10
    assert outcome["check"]["top1"] == 1.0
    assert 0 <= outcome["check"]["kl"] < 1e-6
    assert get("bf16").outcome["check"]["kl"] > outcome["check"]["kl"]


def test_a_merge_that_went_wrong_is_noticed(
    tiny_folder: Path, tuned: Callable[..., Roles], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = merged_module._delta
    monkeypatch.setattr(merged_module, "_delta", lambda layer, role: 0.5 * real(layer, role))
    with pytest.raises(UserError, match="does not answer as the tuned one"):
        export(tuned(tiny_folder), tmp_path / "wrong")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("computed_in", "kl", "refused"),
    [
        ("float32", 9e-4, False),
        ("float32", 2e-3, True),
        ("float16", 2e-3, True),
        ("bfloat16", 3e-3, False),  # what bf16 itself rounds
        ("bfloat16", 0.069, True),  # the smallest of a merge into the unquantised weights of a 4-bit base
        ("int8", 0.038, False),  # what int8 itself rounds
        ("int8", 0.2, True),
    ],
)
def test_a_card_that_rounds_more_is_allowed_more_and_not_everything(
    tiny_folder: Path, tuned: Callable[..., Roles], tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    computed_in: str, kl: float, refused: bool,
) -> None:  # fmt: skip
    """A card is made up: the format in which the model computes, and what the comparison finds there."""
    roles = tuned(tiny_folder)
    told = {"quantisation": "int8"} if computed_in == "int8" else {"dtype": getattr(torch, computed_in)}
    roles.base = replace(roles.base, device=torch.device("cuda"), **told)
    monkeypatch.setattr("rlhf_tui.export.write.check_merged", lambda *given: merged_module.Check(kl, 0.9, 10))
    if not refused:
        assert export(roles, tmp_path / "out")["check"]["kl"] == kl
        return
    with pytest.raises(UserError, match="does not answer as the tuned one") as refusal:
        export(roles, tmp_path / "out")
    assert f"is allowed where the tuned model computes in {computed_in}." in refusal.value.why
    assert list(tmp_path.iterdir()) == []


# -- what lies beside the weights --------------------------------------------------------------


@pytest.mark.parametrize("name", MERGED)
def test_the_configuration_is_one_that_others_can_read(get: Callable[[str], Export], name: str) -> None:
    config = json.loads((get(name).folder / "config.json").read_text())
    assert config["rope_theta"] == config["rope_parameters"]["rope_theta"]
    if MERGED[name][0] == "blocky":
        assert config["rope_theta"] == 54321.0
    assert config["rope_scaling"] is None
    assert "quantization_config" not in config
    assert "_name_or_path" not in config
    wanted = {"fp32": "float32", "bf16": "bfloat16", "fp16": "float16"}[MERGED[name][3]]
    assert config["torch_dtype"] == config["dtype"] == wanted


def test_scaled_rope_is_written_for_old_readers_too(
    tiny_copy: Path, tuned: Callable[..., Roles], tmp_path: Path
) -> None:
    path = tiny_copy / "config.json"
    config = json.loads(path.read_text())
    config["rope_parameters"] = {"rope_type": "linear", "factor": 2.0, "rope_theta": 777.0}
    path.write_text(json.dumps(config))
    export(tuned(tiny_copy), tmp_path / "out")
    written = json.loads((tmp_path / "out" / "config.json").read_text())
    assert written["rope_theta"] == 777.0
    assert written["rope_scaling"] == {"rope_type": "linear", "factor": 2.0}


def test_the_tokenizer_loads_and_keeps_its_template(get: Callable[[str], Export]) -> None:
    one = get("fp32")
    config = json.loads((one.folder / "tokenizer_config.json").read_text())
    assert config["tokenizer_class"] == "PreTrainedTokenizerFast"
    assert config["chat_template"] == CHATML
    for name in ("fp32", "adapter"):
        tokenizer = AutoTokenizer.from_pretrained(get(name).folder)
        turns = [{"role": "user", "content": "why is the sky blue"}]
        ids = tokenizer.apply_chat_template(turns, add_generation_prompt=True, return_dict=False)
        expected = one.roles.base.chat.tokenizer.apply_chat_template(
            turns, chat_template=CHATML, add_generation_prompt=True, return_dict=False
        )
        assert ids == expected


@pytest.mark.parametrize("form", ["merged", "adapter"])
def test_a_template_from_the_settings_travels_along(
    tiny_copy: Path, load: Load, make_roles: MakeRoles, tmp_path: Path, form: str
) -> None:
    """A stranger must ask the model in the format it was tuned with."""
    (tiny_copy / "chat_template.jinja").unlink()
    template = tmp_path / "mine.jinja"
    template.write_text("{% for message in messages %}{{ message['content'] }}|{% endfor %}")
    roles = make_roles(load(tiny_copy, chat_template=str(template)), "policy")
    export_as(form, roles, tmp_path / "out")
    assert AutoTokenizer.from_pretrained(tmp_path / "out").chat_template == template.read_text()


@pytest.mark.parametrize("form", ["merged", "adapter"])
def test_a_tokenizer_with_several_templates_can_be_exported(
    tiny_folder: Path, tuned: Callable[..., Roles], tmp_path: Path, form: str
) -> None:
    """Such a tokenizer writes a folder of templates among its files."""
    roles = tuned(tiny_folder)
    roles.base.chat.tokenizer.chat_template = {"default": CHATML, "tool_use": CHATML}
    export_as(form, roles, tmp_path / "out")
    assert AutoTokenizer.from_pretrained(tmp_path / "out").chat_template is not None
    for path in (tmp_path / "out").rglob("*"):
        if path.is_dir():
            assert path.stat().st_mode & stat.S_IXUSR


def test_generation_settings_that_do_not_agree_are_no_obstacle(
    tiny_copy: Path, tuned: Callable[..., Roles], tmp_path: Path
) -> None:
    """Many published models name a temperature and do not sample; transformers refuses to save that."""
    path = tiny_copy / "generation_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"temperature": 0.6, "top_p": 0.9}))
    export(tuned(tiny_copy), tmp_path / "out")
    assert (tmp_path / "out" / "generation_config.json").is_file()


@pytest.mark.parametrize("name", [*MERGED, "adapter"])
def test_no_file_names_a_path_of_this_machine(
    get: Callable[[str], Export], tiny_folder: Path, blocky_folder: Path, name: str
) -> None:
    places = [str(tiny_folder.parent), str(blocky_folder.parent), str(Path.home()), str(Path.cwd())]
    for path in get(name).folder.rglob("*"):
        content = path.read_bytes()
        assert not [place for place in places if place.encode() in content], path.name


@pytest.mark.parametrize("name", ["fp32", "sharded", "adapter"])
def test_nothing_is_left_beside_and_all_can_read(get: Callable[[str], Export], name: str) -> None:
    folder = get(name).folder
    assert not [path for path in folder.parent.iterdir() if path.name.startswith(".")]
    mask = os.umask(0)
    os.umask(mask)
    for path in folder.iterdir():
        assert stat.S_IMODE(path.stat().st_mode) == 0o666 & ~mask, path.name


def test_the_record_is_written_as_it_was_given(get: Callable[[str], Export]) -> None:
    written = json.loads((get("fp32").folder / RECORD).read_text())
    assert written == RECORD_OF_IT | {name: get("fp32").outcome[name] for name in ("format", "dtype", "check")}
    assert json.loads((get("adapter").folder / RECORD).read_text()) == RECORD_OF_IT


def test_the_adapter_folder_holds_the_policy_and_no_head(get: Callable[[str], Export]) -> None:
    one = get("adapter")
    names = {path.name for path in one.folder.iterdir()}
    assert {"adapter_config.json", "adapter_model.safetensors", "README.md", RECORD, "tokenizer.json"} <= names
    assert names.isdisjoint({"manifest.json", "head.safetensors", "adapter"})
    config = json.loads((one.folder / "adapter_config.json").read_text())
    assert config["base_model_name_or_path"] == "tiny-llama"
    assert config["inference_mode"] is True
    assert (config["r"], config["lora_alpha"]) == (4, 8)
    stored = load_file(one.folder / "adapter_model.safetensors")
    state = one.roles.adapter_state("policy")
    assert set(stored) == set(state)
    assert all(torch.equal(stored[key], state[key]) for key in stored)
    assert one.outcome == {"path": str(one.folder), "format": "adapter"}


# -- whole or not at all -----------------------------------------------------------------------


def test_a_weight_too_large_for_fp16_is_named_and_nothing_is_left(
    tiny_folder: Path, tuned: Callable[..., Roles], tmp_path: Path
) -> None:
    roles = tuned(tiny_folder)
    with torch.no_grad():
        next(roles.base.model.model.layers[3].mlp.down_proj.base_layer.parameters()).fill_(70_000.0)
    with pytest.raises(UserError, match=r"layers\.3\.mlp\.down_proj\.weight does not fit float16") as caught:
        export(roles, tmp_path / "out", dtype="fp16")
    assert "7e+04" in caught.value.why
    assert "bf16" in caught.value.todo
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("form", ["merged", "adapter"])
def test_an_existing_target_is_never_touched(
    tiny_folder: Path, tuned: Callable[..., Roles], tmp_path: Path, form: str
) -> None:
    target = tmp_path / "out"
    target.mkdir()
    (target / "precious.txt").write_text("mine")
    roles = tuned(tiny_folder)
    with pytest.raises(UserError, match="exists already") as caught:
        export_as(form, roles, target)
    assert "--out" in caught.value.todo
    assert [path.name for path in tmp_path.rglob("*")] == ["out", "precious.txt"]


@pytest.mark.parametrize("form", ["merged", "adapter"])
def test_an_interruption_leaves_nothing(
    tiny_folder: Path, tuned: Callable[..., Roles], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, form: str
) -> None:
    def interrupted(*args: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(write_module, "_finish", interrupted)
    roles = tuned(tiny_folder)
    with pytest.raises(KeyboardInterrupt):
        export_as(form, roles, tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("heard", [1, 20, 39])
def test_stopped_between_two_tensors_or_checks_nothing_is_left(
    tiny_folder: Path, tuned: Callable[..., Roles], tmp_path: Path, heard: int
) -> None:
    """There are 38 tensors; the last boundary here comes after the first prompt that is checked."""

    class Stopped(Exception):
        pass

    there: list[int] = []

    def boundary() -> None:
        there.append(len(list(tmp_path.iterdir())))
        if len(there) == heard:
            raise Stopped

    prompts = [TrainPrompt("one", (1, 5, 6)), TrainPrompt("two", (1, 40))]
    with pytest.raises(Stopped):
        export_merged(
            tuned(tiny_folder), tmp_path / "out", dtype="fp32", facts=FACTS, record={}, prompts=prompts,
            report=lambda text: None, boundary=boundary,
        )  # fmt: skip
    assert there == [1] * heard
    assert list(tmp_path.iterdir()) == []


def test_a_full_disk_is_foreseen(
    tiny_folder: Path, tuned: Callable[..., Roles], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import shutil

    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=1000))
    with pytest.raises(UserError, match="disk space"):
        export(tuned(tiny_folder), tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


# -- the card ----------------------------------------------------------------------------------


def head_of(card: str) -> dict[str, Any]:
    _, head, _ = card.split("---\n", 2)
    loaded: dict[str, Any] = yaml.safe_load(head)
    return loaded


@pytest.mark.parametrize("name", ["fp32", "adapter"])
def test_the_card_says_what_the_facts_say(get: Callable[[str], Export], name: str) -> None:
    card = (get(name).folder / "README.md").read_text()
    head = head_of(card)
    assert head["base_model"] == "tiny-llama"
    assert (head["library_name"], head["base_model_relation"]) == {
        "fp32": ("transformers", "finetune"),
        "adapter": ("peft", "adapter"),
    }[name]
    assert head["license"] == "apache-2.0"
    for truth in TRUTHS:
        assert truth in card
    for fact in (
        "24 judged pairs",
        "ada (human): language: English",
        "> Short is good.\n> True is better.",
        "75% of 40 held-out pairs right [60%, 86%]",
        "+0.00 → +1.25",
        "difference +1.25 [+0.90, +1.60] on 50 prompts",
        "3.2 nats an answer",
        "60 → 40 tokens",
        "90% → 100%",
    ):
        assert fact in card, fact
    assert ("Merged against tuned model" in card) == (name == "fp32")


def test_the_card_of_an_adapter_says_how_the_base_was_stored() -> None:
    card = model_card(replace(FACTS, form="adapter", quantisation="nf4"))
    assert head_of(card)["library_name"] == "peft"
    assert head_of(card)["base_model_relation"] == "adapter"
    assert "quantised as nf4" in card
    assert 'from_pretrained("tiny-llama")' in card


def test_a_card_of_little_knowledge_claims_nothing() -> None:
    card = model_card(Facts("p", "b", "", "none", "merged", 0))
    assert "license" not in head_of(card)
    assert "measured" not in card
    assert "Unknown." in card
