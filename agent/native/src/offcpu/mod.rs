//! Off-CPU: where threads wait, without BPF.
//!
//! In: context-switch events of the targets' threads. Out: waits with their stacks, as rows of the
//! recorder. Never: an event of a thread that is no target, more stacks than a thousand a second
//! on a CPU, a time that was not between two switches.
//!
//! ```text
//!  ring ─▶ capture ─▶ stacks ──▶ unwind ─▶ pair ─▶ waits ─▶ recorder
//!               └───▶ switches ────────────▲
//!  rate: /proc counts ─▶ every how manyth switch has a stack
//! ```

mod account;
mod channel;
mod idle;
mod pair;
mod rate;
mod waits;

pub use account::judge;
pub use channel::{SwitchChannel, SwitchSeen};
pub use idle::EventWait;
pub use pair::{Wait, WaitTotals};
pub use rate::{RateLook, STACKS_A_SECOND_MAX, strides, switches};
pub use waits::{Recorded, WaitWindow, Waiting, Waits};
