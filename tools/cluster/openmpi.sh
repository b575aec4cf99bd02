#!/bin/bash
# One run of several processes that Open MPI starts, one per host with all its GPUs:
#
#     mpirun -n 2 --host HOST1,HOST2 --map-by ppr:1:node --bind-to none --mca odls_base_sigkill_timeout 60 \
#         tools/cluster/openmpi.sh HOST1:PORT --config=cifar100lt --workdir=DIR
#
# HOST1:PORT: a free port of the first host. The rest goes to `ncl-jax train`. DIR must lie on a file system that all
# hosts see. `--bind-to none`: else a process and the threads that read its images have one core. The time-out (of
# Open MPI 4, in seconds): else a run that is asked to stop has one second to save its state. Where a process dies
# mpirun ends the others; the same command continues.
coordinator=$1
shift
exec python -m ncl_jax.main --coordinator="$coordinator" --num_processes="$OMPI_COMM_WORLD_SIZE" \
  --process_id="$OMPI_COMM_WORLD_RANK" "$@"
