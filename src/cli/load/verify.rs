//! `load verify`: what became of what runs have written.

use std::path::PathBuf;

use serde_json::json;

use super::Connected;
use super::args::Verify;
use super::live::{self, Line};
use crate::cli::exit::{Ending, Exit, Failure};
use crate::cli::output::Form;
use crate::load::record::Verification;
use crate::load::verify;

/// Connections for reading back from a Redis server.
const CONNECTIONS: usize = 8;

pub(super) async fn run(asked: &Verify, form: Form) -> Ending {
    let headers = verify::headers(&asked.directories)?;
    let recorded = headers[0].target.parse().ok();
    let address = asked.whom.address(recorded);
    let target = super::connect(&address, &asked.whom, &headers[0].bucket, CONNECTIONS).await?;
    let found = read_back(&target, &asked.directories).await?;
    form.answer(&live::verification(&found), || json!(found))?;
    Ok(exit_of(&found))
}

/// Reads everything back, and shows how far that is.
pub(super) async fn read_back(
    target: &Connected,
    directories: &[PathBuf],
) -> Result<Verification, Failure> {
    let line = Line::new();
    let tell = |keys| line.show(&format!("{keys} keys read back"));
    let found = match target {
        Connected::Ringdove(target) => verify::verify(target, directories, tell).await,
        Connected::Redis(target) => verify::verify(target, directories, tell).await,
    };
    line.end();
    Ok(found?)
}

/// What a script is told.
pub(super) fn exit_of(found: &Verification) -> Exit {
    let wrong = found.lost + found.resurrected + found.damaged + found.refused_took_effect;
    match (wrong, found.unread) {
        (0, 0) => Exit::Done,
        (0, _) => Exit::Unavailable,
        _ => Exit::No,
    }
}
