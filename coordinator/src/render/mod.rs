//! What people look at: flame graphs, tables, reports, findings in words.
//!
//! In: a merged profile and a run's record. Out: text: SVG, folded stacks, Markdown, terminal
//! lines. Never: a picture without its coverage, a cut that is not told, a terminal escape from
//! a frame's name.

mod dress;
mod findings;
mod flame;
mod html;
mod overview;
mod printed;
mod report;
mod results;
mod table;
mod view;

pub use dress::Difference;
pub use findings::findings_text;
pub use flame::{DifferenceLook, Flame, FlameError, FlameOptions, flame, flame_difference};
pub use html::{Picture, report_html};
pub use overview::{heat_svg, overview_svg};
pub use report::report;
pub use results::write_all;
pub use table::{count, percent, printable, table};
pub use view::{Side, View, ViewBuilder};
