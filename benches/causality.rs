//! What versions cost: merging, encoding, decoding, and a client's context.

use std::hint::black_box;

use bytes::Bytes;
use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use ringdove::causality::{Actor, Content, Context, Dot, Hlc, Object, Sibling, VersionVector};
use ringdove::ids::{Incarnation, WriteId};
use ringdove::key::Key;

fn sibling(replica: u64, counter: u64) -> Sibling {
    let actor = Actor { incarnation: Incarnation(replica << 40), k: 1000 + replica };
    Sibling {
        dot: Dot { actor, counter },
        write_id: WriteId(u128::from(counter)),
        hlc: Hlc(counter << 16),
        after: Hlc::default(),
        expires_at: None,
        content: Content::Value(Bytes::from(vec![b'v'; 100])),
    }
}

/// An object that three replicas have written in turn, each having seen all before it.
fn written_by_three() -> Object {
    let mut object = Object::new();
    for counter in 1..=100 {
        for replica in 0..3 {
            let basis = object.clock().clone();
            object.write(&basis, sibling(replica, counter));
        }
    }
    object
}

fn benches(criterion: &mut Criterion) {
    let key = Key::new(b"carts", b"a-key-of-usual-length").unwrap();
    let base = written_by_three();
    let mut newer = base.clone();
    newer.write(base.clock(), sibling(0, 101));
    let mut concurrent = base.clone();
    concurrent.write(&VersionVector::new(), sibling(1, 101));
    let encoded = newer.encode();
    let context = Context::of(&newer);
    let token = context.token(&key);

    let mut group = criterion.benchmark_group("causality");
    group.throughput(Throughput::Elements(1));
    for (name, other) in [("same", &base), ("newer", &newer), ("concurrent", &concurrent)] {
        group.bench_function(format!("merge_{name}"), |bench| {
            bench.iter_batched(
                || base.clone(),
                |mut object| (object.merge(other), object),
                BatchSize::SmallInput,
            );
        });
    }
    group.bench_function("encode_100_bytes", |bench| bench.iter(|| black_box(&newer).encode()));
    group.bench_function("decode_100_bytes", |bench| {
        bench.iter(|| Object::decode(black_box(encoded.clone())));
    });
    group.bench_function("digest_100_bytes", |bench| {
        bench.iter(|| ringdove::causality::digest_of(&key, black_box(&encoded)));
    });
    group.bench_function("context_token", |bench| bench.iter(|| black_box(&context).token(&key)));
    group.bench_function("context_parse", |bench| {
        bench.iter(|| Context::parse(&key, black_box(&token)));
    });
    group.finish();
}

criterion_group!(causality, benches);
criterion_main!(causality);
