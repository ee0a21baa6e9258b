//! What holds for every message and for no bytes at all: whatever is written reads back, and
//! whatever is read, reads without a panic and without memory on credit.

mod wire_values;

use bytes::{Bytes, BytesMut};
use ringdove::codec::Write as _;
use ringdove::limits;
use ringdove::random::Random;
use ringdove::time::Instant;
use ringdove::wire::WireError;
use ringdove::wire::codec::{Oversize, decode_request, decode_response, encode_request};
use ringdove::wire::frame::{self, Frame, FrameError, Kind, Marks};
use ringdove::wire::greeting::{self, Greeting};
use ringdove::wire::messages::*;
use wire_values::{Values, marks, only_frame, request_bytes, response_bytes};

/// Payloads tried for each kind.
const PAYLOADS: u64 = 200_000;

#[test]
fn every_request_reads_back() {
    let mut values = Values::new(1);
    for turn in 0..20_000 {
        let request = values.request(turn);
        let (id, marks) = (values.0.next_u64(), marks(&mut values));
        let mut out = BytesMut::new();
        encode_request(&mut out, id, marks, &request).unwrap();
        let frame = only_frame(out);
        // Of READ, WRITE and CONTROL nothing says when they were sent.
        let sent = marks.sent.filter(|_| matches!(request, Request::Get(_) | Request::Put(_)));
        assert_eq!((frame.id, frame.marks), (id, Marks { sent, ..marks }));
        assert!(frame.kind.is_request());
        assert_eq!(decode_request(&frame).unwrap(), request);
        assert!(matches!(decode_response(&frame), Err(WireError::Unexpected(_))));
    }
}

#[test]
fn every_answer_reads_back() {
    let mut values = Values::new(2);
    for turn in 0..20_000 {
        let response = values.response(turn);
        let frame = only_frame(response_bytes(&response));
        assert!(frame.kind.is_response());
        assert_eq!(decode_response(&frame).unwrap(), response);
        assert!(matches!(decode_request(&frame), Err(WireError::Unexpected(_))));
    }
}

#[test]
fn every_greeting_reads_back() {
    let mut values = Values::new(3);
    for _ in 0..5000 {
        let (hello, welcome, refused) = (values.hello(), values.welcome(), values.refused());
        let mut out = BytesMut::new();
        greeting::encode_hello(&mut out, &hello);
        greeting::encode_welcome(&mut out, &welcome);
        greeting::encode_refused(&mut out, &refused);
        for sent in [Greeting::Hello(hello), Greeting::Welcome(welcome), Greeting::Refused(refused)]
        {
            let frame = frame::decode(&mut out, limits::FRAME_PAYLOAD_BYTES_GREETING);
            assert_eq!(greeting::decode_greeting(&frame.unwrap().unwrap()).unwrap(), sent);
        }
        assert!(out.is_empty());
    }
}

#[test]
fn values_and_objects_are_slices_of_the_frame() {
    let mut values = Values::new(4);
    let Request::Put(mut put) = values.put() else { unreachable!() };
    put.value = Some(Bytes::from_static(b"find me here"));
    let frame = only_frame(request_bytes(&Request::Put(put)));
    let Ok(Request::Put(read)) = decode_request(&frame) else { panic!("a put") };
    assert!(frame.payload.as_ptr_range().contains(&read.value.unwrap().as_ptr()));
}

#[test]
fn a_claimed_length_is_refused_before_the_body_arrives_and_reserves_nothing() {
    for claim in [u32::MAX, limits::FRAME_PAYLOAD_BYTES as u32 + 17] {
        let mut buffer = BytesMut::from(&claim.to_le_bytes()[..]);
        let capacity = buffer.capacity();
        let refused = frame::decode(&mut buffer, limits::FRAME_PAYLOAD_BYTES);
        assert!(matches!(refused, Err(FrameError::TooLong { .. })), "{refused:?}");
        assert_eq!(buffer.capacity(), capacity);
    }
    // The largest that is allowed is waited for, and still reserves nothing.
    let claim = limits::FRAME_PAYLOAD_BYTES as u32 + 16;
    let mut buffer = BytesMut::from(&claim.to_le_bytes()[..]);
    let capacity = buffer.capacity();
    assert_eq!(frame::decode(&mut buffer, limits::FRAME_PAYLOAD_BYTES), Ok(None));
    assert_eq!(buffer.capacity(), capacity);
}

