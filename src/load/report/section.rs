//! Which plots belong to a scenario, and which to a run.

use super::cluster;
use super::figure::Figure;
use super::flow::{self, Group};
use super::input::{RunRecord, ScenarioRecord};
use super::latency;
use super::stage::Stage;
use super::timeline;
use super::trail::{seconds_per_step, steps};
use super::views;

/// All plots of a scenario, in the order in which one asks: what was broken, who was served and how
/// fast, what piled up meanwhile, and what the nodes thought.
pub(super) fn of_scenario(record: &ScenarioRecord, stage: &Stage) -> Vec<Figure> {
    let mut figures: Vec<Figure> = timeline::figure(stage).into_iter().collect();
    figures.extend(of_requests(&record.sides.iter().collect::<Vec<_>>(), stage));
    figures.extend(cluster::counts(stage, record));
    figures.extend(views::strip(stage, record));
    figures
}

/// All plots of a run without a lab.
pub(super) fn of_run(run: &RunRecord, stage: &Stage) -> Vec<Figure> {
    let mut figures = of_requests(&[run], stage);
    figures.extend(latency::distribution(&run.summary.latency));
    figures
}

fn of_requests(runs: &[&RunRecord], stage: &Stage) -> Vec<Figure> {
    let per_step = runs.iter().map(|run| seconds_per_step(&run.seconds)).max().unwrap_or(1);
    let groups: Vec<Group> = runs
        .iter()
        .map(|run| Group { name: run.name.clone(), steps: steps(&run.seconds, stage, per_step) })
        .collect();
    if groups.iter().all(|group| group.steps.is_empty()) {
        let title = "Requests answered as asked, per second";
        let figure = Figure::new("throughput", title, |width| flow::empty(stage, width));
        return vec![figure.caption("No second of any client was recorded.")];
    }
    let mut figures = vec![flow::throughput(stage, &groups), flow::availability(stage, &groups)];
    figures.extend(latency::over_time(stage, &groups));
    figures.push(flow::outcomes(stage, &groups));
    if per_step > 1 {
        for figure in &mut figures {
            let every = format!(
                " Each point stands for {per_step} seconds: counts are means, latencies the worst of them."
            );
            figure.caption.push_str(&every);
        }
    }
    figures
}
