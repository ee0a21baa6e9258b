//! The simulator: the production state machines on a simulated network, disks and clocks.
//! `docs/SIMULATION.md` says what is simulated, what is checked and how to read a failure.

mod check;
mod clients;
mod disk;
mod faults;
mod history;
mod network;
mod node;
mod plan;
mod run;
mod world;

fn main() {
    let from: u64 = std::env::args().nth(1).and_then(|a| a.parse().ok()).unwrap_or(1);
    let count: u64 = std::env::args().nth(2).and_then(|a| a.parse().ok()).unwrap_or(1);
    for seed in from..from + count {
        let history = run::run(plan::Plan::new(seed, None));
        let found = check::check(&history);
        println!(
            "seed {seed}: {} ops, {} facts, {} lines, {} violations",
            history.ops.len(),
            history.facts.len(),
            history.lines.len(),
            found.len()
        );
        for v in found.iter().take(6) {
            println!("   {}{} {}", v.property, if v.twice_made { " (twice)" } else { "" }, v.what);
        }
        if count == 1 {
            std::fs::write("/tmp/sim-dump.txt", history.text()).unwrap();
        }
    }
}
