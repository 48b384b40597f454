# Sourced by the jobs beside it: `start ARGUMENTS` runs `python -m snp ARGUMENTS` in every task of the job.
# Tasks (one for each GPU) meet where torchrun's would: at MASTER_ADDR, the first host. It is srun that starts them, as
# torchrun would keep from them the SIGUSR1 that SLURM sends ahead of the time limit: a run saves, ends with 75, and is
# requeued. Variables of all jobs, for sbatch --export=ALL,...:
#   SCALE (desk), DATA (scenes; real at paper scale), SEED (0), OUT, DATA_ROOT, PYTHON; at paper scale VISION_WEIGHTS and
#   TEXT_WEIGHTS: files, or names (below), which a node without network cannot fetch; RANDOM_TOWERS=1: neither
# Wherever sbatch was called, paths are relative to the checkout that the script is of.
cd "$(dirname "${BASH_SOURCE[0]}")/.." || exit 2
if [ "$(scontrol show job "$SLURM_JOB_ID" | sed -n 's/^ *StdOut=//p')" = /dev/null ]; then  # no --output was given
    mkdir -p .runs/logs
    exec >>".runs/logs/$SLURM_JOB_NAME-$SLURM_JOB_ID.log" 2>&1
fi
SCALE=${SCALE:-desk}
[ "$SCALE" = paper ] && DATA=${DATA:-real}
DATA=${DATA:-scenes}
PYTHON=${PYTHON:-.nox/shared/bin/python}
if [ "$SCALE" = paper ] && [ -z "$RANDOM_TOWERS" ]; then
    VISION_WEIGHTS=${VISION_WEIGHTS:-deit_base_patch16_224}
    TEXT_WEIGHTS=${TEXT_WEIGHTS:-ViT-L-14/openai}
fi

start() {
    # requeued, a job runs the code that it began with, though the checkout has moved on
    code=.runs/code/job-$SLURM_JOB_ID
    [ "${SLURM_RESTART_COUNT:-0}" -gt 0 ] && [ -h "$code" ] ||
        ln -sfn "$("$PYTHON" -m snp.launch.snapshot .runs/code)" "$code" || exit 2
    export PYTHONSAFEPATH=1 PYTHONPATH="$PWD/$code${PYTHONPATH:+:$PYTHONPATH}"
    first=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)
    MASTER_ADDR=$(scontrol show node "$first" | grep -o 'NodeAddr=[^ ]*' | cut -d= -f2)
    MASTER_PORT=$((20000 + SLURM_JOB_ID % 20000))
    export MASTER_ADDR MASTER_PORT
    # where a process fails, those that wait for it end a minute later
    srun --wait=60 "$PYTHON" -m snp "$@" --scale "$SCALE" ${OUT:+--out "$OUT"} \
        ${DATA_ROOT:+--data-root "$DATA_ROOT"} ${VISION_WEIGHTS:+--vision-weights "$VISION_WEIGHTS"} \
        ${TEXT_WEIGHTS:+--text-weights "$TEXT_WEIGHTS"} ${RANDOM_TOWERS:+--random-towers}
    code=$?
    [ $code = 75 ] && scontrol requeue "$SLURM_JOB_ID"
    exit $code
}