#[test]
fn counts_and_lengths_within_a_payload_are_refused_above_their_bounds() {
    let got = |count: u64| {
        let mut payload = vec![0; 44];
        payload.put_varint(0);
        payload.put_varint(count);
        decode_response(&bare(Kind::Got, payload))
    };
    let refused = got(limits::SIBLINGS_DECODE as u64 + 1).unwrap_err();
    assert_eq!(refused.to_string(), "values of 4097 is above the limit of 4096");
    let short = got(limits::SIBLINGS_DECODE as u64).unwrap_err();
    assert_eq!(short.to_string(), "the bytes end in the middle of dot");

    let mut failed = vec![1, 0, 0, 0, 0, 0, 0, 0, 0];
    failed.put_varint(u64::MAX);
    let refused = decode_response(&bare(Kind::Failed, failed)).unwrap_err();
    assert!(refused.to_string().starts_with("context of 18446744073709551615"), "{refused}");
}

#[test]
fn a_count_of_replicas_out_of_range_is_refused_rather_than_taken_for_another_level() {
    let mut values = Values::new(5);
    for count in [0, limits::REPLICAS_MAX + 1, 0xfe, 0xff] {
        let Request::Get(get) = values.get() else { unreachable!() };
        let wrong = Request::Get(Get { r: Level::Count(count), ..get });
        let refused = decode_request(&only_frame(request_bytes(&wrong))).unwrap_err();
        assert_eq!(refused.to_string(), "not a valid level", "{count}");
    }
}

#[test]
fn a_budget_above_the_longest_reads_as_the_longest() {
    let mut values = Values::new(6);
    let Request::Read(read) = values.read() else { unreachable!() };
    let long = Request::Read(Read { budget_ms: u32::MAX, ..read.clone() });
    let longest = Request::Read(Read { budget_ms: limits::BUDGET_MS_MAX, ..read });
    assert_eq!(decode_request(&only_frame(request_bytes(&long))).unwrap(), longest);
}

#[test]
fn a_condition_only_goes_with_an_observed_basis() {
    let mut values = Values::new(7);
    let Request::Put(put) = values.put() else { unreachable!() };
    let wrong = Put { basis: Basis::Blind, condition: Condition::Absent, ..put };
    assert!(decode_request(&only_frame(request_bytes(&Request::Put(wrong)))).is_err());
}

#[test]
fn a_message_that_fits_no_frame_is_reported_and_leaves_the_buffer_as_it_was() {
    let mut values = Values::new(8);
    let object = Bytes::from(vec![0; limits::FRAME_PAYLOAD_BYTES]);
    let Request::Write(write) = values.write() else { unreachable!() };
    let mut out = BytesMut::from(&b"before"[..]);
    let refused = encode_request(
        &mut out,
        1,
        Marks::NONE,
        &Request::Write(Write { object: object.clone(), ..write }),
    );
    assert!(matches!(refused, Err(Oversize { most: limits::FRAME_PAYLOAD_BYTES, .. })));
    assert_eq!(&out[..], b"before");

    let held = Response::Held(Held { object: HeldObject::Full(object), amnesiac: false });
    let Ok(Response::Failed(failure)) = decode_response(&only_frame(response_bytes(&held))) else {
        panic!("an answer that does not fit becomes a failure");
    };
    assert_eq!(failure.code, FailureCode::TooLarge);
}

