"""Our GGUF files in llama.cpp: it loads them, tokenizes as we do, and gives the same logits and answers."""

import io
import json
import unicodedata
from pathlib import Path

import mlx.core as mx
import numpy as np
import pytest
import sentencepiece
from mlx.utils import tree_flatten
from mlx_lm.models.cache import make_prompt_cache
from mlx_lm.utils import load_model
from reference.awkward import TEXTS
from reference.gguf_files import write_network
from reference.gguf_models import FAMILIES, SHAPE, TOKENIZER, random_network
from tokenizers import Tokenizer, models, pre_tokenizers, trainers

from mlxtune.adapters.attach import LoraShape, adapter_parameters, attach_lora, load_adapter_parameters
from mlxtune.adapters.format import save_adapter
from mlxtune.data.example import Message
from mlxtune.data.render import Renderer
from mlxtune.deployment.export.gguf import export_gguf
from mlxtune.deployment.export.lora_gguf import export_lora
from mlxtune.deployment.tuned import find_tuned
from mlxtune.device.precision import CPU_FLOAT32
from mlxtune.models.gguf.byte_level import PRE_TOKENIZERS, byte_level_tokenizer
from mlxtune.models.gguf.read import write_gguf_folder
from mlxtune.models.sentencepiece_tokenizer import read_sentencepiece, sentencepiece_tokenizer
from mlxtune.models.tokenizer import open_tokenizer

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("default")]

FLOAT32, FLOAT16 = 0, 1  # ggml's numbers of types
NEAR = {"f32": 1e-3, "f16": 1e-2}
"""Of logits, as a share of the largest: llama.cpp's CPU rounds activations to the type of the weights."""
IDS = np.random.default_rng(1).integers(3, 259, 24).tolist()
END = "<|end|>"
ANSWER_TOKENS = 24
NEAR_TIE = 0.1
"""How much less likely than our token, in logits, theirs may be where an answer parts: float16 turns a near tie."""

MESSAGES = [
    *(
        "Where is my parcel?",
        "The lamp flickers.",
        "Cancel order LK-10233 please.",
        "Hi!",
        "What is the capital of France?",
    ),
    *("I want my money back, today.", "How do I pair the speaker?", "Invoice wrong again!!!", "1 + 1?", "Danke schön"),
    *(
        "Somebody was at my door.",
        "The vacuum eats socks.",
        "Ring me back.",
        "Explain recursion.",
        "List three primes.",
    ),
    *(
        "No reply for a week.",
        "Thermostat shows 99 degrees",
        "Upgrade my account",
        "Order LK-48213: dead",
        "Thanks, all good.",
    ),
]


@pytest.fixture(scope="module")
def llama_cpp():
    return pytest.importorskip("llama_cpp", reason="llama-cpp-python is not installed: make conformance installs it")


def theirs(llama_cpp, path, *, lora=None, context=64):
    kinds = {"type_k": FLOAT32, "type_v": FLOAT32} if context == 64 else {}
    settings = {"n_ctx": context, "n_batch": context, "logits_all": True, "n_threads": 1, "swa_full": True}
    settings |= {"lora_path": None if lora is None else str(lora), "verbose": False}
    return llama_cpp.Llama(str(path), **settings, **kinds)


def logits_of(model, ids):
    model.reset()
    model.eval(ids)
    return np.array(model.scores[: len(ids)])


def family(folder, name):
    model_type, own = FAMILIES[name]
    config = SHAPE | {"model_type": model_type} | own
    write_network(folder / "reference.gguf", random_network(config), config, TOKENIZER)
    (folder / "model").mkdir()
    write_gguf_folder(folder / "reference.gguf", folder / "model")
    return folder / "model"


@pytest.mark.parametrize("kind", ["f32", "f16"])
@pytest.mark.parametrize("name", FAMILIES)
def test_a_family_has_our_logits(tmp_path, llama_cpp, record_property, name, kind):
    model = family(tmp_path, name)
    export_gguf(model, tmp_path / "x.gguf", type=kind)

    ours = np.array(load_model(model)[0](mx.array([IDS])))[0]
    apart = np.abs(logits_of(theirs(llama_cpp, tmp_path / "x.gguf"), IDS) - ours).max()

    record_property("largest difference", f"{apart:.2g} of {np.abs(ours).max():.3g}")
    assert apart <= NEAR[kind] * np.abs(ours).max()


