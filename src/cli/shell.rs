//! `shell`: the commands at a prompt.
//!
//! The same commands with the same options as on the command line, without `ringdove` before and
//! without `--addr` behind. What it adds is memory: the bucket one is in, and for each key the
//! context of what was last seen of it, so that a `put` after a `get` replaces what that `get` has
//! shown, and nothing that others have written since.

use std::collections::BTreeMap;

use clap::{Args, CommandFactory, Parser, Subcommand};
use rustyline::completion::Completer;
use rustyline::error::ReadlineError;
use rustyline::highlight::Highlighter;
use rustyline::hint::Hinter;
use rustyline::history::DefaultHistory;
use rustyline::validate::Validator;
use rustyline::{Editor, Helper};
use tokio::runtime::Runtime;

use super::args::{
    self, Abort, Bucket, Cluster, Commit, Del, Explain, Get, Member, Plan, Put, Ring, Status,
    Transfers,
};
use super::cluster::{Door, connect};
use super::conflicts::{Conflicts, Top};
use super::data::{self, key_of, named};
use super::digest::Digest;
use super::exit::{Ending, Exit, Failure};
use super::hints::Hints;
use super::keys::Keys;
use super::output::{self, Form};
use super::sync::{self, Sync};
use super::tombstones::Tombstones;
use super::{
    bucket, conflicts, digest, explain, hints, keys, member, ring, status, tombstones, transfers,
};
use crate::client::{Client, Context};
use crate::key::{self, Key, KeyError};

/// A line typed at the prompt.
#[derive(Debug, Parser)]
#[command(no_binary_name = true, name = "ringdove shell", disable_help_flag = true)]
#[command(help_template = "{subcommands}{after-help}")]
#[command(after_help = "`help COMMAND` tells more. Quote words with spaces; Tab completes.")]
struct Line {
    #[command(subcommand)]
    word: Word,
}

#[derive(Debug, Subcommand)]
enum Word {
    Get(Said<Get>),
    Put(Said<Put>),
    Del(Said<Del>),
    Explain(Said<Explain>),
    Status(Said<Status>),
    Ring(Said<Ring>),
    Bucket(Said<Bucket>),
    Member(Said<Member>),
    Plan(Said<Plan>),
    Commit(Said<Commit>),
    Abort(Said<Abort>),
    Transfers(Said<Transfers>),
    Digest(Said<Digest>),
    Hints(Said<Hints>),
    Tombstones(Said<Tombstones>),
    Sync(Said<Sync>),
    Keys(Said<Keys>),
    Conflicts(Said<Conflicts>),
    Top(Said<Top>),
    /// Go to another bucket
    Use {
        /// Its name
        bucket: String,
    },
    /// Leave (also Ctrl-D)
    #[command(alias = "exit")]
    Quit,
}

// A question to the cluster that the shell is connected to. (No doc comment, as for `Asked`.)
#[derive(Debug, Args)]
struct Said<Q: Args> {
    #[command(flatten)]
    question: Q,
    /// Answer with one JSON document
    #[arg(long, global = true)]
    json: bool,
}

impl<Q: Args> Said<Q> {
    fn form(&self) -> Form {
        if self.json { Form::Json } else { Form::Text }
    }
}

struct Session {
    client: Client,
    cluster: Cluster,
    bucket: String,
    /// What was last seen of each key.
    seen: BTreeMap<Key, Context>,
}

/// Reads and carries out lines until there are no more.
pub(super) fn run(runtime: &Runtime, shell: &args::Shell) -> Ending {
    let client = runtime.block_on(connect(&shell.cluster))?;
    client.bucket(&shell.bucket)?;
    let members = client.topology().state().serving().count();
    let cluster = client.topology().state().cluster.clone();
    let mut editor: Editor<Commands, DefaultHistory> = Editor::new().map_err(no_terminal)?;
    editor.set_helper(Some(Commands));
    if output::is_terminal() {
        output::note(&format!("cluster {cluster}, {members} nodes; `help` lists the commands"));
    }
    let (cluster, bucket) = (shell.cluster.clone(), shell.bucket.clone());
    let mut session = Session { client, cluster, bucket, seen: BTreeMap::new() };
    loop {
        match editor.readline(&format!("{}> ", session.bucket)) {
            Ok(line) if line.trim().is_empty() => {}
            Ok(line) => {
                let _ = editor.add_history_entry(&line);
                if !session.obey(runtime, &line) {
                    return Ok(Exit::Done);
                }
            }
            // Ctrl-C gives up a line, as in other shells; Ctrl-D leaves.
            Err(ReadlineError::Interrupted) => {}
            Err(ReadlineError::Eof) => return Ok(Exit::Done),
            Err(error) => return Err(no_terminal(error)),
        }
    }
}

