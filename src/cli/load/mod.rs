//! `load`: requests at a rate, and what became of them.
//!
//! Everything is done by the library ([`crate::load`]); here words become a plan, and counts become
//! text. One thread does it all: what is measured should be the servers.

mod args;
mod compare;
mod live;
mod run;
mod verify;

pub(super) use args::Load;

use args::{LoadCommand, Whom};

use super::exit::{Ending, Exit, Failure};
use super::load_report;
use crate::load::Error;
use crate::load::target::{Address, Levels, RedisTarget, RingdoveTarget, Scheme};

pub(super) fn run(load: &Load) -> Ending {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime
        .map_err(|error| Failure::new(Exit::No, "system", format!("no event loop: {error}")))?;
    let form = load.form();
    let local = tokio::task::LocalSet::new();
    local.block_on(&runtime, async {
        match &load.command {
            None => run::run(&load.run, form).await,
            Some(LoadCommand::Verify(verify)) => verify::run(verify, form).await,
            Some(LoadCommand::Compare(asked)) => compare::run(asked, form),
            Some(LoadCommand::Report(report)) => load_report::run(report),
        }
    })
}

/// A target that is connected.
enum Connected {
    Ringdove(RingdoveTarget),
    Redis(RedisTarget),
}

/// Connects to a target.
async fn connect(
    address: &Address,
    whom: &Whom,
    bucket: &str,
    connections: usize,
) -> Result<Connected, Failure> {
    match address.scheme {
        Scheme::Ringdove => {
            let (r, w) = (whom.r.unwrap_or_default(), whom.w.unwrap_or_default());
            let levels = Levels { r, w, strict: whom.strict, timeout: whom.timeout };
            let (hosts, only) = (&address.hosts, whom.only_given);
            let target = RingdoveTarget::connect(hosts, only, bucket, connections, levels).await?;
            Ok(Connected::Ringdove(target))
        }
        Scheme::Redis if whom.only_given || whom.strict || whom.r.is_some() || whom.w.is_some() => {
            let message = "--only-given, --strict, --r and --w are for ringdove:// targets";
            Err(Failure::usage(message).hint("leave them away with redis://"))
        }
        Scheme::Redis => {
            let target = RedisTarget::connect(&address.hosts, connections, whom.timeout).await?;
            Ok(Connected::Redis(target))
        }
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        let (exit, kind) = match &error {
            Error::Settings(_) => (Exit::Usage, "usage"),
            Error::Unreachable(_) => (Exit::Unreachable, "connect"),
            Error::File { .. } => (Exit::No, "file"),
            Error::Damaged { .. } => (Exit::Usage, "file"),
        };
        Self::new(exit, kind, error.to_string())
    }
}
