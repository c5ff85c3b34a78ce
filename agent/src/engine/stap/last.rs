//! The last report, asked for while its reader still reads.
//!
//! In: a loaded module's name, how long it may take. Out: whether its last line came. Never: a wait without a bound, or one that
//! a module without the file for it would cost.
//!
//! SystemTap 4.6 to 5.1 may drop what is printed at the end: the threads that copy a module's output stop when the module says that
//! it is done, with what they have not read by then (PR31597; `reader_thread` in staprun/relay.c). So what there is left is
//! printed before the end (agent/probes/last.stp).

use super::run::{control, tell};
use std::io;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Notify;
use tokio::time::{Instant, timeout_at};

/// Printing takes milliseconds, and so does reading; a machine that has no time for it has the end as before. A lease's end
/// leaves 5 s for all.
pub(super) const COMES: Duration = Duration::from_millis(700);
/// A second reader (`staprun -A`) waits up to two seconds for messages that the first one has read.
pub(super) const COMES_AGAIN: Duration = Duration::from_millis(2_200);
/// A module that could not hear, because what it counts was being counted, is asked again.
const AGAIN: Duration = Duration::from_millis(100);

/// That the last line has come.
#[derive(Clone, Debug, Default)]
pub(super) struct LastLine(Arc<Notify>);

impl LastLine {
    /// It has.
    pub(super) fn came(&self) {
        self.0.notify_one();
    }
}

/// Has the module `name` count no more and print what it has, and waits for that. False where its end has to tell.
pub(super) async fn ask(name: &str, line: &LastLine, within: Duration) -> bool {
    let end = Instant::now() + within;
    let came = loop {
        let control = control(name);
        // Printing is done while the word is written.
        let told = tokio::task::spawn_blocking(move || words(&control));
        if !matches!(told.await, Ok(Ok(()))) {
            break false;
        }
        let next = end.min(Instant::now() + AGAIN);
        if timeout_at(next, line.0.notified()).await.is_ok() {
            break true;
        }
        if Instant::now() >= end {
            break false;
        }
    };
    tracing::debug!(name, came, "the last report");
    came
}

/// Two: what is being counted while the first one is heard is printed by the second.
fn words(control: &std::path::Path) -> io::Result<()> {
    tell(control, "stop")?;
    tell(&control.with_file_name("last"), "last")
}
