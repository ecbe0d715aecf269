"""A bit that flips in a file which stays valid, and a file that is cut: found by the digests of its folder."""

import json
import shutil

import pytest
from datasets import load_from_disk
from test_faults import home, one_sentence, profile, trained  # noqa: F401 (fixtures)
from test_models_of_your_own import refusal

from sftrl_lib import paths, provenance
from sftrl_lib.configs import LoRAConfig
from sftrl_lib.evaluation.training_curves import training_log
from sftrl_lib.files import SEAL, BrokenSeal, check_seal, replace_folder, seal
from sftrl_lib.foundation.pretrain import read_record
from sftrl_lib.models.checkpoint import CheckpointError, load_state, save_state
from sftrl_lib.models.policy import load_policy
from sftrl_lib.provenance import ProvenanceError
from sftrl_lib.runs import Run
from sftrl_lib.tables import TableError
from sftrl_lib.training import fork, sft
from sftrl_lib.training.data import DatasetError, read_dataset
from sftrl_lib.training.snapshots import snapshots


def flip(file, place=0.5):
    """Flip the lowest bit of one byte: a digit or letter becomes another, a weight another number."""
    content = bytearray(file.read_bytes())
    content[int(place * len(content))] ^= 1
    file.write_bytes(bytes(content))


@pytest.fixture
def sealed(tmp_path):
    """A folder of two files that was put in its place."""
    (tmp_path / "fresh").mkdir()
    for name in ("a", "b"):
        (tmp_path / "fresh" / name).write_text(f"{name} = 1", encoding="utf-8")
    replace_folder(tmp_path / "fresh", tmp_path / "folder")
    return tmp_path / "folder"


def broken(folder, *names):
    with pytest.raises(BrokenSeal) as error:
        check_seal(folder, *names)
    return error.value.path.name


def test_every_byte_counts(sealed):
    check_seal(sealed)
    for name in ("a", "b"):
        whole = (sealed / name).read_bytes()
        for place in range(len(whole)):
            flip(sealed / name, place / len(whole))
            assert broken(sealed) == name
            (sealed / name).write_bytes(whole)
        (sealed / name).write_bytes(whole[:-1])
        assert broken(sealed) == name
        (sealed / name).unlink()
        assert broken(sealed) == name
        (sealed / name).write_bytes(whole)
    check_seal(sealed)


def test_files_in_folders_count_where_they_are_meant_to(tmp_path):
    """Those of a checkpoint in shards, for instance."""
    (tmp_path / "fresh" / "shards").mkdir(parents=True)
    (tmp_path / "fresh" / "shards" / "0").write_text("weights")
    replace_folder(tmp_path / "fresh", tmp_path / "folder", deep=True)
    check_seal(tmp_path / "folder")
    flip(tmp_path / "folder" / "shards" / "0")
    assert broken(tmp_path / "folder") == "0"
    (tmp_path / "folder" / SEAL).write_text(json.dumps({"../fresh": "0" * 64}))
    assert broken(tmp_path / "folder") == SEAL


def test_what_came_later_and_what_has_no_seal_is_taken_as_it_is(sealed):
    (sealed / "c").touch()
    check_seal(sealed)
    flip(sealed / "a")
    check_seal(sealed, "b", "c")
    assert broken(sealed, "a", "b") == "a"
    (sealed / SEAL).unlink()
    check_seal(sealed)
    check_seal(sealed / "nowhere")


def test_a_change_on_purpose_can_be_sealed_again(sealed):
    (sealed / "a").write_text("a = 2", encoding="utf-8")
    (sealed / ".a.x1y2z3").write_text("what a kill left of writing a", encoding="utf-8")
    seal(sealed)
    check_seal(sealed)
    assert json.loads((sealed / SEAL).read_text(encoding="utf-8")).keys() == {"a", "b"}


@pytest.mark.parametrize("content", [b"", b"{", b"[1]", b"null", b"\xff", b"[" * 100_000, b'{"a": "0"}', b'{"a": 1}'])
def test_a_damaged_seal_is_a_broken_one(sealed, content):
    (sealed / SEAL).write_bytes(content)
    assert broken(sealed) in (SEAL, "a")


@pytest.mark.parametrize("name", ["../a", "/etc/passwd", "folder/a", "..", "", "\n/\ud800"])
def test_a_seal_leads_to_no_other_folder(sealed, name):
    """It may have come with a model from anywhere."""
    (sealed / SEAL).write_text(json.dumps({name: "0"}), encoding="utf-8")
    with pytest.raises(BrokenSeal):
        check_seal(sealed)


def test_the_shipped_models_are_as_they_were_sealed():
    for folder in paths.SHIPPED.iterdir():
        sealed = json.loads((folder / SEAL).read_text(encoding="utf-8"))
        assert sealed.keys() == {path.name for path in folder.iterdir()} - {SEAL}
        check_seal(folder)


@pytest.mark.parametrize("name", ["config.json", "model.safetensors", "tokenizer.json", "chat_template.jinja"])
def test_a_flipped_bit_in_a_shipped_model_is_named(name, tmp_path):
    folder = shutil.copytree(paths.SHIPPED / "gp-l", tmp_path / "gp-l")
    flip(folder / name, 0.9)
    message = refusal(folder)
    assert message.startswith(f"{folder / name} is damaged (") and "if you changed it, delete digests.json" in message
    (folder / SEAL).unlink()
    shutil.copy(paths.SHIPPED / "gp-l" / name, folder)
    load_policy(folder)
    shutil.copy(paths.SHIPPED / "gp-l" / SEAL, folder)
    flip(folder / "record.json")
    with pytest.raises(CheckpointError, match="no readable record.*record.json is not as digests.json lists it"):
        read_record(str(folder))


