#!/usr/bin/env python3
"""The same words whatever the weights look like and wherever they are.

    same_words.py [--program P] [--model DIR] [--sentences FILE] [--count N]
                  [--voice NAME] [--max-wer PERCENT] [--seed N]

A few held-out sentences are spoken with the weights as the file holds them.
Where they are then, and packing without loss, must not change a sample; in a
shorter precision a recogniser must still hear the words.  Prints a line each.

Exit: 0 all alike, 1 not, 2 broken program, 77 skipped for want of a tool.
"""
import os
import shutil
import sys
import tempfile

import round_trip as rt

EQUAL = [["--num-gpu-layers", "0"], ["--num-gpu-layers", "3"],
         ["--dtype", "bf16-packed"]]
SHORTER = [["--dtype", "float8"], ["--dtype", "int8"], ["--dtype", "int4"],
           ["--kv-dtype", "fp8"]]


def spoken(a, folder, sentences, options):
    """Paths of the WAVs of every sentence, in a folder of their own."""
    folder = os.path.join(folder, "".join(options) or "plain")
    os.mkdir(folder)
    a.more = options
    return rt.speak(a, folder, sentences)


def heard(folder, takes, sentences):
    """Percent of word errors of each take, a list of WAV paths."""
    names = []
    for t, take in enumerate(takes):
        for i, path in enumerate(take):
            names.append("take%d_%02d" % (t, i))
            rt.write_wav(os.path.join(folder, names[-1] + ".wav"),
                         rt.to_16k(*rt.samples_of(path)))
    words, n = rt.recognise(folder, names), len(sentences)
    return [rt.word_error_rate(sentences, [words[k] for k in names[i:i + n]])
            for i in range(0, len(names), n)]


def equal(a, b):
    return all(open(x, "rb").read() == open(y, "rb").read()
               for x, y in zip(a, b))


def judge(a, folder, sentences):
    """Whether all is as it should be."""
    good, plain = True, spoken(a, folder, sentences, [])
    for options in EQUAL:
        same = equal(plain, spoken(a, folder, sentences, options))
        good = good and same
        print("%-20s %s" % (" ".join(options),
                            "equal samples" if same else "SAMPLES DIFFER"))
    takes = [plain] + [spoken(a, folder, sentences, s) for s in SHORTER]
    for options, errors in zip([["as in the file"]] + SHORTER,
                               heard(folder, takes, sentences)):
        good = good and errors <= a.max_wer
        print("%-20s %.1f %% word errors" % (" ".join(options), errors))
    return good


def main():
    a = rt.arguments()
    absent = rt.missing()
    if absent:
        print("SKIP: same words: not installed: " + ", ".join(absent))
        return 77
    with open(a.sentences) as f:
        sentences = [s.strip() for s in f if s.strip()][:a.count or None]
    folder = tempfile.mkdtemp(prefix="same_words.")
    try:
        good = judge(a, folder, sentences)
    finally:
        shutil.rmtree(folder)
    print("PASS: same words" if good else "FAIL: the same words are not heard "
          "(at most %.0f %% errors, equal samples)" % a.max_wer)
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
