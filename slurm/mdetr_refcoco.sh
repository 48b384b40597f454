#!/usr/bin/env bash
#SBATCH --job-name=mdetr-refcoco
#SBATCH --cpus-per-task=1
#SBATCH --mem=8G
#SBATCH --time=01:00:00
#SBATCH --requeue
#SBATCH --output=slurm-%x-%j.log
# One seed of one row of Table 1: compression and fine-tuning on the three benchmarks. Stopped or requeued, it goes on.
#   sbatch --export=ALL,ROW=scenes/magnitude@60,SEED=1 slurm/mdetr_refcoco.sh
set -euo pipefail
cd "${SLURM_SUBMIT_DIR:-$(dirname "$0")/..}"
exec srun "${PYTHON:-.nox/shared/bin/python}" -m snp run "${ROW:-scenes/snp@60}" --seed "${SEED:-0}" --scale "${SCALE:-desk}"
