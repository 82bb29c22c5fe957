"""A tiny network asked by lm-evaluation-harness through our bridge, and through its own model for transformers."""

import json

import pytest
from tiny import SPECIAL, tiny_backend, tiny_model_folder
from tokenizers import processors

from mlxtune.device.precision import CPU_FLOAT32
from mlxtune.evaluation.lm_eval.answers import (
    answers_until,
    chat_text,
    loglikelihoods,
    make_answers,
    rolling_loglikelihoods,
)
from mlxtune.evaluation.lm_eval.harness import Asked, Harness
from mlxtune.models.load import open_model

pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("default"),  # those of torch, datasets and the harness are not ours
]

CHOICES = """
task: tiny_choices
dataset_path: json
dataset_kwargs: {{data_files: {{train: {rows}, test: {rows}}}}}
training_split: train
test_split: test
output_type: multiple_choice
doc_to_text: "Question: {{{{question}}}}\\nAnswer:"
doc_to_choice: "{{{{choices}}}}"
doc_to_target: "{{{{answer}}}}"
metric_list: [{{metric: acc}}, {{metric: acc_norm}}]
metadata: {{version: 1.0}}
"""
ANSWERS = """
task: tiny_answers
dataset_path: json
dataset_kwargs: {{data_files: {{train: {rows}, test: {rows}}}}}
training_split: train
test_split: test
output_type: generate_until
doc_to_text: "Question: {{{{question}}}}\\nAnswer:"
doc_to_target: " {{{{choices[answer]}}}}"
generation_kwargs: {{until: ["e"], max_gen_toks: 12}}
metric_list: [{{metric: exact_match}}, {{metric: chrf}}]
metadata: {{version: 1.0}}
"""
TEXT = """
task: tiny_text
dataset_path: json
dataset_kwargs: {{data_files: {{test: {rows}}}}}
test_split: test
output_type: loglikelihood_rolling
doc_to_text: ""
doc_to_target: "{{{{question}}}}"
metric_list: [{{metric: word_perplexity}}, {{metric: bits_per_byte}}]
metadata: {{version: 1.0}}
"""
TASKS = ("tiny_choices", "tiny_answers", "tiny_text")
WORDS = ("red", "far away", "small", "café", "1999", "no")


@pytest.fixture(scope="module")
def hf():
    pytest.importorskip("torch", reason="torch is not installed: make conformance installs it")
    pytest.importorskip("lm_eval", reason="lm-eval is not installed: make conformance installs it")
    return pytest.importorskip("lm_eval.models.huggingface", reason="its needs: make conformance installs them")


@pytest.fixture(scope="module", params=["without BOS", "with BOS"])
def models(request, hf, tmp_path_factory):
    """Our answers and the harness's own model, of the same folder, which takes 96 tokens."""
    folder = tiny_model_folder(tmp_path_factory.mktemp("model"), seed=3)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"max_position_embeddings": 96}))
    if request.param == "with BOS":
        backend = tiny_backend()
        backend.post_processor = processors.TemplateProcessing(
            single=f"{SPECIAL[1]} $A", special_tokens=[(SPECIAL[1], 1)]
        )
        backend.save(str(folder / "tokenizer.json"))
    theirs = hf.HFLM(pretrained=str(folder), device="cpu", dtype="float32", batch_size=4)
    return make_answers(open_model(folder, CPU_FLOAT32)), theirs


@pytest.fixture(scope="module")
def tasks(tmp_path_factory):
    """A folder of three tasks on rows of our own."""
    folder = tmp_path_factory.mktemp("tasks")
    rows = [
        {
            "question": " ".join(WORDS[(i + j) % 6] for j in range(1 + i % 4)) + "?",
            "choices": [WORDS[i % 6], WORDS[(i + 2) % 6], f"{WORDS[i % 6]} it is"],
            "answer": i % 3,
        }
        for i in range(12)
    ]
    path = folder / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    for name, text in zip(TASKS, (CHOICES, ANSWERS, TEXT), strict=True):
        (folder / f"{name}.yaml").write_text(text.format(rows=path))
    return folder


def instances(kind, *arguments):
    from lm_eval.api.instance import Instance

    return [Instance(kind, {}, one, i) for i, one in enumerate(arguments)]


