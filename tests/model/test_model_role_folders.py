"""Roles on disk: what is saved comes back bit for bit, and whatever is amiss is named."""

from __future__ import annotations

import dataclasses
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from rlhf_tui.errors import UserError
from rlhf_tui.model import roles as module
from rlhf_tui.model.base import Base
from rlhf_tui.model.manifest import ADAPTER_FILE, HEAD_FILE, MANIFEST
from rlhf_tui.model.roles import Role, Roles
from rlhf_tui.settings import AdapterSettings

FreshBase = Callable[[], Base]
MakeRoles = Callable[..., Roles]
Observe = Callable[[Roles], dict[str, Tensor]]
Step = Callable[[Roles, Role], None]


SETTINGS = AdapterSettings(rank=4, alpha=8, layers=0)


@pytest.fixture
def trained(tiny_base: Base, make_roles: MakeRoles) -> Roles:
    return make_roles(tiny_base)


@pytest.fixture(scope="module")
def template(
    tiny_folder: Path, load: Callable[..., Base], make_roles: MakeRoles, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """A reward adapter on disk, made once."""
    folder = tmp_path_factory.mktemp("template") / "reward"
    make_roles(load(tiny_folder), "reward").save("reward", folder, {"pairs": 12})
    return folder


@pytest.fixture
def saved(template: Path, tmp_path: Path) -> Path:
    """A reward adapter on disk that a test may damage."""
    return Path(shutil.copytree(template, tmp_path / "adapters" / "reward"))


@pytest.fixture
def empty(tiny_base: Base) -> Roles:
    """No role yet, with the settings that the saved adapter was made with."""
    return Roles(tiny_base, SETTINGS, seed=0)


@pytest.mark.parametrize("layers", [0, 2])
def test_what_is_saved_comes_back_bit_for_bit_on_a_fresh_base(
    fresh_base: FreshBase, make_roles: MakeRoles, observe: Observe, step: Step, tmp_path: Path, layers: int
) -> None:
    roles = make_roles(fresh_base(), layers=layers)
    for role in roles.names:
        step(roles, role)  # type: ignore[arg-type]
        roles.save(role, tmp_path / role, {"of": role})  # type: ignore[arg-type]
    again = Roles(fresh_base(), roles._settings, seed=77)
    for role in ("value", "policy", "reward"):
        assert again.load(role, tmp_path / role) == {"of": role}  # type: ignore[arg-type]
        assert again.fingerprint(role) == roles.fingerprint(role)  # type: ignore[arg-type]
    before, after = observe(roles), observe(again)
    assert set(before) == set(after)
    assert all(torch.equal(before[name], after[name]) for name in before)


def test_restore_keeps_the_parameters_that_an_optimiser_holds(trained: Roles, tmp_path: Path, step: Step) -> None:
    saved = tmp_path / "reward"
    trained.save("reward", saved, {"pairs": 12})
    print_then = trained.fingerprint("reward")
    held = [id(parameter) for parameter in trained.parameters("reward")]
    step(trained, "reward")
    assert trained.fingerprint("reward") != print_then
    assert trained.restore("reward", saved) == {"pairs": 12}
    assert trained.fingerprint("reward") == print_then
    assert [id(parameter) for parameter in trained.parameters("reward")] == held
    with trained.learning("reward"):
        pass  # the enlisted optimiser still holds exactly these


def test_saving_again_replaces_the_folder_and_leaves_nothing_beside_it(trained: Roles, saved: Path, step: Step) -> None:
    (saved / "leftover.txt").write_text("old")
    step(trained, "reward")
    trained.save("reward", saved, {"pairs": 13})
    assert sorted(path.name for path in saved.parent.iterdir()) == ["reward"]
    assert not (saved / "leftover.txt").exists()
    assert module.read_manifest(saved, "reward")["facts"] == {"pairs": 13}


def test_an_interrupted_save_leaves_the_former_adapter(
    trained: Roles, saved: Path, step: Step, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = {path.name: path.read_bytes() for path in saved.iterdir()}
    step(trained, "reward")

    def full(*args: object, **kwargs: object) -> None:
        raise OSError("No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(module, "write_manifest", full)
        with pytest.raises(OSError, match="No space"):
            trained.save("reward", saved, {})
    assert {path.name: path.read_bytes() for path in saved.iterdir()} == before
    trained.restore("reward", saved)
    trained.save("reward", saved, {})  # and the remains are no obstacle


def test_saving_twice_gives_the_same_bytes(trained: Roles, tmp_path: Path) -> None:
    contents = []
    for name in ("one", "two"):
        trained.save("reward", tmp_path / name, {})
        contents.append({path.name: path.read_bytes() for path in (tmp_path / name).iterdir()})
    assert contents[0] == contents[1]


def test_the_policy_has_no_head_file(trained: Roles, tmp_path: Path) -> None:
    trained.save("policy", tmp_path / "policy", {})
    assert not (tmp_path / "policy" / HEAD_FILE).exists()


def test_nothing_in_the_folder_names_a_path_of_this_machine(saved: Path, tiny_folder: Path) -> None:
    for path in saved.iterdir():
        assert str(tiny_folder.parent).encode() not in path.read_bytes()
    assert json.loads((saved / "adapter_config.json").read_text())["base_model_name_or_path"] == "tiny-llama"


# -- what is amiss is named --------------------------------------------------------------------


def changed(base: Base, **changes: int) -> Roles:
    return Roles(base, SETTINGS.model_copy(update=changes), seed=0)


@pytest.mark.parametrize("name", [HEAD_FILE, ADAPTER_FILE])
def test_a_missing_file_is_named(empty: Roles, saved: Path, name: str) -> None:
    (saved / name).unlink()
    with pytest.raises(UserError, match=name) as caught:
        empty.load("reward", saved)
    assert "missing" in caught.value.what
    assert empty.names == ()


@pytest.mark.parametrize("name", [HEAD_FILE, ADAPTER_FILE, "adapter_config.json"])
def test_one_damaged_byte_is_noticed_and_the_file_named(empty: Roles, saved: Path, name: str) -> None:
    content = bytearray((saved / name).read_bytes())
    content[-3] ^= 1
    (saved / name).write_bytes(bytes(content))
    with pytest.raises(UserError, match=name) as caught:
        empty.load("reward", saved)
    assert "damaged" in caught.value.what
    empty.add("reward")
    before = empty.fingerprint("reward")
    with pytest.raises(UserError, match=name):
        empty.restore("reward", saved)
    assert empty.fingerprint("reward") == before


def test_a_head_that_the_manifest_does_not_know_is_not_trusted(empty: Roles, saved: Path) -> None:
    manifest = json.loads((saved / MANIFEST).read_text())
    del manifest["files"][HEAD_FILE]
    (saved / MANIFEST).write_text(json.dumps(manifest))
    with pytest.raises(UserError, match=HEAD_FILE):
        empty.load("reward", saved)


def test_an_adapter_of_the_policy_does_not_pass_for_a_reward_model(
    empty: Roles, trained: Roles, tmp_path: Path
) -> None:
    trained.save("policy", tmp_path / "policy", {})
    with pytest.raises(UserError):
        empty.load("reward", tmp_path / "policy")


@pytest.mark.parametrize(("wanted", "given_"), [("reward", "value"), ("policy", "reward")])
def test_a_folder_of_another_role_is_refused(
    empty: Roles, trained: Roles, tmp_path: Path, wanted: Role, given_: Role
) -> None:
    trained.save(given_, tmp_path / given_, {})
    with pytest.raises(UserError, match=given_):
        empty.load(wanted, tmp_path / given_)


def test_no_folder_says_which_command_makes_it(empty: Roles, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no reward adapter") as caught:
        empty.load("reward", tmp_path / "nothing")
    assert "rlhf-tui train reward" in caught.value.todo
    with pytest.raises(UserError, match="no policy adapter") as caught:
        empty.load("policy", tmp_path / "nothing")
    assert "rlhf-tui train ppo" in caught.value.todo


@pytest.mark.parametrize("content", ["{", "", "[]", '"text"', "{}", '{"files": {}}', '{"files": [], "layout": 3}'])
def test_a_damaged_manifest_is_named(empty: Roles, saved: Path, content: str) -> None:
    (saved / MANIFEST).write_text(content)
    with pytest.raises(UserError) as caught:
        empty.load("reward", saved)
    assert str(saved) in str(caught.value)


@pytest.mark.parametrize(("setting", "value"), [("rank", 8), ("alpha", 16), ("layers", 2)])
def test_another_setting_is_named_with_both_values(tiny_base: Base, saved: Path, setting: str, value: int) -> None:
    roles = changed(tiny_base, **{setting: value})
    with pytest.raises(UserError, match=setting) as caught:
        roles.load("reward", saved)
    then = {"rank": 4, "alpha": 8, "layers": 4}[setting]
    assert f"{setting} = {then}" in caught.value.what
    assert str(value) in caught.value.what
    assert roles.names == ()


def test_layers_0_and_all_layers_by_number_are_the_same(tiny_base: Base, saved: Path) -> None:
    assert changed(tiny_base, layers=4).load("reward", saved) == {"pairs": 12}


def test_another_base_is_named(tiny_base: Base, saved: Path) -> None:
    location = tiny_base.location
    other = dataclasses.replace(tiny_base, location=dataclasses.replace(location, published_name="other-llama"))
    with pytest.raises(UserError, match=r"base = 'tiny-llama'.*'other-llama'"):
        Roles(other, SETTINGS, seed=0).load("reward", saved)


def test_another_quantisation_is_named(tiny_base: Base, saved: Path) -> None:
    other = dataclasses.replace(tiny_base, quantisation="nf4")
    with pytest.raises(UserError, match="quantisation"):
        Roles(other, SETTINGS, seed=0).load("reward", saved)


@pytest.mark.parametrize("amiss", ["missing", "unknown", "shape"])
def test_tensors_that_do_not_fit_are_refused_even_with_right_hashes(empty: Roles, saved: Path, amiss: str) -> None:
    state = load_file(saved / ADAPTER_FILE)
    name = sorted(state)[0]
    if amiss == "missing":
        del state[name]
    elif amiss == "unknown":
        state[name.replace("layers.0", "layers.9")] = state[name].clone()
    else:
        state[name] = torch.cat([state[name], state[name]])
    save_file(state, saved / ADAPTER_FILE)
    manifest = json.loads((saved / MANIFEST).read_text())
    (saved / MANIFEST).unlink()
    module.write_manifest(saved, "reward", manifest["layout"], manifest["facts"])
    with pytest.raises(UserError, match="does not fit"):
        empty.load("reward", saved)
