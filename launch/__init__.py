"""Start one run on several processes: this machine, Slurm, Open MPI, Kubernetes."""
