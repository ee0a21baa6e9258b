//! Where one message ends and the next begins, and whether it arrived whole.
//!
//! ```text
//!  0      4      8   9  10    12         20
//!  +------+------+---+---+-----+----------+---------------------+
//!  |length| crc32|ver|kind|flags|request id| payload             |
//!  +------+------+---+---+-----+----------+---------------------+
//!          <------------------ length --------------------------->
//!                 <--------------- crc32 ----------------------->
//! ```
//!
//! Of a request that says when it was sent, the 8 bytes behind the id are that time ([`Marks`]).
//! All numbers are little-endian. [`decode`] judges each field as soon as its bytes are there:
//! a length above the cap, an unknown version or kind is refused before the body arrives, and
//! nothing is ever reserved on the word of a length. After an error the stream is out of step
//! and its connection must be closed.

use bytes::{Buf, BufMut, Bytes, BytesMut};

use crate::time::Instant;

/// Bytes in front of the payload.
pub const HEADER_BYTES: usize = 20;
/// The newest version of the protocol that this build speaks. Also the version that the frames
/// of the greeting carry, for ever.
pub const VERSION: u8 = 1;
/// The oldest version that this build speaks: the one before the newest, once there are two.
pub const OLDEST_VERSION: u8 = 1;
/// The flag of [`Marks::forwarded`].
const FORWARDED: u16 = 1;
/// The flag of [`Marks::sent`].
const SENT: u16 = 2;
const SENT_BYTES: usize = 8;

const LENGTH_BYTES: usize = 4;
/// Where the bytes that the checksum covers begin.
const CHECKED_FROM: usize = 8;
const VERSION_AT: usize = 8;
const KIND_AT: usize = 9;
const FLAGS_AT: usize = 10;
const ID_AT: usize = 12;

