//! The bytes of the framed protocol are what they were.
//!
//! `tests/golden/wire` has a file for each message below. A difference means that nodes and
//! clients of different builds no longer understand each other: changing a file is a decision
//! (a new version, a line in `docs/PROTOCOL.md`), never a repair of this test. To write the
//! files anew: `RINGDOVE_BLESS=1 cargo test --test wire_golden`.

use std::fmt::Write as _;
use std::path::PathBuf;

use bytes::{Bytes, BytesMut};
use ringdove::causality::{Actor, Dot, Hlc};
use ringdove::ids::{Incarnation, NodeId, Partition, WriteId};
use ringdove::key::Key;
use ringdove::limits;
use ringdove::time::{Instant, WallMs};
use ringdove::wire::codec::{decode_request, decode_response, encode_request, encode_response};
use ringdove::wire::frame::{self, Frame, Kind, Marks};
use ringdove::wire::greeting::{self, Hello, Introduction, Refused, Role, Welcome};
use ringdove::wire::messages::*;
use ringdove::wire::reap::{Candidate, ReapReply, ReapRequest, Round};
use ringdove::wire::transfer::{
    Blob, Noted, Page, PageBuilder, PageRequest, SlotId, SlotView, TransferReply, TransferRequest,
};

const NODE: NodeId = NodeId(0xa1a2_a3a4_a5a6_a7a8_a9aa_abac_adae_afb0);
const INCARNATION: Incarnation = Incarnation(0xc1c2_c3c4_c5c6_c7c8);
const WRITE_ID: WriteId = WriteId(0x0102_0304_0506_0708_090a_0b0c_0d0e_0f10);
const TOPOLOGY: TopologyVersion = TopologyVersion { epoch: 9, hash: 0x1122_3344_5566_7788 };

/// A golden file: its name, what it shows, and the frame as this build writes it.
struct Golden {
    name: &'static str,
    says: &'static str,
    frame: BytesMut,
}

fn golden(name: &'static str, says: &'static str, write: impl FnOnce(&mut BytesMut)) -> Golden {
    let mut frame = BytesMut::new();
    write(&mut frame);
    Golden { name, says, frame }
}

fn key() -> Key {
    Key::new(b"carts", b"alice").unwrap()
}

fn receipt() -> Receipt {
    Receipt {
        n: 3,
        needed: 2,
        acks: 2,
        primaries: 1,
        fallbacks: 1,
        fsynced: 2,
        zones: 2,
        coordinator: NODE,
        micros: 1500,
        topology: TOPOLOGY,
    }
}

fn page() -> Page {
    let mut builder = PageBuilder::default();
    builder.push(&key(), 0x55, Some(b"object"));
    builder.push(&Key::new(b"carts", b"bob").unwrap(), 0x66, None);
    let mut page = builder.finish(b"carts\0bob", true, 7);
    page.wait_ms = 20;
    page
}

fn put() -> Put {
    Put {
        key: key(),
        write_id: WRITE_ID,
        attempt: 0,
        basis: Basis::Observed,
        condition: Condition::None,
        value: Some(Bytes::from_static(b"milk")),
        expiry: Expiry::Bucket,
        w: Level::Default,
        pw: Level::Default,
        strict: false,
        budget_ms: 5000,
    }
}

fn value(counter: u64, expires_at: Option<WallMs>, data: &'static [u8]) -> Value {
    let actor = Actor { incarnation: INCARNATION, k: 5 };
    let (hlc, data) = (Hlc(0x0192_0000_0000_0000 + counter), Bytes::from_static(data));
    Value { dot: Dot { actor, counter }, write_id: WRITE_ID, hlc, expires_at, data }
}

