#!/bin/bash
# One run on a slice of Cloud TPU, from your own machine with `gcloud`:
#
#     export TPU=NAME ZONE=us-west4-a TYPE=v5litepod-16 SHARE=10.0.0.2:/share
#     tools/cluster/cloud_tpu.sh create                                            # the slice; it costs money from now on
#     tools/cluster/cloud_tpu.sh install git+https://github.com/OWNER/ncl_jax      # what pip takes, on every host
#     tools/cluster/cloud_tpu.sh train --config=cifar100lt --workdir=/mnt/share/run --config.data.dir=/mnt/share/data
#     tools/cluster/cloud_tpu.sh stop                                              # the run saves its state
#     tools/cluster/cloud_tpu.sh delete
#
# SHARE: an NFS share in the slice's network (Filestore, for example), mounted at /mnt/share on every host: all hosts must
# see the run's directory. `train` again goes on with the run, also after the slice was taken away and made again.
set -euo pipefail
: "${TPU:?the name of the slice}" "${ZONE:?its zone}"
action=${1:?create, install, train, stop or delete}
shift

everywhere() {
  gcloud compute tpus tpu-vm ssh "$TPU" --zone="$ZONE" --worker=all --command="$1"
}

case $action in
  create)
    gcloud compute tpus tpu-vm create "$TPU" --zone="$ZONE" --accelerator-type="${TYPE:?such as v5litepod-16}" \
      --version="${VERSION:-v2-alpha-tpuv5-lite}"
    ;;
  install)
    everywhere "set -e; sudo apt-get install -y -q nfs-common; sudo mkdir -p /mnt/share
      mountpoint -q /mnt/share || sudo mount ${SHARE:?an NFS share, HOST:/PATH} /mnt/share
      python3 -m pip install -q --user uv; ~/.local/bin/uv venv -q --allow-existing --python=3.12 ~/ncl
      ~/.local/bin/uv pip install -q --python ~/ncl/bin/python 'ncl-jax[tpu] @ $1'"
    ;;
  # It outlives the connection; every host's output is in its ~/train.log as well.
  train)
    everywhere "nohup ~/ncl/bin/ncl-jax train --distributed$(printf ' %q' "$@") > ~/train.log 2>&1 & run=\$!
      tail -n +1 -F --pid=\$run ~/train.log; wait \$run"
    ;;
  stop) everywhere "pkill -TERM -f 'ncl-jax train'" ;;
  delete) gcloud compute tpus tpu-vm delete "$TPU" --zone="$ZONE" ;;
  *) echo "unknown action $action: create, install, train, stop or delete" >&2 && exit 2 ;;
esac
