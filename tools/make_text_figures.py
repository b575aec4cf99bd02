"""Writes tests/golden/text/: small vocabularies, and what open_clip and transformers make of texts with them.

    python tools/make_text_figures.py [--out=tests/golden/text]
    python tools/make_text_figures.py --whole=clip_base --out=FILE.npz

Needs torch, open_clip_torch, transformers and sentencepiece, not ncl_jax. The weights are not kept: tests/seeded.py
makes them from their names and shapes. With --whole a text tower in its own size and numbers at random, for
tools/compare_text.py. Vocabularies are of the sentences below, not of anybody's weights.
"""

import argparse
import gzip
import io
import json
import pathlib
import shutil
import sys

import numpy as np
import open_clip
import sentencepiece
import torch
import transformers
from open_clip.model import CLIPTextCfg, CLIPVisionCfg
from open_clip.tokenizer import SimpleTokenizer, canonicalize_text
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

sys.path.insert(0, str(pathlib.Path(__file__).parent.parent / "tests"))
from seeded import images, tensor

SENTENCES = (
    """a photo of a cat. a photo of a dog. a photo of an aquarium fish. a blurry photo of the small flowers.
photographs of long sleeves, shorts, shoes, hats and skirts. a black and white drawing of the table and the chair.
the quick brown fox jumps over the lazy dog. it's a photo of what they've seen: 12 trees, 34 houses and 567 cars.
une photo d'un café à Zürich. a rendition of the maple tree, the oak tree, the palm tree, the pine tree.
a close-up photo of a clean bottle, a bowl, a can, a cup, a plate. itap of the large train, bus and tank.
"""
    * 4
)
TEXTS = [
    "a photo of a cat.", "", " ", "A  Photo\tof\nthe DOG!", "it's they've we'll I'd 'tis",
    "café Zürich naïve À l'œuvre", "cafe\u0301 combining", "n\u00b0 12345 x1y2 3.14", "snake_case and-dashes/slashes",
    "emoji \U0001f431\u200d\U0001f680 ok", "\u4e2d\u6587 \u0420\u0443\u0441\u0441 \u03b1\u03b2",
    "...!!!??? (a) [b] {c}", "word " * 100, "x" * 200, "tabs\u00a0and\u2003spaces", "MiXeD CaSe",
    "a photo of a {name}.", "\u0130stanbul \u1e9e",
]  # fmt: skip
# Of text towers in their own size: vocabulary, width, heads, blocks, hidden units, features, length of texts.
WHOLE = {
    "clip_base": ("clip", 49408, 512, 8, 12, 2048, 512, 77), "clip_large": ("clip", 49408, 768, 12, 12, 3072, 768, 77),
    "siglip_base": ("siglip", 32000, 768, 12, 12, 3072, 768, 64),
    "siglip_so400m": ("siglip", 32000, 1152, 16, 27, 4304, 1152, 16),
}  # fmt: skip
WIDTH, HEADS, LAYERS, FEATURES, LENGTH = 128, 2, 2, 24, 64


def byte_pairs(out: pathlib.Path) -> int:
    """Writes CLIP's vocabulary in its three forms; returns the number of tokens. Merges that are as frequent may come
    in another order each time."""
    found = Tokenizer(models.BPE(end_of_word_suffix="</w>", continuing_subword_prefix=""))
    found.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    trainer = trainers.BpeTrainer(vocab_size=420, end_of_word_suffix="</w>", show_progress=False)
    found.train_from_iterator(SENTENCES.lower().split(), trainer)
    merges = json.loads(found.to_str())["model"]["merges"]
    lines = ["#version: 0.2", *(" ".join(pair) for pair in merges)]
    with (out / "bpe_simple_vocab_16e6.txt.gz").open("wb") as file:
        file.write(gzip.compress("\n".join(lines).encode(), mtime=0))
    own = SimpleTokenizer(str(out / "bpe_simple_vocab_16e6.txt.gz"))
    special = {"<start_of_text>": "<|startoftext|>", "<end_of_text>": "<|endoftext|>"}  # open_clip's, everybody's
    vocabulary = {special.get(token, token): number for token, number in own.encoder.items()}
    (out / "vocab.json").write_text(json.dumps(vocabulary, ensure_ascii=False))
    (out / "merges.txt").write_text("\n".join(lines) + "\n")
    return len(own.encoder)


def pieces(out: pathlib.Path) -> int:
    """Writes SigLIP's vocabulary as sentencepiece and as tokenizers have it; returns the number of tokens."""
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(SENTENCES.lower().splitlines()), model_writer=model, vocab_size=150, pad_id=0, eos_id=1,
        unk_id=2, bos_id=-1, normalization_rule_name="identity", hard_vocab_limit=False, minloglevel=2,
    )  # fmt: skip
    (out / "spiece.model").write_bytes(model.getvalue())
    processor = sentencepiece.SentencePieceProcessor(model_proto=model.getvalue())
    scores = [(processor.id_to_piece(i), processor.get_score(i)) for i in range(processor.get_piece_size())]
    found = Tokenizer(models.Unigram(scores, unk_id=2, byte_fallback=False))
    found.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="always")
    found.decoder = decoders.Metaspace(prepend_scheme="always")
    found.save(str(out / "siglip.json"), pretty=False)
    return len(scores)


def siglip_numbers(out: pathlib.Path) -> np.ndarray:
    """The numbers of the texts by open_clip's cleaning and sentencepiece, cut and filled as big_vision does."""
    processor = sentencepiece.SentencePieceProcessor(model_file=str(out / "spiece.model"))
    rows = [[*processor.encode(canonicalize_text(text))[: LENGTH - 1], 1] for text in TEXTS]
    return np.array([row + [1] * (LENGTH - len(row)) for row in rows])