fn greetings() -> Vec<Golden> {
    let client = Hello {
        oldest_version: 1,
        newest_version: 1,
        features: 0,
        role: Role::Client,
        cluster: "shop".to_owned(),
        node: None,
        agent: "example/1".to_owned(),
    };
    let introduction = Introduction {
        id: NODE,
        incarnation: INCARNATION,
        name: "node-1".to_owned(),
        address: "10.0.0.1:7400".to_owned(),
    };
    let peer = Hello { role: Role::Peer, node: Some(introduction), ..client.clone() };
    let welcome = Welcome {
        version: 1,
        features: 0,
        cluster: "shop".to_owned(),
        node: NODE,
        incarnation: INCARNATION,
        name: "node-1".to_owned(),
        clock: Instant(0x0102),
        topology: TOPOLOGY,
        key_bytes: 4096,
        value_bytes: 1_048_576,
    };
    let message = "this is cluster \"shop\"; you asked for \"bank\"".to_owned();
    let refused = Refused { code: FailureCode::Denied, message };
    vec![
        golden("hello_client", "HELLO of a client that wants the cluster \"shop\"", |out| {
            greeting::encode_hello(out, &client);
        }),
        golden("hello_peer", "HELLO of a member", |out| greeting::encode_hello(out, &peer)),
        golden("welcome", "WELCOME", |out| greeting::encode_welcome(out, &welcome)),
        golden("refused", "REFUSED: the wrong cluster", |out| {
            greeting::encode_refused(out, &refused);
        }),
        golden("ping", "PING 3", |out| greeting::encode_ping(out, 3)),
        golden("pong", "PONG 3; the clock shows 258 µs", |out| {
            greeting::encode_pong(out, 3, Instant(0x0102))
        }),
        golden("goaway", "GOAWAY", |out| greeting::encode_goaway(out, "draining")),
    ]
}