fn no_terminal(error: ReadlineError) -> Failure {
    Failure::new(Exit::Usage, "terminal", format!("cannot read the terminal: {error}"))
}

impl Session {
    /// Carries out one line. False when it was the last.
    fn obey(&mut self, runtime: &Runtime, line: &str) -> bool {
        let words = match split(line) {
            Ok(words) => words,
            Err(failure) => {
                output::complain(&failure);
                return true;
            }
        };
        match Line::try_parse_from(words) {
            Ok(Line { word: Word::Quit }) => return false,
            Ok(Line { word }) => {
                if let Err(failure) = runtime.block_on(self.carry_out(word)) {
                    output::complain(&failure);
                }
            }
            // Help, or what is wrong with the line.
            Err(answer) => drop(answer.print()),
        }
        true
    }

    async fn carry_out(&mut self, word: Word) -> Result<(), Failure> {
        let time = self.cluster.timeout;
        match word {
            Word::Get(said) => self.get(said).await?,
            Word::Put(said) => self.put(said).await?,
            Word::Del(said) => self.del(said).await?,
            Word::Explain(said) => {
                let bucket = said.question.bucket.as_deref().unwrap_or(&self.bucket);
                let key = named(&said.question.key, bucket)?;
                explain::explain(&self.client, &key, time, said.form()).await?;
            }
            Word::Status(said) => {
                status::status(&self.client, &said.question, time, said.form()).await?;
            }
            Word::Ring(said) => {
                ring::ring(&self.client, &said.question, &self.bucket, said.form()).await?;
            }
            Word::Bucket(said) => {
                bucket::bucket(&self.client, &said.question, said.form()).await?;
            }
            Word::Member(said) => {
                member::member(&self.client, &said.question, said.form()).await?;
            }
            Word::Plan(said) => drop(member::plan(&self.client, time, said.form()).await?),
            Word::Commit(said) => {
                member::commit(&self.client, &said.question, said.form()).await?;
            }
            Word::Abort(said) => drop(member::abort(&self.client, said.form()).await?),
            Word::Transfers(said) => {
                transfers::transfers(&self.client, time, said.form()).await?;
            }
            Word::Digest(said) => drop(digest::digest(&self.client, time, said.form()).await?),
            Word::Hints(said) => drop(hints::hints(&self.client, said.form()).await?),
            Word::Tombstones(said) => drop(tombstones::show(&self.client, said.form()).await?),
            Word::Sync(said) => {
                sync::sync(&self.client, &said.question, time, said.form()).await?;
            }
            Word::Keys(said) => {
                let (asked, form) = (&said.question, said.form());
                let _ = keys::keys(&self.client, asked, &self.bucket, form).await?;
            }
            Word::Conflicts(said) => {
                let _ = conflicts::conflicts(&self.client, &said.question, said.form()).await?;
            }
            Word::Top(said) => drop(conflicts::top(&self.client, said.form()).await?),
            Word::Use { bucket } => {
                if !key::is_bucket_name(bucket.as_bytes()) {
                    return Err(KeyError::BucketName.into());
                }
                if self.client.refresh().await?.bucket(&bucket).is_none() {
                    return Err(bucket::unknown(&bucket));
                }
                self.bucket = bucket;
            }
            Word::Quit => {}
        }
        Ok(())
    }

    async fn get(&mut self, said: Said<Get>) -> Result<(), Failure> {
        let key = key_of(&said.question.target, &self.bucket)?;
        let door = self.door(said.question.target.direct).await?;
        let (_, context) = data::get(&door, key.clone(), &said.question, said.form()).await?;
        self.seen.insert(key, context);
        Ok(())
    }

    async fn put(&mut self, said: Said<Put>) -> Result<(), Failure> {
        let put = &said.question;
        let key = key_of(&put.target, &self.bucket)?;
        let says_what = put.context.is_some() || put.new || put.blind;
        let seen = self.recall(&key, says_what);
        let door = self.door(put.target.direct).await?;
        let value = data::bytes_of(&put.value);
        let context = data::put(&door, key.clone(), value, put, seen, said.form()).await?;
        self.seen.insert(key, context);
        Ok(())
    }

