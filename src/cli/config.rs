//! `config check` and `config show`: a node's configuration, before it runs.

use serde_json::json;

use super::args::{Checked, ConfigCommand};
use super::exit::{Ending, Exit, Failure};
use super::output::{self, Form};
use crate::server::config::{Config, ConfigError};

/// What stands in place of a password.
const HIDDEN: &str = "(hidden)";

pub(super) fn run(command: &ConfigCommand) -> Ending {
    match command {
        ConfigCommand::Check(checked) => check(checked),
        ConfigCommand::Show(checked) => show(checked),
    }
}

fn check(checked: &Checked) -> Ending {
    let file = checked.file.display();
    match Config::load(&checked.file, &checked.overrides) {
        Ok(_) => {
            let document = || json!({ "file": file.to_string(), "ok": true, "problems": [] });
            checked.form().answer(&format!("{file}: ok\n"), document)?;
            Ok(Exit::Done)
        }
        // The problems are the answer here, so the document has them instead of an error.
        Err(error) if checked.form() == Form::Json => {
            let problems = match &error {
                ConfigError::Refused { problems } => {
                    problems.iter().map(ToString::to_string).collect()
                }
                ConfigError::Unreadable { .. } => vec![error.to_string()],
            };
            output::print_json(
                &json!({ "file": file.to_string(), "ok": false, "problems": problems }),
            )?;
            Ok(Exit::Usage)
        }
        Err(error) => {
            explain(&error);
            Ok(Exit::Usage)
        }
    }
}

fn show(checked: &Checked) -> Ending {
    let mut config = match Config::load(&checked.file, &checked.overrides) {
        Ok(config) => config,
        Err(error) => return Err(refused(&error)),
    };
    for key in &mut config.gossip.keys {
        key.0 = HIDDEN.to_owned();
    }
    if !config.listen.password.is_empty() {
        config.listen.password.0 = HIDDEN.to_owned();
    }
    let text = toml::to_string(&config).expect("every setting can be written as it was read");
    checked.form().answer(&text, || json!(config))?;
    Ok(Exit::Done)
}

/// Shows what is wrong, as compilers do, so that an editor finds `file:line:column`.
pub(super) fn explain(error: &ConfigError) {
    output::note(&error.to_string());
}

/// A configuration that was refused, as the failure of another command.
pub(super) fn refused(error: &ConfigError) -> Failure {
    Failure::new(Exit::Usage, "config", error.to_string())
}