fn requests() -> Vec<Golden> {
    let request = |name, says, marks, request: Request| {
        golden(name, says, |out| encode_request(out, 1, marks, &request).unwrap())
    };
    let forwarded = Marks { forwarded: true, ..Marks::NONE };
    let sent = Marks { sent: Some(Instant(0x0102)), ..Marks::NONE };
    let get = Get {
        key: key(),
        r: Level::Quorum,
        pr: Level::Default,
        budget_ms: 1000,
        strict: false,
        trace: true,
    };
    let replace = Put {
        attempt: 1,
        basis: Basis::Context(Bytes::from_static(b"CTX")),
        expiry: Expiry::After(60_000),
        w: Level::Count(2),
        pw: Level::Count(1),
        ..put()
    };
    let delete = Put { basis: Basis::Blind, value: None, w: Level::All, ..put() };
    let create = Put { condition: Condition::Absent, ..put() };
    let expires = Put { expiry: Expiry::At(WallMs(1_750_000_000_000)), ..put() };
    let persist = Put {
        basis: Basis::Context(Bytes::from_static(b"CTX")),
        condition: Condition::Unchanged,
        expiry: Expiry::Never,
        ..put()
    };
    let object = Bytes::from_static(b"OBJECT");
    let (purpose, slots) = (Purpose::Repair, 0);
    let write = Write { key: key(), object, purpose, slots, budget_ms: 900 };
    let hint = Write { purpose: Purpose::Hint(NODE), ..write.clone() };
    let (purpose, slots) = (Purpose::Replicate, 0x0102_0304_0506_0708);
    let replicate = Write { purpose, slots, ..write.clone() };
    let read = Read { key: key(), digest: true, fallback: false, slots, budget_ms: 900 };
    let strict = Get { strict: true, trace: false, ..get.clone() };
    let after = b"alice".to_vec();
    let id = SlotId { scope: 3.into(), partition: Partition(77), slot: 1 };
    let (owner, successor) = (Some(NODE), NodeId(5));
    let view = SlotView { id, version: 2, owner, successor, moves: 0 };
    let noted = Noted { slot: id, note: 0x0102_0304_0506_0708 };
    let page = PageRequest {
        noted,
        after: Blob(key().joined().clone()),
        bytes: 1 << 20,
        digests: false,
        running: 7,
    };
    let transfer = |name, says, asked| {
        request(name, says, Marks::NONE, Request::Control(Control::Transfer(asked)))
    };
    let reap = |name, says, asked| {
        request(name, says, Marks::NONE, Request::Control(Control::Reap(asked)))
    };
    let round = Round { reaper: NODE, number: 0x0102_0304_0506_0708 };
    let candidate = Candidate { key: Blob(key().joined().clone()), digest: 9 };
    let topology = TopologyVersion { epoch: 3, hash: 7 };
    let watch = ReapRequest::Watch { round, topology, keys: vec![candidate.clone()] };
    let (bucket, which) = ("carts".to_owned(), Which::Live);
    let (cursor, r) = (77 << 43, Level::Default);
    let keys = Control::Keys(Listing { bucket, which, prefix: after, cursor, count: 100, r });
    let (bucket, which, from) = ("carts".to_owned(), Which::Conflicts, 1 << 63);
    let (partition, count, prefix) = (77, 100, Vec::new());
    let owner_keys = OwnerListing { bucket, which, prefix, partition, from, count, slots };
    let owner_keys = Control::OwnerKeys(owner_keys);
    vec![
        request("get", "GET carts/alice, R quorum, traced", Marks::NONE, Request::Get(get.clone())),
        request("get_forwarded", "the same, passed on by a node", forwarded, Request::Get(get)),
        request(
            "put_sent",
            "PUT that was sent when the node's clock showed 258 µs",
            sent,
            Request::Put(put()),
        ),
        request(
            "get_strict",
            "GET carts/alice that counts owners only",
            Marks::NONE,
            Request::Get(strict),
        ),
        request(
            "put",
            "PUT carts/alice = milk, whatever is there",
            Marks::NONE,
            Request::Put(put()),
        ),
        request(
            "put_context",
            "PUT, second try, with a context, a time to live, W 2, PW 1",
            Marks::NONE,
            Request::Put(replace),
        ),
        request("put_delete", "PUT that deletes blindly, W all", Marks::NONE, Request::Put(delete)),
        request("put_create", "PUT only where no value is", Marks::NONE, Request::Put(create)),
        request("read", "READ, a digest will do", Marks::NONE, Request::Read(read.clone())),
        request(
            "read_fallback",
            "READ from a fallback, in full",
            Marks::NONE,
            Request::Read(Read { digest: false, fallback: true, slots: 0, ..read }),
        ),
        request(
            "write_replicate",
            "WRITE of a client's write",
            Marks::NONE,
            Request::Write(replicate),
        ),
        request(
            "write_hint",
            "WRITE to be kept for a member that is away",
            Marks::NONE,
            Request::Write(hint),
        ),
        request("write", "WRITE for repair", Marks::NONE, Request::Write(write.clone())),
        request(
            "write_restore",
            "WRITE in place of a damaged copy",
            Marks::NONE,
            Request::Write(Write { purpose: Purpose::Restore, ..write }),
        ),
        request(
            "control_topology",
            "CONTROL Topology",
            Marks::NONE,
            Request::Control(Control::Topology),
        ),
        request("control_keys", "CONTROL Keys", Marks::NONE, Request::Control(keys)),
        request(
            "control_owner_keys",
            "CONTROL OwnerKeys",
            Marks::NONE,
            Request::Control(owner_keys),
        ),
        request("put_expires_at", "PUT that expires at a time", Marks::NONE, Request::Put(expires)),
        request(
            "put_persist",
            "PUT of what was read, if it is that still",
            Marks::NONE,
            Request::Put(persist),
        ),
        transfer("control_transfer_begin", "CONTROL Transfer Begin", TransferRequest::Begin(view)),
        transfer("control_transfer_page", "CONTROL Transfer Page", TransferRequest::Page(page)),
        transfer(
            "control_transfer_hand_over",
            "CONTROL Transfer HandOver",
            TransferRequest::HandOver(vec![noted]),
        ),
        reap("control_reap_watch", "CONTROL Reap Watch, one key", watch),
        reap("control_reap_confirm", "CONTROL Reap Confirm", ReapRequest::Confirm(round)),
        reap("control_reap_drop", "CONTROL Reap Drop", ReapRequest::Drop(vec![candidate])),
        reap("control_reap_barrier", "CONTROL Reap Barrier", ReapRequest::Barrier),
    ]
}