@pytest.mark.parametrize("name", ["llama", "mistral", "qwen2", "qwen3", "gemma", "gemma2", "gemma3", "phi3"])
def test_a_family_with_the_adapter_beside_it_has_our_logits(tmp_path, llama_cpp, record_property, name):
    model = family(tmp_path, name)
    network, _ = load_model(model)
    before = np.array(network(mx.array([IDS])))[0]
    attach_lora(network, LoraShape(rank=4, alpha=12.0), seed=0)
    parameters = adapter_parameters(network)
    keys = mx.random.split(mx.random.key(1), len(parameters))
    drawn = [0.1 * mx.random.normal(one.shape, key=key) for one, key in zip(parameters.values(), keys, strict=True)]
    load_adapter_parameters(network, dict(zip(parameters, drawn, strict=True)))
    (tmp_path / "adapter").mkdir()
    save_adapter(network, tmp_path / "adapter", base_model="base")
    export_gguf(model, tmp_path / "base.gguf", type="f32")
    export_gguf(model, tmp_path / "merged.gguf", adapter=tmp_path / "adapter", type="f32")
    export_lora(model, tmp_path / "lora.gguf", adapter=tmp_path / "adapter")

    ours = np.array(network(mx.array([IDS])))[0]
    beside = theirs(llama_cpp, tmp_path / "base.gguf", lora=tmp_path / "lora.gguf")
    merged = theirs(llama_cpp, tmp_path / "merged.gguf")
    apart = [np.abs(logits_of(one, IDS) - ours).max() for one in (beside, merged)]

    largest = np.abs(ours).max()
    record_property("largest difference", f"beside {apart[0]:.2g}, merged {apart[1]:.2g} of {largest:.3g}")
    assert np.abs(ours - before).max() > 0.1 * largest
    assert max(apart) <= NEAR["f32"] * largest


def texts_apart(llama_cpp, folder, tokenizer):
    """The awkward texts that llama.cpp tokenizes otherwise than the model's own tokenizer, of an exported model."""
    export_gguf(folder, folder / "x.gguf", type="f32")
    model = theirs(llama_cpp, folder / "x.gguf")
    ours = {text: tokenizer.encode(text, add_special_tokens=False) for text in TEXTS}
    return [text for text, ids in ours.items() if model.tokenize(text.encode(), add_bos=False, special=True) != ids]


def model_with(folder, backend, **settings):
    """A tiny llama with a tokenizer of 900 tokens at most."""
    config = SHAPE | {"model_type": "llama", "vocab_size": 900}
    (folder / "config.json").write_text(json.dumps(config))
    weights = dict(tree_flatten(random_network(config).parameters()))
    mx.save_safetensors(str(folder / "model.safetensors"), weights, metadata={"format": "mlx"})
    backend.save(str(folder / "tokenizer.json"))
    settings |= {"tokenizer_class": "PreTrainedTokenizerFast", "clean_up_tokenization_spaces": False}
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    return open_tokenizer(folder)


@pytest.mark.parametrize("pre", PRE_TOKENIZERS)
def test_each_way_to_cut_text_is_llama_cpps_own(tmp_path, llama_cpp, pre):
    learned = Tokenizer(models.BPE())
    learned.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    trainer = trainers.BpeTrainer(vocab_size=800, initial_alphabet=alphabet, show_progress=False, max_token_length=12)
    learned.train_from_iterator([*TEXTS, Path(__file__).read_text(encoding="utf-8")], trainer)
    model = json.loads(learned.to_str())["model"]
    backend = byte_level_tokenizer(PRE_TOKENIZERS[pre], model["vocab"], [tuple(pair) for pair in model["merges"]])
    backend.add_special_tokens([END])
    tokenizer = model_with(tmp_path, backend, eos_token=END, bos_token=END)

    apart = texts_apart(llama_cpp, tmp_path, tokenizer)

    # llama.cpp composes no characters (NFC), as Qwen's own tokenizer does
    assert [text for text in apart if text == unicodedata.normalize("NFC", text)] == []
    assert pre == "qwen2" or apart == []


