#!/usr/bin/env bash
#SBATCH --job-name=mdetr-pretrain
#SBATCH --ntasks-per-node=1
#SBATCH --cpus-per-task=1
#SBATCH --mem=8G
#SBATCH --time=12:00:00
#SBATCH --signal=USR1@90
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --output=/dev/null
# The dense model that all rows start from; MODEL=glip for the other one. On several nodes, one task for each GPU:
#   sbatch --nodes=4 --gpus-per-node=8 --ntasks-per-node=8 --cpus-per-task=8 --mem=0 --time=2-0 \
#       --export=ALL,SCALE=paper,DATA_ROOT=... slurm/mdetr_pretrain.sh
# The code is that of the checkout when the job first begins (snp launch: when it is submitted); log: .runs/logs.
. "$(scontrol show job "$SLURM_JOB_ID" | sed -n 's|^ *Command=\(.*\)/[^/]*$|\1|p')/start.sh"
start pretrain --data "$DATA" --model "${MODEL:-mdetr}"