    async fn del(&mut self, said: Said<Del>) -> Result<(), Failure> {
        let del = &said.question;
        let key = key_of(&del.target, &self.bucket)?;
        let seen = self.recall(&key, del.context.is_some());
        let door = self.door(del.target.direct).await?;
        let context = data::del(&door, key.clone(), del, seen, said.form()).await?;
        self.seen.insert(key, context);
        Ok(())
    }

    /// What a write of `key` replaces, unless it says so itself.
    fn recall(&self, key: &Key, says_what: bool) -> Option<Context> {
        let seen = self.seen.get(key).filter(|_| !says_what).cloned();
        if seen.is_some() {
            output::note("replaces what was last seen here of this key");
        }
        seen
    }

    async fn door(&self, direct: bool) -> Result<Door, Failure> {
        if direct {
            return Door::open(&self.cluster, true).await;
        }
        Ok(Door::Routed(self.client.clone()))
    }
}

/// Words as other shells split them: at blanks, but not within quotes nor behind a backslash.
fn split(line: &str) -> Result<Vec<String>, Failure> {
    let (mut words, mut word, mut quote) = (Vec::new(), None::<String>, None);
    let mut letters = line.chars();
    while let Some(letter) = letters.next() {
        match (letter, quote) {
            ('\\', None | Some('"')) => {
                word.get_or_insert_default().push(letters.next().unwrap_or('\\'));
            }
            (_, Some(open)) if letter == open => quote = None,
            ('"' | '\'', None) => {
                quote = Some(letter);
                word.get_or_insert_default();
            }
            (_, None) if letter.is_whitespace() => words.extend(word.take()),
            _ => word.get_or_insert_default().push(letter),
        }
    }
    words.extend(word);
    match quote {
        None => Ok(words),
        Some(open) => Err(Failure::usage(format!("the line ends within {open}"))
            .hint("close the quote, or put a backslash before it")),
    }
}

/// Completes the names of commands and options.
struct Commands;

/// What may stand in place of the last word of `line`, and where that word begins.
fn candidates(line: &str) -> (usize, Vec<String>) {
    let start = line.rfind(char::is_whitespace).map_or(0, |blank| blank + 1);
    let mut command = Line::command();
    command.build();
    let mut at = &command;
    for word in line[..start].split_whitespace() {
        at = at.find_subcommand(word).unwrap_or(at);
    }
    let stub = &line[start..];
    let names = at.get_subcommands().map(|command| command.get_name().to_owned());
    let options = at.get_arguments().filter_map(|option| Some(format!("--{}", option.get_long()?)));
    let all = names.chain(options.filter(|_| stub.starts_with('-')));
    (start, all.filter(|name| name.starts_with(stub)).map(|name| name + " ").collect())
}

impl Completer for Commands {
    type Candidate = String;

    fn complete(
        &self,
        line: &str,
        position: usize,
        _: &rustyline::Context<'_>,
    ) -> rustyline::Result<(usize, Vec<String>)> {
        Ok(candidates(&line[..position]))
    }
}

impl Hinter for Commands {
    type Hint = String;
}

impl Highlighter for Commands {}
impl Validator for Commands {}
impl Helper for Commands {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_split_as_in_other_shells() {
        let split = |line| split(line).unwrap();
        assert_eq!(split("put k  v"), ["put", "k", "v"]);
        assert_eq!(split(r#"put 'a b' "c \" d" e\ f ''"#), ["put", "a b", "c \" d", "e f", ""]);
        assert_eq!(split("  "), [""; 0]);
        assert!(super::split("put 'a").is_err());
    }

    #[test]
    fn a_word_is_completed_by_what_may_stand_there() {
        assert_eq!(candidates("ge"), (0, vec!["get ".to_owned()]));
        assert_eq!(candidates("bucket cr"), (7, vec!["create ".to_owned()]));
        assert_eq!(candidates("get k --rec"), (6, vec!["--receipt ".to_owned()]));
        assert!(candidates("get ").1.is_empty());
    }

    #[test]
    fn the_lines_are_well_formed() {
        Line::command().debug_assert();
        assert!(Line::try_parse_from(["put", "k", "-1", "--blind"]).is_ok());
        assert!(Line::try_parse_from(["put", "k", "v", "--blind", "--new"]).is_err());
    }
}
