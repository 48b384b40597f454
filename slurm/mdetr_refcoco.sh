#!/usr/bin/env bash
#SBATCH --job-name=mdetr-refcoco
#SBATCH --ntasks-per-node=1
#SBATCH --cpus-per-task=1
#SBATCH --mem=8G
#SBATCH --time=02:00:00
#SBATCH --signal=USR1@90
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --output=/dev/null
# One seed of one row of Table 1: compression, and fine-tuning on the three benchmarks.
#   sbatch --export=ALL,ROW=scenes/magnitude@60,SEED=1 slurm/mdetr_refcoco.sh
#   sbatch --gpus-per-node=1 --cpus-per-task=8 --mem=64G --time=1-0 --export=ALL,SCALE=paper,DATA_ROOT=... slurm/mdetr_refcoco.sh
# The code is that of the checkout when the job first begins (snp launch: when it is submitted); log: .runs/logs.
. "$(scontrol show job "$SLURM_JOB_ID" | sed -n 's|^ *Command=\(.*\)/[^/]*$|\1|p')/start.sh"
start run "${ROW:-$DATA/snp@60}" --seed "${SEED:-0}" --workers 1
