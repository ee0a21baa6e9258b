//! The bytes of objects, contexts and digests, as they are on disks and in clients' hands.
//!
//! `golden/causality/encodings.txt` holds them. A test here that fails means that an older version
//! could not read what this one writes: that is a decision, never a repair.

use bytes::Bytes;
use ringdove::causality::{
    Actor, Content, Context, ContextError, Dot, Hlc, Object, Sibling, VersionVector, digest_of,
};
use ringdove::codec::CodecError;
use ringdove::ids::{Incarnation, WriteId};
use ringdove::key::Key;
use ringdove::time::WallMs;

const GOLDEN: &str = include_str!("golden/causality/encodings.txt");

const ANN: Actor = Actor { incarnation: Incarnation(0x0102_0304_0506_0708), k: 7 };
const BOB: Actor = Actor { incarnation: Incarnation(u64::MAX), k: 300 };

fn key() -> Key {
    Key::new(b"carts", b"ann").unwrap()
}

fn sibling(actor: Actor, counter: u64, content: Content) -> Sibling {
    Sibling {
        dot: Dot { actor, counter },
        write_id: WriteId(0x0011_2233_4455_6677_8899_aabb_ccdd_0000 + u128::from(counter)),
        hlc: Hlc((1_700_000_000_000 << 16) | 5),
        after: Hlc::default(),
        expires_at: None,
        content,
    }
}

fn holding(dots: &[(Actor, u64)]) -> VersionVector {
    let mut clock = VersionVector::new();
    for (actor, counter) in dots {
        clock.insert(Dot { actor: *actor, counter: *counter });
    }
    clock
}

fn value(text: &'static str) -> Content {
    Content::Value(Bytes::from_static(text.as_bytes()))
}

/// One object for each thing an encoding can say.
fn objects() -> Vec<(&'static str, Object)> {
    let nothing = VersionVector::new();
    let mut one = Object::new();
    one.write(&nothing, sibling(ANN, 1, value("hello")));

    let mut deleted = one.clone();
    let shown = Context::of(&one);
    let mut tombstone = sibling(BOB, 200, Content::Tombstone);
    (tombstone.hlc, tombstone.after) = (Hlc(shown.hlc.0 + 1), shown.hlc);
    deleted.overwrite(&shown.names, tombstone.write_id);
    deleted.write(&shown.clock, tombstone);

    let mut siblings = one.clone();
    let mut expiring = sibling(BOB, 1, value(""));
    expiring.expires_at = Some(WallMs(1_700_000_060_000));
    siblings.write(&nothing, expiring);
    let mut expiring_tombstone = sibling(BOB, 2, Content::Tombstone);
    expiring_tombstone.expires_at = Some(WallMs(0));
    siblings.write(&nothing, expiring_tombstone);

    let mut collision = one.clone();
    let mut again = Object::new();
    again.write(&nothing, sibling(ANN, 1, value("world")));
    collision.merge(&again);

    // A replica that got two writes through a client's context, and the first of three otherwise.
    let mut gaps = one.clone();
    gaps.write(&holding(&[(ANN, 4), (BOB, 9)]), sibling(ANN, 3, value("seen")));
    gaps.write(&nothing, sibling(BOB, 300, value("beside")));

    vec![
        ("empty", Object::new()),
        ("one_value", one),
        ("deleted", deleted),
        ("siblings", siblings),
        ("collision", collision),
        ("gaps", gaps),
    ]
}

