//! Strangers' clients, with their defaults: whoever has one should find it works.
//!
//! The Rust crate `redis` is always there. What is not installed is skipped, with a line that says
//! so: `redis-cli` and `redis-benchmark`, redis-py (its interpreter in `RINGDOVE_PYTHON`), and
//! ioredis (its `node_modules` in `RINGDOVE_NODE_MODULES`).

#[path = "text/node.rs"]
#[allow(dead_code, reason = "the clients here have connections of their own")]
mod node;

use node::Node;
use std::process::{Command, Output};

/// Runs a program; `None`, and a line that says so, where it is not installed.
fn run(command: &mut Command) -> Option<Output> {
    match command.output() {
        Ok(output) => Some(output),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            println!("skipped: {:?} is not installed", command.get_program());
            None
        }
        Err(error) => panic!("{command:?}: {error}"),
    }
}

fn said(output: &Output) -> String {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let (out, errors) = (text(&output.stdout), text(&output.stderr));
    assert!(output.status.success(), "{}: {out}{errors}", output.status);
    out
}

#[test]
fn the_rust_crate_redis_works_in_both_versions_of_the_protocol() {
    let node = Node::start("", "");
    for protocol in ["", "/?protocol=resp3"] {
        let address = format!("redis://127.0.0.1:{}{protocol}", node.text_port);
        let client = redis::Client::open(address).unwrap();
        let mut connection = client.get_connection().unwrap();
        let run = |command: &mut redis::Cmd, connection: &mut redis::Connection| {
            command.query::<redis::Value>(connection).unwrap()
        };
        run(redis::cmd("SET").arg("crate:a").arg("1"), &mut connection);
        run(redis::cmd("MSET").arg(&["crate:b", "2", "crate:c", "3"]), &mut connection);
        let mut mget = redis::cmd("MGET");
        mget.arg(&["crate:a", "crate:b", "crate:none", "crate:c"]);
        let values: Vec<Option<String>> = mget.query(&mut connection).unwrap();
        let expected = [Some("1"), Some("2"), None, Some("3")];
        assert_eq!(values.iter().map(Option::as_deref).collect::<Vec<_>>(), expected);
        let deleted: u8 = redis::cmd("DEL").arg("crate:a").query(&mut connection).unwrap();
        let gone: Option<String> = redis::cmd("GET").arg("crate:a").query(&mut connection).unwrap();
        assert_eq!((deleted, gone), (1, None));
        let mut pipeline = redis::pipe();
        for i in 0..500 {
            pipeline.cmd("SET").arg(format!("crate:{i}")).arg(i).ignore();
            pipeline.cmd("GET").arg(format!("crate:{i}"));
        }
        let values: Vec<u32> = pipeline.query(&mut connection).unwrap();
        assert_eq!(values, (0..500).collect::<Vec<_>>());
        let error = redis::cmd("SET").arg("k").arg("v").arg("NOPE").query::<()>(&mut connection);
        assert_eq!(
            error.unwrap_err().kind(),
            redis::ErrorKind::Server(redis::ServerErrorKind::ResponseError)
        );
        let error = redis::cmd("RD.BUCKET").arg("nowhere").query::<()>(&mut connection);
        assert_eq!(error.unwrap_err().code(), Some("NOBUCKET"));
    }
}

#[test]
fn redis_cli_works_by_line_by_scan_and_by_mass_insertion() {
    let node = Node::start("", "");
    let port = node.text_port.to_string();
    let cli = |arguments: &[&str]| {
        run(Command::new("redis-cli").args(["-p", &port]).args(arguments)).map(|out| said(&out))
    };
    let Some(pong) = cli(&["ping"]) else { return };
    assert_eq!(pong, "PONG\n");
    assert_eq!(cli(&["set", "cli:k", "v"]).unwrap(), "OK\n");
    assert_eq!(cli(&["-3", "get", "cli:k"]).unwrap(), "v\n");
    assert_eq!(cli(&["-n", "0", "get", "cli:k"]).unwrap(), "v\n");
    assert!(cli(&["--json", "rd.get", "cli:k"]).unwrap().contains("\"coordinator\""));
    assert!(cli(&["info", "persistence"]).unwrap().contains("loading:0"));
    assert!(cli(&["command", "docs", "rd.get"]).unwrap().contains("key [R r] [PR n]"));
    let pipe =
        r#"for i in $(seq 5000); do echo "SET cli:pipe:$i $i"; done | redis-cli -p "$0" --pipe"#;
    let piped = run(Command::new("sh").args(["-c", pipe, &port])).expect("there is a shell");
    assert!(said(&piped).contains("errors: 0, replies: 5000"), "{}", said(&piped));
    let scanned = cli(&["--scan", "--pattern", "cli:pipe:*"]).unwrap();
    assert_eq!(scanned.lines().count(), 5000);
}

