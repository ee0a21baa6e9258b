//! Which write has seen which: the versions of one key.
//!
//! Any replica takes a write for a key, at any time, without asking another. So two writes may
//! not know of each other, and then both must stay until somebody who saw both decides. Whether
//! one write saw another can't be read off clocks on walls; it is kept as data, as **dotted
//! version vectors** (Preguiça, Baquero, Almeida, Fonte and Gonçalves, "Dotted Version Vectors:
//! Logical Clocks for Optimistic Replication", 2010, and "Brief Announcement: Efficient Causality
//! Tracking in Distributed Storage Systems With Dotted Version Vectors", 2012).
//!
//! Every write gets a [`Dot`], the n-th write of an [`Actor`]. An [`Object`], what a replica holds
//! for a key, is a set of [`Sibling`]s, each under its dot, and one [`VersionVector`], the *clock*:
//! all dots this replica ever heard of. A reader takes the clock along as a [`Context`], and a
//! write that brings a context overwrites the siblings whose dots are in it, and no others. The
//! writer then has seen what it brought and its own dot, nothing else: a set with a gap, if others
//! wrote through the same replica, which is why a [`VersionVector`] can have gaps.
//!
//! ```text
//!                    replica A (actor a)                replica B (actor b)
//!
//! ann:  put "1"      {a:1}       a:1="1"
//!       A tells B    {a:1}       a:1="1"     ------->   {a:1}       a:1="1"
//! ann:  get at A  ->  "1", context {a:1}
//! bob:  get at B  ->  "1", context {a:1}
//! ann:  put "2"      {a:2}       a:2="2"
//! bob:  put "3"                                         {a:1, b:1}  b:1="3"
//!       merged       {a:2, b:1}  a:2="2" b:1="3"  <-->  the same
//! eve:  get       ->  "2" and "3", context {a:2, b:1}
//! eve:  put "5"      {a:3, b:1}  a:3="5"
//! kim:  put "6"      {a:4, b:1}  a:3="5" a:4="6"      context {a:4-4}: kim has not seen "5"
//! kim:  put "7"      {a:5, b:1}  a:3="5" a:5="7"      and replaces "6" only
//! ```
//!
//! Ann's and Bob's second writes both overwrote "1" and neither saw the other, so both stayed: B
//! had never heard of a:2 and took it, A had never heard of b:1 and took it. "1" did not come back
//! from anywhere, since every clock has a:1 in it: a dot that is in the clock while no sibling has
//! it is *dead*, and stays so.
//!
//! What always holds:
//! - the clock of an object contains the dots of all its siblings;
//! - merging is idempotent, commutative and associative (see [`Object::merge`] for why);
//! - one object has one encoding, and equal objects have equal digests;
//! - timestamps ([`Hlc`]) never decide what overwrites what, except where last-write-wins was
//!   asked for ([`Object::keep_latest`]).
//!
//! All of it rests on one promise of the caller: **a dot is never used twice**. A replica that may
//! have forgotten a dot it minted must become a new actor.

mod context;
mod encoding;
mod hlc;
mod names;
mod object;
mod version_vector;

pub use context::{Context, ContextError};
pub use encoding::digest_of;
pub use hlc::{Hlc, HybridClock, MAX_SKEW_MS};
pub use names::Names;
pub use object::{Content, Merge, Object, Sibling};
pub use version_vector::{Actor, Dot, VersionVector};
