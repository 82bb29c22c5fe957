"""`mlxtune data inspect`: what is between « and » is what is trained on, with and without colour, and on a page."""

import json
import stat

import pytest
from rich.console import Console
from tiny import tiny_model_folder, tiny_tokenizer

from mlxtune.cli.data_inspect import Seen, draw
from mlxtune.data.inspect import Inspection, Sharing, Side, Token
from mlxtune.data.inspection.neighbours import Window
from mlxtune.data.render import Renderer
from mlxtune.data.source import Source


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("recipe")
    tiny_model_folder(folder / "model")
    return folder


@pytest.fixture(scope="module")
def recipe(folder):
    rows = [{"prompt": f"Say {word}", "completion": word} for word in ("one", "two", "«three»")]
    (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (folder / "valid.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows[:2]))
    path = folder / "recipe.yaml"
    path.write_text("name: tiny\nmodel: {source: ./model}\ndata: {train: rows.jsonl, valid: valid.jsonl}\n")
    return path


def between(text, marks="«»"):
    """What stands between the signs."""
    return [piece.partition(marks[1])[0] for piece in text.split(marks[0])[1:]]


@pytest.mark.parametrize(("row", "targets"), [(1, "one<|im_end|>"), (2, "two<|im_end|>")])
def test_what_is_between_the_signs_is_what_is_trained_on(run, recipe, row, targets):
    code, out, _ = run("data", "inspect", recipe, "--row", row)
    said = json.loads(run("data", "inspect", recipe, "--row", row, "--json")[1])
    text, told = out.split("\n", 2)[2].rsplit("tokens are trained on", 1)
    assert code == 0
    assert f"train row {row} of 3" in out
    assert between(text) == [targets]
    assert "".join(p for p, is_target in zip(said["pieces"], said["is_target"], strict=True) if is_target) == targets
    assert told.splitlines()[0].endswith("those between « and », in green")
    assert f"{len('one') + 1} of {said['tokens']}" in out


def test_other_signs_are_taken_where_the_text_has_those(run, recipe):
    _, out, _ = run("data", "inspect", recipe, "--row", 3)
    assert between(out, "⟪⟫")[0] == "«three»<|im_end|>"
    assert "those between ⟪ and ⟫" in out


def test_the_shared_beginning_ends_where_the_rows_differ(run, recipe):
    _, out, _ = run("data", "inspect", recipe)
    said = json.loads(run("data", "inspect", recipe, "--json")[1])
    shared = "".join(said["pieces"][: said["shared_tokens"]])
    assert shared.endswith("user\nSay ")
    assert f"{shared}¦one<|im_end|>" in out
    assert said["shared_with"] == {"rows": 3, "of": "its batch in the first epoch"}
    assert f"the first {said['shared_tokens']} tokens are shared with the 2 other rows of its batch" in out
    said = json.loads(run("data", "inspect", recipe, "--split", "valid", "--json")[1])
    assert said["shared_with"]["of"] == "its batch when the loss is measured"


def test_where_rows_are_weighed_the_batch_is_not_said_to_be_that_of_training(run, recipe):
    rows = recipe.parent / "rows.jsonl"
    _, out, _ = run("data", "inspect", recipe, f"data.train=[{{path: {rows}, weight: 2}}]", "--json")
    assert json.loads(out)["shared_with"]["of"].startswith("a batch made of the 3 rows around it")
    _, out, _ = run("data", "inspect", recipe, f"data.train=[{{path: {rows}, weight: 1}}]", "--json")
    assert json.loads(out)["shared_with"]["of"] == "its batch in the first epoch"


def test_boundaries_and_ids_are_shown_on_demand(run, recipe):
    _, plain, _ = run("data", "inspect", recipe)
    assert "│" not in plain
    _, out, _ = run("data", "inspect", recipe, "--boundaries")
    assert "«o│n│e│<|im_end|>»" in out
    _, out, _ = run("data", "inspect", recipe, "--ids")
    said = json.loads(run("data", "inspect", recipe, "--json")[1])
    rows = [line.split() for line in out.splitlines()]
    for position, (identity, piece) in enumerate(zip(said["token_ids"], said["pieces"], strict=True)):
        shown = piece.replace("\n", "\\n")
        assert any(
            row[:2] == [str(position), str(identity)] and f"'{shown}'" in " ".join(row) for row in rows if row
        ) or (piece == " ")
    assert any(row[-1:] == ["special"] and "'<|im_end|>'" in row for row in rows)


def test_what_is_cut_is_shown_between_lines(run, recipe):
    whole = json.loads(run("data", "inspect", recipe, "--json")[1])
    limit = whole["tokens"] - 5
    settings = [f"data.max_seq_length={limit}", "data.overflow=truncate_left"]
    _, out, _ = run("data", "inspect", recipe, *settings)
    cut = "".join(whole["pieces"][:5])
    assert "──── 5 tokens are cut from here (data.overflow: truncate_left) ────\n" + cut in out
    assert cut + "\n──── what is cut ends here ────\n" in out
    said = json.loads(run("data", "inspect", recipe, *settings, "--json")[1])
    assert said["pieces"] == whole["pieces"]
    assert said["is_cut"] == [True] * 5 + [False] * limit
    assert said["cut_tokens"] == 5
    _, out, _ = run("data", "inspect", recipe, f"data.max_seq_length={limit}")
    assert f"──── {limit} tokens, data.max_seq_length, end here ────" in out
    assert "the row is refused (data.overflow: error)" in out


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["--row", "4"], 2, "--row goes from 1 to 3"),
        (["--split", "test"], 2, "the recipe has no data.test"),
        (["--row", "0"], 2, "0 is not in the range"),
        (["data.nothing=1"], 2, "nothing is not a key"),
        (["--html", "page.html", "--count", "501"], 2, "not in the range"),
        (["--count", "5"], 2, "--count and --force are of a page"),
        (["--force"], 2, "--count and --force are of a page"),
    ],
)
def test_what_the_recipe_does_not_have_is_refused(run, recipe, arguments, code, said):
    found, out, err = run("data", "inspect", recipe, *arguments)
    assert (found, out) == (code, "")
    assert said in err


