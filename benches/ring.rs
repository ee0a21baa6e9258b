//! What a ring costs: to compute one, and to ask it where a key lives.

use std::hint::black_box;

use criterion::{Criterion, criterion_group, criterion_main};
use ringdove::ids::NodeId;
use ringdove::random::Random;
use ringdove::ring::{Ring, RingMember, partition_of};

fn members(count: usize) -> Vec<RingMember> {
    let mut random = Random::new(1);
    let zone = |at: usize| format!("zone-{}", at % 3);
    let one = |at| RingMember { id: NodeId(random.next_u128()), zone: zone(at), weight: 100 };
    (0..count).map(one).collect()
}

fn ring(bench: &mut Criterion) {
    for (count, partitions) in [(10, 1024), (100, 4096)] {
        let members = members(count);
        bench.bench_function(&format!("ring/new/{count}-members"), |bench| {
            bench.iter(|| Ring::new(black_box(&members), partitions, 3));
        });
    }
    let ring = Ring::new(&members(100), 4096, 3);
    let mut random = Random::new(2);
    bench.bench_function("ring/primaries-of-a-token", |bench| {
        bench.iter(|| {
            let partition = partition_of(black_box(random.next_u64()), ring.partitions());
            black_box(ring.primaries(partition)[0])
        });
    });
}

criterion_group!(benches, ring);
criterion_main!(benches);
