#!/usr/bin/env python3
"""Are our errors smaller than those of the reference in bfloat16?

    python3 scripts/compare_precision.py --program ./vibevoice

needs what make_golden.py needs, and a GPU for the full shape.  A random model
of the 1.5B's shape is recorded in float32 over 20 frames.  Then every stage of
every frame gets the recorded inputs twice: in transformers' bfloat16 and in
the program (--verify), as it speaks by default and in float32.  Prints the
largest error of each stage; fails unless ours is the smaller one everywhere.

--formats adds a table of what each precision costs the latent of a frame whose
past is the recorded one: with the language model in it, and the head as well.
"""
import argparse
import copy
import json
import pathlib
import subprocess
import sys
import tempfile

import torch
from safetensors.torch import save_file

import make_golden as golden

SHAPES = {
    "1.5b": dict(hidden=1536, intermediate=8960, layers=28, heads=12,
                 kv_heads=2, head_layers=4, filters=32,
                 depths=[3, 3, 3, 3, 3, 3, 8], latent=64, semantic=128),
    "tiny": dict(hidden=64, intermediate=160, layers=4, heads=4, kv_heads=2,
                 head_layers=2, filters=2, depths=[1, 1, 1, 1, 1, 1, 2],
                 latent=16, semantic=24),
}
FORMATS = ["float32", "bf16", "bf16-packed", "float8", "int8", "int4"]
OURS = "latent of ours"  # of conditions that are not the recorded ones
STAGES = ["pos_condition", "neg_condition", "latent", "audio", "semantic",
          "next_embed"]
LOGITS = "generated.logits_start_end_diff_eos"


def parse_args():
    p = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    p.add_argument("--program", type=pathlib.Path, required=True)
    p.add_argument("--shape", choices=SHAPES, default="1.5b")
    p.add_argument("--frames", type=int, default=20)
    p.add_argument("--seed", type=int, default=1)
    p.add_argument("--device", choices=["cuda", "cpu"], default="cuda")
    p.add_argument("--formats", action="store_true",
                   help="and the program's errors in every precision")
    args = p.parse_args()
    # what make_golden.py asks for beside the shape
    vars(args).update(
        SHAPES[args.shape], stored=torch.bfloat16, is_native=False, tied=True,
        head_ratio=3.0, voices=[], id_gap=0, cfg_scale=1.3, steps=10,
        max_tokens=args.frames,
        tokenizer=pathlib.Path(__file__).resolve().parent.parent /
        "tests/golden/tiny_tied")
    return args


class Forced(golden.Recorder):
    """Frames only, whatever the model would choose."""

    def __init__(self, *args):
        # the solver's table goes through numpy
        with torch.device("cpu"):
            super().__init__(*args)
        set_timesteps = self.solver.set_timesteps

        def set_on_cpu(**kwargs):
            with torch.device("cpu"):
                set_timesteps(**kwargs)

        self.solver.set_timesteps = set_on_cpu

    def speak(self, prompt):
        columns = [self.control[k] for k in golden.CONTROL]
        x = self.embed_prompt(prompt)
        consumed = self.embed([self.control["start"]])
        logits = []
        for _ in range(self.args.frames):
            y = self.positive.read(x)
            logits.append(y.logits[0, -1, columns])
            x = consumed = self.frame(y.last_hidden_state, consumed)
        return ([self.control["diffusion"]] * self.args.frames,
                torch.stack(logits))


class Replay(Forced):
    """The same in bfloat16, each stage with the recorded inputs."""

    def __init__(self, args, model, control, record):
        super().__init__(args, model, control, None, {})
        self.record = record

    def recorded(self, name):
        return self.record[f"frame{self.frames:03d}.{name}"].bfloat16()

    def frame(self, h, consumed):
        net, args = self.model.model, self.args
        negative = self.negative.read(consumed).last_hidden_state[:, -1]
        with golden.draws(self.recorded("noise0")):
            latent = self.model._sample_audio_latent(
                self.recorded("pos_condition"),
                self.recorded("neg_condition"), self.solver, args.steps,
                args.cfg_scale)
        decoded = self.model._decode_audio_latent(
            self.recorded("latent"), torch.tensor([True]), 1,
            self.decoder_past)
        self.decoder_past = decoded.padding_cache
        heard = net.semantic_tokenizer_encoder(
            self.recorded("audio"), padding_cache=self.semantic_past,
            use_cache=True)
        self.semantic_past = heard.padding_cache
        embedding = (net.multi_modal_projector(self.recorded("latent")) +
                     net.semantic_connector(self.recorded("semantic")))
        self.keep(pos_condition=h[:, -1], neg_condition=negative,
                  latent=latent, audio=decoded.audio, semantic=heard.latents,
                  next_embed=embedding)
        consumed = self.recorded("next_embed")
        self.frames += 1
        return consumed


