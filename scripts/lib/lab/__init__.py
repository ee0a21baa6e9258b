"""The partition lab, by nouns.

    scenario   a file of scripts/partition, read and checked
    plan       what a scenario and a seed make of time: which fault when, which clients with what
    cluster    nodes as processes: started, stopped, killed, wiped, joined
    faults     what breaks, either inside the nodes or in the network between them
    namespaces that network: one namespace for each node, a bridge, packet filters
    clients    `ringdove load`, one process for each group of clients
    comparison copies of keys, compared from outside
    watch      looks at the cluster, a second apart
    verdicts   what must hold, by name
    run        one scenario from start to verdict
    report     the JSON files, and the report made of them
    resp       the text protocol; `terminal` how the lab speaks; `program` the ringdove that is tried

A module uses only those that stand above it in the order: terminal, resp, program, scenario, plan,
namespaces, cluster, faults, clients, comparison, watch, verdicts, report, run, command. Python's standard library and nothing else.
"""
