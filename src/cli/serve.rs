//! `serve`: one node, in the foreground.

use std::process::ExitCode;

use super::args::Serve;
use super::exit::Exit;
use super::{config, output};
use crate::server;
use crate::server::config::Config;
use crate::server::disk::Disk;

/// Runs until the node has drained. The node sets up its log and its signals itself.
pub(super) fn run(serve: &Serve) -> ExitCode {
    let mut overrides = serve.source.overrides.clone();
    if serve.fault_injection {
        overrides.push("node.fault_injection=true".to_owned());
    }
    let config = match Config::load(&serve.source.config, &overrides) {
        Ok(config) => config,
        Err(error) => {
            config::explain(&error);
            return Exit::Usage.into();
        }
    };
    let adopted = if serve.moved { adopt(&config) } else { Ok(()) };
    adopted.and_then(|()| server::run(config)).unwrap_or_else(|error| {
        // Every cause on one line: the outermost says what was tried, the innermost why not.
        output::note(&format!("error: {error:#}"));
        Exit::No.into()
    })
}

/// Takes the data directory for one that was moved, and says what that came to.
fn adopt(config: &Config) -> anyhow::Result<()> {
    let directory = &config.node.data_dir;
    output::note(&match Disk::adopt(directory)? {
        true => format!(
            "{}: taken for a directory that was moved here; start without --moved from now on",
            directory.display()
        ),
        false => format!("{}: is no copy; --moved changes nothing", directory.display()),
    });
    Ok(())
}