#[test]
fn texts_and_traces_are_cut_to_what_a_decoder_takes() {
    let message = "é".repeat(limits::MESSAGE_BYTES);
    let failed = Response::Failed(Failure::not_applied(FailureCode::Internal, message));
    let Ok(Response::Failed(read)) = decode_response(&only_frame(response_bytes(&failed))) else {
        panic!("a failure");
    };
    assert_eq!(read.message.len(), limits::MESSAGE_BYTES);

    let mut values = Values::new(9);
    let Response::Got(got) = values.got() else { unreachable!() };
    let hop = Hop { node: ringdove::ids::NodeId(1), micros: 2, what: "x".to_owned() };
    let long = Response::Got(Got { trace: vec![hop; 1000], ..got });
    let Ok(Response::Got(read)) = decode_response(&only_frame(response_bytes(&long))) else {
        panic!("an answer");
    };
    assert_eq!(read.trace.len(), ringdove::wire::codec::TRACE_HOPS);
}

#[test]
fn a_hello_that_makes_no_sense_is_refused() {
    let hello = |change: &dyn Fn(&mut Vec<u8>)| {
        let mut out = BytesMut::new();
        greeting::encode_hello(&mut out, &Values::new(10).hello());
        let mut payload = only_frame(out).payload.to_vec();
        change(&mut payload);
        greeting::decode_hello(&bare(Kind::Hello, payload)).map_err(|error| error.to_string())
    };
    assert!(hello(&|_| ()).is_ok());
    assert_eq!(hello(&|bytes| bytes[0] = b'G').unwrap_err(), "not a valid magic");
    assert_eq!(hello(&|bytes| bytes[8] = 0).unwrap_err(), "not a valid range of versions");
    assert_eq!(
        hello(&|bytes| (bytes[8], bytes[9]) = (3, 2)).unwrap_err(),
        "not a valid range of versions"
    );
    assert_eq!(hello(&|bytes| bytes[18] = 2).unwrap_err(), "not a valid role");
}

/// A frame that never was bytes: the checksum is passed by.
fn bare(kind: Kind, payload: Vec<u8>) -> Frame {
    Frame { kind, marks: Marks::NONE, id: 7, payload: payload.into() }
}

/// Reads a payload as what it claims to be. What reads must read the same again once written,
/// and where a layout is laid by hand be the very bytes.
fn decode_and_encode_again(frame: &Frame) {
    let written = match frame.kind {
        Kind::Hello | Kind::Welcome | Kind::Refused => {
            let Ok(greeting) = greeting::decode_greeting(frame) else { return };
            let mut out = BytesMut::new();
            match &greeting {
                Greeting::Hello(hello) => greeting::encode_hello(&mut out, hello),
                Greeting::Welcome(welcome) => greeting::encode_welcome(&mut out, welcome),
                Greeting::Refused(refused) => greeting::encode_refused(&mut out, refused),
            }
            out
        }
        Kind::GoAway => {
            let Ok(reason) = greeting::decode_goaway(frame) else { return };
            let mut out = BytesMut::new();
            greeting::encode_goaway(&mut out, &reason);
            out
        }
        Kind::Ping => {
            assert_eq!(greeting::decode_ping(frame).is_ok(), frame.payload.is_empty());
            return;
        }
        Kind::Pong => {
            let Ok(clock) = greeting::decode_pong(frame) else { return };
            let mut out = BytesMut::new();
            greeting::encode_pong(&mut out, 7, clock);
            out
        }
        kind if kind.is_request() => {
            let Ok(request) = decode_request(frame) else { return };
            let written = request_bytes(&request);
            assert_eq!(decode_request(&only_frame(written.clone())).unwrap(), request);
            // A budget above the longest was cut, and is not the very bytes.
            if budget_ms(&request) == Some(limits::BUDGET_MS_MAX) {
                return;
            }
            written
        }
        _ => {
            let Ok(response) = decode_response(frame) else { return };
            response_bytes(&response)
        }
    };
    if !matches!(frame.kind, Kind::Control | Kind::ControlReply) {
        assert_eq!(&written[frame::HEADER_BYTES..], &frame.payload[..]);
    }
}