#[test]
fn redis_benchmark_runs_without_an_error_reply() {
    let node = Node::start("", "");
    for more in [&[][..], &["-P", "16"], &["-P", "16", "-r", "1000"], &["-3"]] {
        let mut benchmark = Command::new("redis-benchmark");
        benchmark.args([
            "-p",
            &node.text_port.to_string(),
            "-t",
            "ping,set,get",
            "-n",
            "2000",
            "-q",
        ]);
        let Some(output) = run(benchmark.args(more)) else { return };
        // It ends with another status at the first error reply.
        let out = said(&output);
        assert!(out.contains("GET") && !out.contains("WARN"), "{more:?}: {out}");
    }
}

#[test]
fn redis_py_works_with_its_defaults() {
    let Some(python) = std::env::var_os("RINGDOVE_PYTHON") else {
        return println!("skipped: RINGDOVE_PYTHON names no interpreter that has redis-py");
    };
    let node = Node::start("", "");
    let script = "\
import redis, sys
r = redis.Redis(port=int(sys.argv[1]))
assert r.ping() and r.set('py:k', 'v') and r.get('py:k') == b'v'
assert r.set('py:k', 'w', nx=True) is None and r.set('py:e', 'v', ex=100) and 90 < r.ttl('py:e') <= 100
assert r.mset({'py:a': 1, 'py:b': 2}) and r.mget('py:a', 'py:none', 'py:b') == [b'1', None, b'2']
assert r.delete('py:a', 'py:none') == 1 and r.exists('py:b') == 1 and r.getdel('py:b') == b'2'
assert r.expire('py:k', 100) and 90 < r.ttl('py:k') <= 100 and not r.expire('py:k', 200, nx=True)
assert r.expireat('py:k', 33177117420) and r.expiretime('py:k') == 33177117420
assert r.pexpire('py:k', 100000, lt=True) and 90000 < r.pttl('py:k') <= 100000
assert r.set('py:k', 'v', keepttl=True) and 0 < r.ttl('py:k') and r.persist('py:k') and r.ttl('py:k') == -1
assert r.getex('py:k', pxat=33177117420001) == b'v' and r.pexpiretime('py:k') == 33177117420001
assert r.getex('py:k', persist=True) == b'v' and r.ttl('py:k') == -1 and not r.persist('py:none')
assert r.set('py:gone', 'v', exat=33177117420) and r.expire('py:gone', -1) and r.get('py:gone') is None
p = r.pipeline(transaction=False)
for i in range(2000): p.set(f'py:{i}', i).get(f'py:{i}')
answers = p.execute()
assert answers[1::2] == [str(i).encode() for i in range(2000)], answers[:10]
assert len(list(r.scan_iter('py:*', count=100))) == 2002
assert r.info()['loading'] == 0 and r.dbsize() > 0 and r.client_id() > 0
context, values, receipt = r.execute_command('RD.GET', 'py:k')
assert values == [b'v'] and (receipt[b'n'] == 1 if isinstance(receipt, dict) else b'n' in receipt), receipt
try:
    r.execute_command('RD.PUT', 'py:k', 'v', 'NEW')
    assert False, 'NEW over a value'
except redis.ResponseError as error:
    assert str(error).startswith('EXISTS'), error
print('done', redis.__version__)
";
    let mut command = Command::new(python);
    let Some(output) = run(command.args(["-c", script, &node.text_port.to_string()])) else {
        return;
    };
    assert!(said(&output).starts_with("done"));
}

#[test]
fn ioredis_works_with_its_defaults() {
    let Some(modules) = std::env::var_os("RINGDOVE_NODE_MODULES") else {
        return println!("skipped: RINGDOVE_NODE_MODULES names no folder that has ioredis");
    };
    let node = Node::start("", "");
    let script = "\
const Redis = require('ioredis');
const assert = require('assert');
(async () => {
  const r = new Redis(Number(process.argv[1]));
  assert.equal(await r.set('io:k', 'v'), 'OK');
  assert.equal(await r.get('io:k'), 'v');
  assert.deepEqual(await r.mget('io:k', 'io:none'), ['v', null]);
  assert.equal(await r.expire('io:k', 100, 'NX'), 1);
  assert.equal(await r.ttl('io:k'), 100);
  assert.equal(await r.pexpireat('io:k', 33177117420001), 1);
  assert.equal(await r.pexpiretime('io:k'), 33177117420001);
  assert.equal(await r.set('io:k', 'v', 'KEEPTTL'), 'OK');
  assert.equal(await r.getex('io:k', 'PERSIST'), 'v');
  assert.equal(await r.persist('io:k'), 0);
  const listed = [];
  for await (const keys of r.scanStream({ match: 'io:*' })) listed.push(...keys);
  assert.deepEqual(listed, ['io:k']);
  assert.equal(await r.dbsize(), 1);
  const answers = await r.pipeline().set('io:a', 1).get('io:a').del('io:a').exec();
  assert.deepEqual(answers.map(([error, answer]) => error || answer), ['OK', '1', 1]);
  assert.deepEqual((await r.call('RD.GET', 'io:k'))[1], ['v']);
  console.log('done');
  r.disconnect();
})().catch(error => { console.error(error); process.exit(1); });
";
    let mut command = Command::new("node");
    command.env("NODE_PATH", modules).args(["-e", script, &node.text_port.to_string()]);
    let Some(output) = run(&mut command) else { return };
    assert_eq!(said(&output), "done\n");
}