def test_a_flipped_bit_below_adapters_is_named(tiny_folder, tmp_path):
    base = shutil.copytree(tiny_folder, tmp_path / "base")
    load_policy(base, lora=LoRAConfig(rank=2)).save(tmp_path / "adapted")
    seal(base)
    seal(tmp_path / "adapted")
    load_policy(tmp_path / "adapted")
    for file in (base / "model.safetensors", tmp_path / "adapted" / "adapter_model.safetensors"):
        flip(file, 0.9)
        assert refusal(tmp_path / "adapted").startswith(f"{file} is damaged (")
        flip(file, 0.9)


@pytest.mark.parametrize("place", [0.5, 0.95])
def test_a_flipped_bit_in_any_file_of_a_snapshot_is_named(place, profile, home):  # noqa: F811
    run = Run(profile, "gp-l", "rl")
    *_, end = fork.train(run)
    files = sorted(path for path in end.folder.iterdir() if path.stat().st_size > 1)
    assert {"model.safetensors", "value_head.safetensors", "tokenizer.json", "compute.json"} < {f.name for f in files}
    for file in files:
        flip(file, place)
        with pytest.raises(CheckpointError) as error:
            load_policy(snapshots(run.folder)[-1].folder)
        message = one_sentence(error)
        assert str(run.folder) in message and "run the step that makes it again" in message
        assert file.name in message or file.name == SEAL
        flip(file, place)
    load_policy(snapshots(run.folder)[-1].folder)


@pytest.mark.parametrize("damage", ["flip", "cut"])
def test_a_damaged_dataset_is_named(damage, profile, home):  # noqa: F811
    [folder] = paths.data("tiny").glob("gp-l-expert/dataset")
    [arrow] = folder.glob("*.arrow")
    content = arrow.read_bytes()
    if damage == "flip":
        place = content.rindex(b"formula")
        arrow.write_bytes(content[:place] + b"g" + content[place + 1 :])
    else:  # as a dataset of half the rows would be written
        (folder / "x").mkdir()
        load_from_disk(str(folder)).select(range(32)).save_to_disk(folder / "x")
        shutil.copy(next((folder / "x").glob("*.arrow")), arrow)
    assert len(load_from_disk(str(folder)))  # the library does not notice
    with pytest.raises(DatasetError) as error:
        read_dataset(folder)
    assert str(folder) in one_sentence(error) and arrow.name in str(error.value)
    assert "remove it and make it again" in str(error.value)


def test_nothing_is_kept_beside_a_dataset_that_would_be_used_again_unchecked(profile, home):  # noqa: F811
    """Such as the tokens that a trainer makes of it."""
    [folder] = paths.data("tiny").glob("gp-l-expert/dataset")
    assert {path.name for path in folder.iterdir()} == {*json.loads((folder / SEAL).read_text(encoding="utf-8")), SEAL}


def test_a_flipped_bit_in_a_trainers_checkpoint_falls_back_to_the_one_before(profile, home, capsys):  # noqa: F811
    """In any of its files; and the training is the same."""
    run = Run(profile, "gp-l", "init")
    training, weights = run.folder / "training", run.folder / "step-00000" / "model.safetensors"
    newest, expected = training / "checkpoint-5", weights.read_bytes()
    kept = shutil.copytree(newest, home / "kept")
    for file in sorted(path for path in kept.iterdir() if path.name != SEAL):
        flip(newest / file.name)
        assert sft.last_complete(training) == training / "checkpoint-4"
        assert f"{newest} is not whole ({file.name}" in capsys.readouterr().out
        shutil.copytree(kept, newest)
    flip(newest / "model.safetensors")
    (run.folder / "finished").unlink()
    shutil.rmtree(weights.parent)
    fork.train(run)
    assert weights.read_bytes() == expected


def test_a_flipped_bit_in_what_training_resumes_from_is_named(policy, tmp_path):
    state = {"model": policy.model, "value_head": policy.value_head}
    save_state(tmp_path / "training", state, {"update": 1}, {})
    for name in ("model.safetensors", "value_head.safetensors", "progress.json", SEAL):
        flip(tmp_path / "training" / name)
        with pytest.raises(CheckpointError, match=r"damaged \(.*digests.json.*\); remove it to start over\.$"):
            load_state(tmp_path / "training", state, {})
        flip(tmp_path / "training" / name)
    assert load_state(tmp_path / "training", state, {}) == {"update": 1}


def test_a_changed_number_in_a_training_log_is_named(profile, home):  # noqa: F811
    run = Run(profile, "gp-l", "init")
    log = run.folder / "log.json"
    content = log.read_text(encoding="utf-8")
    log.write_text(content.replace('"step": 5', '"step": 6'), encoding="utf-8")
    assert log.read_text(encoding="utf-8") != content and json.loads(log.read_text(encoding="utf-8"))
    readers = {TableError: lambda: training_log(run), ProvenanceError: lambda: provenance.merge_logs("tiny")}
    for kind, read in readers.items():
        with pytest.raises(kind) as error:
            read()
        assert "log.json is not as digests.json lists it" in one_sentence(error)
    log.write_text(content, encoding="utf-8")
    assert len(training_log(run))