fn answers() -> Vec<Golden> {
    let answer = |name, says, response: Response| {
        golden(name, says, |out| encode_response(out, 1, &response))
    };
    let got = Got {
        context: Bytes::from_static(b"CTX"),
        values: vec![value(2, None, b"milk"), value(1, Some(WallMs(1_700_000_000_000)), b"tea")],
        deleted: false,
        receipt: receipt(),
        trace: vec![Hop { node: NODE, micros: 250, what: "read".to_owned() }],
    };
    let deleted = Got { values: vec![], deleted: true, trace: vec![], ..got.clone() };
    let held = |object, amnesiac| Response::Held(Held { object, amnesiac });
    let unknown = Failure {
        outcome: Outcome::Unknown,
        acks: 1,
        needed: 2,
        write_id: Some(WRITE_ID),
        ..Failure::not_applied(FailureCode::Unknown, "1 of 2 replicas confirmed in time")
    };
    let busy = Failure { retry_after_ms: 20, ..Failure::not_applied(FailureCode::Busy, "busy") };
    let siblings = Failure {
        context: Bytes::from_static(b"CTX"),
        ..Failure::not_applied(FailureCode::Siblings, "read and merge")
    };
    let done = Done { context: Bytes::from_static(b"CTX"), receipt: receipt() };
    vec![
        answer("got_siblings", "GOT of two siblings and one hop", Response::Got(got)),
        answer("got_deleted", "GOT of a deletion", Response::Got(deleted)),
        answer("done", "DONE", Response::Done(done)),
        answer(
            "held_missing",
            "HELD: nothing, by a replica with amnesia",
            held(HeldObject::Missing, true),
        ),
        answer(
            "held_full",
            "HELD: an object",
            held(HeldObject::Full(Bytes::from_static(b"OBJECT")), false),
        ),
        answer("held_digest", "HELD: a digest", held(HeldObject::Digest(0x55), false)),
        answer("stored", "STORED and synced", Response::Stored(Stored { fsynced: true })),
        answer(
            "control_reply_transfer_page",
            "CONTROL_REPLY Transfer Page: one object, and one that is only named",
            Response::Control(ControlReply::Transfer(TransferReply::Page(page()))),
        ),
        answer(
            "control_reply_reap_standing",
            "CONTROL_REPLY Reap Standing",
            Response::Control(ControlReply::Reap(ReapReply::Standing(vec![true, false]))),
        ),
        answer("control_reply_ok", "CONTROL_REPLY Ok", Response::Control(ControlReply::Ok)),
        answer(
            "failed_unknown",
            "FAILED: a write whose outcome is unknown",
            Response::Failed(unknown),
        ),
        answer("failed_busy", "FAILED: come back in 20 ms", Response::Failed(busy)),
        answer("failed_siblings", "FAILED: too many siblings", Response::Failed(siblings)),
    ]
}

fn all() -> Vec<Golden> {
    [greetings(), requests(), answers()].into_iter().flatten().collect()
}

/// The header on a line of its own, then sixteen bytes to a line.
fn hexadecimal(frame: &[u8]) -> String {
    let (header, payload) = frame.split_at(frame::HEADER_BYTES);
    let mut text = String::new();
    for line in [header].into_iter().chain(payload.chunks(16)) {
        let digits: Vec<String> = line.iter().map(|byte| format!("{byte:02x}")).collect();
        writeln!(text, "{}", digits.join(" ")).unwrap();
    }
    text
}

fn path(file: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join(file)
}

fn decode_by_kind(frame: &Frame) -> bool {
    match frame.kind {
        Kind::Hello | Kind::Welcome | Kind::Refused => greeting::decode_greeting(frame).is_ok(),
        Kind::Ping => greeting::decode_ping(frame).is_ok(),
        Kind::Pong => greeting::decode_pong(frame).is_ok(),
        Kind::GoAway => greeting::decode_goaway(frame).is_ok(),
        kind if kind.is_request() => decode_request(frame).is_ok(),
        _ => decode_response(frame).is_ok(),
    }
}

fn decode(bytes: &[u8]) -> Result<Option<Frame>, frame::FrameError> {
    frame::decode(&mut BytesMut::from(bytes), limits::FRAME_PAYLOAD_BYTES)
}

#[test]
fn frames_are_what_they_were() {
    let bless = std::env::var_os("RINGDOVE_BLESS").is_some();
    for Golden { name, says, frame } in all() {
        let path = path(&format!("tests/golden/wire/{name}.hex"));
        let text = format!("# {says}\n{}", hexadecimal(&frame));
        if bless {
            std::fs::write(&path, &text).unwrap();
        }
        let golden = std::fs::read_to_string(&path).unwrap_or_default();
        assert_eq!(golden, text, "{name}: see the head of this file");
    }
}

