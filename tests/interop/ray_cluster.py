"""A Ray cluster of two nodes on this machine, for as long as stdin is open; its address is the first line of stdout."""

import sys

from ray.cluster_utils import Cluster

OBJECT_STORE_BYTES = 80_000_000  # the least that Ray takes: nothing of ours goes through it


def main(directory: str) -> None:
    cluster = Cluster()
    cluster.add_node(
        num_cpus=1, include_dashboard=False, object_store_memory=OBJECT_STORE_BYTES, temp_dir=directory
    )
    cluster.add_node(num_cpus=1, object_store_memory=OBJECT_STORE_BYTES, temp_dir=directory)
    print(cluster.address, flush=True)
    sys.stdin.read()
    cluster.shutdown()


if __name__ == "__main__":
    main(sys.argv[1])