@pytest.mark.parametrize("rules", [{}, {"add_dummy_prefix": False}], ids=["as llama", "as gemma"])
def test_sentencepieces_are_llama_cpps_own(tmp_path, llama_cpp, rules):
    texts = [text for text in TEXTS if 0 < len(text) < 90]
    model = io.BytesIO()
    settings = {"model_type": "bpe", "byte_fallback": True, "vocab_size": 750, "character_coverage": 0.98}
    settings |= {"normalization_rule_name": "identity", "remove_extra_whitespaces": False} | rules
    lines = Path(__file__).read_text(encoding="utf-8").splitlines()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter([*lines, *texts] * 2), model_writer=model, minloglevel=2, **settings
    )
    (tmp_path / "tokenizer.model").write_bytes(model.getvalue())
    found = read_sentencepiece(tmp_path / "tokenizer.model")
    tokenizer = model_with(tmp_path, sentencepiece_tokenizer(found.pieces), **found.named)

    assert texts_apart(llama_cpp, tmp_path, tokenizer) == []


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """The default model after three steps of the packaged recipe, which change what it answers."""
    from mlxtune.iteration.run import run_recipe

    changes = ["training.max_steps=3", "data.test=null", "training.learning_rate=1.0e-3"]
    folder = tmp_path_factory.mktemp("llama_cpp") / "run"
    return run_recipe("support-triage", changes, device="cpu", run_dir=folder, score=False).run_dir


@pytest.fixture(scope="module")
def files(run, tmp_path_factory):
    """Of the run: merged, base and adapter as GGUF."""
    folder = tmp_path_factory.mktemp("gguf")
    export_gguf(run, folder / "merged.gguf")
    export_gguf("smollm2-135m-instruct", folder / "base.gguf")
    export_lora(run, folder / "lora.gguf")
    return folder


def test_two_hundred_awkward_texts_are_tokenized_alike(llama_cpp, run, files):
    tokenizer = find_tuned(run).open_tokenizer()
    pairs = [a + b for a in TEXTS for b in TEXTS[::7]]
    texts = [*TEXTS, *pairs[:: len(pairs) // (200 - len(TEXTS))]][:200]
    model = theirs(llama_cpp, files / "merged.gguf", context=512)

    other = [
        text
        for text in texts
        if model.tokenize(text.encode(), add_bos=False, special=True)
        != tokenizer.encode(text, add_special_tokens=False)
    ]

    assert len(texts) == 200
    assert other == []


def greedy(step, ids):
    """The likeliest token after ``ids``, and so on; and the logits that each was taken from."""
    logits, answer = [step(ids)], []
    while len(answer) < ANSWER_TOKENS:
        answer.append(int(logits[-1].argmax()))
        logits.append(step(answer[-1:]))
    return answer, logits[:-1]


def our_steps(network):
    cache = make_prompt_cache(network)
    return lambda ids: np.array(network(mx.array([ids]), cache=cache)[0, -1])


def their_steps(model):
    def step(ids):
        model.eval(ids)
        return np.array(model.scores[model.n_tokens - 1])

    model.reset()
    return step


@pytest.fixture(scope="module")
def ours(run):
    """Of each message: the prompt's ids, our greedy answer, and its logits."""
    model = find_tuned(run).open(CPU_FLOAT32)
    prompts = [Renderer(model.tokenizer).encode_prompt([Message("user", text)], text) for text in MESSAGES]
    return [(ids, *greedy(our_steps(model.network), ids)) for ids in prompts]


@pytest.mark.parametrize("form", ["merged", "beside"])
def test_greedy_answers_agree(llama_cpp, files, ours, record_property, form):
    path, lora = (files / "merged.gguf", None) if form == "merged" else (files / "base.gguf", files / "lora.gguf")
    model = theirs(llama_cpp, path, lora=lora, context=512)

    agreed, apart, ties = 0, 0.0, []
    for ids, answer, logits in ours:
        their_answer, their_logits = greedy(their_steps(model), ids)
        apart = max(apart, float(np.abs(logits[0] - their_logits[0]).max()))
        first = next((i for i in range(ANSWER_TOKENS) if answer[i] != their_answer[i]), ANSWER_TOKENS)
        agreed += first
        if first < ANSWER_TOKENS:
            ties.append(float(logits[first][answer[first]] - logits[first][their_answer[first]]))

    told = f"{20 - len(ties)} of 20 answers, {agreed} of {20 * ANSWER_TOKENS} tokens before the first other one"
    record_property("agreement", f"{told}; logits {apart:.2g} apart, near ties {ties}")
    assert len(ours) == 20
    assert max(ties, default=0) <= NEAR_TIE
    assert len(ties) <= 2