PAIRS = [
    ("The sky is", " blue"),
    ("The sky is", " green"),
    ("The sky is ", "blue and wide"),
    ("The sky is\n\n", "A"),
    ("The sky is\n\n", "B"),
    ("", "no context at all"),
    ("", "<|im_start|>begins with it"),
    ("<|im_start|>user\nwell?<|im_end|>\n", "yes"),
    ("x", "y"),
    ("long " * 40, "end of it"),
    ("naïve 日本", "語 é"),
]


def test_likelihoods_of_continuations_are_the_same(models):
    ours, theirs = models
    expected = theirs.loglikelihood(instances("loglikelihood", *PAIRS), disable_tqdm=True)
    found = loglikelihoods(ours, PAIRS)
    assert [one[0] for one in found] == pytest.approx([one[0] for one in expected], rel=1e-5)
    assert [one[1] for one in found] == [one[1] for one in expected]
    begun = [(context, {"until": [], "max_gen_toks": 2}) for context in "abcdefghijklmnopqrstuvwxyz"]
    texts = theirs.generate_until(instances("generate_until", *begun), disable_tqdm=True)
    likely = [(context, text) for (context, _), text in zip(begun, texts, strict=True) if text and text.isascii()]
    assert all(is_greedy for _, is_greedy in loglikelihoods(ours, likely))
    assert likely


def test_likelihoods_of_whole_texts_are_the_same_in_one_window_and_in_several(models):
    ours, theirs = models
    texts = ["one", "a text that fits", "a text that is longer than the model takes at once. " * 6, ""]
    expected = theirs.loglikelihood_rolling(instances("loglikelihood_rolling", *((text,) for text in texts)))
    assert rolling_loglikelihoods(ours, texts) == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize(
    "settings",
    [
        {"until": [], "max_gen_toks": 20},
        {"until": ["a", "Q"], "max_gen_toks": 20, "do_sample": False},
        {"until": "e", "max_tokens": 9, "temperature": 0.0, "top_p": 0.9},
        {"until": ["é ", "<|im_end|>"], "max_new_tokens": 64},
    ],
    ids=str,
)
def test_answers_are_the_same(models, settings):
    ours, theirs = models
    turn = "<|im_start|>user\nwell?<|im_end|>\n<|im_start|>assistant\n"
    for contexts in (["The sky is", "x", "long " * 24], [turn, turn.replace("well", "how is that")]):
        expected = theirs.generate_until(
            instances("generate_until", *((context, dict(settings)) for context in contexts)), disable_tqdm=True
        )
        assert answers_until(ours, [(context, settings) for context in contexts]) == expected


@pytest.mark.parametrize("begun", [False, True])
def test_conversations_become_the_same_text(models, begun):
    ours, theirs = models
    turns = [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "Well?"},
        *([{"role": "assistant", "content": "It is "}] if begun else []),
    ]
    expected = theirs.apply_chat_template(turns, add_generation_prompt=not begun)
    assert chat_text(ours, turns, add_generation_prompt=not begun) == expected


@pytest.mark.parametrize("chat", [False, True])
def test_tasks_have_the_same_figures(models, tasks, chat):
    from lm_eval.evaluator import simple_evaluate
    from lm_eval.tasks import TaskManager

    ours, theirs = models
    shots = 0 if chat else 1
    expected = simple_evaluate(
        model=theirs,
        tasks=list(TASKS[:2] if chat else TASKS),
        task_manager=TaskManager(include_path=str(tasks), include_defaults=False),
        num_fewshot=shots,
        apply_chat_template=chat,
        fewshot_as_multiturn=chat,
        bootstrap_iters=1000,
    )
    asked = Asked(TASKS[:2] if chat else TASKS, shots=shots, chat=chat, include=tasks)
    found = Harness(asked).ask(ours)
    for task, figures in found.items():
        theirs_here = expected["results"][task]
        assert figures.rows == theirs_here["sample_len"] == 12
        assert figures.shots == shots
        for metric, figure in figures.figures.items():
            assert figure.value == pytest.approx(theirs_here[f"{metric},none"], rel=1e-5)
            stderr = theirs_here[f"{metric}_stderr,none"]
            assert figure.stderr == (pytest.approx(stderr, rel=1e-5) if isinstance(stderr, float) else None)
    assert {metric for one in found.values() for metric in one.figures} >= {"acc", "acc_norm", "exact_match", "chrf"}