#[test]
fn every_kind_has_a_golden_frame_and_no_golden_file_is_stray() {
    let all = all();
    let kinds: Vec<u8> = all.iter().map(|golden| golden.frame[9]).collect();
    for kind in Kind::ALL {
        assert!(kinds.contains(&(*kind as u8)), "{kind:?}");
    }
    for entry in std::fs::read_dir(path("tests/golden/wire")).unwrap() {
        let file = entry.unwrap().file_name().into_string().unwrap();
        assert!(all.iter().any(|golden| file == format!("{}.hex", golden.name)), "{file}");
    }
}

#[test]
fn golden_frames_read_back() {
    for Golden { name, frame, .. } in all() {
        let frame = decode(&frame).unwrap().unwrap();
        assert!(decode_by_kind(&frame), "{name}");
    }
}

#[test]
fn a_frame_cut_anywhere_is_incomplete() {
    for Golden { name, frame, .. } in all() {
        for end in 0..frame.len() {
            assert_eq!(decode(&frame[..end]), Ok(None), "{name} cut at {end}");
        }
    }
}

#[test]
fn a_payload_cut_anywhere_is_an_error() {
    for Golden { name, frame, .. } in all() {
        let whole = decode(&frame).unwrap().unwrap();
        for end in 0..whole.payload.len() {
            let cut = Frame { payload: whole.payload.slice(..end), ..whole.clone() };
            assert!(!decode_by_kind(&cut), "{name} cut at {end}");
        }
        let longer = [&whole.payload[..], &[0]].concat().into();
        assert!(!decode_by_kind(&Frame { payload: longer, ..whole }), "{name} with one byte more");
    }
}

#[test]
fn a_flipped_bit_is_never_taken_for_a_frame() {
    for Golden { name, frame, .. } in all() {
        for bit in 0..frame.len() * 8 {
            let mut damaged = frame.clone();
            damaged[bit / 8] ^= 1 << (bit % 8);
            let read = decode(&damaged);
            // A greater length makes the frame incomplete; anything else is an error.
            let waits = bit < 32 && matches!(read, Ok(None));
            assert!(waits || read.is_err(), "{name}, bit {bit}: {read:?}");
        }
    }
}

#[test]
fn a_flipped_bit_that_the_checksum_misses_panics_nowhere() {
    for Golden { frame, .. } in all() {
        let whole = decode(&frame).unwrap().unwrap();
        for bit in 0..whole.payload.len() * 8 {
            let mut damaged = whole.payload.to_vec();
            damaged[bit / 8] ^= 1 << (bit % 8);
            decode_by_kind(&Frame { payload: damaged.into(), ..whole.clone() });
        }
    }
}

#[test]
fn a_stream_split_anywhere_gives_the_same_frames() {
    let stream: Vec<u8> = all().iter().flat_map(|golden| golden.frame.to_vec()).collect();
    let drain = |buffer: &mut BytesMut, frames: &mut Vec<Frame>| {
        while let Some(frame) = frame::decode(buffer, limits::FRAME_PAYLOAD_BYTES).unwrap() {
            frames.push(frame);
        }
    };
    let (mut buffer, mut whole) = (BytesMut::from(&stream[..]), vec![]);
    drain(&mut buffer, &mut whole);
    assert_eq!(whole.len(), all().len());
    for split in 0..=stream.len() {
        let (mut buffer, mut frames) = (BytesMut::new(), vec![]);
        for part in [&stream[..split], &stream[split..]] {
            buffer.extend_from_slice(part);
            drain(&mut buffer, &mut frames);
        }
        assert_eq!(frames, whole, "split at {split}");
    }
    let (mut buffer, mut frames) = (BytesMut::new(), vec![]);
    for byte in stream {
        buffer.extend_from_slice(&[byte]);
        drain(&mut buffer, &mut frames);
    }
    assert_eq!(frames, whole, "byte by byte");
}

#[test]
fn the_protocol_document_shows_the_golden_bytes() {
    let document = std::fs::read_to_string(path("docs/PROTOCOL.md")).unwrap();
    for shown in ["hello_client", "welcome", "put", "done"] {
        let golden = all().into_iter().find(|golden| golden.name == shown).unwrap();
        for line in hexadecimal(&golden.frame).lines() {
            assert!(document.contains(line), "{shown}: {line}");
        }
    }
    let token = format!("{:016x}", key().token());
    assert!(document.contains(&token), "the token of carts/alice is {token}");
}
