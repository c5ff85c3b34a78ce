//! The last report, asked for while its reader still reads.
//!
//! In: a loaded module's name. Out: whether its last line came. Never: a wait without a bound, or one that a module without
//! the file for it would cost.
//!
//! SystemTap 4.6 to 5.1 may drop what is printed at the end: the threads that copy a module's output stop when the module says that
//! it is done, with what they have not read by then (PR31597; `reader_thread` in staprun/relay.c). So what there is left is
//! printed before the end (agent/probes/last.stp).

use super::run::{control, tell};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Notify;

/// Printing takes milliseconds, and so does reading; a machine that has no time for it has the end as before. A lease's end
/// leaves 5 s for all.
const COMES: Duration = Duration::from_millis(700);

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
pub(super) async fn ask(name: &str, line: &LastLine) -> bool {
    let control = control(name);
    // Two words: what is being counted while the first one is heard is printed by the second.
    let asked = tell(&control, "stop").and_then(|()| tell(&control.with_file_name("last"), "last"));
    let came = asked.is_ok() && tokio::time::timeout(COMES, line.0.notified()).await.is_ok();
    tracing::debug!(name, ?asked, came, "the last report");
    came
}
