"""Our Modelfiles' templates in Go's own text/template, set up as Ollama sets it up: what our renderer makes of them."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from tiny import CHATML, tiny_tokenizer

from mlxtune.deployment.export.go_template import quoted, render
from mlxtune.deployment.export.ollama_template import CHATS, go_template

pytestmark = pytest.mark.slow

# The maps and the option are those of Execute and Parse in ollama's template/template.go.
PROGRAM = """
package main

import (
	"encoding/json"
	"os"
	"strings"
	"text/template"
)

type Message struct{ Role, Content string }

type Case struct {
	Template, System string
	Messages         []*Message
}

func main() {
	var cases []Case
	if err := json.NewDecoder(os.Stdin).Decode(&cases); err != nil {
		panic(err)
	}
	rendered := []string{}
	for _, one := range cases {
		var text strings.Builder
		parsed := template.Must(template.New("").Option("missingkey=zero").Parse(one.Template))
		data := map[string]any{"System": one.System, "Messages": one.Messages, "Response": ""}
		if err := parsed.Execute(&text, data); err != nil {
			panic(err)
		}
		rendered = append(rendered, text.String())
	}
	json.NewEncoder(os.Stdout).Encode(rendered)
}
"""

SHARED = Path(__file__).resolve().parents[3] / "shared" / "data" / "chat_templates" / "templates.jsonl"
TEMPLATES = {
    "chatml": CHATML,
    "braces": "{% for m in messages %}{{ '{{ x }}\"' + m.role + m.content }}{% endfor %}{{ '{{' }}",
    "one brace": "{{ '{' }}{% for m in messages %}{{ m.role + '{' + m.content + '}' }}{% endfor %}{",
}
if SHARED.is_file():
    rows = [json.loads(line) for line in SHARED.read_text(encoding="utf-8").split("\n") if line]
    TEMPLATES |= {row["template"]: row["chat_template"] for row in rows}


@pytest.fixture(scope="module")
def go():
    beside = Path(sys.executable).with_name("go")
    found = str(beside) if beside.is_file() else shutil.which("go")
    return found or pytest.skip("Go is not installed: make conformance installs it")


def test_go_renders_as_we_do(tmp_path, go):
    cases = [{"Template": quoted('a {{ "b" }}\n\\ 日本'), "System": "", "Messages": []}]
    for name, template in TEMPLATES.items():
        (tmp_path / name).mkdir()
        text = go_template(tiny_tokenizer(tmp_path / name, chat_template=template), name, leaves_bos=False).text
        for system in ("", "Be brief."):
            for words in (*CHATS, CHATS[-1][:2]):  # and one whose last turn is an answer to go on with
                roles = ("user", "assistant")
                turns = [{"Role": roles[i % 2], "Content": word} for i, word in enumerate(words)]
                told = [{"Role": "system", "Content": system}] if system else []
                cases.append({"Template": text, "System": system, "Messages": told + turns})
    (tmp_path / "main.go").write_text(PROGRAM)
    settings = {"GOCACHE": str(tmp_path / "cache"), "GOPROXY": "off", "GOTOOLCHAIN": "local", "GOFLAGS": "-mod=mod"}

    ran = subprocess.run(
        [go, "run", "main.go"],
        input=json.dumps(cases).encode(),
        capture_output=True,
        check=False,
        cwd=tmp_path,
        env=os.environ | settings,
    )

    assert ran.returncode == 0, ran.stderr.decode()
    assert json.loads(ran.stdout) == [render(one["Template"], one) for one in cases]
