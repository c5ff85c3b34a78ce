//! Somebody who knows all debug info, for texts whose frames are looked up. In: a place. Out: functions that are made
//! up from its numbers. Never: another answer to the same place.

use model::format::source::{CodePlace, DebugInfo, SourceFrame, SourceOptions, Untold};

/// Answers by the place's own numbers.
#[derive(Debug)]
pub struct Guess;

impl Guess {
    /// Everything is looked up.
    pub const BOTH: SourceOptions = SourceOptions {
        inlines: true,
        lines: true,
    };
}

impl DebugInfo for Guess {
    fn frames(&mut self, place: &CodePlace<'_>) -> Result<Vec<SourceFrame>, Untold> {
        let at = place.offset.or(place.address).unwrap_or(1);
        let frame = |i: u64| SourceFrame {
            function: if i.is_multiple_of(3) { String::new() } else { format!("f{i};") },
            file: "a;b.c".to_owned(),
            line: i as u32,
        };
        match at % 5 {
            0 => Err(Untold::NoDebugInfo),
            more => Ok((0..more).map(frame).collect()),
        }
    }

    fn build_id(&self, module: &[u8]) -> Option<String> {
        (!module.is_empty()).then(|| "id".to_owned())
    }
}
