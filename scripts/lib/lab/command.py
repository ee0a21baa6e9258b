"""The command line of the lab."""

import argparse
import pathlib
import shutil
import signal
import sys
import tempfile
import time

from . import plan, program, report, scenario
from .run import Run
from .terminal import Trouble, bad, bold, complain, dim, good, say, wrapped

HELP = """\
What this database does when the network breaks, tried on this machine.

  ./scripts/partition-lab                    lists the scenarios
  ./scripts/partition-lab 1                  runs one: by number or by name
  ./scripts/partition-lab 1 2 split-strict   or several
  ./scripts/partition-lab all --report out   runs all, and leaves out/report.html
  ./scripts/partition-lab plan 1 --seed 7    prints what a seed makes of it

Exit code: 0 when everything holds that must, 1 when something does not,
2 when the lab could not try it, 130 after Ctrl-C."""


def main(words):
    options = _options(words)
    signal.signal(signal.SIGTERM, _interrupted)
    signal.signal(signal.SIGHUP, _interrupted)
    try:
        return _do(options)
    except Trouble as trouble:
        complain(trouble)
        return 2
    except KeyboardInterrupt:
        complain(Trouble("interrupted; everything that the lab had started is stopped"))
        return 130


def _interrupted(_number, _frame):
    raise KeyboardInterrupt


def _options(words):
    parser = argparse.ArgumentParser(
        prog="partition-lab", description=HELP, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("scenario", nargs="*", help="list, plan, all, or numbers and names")
    parser.add_argument("--seed", type=int, default=1, help="of faults and requests [1]")
    parser.add_argument("--short", action="store_true", help="a few seconds of each phase")
    parser.add_argument("--report", metavar="DIR", help="where records and report are left")
    parser.add_argument("--no-pictures", action="store_true", help="the report without PNGs")
    parser.add_argument("--network", choices=["machine", "namespaces"], default="machine",
                        help="faults inside the nodes, or (root) real packets dropped [machine]")
    parser.add_argument("--keep", action="store_true", help="keep the nodes' data and logs")
    parser.add_argument("--binary", metavar="PATH", help="the ringdove to try [built when needed]")
    parser.add_argument("--base-port", type=int, metavar="PORT", help="of the first node [found]")
    return parser.parse_args(words)


def _do(options):
    every = scenario.load_all()
    words = options.scenario or ["list"]
    if words[0] == "list":
        return _list(every)
    if words[0] == "plan":
        for found in scenario.chosen(every, words[1:] or ["all"]):
            print("\n".join(plan.make(found, options.seed, options.short).lines()))
        return 0
    return _try(scenario.chosen(every, words), options)


def _list(every):
    for found in every:
        say(f"{found.number:>2}  {bold(found.name)}")
        say(wrapped(found.title, "    "))
    say()
    say("./scripts/partition-lab 1 runs the first; --help says what else there is")
    return 0


def _try(chosen, options):
    ringdove = program.find(options.binary)
    ringdove.must_have(["load"], ["load", "verify"], ["fault"])
    if options.report:
        ringdove.must_have(["load", "report"])
    work = pathlib.Path(tempfile.mkdtemp(prefix="ringdove-lab-"))
    directory = pathlib.Path(options.report).resolve() if options.report else work / "records"
    directory.mkdir(parents=True, exist_ok=True)
    network = {"machine": "one machine", "namespaces": "namespaces"}[options.network]
    began, failed, untried = time.monotonic(), [], []
    try:
        ran = []
        for found in chosen:
            try:
                record = _one(ringdove, found, directory, work, options)
            except Trouble as trouble:
                # The others can still be tried.
                complain(trouble)
                untried.append(found)
                continue
            ran.append(found.directory)
            report.write_lab(directory, ringdove.version(), options.seed, network, ran)
            if not all(verdict["holds"] for verdict in record["verdicts"]):
                failed.append(found)
        if options.report and ran:
            say(f"The report is {report.make(ringdove, directory, not options.no_pictures)}")
    finally:
        if options.keep:
            say(f"Kept: {work}")
        else:
            shutil.rmtree(work, ignore_errors=True)
    return _end(chosen, failed, untried, time.monotonic() - began, options.seed)


def _end(chosen, failed, untried, took, seed):
    """The last line, and the exit code."""
    for some, what in ((untried, "could not be tried"), (failed, "did not hold")):
        if some:
            names = " ".join(found.name for found in some)
            say(bad(f"{len(some)} of {len(chosen)} {what}: ") + names)
    if not untried and not failed:
        say(good(f"all held: {len(chosen)} of {len(chosen)}") + f", in {took:.0f} s, seed {seed}")
    return 2 if untried else 1 if failed else 0


def _one(ringdove, found, directory, work, options):
    """One scenario, with what it says before and after."""
    say(f"{bold(f'{found.number}  {found.title}')}")
    say(dim(f"   {found.setting()}"))
    records, nodes = directory / found.directory, work / found.directory
    shutil.rmtree(records, ignore_errors=True)
    records.mkdir(parents=True)
    began = time.monotonic()
    run = Run(ringdove, found, records, nodes, options)
    try:
        record = run.go()
    except BaseException:
        _keep_logs(nodes, records, options)
        raise
    for verdict in record["verdicts"]:
        mark = good("   holds  ") if verdict["holds"] else bad("   FAILS  ")
        say(wrapped(f"{verdict['text']}: {verdict['evidence']}", "          ", mark))
    say(dim(f"   {time.monotonic() - began:.0f} s"))
    if not all(verdict["holds"] for verdict in record["verdicts"]):
        _keep_logs(nodes, records, options)
    if not options.keep:
        shutil.rmtree(nodes, ignore_errors=True)
    return record


def _keep_logs(nodes, records, options):
    """The nodes' logs, for whoever looks into it, where anything is kept."""
    if not options.report and not options.keep:
        return
    for log in nodes.glob("*/log"):
        (records / "logs").mkdir(exist_ok=True)
        shutil.copyfile(log, records / "logs" / f"{log.parent.name}.log")
    if (records / "logs").exists():
        say(f"   the nodes' logs are in {records / 'logs'}")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
