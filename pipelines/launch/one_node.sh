#!/usr/bin/env bash
# Train on every GPU of this machine.
#
#     pipelines/launch/one_node.sh CONFIG.yaml [options of medld train]
#
# PROCESSES=2 takes two of the GPUs; on a machine without any it says how many processes share its cores (then with
# --set device=cpu). `batch` in the config is that of all processes together and must divide among them: more of them
# make a run faster, not different.

set -euo pipefail

# After SIGTERM, seconds to finish the step in hand and to write the state and the model.
export TORCH_ELASTIC_SHUTDOWN_TIMEOUT=240

exec torchrun --standalone --nproc-per-node "${PROCESSES:-gpu}" --module medld.cli train "$@"