def make_record(args):
    """Write the checkpoint and its record; return the model and record."""
    control, vocab_size = golden.write_tokenizer(args)
    prompt = golden.build_prompt(args, control)
    model, rng = golden.make_model(args, control, vocab_size, args.seed)
    record = {}
    recorder = Forced(args, model, control, rng, record)
    tokens, record[LOGITS] = recorder.speak(prompt)
    record["generated.audio"] = torch.cat(recorder.audio, 1)
    record["generated.ids"] = torch.tensor(tokens)
    record["prompt.ids"] = torch.tensor(prompt)
    golden.write_model(args, model, vocab_size)
    save_file({k: x.clone().contiguous() for k, x in record.items()},
              args.out / "golden.safetensors")
    (args.out / "golden.json").write_text(json.dumps({
        "seed": args.seed, "new_tokens": tokens, **control,
        "cfg_scale": args.cfg_scale, "steps": args.steps,
        "prompt_len": len(prompt), "max_new_tokens": args.max_tokens,
        "lines": golden.LINES, "frames": args.frames}))
    return model, control, prompt, record


def worst(errors):
    """{tensor: error} to {stage: largest error}."""
    out = {}
    for name, error in errors.items():
        stage = "logits" if name == LOGITS else name.partition(".")[2]
        if stage in STAGES or stage in ("logits", OURS):
            out[stage] = max(out.get(stage, 0.0), error)
    return out


def reference_errors(args, model, control, prompt, record):
    replay = Replay(args, copy.deepcopy(model).bfloat16(), control, record)
    _, replay.out[LOGITS] = replay.speak(prompt)
    return worst({name: (x.float() - record[name]).abs().max().item()
                  for name, x in replay.out.items()})


def our_errors(args, dtype, *options):
    # its status judges float32 bounds, which are not those of this table
    run = subprocess.run(
        [args.program, "--device", args.device, "--model", args.out,
         "--verify", args.out / "golden.safetensors", "--dtype", dtype,
         "--json", *options], capture_output=True, text=True, check=False)
    rows = [json.loads(line) for line in run.stdout.splitlines()]
    if not rows or "error" in rows[-1]:
        sys.exit(f"{args.program}: {run.stderr}")
    return worst({row["tensor"]: row["max_error"] for row in rows
                  if "tensor" in row and not row["free"]})


def format_errors(args):
    """[(precision, condition, latent, latent with such a head)]"""
    rows = []
    for dtype in FORMATS:
        lm = our_errors(args, dtype)
        both = lm if dtype == "float32" else our_errors(
            args, dtype, "--head-dtype", dtype)
        rows.append((dtype, lm["pos_condition"], lm[OURS], both[OURS]))
    keys = subprocess.run([args.program, "--help"], capture_output=True,
                          text=True, check=True)
    if "--kv-dtype" in keys.stdout:
        kv = our_errors(args, "bf16", "--kv-dtype", "fp8")
        rows.append(("float8 keys, values", kv["pos_condition"], kv[OURS],
                     kv[OURS]))
    return rows


def print_formats(rows, largest):
    print(f"\n{'precision':22}{'condition':>11}{'latent':>11}"
          f"{'head too':>11}")
    print(f"{'max |ref|':22}{largest['pos_condition']:11.2e}"
          f"{largest['latent']:11.2e}{largest['latent']:11.2e}")
    for name, *errors in rows:
        print(f"{name:22}" + "".join(f"{e:11.2e}" for e in errors))


@torch.no_grad()
def main():
    args = parse_args()
    torch.set_default_device(args.device)
    torch.backends.cuda.matmul.allow_tf32 = False
    torch.backends.cudnn.allow_tf32 = False
    with tempfile.TemporaryDirectory() as folder:
        args.out = pathlib.Path(folder)
        model, control, prompt, record = make_record(args)
        theirs = reference_errors(args, model, control, prompt, record)
        del model
        torch.cuda.empty_cache()
        ours = our_errors(args, "bf16")
        exact = our_errors(args, "float32")
        formats = format_errors(args) if args.formats else []
    largest = worst({name: x.abs().max().item() for name, x in record.items()})
    print(f"{args.shape} shape, {args.frames} frames, largest errors")
    print(f"{'stage':14}{'max |ref|':>11}{'ours':>11}{'ours f32':>11}"
          f"{'their bf16':>12}{'ours/theirs':>13}")
    for stage in [*STAGES, "logits"]:
        print(f"{stage:14}{largest[stage]:11.2e}{ours[stage]:11.2e}"
              f"{exact[stage]:11.2e}{theirs[stage]:12.2e}"
              f"{ours[stage] / theirs[stage]:13.4f}")
    if formats:
        print_formats(formats, largest)
    if not all(ours[stage] < theirs[stage] for stage in theirs):
        sys.exit("not smaller everywhere")


if __name__ == "__main__":
    main()
