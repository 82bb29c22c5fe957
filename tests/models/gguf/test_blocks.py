"""GGUF's tensor types: three to the last bit in MLX's own form, all others as floats of 16 bits."""

from pathlib import Path

import gguf
import mlx.core as mx
import mlx_lm
import numpy as np
import pytest
from reference.gguf import (
    values_of_affine,
    values_of_q4_0,
    values_of_q4_1,
    values_of_q4_k,
    values_of_q5_0,
    values_of_q6_k,
    values_of_q8_0,
)
from reference.gguf_files import interleaved, write_network
from reference.gguf_models import SHAPE, TOKENIZER, random_network

from mlxtune.errors import ModelError
from mlxtune.models.gguf.blocks import BITS, EXPANDED, READABLE, affine_parts, float_array
from mlxtune.models.gguf.read import read_gguf, read_weights, write_gguf_folder

Type = gguf.GGMLQuantizationType
FORMULAS = {
    Type.Q4_0: values_of_q4_0,
    Type.Q4_1: values_of_q4_1,
    Type.Q8_0: values_of_q8_0,
    Type.Q5_0: values_of_q5_0,
    Type.Q4_K: values_of_q4_k,
    Type.Q6_K: values_of_q6_k,
}
SCALES = {  # where a block's float16 numbers lie, for types that the gguf package only reads
    Type.Q2_K: (80, 82),
    Type.Q3_K: (108,),
    Type.Q4_K: (0, 2),
    Type.Q5_K: (0, 2),
    Type.Q6_K: (208,),
    Type.IQ2_XXS: (0,),
    Type.IQ2_XS: (0,),
    Type.IQ2_S: (0,),
    Type.IQ3_XXS: (0,),
    Type.IQ3_S: (0,),
    Type.IQ1_S: (0,),
    Type.IQ1_M: (),
    Type.IQ4_NL: (0,),
    Type.IQ4_XS: (0,),
}


