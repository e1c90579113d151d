#!/usr/bin/env bash
# Train on every GPU of two machines: the same command on both, each with its own NODE.
#
#     MASTER=first-machine NODE=0 pipelines/launch/two_nodes.sh CONFIG.yaml [options of medld train]
#     MASTER=first-machine NODE=1 pipelines/launch/two_nodes.sh CONFIG.yaml [options of medld train]
#
# MASTER is node 0, reachable from the other at PORT (29500). Both must see the run folder and the data under the same
# paths, and have as many GPUs; NODES=4 makes it four machines. See one_node.sh for PROCESSES and the batch.

set -euo pipefail

: "${MASTER:?name or address of node 0}" "${NODE:?0 on the first machine, 1 on the second}"
export TORCH_ELASTIC_SHUTDOWN_TIMEOUT=240

exec torchrun --nnodes "${NODES:-2}" --node-rank "$NODE" --master-addr "$MASTER" --master-port "${PORT:-29500}" \
    --nproc-per-node "${PROCESSES:-gpu}" --module medld.cli train "$@"
