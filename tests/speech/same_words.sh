#!/usr/bin/env bash
# The same words in each precision and residency, two sentences each.  The
# short ones miss one of their 15 words, noise all; 30 % are four of them.
set -u
vibe=$(realpath "${VIBEVOICE:-./vibevoice}")
cd "$(dirname "$0")" || exit 1
export OMP_WAIT_POLICY=passive
if ! command -v python3 >/dev/null; then
    echo "skip - speech_same_words: python3 is not installed"
    exit 0
fi
python3 ./same_words.py --program "$vibe" --count 2 --max-wer 30
case $? in
    0) echo "ok - speech_same_words" ;;
    77) echo "skip - speech_same_words: flite or pocketsphinx is not installed" ;;
    *) echo "not ok - speech_same_words"; exit 1 ;;
esac