def seeded(model: torch.nn.Module) -> dict[str, np.ndarray]:
    """Gives a model weights from their names; returns names and shapes."""
    state = model.state_dict()
    drawn = {key for key, value in state.items() if value.is_floating_point() and value.ndim}
    made = state | {key: torch.from_numpy(tensor(key, tuple(state[key].shape))) for key in drawn}
    model.load_state_dict(made)
    model.eval()
    return {"names": np.array([f"{key} {tuple(value.shape)}" for key, value in made.items()])}


def of_open_clip(kind: str, vocabulary: int, numbers: np.ndarray) -> dict[str, np.ndarray]:
    """Text features of open_clip's tower."""
    common = {"vocab_size": vocabulary, "width": WIDTH, "heads": HEADS, "layers": LAYERS}
    vision = CLIPVisionCfg(layers=1, width=WIDTH, head_width=64, image_size=32, patch_size=16)
    if kind == "clip":
        text = CLIPTextCfg(context_length=77, **common)
        model = open_clip.CLIP(FEATURES, vision, text, quick_gelu=True)
    else:
        text = CLIPTextCfg(
            context_length=LENGTH, no_causal_mask=True, proj_bias=True, pool_type="last", norm_kwargs={"eps": 1e-6},
            act_kwargs={"approximate": "tanh"}, **common,
        )  # fmt: skip
        model = open_clip.CustomTextCLIP(FEATURES, vision, text, init_logit_bias=-10)
    found, tokens = seeded(model), torch.from_numpy(numbers)
    with torch.no_grad():
        found |= {"features": model.encode_text(tokens).numpy()}
        if kind == "clip":
            pixels = torch.from_numpy(images(32)).permute(0, 3, 1, 2)
            scale = model.logit_scale.numpy()
            found |= {"logits": model.get_logits(pixels, tokens)[0].numpy(), "logit_scale": scale}
    return found


def of_transformers(
    kind: str, vocabulary: int, numbers: np.ndarray, shape: tuple = (WIDTH, HEADS, LAYERS, 4 * WIDTH, FEATURES)
) -> dict[str, np.ndarray]:
    """Text features of transformers' tower; `shape`: width, heads, blocks, hidden units, features."""
    width, heads, layers, hidden, features = shape
    common = {"vocab_size": vocabulary, "hidden_size": width, "num_attention_heads": heads, "num_hidden_layers": layers,
              "intermediate_size": hidden}  # fmt: skip
    image = {"hidden_size": WIDTH, "num_attention_heads": HEADS, "num_hidden_layers": 1, "intermediate_size": 256,
             "image_size": 32, "patch_size": 16}  # fmt: skip
    if kind == "clip":
        text = common | {"max_position_embeddings": 77, "eos_token_id": vocabulary - 1, "bos_token_id": vocabulary - 2}
        config = transformers.CLIPConfig(text_config=text, vision_config=image, projection_dim=features)
        model = transformers.CLIPModel(config)
    else:
        special = {"bos_token_id": None, "eos_token_id": 1, "pad_token_id": 1}
        text = common | special | {"max_position_embeddings": numbers.shape[1], "projection_size": features}
        config = transformers.SiglipConfig(text_config=text, vision_config=image)
        model = transformers.SiglipModel(config)
    found = seeded(model)
    with torch.no_grad():
        made = model.get_text_features(input_ids=torch.from_numpy(numbers))
    return found | {"features": getattr(made, "pooler_output", made).numpy()}


def whole(name: str) -> dict[str, np.ndarray]:
    """The features of a text tower in its own size, of numbers at random."""
    kind, vocabulary, *shape, length = WHOLE[name]
    numbers = np.random.default_rng(0).integers(3, vocabulary - 1, (8, length))
    if kind == "clip":
        numbers[np.arange(8), np.arange(8) * 9 + 5] = vocabulary - 1  # the end
    return of_transformers(kind, vocabulary, numbers, tuple(shape)) | {"numbers": numbers}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=pathlib.Path, default=pathlib.Path("tests/golden/text"))
    parser.add_argument("--whole", choices=WHOLE, help="this text tower alone")
    args = parser.parse_args()
    out = args.out
    if args.whole:
        np.savez_compressed(out, **whole(args.whole))
        return
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir(parents=True)
    torch.set_num_threads(2)
    sizes = {"clip": byte_pairs(out), "siglip": pieces(out)}
    openai = SimpleTokenizer(str(out / "bpe_simple_vocab_16e6.txt.gz"))
    numbers = {"clip": openai(TEXTS).numpy(), "siglip": siglip_numbers(out)}
    theirs = transformers.CLIPTokenizer.from_pretrained(out)
    of_hub = theirs(TEXTS, padding="max_length", truncation=True, max_length=77)["input_ids"]
    theirs.backend_tokenizer.save(str(out / "clip.json"), pretty=False)
    figures = {"texts": np.array(TEXTS), "clip/transformers": np.array(of_hub)}
    for kind, tokens in numbers.items():
        figures |= {f"{kind}/numbers": tokens, f"{kind}/vocabulary": np.array(sizes[kind])}
        for writer, make in (("open_clip", of_open_clip), ("transformers", of_transformers)):
            found = make(kind, sizes[kind], tokens)
            figures |= {f"{kind}/{writer}/{key}": value for key, value in found.items()}
            print(kind, writer, found["features"].shape, f"{np.abs(found['features']).mean():.3f}")
    versions = {"open_clip": open_clip.__version__, "transformers": transformers.__version__}
    np.savez_compressed(out / "figures.npz", versions=np.array(json.dumps(versions)), **figures)


if __name__ == "__main__":
    main()
