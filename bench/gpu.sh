#!/usr/bin/env bash
# Measurements on a machine with a GPU and no network, in order of worth. What to bring and what comes out: bench/gpu.md.
#
#   bash bench/gpu.sh PART [OUT]        PART: 1 to 5, or report; OUT: where figures go (gpu-results)
#
# PYTHON names the interpreter. DEVICE=cpu tries everything with tiny shapes where there is no GPU.
set -u

HERE=$(cd "$(dirname "$0")" && pwd)
PART=${1:-}
OUT=${2:-gpu-results}
PYTHON=${PYTHON:-python3}
DEVICE=${DEVICE:-cuda}
END=$(($(date +%s) + 580)) # a part takes no longer than ten minutes
FAILED=0

export PYTHONPATH="$HERE/../src${PYTHONPATH:+:$PYTHONPATH}"
export HF_HUB_OFFLINE=1 HF_DATASETS_OFFLINE=1 HF_HUB_DISABLE_TELEMETRY=1

SMALL=() # for bench/run.py and gpu_profile.py
RECIPES=(smoke tiny)
TESTS=() # the default: all that touch a device
if [ "$DEVICE" = cpu ]; then
    SMALL=(--device cpu --dtype float32 --hidden 32 --intermediate 48 --layers 2 --heads 2 --kv-heads 1 --vocab 64
        --prompts 2 --group 2 --prompt-tokens 8 --new-tokens 6 --min-new-tokens 1 --peer-micro-batch 4)
    RECIPES=(smoke)
    TESTS=("$HERE/../tests/kernels/test_varlen_attention.py")
    if [ "$PART" = 1 ]; then export TRITON_INTERPRET=1; fi # there kernels run without a GPU, too slowly for whole runs
fi

# take NAME SECONDS SCRIPT ...: one measurement, its figures in OUT/PART-NAME.json whatever becomes of it
take() {
    local name=$1 limit=$2 left=$((END - $(date +%s)))
    shift 2
    if [ "$left" -lt "$limit" ]; then limit=$left; fi
    "$PYTHON" "$HERE/gpu_take.py" "$OUT/$PART-$name.json" "$limit" "$PYTHON" "$HERE/$1" "${@:2}" || FAILED=1
}

# step NAME SECONDS WORKLOAD ...: a workload of bench/run.py; one round, as processes start slowly there
step() {
    take "$1" "$2" run.py --json --rounds 1 --workload "$3" "${SMALL[@]}" "${@:4}"
}

case $PART in
1)
    take checks 330 gpu_checks.py --device "$DEVICE"
    take tests 260 gpu_tests.py "${TESTS[@]}"
    ;;
2)
    for recipe in "${RECIPES[@]}"; do
        take "$recipe" 480 gpu_recipe.py "$recipe" "$OUT/runs" "$DEVICE"
    done
    ;;
3)
    step sample-alone 120 sample-h200-05b --alone
    step step-alone 150 h200-05b --alone
    step step-trl 240 h200-05b --steps 2
    step sample-trl 200 sample-h200-05b --steps 2
    ;;
4)
    take decode 200 gpu_profile.py decode --workload h200-05b "${SMALL[@]}"
    take training 200 gpu_profile.py training --workload h200-05b "${SMALL[@]}"
    take compiled 190 gpu_profile.py training --workload h200-05b --compile "${SMALL[@]}"
    ;;
5)
    step ragged-alone 150 h200-05b-ragged --alone
    step 15b-alone 240 h200-15b --alone --steps 2
    step ragged-trl 200 h200-05b-ragged --steps 1
    ;;
report)
    exec "$PYTHON" "$HERE/gpu_report.py" "$OUT"
    ;;
*)
    sed -n '2,6s/^# \{0,1\}//p' "$0" >&2
    exit 2
    ;;
esac
exit "$FAILED"