def test_only_the_files_of_the_split_that_is_shown_need_be_there(run, recipe):
    missing = f"data.valid={recipe.parent / 'nothing.jsonl'}"
    code, out, _ = run("data", "inspect", recipe, missing)
    assert code == 0
    assert between(out)[0] == "one<|im_end|>"
    code, out, err = run("data", "inspect", recipe, missing, "--split", "valid")
    assert (code, out) == (2, "")
    assert "data.valid is not there" in err


def test_a_file_of_rows_can_be_looked_at_without_a_recipe(run, recipe):
    code, out, _ = run("data", "inspect", recipe.parent / "rows.jsonl", f"model.source={recipe.parent / 'model'}")
    assert code == 0
    assert between(out) == ["one<|im_end|>", " and "]


def test_a_page_is_written_whole_for_its_owner_and_not_over_another_without_leave(run, recipe, tmp_path):
    page = tmp_path / "new" / "page.html"
    code, out, _ = run("data", "inspect", recipe, "--html", page, "--row", 2, "--json")
    assert code == 0
    assert json.loads(out) == {"page": str(page), "split": "train", "row": 2, "rows": 2, "bytes": page.stat().st_size}
    assert stat.S_IMODE(page.stat().st_mode) == 0o600
    text = page.read_text(encoding="utf-8")
    assert [f"train row {row} of 3</option>" in text for row in (1, 2, 3)] == [False, True, True]
    code, out, err = run("data", "inspect", recipe, "--html", page)
    assert (code, out) == (2, "")
    assert "--force" in err
    code, out, _ = run("data", "inspect", recipe, "--html", page, "--force", "--count", 1)
    assert code == 0
    assert out == f"{page}: 1 row from row 1 on\n"
    assert list(page.parent.iterdir()) == [page]


@pytest.mark.parametrize("name", ["rows.jsonl", "recipe.yaml"])
def test_a_page_never_takes_the_place_of_what_it_is_made_from(run, recipe, name):
    before = (recipe.parent / name).read_bytes()
    code, out, err = run("data", "inspect", recipe, "--html", recipe.parent / name, "--force")
    assert (code, out) == (2, "")
    assert "is there, and is not replaced" in err
    assert (recipe.parent / name).read_bytes() == before


def test_a_bad_row_is_told_alone_and_stands_in_the_page_among_good_ones(run, recipe, tmp_path):
    rows = tmp_path / "rows.jsonl"
    rows.write_text('{"prompt": "a", "completion": "b"}\n{"prompt": "a", "completion": 5}\nnot JSON\n')
    settings = [f"data.train={rows}"]
    assert run("data", "inspect", recipe, *settings)[0] == 0
    for row, said in ((2, "'completion'"), (3, "JSON")):
        code, out, err = run("data", "inspect", recipe, *settings, "--row", row)
        assert (code, out) == (1, "")
        assert said in err
        assert f"{rows}:{row}" in err
    assert run("data", "inspect", recipe, *settings, "--html", tmp_path / "page.html")[0] == 0
    text = (tmp_path / "page.html").read_text(encoding="utf-8")
    assert text.count("This row cannot be trained on: ") == 2


def test_a_terminal_shows_kinds_in_colour(tmp_path):
    def token(position, text, **kinds):
        settings = dict.fromkeys(("is_target", "is_special", "is_shared", "is_cut"), False) | kinds
        return Token(position, position, text, weight=float(settings["is_target"]) / 2, **settings)

    tokens = (
        token(0, "<s>", is_special=True, is_shared=True),
        token(1, "b"),
        token(2, "a", is_target=True),
        token(3, "</s>", is_target=True, is_special=True),
        token(4, "c", is_cut=True),
    )
    sharing = Sharing(1, 2, "its batch in the first epoch")
    inspection = Inspection("f:1", "chat", (Side("", tokens, 5, 2, 1),), sharing)
    renderer = Renderer(tiny_tokenizer(tmp_path))
    seen = Seen(None, "train", 1, Window((), (), (), 1, 1), renderer, Source(()), "chat", "", {})
    console = Console(force_terminal=True, width=80, color_system="standard", markup=False, highlight=False)
    with console.capture() as drawn:
        console.print(draw(inspection, seen))
    reset = "\x1b[0m"
    line = drawn.get().split("\n")[2]
    assert line == (
        f"\x1b[7;36m<s>{reset}\x1b[36m¦{reset}\x1b[2mb{reset}\x1b[32m«\u00d70.5 {reset}\x1b[1;32ma{reset}"
        f"\x1b[1;7;32m</s>{reset}\x1b[32m»{reset}\x1b[2;9;31mc{reset}"
    )
    assert "«\u00d70.5 means that what follows counts half in the loss" in drawn.get()