fn budget_ms(request: &Request) -> Option<u32> {
    match request {
        Request::Get(get) => Some(get.budget_ms),
        Request::Put(put) => Some(put.budget_ms),
        Request::Read(read) => Some(read.budget_ms),
        Request::Write(write) => Some(write.budget_ms),
        Request::Control(_) => None,
    }
}

/// A valid payload of `kind`.
fn valid_payload(kind: Kind, values: &mut Values) -> Bytes {
    let mut out = BytesMut::new();
    match kind {
        Kind::Hello => greeting::encode_hello(&mut out, &values.hello()),
        Kind::Welcome => greeting::encode_welcome(&mut out, &values.welcome()),
        Kind::Refused => greeting::encode_refused(&mut out, &values.refused()),
        Kind::GoAway => greeting::encode_goaway(&mut out, "draining"),
        Kind::Ping => greeting::encode_ping(&mut out, 1),
        Kind::Pong => greeting::encode_pong(&mut out, 1, Instant(2)),
        Kind::Get => out = request_bytes(&values.get()),
        Kind::Put => out = request_bytes(&values.put()),
        Kind::Read => out = request_bytes(&values.read()),
        Kind::Write => out = request_bytes(&values.write()),
        Kind::Control => out = request_bytes(&values.control()),
        Kind::Got => out = response_bytes(&values.got()),
        Kind::Done => out = response_bytes(&values.done()),
        Kind::Held => out = response_bytes(&values.held()),
        Kind::Stored => out = response_bytes(&values.stored()),
        Kind::ControlReply => out = response_bytes(&values.control_reply()),
        Kind::Failed => out = response_bytes(&values.failed()),
    }
    only_frame(out).payload
}

fn damage(random: &mut Random, payload: &mut Vec<u8>) {
    for _ in 0..=random.below(3) {
        let at = random.below(payload.len() as u64) as usize;
        match random.below(4) {
            _ if payload.is_empty() => payload.push(random.next_u64() as u8),
            0 => payload[at] = random.next_u64() as u8,
            1 => payload[at] ^= 1 << random.below(8),
            2 => payload.truncate(at),
            _ => payload.insert(at, random.next_u64() as u8),
        }
    }
}

#[test]
fn no_payload_makes_a_decoder_panic() {
    for kind in Kind::ALL {
        let mut values = Values::new(*kind as u64);
        let seeds: Vec<Bytes> = (0..256).map(|_| valid_payload(*kind, &mut values)).collect();
        let random = &mut values.0;
        for turn in 0..PAYLOADS {
            let payload = if turn % 2 == 0 {
                (0..random.below(80)).map(|_| random.next_u64() as u8).collect()
            } else {
                let mut payload = seeds[random.below(256) as usize].to_vec();
                damage(random, &mut payload);
                payload
            };
            decode_and_encode_again(&bare(*kind, payload));
        }
    }
}

#[test]
fn no_stream_makes_the_frame_decoder_panic() {
    let mut random = Random::new(11);
    for _ in 0..PAYLOADS {
        let mut bytes: Vec<u8> = (0..random.below(60)).map(|_| random.next_u64() as u8).collect();
        // Half of them get through the first fields, so that the later ones are reached.
        if random.chance(50) && bytes.len() > 12 {
            bytes[..4].copy_from_slice(&(random.below(40) as u32 + 10).to_le_bytes());
            bytes[8..12].copy_from_slice(&[1, Kind::Get as u8, 0, 0]);
        }
        let _ = frame::decode(&mut BytesMut::from(&bytes[..]), limits::FRAME_PAYLOAD_BYTES);
    }
}
