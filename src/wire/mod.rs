//! The framed protocol: what nodes and clients say to each other, and its bytes.
//!
//! Three layers, each with its own file and its own error:
//!
//! ```text
//!   frame      where one message ends and the next begins; whole or damaged
//!   greeting   the first two frames of a connection, and the last
//!   clock      when a request was sent, by its receiver's clock
//!   codec      requests and answers, from and to the values in `messages`
//!   control    the payloads that are not hot: serde and bincode
//!   transfer   what moves when a partition changes hands, and its pages
//!   listing    pages of keys, and counts of them
//!   faults     what a node is told to do to itself, in tests
//!   reap       what is agreed on before deleted keys are forgotten
//! ```
//!
//! What always holds: every length and count is compared with its bound before anything is
//! allocated for it; keys are copied once, values never (they are slices of the frame); a
//! decoder takes the whole payload or nothing; no bytes make one panic. `docs/PROTOCOL.md`
//! states the layouts byte by byte, and the golden files under `tests/golden/wire` hold them still.

pub mod clock;
pub mod codec;
pub mod control;
pub mod faults;
pub mod frame;
pub mod greeting;
pub mod listing;
pub mod messages;
pub mod reap;
mod report;
mod settings;
mod survey;
pub mod sync;
pub mod transfer;

use crate::codec::CodecError;
use crate::key::KeyError;
use frame::Kind;

/// A whole, undamaged frame whose payload is not what its kind promises. It is the sender's
/// fault, nothing was changed, and the connection is still in step: the next frame can be read.
#[derive(Debug, thiserror::Error)]
pub enum WireError {
    /// The payload breaks the layout of its kind.
    #[error(transparent)]
    Payload(#[from] CodecError),
    /// A bucket or key breaks its fixed bounds.
    #[error(transparent)]
    Key(#[from] KeyError),
    /// A control message breaks its layout.
    #[error(transparent)]
    Control(#[from] control::ControlError),
    /// A frame of this kind has no place here.
    #[error("{0:?} has no place here")]
    Unexpected(Kind),
}
