//! `keys`: the keys of a bucket, as they come.

use std::ffi::OsString;
use std::fmt::Write as _;
use std::os::unix::ffi::OsStrExt as _;

use clap::Args;

use super::args::Asked;
use super::cluster::connect;
use super::exit::{Ending, Exit, Failure};
use super::output::{Form, bytes_json, bytes_line, print_some};
use super::quantity::parse_level;
use crate::client::{Client, Level, Listed};

const EXAMPLES: &str = "\
Examples:
  ringdove keys carts
  ringdove keys carts --prefix alice/ --json | jq -r '.keys[]'

A line for each key, in no order that means anything. A key that is there all
the time is shown at least once, also when nodes die or members change on the
way; deleted and expired keys are not. To see every acknowledged write, N-W+1
owners of each partition are asked; where fewer answer, exit code 3.";

/// List the keys of a bucket
#[derive(Clone, Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Keys {
    /// The bucket [default: default]
    pub(super) bucket: Option<String>,
    /// Only keys that begin with this
    #[arg(long, value_name = "P")]
    pub(super) prefix: Option<OsString>,
    /// No more than so many
    #[arg(long, value_name = "N")]
    pub(super) limit: Option<u64>,
    /// Owners of each partition that must answer [default: enough to see every write]
    #[arg(long, value_name = "LEVEL", value_parser = parse_level)]
    pub(super) r: Option<Level>,
}

/// Keys that are written at once.
const TOGETHER_BYTES: usize = 64 * 1024;

pub(super) async fn run(asked: &Asked<Keys>) -> Ending {
    let client = connect(&asked.cluster).await?;
    keys(&client, &asked.question, "default", asked.form()).await
}

/// Lists the keys of the bucket that is named, or else of `bucket`.
pub(super) async fn keys(client: &Client, asked: &Keys, bucket: &str, form: Form) -> Ending {
    let bucket = client.bucket(asked.bucket.as_deref().unwrap_or(bucket))?;
    let prefix = asked.prefix.as_ref().map_or(&b""[..], |prefix| prefix.as_bytes());
    let mut keys = bucket.keys().prefix(prefix).r(asked.r.unwrap_or(Level::Default));
    let mut lines = Lines { form, written: 0, waiting: String::new(), is_read: true };
    while lines.is_read && asked.limit.is_none_or(|limit| lines.written < limit) {
        match keys.next().await {
            Ok(Some(listed)) => lines.add(&listed)?,
            Ok(None) => break,
            Err(error) => {
                // What has been seen goes out before the reason why there is no more.
                lines.flush()?;
                return Err(error.into());
            }
        }
    }
    lines.end()?;
    Ok(Exit::Done)
}

/// The answer, as far as it has come.
struct Lines {
    form: Form,
    written: u64,
    waiting: String,
    is_read: bool,
}

impl Lines {
    fn add(&mut self, listed: &Listed) -> Result<(), Failure> {
        match self.form {
            Form::Text => self.waiting.push_str(&bytes_line(&listed.key)),
            Form::Json => {
                self.waiting.push_str(if self.written == 0 { "{\"keys\": [\n" } else { ",\n" });
                let _ = write!(self.waiting, "  {}", bytes_json(&listed.key));
            }
        }
        if self.form == Form::Text {
            self.waiting.push('\n');
        }
        self.written += 1;
        if self.waiting.len() >= TOGETHER_BYTES { self.flush() } else { Ok(()) }
    }

    fn flush(&mut self) -> Result<(), Failure> {
        self.is_read = print_some(std::mem::take(&mut self.waiting).as_bytes())?;
        Ok(())
    }

    fn end(&mut self) -> Result<(), Failure> {
        if self.form == Form::Json {
            let beginning = if self.written == 0 { "{\"keys\": [" } else { "\n" };
            let _ = writeln!(self.waiting, "{beginning}]}}");
        }
        self.flush()
    }
}
