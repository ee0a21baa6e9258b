//! What a message costs between a socket's buffer and the value a shard takes.
//!
//! `cargo bench --no-default-features --bench wire`. Each figure is for 64 frames in one buffer,
//! as a busy connection's read finds them; divide by 64, or read the elements per second.

use std::hint::black_box;

use bytes::{Bytes, BytesMut};
use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use ringdove::causality::{Actor, Dot, Hlc};
use ringdove::ids::{Incarnation, NodeId, WriteId};
use ringdove::key::Key;
use ringdove::limits;
use ringdove::wire::codec::{decode_request, decode_response, encode_request, encode_response};
use ringdove::wire::frame;
use ringdove::wire::messages::*;

const FRAMES: u64 = 64;

fn key() -> Key {
    Key::new(b"default", b"user:00000000000042").expect("a valid key")
}

fn get() -> Request {
    let (r, pr) = (Level::Quorum, Level::Default);
    Request::Get(Get { key: key(), r, pr, budget_ms: 1000, strict: false, trace: false })
}

fn put(value_bytes: usize) -> Request {
    Request::Put(Put {
        key: key(),
        write_id: WriteId(42),
        attempt: 0,
        basis: Basis::Observed,
        condition: Condition::None,
        value: Some(Bytes::from(vec![7; value_bytes])),
        expiry: Expiry::Bucket,
        w: Level::Quorum,
        pw: Level::Default,
        strict: false,
        budget_ms: 1000,
    })
}

fn got(value_bytes: usize) -> Response {
    let actor = Actor { incarnation: Incarnation(1), k: 2 };
    let value = Value {
        dot: Dot { actor, counter: 3 },
        write_id: WriteId(42),
        hlc: Hlc(5),
        expires_at: None,
        data: Bytes::from(vec![7; value_bytes]),
    };
    let receipt = Receipt {
        n: 3,
        needed: 2,
        acks: 2,
        primaries: 2,
        fallbacks: 0,
        fsynced: 0,
        zones: 2,
        coordinator: NodeId(1),
        micros: 300,
        topology: TopologyVersion::default(),
    };
    let context = Bytes::from(vec![b'c'; 80]);
    Response::Got(Got { context, values: vec![value], deleted: false, receipt, trace: vec![] })
}

/// Measures writing 64 of a message into a buffer that is there already, and reading them.
fn measure(
    criterion: &mut Criterion,
    name: &str,
    encode: impl Fn(&mut BytesMut, u64),
    decode: impl Fn(&frame::Frame),
) {
    let write = |out: &mut BytesMut| (0..FRAMES).for_each(|id| encode(out, id));
    let mut group = criterion.benchmark_group(name);
    group.throughput(Throughput::Elements(FRAMES));
    group.bench_function("encode", |bencher| {
        let mut out = BytesMut::with_capacity(1 << 20);
        bencher.iter(|| {
            out.clear();
            write(black_box(&mut out));
        });
    });
    let mut whole = BytesMut::new();
    write(&mut whole);
    group.bench_function("decode", |bencher| {
        let arrive = || BytesMut::from(&whole[..]);
        let read = |buffer: &mut BytesMut| {
            while let Some(frame) =
                frame::decode(buffer, limits::FRAME_PAYLOAD_BYTES).expect("what was written")
            {
                decode(&frame);
            }
        };
        bencher.iter_batched_ref(arrive, read, BatchSize::SmallInput);
    });
    group.finish();
}

fn measure_request(criterion: &mut Criterion, name: &str, request: &Request) {
    let encode = |out: &mut BytesMut, id| {
        encode_request(out, id, frame::Marks::NONE, request).expect("it fits")
    };
    measure(criterion, name, encode, |frame| {
        black_box(decode_request(frame).expect("what was written"));
    });
}

fn measure_response(criterion: &mut Criterion, name: &str, response: &Response) {
    let encode = |out: &mut BytesMut, id| encode_response(out, id, response);
    measure(criterion, name, encode, |frame| {
        black_box(decode_response(frame).expect("what was written"));
    });
}

fn wire(criterion: &mut Criterion) {
    measure_request(criterion, "GET", &get());
    measure_request(criterion, "PUT 100 B", &put(100));
    measure_request(criterion, "PUT 1 KiB", &put(1024));
    measure_response(criterion, "GOT 100 B", &got(100));
    measure_response(criterion, "GOT 1 KiB", &got(1024));
}

criterion_group!(benches, wire);
criterion_main!(benches);
