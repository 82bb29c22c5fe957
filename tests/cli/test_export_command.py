"""`mlxtune export`, from the command line."""

import json

from mlxtune.models.gguf.header import read_header


def test_a_run_becomes_a_gguf_file_and_the_system_message_is_told(run, tiny_run, tmp_path):
    code, out, err = run("export", "gguf", tiny_run, tmp_path / "x.gguf", "--type", "q8_0", "--device", "cpu")

    assert code == 0
    assert out.startswith(f"wrote {tmp_path / 'x.gguf'}: llama, q8_0, 0.")
    assert "note: training began every chat with this system message" in err
    assert "Secretly." in err
    assert read_header(tmp_path / "x.gguf").metadata["general.name"] == "run"


def test_the_report_is_one_line_of_json_and_the_adapter_may_go_alone(run, tiny_run, tmp_path):
    code, out, err = run("export", "gguf", tiny_run, tmp_path / "x.gguf", "--adapter-only", "--json", "--quiet")

    assert (code, err) == (0, "")
    report = json.loads(out)
    assert (report["out"], report["type"], report["adapted_layers"]) == (str(tmp_path / "x.gguf"), "f32", 14)
    assert report["system"] == "Secretly."
    assert read_header(tmp_path / "x.gguf").metadata["general.type"] == "adapter"


def test_a_file_that_is_there_stays_without_force(run, tiny_run, tmp_path):
    (tmp_path / "x.gguf").write_text("mine")

    code, _, err = run("export", "gguf", tiny_run, tmp_path / "x.gguf")

    assert code == 2
    assert "the output exists already" in err
    assert (tmp_path / "x.gguf").read_text() == "mine"
    assert run("export", "gguf", tiny_run, tmp_path / "x.gguf", "--force", "--quiet")[0] == 0


def test_ollamas_folder_says_what_to_do_next(run, tiny_run, tmp_path):
    code, out, _ = run("export", "ollama", tiny_run, tmp_path / "out", "--quiet")

    assert code == 0
    assert out.endswith(f"next: ollama create run -f {tmp_path / 'out' / 'Modelfile'}\n")
    assert 'SYSTEM """Secretly."""' in (tmp_path / "out" / "Modelfile").read_text()


def test_peft_and_lm_studio_get_their_folders(run, tiny_run, tmp_path):
    code, out, _ = run("export", "peft", tiny_run, tmp_path / "peft", "--quiet")
    assert code == 0
    assert "for PEFT and mlx-lm; its base model is" in out

    code, out, err = run("export", "lmstudio", tiny_run, "--models-dir", tmp_path / "lm", "--device", "cpu")
    assert code == 0
    assert out.startswith(f"wrote {tmp_path / 'lm' / 'mlxtune' / 'run'}, ")
    assert "no LM Studio has opened" in err
    assert "Secretly." in err


def test_a_loss_is_accepted_only_where_there_can_be_one(run, tiny_run, tmp_path):
    code, _, err = run("export", "gguf", tiny_run, tmp_path / "x.gguf", "--adapter-only", "--accept-loss")

    assert code == 2
    assert "--accept-loss" in err
    assert not (tmp_path / "x.gguf").exists()


def test_a_file_in_the_place_of_a_folder_is_one_sentence(run, tiny_run, tmp_path):
    (tmp_path / "file").touch()

    for out in (tmp_path / "file" / "x.gguf", tmp_path / "file" / "sub" / "x.gguf"):
        code, _, err = run("export", "gguf", tiny_run, out, "--quiet")
        assert code == 2
        assert "error: this is a file, and a folder is needed" in err
        assert f"at: {tmp_path / 'file'}\n" in err
