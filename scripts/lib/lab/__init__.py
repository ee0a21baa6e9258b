"""The partition lab, by nouns. A module uses only those that stand above it.

    terminal     how the lab speaks
    resp         the text protocol
    program      the ringdove that is tried
    scenario     a file of scripts/partition, read and checked
    plan         what a scenario and a seed make of time: which fault when, which clients with what
    namespaces   a network of its own for each node, a bridge, packet filters
    cluster      nodes as processes: started, stopped, killed, wiped, joined
    faults       what breaks, either inside the nodes or in the network between them
    clients      `ringdove load`, one process for each group of clients
    comparison   copies of keys, compared from outside
    watch        looks at the cluster, a second apart
    verdicts     what must hold, by name
    report       the JSON files, and the report made of them
    run          one scenario from start to verdicts
    command      the command line

Python's standard library, and nothing else."""
