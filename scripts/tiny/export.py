"""Write a model folder: export.py CHECKPOINT... OUT

CHECKPOINTs (torch.save of {name: tensor}, or model folders) are merged in
order; with none the folder holds random weights.  Tokenizer files must already be in OUT.
"""
import json
import os
import shutil
import struct
import sys

import torch

import model as M

PREPROCESSOR = dict(
    processor_class="VibeVoiceProcessor", speech_tok_compress_ratio=M.HOP,
    db_normalize=True, language_model_pretrained_name=".",
    audio_processor=dict(feature_extractor_type="VibeVoiceTokenizerProcessor",
                         sampling_rate=M.RATE, normalize_audio=True,
                         target_dB_FS=-25, eps=1e-6))


def save_safetensors(path, tensors):
    """Store every tensor as BF16, in name order, header padded to 8 bytes."""
    header, blobs, end = {}, [], 0
    for name in sorted(tensors):
        t = tensors[name].detach().to("cpu", torch.bfloat16).contiguous()
        blob = t.view(torch.int16).numpy().tobytes()
        header[name] = dict(dtype="BF16", shape=list(t.shape),
                            data_offsets=[end, end + len(blob)])
        blobs.append(blob)
        end += len(blob)
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    with open(path, "wb") as f:
        f.write(struct.pack("<Q", len(text)) + text)
        f.writelines(blobs)


def load_weights(path):
    """{name: tensor} of a checkpoint or of a model folder."""
    if os.path.isdir(path):
        return load_safetensors(os.path.join(path, "model.safetensors"))
    return {k: v.float() for k, v in
            torch.load(path, map_location="cpu").items()}


def load_safetensors(path):
    with open(path, "rb") as f:
        n, = struct.unpack("<Q", f.read(8))
        header, data = json.loads(f.read(n)), bytearray(f.read())
    out = {}
    for name, h in header.items():
        if name == "__metadata__":
            continue
        begin, end = h["data_offsets"]
        raw = torch.frombuffer(data[begin:end], dtype=torch.bfloat16)
        out[name] = raw.float().reshape(h["shape"])
    return out


def main():
    *parts, out = sys.argv[1:]
    net = M.new_model()
    weights = {k: v for k, v in net.state_dict().items()}
    for part in parts:
        for name, value in load_weights(part).items():
            if name in weights:
                assert value.shape == weights[name].shape, name
                weights[name] = value
    bad = [k for k, v in weights.items() if not torch.isfinite(v).all()]
    assert not bad, bad
    os.makedirs(out, exist_ok=True)
    save_safetensors(os.path.join(out, "model.safetensors"), weights)
    shutil.copy(os.path.join(M.HERE, "config.json"), out)
    with open(os.path.join(out, "preprocessor_config.json"), "w") as f:
        f.write(json.dumps(PREPROCESSOR, indent=1) + "\n")
    total = sum(os.path.getsize(os.path.join(out, f)) for f in os.listdir(out))
    print("%d parameters, %.2f MB" % (sum(v.numel() for v in weights.values()),
                                      total / 1e6))
    for key in ("language_model", "prediction_head", "acoustic_tokenizer.e",
                "acoustic_tokenizer.d", "semantic_tokenizer", "connector"):
        print("%-24s %9d" % (key, sum(v.numel() for k, v in weights.items()
                                      if key in k)))


if __name__ == "__main__":
    main()