fn context(object: &Object) -> Context {
    Context::of(object)
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[test]
fn encodings_digests_and_tokens_are_what_they_were() {
    let mut lines = String::new();
    for (name, object) in objects() {
        let token = context(&object).token(&key());
        lines += &format!("object  {name:<10} {}\n", hex(&object.encode()));
        lines += &format!("digest  {name:<10} {:032x}\n", object.digest(&key()));
        lines += &format!("context {name:<10} {}\n", std::str::from_utf8(&token).unwrap());
    }
    let golden: String =
        GOLDEN.lines().filter(|line| !line.starts_with('#')).map(|l| format!("{l}\n")).collect();
    assert!(lines == golden, "the encodings are now:\n{lines}");
}

#[test]
fn what_was_encoded_reads_back() {
    for (name, object) in objects() {
        let encoded = object.encode();
        assert_eq!(object.digest(&key()), digest_of(&key(), &encoded));
        assert_eq!(Object::decode(encoded).as_ref(), Ok(&object), "{name}");
        let context = context(&object);
        assert_eq!(Context::parse(&key(), &context.token(&key())), Ok(context), "{name}");
    }
}

#[test]
fn a_digest_is_bound_to_its_key_and_to_where_the_key_ends() {
    let (_, object) = objects().remove(1);
    let encoded = object.encode();
    let other = Key::new(b"carts", b"an").unwrap();
    assert_ne!(digest_of(&key(), &encoded), digest_of(&other, &encoded));
    let shifted = [b"n", encoded.as_ref()].concat();
    assert_ne!(digest_of(&key(), &encoded), digest_of(&other, &shifted));
}

#[test]
fn every_truncation_of_an_object_is_an_error() {
    for (name, object) in objects() {
        let encoded = object.encode();
        for length in 0..encoded.len() {
            assert!(Object::decode(encoded.slice(..length)).is_err(), "{name} cut at {length}");
        }
        let longer = [encoded.as_ref(), &[0]].concat();
        assert_eq!(Object::decode(longer.into()), Err(CodecError::Trailing(1)));
    }
}

#[test]
fn every_changed_byte_of_an_object_is_an_error_or_another_object() {
    let (mut refused, mut accepted) = (0, 0);
    for (name, object) in objects() {
        let encoded = object.encode();
        for at in 0..encoded.len() {
            for change in 1..=255 {
                let mut bytes = encoded.to_vec();
                bytes[at] ^= change;
                let bytes = Bytes::from(bytes);
                match Object::decode(bytes.clone()) {
                    Err(_) => refused += 1,
                    Ok(other) => {
                        accepted += 1;
                        assert_eq!(other.encode(), bytes, "{name}, byte {at} ^ {change}");
                        assert_ne!(other, object);
                    }
                }
            }
        }
    }
    assert!(refused > 1000 && accepted > 1000, "{refused} refused, {accepted} accepted");
}

#[test]
fn objects_that_no_encoder_writes_are_refused() {
    let encode = |clock: &[u8], siblings: &[u8]| {
        Object::decode([&[1][..], clock, &[0], siblings].concat().into())
    };
    let actor = |byte: u8, counter: u8| [&[byte; 8][..], &[1, counter]].concat();
    let clock = [&[2][..], &actor(1, 1), &actor(2, 1), &[0]].concat();
    assert!(encode(&clock, &[0]).is_ok());
    let gaps = [&[3][..], &actor(1, 1), &actor(1, 5), &actor(2, 4), &[2, 1, 3, 2, 4]].concat();
    assert!(encode(&gaps, &[0]).is_ok());
    for (what, clock) in [
        ("actors that descend", [&[2][..], &actor(2, 1), &actor(1, 1), &[0]].concat()),
        ("an actor twice", [&[2][..], &actor(1, 1), &actor(1, 2), &[0]].concat()),
        ("a counter of zero", [&[1][..], &actor(1, 0), &[0]].concat()),
        ("a gap of nothing", [&[2][..], &actor(1, 1), &actor(1, 5), &[1, 1, 2]].concat()),
        ("an overlap", [&[2][..], &actor(1, 3), &actor(1, 5), &[1, 1, 3]].concat()),
        ("runs that descend", [&[2][..], &actor(1, 5), &actor(1, 1), &[1, 0, 3]].concat()),
        ("a run that ends early", [&[1][..], &actor(1, 5), &[1, 0, 6]].concat()),
        ("a gap before the first", [&[1][..], &actor(1, 5), &[1, 0, 1]].concat()),
        ("a gap of counter zero", [&[1][..], &actor(1, 5), &[1, 0, 0]].concat()),
        ("a gap before no run", [&[1][..], &actor(1, 5), &[1, 1, 3]].concat()),
        ("a gap twice", [&[1][..], &actor(1, 5), &[2, 0, 3, 0, 3]].concat()),
        ("gaps that descend", [&[2][..], &actor(1, 5), &actor(2, 5), &[2, 1, 3, 0, 3]].concat()),
        ("more gaps than runs", [&[1][..], &actor(1, 5), &[0xff, 7]].concat()),
        ("more actors than bytes", vec![0xff, 7]),
        ("far too many actors", vec![0xff, 0xff, 0xff, 0x7f]),
    ] {
        assert!(encode(&clock, &[0]).is_err(), "{what}");
    }
    let rest = [&[9; 16 + 8][..], &[1]].concat();
    let sibling = |place: u8, counter: u8| [&[place, counter][..], &rest].concat();
    assert!(encode(&clock, &[&[2][..], &sibling(0, 1), &sibling(1, 1)].concat()).is_ok());
    assert!(encode(&gaps, &[&[2][..], &sibling(0, 1), &sibling(1, 3)].concat()).is_ok());
    // In the gap before the run, and behind it.
    for counter in [2, 6] {
        assert!(encode(&gaps, &[&[1][..], &sibling(1, counter)].concat()).is_err(), "{counter}");
    }
    for (what, siblings) in [
        ("siblings that descend", [&[2][..], &sibling(1, 1), &sibling(0, 1)].concat()),
        ("a sibling twice", [&[2][..], &sibling(1, 1), &sibling(1, 1)].concat()),
        ("an actor outside the clock", [&[1][..], &sibling(2, 1)].concat()),
        ("a counter above the clock", [&[1][..], &sibling(0, 2)].concat()),
        ("a dot of counter zero", [&[1][..], &sibling(0, 0)].concat()),
        ("more siblings than bytes", vec![0xff, 0x1f]),
    ] {
        assert!(encode(&clock, &siblings).is_err(), "{what}");
    }
}

#[test]
fn every_changed_or_missing_character_of_a_token_is_refused() {
    for (name, object) in objects() {
        let token = context(&object).token(&key());
        for length in 0..token.len() {
            assert!(Context::parse(&key(), &token[..length]).is_err(), "{name} cut at {length}");
        }
        for at in 0..token.len() {
            for change in 1..=255 {
                let mut text = token.to_vec();
                text[at] ^= change;
                assert!(Context::parse(&key(), &text).is_err(), "{name}, character {at}");
            }
        }
    }
}

#[test]
fn a_token_is_refused_with_what_to_do_about_it() {
    let token = context(&objects()[1].1).token(&key());
    let other = Key::new(b"carts", b"bob").unwrap();
    assert_eq!(Context::parse(&other, &token), Err(ContextError::OtherKeyOrDamaged));
    assert_eq!(Context::parse(&key(), b""), Err(ContextError::Empty));
    assert_eq!(Context::parse(&key(), b"not a token"), Err(ContextError::Damaged));
    assert_eq!(Context::parse(&key(), b"AAAA"), Err(ContextError::Damaged));
    let padded = [&token, &b"="[..]].concat();
    assert_eq!(Context::parse(&key(), &padded), Err(ContextError::Damaged));
    let long = vec![b'A'; 1 << 20];
    assert!(matches!(Context::parse(&key(), &long), Err(ContextError::TooLong { .. })));
    assert!(token.iter().all(|c| c.is_ascii_alphanumeric() || matches!(c, b'-' | b'_')));
}