macro_rules! kinds {
    ($($(#[$doc:meta])* $name:ident = $number:literal,)*) => {
        /// What a frame's payload is.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[repr(u8)]
        pub enum Kind {
            $($(#[$doc])* $name = $number,)*
        }

        impl Kind {
            /// All of them, in the order of their numbers.
            pub const ALL: &[Self] = &[$(Self::$name,)*];
        }

        impl TryFrom<u8> for Kind {
            type Error = FrameError;

            fn try_from(number: u8) -> Result<Self, FrameError> {
                match number {
                    $($number => Ok(Self::$name),)*
                    unknown => Err(FrameError::Kind(unknown)),
                }
            }
        }
    };
}

kinds! {
    /// The first frame of a connection, from whoever opened it.
    Hello = 1,
    /// The node takes the connection.
    Welcome = 2,
    /// The node does not, and closes it.
    Refused = 3,
    /// A client reads.
    Get = 16,
    /// A client writes or deletes.
    Put = 17,
    /// A coordinator asks a replica. Peers only.
    Read = 18,
    /// A coordinator gives a replica an object. Peers only.
    Write = 19,
    /// Anything that is not hot.
    Control = 20,
    /// Answers [`Kind::Get`].
    Got = 32,
    /// Answers [`Kind::Put`].
    Done = 33,
    /// Answers [`Kind::Read`].
    Held = 34,
    /// Answers [`Kind::Write`].
    Stored = 35,
    /// Answers [`Kind::Control`].
    ControlReply = 36,
    /// Answers any request that failed.
    Failed = 37,
    /// Asks whether anybody is there. Either side; no payload.
    Ping = 48,
    /// Answers [`Kind::Ping`], and says what the sender's clock shows.
    Pong = 49,
    /// The sender is about to stop: requests under way are still answered, new ones go elsewhere.
    GoAway = 50,
}

impl Kind {
    /// Whether it is a request, to be answered under its id.
    #[must_use]
    pub fn is_request(self) -> bool {
        (Self::Get..=Self::Control).contains(&self)
    }

    /// Whether it answers a request.
    #[must_use]
    pub fn is_response(self) -> bool {
        (Self::Got..=Self::Failed).contains(&self)
    }
}

/// What stands in a frame's header besides its kind and its id; both are a request's.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Marks {
    /// A node passed this request on for a client; the receiver must not pass it on again.
    pub forwarded: bool,
    /// When it was sent, by the receiver's clock ([`FarClock`](super::clock::FarClock)).
    pub sent: Option<Instant>,
}

impl Marks {
    /// None.
    pub const NONE: Self = Self { forwarded: false, sent: None };

    fn flags(self) -> u16 {
        let bit = |is_set: bool, flag| if is_set { flag } else { 0 };
        bit(self.forwarded, FORWARDED) | bit(self.sent.is_some(), SENT)
    }
}

/// One message, whole and undamaged.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frame {
    /// What the payload is.
    pub kind: Kind,
    /// What its header says of it.
    pub marks: Marks,
    /// Chosen by whoever asks; the answer carries the same.
    pub id: u64,
    /// The message's own bytes. Shares memory with the buffer it was read into.
    pub payload: Bytes,
}

/// The stream is damaged or its sender speaks something else. Nothing was taken from the buffer,
/// and nothing that follows can be trusted: close the connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    /// The length is below that of an empty frame.
    #[error("a frame of {0} bytes is shorter than its header")]
    TooShort(u32),
    /// The payload is longer than may be sent now.
    #[error("a payload of {actual} bytes is above the limit of {most}")]
    TooLong {
        /// Bytes of payload that were claimed.
        actual: u64,
        /// The bound in force on the connection.
        most: u64,
    },
    /// A version that was not agreed upon.
    #[error("protocol version {0}; this build speaks {OLDEST_VERSION} to {VERSION}")]
    Version(u8),
    /// No message has this number.
    #[error("unknown kind of frame {0}")]
    Kind(u8),
    /// A flag that no version known here has.
    #[error("unknown flags {0:#06x}")]
    Flags(u16),
    /// The bytes are not those that were sent.
    #[error("the checksum says {stated:08x}, the bytes say {actual:08x}")]
    Checksum {
        /// What the frame says.
        stated: u32,
        /// What its bytes give.
        actual: u32,
    },
}

/// Takes one frame off the front of `buffer`. `None` means that more bytes are needed; then
/// `buffer` is as it was, and nothing was reserved: memory follows the bytes that have arrived.
///
/// # Errors
/// [`FrameError`] as soon as the bytes that show it are there. `buffer` is as it was.
pub fn decode(buffer: &mut BytesMut, payload_cap: usize) -> Result<Option<Frame>, FrameError> {
    let Some(length) = u32_at(buffer, 0) else { return Ok(None) };
    let overhead = (HEADER_BYTES - LENGTH_BYTES) as u32;
    let payload = length.checked_sub(overhead).ok_or(FrameError::TooShort(length))?;
    if u64::from(payload) > payload_cap as u64 {
        return Err(FrameError::TooLong { actual: payload.into(), most: payload_cap as u64 });
    }
    let Some(&version) = buffer.get(VERSION_AT) else { return Ok(None) };
    if !(OLDEST_VERSION..=VERSION).contains(&version) {
        return Err(FrameError::Version(version));
    }
    let Some(&kind) = buffer.get(KIND_AT) else { return Ok(None) };
    let kind = Kind::try_from(kind)?;
    let Some(flags) = array_at(buffer, FLAGS_AT).map(u16::from_le_bytes) else { return Ok(None) };
    if flags & !(FORWARDED | SENT) != 0 {
        return Err(FrameError::Flags(flags));
    }
    let is_timed = flags & SENT != 0;
    if is_timed && (payload as usize) < SENT_BYTES {
        return Err(FrameError::TooShort(length));
    }
    let total = HEADER_BYTES + payload as usize;
    if buffer.len() < total {
        return Ok(None);
    }
    let (stated, actual) =
        (u32_at(buffer, LENGTH_BYTES), crc32fast::hash(&buffer[CHECKED_FROM..total]));
    if stated != Some(actual) {
        return Err(FrameError::Checksum { stated: stated.unwrap_or_default(), actual });
    }
    let mut frame = buffer.split_to(total).freeze();
    frame.advance(ID_AT);
    let id = frame.get_u64_le();
    let sent = is_timed.then(|| Instant(frame.get_u64_le()));
    let marks = Marks { forwarded: flags & FORWARDED != 0, sent };
    Ok(Some(Frame { kind, marks, id, payload: frame }))
}

/// Bytes of the first frame in `buffer`, once all of it is there. What cannot be the beginning of a
/// frame counts as one: [`decode`] refuses it.
#[must_use]
pub fn length(buffer: &[u8]) -> Option<usize> {
    let length = u32_at(buffer, 0)? as usize + LENGTH_BYTES;
    let lengths = HEADER_BYTES..=HEADER_BYTES + crate::limits::FRAME_PAYLOAD_BYTES;
    match lengths.contains(&length) {
        true => (buffer.len() >= length).then_some(length),
        false => Some(buffer.len()),
    }
}

fn array_at<const N: usize>(bytes: &[u8], at: usize) -> Option<[u8; N]> {
    bytes.get(at..)?.first_chunk().copied()
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    array_at(bytes, at).map(u32::from_le_bytes)
}

/// Puts one frame at the end of `out`. `write_payload` appends the payload and nothing else; its
/// length and checksum are filled in afterwards, so no second buffer is needed.
///
/// # Panics
/// When the payload has 4 GiB or more: callers keep far below that.
pub fn encode(
    out: &mut BytesMut,
    kind: Kind,
    marks: Marks,
    id: u64,
    write_payload: impl FnOnce(&mut BytesMut),
) {
    let start = out.len();
    out.put_u64_le(0);
    out.put_u8(VERSION);
    out.put_u8(kind as u8);
    out.put_u16_le(marks.flags());
    out.put_u64_le(id);
    if let Some(sent) = marks.sent {
        out.put_u64_le(sent.0);
    }
    write_payload(out);
    let length = u32::try_from(out.len() - start - LENGTH_BYTES);
    let length = length.expect("the bounds on messages keep a frame below 4 GiB");
    let crc = crc32fast::hash(&out[start + CHECKED_FROM..]);
    out[start..start + 4].copy_from_slice(&length.to_le_bytes());
    out[start + 4..start + 8].copy_from_slice(&crc.to_le_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ping(payload: &[u8]) -> BytesMut {
        let mut out = BytesMut::new();
        let marks = Marks { forwarded: true, sent: None };
        encode(&mut out, Kind::Ping, marks, 7, |out| out.put_slice(payload));
        out
    }

    #[test]
    fn a_frame_says_when_it_was_sent() {
        let mut buffer = BytesMut::new();
        let marks = Marks { forwarded: false, sent: Some(Instant(0x0102)) };
        encode(&mut buffer, Kind::Get, marks, 7, |out| out.put_slice(b"abc"));
        assert_eq!(buffer[HEADER_BYTES..][..SENT_BYTES], [2, 1, 0, 0, 0, 0, 0, 0]);
        let frame = decode(&mut buffer, 11).unwrap().unwrap();
        assert_eq!((frame.marks, frame.id, &frame.payload[..]), (marks, 7, &b"abc"[..]));
    }

    #[test]
    fn a_frame_reads_back_and_shares_the_memory_of_the_buffer() {
        let mut buffer = ping(b"abc");
        buffer.extend_from_slice(&ping(b""));
        let payload_at = buffer[HEADER_BYTES..].as_ptr();
        let frame = decode(&mut buffer, 3).unwrap().unwrap();
        assert_eq!((frame.kind, frame.marks.flags(), frame.id), (Kind::Ping, FORWARDED, 7));
        assert_eq!(&frame.payload[..], b"abc");
        assert_eq!(frame.payload.as_ptr(), payload_at);
        assert!(decode(&mut buffer, 3).unwrap().unwrap().payload.is_empty());
        assert_eq!(decode(&mut buffer, 3), Ok(None));
    }

    #[test]
    fn each_field_is_refused_as_soon_as_it_is_there() {
        let refused = |at: usize, bytes: &[u8]| {
            let mut buffer = ping(b"abc");
            buffer[at..at + bytes.len()].copy_from_slice(bytes);
            buffer.truncate(at + bytes.len());
            decode(&mut buffer, 3)
        };
        assert_eq!(refused(0, &15_u32.to_le_bytes()), Err(FrameError::TooShort(15)));
        let bomb = Err(FrameError::TooLong { actual: u64::from(u32::MAX) - 16, most: 3 });
        assert_eq!(refused(0, &[0xff; 4]), bomb);
        assert_eq!(
            refused(0, &20_u32.to_le_bytes()),
            Err(FrameError::TooLong { actual: 4, most: 3 })
        );
        assert_eq!(refused(8, &[0]), Err(FrameError::Version(0)));
        assert_eq!(refused(8, &[2]), Err(FrameError::Version(2)));
        assert_eq!(refused(9, &[4]), Err(FrameError::Kind(4)));
        assert_eq!(refused(10, &[4, 0]), Err(FrameError::Flags(4)));
        assert_eq!(refused(10, &[2, 0]), Err(FrameError::TooShort(19)), "no room for a time");
        assert_eq!(refused(10, &[0, 0x80]), Err(FrameError::Flags(0x8000)));
    }

    #[test]
    fn damage_anywhere_is_found() {
        let whole = ping(b"abc");
        for at in 4..whole.len() {
            let mut buffer = whole.clone();
            buffer[at] ^= 0x10;
            assert!(decode(&mut buffer, 3).is_err(), "byte {at}");
        }
    }

    #[test]
    fn every_kind_has_its_number_and_no_other_number_is_a_kind() {
        let known: Vec<u8> = (0..=u8::MAX).filter(|n| Kind::try_from(*n).is_ok()).collect();
        let listed: Vec<u8> = Kind::ALL.iter().map(|kind| *kind as u8).collect();
        assert_eq!(known, listed);
        for kind in Kind::ALL {
            assert!(!(kind.is_request() && kind.is_response()));
        }
    }
}
