//! The command line: what a person or a script types, and what it gets back.
//!
//! ```text
//!   words ──args──▶ command ──┬── serve                 becomes a node (server::run)
//!                             ├── dev                   parent of nodes
//!                             ├── config, completions   files and text
//!                             ├── load                  a runtime of its own
//!                             └── all others ──cluster──▶ client ──▶ any node
//!                                     │
//!                                     └──▶ output: text or one JSON document ──▶ exit code
//! ```
//!
//! What always holds: the answer, and nothing else, goes to standard output; a command that fails
//! says what to do next; the exit code tells a script whether a write happened ([`Exit`]). Nothing
//! is decided here about data: every command is a question that the client library could ask.

mod args;
mod bucket;
mod cluster;
mod config;
mod conflicts;
mod data;
mod dev;
mod digest;
mod exit;
mod explain;
mod fault;
mod hints;
mod keys;
mod load;
mod load_report;
mod member;
mod output;
mod pairs;
mod quantity;
mod ring;
mod serve;
mod shell;
mod status;
mod sync;
mod tombstones;
mod transfers;
mod view;
mod wait;

use std::process::ExitCode;

use clap::{CommandFactory, Parser};

pub use args::Arguments;
pub use exit::Exit;

use args::{Command, Completions};
use exit::{Ending, Failure};
use output::Form;

/// Runs the command that this process was started with.
#[must_use]
pub fn main() -> ExitCode {
    // Ends the process itself for --help (0) and for words that make no command (2).
    let command = Arguments::parse().command;
    let form = form_of(&command);
    let ending = match command {
        Command::Serve(serve) => return serve::run(&serve),
        Command::Config(command) => config::run(&command),
        Command::Completions(completions) => complete(&completions),
        Command::Load(load) => load::run(&load),
        command => match runtime() {
            Ok(runtime) => run(&runtime, command),
            Err(failure) => Err(failure),
        },
    };
    end(ending, form).into()
}

/// Carries out what needs sockets or processes.
fn run(runtime: &tokio::runtime::Runtime, command: Command) -> Ending {
    match command {
        Command::Dev(dev) => runtime.block_on(dev::run(&dev)),
        Command::Get(asked) => runtime.block_on(data::run_get(&asked)),
        Command::Put(asked) => runtime.block_on(data::run_put(&asked)),
        Command::Del(asked) => runtime.block_on(data::run_del(&asked)),
        Command::Status(asked) => runtime.block_on(status::run(&asked)),
        Command::Ring(asked) => runtime.block_on(ring::run(&asked)),
        Command::Explain(asked) => runtime.block_on(explain::run(&asked)),
        Command::Bucket(asked) => runtime.block_on(bucket::run(&asked)),
        Command::Member(asked) => runtime.block_on(member::run(&asked)),
        Command::Plan(asked) => runtime.block_on(member::run_plan(&asked)),
        Command::Commit(asked) => runtime.block_on(member::run_commit(&asked)),
        Command::Abort(asked) => runtime.block_on(member::run_abort(&asked)),
        Command::Transfers(asked) => runtime.block_on(transfers::run(&asked)),
        Command::Digest(asked) => runtime.block_on(digest::run(&asked)),
        Command::Hints(asked) => runtime.block_on(hints::run(&asked)),
        Command::Tombstones(asked) => runtime.block_on(tombstones::run(&asked)),
        Command::Sync(asked) => runtime.block_on(sync::run(&asked)),
        Command::Fault(asked) => runtime.block_on(fault::run(&asked)),
        Command::Keys(asked) => runtime.block_on(keys::run(&asked)),
        Command::Conflicts(asked) => runtime.block_on(conflicts::run(&asked)),
        Command::Top(asked) => runtime.block_on(conflicts::run_top(&asked)),
        Command::Wait(asked) => runtime.block_on(wait::run(&asked)),
        Command::Shell(shell) => shell::run(runtime, &shell),
        Command::Serve(_) | Command::Config(_) | Command::Completions(_) | Command::Load(_) => {
            unreachable!("these need no runtime of ours")
        }
    }
}

/// One thread beside this one: at the shell's prompt, connections go on living.
fn runtime() -> Result<tokio::runtime::Runtime, Failure> {
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build();
    runtime.map_err(|error| Failure::new(Exit::No, "system", format!("no thread: {error}")))
}

/// Tells how a command ended.
fn end(ending: Ending, form: Form) -> Exit {
    let failure = match ending {
        Ok(exit) => return exit,
        Err(failure) => failure,
    };
    if form == Form::Json {
        // If that fails as well, there is nowhere left to say it.
        let _ = output::print_json(&failure.json());
    }
    output::complain(&failure);
    failure.exit
}

/// In which form to report a failure of `command`.
fn form_of(command: &Command) -> Form {
    match command {
        Command::Get(asked) => asked.form(),
        Command::Put(asked) => asked.form(),
        Command::Del(asked) => asked.form(),
        Command::Status(asked) => asked.form(),
        Command::Ring(asked) => asked.form(),
        Command::Explain(asked) => asked.form(),
        Command::Bucket(asked) => asked.form(),
        Command::Member(asked) => asked.form(),
        Command::Plan(asked) => asked.form(),
        Command::Commit(asked) => asked.form(),
        Command::Abort(asked) => asked.form(),
        Command::Transfers(asked) => asked.form(),
        Command::Digest(asked) => asked.form(),
        Command::Hints(asked) => asked.form(),
        Command::Tombstones(asked) => asked.form(),
        Command::Sync(asked) => asked.form(),
        Command::Fault(asked) => asked.form(),
        Command::Keys(asked) => asked.form(),
        Command::Conflicts(asked) => asked.form(),
        Command::Top(asked) => asked.form(),
        Command::Wait(asked) => asked.form(),
        Command::Load(load) => load.form(),
        Command::Config(args::ConfigCommand::Check(checked)) => checked.form(),
        Command::Config(args::ConfigCommand::Show(checked)) => checked.form(),
        Command::Serve(_) | Command::Dev(_) | Command::Shell(_) | Command::Completions(_) => {
            Form::Text
        }
    }
}

fn complete(completions: &Completions) -> Ending {
    let mut script = Vec::new();
    clap_complete::generate(completions.shell, &mut Arguments::command(), "ringdove", &mut script);
    output::print(&script)?;
    Ok(Exit::Done)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_commands_are_well_formed() {
        Arguments::command().debug_assert();
    }

    #[test]
    fn every_help_page_fits_eighty_columns() {
        fn check(command: &mut clap::Command) {
            let page = command.render_long_help().to_string();
            let wide = page.lines().find(|line| line.chars().count() > 80);
            assert_eq!(wide, None, "{}", command.get_name());
            command.get_subcommands_mut().for_each(check);
        }
        check(&mut Arguments::command().term_width(80));
    }
}
