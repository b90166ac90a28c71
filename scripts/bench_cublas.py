#!/usr/bin/env python3
"""Time cuBLASLt alone on the products of a prompt, as torch calls it.

    python3 scripts/bench_cublas.py [--size 7b] [--tokens 2000]

needs torch with CUDA.  The four products of a decoder layer (bfloat16, sums in
float32) on weights that change with every call, as those of 28 layers do;
prints what each takes and what all layers would: the time that a prompt cannot
beat by this library, its attention and norms left out.
"""
import argparse
import statistics

import torch

LAYERS = 28
SHAPES = {  # outputs and inputs of q|k|v, o, gate|up, down
    "1.5b": [(2048, 1536), (1536, 1536), (17920, 1536), (1536, 8960)],
    "7b": [(4608, 3584), (3584, 3584), (37888, 3584), (3584, 18944)],
}


def time_ms(x, weights, y):
    """Median of one product, LAYERS of them launched between two events."""
    times = []
    for _ in range(12):
        begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        begin.record()
        for w in weights:
            torch.mm(x, w.t(), out=y)
        end.record()
        end.synchronize()
        times.append(begin.elapsed_time(end) / len(weights))
    return statistics.median(times[2:])


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--size", choices=SHAPES, default="7b")
    parser.add_argument("--tokens", type=int, default=2000)
    args = parser.parse_args()
    torch.backends.cuda.preferred_blas_library("cublaslt")
    kind = dict(device="cuda", dtype=torch.bfloat16)
    total_ms = flops = 0
    for n, k in SHAPES[args.size]:
        weights = [torch.randn(n, k, **kind) * 0.02 for _ in range(LAYERS)]
        y = torch.empty(args.tokens, n, **kind)
        ms = time_ms(torch.randn(args.tokens, k, **kind), weights, y)
        work = 2 * args.tokens * n * k
        print(f"{args.tokens} x {n} x {k}: {1e3 * ms:8.1f} us "
              f"{1e-9 * work / ms:7.1f} TFLOP/s", flush=True)
        total_ms, flops = total_ms + LAYERS * ms, flops + LAYERS * work
    print(f"{LAYERS} layers: {total_ms:.2f} ms, "
          f"{1e-9 * flops / total_ms:.1f} TFLOP/s")


if __name__ == "__main__":
    main()