def quantized(kind: Type, rows: int = 6, width: int = 512, seed: int = 1) -> np.ndarray:
    """Blocks of the type: of normal values, or where the package cannot make them, of random codes."""
    rng = np.random.default_rng(seed)
    try:
        return gguf.quants.quantize(rng.normal(size=(rows, width)).astype(np.float32), kind)
    except NotImplementedError:
        block, size = gguf.GGML_QUANT_SIZES[kind]
        raw = rng.integers(0, 256, (rows, width // block, size), dtype=np.uint8)
        for place in SCALES.get(kind, ()):
            scale = rng.normal(size=(rows, width // block, 1)).astype("<f2") / np.float16(16)
            raw[..., place : place + 2] = scale.view(np.uint8)
        if kind is Type.IQ1_M:  # its one float16 is spread over the upper halves of four words
            raw[..., 49::2] = raw[..., 49::2] & 0x0F | np.array([0x00, 0x00, 0x80, 0x20], np.uint8)
        return raw.reshape(rows, -1)


@pytest.mark.parametrize("kind", BITS, ids=lambda kind: kind.name)
def test_blocks_that_are_passed_through_have_the_values_of_the_formula(kind):
    raw = quantized(kind)

    ours = values_of_affine(*affine_parts(raw, kind), BITS[kind])

    np.testing.assert_array_equal(ours, FORMULAS[kind](raw))
    np.testing.assert_array_equal(ours, gguf.quants.dequantize(raw, kind))


@pytest.mark.parametrize("kind", BITS, ids=lambda kind: kind.name)
def test_mlx_reads_the_blocks_that_are_passed_through_as_gguf_does(kind):
    raw = quantized(kind)
    weight, scales, biases = (mx.array(part) for part in affine_parts(raw, kind))

    scales, biases = scales.astype(mx.float32), biases.astype(mx.float32)
    values = mx.dequantize(weight, scales, biases, group_size=32, bits=BITS[kind])

    np.testing.assert_array_equal(np.array(values), gguf.quants.dequantize(raw, kind))


@pytest.mark.parametrize("kind", [kind for kind in FORMULAS if kind not in BITS], ids=lambda kind: kind.name)
def test_expanded_blocks_have_the_values_of_the_formula_in_float16(kind):
    raw = quantized(kind)

    ours = float_array(raw, kind, (6, 512))

    assert ours.dtype == mx.float16
    np.testing.assert_array_equal(np.array(ours), FORMULAS[kind](raw).astype(np.float16))


@pytest.mark.parametrize("kind", EXPANDED, ids=lambda kind: kind.name)
def test_every_expanded_type_has_the_values_of_the_gguf_package_to_16_bits(kind):
    raw = quantized(kind)
    exact = gguf.quants.dequantize(raw, kind)

    ours = np.array(float_array(raw, kind, exact.shape).astype(mx.float32))

    assert np.isfinite(exact).all()
    assert np.abs(exact).max() > 0
    # half a step of float16, or of bfloat16 where that has to serve
    precision = 2**-11 if np.abs(exact).max() <= 65504 else 2**-8
    np.testing.assert_allclose(ours, exact, rtol=precision, atol=2**-25)


def test_all_that_the_gguf_package_can_expand_is_read():
    known = {Type.F32, Type.F16}
    for kind, (_, size) in gguf.GGML_QUANT_SIZES.items():
        try:
            gguf.quants.dequantize(np.zeros((1, size), np.uint8), kind)
        except NotImplementedError:
            continue
        known.add(kind)

    assert set(READABLE) == known


def test_a_tensor_with_values_beyond_float16_becomes_bfloat16():
    values = np.random.default_rng(1).normal(size=(4, 64)).astype(np.float32)
    values[3, 7] = 70000.0
    raw = gguf.quants.quantize(values, Type.Q5_1)
    exact = gguf.quants.dequantize(raw, Type.Q5_1)

    ours = float_array(raw, Type.Q5_1, (4, 64))

    assert ours.dtype == mx.bfloat16
    np.testing.assert_allclose(np.array(ours.astype(mx.float32)), exact, rtol=2**-8)


@pytest.mark.parametrize("offset", [0.0, -1.0])
def test_bfloat16_stays_bfloat16(offset):
    values = mx.random.normal((5, 48), key=mx.random.key(0)).astype(mx.bfloat16)
    raw = np.array(values.view(mx.uint8))

    ours = float_array(raw, Type.BF16, (5, 48), offset=offset)

    assert ours.dtype == mx.bfloat16
    expected = (values.astype(mx.float32) + offset).astype(mx.bfloat16)
    np.testing.assert_array_equal(np.array(ours.view(mx.uint8)), np.array(expected.view(mx.uint8)))


def test_a_large_tensor_is_expanded_a_few_rows_at_a_time(monkeypatch):
    raw = quantized(Type.Q5_0, rows=40)
    whole = np.array(float_array(raw, Type.Q5_0, (40, 512)))
    monkeypatch.setattr("mlxtune.models.gguf.blocks.SLICE_VALUES", 7 * 512)

    np.testing.assert_array_equal(np.array(float_array(raw, Type.Q5_0, (40, 512))), whole)


WRITABLE = [Type[name] for name in ("F32", "F16", "BF16", "Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q8_0")]


@pytest.mark.parametrize("kind", WRITABLE, ids=lambda kind: kind.name)
def test_a_model_with_tensors_of_each_narrow_type_opens_in_mlx_lm_with_the_files_values(tmp_path, write_gguf, kind):
    originals = write_gguf(tmp_path / "x.gguf", types={"blk.1.ffn_down.weight": kind, "blk.0.attn_q.weight": kind})
    write_gguf_folder(tmp_path / "x.gguf", tmp_path)

    network = opened(tmp_path)

    layers = {
        "model.layers.1.mlp.down_proj.weight": network.layers[1].mlp.down_proj,
        "model.layers.0.self_attn.q_proj.weight": network.layers[0].self_attn.q_proj,
    }
    for name, layer in layers.items():
        exact = gguf.quants.dequantize(gguf.quants.quantize(originals[name], kind), kind)
        tolerance = 2**-11 if kind in EXPANDED else 0
        np.testing.assert_allclose(np.array(layer.weight), exact, rtol=tolerance, err_msg=name)


@pytest.mark.parametrize("kind", ["Q2_K", "Q3_K", "Q4_K", "Q5_K", "Q6_K", "IQ4_XS"])
def test_a_model_in_k_quants_opens_in_mlx_lm_with_the_files_values(tmp_path, kind):
    config = SHAPE | {"model_type": "llama", "hidden_size": 256, "intermediate_size": 256, "num_hidden_layers": 1}
    blocks = {
        "blk.0.ffn_up.weight": quantized(Type[kind], 256, 256),
        "token_embd.weight": quantized(Type[kind], 264, 256),
    }
    blocks["blk.0.attn_q.weight"] = quantized(Type[kind], 256, 256, seed=2)
    typed = {name: (raw, Type[kind]) for name, raw in blocks.items()}
    write_network(tmp_path / "x.gguf", random_network(config), config, TOKENIZER, typed)
    write_gguf_folder(tmp_path / "x.gguf", tmp_path)

    network = opened(tmp_path)

    queries = interleaved(np.arange(256), 4)  # which row of MLX's lies where in the file
    layers = {
        "blk.0.ffn_up.weight": network.layers[0].mlp.up_proj.weight,
        "token_embd.weight": network.model.embed_tokens.weight,
        "blk.0.attn_q.weight": network.layers[0].self_attn.q_proj.weight[mx.array(queries)],
    }
    for name, weight in layers.items():
        exact = gguf.quants.dequantize(blocks[name], Type[kind])
        np.testing.assert_allclose(np.array(weight), exact, rtol=2**-11, atol=2**-25, err_msg=name)


def opened(folder: Path):
    network, _ = mlx_lm.load(str(folder))
    network.set_dtype(mx.float32)
    mlx_lm.utils.dequantize_model(network)
    return network


@pytest.mark.parametrize(("kind", "scale"), [(Type.Q4_0, 9000), (Type.Q8_0, 600)])
def test_a_scale_whose_bias_leaves_float16_is_refused(tmp_path, write_gguf, kind, scale):
    write_gguf(tmp_path / "x.gguf", types={"token_embd.weight": kind})
    set_scale(tmp_path / "x.gguf", "token_embd.weight", scale)

    with pytest.raises(ModelError, match=r"tensor token_embd\.weight has scales beyond float16"):
        list(read_weights(read_gguf(tmp_path / "x.gguf")))


@pytest.mark.parametrize("kind", BITS, ids=lambda kind: kind.name)
def test_a_signalling_nan_for_a_scale_is_refused_without_a_warning(tmp_path, write_gguf, kind):
    write_gguf(tmp_path / "x.gguf", types={"token_embd.weight": kind})
    set_scale(tmp_path / "x.gguf", "token_embd.weight", np.uint16(0x7C01).view(np.float16))

    with pytest.raises(ModelError, match="scales beyond float16"):
        list(read_weights(read_gguf(tmp_path / "x.gguf")))


@pytest.mark.parametrize("scale", [np.inf, np.nan])
def test_an_expanded_tensor_that_is_not_finite_is_refused(tmp_path, write_gguf, scale):
    write_gguf(tmp_path / "x.gguf", types={"blk.1.ffn_down.weight": Type.Q5_0})
    set_scale(tmp_path / "x.gguf", "blk.1.ffn_down.weight", scale)

    with pytest.raises(ModelError, match=r"tensor blk\.1\.ffn_down\.weight has values that are no numbers"):
        list(read_weights(read_gguf(tmp_path / "x.gguf")))


def test_a_value_that_is_no_number_is_found_behind_one_that_is_beyond_float16(monkeypatch):
    values = np.ones((4, 64), np.float32)
    values[0, 0] = 70000.0
    raw = gguf.quants.quantize(values, Type.Q5_1)
    raw[3, 0:2] = np.frombuffer(np.float16(np.nan).tobytes(), np.uint8)
    monkeypatch.setattr("mlxtune.models.gguf.blocks.SLICE_VALUES", 64)

    with pytest.raises(ValueError, match="no number"):
        float_array(raw, Type.Q5_1, (4, 64))


@pytest.mark.parametrize("kind", [Type.Q8_1, Type.Q8_K, Type.I8, Type.I32, Type.Q1_0], ids=lambda k: k.name)
def test_a_type_that_holds_no_weights_is_refused_by_name(tmp_path, write_gguf, kind):
    write_gguf(tmp_path / "x.gguf", types={"blk.1.ffn_down.weight": Type.F32})
    content = bytearray((tmp_path / "x.gguf").read_bytes())
    name = b"blk.1.ffn_down.weight"
    place = content.index(name) + len(name) + 4 + 2 * 8
    assert content[place : place + 4] == bytes(4)
    content[place : place + 4] = int(kind).to_bytes(4, "little")
    (tmp_path / "x.gguf").write_bytes(content)

    with pytest.raises(ModelError, match=rf"blk\.1\.ffn_down\.weight.*{kind.name}"):
        read_gguf(tmp_path / "x.gguf")


def set_scale(path, tensor: str, scale: float) -> None:
    """Overwrite the first block's scale."""
    content = bytearray(path.read_bytes())
    begin = read_gguf(path).header.tensors[tensor].begin
    content[begin : begin + 2] = np.float16(scale).tobytes()
    path.write_bytes(content)
